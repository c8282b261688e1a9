import type { Args, Block, Expr, FilterCall, ForStatement, Signature, Statement, Target } from './ast.ts';
import type { Budget } from './budget.ts';
import { JinjaError, typeError } from './errors.ts';
import { FILTERS, type FilterContext } from './filters.ts';
import { LoopState } from './globals.ts';
import { isMutator, method } from './methods.ts';
import { binary, compare, equal, negate, slice } from './operators.ts';
import { TESTS } from './tests_table.ts';
import { str } from './text_of.ts';
import type { CallArgs, Value } from './values.ts';
import {
  isInteger,
  iterate,
  Namespace,
  PyDict,
  PyFloat,
  PyFunction,
  PyObject,
  PyTuple,
  PyView,
  plain,
  truthy,
  typeName,
  Undefined,
} from './values.ts';

/** Variables of one block; what is not here is looked up in the blocks around it. */
export class Scope {
  readonly variables: Map<string, Value>;
  readonly parent: Scope | null;

  constructor(parent: Scope | null, variables: Map<string, Value> = new Map()) {
    this.parent = parent;
    this.variables = variables;
  }

  get(name: string): Value | undefined {
    for (let scope: Scope | null = this; scope; scope = scope.parent) {
      const value = scope.variables.get(name);
      if (value !== undefined) return value;
    }
    return undefined;
  }
}

/** What a statement asks of the loop around it. */
const FLOW = { next: 0, break: 1, continue: 2 } as const;
type Flow = (typeof FLOW)[keyof typeof FLOW];

/** Runs one rendering. Scoping, undefined values and the sandbox are jinja2's `ImmutableSandboxedEnvironment`. */
export class Interpreter {
  private readonly budget: Budget;
  private readonly context: FilterContext;
  private output = '';

  constructor(budget: Budget) {
    this.budget = budget;
    this.context = {
      budget,
      attribute: (object, name) => this.attribute(object, name),
      pythonAttribute: (object, name) => this.pythonAttribute(object, name) ?? missing(object, name),
      item: (object, key) => this.item(object, key),
      filter: (name, input, call) => this.filter(name, input, call),
      test: (name, input, call) => this.test(name, input, call),
    };
  }

  run(template: Block, scope: Scope): string {
    this.block(template, scope);
    return this.output;
  }

  private write(text: string): void {
    this.budget.spend(1 + (text.length >> 6));
    this.budget.checkLength(this.output.length + text.length);
    this.output += text;
  }

  /** What `run` writes, as a string. */
  private capture(run: () => void): string {
    const outer = this.output;
    this.output = '';
    run();
    const captured = this.output;
    this.output = outer;
    return captured;
  }

  private block(statements: Block, scope: Scope): Flow {
    for (const statement of statements) {
      const flow = this.statement(statement, scope);
      if (flow !== FLOW.next) return flow;
    }
    return FLOW.next;
  }

  private statement(node: Statement, scope: Scope): Flow {
    this.budget.spend(1);
    switch (node.type) {
      case 'text':
        this.write(node.text);
        return FLOW.next;
      case 'output':
        this.write(str(this.evaluate(node.value, scope), this.budget));
        return FLOW.next;
      case 'if': {
        const branch = node.branches.find(([test]) => truthy(this.evaluate(test, scope)));
        const chosen = branch ? branch[1] : node.otherwise;
        return chosen ? this.block(chosen, scope) : FLOW.next;
      }
      case 'for':
        this.forLoop(node, scope, this.evaluate(node.iterable, scope), 0);
        return FLOW.next;
      case 'set':
        this.assign(node.target, this.evaluate(node.value, scope), scope);
        return FLOW.next;
      case 'setBlock': {
        const text = this.capture(() => this.block(node.body, new Scope(scope)));
        this.assign(node.target, this.filters(node.filters, text, scope), scope);
        return FLOW.next;
      }
      case 'macro':
        scope.variables.set(node.signature.name, this.macro(node.signature, node.body, scope));
        return FLOW.next;
      case 'callBlock':
        this.write(str(this.callBlock(node, scope), this.budget));
        return FLOW.next;
      case 'filterBlock': {
        const text = this.capture(() => this.block(node.body, new Scope(scope)));
        this.write(str(this.filters(node.filters, text, scope), this.budget));
        return FLOW.next;
      }
      case 'with': {
        const inner = new Scope(scope);
        const values = node.bindings.map(([, value]) => this.evaluate(value, scope));
        for (const [i, [target]] of node.bindings.entries()) this.assign(target, values[i] as Value, inner);
        return this.block(node.body, inner);
      }
      case 'generation':
        return this.block(node.body, new Scope(scope));
      case 'break':
      case 'continue':
        return FLOW[node.type];
    }
  }

  private forLoop(node: ForStatement, scope: Scope, iterable: Value, depth: number): void {
    let items = iterate(iterable);
    this.budget.spend(items.length);
    const { test } = node;
    if (test) {
      items = items.filter((item) => {
        const inner = new Scope(scope);
        this.assign(node.target, item, inner);
        return truthy(this.evaluate(test, inner));
      });
    }
    const state = new LoopState(items, depth);
    const loop = this.loopObject(node, scope, state);
    for (const item of items) {
      const inner = new Scope(scope);
      inner.variables.set('loop', loop);
      this.assign(node.target, item, inner);
      if (this.block(node.body, inner) === FLOW.break) break;
      state.index++;
    }
    if (items.length === 0 && node.otherwise) this.block(node.otherwise, new Scope(scope));
  }

  private loopObject(node: ForStatement, scope: Scope, state: LoopState): PyObject {
    const recurse = ({ args }: CallArgs): Value => {
      if (!node.recursive) {
        throw typeError("The loop must have the 'recursive' marker to be called recursively.");
      }
      return this.budget.nested(() => this.capture(() => this.forLoop(node, scope, args[0] ?? null, state.depth + 1)));
    };
    const same = (a: Value, b: Value): boolean => equal(a, b, this.budget);
    const missing = (what: string): Value => new Undefined(what);
    return new PyObject('LoopContext', (name) => state.attribute(name, same, missing), recurse);
  }

  private assign(target: Target, value: Value, scope: Scope): void {
    if (target.type === 'name') {
      scope.variables.set(target.name, value);
    } else if (target.type === 'attribute') {
      const object = scope.get(target.object);
      if (!(object instanceof Namespace)) {
        throw new JinjaError('TemplateRuntimeError', 'cannot assign attribute on non-namespace object');
      }
      object.attributes.set(target.name, value);
    } else {
      const items = iterate(value);
      const wanted = target.items.length;
      if (items.length !== wanted) {
        const problem =
          items.length < wanted
            ? `not enough values to unpack (expected ${wanted}, got ${items.length})`
            : `too many values to unpack (expected ${wanted})`;
        throw new JinjaError('ValueError', problem);
      }
      for (const [i, part] of target.items.entries()) this.assign(part, items[i] as Value, scope);
    }
  }

  private macro(signature: Signature, body: Block, scope: Scope): PyFunction {
    const run = (call: CallArgs): Value =>
      this.budget.nested(() => {
        const inner = new Scope(scope);
        this.bindMacro(signature, call, inner);
        return this.capture(() => this.block(body, inner));
      });
    const names = new PyTuple(signature.params.map((param) => param.name));
    return new PyFunction(
      signature.name,
      run,
      new Map<string, Value>([
        ['name', signature.name],
        ['arguments', names],
        ['catch_kwargs', signature.usesKwargs],
        ['catch_varargs', signature.usesVarargs],
      ]),
    );
  }

  private bindMacro(signature: Signature, call: CallArgs, scope: Scope): void {
    const { params, name } = signature;
    const extra = call.args.slice(params.length);
    if (extra.length > 0 && !signature.usesVarargs) {
      throw typeError(`macro '${name}' takes not more than ${params.length} argument(s)`);
    }
    const rest = new Map(call.kwargs);
    params.forEach((param, i) => {
      const positional = call.args[i];
      const named = rest.get(param.name);
      if (positional !== undefined && named !== undefined) {
        throw typeError(`macro '${name}' got multiple values for argument '${param.name}'`);
      }
      rest.delete(param.name);
      const given = positional === undefined ? named : positional;
      const fallback = (): Value =>
        param.fallback
          ? this.evaluate(param.fallback, scope)
          : new Undefined(`parameter '${param.name}' was not provided`);
      scope.variables.set(param.name, given === undefined ? fallback() : given);
    });
    const caller = rest.get('caller');
    if (caller !== undefined) {
      scope.variables.set('caller', caller);
      rest.delete('caller');
    }
    if (rest.size > 0 && !signature.usesKwargs) {
      throw typeError(`macro '${name}' takes no keyword argument '${[...rest.keys()][0]}'`);
    }
    if (signature.usesVarargs) scope.variables.set('varargs', new PyTuple(extra));
    if (signature.usesKwargs) scope.variables.set('kwargs', PyDict.of(rest));
  }

  private callBlock(node: Extract<Statement, { type: 'callBlock' }>, scope: Scope): Value {
    const { callee, args } = node.call as Extract<Expr, { type: 'call' }>;
    const call = this.args(args, scope);
    const kwargs = new Map(call.kwargs).set('caller', this.macro(node.caller, node.body, scope));
    return this.call(this.evaluate(callee, scope), { args: call.args, kwargs });
  }

  private evaluate(node: Expr, scope: Scope): Value {
    this.budget.spend(1);
    switch (node.type) {
      case 'const':
        return node.value;
      case 'float':
        return new PyFloat(node.value);
      case 'name':
        return this.variable(node.name, scope);
      case 'list':
        return node.items.map((item) => this.evaluate(item, scope));
      case 'tuple':
        return new PyTuple(node.items.map((item) => this.evaluate(item, scope)));
      case 'dict':
        return PyDict.of(
          node.pairs.map(([key, value]) => [this.evaluate(key, scope), this.evaluate(value, scope)] as const),
        );
      case 'unary': {
        const operand = this.evaluate(node.operand, scope);
        return node.op === 'not' ? !truthy(operand) : negate(node.op, operand);
      }
      case 'binary':
        return binary(node.op, this.evaluate(node.left, scope), this.evaluate(node.right, scope), this.budget);
      case 'and':
      case 'or': {
        const left = this.evaluate(node.left, scope);
        return truthy(left) === (node.type === 'or') ? left : this.evaluate(node.right, scope);
      }
      case 'concat':
        return this.concat(node.parts, scope);
      case 'compare':
        return this.comparison(node, scope);
      case 'if':
        if (truthy(this.evaluate(node.test, scope))) return this.evaluate(node.value, scope);
        if (node.otherwise) return this.evaluate(node.otherwise, scope);
        return new Undefined('the inline if-expression evaluated to false and no else section was defined.');
      default:
        return this.access(node, scope);
    }
  }

  private variable(name: string, scope: Scope): Value {
    const value = scope.get(name);
    return value === undefined ? new Undefined(`'${name}' is undefined`) : value;
  }

  private access(
    node: Extract<Expr, { type: 'attribute' | 'item' | 'slice' | 'call' | 'filter' | 'test' }>,
    scope: Scope,
  ): Value {
    switch (node.type) {
      case 'attribute':
        return this.attribute(plain(this.evaluate(node.object, scope)), node.name);
      case 'item':
        return this.item(plain(this.evaluate(node.object, scope)), plain(this.evaluate(node.index, scope)));
      case 'slice': {
        const object = plain(this.evaluate(node.object, scope));
        if (object instanceof Undefined) object.raise();
        const [start, stop, step] = [node.start, node.stop, node.step].map(
          (part) => part && this.evaluate(part, scope),
        );
        const cut = slice(object, start ?? null, stop ?? null, step ?? null, this.budget);
        return cut ?? new Undefined(`'${typeName(object)} object' cannot be sliced`);
      }
      case 'call':
        return this.call(this.evaluate(node.callee, scope), this.args(node.args, scope));
      case 'filter':
        return this.filter(node.name, this.evaluate(node.input, scope), this.args(node.args, scope));
      case 'test':
        return this.test(node.name, this.evaluate(node.input, scope), this.args(node.args, scope));
    }
  }

  private concat(parts: readonly Expr[], scope: Scope): string {
    let text = '';
    for (const part of parts) {
      const next = str(this.evaluate(part, scope), this.budget);
      this.budget.spendChars(text.length + next.length);
      text += next;
    }
    return text;
  }

  private comparison(node: Extract<Expr, { type: 'compare' }>, scope: Scope): boolean {
    let left = this.evaluate(node.first, scope);
    for (const [op, operand] of node.rest) {
      const right = this.evaluate(operand, scope);
      if (!compare(op, plain(left), plain(right), this.budget)) return false;
      left = right;
    }
    return true;
  }

  private args(node: Args, scope: Scope): CallArgs {
    const args = node.positional.map((item) => plain(this.evaluate(item, scope)));
    if (node.star) {
      const more = iterate(this.evaluate(node.star, scope));
      this.budget.spend(more.length);
      for (const item of more) args.push(item);
    }
    const kwargs = new Map<string, Value>();
    for (const [name, value] of node.named) kwargs.set(name, plain(this.evaluate(value, scope)));
    if (node.doubleStar) {
      const more = this.evaluate(node.doubleStar, scope);
      if (!(more instanceof PyDict)) throw typeError(`argument after ** must be a mapping, not ${typeName(more)}`);
      for (const [key, value] of more.pairs()) kwargs.set(str(key, this.budget), value);
    }
    return { args, kwargs };
  }

  private call(callee: Value, call: CallArgs): Value {
    if (callee instanceof PyFunction) return callee.call(call);
    if (callee instanceof PyObject && callee.call) return callee.call(call);
    if (callee instanceof Undefined) callee.raise();
    throw typeError(`'${typeName(callee)}' object is not callable`);
  }

  private filters(filters: readonly FilterCall[], input: Value, scope: Scope): Value {
    return filters.reduce((value, { name, args }) => this.filter(name, value, this.args(args, scope)), input);
  }

  private filter(name: string, input: Value, call: CallArgs): Value {
    const run = FILTERS.get(name);
    if (!run) throw new JinjaError('TemplateError', `No filter named '${name}'.`);
    return run(plain(input), call, this.context);
  }

  private test(name: string, input: Value, call: CallArgs): boolean {
    const run = TESTS.get(name);
    if (!run) throw new JinjaError('TemplateError', `No test named '${name}'.`);
    return run(plain(input), call, this.budget);
  }

  /** `object.name`: Python attributes first, then items. */
  private attribute(object: Value, name: string): Value {
    if (object instanceof Undefined) object.raise();
    const found = this.pythonAttribute(object, name);
    if (found !== undefined) return found;
    const item = this.lookUp(object, name);
    return item === undefined ? missing(object, name) : item;
  }

  /** `object[key]`: items first, then attributes. */
  private item(object: Value, key: Value): Value {
    if (object instanceof Undefined) object.raise();
    if (key instanceof Undefined) key.raise();
    const found = this.lookUp(object, key);
    if (found !== undefined) return found;
    const attribute = typeof key === 'string' ? this.pythonAttribute(object, key) : undefined;
    return attribute === undefined ? missing(object, key) : attribute;
  }

  private lookUp(object: Value, key: Value): Value | undefined {
    if (object instanceof PyDict) return object.get(key);
    if (!isInteger(key)) return undefined;
    const items = typeof object === 'string' ? Array.from(object) : sequenceItems(object);
    const index = Number(key);
    return items?.[index < 0 ? index + items.length : index];
  }

  private pythonAttribute(object: Value, name: string): Value | undefined {
    if (object instanceof Namespace) return object.attributes.get(name);
    if (object instanceof PyObject) return object.attribute(name);
    if (object instanceof PyFunction && object.attributes.has(name)) return object.attributes.get(name);
    if (object instanceof PyTuple && object.names.includes(name)) return object.items[object.names.indexOf(name)];
    const isDunder = name.startsWith('__') && name.endsWith('__');
    if (isMutator(object, name) || (isDunder && !(object instanceof PyDict && object.has(name)))) {
      const problem = `access to attribute '${name}' of '${typeName(object)}' object is unsafe.`;
      return new Undefined(problem, 'SecurityError');
    }
    return method(object, name, this.context);
  }
}

function sequenceItems(object: Value): readonly Value[] | null {
  if (Array.isArray(object)) return object;
  if (object instanceof PyTuple) return object.items;
  return object instanceof PyView && object.label === 'range' ? object.items : null;
}

function missing(object: Value, key: Value): Undefined {
  const owner = object === null ? 'None' : `${typeName(object)} object`;
  if (typeof key === 'string') return new Undefined(`'${owner}' has no attribute '${key}'`);
  return new Undefined(`${owner} has no element ${typeof key === 'number' ? key : typeName(key)}`);
}
