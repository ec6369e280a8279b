#!/bin/sh
# What many have: stop all, wait a little, start all on the same ports.
# stop-sleep-start.sh TREE FIRST_PORT COUNT
set -eu
cd "$1"
last=$(($2 + $3 - 1))
for port in $(seq "$2" "$last"); do kill "$(cat "worker-$port.pid")" || true; done
sleep 2
for port in $(seq "$2" "$last"); do
  /usr/bin/python3 -S -E worker.py "$port" >>worker.log 2>&1 </dev/null &
  echo $! >"worker-$port.pid"
done
