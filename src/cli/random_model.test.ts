import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import { afterAll, expect, test } from 'vitest';
import { loadModelConfig, recordProgram } from '../models/index.ts';
import { decodeQ8_0 } from '../quant/q8_0.ts';
import { checkWeights } from '../weights/check_weights.ts';
import { SHAPE_NAMES, shapeConfig } from '../weights/random_model.ts';
import { readTensor } from '../weights/read_tensor.ts';
import { readCheckpoint } from '../weights/safetensors.ts';
import { convertFolderToGguf } from './convert_gguf.ts';
import { makeRandomModel } from './random_model.ts';

const root = mkdtempSync(join(tmpdir(), 'tokenmill-random-model-'));
afterAll(() => rmSync(root, { recursive: true }));

test.each(SHAPE_NAMES)('shape %s is a model that is implemented', (shape) => {
  const config = loadModelConfig(JSON.parse(JSON.stringify(shapeConfig(shape))));
  expect(recordProgram(config, { maxModelLen: 4 }).calls.length).toBeGreaterThan(config.numLayers * 10);
});

test('an unknown shape names the nearest', () => {
  expect(() => shapeConfig('llama1b')).toThrow('Did you mean llama-1b?');
});

test.each(['tiny-llama', 'tiny-llama-untied', 'tiny-qwen3'])(
  '%s: a complete folder, the same bytes for the same seed',
  (shape) => {
    const [a, b, c] = ['a', 'b', 'c'].map((name) => join(root, shape, name)) as [string, string, string];
    makeRandomModel(shape, a);
    makeRandomModel(shape, b);
    makeRandomModel(shape, c, { seed: 1 });
    const bytes = (folder: string) => readFileSync(join(folder, 'model.safetensors'));
    expect(bytes(a).equals(bytes(b))).toBe(true);
    expect(bytes(a).equals(bytes(c))).toBe(false);
    const config = loadModelConfig(a);
    const tensors = readCheckpoint(a);
    checkWeights(recordProgram(config, { maxModelLen: 4 }), tensors);
    const embedding = readTensor(tensors.get('model.embed_tokens.weight')!);
    const mean = embedding.reduce((sum, w) => sum + w, 0) / embedding.length;
    const variance = embedding.reduce((sum, w) => sum + (w - mean) ** 2, 0) / embedding.length;
    expect(Math.abs(mean)).toBeLessThan(0.01);
    expect(variance * config.hiddenSize).toBeCloseTo(1, 1);
    const { model } = JSON.parse(readFileSync(join(a, 'tokenizer.json'), 'utf8')) as {
      model: { vocab: Record<string, number> };
    };
    const ids = Object.values(model.vocab).sort((x, y) => x - y);
    expect(ids).toEqual(Array.from({ length: config.vocabSize }, (_, id) => id));
  },
);

test('the GGUF holds the same weights under the names and types of llama.cpp', async () => {
  const folder = join(root, 'gguf');
  const path = makeRandomModel('tiny-llama-untied', folder, { gguf: true }) as string;
  const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
  expect(metadata).toMatchObject({
    'general.architecture': 'llama',
    'llama.block_count': 3,
    'llama.attention.head_count_kv': 1,
    'llama.embedding_length': 96,
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.eos_token_id': 1,
  });
  expect(metadata).toHaveProperty(['tokenizer.ggml.tokens', 'length'], 777);
  const tensors = readCheckpoint(folder);
  expect(tensorInfos.length).toBe(tensors.size);
  const file = readFileSync(path);
  const at = (name: string) => tensorInfos.find((info) => info.name === name)!;
  const info = at('blk.2.ffn_down.weight');
  const source = tensors.get('model.layers.2.mlp.down_proj.weight')!;
  expect(info.shape.map(Number)).toEqual([160, 96]);
  const start = Number(tensorDataOffset) + Number(info.offset);
  const original = readFileSync(source.path).subarray(source.offset, source.offset + source.byteLength);
  expect(file.subarray(start, start + source.byteLength).equals(original)).toBe(true);
  expect(at('blk.0.attn_norm.weight').dtype).toBe(0);
  expect(at('blk.0.attn_q.weight').dtype).toBe(30);
});

test('Q8_0 is the same model in blocks', async () => {
  const folder = join(root, 'q8_0');
  makeRandomModel('tiny-llama', folder);
  const path = join(folder, 'model-q8_0.gguf');
  convertFolderToGguf(folder, path, 'Q8_0');
  const { tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
  const info = tensorInfos.find(({ name }) => name === 'blk.0.ffn_down.weight')!;
  const [width, rows] = info.shape.map(Number) as [number, number];
  const start = Number(tensorDataOffset + info.offset);
  const bytes = readFileSync(path).subarray(start, start + (width / 32) * 34 * rows);
  const original = readTensor(readCheckpoint(folder).get('model.layers.0.mlp.down_proj.weight')!);
  const decoded = decodeQ8_0(bytes);
  expect(decoded).toHaveLength(original.length);
  const error = decoded.reduce((sum, value, i) => sum + (value - original[i]!) ** 2, 0);
  expect(error / original.reduce((sum, value) => sum + value ** 2, 0)).toBeLessThan(1e-4);
});
