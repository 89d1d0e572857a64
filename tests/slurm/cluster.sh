#!/usr/bin/env bash
# A real Slurm on this machine, for tests: a controller and several node daemons with their own munge, all of whose files are in one folder.
#
#   cluster.sh available         says why there can be none, and ends with 1, or is silent
#   cluster.sh start FOLDER [N]  starts a controller and N nodes of two processors (4), and ends when all are idle
#   cluster.sh stop FOLDER       ends all of their processes
#
# Its clients are those with SLURM_CONF=FOLDER/slurm.conf. Debian's packages: slurm-wlm and munge. Run as root.
set -euo pipefail

need() {
    for program in slurmctld slurmd munged sbatch; do
        PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || { echo "$program is not installed (slurm-wlm and munge have it)."; return 1; }
    done
    [ "$(id -u)" = 0 ] || { echo "Node daemons of Slurm need root."; return 1; }
    slurmd -V >/dev/null 2>&1 || { echo "slurmd does not run here."; return 1; }
}

start() {
    local folder=$1 nodes=${2:-4} name port
    name=$(hostname -s)
    port=$((20000 + $$ % 20000))
    mkdir -p "$folder/state" "$folder/munge"
    chmod 755 "$folder" "$folder/munge"
    cat > "$folder/slurm.conf" <<CONF
ClusterName=lokr
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A task that is requeued waits until its credential has expired.
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/%n.spool
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/%n.log
NodeName=n[1-$nodes] NodeHostname=$name NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$folder/slurm.conf
    (umask 077; head -c 1024 /dev/urandom > "$folder/munge/key")
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/munged.pid" --seed-file="$folder/munge/seed" --log-file="$folder/munge/log"
    slurmctld -c
    for i in $(seq "$nodes"); do
        mkdir -p "$folder/n$i.spool"
        slurmd -N "n$i" -c
    done
    for _ in $(seq 300); do
        [ "$(sinfo --noheader --format=%D --states=idle 2>/dev/null)" = "$nodes" ] && return 0
        sleep 0.2
    done
    echo "The nodes are not idle." >&2
    sinfo >&2 || true
    tail -5 "$folder"/*.log >&2
    return 1
}

stop() {
    local folder=$1 file pid
    export SLURM_CONF=$folder/slurm.conf

    # What still runs is ended with its processes before its daemon is.
    timeout 10 scancel --signal=KILL --full --user=root 2>/dev/null || true
    timeout 10 scancel --user=root 2>/dev/null || true
    for _ in $(seq 100); do
        [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
        sleep 0.1
    done
    for file in "$folder"/slurmctld.pid "$folder"/n*.pid "$folder"/munge/munged.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}

export PATH=$PATH:/usr/sbin
case ${1:-} in
    available) need ;;
    start) shift; start "$@" ;;
    stop) stop "$2" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
