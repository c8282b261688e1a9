/** Whether a checkpoint holds what a program asks for, before a byte of weights is read. */
import type { TensorSource } from '../backends/backend.ts';
import { TokenmillError } from '../base/errors.ts';
import type { KvDType } from '../base/kv_dtypes.ts';
import { nearestName } from '../base/nearest.ts';
import type { Program, WeightDecl } from '../program/program.ts';

/** Element types that weights may be stored in. */
const WEIGHT_TYPES = ['F32', 'F16', 'BF16'];

/** Throws `weights_invalid` naming the tensor, what was expected and what was found. */
export function checkWeights(program: Program, tensors: ReadonlyMap<string, TensorSource>): void {
  for (const decl of program.weights) if (decl.computeRows === undefined) checkWeight(decl, tensors);
}

/** What is computed anew, or repeats the embedding: not read, and nothing is lost. */
const NEEDLESS = /(?:^|\.)rotary_emb\.inv_freq$|^lm_head\.weight$/;
/** Endings under which checkpoints keep the scales of FP8 keys and values. */
const KV_SCALE = /[._](?:k_scale|v_scale|kv_scale|[kv]_zero_point|[kv]_cache\.scale)$/;
const SHOWN = 3;
const SHOWN_CHARACTERS = 120;

/** One line that names tensors nothing reads; null when all that matter are read. */
export function noteUnread(
  program: Program,
  tensors: ReadonlyMap<string, TensorSource>,
  kvDType: KvDType,
): string | null {
  const read = new Set(program.weights.flatMap((decl) => decl.tensors));
  const unread = [...tensors.keys()].filter((name) => !read.has(name) && !NEEDLESS.test(name));
  if (unread.length === 0) return null;
  const scales = kvDType.startsWith('fp8') ? unread.filter((name) => KV_SCALE.test(name)) : [];
  const all = `Nothing reads ${listed(unread)} of the checkpoint.`;
  return scales.length === 0
    ? all
    : `${all} The ${kvDType} KV cache has scale 1, not the checkpoint's (${listed(scales)}).`;
}

function listed(names: readonly string[]): string {
  const more = names.length - SHOWN;
  const shown = names.slice(0, SHOWN).map((name) => name.slice(0, SHOWN_CHARACTERS));
  return shown.join(', ') + (more > 0 ? ` and ${more} more` : '');
}

function checkWeight(decl: WeightDecl, tensors: ReadonlyMap<string, TensorSource>): void {
  let rows = 0;
  for (const name of decl.tensors) {
    const tensor = tensors.get(name);
    if (tensor === undefined) throw missing(name, decl, tensors);
    if (!WEIGHT_TYPES.includes(tensor.dtype)) {
      throw new TokenmillError('weights_invalid', `Tensor ${name} is stored as ${tensor.dtype}.`, {
        remedy: `Weights must be ${WEIGHT_TYPES.join(', ')}.`,
      });
    }
    const rest = decl.shape.slice(1);
    const fits = tensor.shape.length === decl.shape.length && rest.every((size, i) => size === tensor.shape[i + 1]);
    if (!fits || (decl.tensors.length === 1 && tensor.shape[0] !== decl.shape[0])) throw wrongShape(tensor, decl);
    rows += tensor.shape[0] as number;
  }
  if (rows !== decl.shape[0]) {
    throw new TokenmillError(
      'weights_invalid',
      `Tensors ${decl.tensors.join(', ')} have ${rows} rows together; ${decl.name} needs ${decl.shape[0]}.`,
    );
  }
}

function missing(name: string, decl: WeightDecl, tensors: ReadonlyMap<string, TensorSource>): TokenmillError {
  const near = nearestName(name, tensors.keys());
  const hint = near === null ? '' : ` The nearest name is ${near}.`;
  return new TokenmillError(
    'weights_invalid',
    `Tensor ${name} [${decl.shape}] is missing from the checkpoint.${hint}`,
    {
      remedy:
        name === 'lm_head.weight'
          ? 'If the output matrix is the embedding, config.json must say "tie_word_embeddings": true.'
          : 'The files do not belong to this config.json, or are incomplete.',
    },
  );
}

function wrongShape(tensor: TensorSource, decl: WeightDecl): TokenmillError {
  const vocabulary = decl.role === 'embedding' || decl.name === 'lm_head.weight';
  return new TokenmillError(
    'weights_invalid',
    `Tensor ${tensor.name} has shape [${tensor.shape}]; config.json asks for [${decl.shape}].`,
    vocabulary && tensor.shape[0] !== decl.shape[0]
      ? { remedy: `vocab_size is ${decl.shape[0]}, the checkpoint's vocabulary ${tensor.shape[0]}.` }
      : {},
  );
}
