/** The pieces that dense decoders share word for word, in the tensor names of transformers. */
import type { ProgramBuilder } from '../program/builder.ts';
import type { Program, ValueId } from '../program/program.ts';
import type { ModelConfig } from './config.ts';
import { ropeRows } from './rope.ts';

export interface RecordOptions {
  /** Longest sequence that will be served: the rows of the RoPE table, and longrope's choice of factors. */
  readonly maxModelLen: number;
}

export function embedTokens(b: ProgramBuilder, config: ModelConfig): ValueId {
  const shape = [config.vocabSize, config.hiddenSize];
  return b.embedding({
    weight: b.weight({ name: 'model.embed_tokens.weight', role: 'embedding', shape }),
    name: 'embed',
  });
}

export function rotaryTable(b: ProgramBuilder, config: ModelConfig, { maxModelLen }: RecordOptions): ValueId {
  const rows = (begin: number, end: number) => ropeRows(config.rope, begin, end, maxModelLen);
  return b.table('rope_table', [maxModelLen, config.rope.rotaryDim], rows);
}

/** RMSNorm over the last `dim` elements; its weight is called `name` + `.weight`. */
export function norm(b: ProgramBuilder, config: ModelConfig, x: ValueId, name: string, dim: number): ValueId {
  const weight = b.weight({ name: `${name}.weight`, role: 'vector', shape: [dim] });
  return b.rmsNorm({ x, weight, eps: config.rmsNormEps, name });
}

/** A projection to `outputs`; weights `name.weight` [outputs, inputs] and, when asked for, `name.bias` [outputs]. */
export function project(
  b: ProgramBuilder,
  x: ValueId,
  name: string,
  shape: readonly [outputs: number, inputs: number],
  bias: boolean,
): ValueId {
  const weight = b.weight({ name: `${name}.weight`, role: 'linear', shape });
  if (!bias) return b.linear({ x, weight, name });
  return b.linear({ x, weight, bias: b.weight({ name: `${name}.bias`, role: 'vector', shape: [shape[0]] }), name });
}

export interface Heads {
  readonly q: ValueId;
  readonly k: ValueId;
  readonly v: ValueId;
}

export function projectHeads(b: ProgramBuilder, config: ModelConfig, x: ValueId, prefix: string): Heads {
  const { hiddenSize, headDim, biases } = config;
  const [queries, keys] = [config.numHeads * headDim, config.numKvHeads * headDim];
  return {
    q: project(b, x, `${prefix}.q_proj`, [queries, hiddenSize], biases.qkv),
    k: project(b, x, `${prefix}.k_proj`, [keys, hiddenSize], biases.qkv),
    v: project(b, x, `${prefix}.v_proj`, [keys, hiddenSize], biases.qkv),
  };
}

/** Rotate, store keys and values, attend, project back. */
export function attend(
  b: ProgramBuilder,
  config: ModelConfig,
  heads: Heads,
  at: { readonly layer: number; readonly prefix: string; readonly table: ValueId },
): ValueId {
  const { headDim, numHeads, numKvHeads, hiddenSize } = config;
  const { layer, prefix, table } = at;
  const rotation = { table, headDim, rotaryDim: config.rope.rotaryDim, interleaved: 0 };
  const q = b.rope({ x: heads.q, ...rotation, name: `${prefix}.q_rope` });
  const k = b.rope({ x: heads.k, ...rotation, name: `${prefix}.k_rope` });
  b.kvWrite({ k, v: heads.v, layer });
  const mixed = b.pagedAttention({
    q,
    layer,
    heads: numHeads,
    kvHeads: numKvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
    window: config.windows[layer] ?? 0,
    softcap: 0,
    name: `${prefix}.attention`,
  });
  return project(b, mixed, `${prefix}.o_proj`, [hiddenSize, numHeads * headDim], config.biases.output);
}

export function gatedMlp(b: ProgramBuilder, config: ModelConfig, x: ValueId, prefix: string): ValueId {
  const { hiddenSize, intermediateSize, biases } = config;
  const gate = project(b, x, `${prefix}.gate_proj`, [intermediateSize, hiddenSize], biases.mlp);
  const up = project(b, x, `${prefix}.up_proj`, [intermediateSize, hiddenSize], biases.mlp);
  const hidden = b.siluMul({ gate, up, name: `${prefix}.act` });
  return project(b, hidden, `${prefix}.down_proj`, [hiddenSize, intermediateSize], biases.mlp);
}

/** Final norm of the rows whose logits are wanted, then the output matrix: the embedding itself when tied. */
export function finish(b: ProgramBuilder, config: ModelConfig, x: ValueId): Program {
  const { hiddenSize, vocabSize, headDim } = config;
  const rows = norm(b, config, b.gatherRows({ x, name: 'logit_rows' }), 'model.norm', hiddenSize);
  const weight = b.weight({
    name: 'lm_head.weight',
    role: 'linear',
    shape: [vocabSize, hiddenSize],
    tensors: [config.tieWordEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight'],
  });
  const kv = { layers: config.numLayers, kvHeads: config.numKvHeads, headDim };
  return b.finish(b.linear({ x: rows, weight, name: 'logits' }), kv);
}
