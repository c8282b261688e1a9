import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { Backend, LoadedModel } from '../backends/backend.ts';
import { createReferenceBackend } from '../backends/reference/reference_backend.ts';
import { readSafetensors } from '../weights/safetensors.ts';
import { type VerifyOptions, verifyFolder } from './verify_report.ts';

const root = mkdtempSync(join(tmpdir(), 'tokenmill-verify-'));
afterAll(() => rmSync(root, { recursive: true }));
const original = new URL('../../test/golden/models/qwen3', import.meta.url).pathname;

function copy(name: string): string {
  const folder = join(root, name);
  cpSync(original, folder, { recursive: true });
  return folder;
}

const reference = createReferenceBackend();
const exact = { weightDType: 'float32', quantization: 'none', kvDType: 'float32', threads: 1 } as const;
const verify = (options: Partial<VerifyOptions>) =>
  verifyFolder({ folder: original, backend: reference, reference, ...exact, ...options });

/** A reference backend whose `nth` call of `op` computes with another eps. */
function faulty(op: string, nth: number, eps: number): Backend {
  return {
    ...reference,
    load(options) {
      let seen = 0;
      const calls = options.program.calls.map((call) =>
        call.op === op && seen++ === nth ? { ...call, attrs: { ...call.attrs, eps } } : call,
      );
      return reference.load({ ...options, program: { ...options.program, calls } }) as LoadedModel;
    },
  };
}

test('a model that agrees passes and has no first difference', () => {
  const report = verify({ trace: true });
  expect(report).toMatchObject({ passed: true, failures: [], firstDifference: null, name: 'qwen3', top1Agreement: 1 });
  expect(report.prompts).toHaveLength(4);
});

test('one wrong op fails the model and is named by the trace', () => {
  const report = verify({ backend: faulty('rms_norm', 5, 0.01), trace: true });
  expect(report.passed).toBe(false);
  expect(report.failures[0]).toMatch(/^max abs logit error is .*, allowed 0.0002/);
  expect(report.firstDifference).toMatchObject({ op: 'rms_norm', value: 'model.layers.1.self_attn.q_norm' });
});

test('int8 is judged against int8 by its definition, and its distance from fp32 is told', () => {
  const report = verify({ backend: { ...reference }, quantization: 'int8' });
  expect(report.passed).toBe(true);
  expect(report.againstReference?.maxAbsError).toBe(0);
  expect(report.meanKl).toBeGreaterThan(1e-5);
  expect(verify({ backend: faulty('add_rms_norm', 1, 0.5), quantization: 'int8' }).passed).toBe(false);
});

test.each([
  { kvDType: 'fp8_e4m3' },
  { kvDType: 'fp8_e5m2' },
  { kvDType: 'int8_per_token_head' },
  { quantization: 'int4_g32' },
] as const)('a wrong op is not taken for the price of $kvDType $quantization', (mode) => {
  expect(verify({ backend: { ...reference }, ...mode }).passed).toBe(true);
  expect(verify({ backend: faulty('add_rms_norm', 1, 0.5), ...mode }).passed).toBe(false);
});

test('weights that are not numbers are refused by name', () => {
  const folder = copy('nan');
  const path = join(folder, 'model.safetensors');
  const bytes = readFileSync(path);
  bytes.writeUInt16LE(0x7fc0, bytes.length - 2);
  writeFileSync(path, bytes);
  expect(() => verify({ folder })).toThrow(/Weight .* holds NaN at element \d+. The checkpoint is damaged/);
});

test('a weight beyond the range of float16 is refused when it is asked for', () => {
  const folder = copy('overflow');
  const path = join(folder, 'model.safetensors');
  const bytes = readFileSync(path);
  const tensor = readSafetensors(path).get('model.layers.0.mlp.up_proj.weight');
  // bf16 of 65536.
  bytes.writeUInt16LE(0x4780, tensor!.offset);
  writeFileSync(path, bytes);
  expect(() => verify({ folder })).not.toThrow();
  expect(() => verify({ folder, weightDType: 'float16' })).toThrow('do not fit float16; choose another --dtype');
});

test('a vocabulary that does not fit the embedding', () => {
  const folder = copy('vocabulary');
  const path = join(folder, 'config.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace('"vocab_size": 512', '"vocab_size": 600'));
  const message = /embed_tokens.weight has shape \[512,64\]; config.json asks for \[600,64\].*vocab_size is 600/;
  expect(() => verify({ folder })).toThrow(message);
});

test('files of another kind, and folders without golden files', () => {
  const folder = copy('kind');
  const path = join(folder, 'golden.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace('"kind": "lm"', '"kind": "embedding"'));
  expect(() => verify({ folder })).toThrow('kind "embedding" cannot be run');
  rmSync(path);
  expect(() => verify({ folder })).toThrow('golden.json does not exist');
});
