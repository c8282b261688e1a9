/**
 * PromQL text to a tree, types checked, for the forms that scaling triggers use. What is not supported (subqueries, `@`, string
 * functions ...) is refused by name with its column. The text is a user's: length and nesting are bounded.
 */
import { AGGREGATORS, FUNCTIONS, UNSUPPORTED_AGGREGATORS } from './functions.ts';
import { type Grouping, type Matcher, type Matching, type QueryNode, queryError, type ValueType } from './query_ast.ts';
import { compileRegex } from './regex.ts';
import { durationMs, type Token, tokenize } from './tokens.ts';

const MAX_DEPTH = 64;
const MAX_RANGE_MS = 366 * 86_400_000;

const BINARY: Readonly<Record<string, number>> = {
  or: 1,
  and: 2,
  unless: 2,
  '==': 3,
  '!=': 3,
  '<': 3,
  '>': 3,
  '<=': 3,
  '>=': 3,
  '+': 4,
  '-': 4,
  '*': 5,
  '/': 5,
  '%': 5,
  '^': 7,
};
/** Between products and powers. */
const UNARY = 6;
const COMPARISON = 3;
const SET = 2;

const KEYWORDS: ReadonlySet<string> = new Set([
  ...['by', 'without', 'on', 'ignoring', 'group_left', 'group_right', 'offset', 'bool', 'and', 'or', 'unless', 'atan2'],
]);

/** `invalid_manifest` with the column of the first thing that is wrong. */
export function parseQuery(text: string): QueryNode {
  const parser = new Parser(tokenize(text));
  return parser.whole();
}

function typeOf(node: QueryNode): ValueType {
  switch (node.kind) {
    case 'number':
      return 'scalar';
    case 'selector':
      return node.rangeMs === null ? 'vector' : 'matrix';
    case 'negate':
      return typeOf(node.operand);
    case 'binary':
      return typeOf(node.left) === 'scalar' && typeOf(node.right) === 'scalar' ? 'scalar' : 'vector';
    case 'aggregate':
      return 'vector';
    case 'call':
      return FUNCTIONS.get(node.name)?.returns ?? 'vector';
  }
}

class Parser {
  readonly tokens: readonly Token[];
  next = 0;
  depth = 0;

  constructor(tokens: readonly Token[]) {
    this.tokens = tokens;
  }

  whole(): QueryNode {
    const node = this.expression(0);
    if (this.current.kind !== 'end') throw this.unexpected();
    if (typeOf(node) === 'matrix') throw queryError('a range of samples where one value is needed', node.at);
    return node;
  }

  private get current(): Token {
    return this.tokens[this.next] as Token;
  }

  private is(text: string): boolean {
    const { kind, text: seen } = this.current;
    return (kind === 'operator' || kind === 'name') && seen.toLowerCase() === text;
  }

  private take(text: string): boolean {
    if (!this.is(text)) return false;
    this.next++;
    return true;
  }

  private expect(text: string): void {
    if (!this.take(text)) throw this.unexpected(`, where "${text}" was expected`);
  }

  private unexpected(more = ''): Error {
    const { kind, text, at } = this.current;
    return queryError(`unexpected ${kind === 'end' ? 'end' : JSON.stringify(text)}${more}`, at);
  }

  private expression(least: number): QueryNode {
    if (++this.depth > MAX_DEPTH) throw queryError(`nested deeper than ${MAX_DEPTH}`, this.current.at);
    let left = this.unary();
    for (;;) {
      const { kind, text, at } = this.current;
      const operator = kind === 'name' ? text.toLowerCase() : text;
      if (operator === 'atan2' && kind === 'name') throw queryError('"atan2" is not supported', at);
      const isOperator = kind === 'operator' || kind === 'name';
      const strength = isOperator && Object.hasOwn(BINARY, operator) ? (BINARY[operator] as number) : -1;
      if (strength < least || strength < 0) break;
      this.next++;
      left = this.binary(left, operator, strength, at);
    }
    this.depth--;
    return left;
  }

  private binary(left: QueryNode, operator: string, strength: number, at: number): QueryNode {
    const bool = this.take('bool');
    if (bool && strength !== COMPARISON) throw queryError('"bool" belongs to a comparison', at);
    const matching = this.matching();
    const right = this.expression(operator === '^' ? strength : strength + 1);
    for (const side of [left, right]) {
      if (typeOf(side) === 'matrix') throw queryError(`"${operator}" of a range of samples`, side.at);
    }
    const scalars = [left, right].filter((side) => typeOf(side) === 'scalar').length;
    if (strength <= SET && scalars > 0) throw queryError(`"${operator}" needs vectors on both sides`, at);
    if (strength === COMPARISON && scalars === 2 && !bool) {
      throw queryError(`"${operator}" between scalars needs "bool"`, at);
    }
    if (matching !== null && scalars > 0) throw queryError('"on" and "ignoring" need vectors on both sides', at);
    if (strength <= SET && matching?.group) throw queryError(`"${operator}" has no group_left or group_right`, at);
    return { kind: 'binary', operator, bool, matching, left, right, at };
  }

  private matching(): Matching | null {
    const on = this.is('on');
    if (!on && !this.is('ignoring')) return null;
    this.next++;
    const labels = this.labels();
    const group = this.take('group_left') ? 'left' : this.take('group_right') ? 'right' : null;
    const include = group !== null && this.is('(') ? this.labels() : [];
    return { on, labels, group, include };
  }

  private unary(): QueryNode {
    const { at } = this.current;
    const minus = this.is('-');
    if (!minus && !this.is('+')) return this.offset(this.primary());
    this.next++;
    const operand = this.expression(UNARY);
    if (typeOf(operand) === 'matrix') throw queryError('a sign before a range of samples', at);
    return minus ? { kind: 'negate', operand, at } : operand;
  }

  private primary(): QueryNode {
    const { kind, text, at } = this.current;
    if (kind === 'number') {
      this.next++;
      return { kind: 'number', value: Number(text), at };
    }
    if (kind === 'string') throw queryError('a string is not supported here', at);
    if (kind === 'duration') throw queryError(`the duration ${text} is not supported as a number`, at);
    if (this.take('(')) {
      const inner = this.expression(0);
      this.expect(')');
      return inner;
    }
    if (this.is('{')) return this.selector(null, at);
    if (kind !== 'name') throw this.unexpected();
    return this.named(text, at);
  }

  private named(text: string, at: number): QueryNode {
    const word = text.toLowerCase();
    const after = this.tokens[this.next + 1] as Token;
    const opens = after.text === '(' && after.kind === 'operator';
    const grouped = opens || (after.kind === 'name' && /^(by|without)$/i.test(after.text));
    if (grouped && UNSUPPORTED_AGGREGATORS.has(word)) throw queryError(`"${word}" is not supported`, at);
    if (grouped && AGGREGATORS.has(word)) return this.aggregate(word, at);
    if (opens) return this.call(text, at);
    if (KEYWORDS.has(word)) throw this.unexpected();
    this.next++;
    if (word === 'inf') return { kind: 'number', value: Number.POSITIVE_INFINITY, at };
    if (word === 'nan') return { kind: 'number', value: Number.NaN, at };
    return this.selector(text, at);
  }

  private aggregate(operator: string, at: number): QueryNode {
    this.next++;
    const before = this.grouping();
    this.expect('(');
    const takesParameter = AGGREGATORS.get(operator) === true;
    const parameter = takesParameter ? this.expression(0) : null;
    if (parameter !== null) {
      if (typeOf(parameter) !== 'scalar') throw queryError(`"${operator}" needs a number first`, parameter.at);
      this.expect(',');
    }
    const operand = this.expression(0);
    if (typeOf(operand) !== 'vector') throw queryError(`"${operator}" needs a vector`, operand.at);
    this.expect(')');
    const grouping = before ?? this.grouping() ?? { without: false, labels: [] };
    return { kind: 'aggregate', operator, grouping, parameter, operand, at };
  }

  private grouping(): Grouping | null {
    const without = this.is('without');
    if (!without && !this.is('by')) return null;
    this.next++;
    return { without, labels: this.labels() };
  }

  private labels(): string[] {
    const labels: string[] = [];
    this.expect('(');
    while (!this.take(')')) {
      const { kind, text, at } = this.current;
      if (kind !== 'name' || text.includes(':')) throw queryError(`${JSON.stringify(text)} is no label`, at);
      labels.push(text);
      this.next++;
      if (!this.is(')')) this.expect(',');
    }
    return labels;
  }

  private call(name: string, at: number): QueryNode {
    const fn = FUNCTIONS.get(name);
    if (fn === undefined) {
      const known = [...FUNCTIONS.keys()].join(', ');
      throw queryError(`the function "${name}" is not supported (there are ${known})`, at);
    }
    this.next += 2;
    const args: QueryNode[] = [];
    while (!this.take(')')) {
      if (args.length > 0) this.expect(',');
      args.push(this.expression(0));
    }
    if (args.length < fn.least || args.length > fn.args.length) {
      throw queryError(`"${name}" with ${args.length} arguments`, at);
    }
    for (const [place, arg] of args.entries()) {
      const wanted = fn.args[place] as ValueType;
      if (typeOf(arg) !== wanted) throw queryError(`"${name}" needs a ${wanted}, not a ${typeOf(arg)},`, arg.at);
    }
    return { kind: 'call', name, args, at };
  }

  private selector(name: string | null, at: number): QueryNode {
    const matchers = this.is('{') ? this.matchers(name) : [];
    if (name === null && !matchers.some(({ matches }) => !matches(''))) {
      throw queryError('a selector that fits every series', at);
    }
    return { kind: 'selector', name, matchers, rangeMs: null, offsetMs: 0, at };
  }

  private matchers(name: string | null): Matcher[] {
    const matchers: Matcher[] = [];
    this.expect('{');
    while (!this.take('}')) {
      const { kind, text: label, at } = this.current;
      if (kind !== 'name' || label.includes(':')) throw queryError(`${JSON.stringify(label)} is no label`, at);
      if (label === '__name__' && name !== null) throw queryError('the name is given twice', at);
      this.next++;
      const operator = this.current.text as Matcher['operator'];
      if (!['=', '!=', '=~', '!~'].includes(operator)) throw this.unexpected(', where a comparison was expected');
      this.next++;
      const value = this.current;
      if (value.kind !== 'string') throw this.unexpected(', where a string was expected');
      this.next++;
      matchers.push(matcher(label, operator, value.text, value.at));
      if (!this.is('}')) this.expect(',');
    }
    return matchers;
  }

  /** `[5m]`, `offset 1m` after a selector; what else may stand there is refused. */
  private offset(node: QueryNode): QueryNode {
    let result = node;
    for (;;) {
      const { at } = this.current;
      if (this.is('@')) throw queryError('the modifier "@" is not supported', at);
      if (this.take('[')) {
        const { text } = this.duration();
        if (this.current.text.startsWith(':')) throw queryError('a subquery is not supported', at);
        this.expect(']');
        if (result.kind !== 'selector' || result.rangeMs !== null || result.offsetMs !== 0) {
          throw queryError('a range belongs to a selector; a subquery is not supported', at);
        }
        const rangeMs = durationMs(text, at);
        if (rangeMs <= 0 || rangeMs > MAX_RANGE_MS) throw queryError(`a range of ${text}`, at);
        result = { ...result, rangeMs };
      } else if (this.take('offset')) {
        if (result.kind !== 'selector' || result.offsetMs !== 0) throw queryError('"offset" belongs to a selector', at);
        const sign = this.take('-') ? -1 : 1;
        const { text, at: column } = this.duration();
        result = { ...result, offsetMs: sign * durationMs(text, column) };
      } else return result;
    }
  }

  private duration(): Token {
    const token = this.current;
    if (token.kind !== 'duration') throw this.unexpected(', where a duration was expected');
    this.next++;
    return token;
  }
}

function matcher(label: string, operator: Matcher['operator'], value: string, at: number): Matcher {
  if (operator === '=') return { label, operator, value, matches: (seen) => seen === value };
  if (operator === '!=') return { label, operator, value, matches: (seen) => seen !== value };
  const regex = compileRegex(value, at);
  const isWanted = operator === '=~';
  return { label, operator, value, matches: (seen) => regex.test(seen) === isWanted };
}
