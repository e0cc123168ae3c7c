#!/usr/bin/env bash
# Makes this machine a SLURM cluster of one node, for tests: needs root and Debian.
#   tests/cluster/slurm.sh install|start|stop [FOLDER]
# FOLDER gets configuration, state and logs; nothing else on the machine is changed but
# the packages, and the daemons listen on ports of their own.
set -euo pipefail

folder=${2:-/tmp/palette_slurm}
host=$(hostname -s)

install_packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    munge slurmctld slurmd slurm-client
}

start() {
  mkdir -p "$folder/state" "$folder/spool" /run/munge
  cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=60
# A requeued job waits for as long as credentials live; two minutes by default.
AuthInfo=cred_expire=10
JobRequeue=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
  # Asked, since a machine that was switched off leaves the socket of a dead daemon.
  if ! timeout 10 munge --no-input >/dev/null 2>&1; then
    chown munge: /run/munge
    [[ -f /etc/munge/munge.key ]] || /usr/sbin/mungekey
    runuser -u munge -- /usr/sbin/munged --force
  fi
  export SLURM_CONF=$folder/slurm.conf
  slurmctld
  slurmd
  for _ in $(seq 60); do
    if [[ $(timeout 5 sinfo --noheader --format=%t 2>/dev/null) == idle* ]]; then
      return
    fi
    sleep 0.5
  done
  echo "error: the node did not come up; see $folder/*.log" >&2
  return 1
}

stop() {
  local name
  for name in slurmd slurmctld; do
    if [[ -f $folder/$name.pid ]]; then kill "$(<"$folder/$name.pid")" || true; fi
  done
}

case ${1:-} in
install) install_packages ;;
start) start ;;
stop) stop ;;
*)
  echo "usage: $0 install|start|stop [FOLDER]" >&2
  exit 2
  ;;
esac
