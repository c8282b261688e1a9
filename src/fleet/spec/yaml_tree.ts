/**
 * YAML text -> plain trees that know where each part stands. Aliases and merge keys are written out; what could cost without
 * end (size, documents, depth, nodes after expansion) is bounded.
 */
import {
  Alias,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  parseAllDocuments,
} from 'yaml';
import type { SourceAt } from './fleet_spec.ts';

export type YamlNode = YamlMap | YamlList | YamlScalar;

export interface YamlMap {
  readonly kind: 'map';
  readonly at: SourceAt;
  readonly entries: ReadonlyMap<string, YamlEntry>;
}

interface YamlEntry {
  /** Of the key. */
  readonly at: SourceAt;
  readonly value: YamlNode;
}

interface YamlList {
  readonly kind: 'list';
  readonly at: SourceAt;
  readonly items: readonly YamlNode[];
}

export interface YamlScalar {
  readonly kind: 'scalar';
  readonly at: SourceAt;
  readonly value: string | number | boolean | null;
  /** As written; of a quoted one what the quotes hold. */
  readonly text: string;
  readonly quoted: boolean;
}

export interface SourceFile {
  /** As errors name it. */
  readonly file: string;
  readonly text: string;
}

export interface YamlProblem {
  readonly at: SourceAt;
  readonly text: string;
}

export const YAML_LIMITS = { bytes: 1 << 20, documents: 1000, depth: 64, nodes: 100_000, tokens: 100_000 } as const;

/** Control characters that no YAML text has, and the mark of bytes that are no UTF-8. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const NOT_TEXT = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffd]/;

/** The documents of a text that are not empty. Problems are handed to `report`, never thrown. */
export function readYaml({ file, text }: SourceFile, report: (problem: YamlProblem) => void): YamlNode[] {
  const top: SourceAt = { file, line: 1, column: 1 };
  const bytes = Buffer.byteLength(text);
  if (bytes > YAML_LIMITS.bytes) {
    report({ at: top, text: `is ${bytes} bytes; at most ${YAML_LIMITS.bytes} are read` });
    return [];
  }
  const binary = NOT_TEXT.exec(text);
  if (binary !== null) {
    report({
      at: placeOf(file, text, binary.index),
      text: 'holds a byte that is not text; a fleet file is YAML in UTF-8',
    });
    return [];
  }
  const costly = tooCostly(text);
  if (costly !== null) {
    report({ at: placeOf(file, text, costly.offset), text: costly.why });
    return [];
  }
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false, merge: false });
  const documents: readonly Document[] = 'empty' in parsed ? [] : parsed;
  if (documents.length > YAML_LIMITS.documents) {
    report({ at: top, text: `has ${documents.length} documents; at most ${YAML_LIMITS.documents} are read` });
    return [];
  }
  return documents.flatMap((document) => {
    const tree = new TreeBuilder(file, lines, report).build(document);
    return tree === null ? [] : [tree];
  });
}

function placeOf(file: string, text: string, offset: number): SourceAt {
  const before = text.slice(0, offset).split('\n');
  return { file, line: before.length, column: (before.at(-1) as string).length + 1 };
}

/** Marks of the lexer that stand for no text. */
const SCALAR_FOLLOWS = '\u001f';
const MARKS = ['\u0002', '\u0018', SCALAR_FOLLOWS];

/**
 * The parser keeps every token and every error; a text of nothing but commas would occupy it for half a minute. The lexer takes
 * one token after the other, so it can stop.
 */
function tooCostly(text: string): { readonly offset: number; readonly why: string } | null {
  let [offset, tokens, depth] = [0, 0, 0];
  let before = '';
  for (const token of new Lexer().lex(text)) {
    const isSign = before !== SCALAR_FOLLOWS;
    if (isSign && (token === '[' || token === '{')) depth++;
    if (isSign && (token === ']' || token === '}')) depth = Math.max(0, depth - 1);
    before = token;
    if (++tokens > YAML_LIMITS.tokens)
      return { offset, why: `has more than ${YAML_LIMITS.tokens} words and signs up to here` };
    if (depth > YAML_LIMITS.depth) return { offset, why: `nested deeper than ${YAML_LIMITS.depth} levels` };
    if (!MARKS.includes(token)) offset += token.length;
  }
  return null;
}

/** Thrown inside of a document to give it up. */
class GaveUp extends Error {}

class TreeBuilder {
  private readonly anchors = new Map<string, Node>();
  private nodes = 0;
  private readonly file: string;
  private readonly lines: LineCounter;
  private readonly report: (problem: YamlProblem) => void;

  constructor(file: string, lines: LineCounter, report: (problem: YamlProblem) => void) {
    this.file = file;
    this.lines = lines;
    this.report = report;
  }

  build(document: Document): YamlNode | null {
    const [problem] = [...document.errors, ...document.warnings];
    if (problem !== undefined) {
      const deep = problem.message.includes('call stack');
      const why = deep ? `nested deeper than ${YAML_LIMITS.depth} levels` : `not YAML: ${problem.message}`;
      this.report({ at: this.at(problem.pos[0]), text: why });
      return null;
    }
    if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) return null;
    try {
      return this.node(document.contents, 0);
    } catch (error) {
      if (error instanceof GaveUp) return null;
      throw error;
    }
  }

  private node(node: Node | null, depth: number): YamlNode {
    const at = this.at(node?.range?.[0] ?? 0);
    if (++this.nodes > YAML_LIMITS.nodes) {
      this.giveUp(at, `more than ${YAML_LIMITS.nodes} values after aliases are written out`);
    }
    if (depth > YAML_LIMITS.depth) this.giveUp(at, `nested deeper than ${YAML_LIMITS.depth} levels`);
    if (node instanceof Alias) {
      const target = this.anchors.get(node.source);
      if (target === undefined) this.giveUp(at, `*${node.source} refers to no anchor before it, or to itself`);
      return this.node(target as Node, depth + 1);
    }
    const tree = this.tree(node, at, depth);
    const anchor = (node as { anchor?: string } | null)?.anchor;
    if (anchor !== undefined) this.anchors.set(anchor, node as Node);
    return tree;
  }

  private tree(node: Node | null, at: SourceAt, depth: number): YamlNode {
    if (isMap(node)) return { kind: 'map', at, entries: this.entries(node.items, depth) };
    if (isSeq(node)) return { kind: 'list', at, items: node.items.map((item) => this.node(item as Node, depth + 1)) };
    if (!isScalar(node)) return { kind: 'scalar', at, value: null, text: '', quoted: false };
    const value = node.value;
    const known = value === null || ['string', 'number', 'boolean'].includes(typeof value);
    if (!known) this.giveUp(at, 'a value of a kind that a fleet file does not have');
    const quoted = node.type !== undefined && node.type !== 'PLAIN';
    const text = quoted || node.source === undefined ? String(value) : node.source;
    return { kind: 'scalar', at, value: value as YamlScalar['value'], text, quoted };
  }

  private entries(pairs: readonly { key: unknown; value: unknown }[], depth: number): Map<string, YamlEntry> {
    const own = new Map<string, YamlEntry>();
    const merged = new Map<string, YamlEntry>();
    for (const { key, value } of pairs) {
      const at = this.at((key as Node | null)?.range?.[0] ?? 0);
      if (isAlias(key) || !isScalar(key) || key.value === null) this.giveUp(at, 'a key must be a word or a number');
      const name = keyText(key as { value: unknown; source?: string });
      const node = this.node(value as Node | null, depth + 1);
      if (name === '<<') this.merge(merged, node);
      else if (own.has(name)) {
        const first = own.get(name)?.at.line;
        this.report({ at, text: `"${name}" stands twice in one object, first in line ${first}` });
      } else own.set(name, { at, value: node });
    }
    for (const [name, entry] of merged) if (!own.has(name)) own.set(name, entry);
    return own;
  }

  /** `<<: *base`: what the object does not say itself; of several the first counts. */
  private merge(into: Map<string, YamlEntry>, node: YamlNode): void {
    for (const part of node.kind === 'list' ? node.items : [node]) {
      if (part.kind !== 'map') this.giveUp(part.at, '<< takes an object or a list of objects');
      for (const [name, entry] of (part as YamlMap).entries) if (!into.has(name)) into.set(name, entry);
    }
  }

  private at(offset: number): SourceAt {
    const { line, col } = this.lines.linePos(offset);
    return { file: this.file, line: Math.max(1, line), column: Math.max(1, col) };
  }

  private giveUp(at: SourceAt, text: string): void {
    this.report({ at, text });
    throw new GaveUp(text);
  }
}

function keyText(key: { value: unknown; source?: string }): string {
  return typeof key.value === 'string' ? key.value : (key.source ?? String(key.value));
}
