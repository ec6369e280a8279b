/** ESTABLISHED, SYN_RECV, CLOSE_WAIT: a peer may still send or await something. Source: include/net/tcp_states.h. */
const OPEN_STATES = new Set(['01', '03', '08']);

/** How many connections are open to each of these local ports. Ports without any are left out. */
export async function openConnections(ports: readonly number[]): Promise<Map<number, number>> {
  const counts = new Map<number, number>();
  for (const table of await Promise.all(['/proc/net/tcp', '/proc/net/tcp6'].map(readTable))) {
    for (const port of ports) {
      const needle = `:${port.toString(16).toUpperCase().padStart(4, '0')} `;
      for (let at = table.indexOf(needle); at !== -1; at = table.indexOf(needle, at + 1)) {
        const line = table.slice(table.lastIndexOf('\n', at) + 1, table.indexOf('\n', at));
        const [, local, , state] = line.trim().split(/\s+/);
        if (local?.endsWith(needle.trim()) === true && state !== undefined && OPEN_STATES.has(state)) {
          counts.set(port, (counts.get(port) ?? 0) + 1);
        }
      }
    }
  }
  return counts;
}

async function readTable(path: string): Promise<string> {
  const {readFile} = await import('node:fs/promises');
  try {
    return await readFile(path, 'latin1');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
    throw error;
  }
}
