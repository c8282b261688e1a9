/** Llama 1 to 3.2 and everything shaped like it (SmolLM, TinyLlama, ...). Touvron et al., 2023. */
import { createProgramBuilder } from '../program/builder.ts';
import { type ModelConfig, parseDense } from './config.ts';
import type { ModelFamily } from './family.ts';
import type { ConfigFields } from './fields.ts';
import { attend, embedTokens, finish, gatedMlp, norm, projectHeads, type RecordOptions, rotaryTable } from './parts.ts';

export const llama: ModelFamily = {
  architectures: ['LlamaForCausalLM'],

  parse(fields: ConfigFields, architecture: string): ModelConfig {
    const attention = fields.bool('attention_bias', false);
    const biases = { qkv: attention, output: attention, mlp: fields.bool('mlp_bias', false) };
    const dense = parseDense(fields, architecture, { biases, rmsNormEps: 1e-6 });
    return { ...dense, windows: Array.from({ length: dense.numLayers }, () => 0) };
  },

  record(config: ModelConfig, options: RecordOptions) {
    const b = createProgramBuilder();
    const table = rotaryTable(b, config, options);
    let x = embedTokens(b, config);
    for (let layer = 0; layer < config.numLayers; layer++) {
      const at = `model.layers.${layer}`;
      const normed = norm(b, config, x, `${at}.input_layernorm`, config.hiddenSize);
      const heads = projectHeads(b, config, normed, `${at}.self_attn`);
      const attention = attend(b, config, heads, { layer, prefix: `${at}.self_attn`, table });
      x = b.add({ a: x, b: attention, name: `${at}.attention_residual` });
      const mlpInput = norm(b, config, x, `${at}.post_attention_layernorm`, config.hiddenSize);
      x = b.add({ a: x, b: gatedMlp(b, config, mlpInput, `${at}.mlp`), name: `${at}.mlp_residual` });
    }
    return finish(b, config, x);
  },
};
