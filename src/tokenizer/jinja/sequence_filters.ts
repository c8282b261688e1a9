import { bind, wantInt } from './call.ts';
import { typeError } from './errors.ts';
import type { Filter, FilterContext } from './filters.ts';
import { binary, equal, order } from './operators.ts';
import { str } from './text_of.ts';
import type { CallArgs, Value } from './values.ts';
import { iterate, length, PyDict, PyGenerator, PyTuple, truthy, typeName, Undefined } from './values.ts';

function visit(input: Value, { budget }: FilterContext): readonly Value[] {
  const items = iterate(input);
  budget.spend(1 + items.length);
  return items;
}

/** `map` and `select` take anything false, `none` too, as empty. */
function visitIfAny(input: Value, context: FilterContext): readonly Value[] {
  return truthy(input) ? visit(input, context) : [];
}

/** jinja2's `make_attrgetter`: dotted paths, numbers index. */
function getter(
  attribute: Value,
  context: FilterContext,
  fallback: Value | undefined = undefined,
): (item: Value) => Value {
  if (attribute === null) return (item) => item;
  const parts: Value[] =
    typeof attribute === 'string'
      ? attribute.split('.').map((part) => (/^\d+$/.test(part) ? Number(part) : part))
      : [wantInt(attribute, 'attribute')];
  return (item) => {
    let value = item;
    for (const part of parts) {
      value = context.item(value, part);
      if (value instanceof Undefined && fallback !== undefined) value = fallback;
    }
    return value;
  };
}

const foldCase = (value: Value): Value => (typeof value === 'string' ? value.toLowerCase() : value);

function sorted(
  items: readonly Value[],
  key: (item: Value) => Value,
  reverse: boolean,
  context: FilterContext,
): Value[] {
  const keyed = items.map((item) => [key(item), item] as const);
  keyed.sort(([a], [b]) => {
    const sign = order(a, b, '<', context.budget);
    return reverse ? -sign : sign;
  });
  return keyed.map(([, item]) => item);
}

/** Sort keys of `attribute='a,b'` are compared one after the other. */
function sortKey(attribute: Value, caseSensitive: boolean, context: FilterContext): (item: Value) => Value {
  const fold = caseSensitive ? (value: Value) => value : foldCase;
  const getters = (typeof attribute === 'string' ? attribute.split(',') : [attribute]).map((part) =>
    getter(part, context),
  );
  if (getters.length === 1) return (item) => fold((getters[0] as (item: Value) => Value)(item));
  return (item) => getters.map((get) => fold(get(item)));
}

/** `select`, `reject`, `selectattr`, `rejectattr`. */
const selecting =
  (keep: boolean, byAttribute: boolean): Filter =>
  (input, call, context) => {
    const [first, ...others] = call.args;
    if (byAttribute && first === undefined) throw typeError('Missing parameter for attribute name');
    const get = byAttribute ? getter(first as Value, context) : (item: Value) => item;
    const [name, ...args] = byAttribute ? others : call.args;
    const test = (item: Value): boolean =>
      name === undefined
        ? truthy(get(item))
        : context.test(str(name, context.budget), get(item), { args, kwargs: call.kwargs });
    return new PyGenerator(
      visitIfAny(input, context).filter((item) => test(item) === keep),
      'select_or_reject',
    );
  };

const map: Filter = (input, call, context) => {
  const items = visitIfAny(input, context);
  if (call.args.length === 0 && call.kwargs.has('attribute')) {
    const get = getter(call.kwargs.get('attribute') as Value, context, call.kwargs.get('default'));
    return new PyGenerator(items.map(get), 'sync_do_map');
  }
  const [name, ...args] = call.args;
  if (name === undefined) throw typeError('map requires a filter argument');
  const filter = str(name, context.budget);
  return new PyGenerator(
    items.map((item) => context.filter(filter, item, { args, kwargs: call.kwargs })),
    'sync_do_map',
  );
};

const extreme =
  (sign: 1 | -1): Filter =>
  (input, call, context) => {
    const [caseSensitive = false, attribute = null] = bind('min', call, ['case_sensitive', 'attribute'], 0);
    const get = getter(attribute, context);
    const key = (item: Value): Value => (truthy(caseSensitive) ? get(item) : foldCase(get(item)));
    const items = visit(input, context);
    if (items.length === 0) return new Undefined('No aggregated item, sequence was empty.');
    return items.reduce((best, item) => (sign * order(key(item), key(best), '<', context.budget) > 0 ? item : best));
  };

function end(items: readonly Value[], at: 0 | -1, whenEmpty: string): Value {
  return items.length === 0 ? new Undefined(whenEmpty) : (items.at(at) as Value);
}

const size: Filter = (input, call) => {
  bind('length', call, [], 0);
  return length(input);
};

export const SEQUENCE_FILTERS: Readonly<Record<string, Filter>> = {
  length: size,
  count: size,
  list: (input, _call, context) => [...visit(input, context)],
  first: (input, _call, context) => end(visit(input, context), 0, 'No first item, sequence was empty.'),
  last: (input, _call, context) => {
    if (input instanceof PyGenerator) throw typeError("'generator' object is not reversible");
    return end(visit(input, context), -1, 'No last item, sequence was empty.');
  },
  reverse: (input, _call, context) => {
    const items = [...visit(input, context)].reverse();
    return typeof input === 'string' ? items.join('') : new PyGenerator(items, 'reverse');
  },
  join: (input, call, context) => {
    const [separator = '', attribute = null] = bind('join', call, ['d', 'attribute'], 0);
    const get = getter(attribute, context);
    const between = str(separator, context.budget);
    const texts = visit(input, context).map((item) => str(get(item), context.budget));
    context.budget.spendChars(texts.reduce((sum, text) => sum + text.length + between.length, 0));
    return texts.join(between);
  },
  map,
  select: selecting(true, false),
  reject: selecting(false, false),
  selectattr: selecting(true, true),
  rejectattr: selecting(false, true),
  min: extreme(-1),
  max: extreme(1),
  sort: (input, call, context) => {
    const params = ['reverse', 'case_sensitive', 'attribute'];
    const [reverse = false, caseSensitive = false, attribute = null] = bind('sort', call, params, 0);
    return sorted(visit(input, context), sortKey(attribute, truthy(caseSensitive), context), truthy(reverse), context);
  },
  unique: (input, call, context) => {
    const [caseSensitive = false, attribute = null] = bind('unique', call, ['case_sensitive', 'attribute'], 0);
    const key = sortKey(attribute, truthy(caseSensitive), context);
    const seen = new PyDict();
    const fresh = visit(input, context).filter((item) => {
      const value = key(item);
      if (seen.has(value)) return false;
      seen.set(value, true);
      return true;
    });
    return new PyGenerator(fresh, 'do_unique');
  },
  dictsort: (input, call, context) => {
    const params = ['case_sensitive', 'by', 'reverse'];
    const [caseSensitive = false, by = 'key', reverse = false] = bind('dictsort', call, params, 0);
    if (!(input instanceof PyDict)) throw typeError(`'${typeName(input)}' object has no attribute 'items'`);
    const at = by === 'value' ? 1 : 0;
    const pairs = input.pairs().map((pair) => new PyTuple(pair));
    context.budget.spend(pairs.length);
    const fold = truthy(caseSensitive) ? (value: Value) => value : foldCase;
    return sorted(pairs, (pair) => fold((pair as PyTuple).items[at] as Value), truthy(reverse), context);
  },
  items: (input, _call, context) => {
    if (input instanceof Undefined) return new PyGenerator([], 'do_items');
    if (!(input instanceof PyDict)) throw typeError('Can only get item pairs from a mapping.');
    context.budget.spend(input.size);
    return new PyGenerator(
      input.pairs().map((pair) => new PyTuple(pair)),
      'do_items',
    );
  },
  groupby: (input, call, context) => {
    const params = ['attribute', 'default', 'case_sensitive'];
    const [attribute = null, fallback, caseSensitive = false] = bind('groupby', call, params, 1);
    const get = getter(attribute, context, fallback);
    const key = (item: Value): Value => (truthy(caseSensitive) ? get(item) : foldCase(get(item)));
    const groups: { key: Value; items: Value[] }[] = [];
    for (const item of sorted(visit(input, context), key, false, context)) {
      const last = groups.at(-1);
      if (last && equal(last.key, key(item), context.budget)) last.items.push(item);
      else groups.push({ key: key(item), items: [item] });
    }
    return groups.map(({ items }) => new PyTuple([get(items[0] as Value), items], ['grouper', 'list']));
  },
  sum: (input, call, context) => {
    const [attribute = null, start = 0] = bind('sum', call, ['attribute', 'start'], 0);
    const get = getter(attribute, context);
    return visit(input, context).reduce<Value>((sum, item) => binary('+', sum, get(item), context.budget), start);
  },
  batch: (input, call, context) => {
    const [count = null, fill = null] = bind('batch', call, ['linecount', 'fill_with'], 1);
    const width = Math.max(1, wantInt(count, 'batch'));
    const rows: Value[][] = [];
    for (const item of visit(input, context)) {
      if ((rows.at(-1)?.length ?? width) >= width) rows.push([]);
      rows.at(-1)?.push(item);
    }
    context.budget.spend(fill === null ? 0 : width);
    if (fill !== null) while (rows.length > 0 && (rows.at(-1) as Value[]).length < width) rows.at(-1)?.push(fill);
    return new PyGenerator(rows, 'do_batch');
  },
  slice: (input, call, context) => {
    const [count = null, fill = null] = bind('slice', call, ['slices', 'fill_with'], 1);
    const slices = Math.max(1, wantInt(count, 'slice'));
    context.budget.spend(slices);
    return new PyGenerator(sliceInto(visit(input, context), slices, fill), 'do_slice');
  },
  attr: (input, call: CallArgs, context) =>
    context.pythonAttribute(input, str(bind('attr', call, ['name'], 1)[0] ?? null, context.budget)),
};

/** The first slices get one item more; with `fill` the others are filled up to the same length. */
function sliceInto(items: readonly Value[], slices: number, fill: Value): Value[][] {
  const each = Math.floor(items.length / slices);
  const longer = items.length % slices;
  let at = 0;
  return Array.from({ length: slices }, (_, i) => {
    const taken = items.slice(at, at + each + (i < longer ? 1 : 0));
    at += taken.length;
    return fill !== null && i >= longer && longer > 0 ? [...taken, fill] : taken;
  });
}
