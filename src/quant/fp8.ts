/**
 * The two 8-bit floating-point formats (Micikevicius et al., 2022). Encoding rounds to nearest, ties to even; what is too
 * large becomes the largest number, as in vLLM's KV cache; NaN stays NaN.
 */

export interface Fp8Format {
  readonly mantissaBits: number;
  readonly leastExponent: number;
  readonly largest: number;
}

/** 1-4-3 without infinities. */
export const E4M3: Fp8Format = { mantissaBits: 3, leastExponent: -6, largest: 448 };
/** 1-5-2. */
export const E5M2: Fp8Format = { mantissaBits: 2, leastExponent: -14, largest: 57344 };

/** The nearest number of the format. */
export function roundToFp8({ mantissaBits, leastExponent, largest }: Fp8Format, value: number): number {
  const magnitude = Math.abs(value);
  if (Number.isNaN(value) || magnitude === 0) return value;
  if (magnitude >= largest) return Math.sign(value) * largest;
  const exponent = Math.max(leastExponent, Math.floor(Math.log2(magnitude)));
  const step = 2 ** (exponent - mantissaBits);
  // The quotient is exact; adding 1.5 * 2^52 leaves no fraction bits, so the addition rounds, ties to even.
  const rounded = (value / step + 6755399441055744 - 6755399441055744) * step;
  return Math.sign(rounded) * Math.min(Math.abs(rounded), largest);
}
