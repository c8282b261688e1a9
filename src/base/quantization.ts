/** Ways to store linear weights that are quantised at load. A facts table: names, sizes, what the logits are made with. */

export const QUANTIZATIONS = ['none', 'int8', 'int4_g32', 'int4_g64', 'int4_g128'] as const;
export type Quantization = (typeof QUANTIZATIONS)[number];
export type QuantizedType = Exclude<Quantization, 'none'>;

/** Steps of k that share a scale and a minimum; null for int8, whose scale is a row's. */
export function groupOf(type: QuantizedType): number | null {
  return type === 'int8' ? null : Number(type.slice('int4_g'.length));
}

/**
 * The type of one linear weight; null = not quantised. The projection to logits keeps int8 where the others have 4 bits:
 * every token's choice passes through it (llama.cpp keeps it at 6 or 8 bits in its 4-bit files).
 */
export function storedAs(quantization: Quantization, makesLogits: boolean): QuantizedType | null {
  if (quantization === 'none') return null;
  return makesLogits ? 'int8' : quantization;
}

/** Bytes of `elements` weights in `rows` rows, scales included. */
export function quantizedBytes(type: QuantizedType, elements: number, rows: number): number {
  const group = groupOf(type);
  return (group === null ? elements : elements / 2 + (elements / group) * 2) + rows * 4;
}
