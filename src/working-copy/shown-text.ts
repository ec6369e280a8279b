/** Text of svn, git or a repository, fit for a message: no password in a URL, no control character. */
export function shownText(text: string): string {
  return text
    // A token may stand alone before the `@` of a web address, so there the whole userinfo goes.
    .replace(/\b(https?:\/\/)[^\s/]*@/gi, '$1***@')
    .replace(/(:\/\/[^\s/:@]*):[^\s/]*@/g, '$1:***@')
    // oxlint-disable-next-line no-control-regex
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '?');
}

/** The last lines that a command said, for a message. */
export function lastWords(stderr: string): string {
  const lines = shownText(stderr).split('\n').map(line => line.trim()).filter(line => line !== '');
  return lines.slice(-5).join(' | ');
}

/** `a.txt, b.txt and 3 more`: a message names ten files at most. */
export function namedFiles(paths: readonly string[]): string {
  const named = paths.slice(0, 10).map(path => shownText(path).replaceAll('\n', '?')).join(', ');
  return paths.length > 10 ? `${named} and ${paths.length - 10} more` : named;
}
