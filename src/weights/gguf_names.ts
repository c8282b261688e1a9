/** From the tensor names of transformers to those of llama.cpp, and the row order it expects for llama's q and k. */
import { TokenmillError } from '../base/errors.ts';

const TOP: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
};

const LAYER: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};

export function ggufName(name: string): string {
  const top = TOP[name];
  if (top !== undefined) return top;
  const match = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  const part = match?.[2] === undefined ? undefined : LAYER[match[2]];
  if (match === null || part === undefined) {
    throw new TokenmillError('unsupported_feature', `Tensor ${name} has no counterpart in GGUF that is known here.`);
  }
  return `blk.${match[1]}.${part}.${match[3]}`;
}

/**
 * llama.cpp rotates neighbours where transformers rotates halves, for the llama architecture alone: rows of q and k are
 * interleaved so that both compute the same. `matrix` holds `heads * headDim` rows of any width, `rowBytes` each.
 */
export function interleaveHeads(matrix: Uint8Array, heads: number, rowBytes: number): Uint8Array {
  const result = new Uint8Array(matrix.length);
  const headDim = matrix.length / rowBytes / heads;
  for (let row = 0; row < heads * headDim; row++) {
    const [head, inHead] = [Math.floor(row / headDim), row % headDim];
    const from = head * headDim + (inHead % 2) * (headDim / 2) + Math.floor(inHead / 2);
    result.set(matrix.subarray(from * rowBytes, (from + 1) * rowBytes), row * rowBytes);
  }
  return result;
}
