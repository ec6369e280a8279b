/** How a program is started, as far as its processes show it. */
export interface SeenCommand {
  readonly port: number;
  /** The words of the command line. */
  readonly words: readonly string[];
  /** `PORT` in the environment that it was started with. */
  readonly portVariable: string | undefined;
}

export type RecognisedCommand =
  | {readonly kind: 'recognised'; readonly words: readonly string[]}
  /** Neither the command line nor `PORT` has the port of this one. */
  | {readonly kind: 'without port'; readonly seen: SeenCommand}
  | {readonly kind: 'different'; readonly first: readonly string[]; readonly second: readonly string[]};

/**
 * The one command that started all of these, pure: `python osyw.py 8811` and `python osyw.py 8812` are `python osyw.py {port}`.
 * A port counts wherever it stands as a whole number: `--port=8811`, `127.0.0.1:8811`, `worker-8811.log`.
 */
export function recogniseCommand(seen: readonly SeenCommand[]): RecognisedCommand {
  const templates: (readonly string[])[] = [];
  for (const one of seen) {
    const words = one.words.map(word => withPlaceholder(word, one.port));
    const named = words.some((word, i) => word !== one.words[i]);
    if (one.words.length === 0 || (!named && one.portVariable !== String(one.port))) return {kind: 'without port', seen: one};
    templates.push(words);
  }
  const [first = [], ...others] = templates;
  const second = others.find(words => words.length !== first.length || words.some((word, i) => word !== first[i]));
  return second === undefined ? {kind: 'recognised', words: first} : {kind: 'different', first, second};
}

function withPlaceholder(word: string, port: number): string {
  return word.replace(new RegExp(`(?<!\\d)${port}(?!\\d)`, 'g'), '{port}');
}

/**
 * A word that names one pid file for all (`--pid x.pid`, `--pidfile=x.pid`): at a switch the workers of two releases run side by side, and
 * the second to come finds the file of the first. Undefined where there is none, or the port is part of its name.
 */
export function sharedPidFile(words: readonly string[]): string | undefined {
  const at = words.findIndex(word => /^--?pid(?:-?file)?(?:=|$)/.test(word));
  const word = words[at];
  const shown = word === undefined || word.includes('=') ? word : `${word} ${words[at + 1] ?? ''}`;
  return shown?.includes('{port}') === true ? undefined : shown;
}
