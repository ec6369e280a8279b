import {change, requester} from './change.ts';
import type {Context} from './context.ts';

/** `osyw-deploy now`: one deploy, in the foreground. */
export function now(context: Context, options: {revision?: string; force?: boolean; wait: boolean}): Promise<number> {
  return change(context, 'now', {wait: options.wait}, ({deploy}) => deploy({
    trigger: 'manual',
    requestedBy: requester(context.env),
    target: {kind: 'revision', wanted: options.revision},
    force: options.force === true,
  }));
}
