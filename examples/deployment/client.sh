#!/bin/sh
# Starts client N. It waits for the server, reconnects by itself, and ends when the run is complete.
#
#   sh client.sh N [KEYS] [STATE]               SERVER=fed.example.org:9092 for a server on another machine
set -eu
number=$1 keys=${2:-keys} state=${3:-state}
exec fedopt client --server "${SERVER:-127.0.0.1:9092}" --client "$number" \
    --ca "$keys/ca.crt" --key "$keys/client-$number.key" --state "$state"
