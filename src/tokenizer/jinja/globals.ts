import type { Budget } from './budget.ts';
import { bind, wantInt, wantString } from './call.ts';
import { JinjaError } from './errors.ts';
import { str } from './text_of.ts';
import type { CallArgs, Value } from './values.ts';
import { iterate, Namespace, PyDict, PyFunction, PyObject, PyTuple, PyView, truthy } from './values.ts';

/** Same bound as jinja2's sandbox. */
const MAX_RANGE = 100_000;

/** The functions every chat template may call: jinja2's globals and those that transformers adds. */
export function globalFunctions(budget: Budget, now: () => Date): Map<string, Value> {
  const functions: Record<string, (call: CallArgs) => Value> = {
    range: (call) => range(call, budget),
    dict: (call) => toDict(call),
    namespace: (call) => {
      const attributes = new Map<string, Value>();
      for (const [key, value] of toDict(call).pairs()) attributes.set(str(key, budget), value);
      return new Namespace(attributes);
    },
    cycler: (call) => cycler(call.args),
    joiner: (call) => {
      const [separator = ', '] = bind('joiner', call, ['sep'], 0);
      let used = false;
      return new PyFunction('joiner', () => {
        const result = used ? separator : '';
        used = true;
        return result;
      });
    },
    raise_exception: (call) => {
      throw new JinjaError('TemplateError', str(bind('raise_exception', call, ['message'], 1)[0] ?? null, budget));
    },
    strftime_now: (call) =>
      strftime(now(), wantString(bind('strftime_now', call, ['format'], 1)[0] ?? null, 'strftime_now')),
  };
  return new Map(Object.entries(functions).map(([name, run]) => [name, new PyFunction(name, run)]));
}

function range(call: CallArgs, budget: Budget): Value {
  const [a = null, b, c] = bind('range', call, ['start', 'stop', 'step'], 1);
  const start = b === undefined ? 0 : wantInt(a, 'range');
  const stop = wantInt(b ?? a, 'range');
  const step = c === undefined ? 1 : wantInt(c, 'range');
  if (step === 0) throw new JinjaError('ValueError', 'range() arg 3 must not be zero');
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > MAX_RANGE) {
    throw new JinjaError(
      'OverflowError',
      `Range too big. The sandbox blocks ranges larger than MAX_RANGE (${MAX_RANGE}).`,
    );
  }
  budget.spend(count);
  const text = c === undefined ? `range(${start}, ${stop})` : `range(${start}, ${stop}, ${step})`;
  return new PyView(
    'range',
    Array.from({ length: count }, (_, i) => start + i * step),
    text,
  );
}

function toDict(call: CallArgs): PyDict {
  const [source] = call.args;
  const dict = new PyDict();
  if (source instanceof PyDict) for (const [key, value] of source.pairs()) dict.set(key, value);
  else if (source !== undefined) {
    for (const pair of iterate(source)) {
      const items = iterate(pair);
      if (items.length !== 2)
        throw new JinjaError('ValueError', 'dictionary update sequence element has the wrong length');
      dict.set(items[0] as Value, items[1] as Value);
    }
  }
  for (const [key, value] of call.kwargs) dict.set(key, value);
  return dict;
}

function cycler(items: readonly Value[]): Value {
  if (items.length === 0) throw new JinjaError('TypeError', 'at least one item has to be provided');
  let at = 0;
  const next = new PyFunction('next', () => items[at++ % items.length] as Value);
  const reset = new PyFunction('reset', () => {
    at = 0;
    return null;
  });
  return new PyObject('Cycler', (name) => {
    if (name === 'next') return next;
    if (name === 'reset') return reset;
    return name === 'current' ? (items[at % items.length] as Value) : undefined;
  });
}

/** What a `for` loop shows of itself to its body. */
export class LoopState {
  readonly items: readonly Value[];
  readonly depth: number;
  index = 0;
  private lastChanged: Value | undefined;

  constructor(items: readonly Value[], depth: number) {
    this.items = items;
    this.depth = depth;
  }

  /** `loop.name`, or undefined when it has no such attribute. */
  attribute(name: string, same: (a: Value, b: Value) => boolean, missing: (what: string) => Value): Value | undefined {
    const { index, items } = this;
    switch (name) {
      case 'index':
        return index + 1;
      case 'index0':
        return index;
      case 'revindex':
        return items.length - index;
      case 'revindex0':
        return items.length - index - 1;
      case 'first':
        return index === 0;
      case 'last':
        return index === items.length - 1;
      case 'length':
        return items.length;
      case 'depth':
        return this.depth + 1;
      case 'depth0':
        return this.depth;
      case 'previtem':
        return index > 0 ? (items[index - 1] as Value) : missing('there is no previous item');
      case 'nextitem':
        return index + 1 < items.length ? (items[index + 1] as Value) : missing('there is no next item');
      case 'cycle':
        return new PyFunction('cycle', ({ args }) => {
          if (args.length === 0) throw new JinjaError('TypeError', 'no items for cycling given');
          return args[index % args.length] as Value;
        });
      case 'changed':
        return new PyFunction('changed', ({ args }) => {
          const value = new PyTuple(args);
          const changed = this.lastChanged === undefined || !same(this.lastChanged, value);
          this.lastChanged = value;
          return truthy(changed);
        });
      default:
        return undefined;
    }
  }
}

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = 'January February March April May June July August September October November December'.split(' ');

/** Python's `datetime.now().strftime(format)` in the C locale; an unknown directive stays as it is. */
export function strftime(date: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const hour12 = date.getHours() % 12 === 0 ? 12 : date.getHours() % 12;
  const day = DAYS[date.getDay()] as string;
  const month = MONTHS[date.getMonth()] as string;
  const startOfYear = new Date(date.getFullYear(), 0, 1);
  const dayOfYear = Math.round(
    (new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime() - startOfYear.getTime()) / 86_400_000,
  );
  const directives: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    e: () => String(date.getDate()).padStart(2, ' '),
    H: () => two(date.getHours()),
    I: () => two(hour12),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    f: () => `${String(date.getMilliseconds()).padStart(3, '0')}000`,
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    A: () => day,
    a: () => day.slice(0, 3),
    B: () => month,
    b: () => month.slice(0, 3),
    h: () => month.slice(0, 3),
    j: () => String(dayOfYear + 1).padStart(3, '0'),
    w: () => String(date.getDay()),
    u: () => String(date.getDay() === 0 ? 7 : date.getDay()),
    U: () => two(Math.floor((dayOfYear + 7 - date.getDay()) / 7)),
    W: () => two(Math.floor((dayOfYear + 7 - ((date.getDay() + 6) % 7)) / 7)),
    c: () => strftime(date, '%a %b %e %H:%M:%S %Y'),
    x: () => strftime(date, '%m/%d/%y'),
    X: () => strftime(date, '%H:%M:%S'),
    D: () => strftime(date, '%m/%d/%y'),
    F: () => strftime(date, '%Y-%m-%d'),
    T: () => strftime(date, '%H:%M:%S'),
    R: () => strftime(date, '%H:%M'),
    n: () => '\n',
    t: () => '\t',
    z: () => '',
    Z: () => '',
    '%': () => '%',
  };
  return format.replace(/%(-?)([A-Za-z%])/g, (whole: string, strip: string, directive: string) => {
    const text = directives[directive]?.();
    if (text === undefined) return whole;
    return strip === '-' ? text.replace(/^[0 ]+(?=\d)/, '') : text;
  });
}
