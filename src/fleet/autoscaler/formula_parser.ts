/**
 * Text of a `scalingModifiers.formula` to a tree: the part of the language expr (expr-lang 1.17, as KEDA 2.21 uses it) that
 * works on numbers. Precedence, and what may not stand beside `??`, are that language's. The text is a user's: its length and
 * nesting are bounded, and what is not supported is refused with its place.
 */
import { TokenmillError } from '../../base/errors.ts';

/** `at` is where in the text, characters from 1. */
export type FormulaNode =
  | { readonly kind: 'literal'; readonly value: number | bigint | boolean | null; readonly at: number }
  | { readonly kind: 'name'; readonly name: string; readonly at: number }
  | { readonly kind: 'item'; readonly at: number }
  | { readonly kind: 'array'; readonly items: readonly FormulaNode[]; readonly at: number }
  | { readonly kind: 'unary'; readonly operator: string; readonly operand: FormulaNode; readonly at: number }
  | {
      readonly kind: 'binary';
      readonly operator: string;
      readonly left: FormulaNode;
      readonly right: FormulaNode;
      readonly at: number;
    }
  | {
      readonly kind: 'ternary';
      readonly test: FormulaNode;
      readonly yes: FormulaNode;
      readonly no: FormulaNode;
      readonly at: number;
    }
  | { readonly kind: 'call'; readonly name: string; readonly args: readonly FormulaNode[]; readonly at: number };

const MAX_LENGTH = 4096;
const MAX_DEPTH = 64;
const MAX_INT64 = 2n ** 63n - 1n;

const BINARY: Readonly<Record<string, number>> = {
  '||': 10,
  '&&': 15,
  '==': 20,
  '!=': 20,
  '<': 20,
  '>': 20,
  '<=': 20,
  '>=': 20,
  '+': 30,
  '-': 30,
  '*': 60,
  '/': 60,
  '%': 60,
  '**': 100,
  '??': 500,
};
const UNARY: Readonly<Record<string, number>> = { '!': 50, '-': 90, '+': 90 };

/** Other spellings of operators. */
const ALIASES: Readonly<Record<string, string>> = { and: '&&', or: '||', not: '!', '^': '**' };
const WORDS: ReadonlyMap<string, boolean | null> = new Map([
  ['true', true],
  ['false', false],
  ['nil', null],
]);
const TOKEN =
  /\s*(?:(?<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)|(?<name>[A-Za-z_$][\w$]*)|(?<operator>\*\*|\?\?|&&|\|\||[=!<>]=|[-+*/%^<>!?:(),[\]{}#]))/y;

interface Token {
  readonly kind: 'number' | 'name' | 'operator' | 'end';
  readonly text: string;
  readonly at: number;
}

export function formulaError(message: string, at: number): TokenmillError {
  return new TokenmillError('invalid_manifest', `scalingModifiers.formula: ${message} at position ${at}.`);
}

/** Whoever gives the text learns the place of the first thing wrong with it: `invalid_manifest`. */
export function parseFormula(text: string): FormulaNode {
  if (text.length > MAX_LENGTH) {
    throw formulaError(`longer than the ${MAX_LENGTH} characters it may have`, MAX_LENGTH + 1);
  }
  const parser = new Parser(tokenize(text));
  return parser.whole();
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  const end = text.trimEnd().length;
  for (let from = 0; from < end; from = TOKEN.lastIndex) {
    TOKEN.lastIndex = from;
    const groups = TOKEN.exec(text)?.groups;
    if (groups === undefined) {
      const at = from + (text.slice(from).search(/\S/) as number);
      throw formulaError(`unexpected ${JSON.stringify(text[at])}`, at + 1);
    }
    const { number, name, operator } = groups;
    const word = number ?? name ?? operator ?? '';
    const at = TOKEN.lastIndex - word.length + 1;
    const alias = Object.hasOwn(ALIASES, word) ? ALIASES[word] : undefined;
    if (number !== undefined) tokens.push({ kind: 'number', text: word, at });
    else if (name !== undefined && alias === undefined) tokens.push({ kind: 'name', text: word, at });
    else tokens.push({ kind: 'operator', text: alias ?? word, at });
  }
  tokens.push({ kind: 'end', text: '', at: end + 1 });
  return tokens;
}

class Parser {
  readonly tokens: readonly Token[];
  next = 0;
  depth = 0;

  constructor(tokens: readonly Token[]) {
    this.tokens = tokens;
  }

  whole(): FormulaNode {
    const node = this.expression(0);
    if (this.current.kind !== 'end') throw this.unexpected();
    return node;
  }

  private get current(): Token {
    return this.tokens[this.next] as Token;
  }

  private is(text: string): boolean {
    return this.current.kind === 'operator' && this.current.text === text;
  }

  private take(text: string): boolean {
    if (!this.is(text)) return false;
    this.next++;
    return true;
  }

  private expect(text: string): void {
    if (!this.take(text)) throw this.unexpected(`, where "${text}" was expected`);
  }

  private unexpected(more = ''): TokenmillError {
    const { kind, text, at } = this.current;
    return formulaError(`unexpected ${kind === 'end' ? 'end' : JSON.stringify(text)}${more}`, at);
  }

  private expression(precedence: number): FormulaNode {
    if (++this.depth > MAX_DEPTH) throw formulaError(`nested deeper than ${MAX_DEPTH}`, this.current.at);
    let left = this.prefix();
    let previous = '';
    for (;;) {
      const { kind, text: operator, at } = this.current;
      const strength = kind === 'operator' && Object.hasOwn(BINARY, operator) ? (BINARY[operator] as number) : -1;
      if (strength < precedence) break;
      if (previous === '??' && operator !== '??') {
        throw formulaError(`"${operator}" after "??" needs parentheses around one of them`, at);
      }
      this.next++;
      const right = this.expression(operator === '**' ? strength : strength + 1);
      left = { kind: 'binary', operator, left, right, at };
      previous = operator;
    }
    while (precedence === 0 && this.is('?')) {
      const { at } = this.current;
      this.next++;
      const yes = this.expression(0);
      this.expect(':');
      left = { kind: 'ternary', test: left, yes, no: this.expression(0), at };
    }
    this.depth--;
    return left;
  }

  private prefix(): FormulaNode {
    const { kind, text, at } = this.current;
    if (kind === 'end') throw this.unexpected();
    if (kind === 'operator' && Object.hasOwn(UNARY, text)) {
      this.next++;
      return { kind: 'unary', operator: text, operand: this.expression(UNARY[text] as number), at };
    }
    if (kind === 'operator') return this.bracket();
    this.next++;
    if (kind === 'number') return { kind: 'literal', value: numberOf(text, at), at };
    if (this.take('(')) return { kind: 'call', name: text, args: this.list(')'), at };
    const word = WORDS.get(text);
    return word === undefined ? { kind: 'name', name: text, at } : { kind: 'literal', value: word, at };
  }

  private bracket(): FormulaNode {
    const { at } = this.current;
    if (this.take('#')) return { kind: 'item', at };
    if (this.take('[')) return { kind: 'array', items: this.list(']'), at };
    // Braces may stand around the condition that any, count and others are given.
    const close = this.take('(') ? ')' : this.take('{') ? '}' : null;
    if (close === null) throw this.unexpected();
    const inner = this.expression(0);
    this.expect(close);
    return inner;
  }

  private list(close: string): FormulaNode[] {
    const items: FormulaNode[] = [];
    while (!this.take(close)) {
      if (items.length > 0) this.expect(',');
      items.push(this.expression(0));
    }
    return items;
  }
}

/** Whole numbers are int64 in this language and stay so until they meet a fraction. */
function numberOf(text: string, at: number): number | bigint {
  if (!/^\d+$/.test(text)) return Number(text);
  const whole = BigInt(text);
  if (whole > MAX_INT64) throw formulaError('a whole number that does not fit 64 bits', at);
  return whole;
}
