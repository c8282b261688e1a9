/** Mistral 7B and its sizes: Llama's layers with a sliding window on all of them. Jiang et al., 2023. */
import { type ModelConfig, parseDense } from './config.ts';
import type { ModelFamily } from './family.ts';
import type { ConfigFields } from './fields.ts';
import { llama } from './llama.ts';

/** What transformers takes when config.json leaves sliding_window out. */
const DEFAULT_WINDOW = 4096;

export const mistral: ModelFamily = {
  architectures: ['MistralForCausalLM'],

  parse(fields: ConfigFields, architecture: string): ModelConfig {
    const biases = { qkv: false, output: false, mlp: false };
    const dense = parseDense(fields, architecture, { biases, rmsNormEps: 1e-6 });
    // Releases after the first set it to null: every query sees everything before it.
    const window = fields.isNull('sliding_window') ? 0 : fields.int('sliding_window', 1, 2 ** 24, DEFAULT_WINDOW);
    return { ...dense, windows: Array.from({ length: dense.numLayers }, () => window) };
  },

  record: llama.record,
};
