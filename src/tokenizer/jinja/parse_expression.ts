import { type Args, type BinaryOp, type CompareOp, type Expr, NO_ARGS } from './ast.ts';
import { JinjaError } from './errors.ts';
import type { Token, TokenKind } from './lexer.ts';

/** Parentheses, brackets and operators nested deeper than this are refused before the JavaScript stack ends. */
const MAX_NESTING = 200;

const COMPARE_OPS: ReadonlySet<string> = new Set(['==', '!=', '<', '<=', '>', '>=']);
const CONSTANTS: ReadonlyMap<string, boolean | null> = new Map([
  ['true', true],
  ['True', true],
  ['false', false],
  ['False', false],
  ['none', null],
  ['None', null],
]);

/** Expressions, with the precedence and the quirks of jinja2's parser (`~` binds tighter than `+`, looser than `*`). */
export class ExpressionParser {
  protected readonly tokens: readonly Token[];
  protected at = 0;
  private nesting = 0;
  /** Names read so far, so that a macro knows whether its body asks for `varargs` and `kwargs`. */
  protected namesRead = new Set<string>();

  constructor(tokens: readonly Token[]) {
    this.tokens = tokens;
  }

  protected get current(): Token {
    return this.tokens[this.at] as Token;
  }

  protected is(kind: TokenKind, value?: string): boolean {
    return this.current.kind === kind && (value === undefined || this.current.value === value);
  }

  protected accept(kind: TokenKind, value?: string): boolean {
    if (!this.is(kind, value)) return false;
    this.at++;
    return true;
  }

  protected expect(kind: TokenKind, value?: string): Token {
    const token = this.current;
    if (!this.is(kind, value)) throw this.error(`expected ${value ? `'${value}'` : kind}, got ${describe(token)}`);
    this.at++;
    return token;
  }

  protected error(message: string): JinjaError {
    return new JinjaError('TemplateSyntaxError', `${message} (line ${this.current.line})`);
  }

  protected nest<T>(parse: () => T): T {
    if (++this.nesting > MAX_NESTING) throw this.error(`expressions or blocks nest deeper than ${MAX_NESTING}`);
    const result = parse();
    this.nesting--;
    return result;
  }

  expression(withCondition = true): Expr {
    return this.nest(() => (withCondition ? this.condition() : this.or()));
  }

  /** One expression, or several with commas as a tuple. Empty only inside parentheses. */
  tuple(options: { withCondition?: boolean; parenthesized?: boolean } = {}): Expr {
    const items: Expr[] = [];
    let isTuple = false;
    while (!this.tupleEnds()) {
      items.push(this.expression(options.withCondition ?? true));
      if (!this.accept('op', ',')) break;
      isTuple = true;
    }
    if (!isTuple && items.length === 1) return items[0] as Expr;
    if (items.length === 0 && !options.parenthesized)
      throw this.error(`expected an expression, got ${describe(this.current)}`);
    return { type: 'tuple', items };
  }

  private tupleEnds(): boolean {
    return this.is('close') || this.is('end') || this.is('op', ')') || this.is('name', 'recursive');
  }

  private condition(): Expr {
    let result = this.or();
    while (this.accept('name', 'if')) {
      const test = this.or();
      const otherwise = this.accept('name', 'else') ? this.expression() : null;
      result = { type: 'if', test, value: result, otherwise };
    }
    return result;
  }

  private or(): Expr {
    let left = this.and();
    while (this.accept('name', 'or')) left = { type: 'or', left, right: this.and() };
    return left;
  }

  private and(): Expr {
    let left = this.not();
    while (this.accept('name', 'and')) left = { type: 'and', left, right: this.not() };
    return left;
  }

  private not(): Expr {
    if (!this.accept('name', 'not')) return this.compare();
    return { type: 'unary', op: 'not', operand: this.nest(() => this.not()) };
  }

  private compare(): Expr {
    const first = this.sum();
    const rest: (readonly [CompareOp, Expr])[] = [];
    for (;;) {
      const op = this.compareOp();
      if (op === null) break;
      rest.push([op, this.sum()]);
    }
    return rest.length === 0 ? first : { type: 'compare', first, rest };
  }

  private compareOp(): CompareOp | null {
    if (this.current.kind === 'op' && COMPARE_OPS.has(this.current.value)) {
      return this.expect('op').value as CompareOp;
    }
    if (this.accept('name', 'in')) return 'in';
    const next = this.tokens[this.at + 1];
    if (this.is('name', 'not') && next?.kind === 'name' && next.value === 'in') {
      this.at += 2;
      return 'not in';
    }
    return null;
  }

  private binary(ops: string, operand: () => Expr): Expr {
    let left = operand();
    while (this.current.kind === 'op' && ops.split(' ').includes(this.current.value)) {
      const op = this.expect('op').value as BinaryOp;
      left = { type: 'binary', op, left, right: operand() };
    }
    return left;
  }

  private sum(): Expr {
    return this.binary('+ -', () => this.concat());
  }

  private concat(): Expr {
    const parts = [this.product()];
    while (this.accept('op', '~')) parts.push(this.product());
    return parts.length === 1 ? (parts[0] as Expr) : { type: 'concat', parts };
  }

  private product(): Expr {
    return this.binary('* / // %', () => this.power());
  }

  private power(): Expr {
    return this.binary('**', () => this.unary(true));
  }

  private unary(withFilters: boolean): Expr {
    const token = this.current;
    let result: Expr;
    if (token.kind === 'op' && (token.value === '-' || token.value === '+')) {
      this.at++;
      result = { type: 'unary', op: token.value, operand: this.nest(() => this.unary(false)) };
    } else {
      result = this.primary();
    }
    result = this.postfix(result);
    return withFilters ? this.filtersAndTests(result) : result;
  }

  private primary(): Expr {
    const token = this.current;
    this.at++;
    if (token.kind === 'name') {
      const constant = CONSTANTS.get(token.value);
      this.namesRead.add(token.value);
      return constant === undefined ? { type: 'name', name: token.value } : { type: 'const', value: constant };
    }
    if (token.kind === 'int') return { type: 'const', value: this.integer(token.value) };
    if (token.kind === 'float') return { type: 'float', value: Number(token.value) };
    if (token.kind === 'string') {
      let value = token.value;
      while (this.is('string')) value += this.expect('string').value;
      return { type: 'const', value };
    }
    if (token.kind === 'op' && token.value === '(') {
      const inner = this.tuple({ parenthesized: true });
      this.expect('op', ')');
      return inner;
    }
    if (token.kind === 'op' && token.value === '[') return { type: 'list', items: this.itemsUntil(']') };
    if (token.kind === 'op' && token.value === '{') return this.dict();
    this.at--;
    throw this.error(`unexpected ${describe(token)}`);
  }

  private integer(text: string): number {
    const value = Number(text);
    if (!Number.isSafeInteger(value)) throw this.error('integers beyond 2^53 are not supported');
    return value;
  }

  private itemsUntil(close: string): Expr[] {
    const items: Expr[] = [];
    while (!this.accept('op', close)) {
      if (items.length > 0) this.expect('op', ',');
      if (this.accept('op', close)) break;
      items.push(this.expression());
    }
    return items;
  }

  private dict(): Expr {
    const pairs: (readonly [Expr, Expr])[] = [];
    while (!this.accept('op', '}')) {
      if (pairs.length > 0) this.expect('op', ',');
      if (this.accept('op', '}')) break;
      const key = this.expression();
      this.expect('op', ':');
      pairs.push([key, this.expression()]);
    }
    return { type: 'dict', pairs };
  }

  private postfix(start: Expr): Expr {
    let result = start;
    for (;;) {
      if (this.accept('op', '.')) result = this.dotted(result);
      else if (this.accept('op', '[')) result = this.subscript(result);
      else if (this.is('op', '(')) result = { type: 'call', callee: result, args: this.callArgs() };
      else return result;
    }
  }

  private dotted(object: Expr): Expr {
    if (this.current.kind === 'int') {
      return { type: 'item', object, index: { type: 'const', value: this.integer(this.expect('int').value) } };
    }
    return { type: 'attribute', object, name: this.expect('name').value };
  }

  private subscript(object: Expr): Expr {
    const part = (): Expr | null => (this.is('op', ':') || this.is('op', ']') ? null : this.expression());
    const start = part();
    if (!this.accept('op', ':')) {
      if (start === null) throw this.error('expected a subscript');
      const items = [start];
      while (this.accept('op', ',') && !this.is('op', ']')) items.push(this.expression());
      this.expect('op', ']');
      return { type: 'item', object, index: items.length === 1 ? start : { type: 'tuple', items } };
    }
    const stop = part();
    const step = this.accept('op', ':') ? part() : null;
    this.expect('op', ']');
    return { type: 'slice', object, start, stop, step };
  }

  protected filtersAndTests(start: Expr): Expr {
    let result = start;
    for (;;) {
      if (this.accept('op', '|')) {
        const { name, args } = this.filterCall();
        result = { type: 'filter', name, input: result, args };
      } else if (this.accept('name', 'is')) {
        result = this.test(result);
      } else if (this.is('op', '(')) {
        result = { type: 'call', callee: result, args: this.callArgs() };
      } else {
        return result;
      }
    }
  }

  protected filterCall(): { name: string; args: Args } {
    const name = this.dottedName();
    const args = this.is('op', '(') ? this.callArgs() : NO_ARGS;
    return { name, args };
  }

  private dottedName(): string {
    let name = this.expect('name').value;
    while (this.accept('op', '.')) name += `.${this.expect('name').value}`;
    return name;
  }

  private test(input: Expr): Expr {
    const negated = this.accept('name', 'not');
    const name = this.dottedName();
    let args: Args = NO_ARGS;
    if (this.is('op', '(')) args = this.callArgs();
    else if (this.testArgumentFollows()) args = { ...args, positional: [this.postfix(this.primary())] };
    const test: Expr = { type: 'test', name, input, args };
    return negated ? { type: 'unary', op: 'not', operand: test } : test;
  }

  private testArgumentFollows(): boolean {
    const { kind, value } = this.current;
    if (kind === 'name') {
      if (value === 'is') throw this.error('You cannot chain multiple tests with is');
      return value !== 'else' && value !== 'or' && value !== 'and';
    }
    return (
      kind === 'string' || kind === 'int' || kind === 'float' || (kind === 'op' && (value === '[' || value === '{'))
    );
  }

  protected callArgs(): Args {
    const positional: Expr[] = [];
    const named: (readonly [string, Expr])[] = [];
    let star: Expr | null = null;
    let doubleStar: Expr | null = null;
    this.expect('op', '(');
    for (let first = true; !this.accept('op', ')'); first = false) {
      if (!first) {
        this.expect('op', ',');
        if (this.accept('op', ')')) break;
      }
      const next = this.tokens[this.at + 1];
      if (this.accept('op', '*')) star = this.expression();
      else if (this.accept('op', '**')) doubleStar = this.expression();
      else if (this.is('name') && next?.kind === 'op' && next.value === '=') {
        const name = this.expect('name').value;
        this.at++;
        named.push([name, this.expression()]);
      } else if (named.length > 0 || star || doubleStar) {
        throw this.error('invalid syntax for function call expression');
      } else positional.push(this.expression());
    }
    return { positional, named, star, doubleStar };
  }
}

export function describe(token: Token): string {
  if (token.kind === 'eof') return 'the end of the template';
  return token.value === '' ? `the ${token.kind} of a tag` : `'${token.value}'`;
}
