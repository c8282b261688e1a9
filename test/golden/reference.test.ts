import { describe, expect, test } from 'vitest';
import { createReferenceBackend } from '../../src/backends/reference/reference_backend.ts';
import { type VerifyOptions, verifyFolder } from '../../src/cli/verify_report.ts';
import { GOLDEN_MODELS, goldenFolder } from './folders.ts';

const backend = createReferenceBackend();

function options(folder: string): VerifyOptions {
  const exact = { weightDType: 'float32', quantization: 'none', kvDType: 'float32' } as const;
  return { folder, backend, reference: backend, threads: 1, ...exact };
}

describe.each(GOLDEN_MODELS)('%s on the reference backend', (name) => {
  const folder = goldenFolder(name);

  test.each(['config.json', 'config.v5.json'])('%s', (configFile) => {
    const report = verifyFolder({ ...options(folder), configFile });
    expect(report.failures).toEqual([]);
    expect(report.maxAbsError).toBeLessThan(2e-4);
    expect(report.prompts.map((prompt) => prompt.greedyTokens)).toEqual([24, 24, 24, 24]);
  });

  test('bf16 weights and KV stay near', () => {
    const report = verifyFolder({ ...options(folder), weightDType: 'bfloat16', kvDType: 'bfloat16' });
    expect(report.failures).toEqual([]);
  });
});

const longrope = goldenFolder('llama_rope_longrope');
test('longrope keeps the short factors while max_model_len stays within the original length', () => {
  const report = verifyFolder({ ...options(longrope), maxModelLen: 64 });
  expect(report.failures).toEqual([]);
  expect(report.prompts.map((prompt) => prompt.length)).toEqual([1, 7, 40]);
});
