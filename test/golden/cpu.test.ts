import { describe, expect, test } from 'vitest';
import { verifyFolder } from '../../src/cli/verify_report.ts';
import { cpuTargets, reference } from '../parity/backends.ts';
import { GOLDEN_MODELS, goldenFolder } from './folders.ts';

const MODES = [
  { weightDType: 'float32', quantization: 'none', kvDType: 'float32' },
  { weightDType: 'bfloat16', quantization: 'none', kvDType: 'bfloat16' },
  { weightDType: 'float16', quantization: 'none', kvDType: 'bfloat16' },
  { weightDType: 'bfloat16', quantization: 'int8', kvDType: 'bfloat16' },
  { weightDType: 'bfloat16', quantization: 'int4_g32', kvDType: 'bfloat16' },
] as const;

describe.each(cpuTargets)('$name', ({ backend, isa }) => {
  describe.each(GOLDEN_MODELS)('%s', (name) => {
    const folder = goldenFolder(name);
    test.each(MODES)('$weightDType $quantization, KV $kvDType', (mode) => {
      const report = verifyFolder({ folder, backend, reference, isa, threads: 2, ...mode });
      expect(report.isa).toBe(isa);
      expect(report.failures).toEqual([]);
      expect(report.prompts.map((prompt) => prompt.greedyTokens)).toEqual([24, 24, 24, 24]);
      // int8 itself costs accuracy; the report must say how much, and it stays the same model.
      if (mode.quantization === 'int8') {
        expect(report.meanKl).toBeLessThan(0.05);
        expect(report.top1Agreement).toBeGreaterThan(0.8);
      }
    });
  });
});
