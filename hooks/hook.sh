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
# Others may write in the spool: a name that they can foresee they could take before us.
uuid=
read -r uuid </proc/sys/kernel/random/uuid
name=$$-${revision:-look}-$uuid
clean="env -i PATH=$PATH LC_ALL=C.UTF-8"

# The disk may hang, and a write that hangs cannot be killed: so it is not waited for longer than the timer runs.
in_time() {
  sleep 0.9 </dev/null >/dev/null 3>&- &
  timer=$!
  (
    cd /
    set -C
    "$@"
  ) </dev/null >/dev/null 3>&- &
  wait "$timer" || [ "$?" -gt 128 ] || sleep 1 # This one knows no fractions.
}
let_go() {
  read -r _ command _ parent _ <"/proc/$timer/stat" && [ "$command $parent" = "(sleep) $$" ] && kill -9 "$timer" # It may have inherited an ignored TERM.
}

# Durable before anything else is tried: written, synced, renamed, and the name synced, too. Into no directory of that name.
request() {
  umask "$3"
  if printf '{"version":1,"app":"%s","revision":"%s"}\n' "$1" "$revision" >"$2/.$name" && sync "$2/.$name" &&
    { mv -T "$2/.$name" "$2/$name.json" || { [ ! -d "$2/$name.json" ] && mv "$2/.$name" "$2/$name.json"; }; }; then
    sync "$2" || sync -f "$2/$name.json"
  else
    rm -f "$2/.$name"
    logger -t osyw-deploy -p user.err "$1: the request of ${revision:-a commit} could not be filed in $2"
    tell "$2/.$name.said" "the request for $1 could not be filed in $2"
  fi
}

# One process at most waits to deploy; whoever does reads the spool after it let the next one wait. flock ends with 100 for the others.
start() {
  me=$(id -u) app=$1 spool=$2 waits=$4 uid=$5 gid=$6 state=$7 groups=--init-groups
  set -- flock --nonblock --conflict-exit-code 100 --no-fork "$7/waiting" "$8" "$9" now --requested --quiet --config "${10}"
  case $me in
    "$uid") ;;
    0)
      setpriv --reuid "$uid" --regid "$gid" --init-groups true || groups=--clear-groups # An account without a name has none.
      set -- setpriv --reuid "$uid" --regid "$gid" "$groups" "$@" ;;
    *) set -- sudo -n -u "#$uid" "$@" ;;
  esac
  # systemd-run ends as what it ran, or with 1 when no systemd answers it. To start twice is harmless: the second finds nothing to do.
  [ "$me" != 0 ] || [ ! -d /run/systemd/system ] || set -- sh -c 'systemd-run --quiet --collect --scope "$@"; ended=$?; case $ended in 1 | 127) exec "$@" ;; esac; exit "$ended"' sh $clean "$@"
  set -- $clean setsid "$@"
  if [ "$waits" = 0 ]; then "$@" & else watch "$@" & fi
}

# With `hook.wait` the committer need not wait when what was started left the request, and no other process is at work: whose locks
# they are a committer may not ask, but that there are any.
watch() {
  "$@"
  ended=$?
  [ "$ended" != 100 ] && [ -e "$spool/$name.json" ] || return
  for lock in waiting lock; do
    inode=$(stat -c %i "$state/$lock") && grep -q ":$inode " /proc/locks && return
  done
  tell "$spool/.$name.said" "nobody deploys $app now, for what this hook started ended with $ended; its request waits. \`osyw-deploy hook status\` may say why"
}

# The last word to a committer who waits. Opened in both directions a pipe makes nobody wait.
tell() {
  [ ! -p "$1" ] || { printf '%s\n= 1\n' "osyw-deploy: $2"; rm -f "$1"; } 1<>"$1"
}

# With `hook.wait`: what the deploy says reaches the committer, and a failure is this hook's exit status. The pipe is open before
# there is a request, so nothing is lost, however soon its end is reached. In a spool of a group the group writes it.
listen() {
  [ "$4" != 0 ] || return 0
  in_time pipe "$@"
  if [ -p "$2/.$name.said" ]; then
    # A pipe opens for reading alone as soon as somebody writes: we do, no longer than that, or its reader would see our end for that of a deploy.
    { follow "$@" </dev/null >/dev/null & } 4<>"$2/.$name.said" 5<"$2/.$name.said" 4>&-
    listeners="$listeners $!"
  else
    printf '%s\n' "osyw-deploy: nobody can say how the deploy of $1 goes, if there is one: nothing can be made in $2" >&3
    osyw_status=1
  fi
}
pipe() {
  case $3 in 027) mkfifo -m 660 "$2/.$name.said" ;; *) mkfifo -m 600 "$2/.$name.said" ;; esac
  let_go
}
follow() {
  # Where the pipe has no name any more all has been said.
  { timeout --foreground --signal KILL "$4" cat "$2/.$name.said" || [ -e "$2/.$name.said" ] || cat <&5; } | {
    ended=none
    while IFS= read -r line; do
      kill -0 "$$" || exit # The committer did not want to wait.
      case $line in '= '*) ended=${line#= } ;; *) printf '%s\n' "$line" >&3 ;; esac
    done
    rm -f "$2/.$name.said"
    [ "$ended" != none ] || printf '%s\n' "osyw-deploy: $1 did not say within $4 s how its deploy went; it may go on" >&3
    [ "$ended" = 0 ]
  }
}

file() {
  applications request
  let_go
  applications start
}

listeners=
applications listen
in_time file
for listener in $listeners; do wait "$listener" || [ "$osyw_status" != 0 ] || osyw_status=1; done
