/** What may hide a brace in Lua, and the braces; the last alternatives are beginnings without an end. Bounded, so that no text exhausts the stack. */
const PIECES = /--\[(=*)\[[^]*?\]\1\]|--(?!\[=*\[)[^\n]*|\[(=*)\[[^]*?\]\2\]|"(?:[^"\\\r\n]+|\\[^]){0,65536}"|'(?:[^'\\\r\n]+|\\[^]){0,65536}'|[{}]|--\[=*\[|\[=*\[|["']/g;

/**
 * Where a block of Lua ends that begins at byte `from`, behind its `{`: the offset past its `}`; undefined when there is no end.
 * Strings, long brackets and comments hide braces. Source: the Lua 5.1 manual, section 2.1.
 */
export function endOfLua(bytes: Buffer, from: number): number | undefined {
  // One character a byte, so that places are offsets.
  const text = bytes.toString('latin1');
  PIECES.lastIndex = from;
  let depth = 1;
  for (let piece = PIECES.exec(text); piece !== null; piece = PIECES.exec(text)) {
    const [found] = piece;
    if (found === '{') depth++;
    else if (found === '}') depth--;
    else if (found === '"' || found === "'" || /^(?:--)?\[=*\[$/.test(found)) return undefined;
    if (depth === 0) return PIECES.lastIndex;
  }
  return undefined;
}
