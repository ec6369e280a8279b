import {isUnchanged, takenPorts} from '../deploy/deploy.ts';
import {portsOf} from '../deploy/tools.ts';
import {readState} from '../state/state-file.ts';
import {wire} from '../wire.ts';
import {unifiedDiff} from '../upstream/unified-diff.ts';
import {readUpstream} from '../upstream/upstream-file.ts';
import {upstreamText} from '../upstream/upstream-text.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import type {Context} from './context.ts';

/** `osyw-deploy plan`: what `now` would do; changes nothing, in the state either. */
export async function plan(context: Context, {revision: wanted}: {revision?: string}): Promise<number> {
  const config = context.loadConfig();
  const state = readState(config.stateDir);
  const tools = wire(config, () => undefined);
  const revision = await resolveAside(config, wanted, context.signal);
  const {serving} = state;
  const unchanged = serving !== null && await isUnchanged(revision, state, tools);
  const ports = unchanged ? portsOf(serving) : await tools.workers.leasePorts(config.workers.count, takenPorts(state, tools), state.lastPort);
  const text = upstreamText(config);
  const file = text.file();
  const before = readUpstream(file);
  const diff = unchanged ? '' : unifiedDiff(before?.toString('utf8') ?? '', text.render(before, ports).toString('utf8'), file);
  const stops = unchanged || serving === null ? [] : serving.workers.map(({port, process: {pid}}) => ({port, pid}));
  const shown = {revision, outcome: unchanged ? 'unchanged' : 'deployed', ports, nginx: {file, diff}, stops};
  context.output.out(context.json ? `${JSON.stringify(shown)}\n` : tell(shown, serving?.release.revision));
  return 0;
}

function tell({revision, outcome, ports, nginx, stops}: {revision: string; outcome: string; ports: readonly number[]; nginx: {file: string; diff: string}; stops: readonly {port: number; pid: number}[]}, from: string | undefined): string {
  if (outcome === 'unchanged') return `${revision} serves already; nothing would be done\n`;
  return [
    `revision  ${from === undefined ? revision : `${from} → ${revision}`}`,
    `ports     ${ports.join(', ')}`,
    `stops     ${stops.map(({port, pid}) => `${port} (pid ${pid})`).join(', ') || 'nothing'}`,
    `nginx     ${nginx.file}`,
    nginx.diff === '' ? 'unchanged' : nginx.diff.trimEnd(),
    '',
  ].join('\n');
}
