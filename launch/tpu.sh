#!/usr/bin/env bash
# main.py on a TPU VM or pod, through queued resources. Needs gcloud, logged in.
#   launch/tpu.sh create|sync|delete
#   launch/tpu.sh run|watch --config=configs/uncrop.py --workdir=gs://BUCKET/uncrop
# `watch` does it all: it creates what is missing, runs, recreates and resumes after a
# preemption, and deletes the machine in the end or at the age of TPU_MAX_HOURS.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat >&2 <<'USAGE'
usage: launch/tpu.sh create|sync|run|watch|delete [flags of main.py]
  TPU_NAME       name of the request and of the machine
  TPU_ZONE       such as us-central2-b
  TPU_TYPE       such as v5litepod-16                   (to create)
  TPU_VERSION    of the image, such as v2-alpha-tpuv5-lite  (to create)
  TPU_MAX_HOURS  whole hours until it is deleted        (to create)
  TPU_SPOT       1 (default): may be preempted; 0: on demand
  TPU_POLL       seconds between looks of watch; default 60
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
  need TPU_TYPE TPU_VERSION TPU_MAX_HOURS
  [[ $TPU_MAX_HOURS =~ ^[1-9][0-9]*$ ]] ||
    fail "expected TPU_MAX_HOURS to be a whole number above 0, got '$TPU_MAX_HOURS'; do export TPU_MAX_HOURS=24"
  [[ ${TPU_SPOT:-1} == [01] ]] ||
    fail "expected TPU_SPOT to be 0 or 1, got '$TPU_SPOT'; do export TPU_SPOT=1"
}

create() { # SECONDS
  local guard spot=()
  [[ ${TPU_SPOT:-1} == 0 ]] || spot=(--spot)
  guard=$(mktemp)
  # The machine ends itself, in case that nobody watches.
  cat >"$guard" <<GUARD
#!/bin/bash
(sleep $1; until gcloud compute tpus queued-resources delete $TPU_NAME \
  --zone=$TPU_ZONE --force --quiet; do sleep 60; done) &
GUARD
  queued create "$TPU_NAME" --node-id="$TPU_NAME" --accelerator-type="$TPU_TYPE" \
    --runtime-version="$TPU_VERSION" --valid-until-duration="${1}s" \
    --scopes=https://www.googleapis.com/auth/cloud-platform \
    --metadata-from-file=startup-script="$guard" ${spot[@]+"${spot[@]}"} || {
    rm -f "$guard"
    return 1
  }
  rm -f "$guard"
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
  on_workers all "mkdir -p palette_jax && tar -xzf palette.tar.gz -C palette_jax &&
    cd palette_jax && python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'"
}

run() {
  local flags
  printf -v flags '%q ' "$@"
  # 75 is a run that was told to stop and has saved: it goes on where it was.
  local loop="code=75; while [ \$code = 75 ]; do
    .venv/bin/python main.py $flags; code=\$?; done; echo \$code > run.exit"
  on_workers all "cd palette_jax && rm -f run.exit &&
    (setsid nohup bash -c $(printf %q "$loop") >run.log 2>&1 </dev/null &)"
}

state() { # Of the request; MISSING where there is none.
  local answer
  if answer=$(queued describe "$TPU_NAME" --format='value(state.state)' 2>&1); then
    echo "$answer"
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo MISSING
  else
    echo "$answer" >&2
    echo UNKNOWN # The network, or the service: ask again.
  fi
}

delete() { queued delete "$TPU_NAME" --force; }

# Says how the run ended: its exit code, nothing while it runs, `none` if none began.
ended() {
  on_workers 0 "cd palette_jax 2>/dev/null && cat run.exit 2>/dev/null ||
    { [ -e palette_jax/run.log ] || [ -e run.log ] || echo none; }" || true
}

watch() {
  local deadline now code
  deadline=$(($(date +%s) + TPU_MAX_HOURS * 3600))
  while true; do
    now=$(date +%s)
    if ((now >= deadline)); then
      delete || true
      fail "expected the run to end within $TPU_MAX_HOURS hours, got none; the machine is deleted: start again to go on"
    fi
    case $(state) in
    MISSING) create $((deadline - now)) || echo "cannot create it yet" >&2 ;;
    ACTIVE)
      code=$(ended)
      case $code in
      "") ;;
      none) sync_code && run "$@" || echo "cannot start yet" >&2 ;;
      0)
        delete
        echo "finished; the machine is deleted"
        return
        ;;
      *)
        on_workers 0 "tail -n 40 palette_jax/run.log" || true
        delete
        fail "expected the run to end with 0, got $code; its last lines are above, the machine is deleted"
        ;;
      esac
      ;;
    SUSPENDED | FAILED | PREEMPTED)
      echo "preempted: it is created anew, and the run goes on" >&2
      delete || true
      continue
      ;;
    esac
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
