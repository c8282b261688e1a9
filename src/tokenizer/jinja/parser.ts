import type { Block, Expr, FilterCall, Signature, Statement, Target } from './ast.ts';
import { tokenize } from './lexer.ts';
import { describe, ExpressionParser } from './parse_expression.ts';

/** Tags of jinja2 that read other templates or change the language; refused by name. */
const REFUSED: ReadonlySet<string> = new Set([
  'extends',
  'block',
  'include',
  'import',
  'from',
  'autoescape',
  'do',
  'trans',
  'print',
]);

/** @throws JinjaError `TemplateSyntaxError` with the line. */
export function parseTemplate(source: string): Block {
  return new TemplateParser(tokenize(source)).template();
}

class TemplateParser extends ExpressionParser {
  private loops = 0;

  template(): Block {
    return this.block([]);
  }

  /** Statements until one of the tags `ends`, whose name is left as the current token. */
  private block(ends: readonly string[]): Block {
    const statements: Statement[] = [];
    for (;;) {
      const token = this.current;
      if (token.kind === 'eof') {
        if (ends.length > 0)
          throw this.error(`Unexpected end of template. Looking for ${ends.map((e) => `'${e}'`).join(' or ')}`);
        return statements;
      }
      this.at++;
      if (token.kind === 'text') {
        statements.push({ type: 'text', text: token.value });
      } else if (token.kind === 'open') {
        statements.push({ type: 'output', value: this.tuple() });
        this.expect('close');
      } else {
        if (this.current.kind === 'name' && ends.includes(this.current.value)) return statements;
        statements.push(this.nest(() => this.statement()));
      }
    }
  }

  private statement(): Statement {
    const name = this.expect('name').value;
    switch (name) {
      case 'if':
        return this.ifStatement();
      case 'for':
        return this.forStatement();
      case 'set':
        return this.setStatement();
      case 'macro':
        return this.macro();
      case 'call':
        return this.callBlock();
      case 'filter': {
        const filters = [this.filterCall(), ...this.pipedFilters()];
        return { type: 'filterBlock', filters, body: this.body('endfilter') };
      }
      case 'with':
        return this.withStatement();
      case 'generation':
        return { type: 'generation', body: this.body('endgeneration') };
      case 'break':
      case 'continue':
        if (this.loops === 0) throw this.error(`'${name}' outside of a loop`);
        this.expect('end');
        return { type: name };
      default:
        if (REFUSED.has(name)) throw this.error(`the tag '${name}' is not allowed in chat templates`);
        throw this.error(`Encountered unknown tag '${name}'`);
    }
  }

  /** Closes the opening tag, reads to `end` and closes that. */
  private body(end: string): Block {
    this.expect('end');
    const body = this.block([end]);
    this.at++;
    this.expect('end');
    return body;
  }

  private ifStatement(): Statement {
    const branches: (readonly [Expr, Block])[] = [];
    let otherwise: Block | null = null;
    for (;;) {
      const test = this.tuple({ withCondition: false });
      this.expect('end');
      branches.push([test, this.block(['elif', 'else', 'endif'])]);
      const tag = this.expect('name').value;
      if (tag === 'elif') continue;
      if (tag === 'else') {
        this.expect('end');
        otherwise = this.block(['endif']);
        this.at++;
      }
      this.expect('end');
      return { type: 'if', branches, otherwise };
    }
  }

  private forStatement(): Statement {
    const target = this.target(false);
    this.expect('name', 'in');
    const iterable = this.tuple({ withCondition: false });
    const test = this.accept('name', 'if') ? this.expression() : null;
    const recursive = this.accept('name', 'recursive');
    this.expect('end');
    this.loops++;
    const body = this.block(['endfor', 'else']);
    this.loops--;
    let otherwise: Block | null = null;
    if (this.expect('name').value === 'else') {
      this.expect('end');
      otherwise = this.block(['endfor']);
      this.at++;
    }
    this.expect('end');
    return { type: 'for', target, iterable, test, recursive, body, otherwise };
  }

  private target(withAttributes: boolean): Target {
    const items: Target[] = [];
    let isTuple = false;
    for (;;) {
      if (this.is('name', 'in') || this.is('op', '=') || this.is('op', ')') || this.is('end')) break;
      items.push(this.singleTarget(withAttributes));
      if (!this.accept('op', ',')) break;
      isTuple = true;
    }
    if (items.length === 0) throw this.error(`expected a name to assign to, got ${describe(this.current)}`);
    return isTuple ? { type: 'tuple', items } : (items[0] as Target);
  }

  private singleTarget(withAttributes: boolean): Target {
    if (this.accept('op', '(')) {
      const inner = this.nest(() => this.target(withAttributes));
      this.expect('op', ')');
      return inner;
    }
    const name = this.expect('name').value;
    if (withAttributes && this.accept('op', '.')) {
      return { type: 'attribute', object: name, name: this.expect('name').value };
    }
    return { type: 'name', name };
  }

  private setStatement(): Statement {
    const target = this.target(true);
    if (this.accept('op', '=')) {
      const value = this.tuple();
      this.expect('end');
      return { type: 'set', target, value };
    }
    const filters = this.pipedFilters();
    return { type: 'setBlock', target, filters, body: this.body('endset') };
  }

  private pipedFilters(): FilterCall[] {
    const filters: FilterCall[] = [];
    while (this.accept('op', '|')) filters.push(this.filterCall());
    return filters;
  }

  private macro(): Statement {
    const name = this.expect('name').value;
    const { signature, body } = this.callable(name, this.params(), 'endmacro');
    return { type: 'macro', signature, body };
  }

  private callBlock(): Statement {
    const params = this.is('op', '(') ? this.params() : [];
    const call = this.expression();
    if (call.type !== 'call') throw this.error('expected a call after {% call %}');
    const { signature, body } = this.callable('caller', params, 'endcall');
    return { type: 'callBlock', call, caller: signature, body };
  }

  /** A macro's or caller's body: a `break` in it cannot leave the loop around it, and the names it reads are noted. */
  private callable(name: string, params: Signature['params'], end: string): { signature: Signature; body: Block } {
    const { loops, namesRead } = this;
    this.loops = 0;
    this.namesRead = new Set();
    const body = this.body(end);
    const usesVarargs = this.namesRead.has('varargs');
    const usesKwargs = this.namesRead.has('kwargs');
    this.loops = loops;
    this.namesRead = namesRead;
    return { signature: { name, params, usesVarargs, usesKwargs }, body };
  }

  private params(): Signature['params'] {
    const params: { name: string; fallback: Expr | null }[] = [];
    this.expect('op', '(');
    while (!this.accept('op', ')')) {
      if (params.length > 0) this.expect('op', ',');
      if (this.accept('op', ')')) break;
      const name = this.expect('name').value;
      const fallback = this.accept('op', '=') ? this.expression() : null;
      if (fallback === null && params.some((param) => param.fallback)) {
        throw this.error('non-default argument follows default argument');
      }
      params.push({ name, fallback });
    }
    return params;
  }

  private withStatement(): Statement {
    const bindings: (readonly [Target, Expr])[] = [];
    while (!this.is('end')) {
      if (bindings.length > 0) this.expect('op', ',');
      const target = this.singleTarget(false);
      this.expect('op', '=');
      bindings.push([target, this.expression()]);
    }
    return { type: 'with', bindings, body: this.body('endwith') };
  }
}
