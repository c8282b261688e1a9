/** config.json -> ModelConfig. Reads the form of the Hub's older files and the one transformers 5 writes. */
import { TokenmillError } from '../base/errors.ts';
import type { ConfigFields } from './fields.ts';
import { parseRope, type RopeConfig, scaledMaxPosition } from './rope.ts';

export type CheckpointType = 'float32' | 'bfloat16' | 'float16';

/** What every dense decoder shares; a family's own switches live in its file's `parse`. */
export interface ModelConfig {
  readonly architecture: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly rope: RopeConfig;
  /** Longest context, RoPE scaling included. */
  readonly maxModelLen: number;
  readonly tieWordEmbeddings: boolean;
  /** Biases of q, k, v; of the attention's output; of the MLP. */
  readonly biases: { readonly qkv: boolean; readonly output: boolean; readonly mlp: boolean };
  /** Per layer, the keys a query sees, itself included; 0 = all. */
  readonly windows: readonly number[];
  /** What the checkpoint says it is stored in; null when it does not say. */
  readonly dtype: CheckpointType | null;
  readonly eosTokenIds: readonly number[];
}

const MAX_POSITION = 2 ** 24;

/** The fields that all families name alike, and `family`'s own values where config.json leaves them out. */
export function parseDense(
  fields: ConfigFields,
  architecture: string,
  family: Pick<ModelConfig, 'biases' | 'rmsNormEps'> & { readonly headDim?: number },
): Omit<ModelConfig, 'windows'> {
  refuseUnsupported(fields);
  const hiddenSize = fields.int('hidden_size', 1, 2 ** 17);
  const numHeads = fields.int('num_attention_heads', 1, 4096);
  const numKvHeads = fields.int('num_key_value_heads', 1, numHeads, numHeads);
  if (numHeads % numKvHeads !== 0) {
    throw fields.invalid('num_key_value_heads', numKvHeads, `a divisor of num_attention_heads (${numHeads})`);
  }
  const headDim = fields.int('head_dim', 2, 1024, family.headDim ?? hiddenSize / numHeads);
  if (headDim % 2 !== 0) throw fields.invalid('head_dim', headDim, 'an even number');
  const maxPosition = fields.int('max_position_embeddings', 1, MAX_POSITION);
  const rope = parseRope(fields, headDim, maxPosition);
  const vocabSize = fields.int('vocab_size', 1, 2 ** 24);
  return {
    architecture,
    vocabSize,
    hiddenSize,
    intermediateSize: fields.int('intermediate_size', 1, 2 ** 20),
    numLayers: fields.int('num_hidden_layers', 1, 1024),
    numHeads,
    numKvHeads,
    headDim,
    rmsNormEps: fields.float('rms_norm_eps', 0, 1, family.rmsNormEps),
    rope,
    maxModelLen: Math.min(MAX_POSITION, scaledMaxPosition(rope, maxPosition)),
    tieWordEmbeddings: fields.bool('tie_word_embeddings', false),
    biases: family.biases,
    dtype: parseDType(fields),
    eosTokenIds: fields.tokenIds('eos_token_id', vocabSize),
  };
}

/**
 * Windows of Qwen's files: `layer_types` says it per layer where present, otherwise layers from `max_window_layers` on are
 * windowed (transformers' reading). A window is only in force with `use_sliding_window`.
 */
export function qwenWindows(fields: ConfigFields, numLayers: number): readonly number[] {
  const window = fields.bool('use_sliding_window', false) ? fields.int('sliding_window', 1, MAX_POSITION) : 0;
  const firstWindowed = fields.int('max_window_layers', 0, 2 ** 16, 28);
  if (!fields.has('layer_types')) {
    return Array.from({ length: numLayers }, (_, layer) => (layer >= firstWindowed ? window : 0));
  }
  const types = fields.strings('layer_types', 1024);
  if (types.length !== numLayers) {
    throw fields.invalid('layer_types', types, `one entry for each of ${numLayers} layers`);
  }
  return types.map((type) => {
    if (type === 'full_attention') return 0;
    if (type === 'sliding_attention' && window > 0) return window;
    const expected = window > 0 ? 'full_attention or sliding_attention' : 'full_attention (no sliding window is set)';
    throw fields.invalid('layer_types', type, expected);
  });
}

function refuseUnsupported(fields: ConfigFields): void {
  const activation = fields.string('hidden_act', 'silu');
  if (activation !== 'silu' && activation !== 'swish') {
    throw unsupported('hidden_act', `Activation ${JSON.stringify(activation)} is not supported for this architecture.`);
  }
  const quantization = fields.child('quantization_config');
  if (quantization !== null) {
    const method = quantization.string('quant_method', 'unknown');
    throw unsupported(
      'quantization_config',
      `The checkpoint is quantised as ${JSON.stringify(method)}, which is not supported.`,
      'Use the unquantised checkpoint, with --quantization int8 if memory is short.',
    );
  }
}

function unsupported(param: string, message: string, remedy?: string): TokenmillError {
  return new TokenmillError('unsupported_feature', message, remedy === undefined ? { param } : { param, remedy });
}

function parseDType(fields: ConfigFields): CheckpointType | null {
  const key = fields.has('dtype') ? 'dtype' : 'torch_dtype';
  if (!fields.has(key)) return null;
  const name = fields.string(key).replace(/^torch\./, '');
  if (name === 'float32' || name === 'bfloat16' || name === 'float16') return name;
  throw fields.invalid(key, name, 'float32, bfloat16 or float16');
}
