/** Qwen2 and Qwen2.5: Llama's layers with biases on q, k and v, and a window on the later layers when switched on. */
import { type ModelConfig, parseDense, qwenWindows } from './config.ts';
import type { ModelFamily } from './family.ts';
import type { ConfigFields } from './fields.ts';
import { llama } from './llama.ts';

export const qwen2: ModelFamily = {
  architectures: ['Qwen2ForCausalLM'],

  parse(fields: ConfigFields, architecture: string): ModelConfig {
    const biases = { qkv: true, output: false, mlp: false };
    const dense = parseDense(fields, architecture, { biases, rmsNormEps: 1e-6 });
    return { ...dense, windows: qwenWindows(fields, dense.numLayers) };
  },

  record: llama.record,
};
