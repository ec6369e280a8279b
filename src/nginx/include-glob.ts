/** What glob(3) matches for an `include` of nginx: `*` and `?` stay within a directory and pass over names that begin with a dot. */
export function globToRegExp(pattern: string): RegExp {
  let source = '';
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i] ?? '';
    const start = i === 0 || pattern[i - 1] === '/' ? '(?!\\.)' : '';
    const set = character === '[' ? /^\[([!^]?)(\]?[^\]]*)\]/.exec(pattern.slice(i)) : null;
    if (character === '*') source += `${start}[^/]*`;
    else if (character === '?') source += `${start}[^/]`;
    else if (character === '\\' && i + 1 < pattern.length) source += literal(pattern[++i] ?? '');
    else if (set === null) source += literal(character);
    else {
      source += `${start}[${set[1] === '' ? '' : '^/'}${(set[2] ?? '').replace(/[\\\]^[]/g, '\\$&')}]`;
      i += set[0].length - 1;
    }
  }
  try {
    return new RegExp(`^${source}$`, 's');
  } catch {
    return /(?!)/; // A set such as [z-a] holds nothing, for glob(3) either.
  }
}

function literal(character: string): string {
  return character.replace(/[.*+?^${}()|[\]\\/]/, '\\$&');
}
