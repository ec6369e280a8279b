/** `problem`: it loses requests, fails a deploy or leaks a secret. `warning`: it may, or it costs something. `note`: good to know. */
export type Level = 'ok' | 'note' | 'warning' | 'problem';

/** What one check saw. */
export interface Finding {
  /** Its name for scripts: kebab-case, the same in every version. */
  readonly check: string;
  readonly level: Level;
  /** What was seen, with the figure. Never a secret. */
  readonly says: string;
  /** What follows from it. */
  readonly means?: string;
  /** Commands, or lines of a file, exactly as they are to be typed; where there are none, what is to be done. Each problem has it. */
  readonly mend?: string;
  /** The file, or the key of the configuration, that it is about. */
  readonly place?: string;
}

/** `1 worker`, `2 workers`. */
export function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

export function megabytes(bytes: number): string {
  const size = bytes / 1024 / 1024;
  return size < 10 ? `${size.toFixed(1)} MB` : size < 10_000 ? `${Math.round(size)} MB` : `${(size / 1024).toFixed(1)} GB`;
}
