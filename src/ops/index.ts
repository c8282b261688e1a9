/** The op table. The order is the native id of each op: append only. */
import { assert } from '../base/assert.ts';
import { add } from './add.ts';
import { add_rms_norm } from './add_rms_norm.ts';
import type { OpSpec } from './define_op.ts';
import { embedding } from './embedding.ts';
import { gather_rows } from './gather_rows.ts';
import { kv_write } from './kv_write.ts';
import { linear } from './linear.ts';
import { linear_silu_mul } from './linear_silu_mul.ts';
import { paged_attention } from './paged_attention.ts';
import { rms_norm } from './rms_norm.ts';
import { rope } from './rope.ts';
import { rope_kv_write } from './rope_kv_write.ts';
import { silu_mul } from './silu_mul.ts';

export const OPS = {
  embedding,
  rms_norm,
  linear,
  rope,
  kv_write,
  paged_attention,
  add,
  silu_mul,
  gather_rows,
  add_rms_norm,
  linear_silu_mul,
  rope_kv_write,
} as const satisfies Record<string, OpSpec>;

export type OpName = keyof typeof OPS;

/** Op names by native id. */
export const OP_NAMES = Object.keys(OPS) as readonly OpName[];

export function opByName(name: string): OpSpec {
  const op = (OPS as Readonly<Record<string, OpSpec>>)[name];
  assert(op !== undefined, `unknown op ${name}`);
  return op;
}
