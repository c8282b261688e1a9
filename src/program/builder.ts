/**
 * Records a Program. One typed method an op, made from the op table: `builder.linear({ x, weight })`. Shapes are checked
 * while recording, so a wrong model fails at load with the op and the operand named. Step inputs bind themselves.
 */
import { assert } from '../base/assert.ts';
import type { Dim, DType, OperandSpec, OpSpec } from '../ops/define_op.ts';
import { OP_NAMES, OPS, type OpName } from '../ops/index.ts';
import type {
  ComputeRows,
  KvSpec,
  OpCall,
  Program,
  ProgramValue,
  ValueId,
  ValueKind,
  WeightDecl,
  WeightRole,
} from './program.ts';

type Ops = typeof OPS;
type Camel<S extends string> = S extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : S;
/** Names of the operands a caller passes. */
type Passed<I> = { [K in keyof I]: I[K] extends { kind: 'step_input' } ? never : K }[keyof I];
type Optional<I> = { [K in keyof I]: I[K] extends { optional: true } ? K : never }[keyof I];
type Operands<I> = { readonly [K in Exclude<Passed<I>, Optional<I>>]: ValueId } & {
  readonly [K in Optional<I>]?: ValueId | undefined;
};
type Attrs<A> = { readonly [K in keyof A]: number };
/** `name` labels the output for traces. */
type Call<O extends OpSpec> = (
  args: Operands<O['inputs']> & Attrs<O['attrs']> & { readonly name?: string },
) => keyof O['outputs'] extends never ? undefined : ValueId;

export type OpMethods = { readonly [K in OpName as Camel<K>]: Call<Ops[K]> };

export interface WeightRequest {
  readonly name: string;
  readonly role: WeightRole;
  readonly shape: readonly number[];
  /** Checkpoint tensors concatenated along dimension 0; default: the one called `name`. */
  readonly tensors?: readonly string[];
}

type Args = Readonly<Record<string, number | string | undefined>>;

class Recorder {
  private readonly values: ProgramValue[] = [];
  private readonly calls: OpCall[] = [];
  private readonly weights: WeightDecl[] = [];
  private readonly stepInputs = new Map<string, ValueId>();
  private readonly names = new Set<string>();

  constructor() {
    for (const op of OP_NAMES) {
      Object.defineProperty(this, camel(op), { value: (args: Args) => this.record(OPS[op], args) });
    }
  }

  weight(request: WeightRequest): ValueId {
    const { name, role, shape } = request;
    const value = this.addValue(name, 'weight', 'f32', shape);
    this.weights.push({ value, name, role, shape, tensors: request.tensors ?? [name] });
    return value;
  }

  /** A table that is computed, with a row a position, e.g. of rope. */
  table(name: string, shape: readonly [positions: number, width: number], computeRows: ComputeRows): ValueId {
    const value = this.addValue(name, 'weight', 'f32', shape);
    this.weights.push({ value, name, role: 'table', shape, tensors: [], computeRows });
    return value;
  }

  finish(logits: ValueId, kv: KvSpec): Program {
    const shape = this.values[logits]?.shape;
    assert(shape?.length === 2 && shape[0] === 'R' && typeof shape[1] === 'number', 'logits must be [R, vocab]');
    const { values, calls, weights } = this;
    return { values, calls, weights, kv, logits, vocabSize: shape[1] };
  }

  private addValue(name: string, kind: ValueKind, dtype: DType, shape: readonly Dim[]): ValueId {
    assert(!this.names.has(name), `two values are named ${name}`);
    this.names.add(name);
    const id = this.values.length;
    this.values.push({ id, name, kind, dtype, shape });
    return id;
  }

  private record(op: OpSpec, args: Args): ValueId | undefined {
    const label = `${op.name}${args['name'] === undefined ? '' : ` (${args['name']})`}`;
    const attrs: Record<string, number> = {};
    for (const attr of Object.keys(op.attrs)) {
      const given = args[attr];
      assert(
        typeof given === 'number' && Number.isFinite(given),
        `${label}: attribute ${attr} must be a finite number`,
      );
      attrs[attr] = given;
    }
    const bound = new Map<string, Dim>(Object.entries(attrs));
    const inputs = Object.entries(op.inputs).map(([name, spec]) => this.bindInput(label, name, spec, args, bound));
    const problem = op.check?.(fixedSizes(bound));
    assert(!problem, `${label}: ${problem}`);
    const outputs = Object.entries(op.outputs).map(([name, spec], i) =>
      this.addValue(
        args['name'] === undefined
          ? `${op.name}.${this.calls.length}.${name}`
          : `${args['name']}${i === 0 ? '' : `.${name}`}`,
        'temporary',
        spec.dtype,
        spec.dims.map((dim) => boundDim(label, dim, bound)),
      ),
    );
    this.calls.push({ op: op.name, inputs, outputs, attrs });
    return outputs[0];
  }

  private bindInput(label: string, name: string, spec: OperandSpec, args: Args, bound: Map<string, Dim>): ValueId {
    const id = spec.kind === 'step_input' ? this.stepInput(name, spec) : args[name];
    if (id === undefined && spec.optional) return -1;
    const value = typeof id === 'number' ? this.values[id] : undefined;
    assert(value !== undefined, `${label}: operand ${name} is missing`);
    const wanted = spec.kind === 'value' ? 'temporary' : spec.kind;
    assert(value.kind === wanted, `${label}: ${name} must be a ${wanted}, ${value.name} is a ${value.kind}`);
    assert(
      value.shape.length === spec.dims.length,
      `${label}: ${name} must have dimensions [${spec.dims}], ${value.name} has [${value.shape}]`,
    );
    for (const [axis, dim] of spec.dims.entries()) {
      const actual = value.shape[axis] as Dim;
      const expected = bound.get(dim);
      assert(
        expected === undefined || expected === actual,
        `${label}: dimension ${dim} of ${name} (${value.name}) is ${actual}, but ${expected} elsewhere`,
      );
      bound.set(dim, actual);
    }
    return value.id;
  }

  private stepInput(name: string, spec: OperandSpec): ValueId {
    const known = this.stepInputs.get(name);
    if (known !== undefined) return known;
    const id = this.addValue(name, 'step_input', spec.dtype, spec.dims as readonly Dim[]);
    this.stepInputs.set(name, id);
    return id;
  }
}

/** Letters bound to numbers; the symbolic ones are the step's and left out. */
function fixedSizes(bound: ReadonlyMap<string, Dim>): Record<string, number> {
  const sizes: Record<string, number> = {};
  for (const [letter, dim] of bound) if (typeof dim === 'number') sizes[letter] = dim;
  return sizes;
}

function boundDim(label: string, dim: string, bound: ReadonlyMap<string, Dim>): Dim {
  const actual = bound.get(dim);
  assert(actual !== undefined, `${label}: no input binds dimension ${dim}`);
  return actual;
}

function camel(name: string): string {
  return name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
}

export type ProgramBuilder = Omit<Recorder, never> & OpMethods;

export function createProgramBuilder(): ProgramBuilder {
  return new Recorder() as unknown as ProgramBuilder;
}
