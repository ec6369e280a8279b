/** Stands in the mark of every worker that is a unit, before its random part. */
export const UNIT_MARK = 'unit-';

/**
 * The unit of systemd that the worker of this id is; undefined for one that is a process.
 * Shape: `osyw/20261123-135054-a1b2c3/0/unit-0123456789ab` is `osyw-osyw-20261123-135054-a1b2c3-0-0123456789ab.service`.
 * Nobody else can know the random part, so what has that name is ours, be it that only the intent to start it is on record.
 */
export function unitOf(id: string): string | undefined {
  const [, app, deploy, slot, random] = /^([a-z0-9][a-z0-9_-]{0,62})\/([0-9a-z-]{1,64})\/(\d{1,4})\/unit-([0-9a-f]{12})$/.exec(id) ?? [];
  return app === undefined || deploy === undefined || slot === undefined || random === undefined ? undefined : `osyw-${app}-${deploy}-${slot}-${random}.service`;
}
