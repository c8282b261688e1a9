import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { TokenmillError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import { dumpProgram } from '../program/dump.ts';
import { countWeights, loadModelConfig, readGenerationConfig, recordProgram } from './index.ts';

const BASE = {
  architectures: ['LlamaForCausalLM'],
  vocab_size: 100,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
};
const with_ = (fields: Record<string, unknown>) => JSON.parse(JSON.stringify({ ...BASE, ...fields }));

describe('config.json', () => {
  test('fields that may be left out get the values of transformers', () => {
    const config = loadModelConfig(BASE);
    expect(config).toMatchObject({
      headDim: 8,
      rope: { theta: 10000, rotaryDim: 8, scaling: { type: 'default' } },
      maxModelLen: 64,
      tieWordEmbeddings: false,
      biases: { qkv: false, output: false, mlp: false },
      windows: [0, 0],
      dtype: null,
      eosTokenIds: [],
    });
    expect(loadModelConfig(with_({ architectures: ['MistralForCausalLM'] })).windows).toEqual([4096, 4096]);
    expect(loadModelConfig(with_({ architectures: ['MistralForCausalLM'], sliding_window: null })).windows).toEqual([
      0, 0,
    ]);
    expect(loadModelConfig(with_({ architectures: ['Qwen3ForCausalLM'] })).headDim).toBe(128);
    expect(loadModelConfig(with_({ architectures: ['Qwen2ForCausalLM'] })).biases.qkv).toBe(true);
  });

  test('eos ids come as one or as a list', () => {
    expect(loadModelConfig(with_({ eos_token_id: 3 })).eosTokenIds).toEqual([3]);
    expect(loadModelConfig(with_({ eos_token_id: [3, 5] })).eosTokenIds).toEqual([3, 5]);
    expect(() => loadModelConfig(with_({ eos_token_id: 100 }))).toThrow('a token id below 100');
  });

  test.each([
    ['vocab_size', 0],
    ['vocab_size', 1e12],
    ['vocab_size', '100'],
    ['hidden_size', 1.5],
    ['hidden_size', undefined],
    ['num_hidden_layers', 1e9],
    ['num_attention_heads', -4],
    ['num_key_value_heads', 3],
    ['head_dim', 7],
    ['rms_norm_eps', 'x'],
    ['rms_norm_eps', -1],
    ['rope_theta', 0],
    ['rope_scaling', 7],
    ['tie_word_embeddings', 'yes'],
    ['torch_dtype', 'float8'],
    ['max_position_embeddings', 2 ** 40],
  ])('%s: %j is refused by name', (field, value) => {
    expect(() => loadModelConfig(with_({ [field]: value }))).toThrow(new RegExp(`config.json: ${field} is .*expected`));
  });

  test('what is not implemented is refused by name', () => {
    expect(() => loadModelConfig(with_({ hidden_act: 'gelu' }))).toThrow('Activation "gelu" is not supported');
    expect(() => loadModelConfig(with_({ quantization_config: { quant_method: 'awq' } }))).toThrow(
      'quantised as "awq"',
    );
    expect(() => loadModelConfig(with_({ rope_scaling: { rope_type: 'mrope' } }))).toThrow('"mrope" is not supported');
    expect(() => loadModelConfig(with_({ partial_rotary_factor: 0.5 }))).toThrow('part of each head');
  });

  test('an unknown architecture names the known ones and the nearest', () => {
    const message = /"Qwen4ForCausalLM" .*not implemented. Known: LlamaForCausalLM, .*nearest is Qwen2ForCausalLM/;
    expect(() => loadModelConfig(with_({ architectures: ['Qwen4ForCausalLM'] }))).toThrow(message);
    expect(() => loadModelConfig(with_({ architectures: undefined }))).toThrow('Architecture none');
    expect(() => loadModelConfig(with_({ architectures: 'Llama' }))).toThrow('a list of at most 16 strings');
  });

  test('random damage gives a coded error or a config, never anything else', () => {
    const values = [null, -1, 0, 1e308, 'x', [], {}, true, [1e9], 2 ** 53, { rope_type: 'yarn' }];
    const keys = [...Object.keys(BASE), 'rope_scaling', 'rope_parameters', 'head_dim', 'eos_token_id', 'layer_types'];
    for (let seed = 0; seed < 2000; seed++) {
      const rng = new Rng(seed);
      const broken = with_({ [rng.pick(keys)]: rng.pick(values), [rng.pick(keys)]: rng.pick(values) });
      try {
        loadModelConfig(broken);
      } catch (error) {
        expect(error, `seed ${seed}`).toBeInstanceOf(TokenmillError);
      }
    }
  });
});

describe('sliding windows of Qwen', () => {
  const qwen = (fields: Record<string, unknown>) =>
    loadModelConfig(with_({ architectures: ['Qwen2ForCausalLM'], sliding_window: 24, ...fields })).windows;

  test('only when switched on, from max_window_layers on, or as layer_types says', () => {
    expect(qwen({ max_window_layers: 1 })).toEqual([0, 0]);
    expect(qwen({ use_sliding_window: true, max_window_layers: 1 })).toEqual([0, 24]);
    expect(qwen({ use_sliding_window: true, layer_types: ['sliding_attention', 'full_attention'] })).toEqual([24, 0]);
  });

  test('layer_types that cannot be are refused', () => {
    expect(() => qwen({ layer_types: ['full_attention'] })).toThrow('one entry for each of 2 layers');
    expect(() => qwen({ layer_types: ['full_attention', 'sliding_attention'] })).toThrow('no sliding window is set');
  });
});

describe('overrides', () => {
  test('replace top-level fields', () => {
    expect(loadModelConfig(BASE, { max_position_embeddings: 128 }).maxModelLen).toBe(128);
  });

  test('rope_scaling over rope_parameters keeps theta', () => {
    const v5 = with_({ rope_parameters: { rope_type: 'default', rope_theta: 500 } });
    const { rope, maxModelLen } = loadModelConfig(v5, { rope_scaling: { rope_type: 'linear', factor: 2 } });
    expect(rope).toEqual({ theta: 500, rotaryDim: 8, scaling: { type: 'linear', factor: 2 } });
    expect(maxModelLen).toBe(128);
  });

  test('rope_parameters over rope_scaling', () => {
    const old = with_({ rope_theta: 500, rope_scaling: { type: 'linear', factor: 4 } });
    const { rope } = loadModelConfig(old, { rope_parameters: { rope_type: 'default', rope_theta: 700 } });
    expect(rope).toMatchObject({ theta: 700, scaling: { type: 'default' } });
  });
});

describe('programs', () => {
  test('one layer of Qwen3, as text', async () => {
    const config = loadModelConfig(with_({ architectures: ['Qwen3ForCausalLM'], head_dim: 8, num_hidden_layers: 1 }));
    await expect(`${dumpProgram(recordProgram(config, { maxModelLen: 16 }))}\n`).toMatchFileSnapshot(
      'testdata/qwen3_layer.txt',
    );
  });

  test('weights are counted by what they are', () => {
    const program = recordProgram(loadModelConfig(with_({ tie_word_embeddings: true })), { maxModelLen: 16 });
    const layer = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 48 * 32;
    expect(countWeights(program)).toEqual({
      linearElements: 2 * layer + 100 * 32,
      linearRows: 2 * (32 + 16 + 16 + 32 + 48 + 48 + 32) + 100,
      logitsElements: 100 * 32,
      logitsRows: 100,
      embeddingElements: 100 * 32,
      vectorElements: 5 * 32 + 16 * 8,
    });
  });
});

describe('generation_config.json', () => {
  const root = mkdtempSync(join(tmpdir(), 'tokenmill-config-'));
  afterAll(() => rmSync(root, { recursive: true }));
  const folder = (content: string) => {
    mkdirSync(root, { recursive: true });
    writeFileSync(join(root, 'generation_config.json'), content);
    return root;
  };

  test('sampling defaults and eos ids', () => {
    expect(readGenerationConfig(join(root, 'none'), 100)).toEqual({ eosTokenIds: [] });
    const text = JSON.stringify({ eos_token_id: [1, 2], temperature: 0.6, top_k: 20, top_p: 0.95, do_sample: true });
    expect(readGenerationConfig(folder(text), 100)).toEqual({
      eosTokenIds: [1, 2],
      temperature: 0.6,
      topK: 20,
      topP: 0.95,
    });
  });

  test('what is no number or no JSON is refused', () => {
    expect(() => readGenerationConfig(folder('{"temperature": "hot"}'), 100)).toThrow('temperature is "hot"');
    expect(() => readGenerationConfig(folder('{'), 100)).toThrow('is not JSON');
    expect(() => readGenerationConfig(folder('[]'), 100)).toThrow('must hold a JSON object');
    expect(() => loadModelConfig(root)).toThrow('config.json does not exist');
  });
});
