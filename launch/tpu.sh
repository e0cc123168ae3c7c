#!/usr/bin/env bash
# main.py on a TPU VM or pod, through queued resources. Needs gcloud, logged in.
#   launch/tpu.sh create|sync|delete
#   launch/tpu.sh run|watch --config=configs/uncrop.py --workdir=gs://BUCKET/uncrop
# `watch` does it all: it creates the machine, runs, creates it again after a preemption,
# restarts a run that failed, and deletes the machine at the end of the run or at the age
# of TPU_MAX_HOURS.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat >&2 <<'USAGE'
usage: launch/tpu.sh create|sync|run|watch|delete [flags of main.py]
  TPU_NAME       name of the request and of the machine
  TPU_ZONE       such as us-west4-a
  TPU_TYPE       such as v5litepod-16                       (to create)
  TPU_VERSION    of the image, such as v2-alpha-tpuv5-lite  (to create)
  TPU_MAX_HOURS  whole hours until it is deleted            (to create)
  TPU_SPOT       1 (default): may be preempted; 0: on demand
  TPU_POLL       seconds between two checks of watch; default 60
  TPU_SETTLE     seconds that a failure must last before watch restarts; default 300
  TPU_RESTARTS   how often watch restarts a run that failed; default 5
USAGE
}

fail() {
  echo "error: $*" >&2
  exit 2
}

need() {
  local name
  for name in "$@"; do
    [[ -n ${!name:-} ]] || fail "expected $name to be set, got nothing; do export $name=..."
  done
}

queued() { gcloud compute tpus queued-resources "$@" --zone="$TPU_ZONE" --quiet; }

on_workers() { # WORKERS COMMAND
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$TPU_ZONE" --quiet \
    --worker="$1" --command="$2"
}

check_create() {
  local name
  need TPU_TYPE TPU_VERSION TPU_MAX_HOURS
  for name in TPU_SETTLE TPU_RESTARTS; do
    [[ ${!name:-0} =~ ^[0-9]+$ ]] ||
      fail "expected $name to be a whole number, got '${!name}'; do export $name=60"
  done
  [[ $TPU_MAX_HOURS =~ ^[1-9][0-9]*$ ]] ||
    fail "expected TPU_MAX_HOURS to be a whole number above 0, got '$TPU_MAX_HOURS'; do export TPU_MAX_HOURS=24"
  [[ ${TPU_SPOT:-1} == [01] ]] ||
    fail "expected TPU_SPOT to be 0 or 1, got '$TPU_SPOT'; do export TPU_SPOT=1"
}

create() { # SECONDS
  local guard errors spot=() status=0
  [[ ${TPU_SPOT:-1} == 0 ]] || spot=(--spot)
  guard=$(mktemp) errors=$(mktemp)
  # The machine deletes itself, in case `watch` no longer runs.
  cat >"$guard" <<GUARD
#!/bin/bash
(sleep $1; until gcloud compute tpus queued-resources delete $TPU_NAME \
  --zone=$TPU_ZONE --force --quiet; do sleep 60; done) &
GUARD
  queued create "$TPU_NAME" --node-id="$TPU_NAME" --accelerator-type="$TPU_TYPE" \
    --runtime-version="$TPU_VERSION" --valid-until-duration="${1}s" \
    --scopes=https://www.googleapis.com/auth/cloud-platform \
    --metadata-from-file=startup-script="$guard" ${spot[@]+"${spot[@]}"} \
    2>"$errors" || status=1
  cat "$errors" >&2
  # Asking again helps against a full zone or quota, but not against these.
  if ((status)) && grep -qE 'PERMISSION_DENIED|INVALID_ARGUMENT|UNAUTHENTICATED' "$errors"; then
    rm -f "$guard" "$errors"
    fail "expected Google Cloud to take the request, got the refusal above; correct TPU_TYPE, TPU_VERSION, TPU_ZONE or your permissions"
  fi
  rm -f "$guard" "$errors"
  return $status
}

sync_code() {
  local archive
  archive=$(mktemp)
  tar --exclude=.git --exclude=.venv --exclude=runs -czf "$archive" .
  gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:palette.tar.gz" \
    --zone="$TPU_ZONE" --quiet --worker=all || {
    rm -f "$archive"
    return 1
  }
  rm -f "$archive"
  # The images are Ubuntu 22.04 with Python 3.10, which is too old: uv brings its own.
  on_workers all "mkdir -p palette_jax && tar -xzf palette.tar.gz -C palette_jax &&
    cd palette_jax && python3 -m pip install -q --user -c requirements.txt uv &&
    { [ -e .venv ] || python3 -m uv venv -q --python 3.12 .venv; } &&
    python3 -m uv pip install -q --python .venv/bin/python -c requirements.txt -e '.[train,tpu]'"
}

# After a reboot, another process may have the number.
# shellcheck disable=SC2016  # For the shell of the host.
ALIVE='[ -e run.pid ] && grep -q main.py /proc/$(cat run.pid)/cmdline 2>/dev/null'

run() {
  local flags
  printf -v flags '%q ' "$@"
  # 75: the run has saved after a stop signal and can be resumed. The pid distinguishes a
  # run that a reboot ended from a running one.
  local loop="echo \$\$ > run.pid; code=75; while [ \$code = 75 ]; do
    .venv/bin/python main.py $flags; code=\$?; done; echo \$code > run.exit"
  on_workers all "cd palette_jax && if $ALIVE; then
    group=\$(cat run.pid); kill -- -\$group; for _ in \$(seq 60); do
    kill -0 -- -\$group 2>/dev/null || break; sleep 1; done
    kill -9 -- -\$group 2>/dev/null; fi; rm -f run.exit run.pid
    (setsid nohup bash -c $(printf %q "$loop") >run.log 2>&1 </dev/null &)"
}

answer() { # FORMAT COMMAND... : prints the answer of the service, MISSING or UNKNOWN.
  local format=$1 errors
  shift
  errors=$(mktemp) # Apart from the answer: gcloud also writes warnings there.
  if gcloud compute tpus "$@" --zone="$TPU_ZONE" --quiet \
    --format="value($format)" 2>"$errors"; then
    :
  elif grep -q NOT_FOUND "$errors"; then
    echo MISSING
  else
    cat "$errors" >&2
    echo UNKNOWN # The network, or the service: ask again.
  fi
  rm -f "$errors"
}

# The request stays ACTIVE when one host of the machine is preempted, so query both.
# Prints WAITING, MISSING, LOST, READY, UNHEALTHY or UNKNOWN.
state() {
  local request node
  request=$(answer state.state queued-resources describe "$TPU_NAME")
  case $request in
  MISSING | UNKNOWN) echo "$request" ;;
  SUSPENDED | FAILED | PREEMPTED) echo LOST ;;
  ACTIVE)
    node=$(answer "state,health" tpu-vm describe "$TPU_NAME")
    case $node in
    UNKNOWN) echo UNKNOWN ;;
    READY*UNHEALTHY* | READY*TIMEOUT*) echo UNHEALTHY ;;
    READY*) echo READY ;;
    PREEMPTED* | TERMINATED* | STOPPED* | MISSING) echo LOST ;;
    *) echo WAITING ;; # STARTING, RESTARTING, REPAIRING.
    esac
    ;;
  *) echo WAITING ;;
  esac
}

delete() { queued delete "$TPU_NAME" --force; }

# Prints the state of the run on the hosts as one word: none (nothing was started), alive,
# finished, failed (it ended with an error on a host, or died with its host), or
# unreachable.
progress() {
  local said
  # One word from each host, whatever gcloud prints around it.
  said=$(on_workers all "cd palette_jax 2>/dev/null || { echo run=none; exit 0; }
    if [ -e run.exit ]; then echo run=exit-\$(cat run.exit)
    elif [ ! -e run.pid ]; then echo run=none
    elif $ALIVE; then echo run=alive
    else echo run=dead; fi") || { echo unreachable; return; }
  said=$(grep -o 'run=[a-z0-9-]*' <<<"$said" | sort -u | tr '\n' ' ') || true
  case $said in
  "run=none ") echo none ;;
  "run=alive " | "run=alive run=exit-0 ") echo alive ;;
  "run=exit-0 ") echo finished ;;
  "") echo unreachable ;;
  *) echo failed ;;
  esac
}

start() { sync_code && run "$@"; }

watch() {
  local deadline now since=0 restarts=0 limit=${TPU_RESTARTS:-5} machine how
  deadline=$(($(date +%s) + TPU_MAX_HOURS * 3600))
  while true; do
    now=$(date +%s)
    if ((now >= deadline)); then
      delete || true
      fail "expected the run to end within $TPU_MAX_HOURS hours, got none; the machine is deleted: start again to go on"
    fi
    machine=$(state) how=""
    if [[ $machine == READY || $machine == UNHEALTHY ]]; then how=$(progress); fi
    case $machine-$how in
    MISSING-) create $((deadline - now)) || echo "cannot create it yet" >&2 ;;
    LOST- | UNHEALTHY-failed | UNHEALTHY-unreachable)
      echo "preempted: creating it again; the run goes on" >&2
      delete || true
      since=0
      continue
      ;;
    *-none) start "$@" || restarts=$((restarts + 1)) ;;
    *-alive | WAITING-) since=0 ;;
    *-finished)
      delete
      echo "finished; the machine is deleted"
      return
      ;;
    READY-*)
      # A preempted host ends the others before the service reports the preemption.
      ((since)) || since=$now
      if ((now - since >= ${TPU_SETTLE:-300})); then
        since=0 restarts=$((restarts + 1))
        if ((restarts <= limit)); then
          echo "the run is $how: restart $restarts of $limit" >&2
          if [[ $how == unreachable ]]; then delete || true; else start "$@" || true; fi
        fi
      fi
      ;;
    esac
    if ((restarts > limit)); then
      on_workers 0 "tail -n 40 palette_jax/run.log" || true
      delete
      fail "expected the run to end with 0, got '$how' after $limit restarts; its last lines are above, the machine is deleted"
    fi
    sleep "${TPU_POLL:-60}"
  done
}

command=${1:-}
[[ -n $command ]] || { usage; exit 2; }
shift
case $command in
create | sync | run | watch | delete) ;;
*) usage; fail "expected create, sync, run, watch or delete, got '$command'" ;;
esac
need TPU_NAME TPU_ZONE
command -v gcloud >/dev/null || fail "expected gcloud on the PATH, got none; install the Google Cloud CLI"
case $command in
run | watch) [[ $# -gt 0 ]] || fail "expected flags of main.py, got none; do $0 $command --config=... --workdir=gs://..." ;;
esac
case $command in
create) check_create; create $((TPU_MAX_HOURS * 3600)) ;;
sync) sync_code ;;
run) run "$@" ;;
watch) check_create; watch "$@" ;;
delete) delete ;;
esac
