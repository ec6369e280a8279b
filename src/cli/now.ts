import {change, requester} from './change.ts';
import type {Context} from './context.ts';

/** `osyw-deploy now`: one deploy, in the foreground. That of the newest revision answers whatever lies in the spool, too. */
export function now(context: Context, options: {revision?: string; force?: boolean; wait: boolean}): Promise<number> {
  const answers = options.revision === undefined;
  return change(context, 'now', {wait: options.wait, answers}, ({filed, deploy}) => deploy({
    trigger: 'manual',
    requestedBy: requester(context),
    target: {kind: 'revision', wanted: options.revision},
    force: options.force === true,
    filed: answers ? filed() : [],
  }));
}
