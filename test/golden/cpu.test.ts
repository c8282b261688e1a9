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
  { weightDType: 'bfloat16', quantization: 'none', kvDType: 'int8_per_token_head' },
  { weightDType: 'float32', quantization: 'none', kvDType: 'fp8_e4m3' },
  { weightDType: 'bfloat16', quantization: 'none', kvDType: 'fp8_e4m3' },
  { weightDType: 'bfloat16', quantization: 'none', kvDType: 'fp8_e5m2' },
] as const;

/** What rounding itself may cost against the fp32 logits: about twice the worst that was measured on these models. */
const PRICE: Readonly<Record<string, { readonly meanKl: number; readonly top1: number }>> = {
  int8: { meanKl: 0.05, top1: 0.8 },
  int8_per_token_head: { meanKl: 0.0017, top1: 0.94 },
  fp8_e4m3: { meanKl: 0.064, top1: 0.7 },
  fp8_e5m2: { meanKl: 0.22, top1: 0.65 },
};

/** Emulated levels are slow: there the types of the KV cache, whose kernels do not depend on the model, run on one of them. */
function modesOf(isa: string, model: string): readonly (typeof MODES)[number][] {
  if (!isa.endsWith('_emulated') || model === GOLDEN_MODELS[0]) return MODES;
  return MODES.filter(({ kvDType }) => kvDType === 'float32' || kvDType === 'bfloat16');
}

describe.each(cpuTargets)('$name', ({ backend, isa }) => {
  describe.each(GOLDEN_MODELS)('%s', (name) => {
    const folder = goldenFolder(name);
    test.each(modesOf(isa, name))('$weightDType $quantization, KV $kvDType', (mode) => {
      const report = verifyFolder({ folder, backend, reference, isa, threads: 2, ...mode });
      expect(report.isa).toBe(isa);
      expect(report.failures).toEqual([]);
      expect(report.prompts.map((prompt) => prompt.greedyTokens)).toEqual([24, 24, 24, 24]);
      // Quantising itself costs accuracy; the report must say how much, and it stays the same model.
      const price = PRICE[mode.quantization] ?? PRICE[mode.kvDType];
      if (price !== undefined) {
        expect(report.meanKl).toBeLessThan(price.meanKl);
        expect(report.top1Agreement).toBeGreaterThan(price.top1);
      }
    });
  });
});
