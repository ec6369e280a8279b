import {SYSTEM_PATH} from '../support/system-path.ts';
import {shellWord} from './quoting.ts';
import {serviceName, type ServiceFacts} from './service-files.ts';

/** The LSB init script: words to the command, and its exit codes to those of an init script. */
export function renderInitScript({config, deployer, node, script}: ServiceFacts): string {
  const name = serviceName(config.app);
  const root = deployer.uid === 0;
  return `#!/bin/sh
#
# chkconfig: 2345 84 16
# description: the workers of ${config.app}, behind nginx
#
### BEGIN INIT INFO
# Provides:          ${name}
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# X-Start-Before:    nginx
# X-Stop-After:      nginx
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: the workers of ${config.app}, behind nginx
# Description:       Starts and stops the workers of ${config.app}; nginx answers 502 in between.
#                    restart, reload, graceful and force-reload lose no request.
### END INIT INFO
#
# It starts the workers, and not \`osyw-deploy watch\`: after a stop nothing is to bring them back. Who wants them watched over without
# systemd lets init do it, by a line of /etc/inittab:
#   os:2345:respawn:${[node, script].map(shellWord).join(' ')} watch --quiet --config ${shellWord(config.file)}
# Where a watch runs the words here are done by it.

node=${shellWord(node)}
command=${shellWord(script)}
config=${shellWord(config.file)}
usage="Usage: $0 {start|stop|restart|condrestart|try-restart|reload|force-reload|graceful|status|fullstatus|configtest|help}"
PATH=${SYSTEM_PATH}

# Of the caller's environment nothing gets through, as at a boot.
osyw() {
  env -i PATH="$PATH" LC_ALL=C.UTF-8 ${root ? '' : '$as '}"$node" "$command" "$@" --config "$config"
}

# Ends with an init script's code for the command's own: 6 not configured (or never deployed), 1 anything else that failed.
finish() {
  osyw "$@"
  case $? in
    0) exit 0 ;;
    2 | 3) exit 6 ;;
    *) exit 1 ;;
  esac
}

state() {
  osyw status --quiet >/dev/null 2>&1
  echo $?
}

if [ $# -ne 1 ]; then
  echo "$usage" >&2
  exit 2
fi

case $1 in
  help)
    echo "$usage"
    exit 0
    ;;
  start | stop | restart | condrestart | try-restart | reload | force-reload | graceful | status | fullstatus | configtest) ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac

case $1 in *status) missing=4 ;; *) missing=5 ;; esac
for file in "$node" "$command"; do
  [ -f "$file" ] || { echo "$file is not installed" >&2; exit $missing; }
done
${root ? '' : `
# The state belongs to this account, and so does whatever is started.
as=
[ "$(id -u)" -eq 0 ] && as='setpriv --reuid=${deployer.uid} --regid=${deployer.gid} --init-groups --'
`}
case $1 in
  status | fullstatus | configtest) ;;
  *)
    case $(id -u) in
      ${root ? '0' : `0 | ${deployer.uid}`}) ;;
      *)
        echo "only root${root ? '' : ` and ${deployer.name}`} may do that" >&2
        exit 4
        ;;
    esac
    ;;
esac

case $1 in
  start | stop) finish "$1" ;;
  restart | graceful)
    [ "$(state)" -eq 3 ] && finish start
    finish restart
    ;;
  condrestart | try-restart)
    case $(state) in 1 | 3) exit 0 ;; esac
    finish restart
    ;;
  reload | force-reload)
    case $(state) in
      1 | 3)
        echo "${config.app} does not run" >&2
        exit 7
        ;;
    esac
    finish reload
    ;;
  status)
    text=$(osyw status 2>&1)
    code=$?
    echo "$text" | head -n 1
    exit $code
    ;;
  fullstatus)
    osyw status
    exit $?
    ;;
  configtest) finish config check ;;
esac
`;
}
