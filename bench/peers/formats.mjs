/** Weight formats that are compared: how Tokenmill loads one, which GGUF type the peer gets, and what the roof counts. */
export const FORMATS = {
  bf16: {
    title: 'BF16 on both',
    options: { dtype: 'bfloat16' },
    gguf: 'BF16',
    bytes: 2,
    headBytes: 2,
    peak: 'bf16GFlops',
  },
  int8: {
    title: 'int8 here, Q8_0 there',
    options: { quantization: 'int8' },
    gguf: 'Q8_0',
    bytes: 1,
    headBytes: 1,
    peak: 'int8GOps',
  },
  int4: {
    title: 'int4 (groups of 32, logits int8) here, Q4_0 there',
    options: { quantization: 'int4_g32' },
    gguf: 'Q4_0',
    bytes: 0.5625,
    headBytes: 1,
    peak: 'int8GOps',
  },
};
