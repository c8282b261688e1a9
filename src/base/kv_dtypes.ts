/** Types of keys and values in the KV cache, under vLLM's names. */
export const KV_DTYPES = {
  float32: { elementBytes: 4, scaleBytes: 0 },
  bfloat16: { elementBytes: 2, scaleBytes: 0 },
  /** Four exponent and three mantissa bits, without infinities; scale 1. */
  fp8_e4m3: { elementBytes: 1, scaleBytes: 0 },
  /** Five exponent and two mantissa bits; scale 1. */
  fp8_e5m2: { elementBytes: 1, scaleBytes: 0 },
  /** int8 with a scale for the key and one for the value of each token and head. */
  int8_per_token_head: { elementBytes: 1, scaleBytes: 2 },
} as const satisfies Record<string, { readonly elementBytes: number; readonly scaleBytes: number }>;

export type KvDType = keyof typeof KV_DTYPES;

export const KV_DTYPE_NAMES = Object.keys(KV_DTYPES) as readonly KvDType[];

/** Bytes of the keys (or of the values) of one token in one head. */
export function kvHeadBytes(dtype: KvDType, headDim: number): number {
  const { elementBytes, scaleBytes } = KV_DTYPES[dtype];
  return headDim * elementBytes + scaleBytes;
}

/** Whether rounding to the type costs accuracy beyond that of the 16-bit types. */
export function isQuantizedKv(dtype: KvDType): boolean {
  return KV_DTYPES[dtype].elementBytes === 1;
}
