export interface SvnElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly SvnElement[];
  readonly text: string;
}

/**
 * Reads what `svn --xml` writes: elements, attributes (in any order: svn keeps them in a hash) and text, nothing else.
 * Errors: when the document breaks off, as that of a killed svn does.
 */
export function parseSvnXml(xml: string): SvnElement {
  interface Open {name: string; attributes: Record<string, string>; children: SvnElement[]; text: string}
  const root: Open = {name: '', attributes: {}, children: [], text: ''};
  const open: Open[] = [root];
  for (const [, closing, name, attributes, empty, text] of xml.matchAll(/<(\/?)([A-Za-z][\w-]*)((?:\s+[\w:-]+\s*=\s*"[^"]*")*)\s*(\/?)>|<\?[^>]*\?>|([^<]+)/g)) {
    const current = open.at(-1);
    if (current === undefined) throw new Error('svn wrote XML that closes more than it opened');
    if (text !== undefined) {
      current.text += unescape(text);
    } else if (name !== undefined && closing === '/') {
      if (current.name !== name || open.length === 1) throw new Error(`svn wrote XML with an unexpected </${name}>`);
      open.pop();
    } else if (name !== undefined) {
      const element: Open = {name, attributes: readAttributes(attributes ?? ''), children: [], text: ''};
      current.children.push(element);
      if (empty !== '/') open.push(element);
    }
  }
  const [document] = root.children;
  if (open.length !== 1 || document === undefined) throw new Error('svn wrote XML that breaks off');
  return document;
}

export function childOf(element: SvnElement | undefined, name: string): SvnElement | undefined {
  return element?.children.find(child => child.name === name);
}

function readAttributes(text: string): Record<string, string> {
  const attributes: Record<string, string> = {};
  for (const [, name, value] of text.matchAll(/([\w:-]+)\s*=\s*"([^"]*)"/g)) {
    if (name !== undefined && value !== undefined) attributes[name] = unescape(value);
  }
  return attributes;
}

const ENTITIES: Readonly<Record<string, string>> = {lt: '<', gt: '>', amp: '&', quot: '"', apos: "'"};

function unescape(text: string): string {
  return text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (whole, hex: string | undefined, decimal: string | undefined, named: string | undefined) => {
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    return (named === undefined ? undefined : ENTITIES[named]) ?? whole;
  });
}
