/**
 * Random-weight models of well-known shapes, for benchmarks and tests: the same bytes for the same seed, written as a
 * Hugging Face folder. Speed depends on shapes, not on what weights say, so these stand in for checkpoints nobody needs to
 * download.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';
import type { Program, WeightDecl } from '../program/program.ts';
import { bfloat16Bits } from '../quant/dtypes.ts';
import { randomTokenizer } from './random_tokenizer.ts';
import { elementsOf, type TensorToWrite, writeSafetensors } from './write_safetensors.ts';

type Config = Readonly<Record<string, unknown>>;

const LLAMA3_ROPE = {
  rope_type: 'llama3',
  factor: 32,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

function llama(fields: Config): Config {
  const common = { hidden_act: 'silu', rms_norm_eps: 1e-5, attention_bias: false, mlp_bias: false };
  return { architectures: ['LlamaForCausalLM'], model_type: 'llama', ...common, ...fields };
}

function qwen(version: 2 | 3, fields: Config): Config {
  const common = { hidden_act: 'silu', rms_norm_eps: 1e-6, rope_theta: 1e6, use_sliding_window: false };
  return { architectures: [`Qwen${version}ForCausalLM`], model_type: `qwen${version}`, ...common, ...fields };
}

function sizes(hidden: number, layers: number, heads: number, kvHeads: number, inter: number, vocab: number): Config {
  return {
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    intermediate_size: inter,
    vocab_size: vocab,
  };
}

/** Shapes by name, as config.json would say them; the three tiny ones are for tests. */
export const SHAPES: Readonly<Record<string, Config>> = {
  'tiny-llama': llama({ ...sizes(64, 2, 4, 2, 96, 512), max_position_embeddings: 512, tie_word_embeddings: true }),
  'tiny-llama-untied': llama({
    ...sizes(96, 3, 3, 1, 160, 777),
    max_position_embeddings: 512,
    tie_word_embeddings: false,
  }),
  'tiny-qwen3': qwen(3, {
    ...sizes(64, 2, 4, 2, 96, 512),
    head_dim: 32,
    max_position_embeddings: 512,
    tie_word_embeddings: true,
  }),
  'smol-135m': llama({
    ...sizes(576, 30, 9, 3, 1536, 49152),
    max_position_embeddings: 8192,
    rope_theta: 100000,
    tie_word_embeddings: true,
  }),
  'smol-360m': llama({
    ...sizes(960, 32, 15, 5, 2560, 49152),
    max_position_embeddings: 8192,
    rope_theta: 100000,
    tie_word_embeddings: true,
  }),
  'qwen2.5-0.5b': qwen(2, {
    ...sizes(896, 24, 14, 2, 4864, 151936),
    max_position_embeddings: 32768,
    tie_word_embeddings: true,
  }),
  'qwen3-0.6b': qwen(3, {
    ...sizes(1024, 28, 16, 8, 3072, 151936),
    head_dim: 128,
    max_position_embeddings: 40960,
    tie_word_embeddings: true,
  }),
  'llama-1b': llama({
    ...sizes(2048, 16, 32, 8, 8192, 128256),
    head_dim: 64,
    max_position_embeddings: 131072,
    rope_theta: 500000,
    rope_scaling: LLAMA3_ROPE,
    tie_word_embeddings: true,
  }),
  'llama-3b': llama({
    ...sizes(3072, 28, 24, 8, 8192, 128256),
    head_dim: 128,
    max_position_embeddings: 131072,
    rope_theta: 500000,
    rope_scaling: LLAMA3_ROPE,
    tie_word_embeddings: true,
  }),
  'llama-8b': llama({
    ...sizes(4096, 32, 32, 8, 14336, 128256),
    max_position_embeddings: 131072,
    rope_theta: 500000,
    rope_scaling: { ...LLAMA3_ROPE, factor: 8 },
    tie_word_embeddings: false,
  }),
  'mistral-7b': {
    ...llama(sizes(4096, 32, 32, 8, 14336, 32000)),
    architectures: ['MistralForCausalLM'],
    model_type: 'mistral',
    max_position_embeddings: 32768,
    sliding_window: 4096,
    tie_word_embeddings: false,
  },
};

export const SHAPE_NAMES: readonly string[] = Object.keys(SHAPES);

/** config.json of a shape. Throws `flag_invalid` with the nearest name. */
export function shapeConfig(shape: string): Config {
  const config = Object.hasOwn(SHAPES, shape) ? SHAPES[shape] : undefined;
  if (config !== undefined) {
    return { ...config, torch_dtype: 'bfloat16', bos_token_id: 0, eos_token_id: 1, transformers_version: '4.57.0' };
  }
  const near = nearestName(shape, SHAPE_NAMES);
  throw new TokenmillError('flag_invalid', `No shape is called ${JSON.stringify(shape)}.`, {
    remedy: `${near === null ? '' : `Did you mean ${near}? `}Known: ${SHAPE_NAMES.join(', ')}.`,
  });
}

/**
 * Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json and model.safetensors (BF16) into
 * `folder`. `program` is what `recordProgram` makes of the shape's config: it names the tensors and their shapes.
 */
export function writeRandomModel(folder: string, config: Config, program: Program, seed: number): void {
  mkdirSync(folder, { recursive: true });
  const json = (name: string, value: unknown) =>
    writeFileSync(join(folder, name), `${JSON.stringify(value, null, 1)}\n`);
  json('config.json', config);
  json('generation_config.json', { bos_token_id: 0, eos_token_id: 1 });
  const tokenizer = randomTokenizer(program.vocabSize);
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer.json));
  json('tokenizer_config.json', tokenizer.config);
  const tensors = new Map<string, TensorToWrite>();
  for (const decl of program.weights) {
    if (decl.computeRows !== undefined) continue;
    const name = decl.tensors[0] as string;
    if (!tensors.has(name)) tensors.set(name, randomTensor(name, decl, seed + tensors.size));
  }
  writeSafetensors(join(folder, 'model.safetensors'), [...tensors.values()]);
}

function randomTensor(name: string, decl: WeightDecl, seed: number): TensorToWrite {
  const { shape } = decl;
  const count = elementsOf(shape);
  const isNorm = decl.role === 'vector' && name.endsWith('norm.weight');
  // Fan-in scaling keeps activations and logits in a usual range through any depth, tied embedding or not.
  const deviation = decl.role === 'vector' ? 0.02 : 1 / Math.sqrt(shape[1] as number);
  const pieces = () => (isNorm ? [constantPiece(count, 1)] : normalPieces(count, deviation, seed));
  return { name, dtype: 'BF16', shape, pieces };
}

function constantPiece(count: number, value: number): Uint8Array {
  return new Uint8Array(new Uint16Array(count).fill(bfloat16Bits(value)).buffer);
}

/** Elements of one piece: 2 MiB of bf16. */
const PIECE = 1 << 20;

/**
 * bf16 normal deviates: each is one of 65536 fixed quantiles, chosen by 16 bits of a xorshift32 stream (Marsaglia, 2003),
 * two an update.
 */
function* normalPieces(count: number, deviation: number, seed: number): Iterable<Uint8Array> {
  const quantiles = quantileTable(deviation);
  // Zero is the one state xorshift never leaves.
  let state = Math.imul(seed + 1, 0x9e3779b1) | 0 || 1;
  const buffer = new Uint16Array(Math.min(PIECE, count + (count & 1)));
  for (let done = 0; done < count; done += PIECE) {
    const size = Math.min(PIECE, count - done);
    for (let i = 0; i < size; i += 2) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      buffer[i] = quantiles[state & 0xffff] as number;
      buffer[i + 1] = quantiles[state >>> 16] as number;
    }
    yield new Uint8Array(buffer.buffer, 0, size * 2);
  }
}

/** The (i + 1/2) / 65536 quantiles of a normal distribution, as bf16 bits. */
function quantileTable(deviation: number): Uint16Array {
  const table = new Uint16Array(65536);
  for (let i = 0; i < 65536; i++) table[i] = bfloat16Bits(deviation * normalQuantile((i + 0.5) / 65536));
  return table;
}

/** Inverse of the normal distribution function to about 5e-4 (Abramowitz and Stegun, 26.2.23). */
function normalQuantile(p: number): number {
  if (p > 0.5) return -normalQuantile(1 - p);
  const t = Math.sqrt(-2 * Math.log(p));
  return (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
}
