/**
 * Regular expressions from manifests, matched against what clients send: RE2's syntax and promise, as gateways on a cluster have
 * it. The pattern becomes a small program that is run on all its paths at once (Thompson 1968), so a match takes at most
 * length x program steps whatever the pattern; nothing backtracks. The whole text must match. Back-references, look-around,
 * \b and \p are refused by name.
 */
import { TokenmillError } from '../../base/errors.ts';

const MAX_PATTERN = 1024;
const MAX_PROGRAM = 2000;
/** Longer texts match nothing, in code units. */
const MAX_TEXT = 16_384;

/** Ranges of code units, both ends included. */
interface CharSet {
  readonly ranges: readonly (readonly [number, number])[];
  readonly negated: boolean;
}

type Node =
  | { readonly kind: 'chars'; readonly set: CharSet }
  | { readonly kind: 'sequence'; readonly parts: readonly Node[] }
  | { readonly kind: 'choice'; readonly parts: readonly Node[] }
  | { readonly kind: 'repeat'; readonly node: Node; readonly min: number; readonly max: number }
  | { readonly kind: 'start' }
  | { readonly kind: 'end' };

/** `split`: goes on at the next step and at `to`. */
type Step =
  | { readonly op: 'chars'; readonly set: CharSet }
  | { readonly op: 'split'; to: number }
  | { readonly op: 'jump'; to: number }
  | { readonly op: 'start' }
  | { readonly op: 'end' };

const ANY: CharSet = { ranges: [[10, 10]], negated: true };
const CLASSES: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  d: [[48, 57]],
  s: [
    [9, 10],
    [12, 13],
    [32, 32],
  ],
  w: [
    [48, 57],
    [65, 90],
    [95, 95],
    [97, 122],
  ],
};
const CONTROLS = new Map([
  ['n', 10],
  ['t', 9],
  ['r', 13],
  ['f', 12],
  ['v', 11],
]);

export class SafeRegex {
  private readonly steps: readonly Step[];

  /** @throws TokenmillError invalid_manifest, naming what the pattern uses and may not */
  constructor(pattern: string) {
    if (pattern.length > MAX_PATTERN) throw refused(pattern, `is longer than ${MAX_PATTERN} characters`);
    const emitter = new Emitter(pattern);
    emitter.emit(new Parser(pattern).parse());
    this.steps = emitter.steps;
  }

  /** Whether the whole text matches. */
  test(text: string): boolean {
    if (text.length > MAX_TEXT) return false;
    const { steps } = this;
    const seen = new Int32Array(steps.length).fill(-1);
    let now: number[] = [];
    let next: number[] = [];
    let done = this.follow(0, 0, text.length, seen, now);
    for (let at = 0; at < text.length; at++) {
      if (now.length === 0) return false;
      const code = text.charCodeAt(at);
      next.length = 0;
      done = false;
      for (const index of now) {
        const step = steps[index] as Step;
        if (step.op === 'chars' && holds(step.set, code)) {
          done = this.follow(index + 1, at + 1, text.length, seen, next) || done;
        }
      }
      [now, next] = [next, now];
    }
    return done;
  }

  /** Adds the `chars` steps reached from `from` without a character; true when the end of the program is. */
  private follow(from: number, at: number, length: number, seen: Int32Array, into: number[]): boolean {
    const stack = [from];
    let done = false;
    for (let index = stack.pop(); index !== undefined; index = stack.pop()) {
      const step = this.steps[index];
      if (step === undefined) {
        done = true;
        continue;
      }
      if (seen[index] === at) continue;
      seen[index] = at;
      if (step.op === 'chars') into.push(index);
      else if (step.op === 'jump') stack.push(step.to);
      else if (step.op === 'split') stack.push(step.to, index + 1);
      else if (at === (step.op === 'start' ? 0 : length)) stack.push(index + 1);
    }
    return done;
  }
}

function holds({ ranges, negated }: CharSet, code: number): boolean {
  for (const [from, to] of ranges) if (code >= from && code <= to) return !negated;
  return negated;
}

/** Writes the program. Every visit of a node counts, for repetitions of nothing make no step. */
class Emitter {
  readonly steps: Step[] = [];
  private readonly pattern: string;
  private visits = 0;

  constructor(pattern: string) {
    this.pattern = pattern;
  }

  emit(node: Node): void {
    if (++this.visits > 4 * MAX_PROGRAM || this.steps.length > MAX_PROGRAM) {
      throw refused(this.pattern, `needs more than ${MAX_PROGRAM} steps`);
    }
    if (node.kind === 'chars') this.steps.push({ op: 'chars', set: node.set });
    else if (node.kind === 'start') this.steps.push({ op: 'start' });
    else if (node.kind === 'end') this.steps.push({ op: 'end' });
    else if (node.kind === 'sequence') for (const part of node.parts) this.emit(part);
    else if (node.kind === 'choice') this.choice(node.parts);
    else {
      for (let i = 0; i < node.min; i++) this.emit(node.node);
      if (node.max === Number.POSITIVE_INFINITY) this.star(node.node);
      else for (let i = node.min; i < node.max; i++) this.optional(node.node);
    }
  }

  private choice(parts: readonly Node[]): void {
    const ends: { to: number }[] = [];
    for (const [i, part] of parts.entries()) {
      if (i === parts.length - 1) {
        this.emit(part);
        continue;
      }
      const split = this.split();
      this.emit(part);
      const jump = { op: 'jump' as const, to: 0 };
      this.steps.push(jump);
      ends.push(jump);
      split.to = this.steps.length;
    }
    for (const end of ends) end.to = this.steps.length;
  }

  private star(node: Node): void {
    const start = this.steps.length;
    const split = this.split();
    this.emit(node);
    this.steps.push({ op: 'jump', to: start });
    split.to = this.steps.length;
  }

  private optional(node: Node): void {
    const split = this.split();
    this.emit(node);
    split.to = this.steps.length;
  }

  private split(): { to: number } {
    const split = { op: 'split' as const, to: 0 };
    this.steps.push(split);
    return split;
  }
}

class Parser {
  private readonly pattern: string;
  private at = 0;
  private depth = 0;

  constructor(pattern: string) {
    this.pattern = pattern;
  }

  parse(): Node {
    const node = this.choice();
    if (this.at < this.pattern.length) throw refused(this.pattern, 'has a ) without its (');
    return node;
  }

  private choice(): Node {
    const parts = [this.sequence()];
    while (this.take('|')) parts.push(this.sequence());
    return parts.length === 1 ? (parts[0] as Node) : { kind: 'choice', parts };
  }

  private sequence(): Node {
    const parts: Node[] = [];
    for (let char = this.peek(); char !== undefined && char !== '|' && char !== ')'; char = this.peek()) {
      parts.push(this.repeated(this.atom()));
    }
    return { kind: 'sequence', parts };
  }

  private repeated(node: Node): Node {
    const bounds = this.bounds();
    if (bounds === null) return node;
    if (node.kind === 'start' || node.kind === 'end') throw refused(this.pattern, 'repeats ^ or $');
    // Lazy or not is the same when the whole text must match.
    this.take('?');
    if (this.bounds() !== null) throw refused(this.pattern, 'repeats a repetition');
    return { kind: 'repeat', node, min: bounds[0], max: bounds[1] };
  }

  private bounds(): readonly [number, number] | null {
    if (this.take('*')) return [0, Number.POSITIVE_INFINITY];
    if (this.take('+')) return [1, Number.POSITIVE_INFINITY];
    if (this.take('?')) return [0, 1];
    const counted = /^\{(\d{1,4})(,(\d{0,4}))?\}/.exec(this.pattern.slice(this.at, this.at + 12));
    if (counted === null) return null;
    this.at += counted[0].length;
    const min = Number(counted[1]);
    const max = counted[2] === undefined ? min : counted[3] === '' ? Number.POSITIVE_INFINITY : Number(counted[3]);
    if (max < min || min > 1000 || (max > 1000 && max !== Number.POSITIVE_INFINITY)) {
      throw refused(this.pattern, `repeats ${counted[0]}; at most 1000 and ascending`);
    }
    return [min, max];
  }

  private atom(): Node {
    const char = this.next();
    if (char === '(') return this.group();
    if (char === '[') return { kind: 'chars', set: this.set() };
    if (char === '.') return { kind: 'chars', set: ANY };
    if (char === '^') return { kind: 'start' };
    if (char === '$') return { kind: 'end' };
    if (char === '\\') return { kind: 'chars', set: this.escape() };
    if ('*+?'.includes(char)) throw refused(this.pattern, `has a ${char} with nothing before it`);
    return { kind: 'chars', set: one(char.charCodeAt(0)) };
  }

  private group(): Node {
    if (this.take('?') && !this.take(':')) {
      throw refused(this.pattern, `uses (?${this.peek() ?? ''}, which is not supported (only (...) and (?:...) are)`);
    }
    if (++this.depth > 50) throw refused(this.pattern, 'nests more than 50 groups');
    const node = this.choice();
    if (!this.take(')')) throw refused(this.pattern, 'has a ( without its )');
    this.depth--;
    return node;
  }

  private set(): CharSet {
    const negated = this.take('^');
    const ranges: (readonly [number, number])[] = [];
    for (let first = true; first || this.peek() !== ']'; first = false) {
      const from = this.member();
      if (typeof from !== 'number') {
        ranges.push(...from);
        continue;
      }
      const isRange = this.peek() === '-' && this.pattern[this.at + 1] !== ']';
      if (isRange) this.at++;
      const to = isRange ? this.member() : from;
      if (typeof to !== 'number' || to < from) throw refused(this.pattern, 'has a range in [] that does not ascend');
      ranges.push([from, to]);
    }
    this.at++;
    return { ranges, negated };
  }

  /** One code unit of a set, or the ranges of a class. */
  private member(): number | CharSet['ranges'] {
    const char = this.next();
    if (char === '[' && this.peek() === ':') throw refused(this.pattern, 'uses [: :], which is not supported');
    if (char !== '\\') return char.charCodeAt(0);
    const { ranges, negated } = this.escape();
    if (negated) return complement(ranges);
    const single = ranges[0] as readonly [number, number];
    return ranges.length === 1 && single[0] === single[1] ? single[0] : ranges;
  }

  private escape(): CharSet {
    const char = this.next();
    const ranges = CLASSES[char.toLowerCase()];
    if (/[dswDSW]/.test(char) && ranges !== undefined) return { ranges, negated: char !== char.toLowerCase() };
    const control = CONTROLS.get(char);
    if (control !== undefined) return one(control);
    const hex = /^x([0-9a-fA-F]{2})/.exec(char + this.pattern.slice(this.at, this.at + 2));
    if (hex !== null) {
      this.at += 2;
      return one(Number.parseInt(hex[1] as string, 16));
    }
    if (/[a-zA-Z0-9]/.test(char)) throw refused(this.pattern, `uses \\${char}, which is not supported`);
    return one(char.charCodeAt(0));
  }

  private peek(): string | undefined {
    return this.pattern[this.at];
  }

  private next(): string {
    const char = this.pattern[this.at++];
    if (char === undefined) throw refused(this.pattern, 'ends too early');
    return char;
  }

  private take(char: string): boolean {
    if (this.peek() !== char) return false;
    this.at++;
    return true;
  }
}

function one(code: number): CharSet {
  return { ranges: [[code, code]], negated: false };
}

function complement(ranges: CharSet['ranges']): CharSet['ranges'] {
  const rest: (readonly [number, number])[] = [];
  let from = 0;
  for (const [start, end] of ranges) {
    if (start > from) rest.push([from, start - 1]);
    from = end + 1;
  }
  return [...rest, [from, 0xffff]];
}

function refused(pattern: string, why: string): TokenmillError {
  return new TokenmillError('invalid_manifest', `The regular expression ${JSON.stringify(pattern)} ${why}.`, {
    remedy: 'Use the syntax of RE2 without classes of Unicode.',
  });
}
