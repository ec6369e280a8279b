/** A mode as chmod takes it: four digits. */
export function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}
