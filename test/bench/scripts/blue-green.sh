#!/bin/sh
# What the careful write themselves: start on the other ports, wait with curl, rewrite the upstream, reload, kill the old. It updates nothing.
# blue-green.sh TREE OLD_FIRST_PORT NEW_FIRST_PORT COUNT UPSTREAM_FILE NGINX_PREFIX
set -eu
cd "$1"
for port in $(seq "$3" $(($3 + $4 - 1))); do
  /usr/bin/python3 -S -E worker.py "$port" >>worker.log 2>&1 </dev/null &
  echo $! >"worker-$port.pid"
done
for port in $(seq "$3" $(($3 + $4 - 1))); do
  tries=0
  until curl -fs -o /dev/null "http://127.0.0.1:$port/healthz"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || exit 1
    sleep 0.1
  done
done
{
  echo 'upstream myweb {'
  for port in $(seq "$3" $(($3 + $4 - 1))); do echo "    server 127.0.0.1:$port;"; done
  echo '}'
} >"$5"
/usr/sbin/nginx -p "$6" -c "$6/nginx.conf" -s reload
for port in $(seq "$2" $(($2 + $4 - 1))); do
  [ ! -f "worker-$port.pid" ] || kill "$(cat "worker-$port.pid")" || true
  rm -f "worker-$port.pid"
done
