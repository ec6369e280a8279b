/**
 * Whether one of the paths is named by one of the globs, both relative to the top of the working copy. `*.py` is at the top only,
 * `src/**` is `src` and all below it; a glob without any wildcard is a name, and `src` means what `src/**` does.
 * The empty path is the top itself, which only a glob for everything names.
 */
export async function namesAny(globs: readonly string[], paths: readonly string[]): Promise<boolean> {
  // Loaded with the first question: most runs of the program have none.
  const {default: picomatch} = await import('picomatch');
  const named = globs.map(glob => {
    // Not by way of picomatch: it would take a `|` in a file's name for a choice.
    if (!picomatch.scan(glob).isGlob) return (path: string) => path === plain(glob) || path.startsWith(`${plain(glob)}/`);
    const matches = picomatch(glob, {dot: true});
    return (path: string) => (path === '' ? glob === '**' : matches(path));
  });
  return paths.some(path => named.some(names => names(path)));
}

/** A `\*` in a glob is a plain star. */
function plain(glob: string): string {
  return glob.replace(/\\(.)/gs, '$1');
}
