/**
 * The fusion pass: a program that computes the same bits with fewer calls. What two ops would pass through memory, and the
 * barrier between them, is saved where one op does both. A rule that does not find its whole pattern leaves the calls as they
 * are, so every program runs, fused or not.
 */
import { assert } from '../base/assert.ts';
import type { Dim } from '../ops/define_op.ts';
import type { OpCall, Program, ProgramValue, ValueId, WeightDecl } from './program.ts';

/** Fuses all that the rules find. The values are numbered anew; names stay, and those of joined weights tell their parts. */
export function fuseProgram(program: Program): Program {
  const draft = new Draft(program);
  for (const rule of [fuseResidualNorm, fuseGatedMlp, fuseHeads]) {
    for (const call of [...draft.calls]) if (draft.calls.includes(call)) rule(draft, call);
  }
  return draft.finish();
}

/** A program in the making: calls are replaced one by one, values and weights only added. */
class Draft {
  readonly calls: OpCall[];
  private readonly program: Program;
  private readonly values: ProgramValue[];
  private readonly weights: WeightDecl[];

  constructor(program: Program) {
    this.program = program;
    this.calls = [...program.calls];
    this.values = [...program.values];
    this.weights = [...program.weights];
  }

  value(id: ValueId): ProgramValue {
    const value = this.values[id];
    assert(value !== undefined, `value ${id} exists`);
    return value;
  }

  width(id: ValueId): Dim | undefined {
    return this.value(id).shape.at(-1);
  }

  makerOf(id: ValueId | undefined): OpCall | undefined {
    return id === undefined ? undefined : this.calls.find(({ outputs }) => outputs.includes(id));
  }

  usersOf(id: ValueId): OpCall[] {
    return this.calls.filter(({ inputs }) => inputs.includes(id));
  }

  /** The call of op `op` that makes `id` for nobody else. */
  onlyFor(user: OpCall, id: ValueId | undefined, op: string): OpCall | undefined {
    const maker = this.makerOf(id);
    if (maker?.op !== op || id === this.program.logits) return undefined;
    return this.usersOf(id as ValueId).every((other) => other === user) ? maker : undefined;
  }

  /** A new temporary. */
  temporary(name: string, shape: readonly Dim[]): ValueId {
    const id = this.values.length;
    this.values.push({ id, name, kind: 'temporary', dtype: 'f32', shape });
    return id;
  }

  /** One weight of the rows of several; null when another call reads one of them. */
  joinWeights(ids: readonly ValueId[]): ValueId | null {
    const decls = ids.map((id) => this.weights.find(({ value }) => value === id));
    const [first] = decls;
    if (first === undefined || new Set(ids).size < ids.length) return null;
    if (ids.some((id) => this.usersOf(id).length !== 1)) return null;
    let rows = 0;
    for (const decl of decls) {
      if (decl === undefined || decl.computeRows !== undefined || decl.role !== first.role) return null;
      if (decl.shape.slice(1).join() !== first.shape.slice(1).join()) return null;
      rows += decl.shape[0] as number;
    }
    const joined = decls as WeightDecl[];
    const name = joinNames(joined.map((decl) => decl.name));
    const shape = [rows, ...first.shape.slice(1)];
    const value = this.values.length;
    this.values.push({ id: value, name, kind: 'weight', dtype: 'f32', shape });
    const at = this.weights.indexOf(first);
    const tensors = joined.flatMap((decl) => decl.tensors);
    this.weights.splice(at, 0, { value, name, role: first.role, shape, tensors });
    return value;
  }

  /** `made` comes where the call at `at` is; all of `old` go. */
  replace(at: OpCall, made: readonly OpCall[], old: readonly OpCall[]): void {
    this.calls.splice(this.calls.indexOf(at), 0, ...made);
    for (const call of old) this.calls.splice(this.calls.indexOf(call), 1);
  }

  /** Values that no call names any more are left out. */
  finish(): Program {
    const used = new Set(this.calls.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]));
    const kept = this.values.filter(({ id }) => used.has(id));
    const renumbered = new Map(kept.map(({ id }, index) => [id, index]));
    const to = (id: ValueId): ValueId => (id < 0 ? id : (renumbered.get(id) as ValueId));
    return {
      ...this.program,
      values: kept.map((value) => ({ ...value, id: to(value.id) })),
      calls: this.calls.map((call) => ({ ...call, inputs: call.inputs.map(to), outputs: call.outputs.map(to) })),
      weights: this.weights.filter(({ value }) => used.has(value)).map((decl) => ({ ...decl, value: to(decl.value) })),
      logits: to(this.program.logits),
    };
  }
}

/** add, then rms_norm of the whole row: one op that keeps the sum. */
function fuseResidualNorm(draft: Draft, norm: OpCall): void {
  if (norm.op !== 'rms_norm') return;
  const [x, weight] = norm.inputs as [ValueId, ValueId];
  const add = draft.makerOf(x);
  if (add?.op !== 'add' || draft.value(weight).shape[0] !== draft.width(x)) return;
  const inputs = [...add.inputs, weight];
  const made = { op: 'add_rms_norm', inputs, outputs: [x, ...norm.outputs], attrs: norm.attrs };
  // The sum is there earliest, and the norm needs nothing else.
  draft.replace(add, [made], [add, norm]);
}

/** Two linears of one input whose outputs meet in silu_mul. */
function fuseGatedMlp(draft: Draft, product: OpCall): void {
  if (product.op !== 'silu_mul') return;
  const gate = draft.onlyFor(product, product.inputs[0], 'linear');
  const up = draft.onlyFor(product, product.inputs[1], 'linear');
  if (gate === undefined || up === undefined || gate === up || gate.inputs[0] !== up.inputs[0]) return;
  const [x, gateWeight, gateBias] = gate.inputs as [ValueId, ValueId, ValueId];
  const [, upWeight, upBias] = up.inputs as [ValueId, ValueId, ValueId];
  const inputs = [x, gateWeight, upWeight, gateBias, upBias];
  const outputs = [...product.outputs, ...up.outputs];
  draft.replace(product, [{ op: 'linear_silu_mul', inputs, outputs, attrs: {} }], [gate, up, product]);
}

/** A rotated projection on its way to attention: linear, rms_norm of each head or none, rope. */
interface RotatedHeads {
  readonly calls: readonly OpCall[];
  readonly linear: OpCall;
  readonly norm: OpCall | undefined;
  readonly rope: OpCall;
}

function rotatedHeads(draft: Draft, user: OpCall, id: ValueId | undefined): RotatedHeads | null {
  const rope = draft.onlyFor(user, id, 'rope');
  if (rope === undefined) return null;
  const norm = draft.onlyFor(rope, rope.inputs[0], 'rms_norm');
  if (norm !== undefined && draft.value(norm.inputs[1] as ValueId).shape[0] !== rope.attrs['headDim']) return null;
  const linear = draft.onlyFor(norm ?? rope, (norm ?? rope).inputs[0], 'linear');
  if (linear === undefined) return null;
  return { calls: [linear, ...(norm === undefined ? [] : [norm]), rope], linear, norm, rope };
}

/** q, k and v from one linear; then rotation, per-head norms and the cache's write in one op. */
function fuseHeads(draft: Draft, write: OpCall): void {
  if (write.op !== 'kv_write') return;
  const { layer } = write.attrs;
  const attention = draft.calls.find(({ op, attrs }) => op === 'paged_attention' && attrs['layer'] === layer);
  if (attention === undefined || draft.calls.indexOf(attention) < draft.calls.indexOf(write)) return;
  const q = rotatedHeads(draft, attention, attention.inputs[0]);
  const k = rotatedHeads(draft, write, write.inputs[0]);
  const v = draft.onlyFor(write, write.inputs[1], 'linear');
  if (q === null || k === null || v === undefined) return;
  const linears = [q.linear, k.linear, v];
  if (new Set(linears).size < 3 || new Set(linears.map(({ inputs }) => inputs[0])).size > 1) return;
  if (!sameAttrs(q.rope, k.rope) || q.rope.inputs[2] !== k.rope.inputs[2]) return;
  if (q.norm !== undefined && k.norm !== undefined && !sameAttrs(q.norm, k.norm)) return;
  const biases = linears.map(({ inputs }) => inputs[2] as ValueId);
  const biased = biases.every((bias) => bias >= 0);
  if (!biased && biases.some((bias) => bias >= 0)) return;
  const weight = draft.joinWeights(linears.map(({ inputs }) => inputs[1] as ValueId));
  if (weight === null) return;
  const bias = biased ? draft.joinWeights(biases) : -1;
  if (bias === null) return;
  const rows = draft.value(weight).shape[0] as number;
  const name = joinNames(linears.map(({ outputs }) => draft.value(outputs[0] as ValueId).name));
  const qkv = draft.temporary(name, ['T', rows]);
  const linear = { op: 'linear', inputs: [q.linear.inputs[0] as ValueId, weight, bias], outputs: [qkv], attrs: {} };
  const [, positions, table] = q.rope.inputs as [ValueId, ValueId, ValueId];
  const norms = [q.norm?.inputs[1] ?? -1, k.norm?.inputs[1] ?? -1];
  const fused = {
    op: 'rope_kv_write',
    inputs: [qkv, positions, table, write.inputs[2] as ValueId, ...norms],
    outputs: q.rope.outputs,
    attrs: {
      queries: draft.width(q.rope.outputs[0] as ValueId) as number,
      ...q.rope.attrs,
      eps: q.norm?.attrs['eps'] ?? k.norm?.attrs['eps'] ?? 0,
      layer: layer as number,
    },
  };
  draft.replace(write, [linear, fused], [...q.calls, ...k.calls, v, write]);
}

function sameAttrs(a: OpCall, b: OpCall): boolean {
  return Object.entries(a.attrs).every(([name, value]) => b.attrs[name] === value);
}

/** `a.q_proj.weight`, `a.k_proj.weight` -> `a.{q,k}_proj.weight`: what they share is written once. */
function joinNames(names: readonly string[]): string {
  const [first = ''] = names;
  const shortest = Math.min(...names.map(({ length }) => length));
  let begin = 0;
  while (begin < shortest && names.every((name) => name[begin] === first[begin])) begin++;
  let end = 0;
  while (end < shortest - begin && names.every((name) => name.at(-1 - end) === first.at(-1 - end))) end++;
  const parts = names.map((name) => name.slice(begin, name.length - end));
  return `${first.slice(0, begin)}{${parts.join(',')}}${first.slice(first.length - end)}`;
}
