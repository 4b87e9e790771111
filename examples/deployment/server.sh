#!/bin/sh
# Starts the server's run, continues it after a crash or a restart, and does nothing once it is complete.
#
#   sh server.sh [RUN] [KEYS] [EXPERIMENT]      LISTEN=0.0.0.0:9092 for clients on other machines
set -eu
run=${1:-run} keys=${2:-keys} experiment=${3:-$(dirname "$0")/experiment.toml}
listen=${LISTEN:-127.0.0.1:9092}
if [ -e "$run/summary.json" ]; then
    echo "the run in $run is complete; name another folder for a new one"
elif [ -e "$run/experiment.toml" ]; then
    exec fedopt server --listen "$listen" --keys "$keys" --resume "$run"
else
    exec fedopt server "$experiment" --listen "$listen" --keys "$keys" --out "$run"
fi
