/** Text of somebody else for a terminal: control characters, by which it could rewrite the screen, become visible. */
export function plainText(text: string): string {
  // Line feed and tab are kept: a failure is told in lines.
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, character => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
