/**
 * A word of a unit, or of a line of tmpfiles.d. A dollar stands for itself only behind `ExecStart=:`.
 * Source: systemd.service(5) "Command lines", systemd.unit(5) "Specifiers", tmpfiles.d(5).
 */
export function systemdWord(text: string): string {
  return `"${text.replace(/[\\"]/g, '\\$&').replaceAll('%', '%%')}"`;
}

/** A word for a POSIX shell. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A pattern of logrotate's that fits this path alone; `pieces` are taken as they are. Source: logrotate(8), glob(7). */
export function logrotateWord(pattern: string): string {
  return `"${pattern.replaceAll('"', '\\"')}"`;
}

/** Text in which glob(3) sees no pattern. */
export function globText(text: string): string {
  return text.replace(/[\\*?[\]]/g, '\\$&');
}

/** No line of a unit, of tmpfiles.d or of logrotate can hold one. */
export function hasControlCharacter(text: string): boolean {
  return /[\x00-\x1f\x7f]/.test(text);
}
