const UNITS = {ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000} as const;

/** `200ms`, `30s`, `5m`, `1.5h` as milliseconds; undefined when it is not of that form. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text);
  if (match === null) return undefined;
  const [, amount, unit] = match;
  const ms = Number(amount) * UNITS[unit as keyof typeof UNITS];
  return Number.isFinite(ms) ? Math.round(ms) : undefined;
}

/** Milliseconds for people: `85 ms`, `1.2 s`, `5 m 10 s`. */
export function formatDuration(ms: number): string {
  if (Math.round(ms) < 1000) return `${Math.round(ms)} ms`;
  if (Math.round(ms / 100) < 600) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} m ${seconds % 60} s`;
}
