#!/bin/sh
# Written by `osyw-deploy hook install`, taken away by `osyw-deploy hook uninstall`.
# Files a request ("look") for each application below and returns: it decides nothing, fails no commit, waits for no deploy.
applications() {
  : "$1" # APP SPOOL UMASK WAIT_SECONDS UID GID STATE_DIR NODE SCRIPT CONFIG
}

# A hook that was here before runs first, with the same arguments, input and environment (so no common name is assigned yet,
# which its caller may have exported); its exit status is ours.
osyw_status=0 osyw_input=
trap 'exit "$osyw_status"' 0
if [ -x "$0.before-osyw-deploy" ]; then
  case $0 in
    */post-receive)
      osyw_input=$(command -p cat && echo .) osyw_input=${osyw_input%.}
      printf %s "$osyw_input" 2>/dev/null | "$0.before-osyw-deploy" "$@" || osyw_status=$? ;;
    *) "$0.before-osyw-deploy" "$@" || osyw_status=$? ;;
  esac
fi
# Without a standard error the next line would end the shell.
[ -e /proc/self/fd/2 ] || exec 2>/dev/null
exec 3>&2 2>/dev/null 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-

# The revision is a hint, for the record alone: of many thousand refs the first are enough.
revision= count=0 newline='
'
case ${0##*/},$#,$osyw_input in
  post-commit,[23],) revision=r$2 ;;
  post-receive,*,) while [ "$count" -lt 1000 ] && read -r _ new _; do count=$((count + 1)) revision=$new; done ;;
  post-receive,*) input=${osyw_input%"$newline"} input=${input##*"$newline"} input=${input#* } revision=${input%% *} ;;
  *) { read -r _ ref <"${GIT_DIR:-.git}/HEAD" && read -r revision <"${GIT_DIR:-.git}/$ref"; } ;;
esac
case $revision in *[!r0-9a-f]* | 0000000*) revision= ;; esac

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
name=$$-${revision:-look}

# Durable before anything else is tried: written, synced, renamed, and the name synced, too.
request() {
  umask "$3"
  [ "$4" = 0 ] || mkfifo "$2/.$name.said"
  if printf '{"version":1,"app":"%s","revision":"%s"}\n' "$1" "$revision" >"$2/.$name" && sync "$2/.$name" && mv "$2/.$name" "$2/$name.json"; then
    sync "$2" || sync -f "$2/$name.json"
  else
    rm -f "$2/.$name" "$2/.$name.said"
    logger -t osyw-deploy -p user.err "$1: the request of ${revision:-a commit} could not be filed in $2"
  fi
}

# One process at most waits to deploy; whoever does reads the spool after it let the next one wait.
start() {
  me=$(id -u) uid=$5 gid=$6
  set -- flock --nonblock --no-fork "$7/waiting" "$8" "$9" now --requested --quiet --config "${10}"
  case $me in
    "$uid") ;;
    0) set -- setpriv --reuid "$uid" --regid "$gid" --init-groups "$@" ;;
    *) set -- sudo -n -u "#$uid" "$@" ;;
  esac
  [ "$me" != 0 ] || [ ! -d /run/systemd/system ] || set -- systemd-run --quiet --collect --scope "$@"
  env -i PATH="$PATH" LC_ALL=C.UTF-8 setsid "$@" &
}

# With `hook.wait`: what the deploy says reaches the committer, and a failure is this hook's exit status.
follow() {
  [ "$4" != 0 ] || return
  [ -p "$2/.$name.said" ] || { printf '%s\n' "osyw-deploy: the request for $1 could not be filed in $2" >&3; osyw_status=1; return; }
  ended=$(timeout --foreground "$4" cat "$2/.$name.said" | {
    while IFS= read -r line; do
      case $line in '= '*) ended=${line#= } ;; *) printf '%s\n' "$line" >&3 ;; esac
    done
    echo "${ended:-none}"
  })
  rm -f "$2/.$name.said"
  [ "$ended" != none ] || printf '%s\n' "osyw-deploy: $1 did not say within $4 s how its deploy went; it may go on" >&3
  [ "$ended" = 0 ] || [ "$osyw_status" != 0 ] || osyw_status=1
}

# The disk may hang, and a write that hangs cannot be killed: so it is not waited for longer than the timer runs.
sleep 1 </dev/null >/dev/null 3>&- &
timer=$!
(
  cd /
  set -C
  applications request
  read -r _ command _ parent _ <"/proc/$timer/stat" && [ "$command $parent" = "(sleep) $$" ] && kill -9 "$timer" # It may have inherited an ignored TERM.
  applications start
) </dev/null >/dev/null 3>&- &
wait "$timer"
applications follow
