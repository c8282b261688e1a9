/** Qwen3 dense: no biases by default, an RMSNorm on each query and key head before the rotation, head_dim its own field. */
import { createProgramBuilder } from '../program/builder.ts';
import { type ModelConfig, parseDense, qwenWindows } from './config.ts';
import type { ModelFamily } from './family.ts';
import type { ConfigFields } from './fields.ts';
import { attend, embedTokens, finish, gatedMlp, norm, projectHeads, type RecordOptions, rotaryTable } from './parts.ts';

/** What transformers takes when config.json leaves head_dim out. */
const DEFAULT_HEAD_DIM = 128;

export const qwen3: ModelFamily = {
  architectures: ['Qwen3ForCausalLM'],

  parse(fields: ConfigFields, architecture: string): ModelConfig {
    const attention = fields.bool('attention_bias', false);
    const biases = { qkv: attention, output: attention, mlp: false };
    const dense = parseDense(fields, architecture, { biases, rmsNormEps: 1e-6, headDim: DEFAULT_HEAD_DIM });
    return { ...dense, windows: qwenWindows(fields, dense.numLayers) };
  },

  record(config: ModelConfig, options: RecordOptions) {
    const b = createProgramBuilder();
    const table = rotaryTable(b, config, options);
    let x = embedTokens(b, config);
    for (let layer = 0; layer < config.numLayers; layer++) {
      const at = `model.layers.${layer}`;
      const normed = norm(b, config, x, `${at}.input_layernorm`, config.hiddenSize);
      const { q, k, v } = projectHeads(b, config, normed, `${at}.self_attn`);
      const heads = {
        q: norm(b, config, q, `${at}.self_attn.q_norm`, config.headDim),
        k: norm(b, config, k, `${at}.self_attn.k_norm`, config.headDim),
        v,
      };
      const attention = attend(b, config, heads, { layer, prefix: `${at}.self_attn`, table });
      x = b.add({ a: x, b: attention, name: `${at}.attention_residual` });
      const mlpInput = norm(b, config, x, `${at}.post_attention_layernorm`, config.hiddenSize);
      x = b.add({ a: x, b: gatedMlp(b, config, mlpInput, `${at}.mlp`), name: `${at}.mlp_residual` });
    }
    return finish(b, config, x);
  },
};
