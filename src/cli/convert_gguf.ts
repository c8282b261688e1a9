/** A Hugging Face folder as GGUF, so that llama.cpp runs the same weights in benchmarks. */
import { basename, join } from 'node:path';
import type { TensorSource } from '../backends/backend.ts';
import { TokenmillError } from '../base/errors.ts';
import { readRange } from '../base/files.ts';
import { type JsonObject, loadModelConfig, type ModelConfig, recordProgram } from '../models/index.ts';
import { readJsonFile } from '../models/json_file.ts';
import { inverseFrequencies } from '../models/rope.ts';
import { bfloat16Bits, decodeElements, ELEMENT_BYTES, float16Bits } from '../quant/dtypes.ts';
import { encodeQ4_0 } from '../quant/q4_0.ts';
import { encodeQ8_0 } from '../quant/q8_0.ts';
import { checkWeights } from '../weights/check_weights.ts';
import { ggufName, interleaveHeads } from '../weights/gguf_names.ts';
import { readCheckpoint } from '../weights/safetensors.ts';
import { type GgufTensor, type GgufType, type GgufValue, writeGguf } from '../weights/write_gguf.ts';

/** llama.cpp's name of each architecture. */
const ARCHITECTURES: Readonly<Record<string, 'llama' | 'qwen2' | 'qwen3'>> = {
  LlamaForCausalLM: 'llama',
  MistralForCausalLM: 'llama',
  Qwen2ForCausalLM: 'qwen2',
  Qwen3ForCausalLM: 'qwen3',
};

/** llama.cpp's general.file_type. */
const FILE_TYPES = { F32: 0, F16: 1, BF16: 32, Q8_0: 7, Q4_0: 2 } as const;

/** Elements of a block of the quantised types. */
const BLOCK = 32;

/** Bytes converted at a time. */
const PIECE_BYTES = 8 * 2 ** 20;

/**
 * Writes `output`; linear weights and the embedding as `type`, norms and biases as F32. `pre` is llama.cpp's name of the
 * tokenizer's split pattern. Throws `unsupported_feature` for what GGUF or this converter cannot say.
 */
export function convertFolderToGguf(folder: string, output: string, type: GgufType, pre = 'gpt-2'): void {
  const config = loadModelConfig(folder);
  const arch = ARCHITECTURES[config.architecture];
  if (arch === undefined)
    throw new TokenmillError('unsupported_feature', `No GGUF form of ${config.architecture} is known here.`);
  const program = recordProgram(config, { maxModelLen: 1 });
  const tensors = readCheckpoint(folder);
  checkWeights(program, tensors);
  const names = new Set(program.weights.flatMap((decl) => decl.tensors));
  const converted = [...names].map((name) => convertTensor(tensors.get(name) as TensorSource, config, arch, type));
  const factors = ropeFactors(config);
  if (factors !== null) converted.push(factors);
  const metadata = new Map<string, GgufValue>([
    ...modelMetadata(folder, config, arch, type),
    ...tokenizerMetadata(readJsonFile(join(folder, 'tokenizer.json')), config, pre),
    ...specialTokens(readJsonFile(join(folder, 'config.json')), config),
  ]);
  writeGguf(output, metadata, converted);
}

const u32 = (value: number): GgufValue => ({ type: 'u32', value });
const f32 = (value: number): GgufValue => ({ type: 'f32', value });
const string = (value: string): GgufValue => ({ type: 'string', value });

function modelMetadata(folder: string, config: ModelConfig, arch: string, type: GgufType): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>([
    ['general.architecture', string(arch)],
    ['general.name', string(basename(folder))],
    ['general.file_type', u32(FILE_TYPES[type])],
    [`${arch}.vocab_size`, u32(config.vocabSize)],
    // llama.cpp has no window here; within one window both compute the same.
    [`${arch}.context_length`, u32(Math.min(config.maxModelLen, ...config.windows.filter((window) => window > 0)))],
    [`${arch}.embedding_length`, u32(config.hiddenSize)],
    [`${arch}.block_count`, u32(config.numLayers)],
    [`${arch}.feed_forward_length`, u32(config.intermediateSize)],
    [`${arch}.attention.head_count`, u32(config.numHeads)],
    [`${arch}.attention.head_count_kv`, u32(config.numKvHeads)],
    [`${arch}.attention.key_length`, u32(config.headDim)],
    [`${arch}.attention.value_length`, u32(config.headDim)],
    [`${arch}.attention.layer_norm_rms_epsilon`, f32(config.rmsNormEps)],
    [`${arch}.rope.dimension_count`, u32(config.rope.rotaryDim)],
    [`${arch}.rope.freq_base`, f32(config.rope.theta)],
  ]);
  const { scaling } = config.rope;
  if (scaling.type === 'linear') {
    metadata.set(`${arch}.rope.scaling.type`, string('linear'));
    metadata.set(`${arch}.rope.scaling.factor`, f32(scaling.factor));
  } else if (scaling.type !== 'default' && scaling.type !== 'llama3') {
    throw new TokenmillError('unsupported_feature', `RoPE scaling ${scaling.type} is not converted to GGUF.`);
  }
  return metadata;
}

/** llama3 scaling as llama.cpp takes it: one divisor a frequency. */
function ropeFactors({ rope }: ModelConfig): GgufTensor | null {
  if (rope.scaling.type !== 'llama3') return null;
  const plain = inverseFrequencies({ ...rope, scaling: { type: 'default' } }, 1);
  const factors = inverseFrequencies(rope, 1).map((scaled, i) => (plain[i] as number) / scaled);
  const pieces = () => [new Uint8Array(factors.buffer)];
  return { name: 'rope_freqs.weight', type: 'F32', shape: [factors.length], pieces };
}

function convertTensor(tensor: TensorSource, config: ModelConfig, arch: string, type: GgufType): GgufTensor {
  const { name, shape } = tensor;
  if (type.startsWith('Q') && shape.length > 1 && (shape.at(-1) as number) % BLOCK !== 0) {
    throw new TokenmillError(
      'unsupported_feature',
      `${name}: rows of ${shape.at(-1)} elements are no whole blocks of ${type}.`,
    );
  }
  // llama.cpp wants vectors in fp32.
  const target = shape.length === 1 ? 'F32' : type;
  const isQuery = /\.q_proj\.(weight|bias)$/.test(name);
  const permuted = arch === 'llama' && (isQuery || /\.k_proj\.(weight|bias)$/.test(name));
  const pieces = permuted
    ? () => {
        const bytes = convertElements(tensor.dtype, target, readRange(tensor.path, tensor.offset, tensor.byteLength));
        return [
          interleaveHeads(bytes, isQuery ? config.numHeads : config.numKvHeads, bytes.length / (shape[0] as number)),
        ];
      }
    : () => convertedPieces(tensor, target);
  return { name: ggufName(name), type: target, shape, pieces };
}

function* convertedPieces(tensor: TensorSource, target: GgufType): Iterable<Uint8Array> {
  for (let done = 0; done < tensor.byteLength; done += PIECE_BYTES) {
    const size = Math.min(PIECE_BYTES, tensor.byteLength - done);
    yield convertElements(tensor.dtype, target, readRange(tensor.path, tensor.offset + done, size));
  }
}

function convertElements(from: string, to: GgufType, bytes: Uint8Array<ArrayBuffer>): Uint8Array {
  if (from === to) return bytes;
  const values = decodeElements(from, bytes);
  if (to === 'Q8_0') return encodeQ8_0(values);
  if (to === 'Q4_0') return encodeQ4_0(values);
  if (to === 'F32') return new Uint8Array(values.buffer, values.byteOffset, values.length * ELEMENT_BYTES['F32']!);
  return new Uint8Array(Uint16Array.from(values, to === 'F16' ? float16Bits : bfloat16Bits).buffer);
}

const TOKEN_NORMAL = 1;
const TOKEN_CONTROL = 3;
const TOKEN_USER_DEFINED = 4;
const TOKEN_UNUSED = 5;

/** A byte-level BPE vocabulary ("gpt2" in llama.cpp); ids beyond tokenizer.json become unused tokens. */
function tokenizerMetadata(json: JsonObject, config: ModelConfig, pre: string): Map<string, GgufValue> {
  const model = json['model'] as JsonObject | undefined;
  const vocab = model?.['vocab'];
  if (model?.['type'] !== 'BPE' || typeof vocab !== 'object' || vocab === null) {
    throw new TokenmillError('unsupported_feature', 'Only byte-level BPE tokenizers are converted to GGUF.');
  }
  const tokens = Array.from({ length: config.vocabSize }, (_, id) => `[PAD${id}]`);
  const types = Array.from({ length: config.vocabSize }, () => TOKEN_UNUSED);
  const place = (token: string, id: number, type: number) => {
    if (id < 0 || id >= tokens.length) {
      throw new TokenmillError(
        'tokenizer_invalid',
        `Token ${JSON.stringify(token)} has id ${id}; vocab_size is ${tokens.length}.`,
      );
    }
    tokens[id] = token;
    types[id] = type;
  };
  for (const [token, id] of Object.entries(vocab)) place(token, Number(id), TOKEN_NORMAL);
  const added = (json['added_tokens'] ?? []) as readonly { id: number; content: string; special: boolean }[];
  for (const { id, content, special } of added) place(content, id, special ? TOKEN_CONTROL : TOKEN_USER_DEFINED);
  const merges = ((model['merges'] ?? []) as readonly (string | readonly string[])[]).map((merge) =>
    typeof merge === 'string' ? merge : merge.join(' '),
  );
  return new Map<string, GgufValue>([
    ['tokenizer.ggml.model', string('gpt2')],
    ['tokenizer.ggml.pre', string(pre)],
    ['tokenizer.ggml.tokens', { type: 'strings', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: types }],
    ['tokenizer.ggml.merges', { type: 'strings', value: merges }],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: false }],
  ]);
}

function specialTokens(json: JsonObject, config: ModelConfig): Map<string, GgufValue> {
  const bos = json['bos_token_id'];
  const ids = { bos: typeof bos === 'number' ? bos : undefined, eos: config.eosTokenIds[0] };
  const known = Object.entries(ids).filter((entry): entry is [string, number] => entry[1] !== undefined);
  return new Map(known.map(([name, id]) => [`tokenizer.ggml.${name}_token_id`, u32(id)]));
}
