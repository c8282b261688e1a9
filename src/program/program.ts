/**
 * A Program: the flat list of ops a model's `forward` records once at load, over symbolic sizes T, S, R. One native call
 * runs it; the memory plan is made once; a debugger runs two backends side by side and names the first op that differs.
 */
import type { Dim, DType } from '../ops/define_op.ts';

/** Index into `Program.values`. */
export type ValueId = number;

export type ValueKind = 'step_input' | 'weight' | 'temporary';

export interface ProgramValue {
  readonly id: ValueId;
  /** Dotted and unique, e.g. `layers.3.attn.q`; for weights the program's weight name. */
  readonly name: string;
  readonly kind: ValueKind;
  readonly dtype: DType;
  readonly shape: readonly Dim[];
}

export interface OpCall {
  readonly op: string;
  /** In the op table's order; -1 for an absent optional operand. */
  readonly inputs: readonly ValueId[];
  readonly outputs: readonly ValueId[];
  readonly attrs: Readonly<Record<string, number>>;
}

/** What a weight is for decides how a backend packs it. */
export type WeightRole = 'linear' | 'embedding' | 'vector' | 'table';

export type ComputeRows = (begin: number, end: number) => Float32Array;

export interface WeightDecl {
  readonly value: ValueId;
  readonly name: string;
  readonly role: WeightRole;
  readonly shape: readonly number[];
  /** Checkpoint tensors, concatenated along dimension 0 (qkv or gate+up in one); empty when computed. */
  readonly tensors: readonly string[];
  /**
   * Computed instead of read: rows [begin, end) of a `table`. Only tokens at position p read row p, so that a backend may
   * leave rows out until a sequence reaches them.
   */
  readonly computeRows?: ComputeRows;
}

export interface KvSpec {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

export interface Program {
  readonly values: readonly ProgramValue[];
  readonly calls: readonly OpCall[];
  readonly weights: readonly WeightDecl[];
  readonly kv: KvSpec;
  /** The value that holds logits [R, vocab]. */
  readonly logits: ValueId;
  readonly vocabSize: number;
}

/** Whether the weight `value` is the one that the logits are projected with. */
export function makesLogits(program: Program, value: ValueId): boolean {
  const last = program.calls.find((call) => call.outputs.includes(program.logits));
  return last?.op === 'linear' && last.inputs[1] === value;
}
