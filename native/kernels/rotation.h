// The rotation of quantised linears: rows of x and of weights are padded with zeros to blocks of 64, and each block is
// multiplied by the Hadamard matrix of that size. In fp32, in the order of src/quant/rotation.ts.
#pragma once
#include "kernel_table.h"

namespace mill {

// Lanes of the compiler's own vectors: the code is the same for every instruction set, and the result too.
typedef float Quad __attribute__((vector_size(16)));

MILL_INLINE void add_and_subtract(Quad& a, Quad& b) {
  const Quad sum = a + b;
  b = a - b;
  a = sum;
}

// Sums and differences of elements 1, 2, 4, ... 32 apart.
MILL_INLINE void rotate_block(float* values) {
  constexpr int kQuads = kRotation / 4;
  const Quad one = {1, -1, 1, -1}, two = {1, 1, -1, -1};
  Quad v[kQuads];
#pragma GCC unroll 16
  for (int i = 0; i < kQuads; i++) {
    __builtin_memcpy(&v[i], values + 4 * i, 16);
    v[i] = __builtin_shufflevector(v[i], v[i], 0, 0, 2, 2) + __builtin_shufflevector(v[i], v[i], 1, 1, 3, 3) * one;
    v[i] = __builtin_shufflevector(v[i], v[i], 0, 1, 0, 1) + __builtin_shufflevector(v[i], v[i], 2, 3, 2, 3) * two;
  }
#pragma GCC unroll 4
  for (int half = 1; half < kQuads; half *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < kQuads; i++) {
      if (!(i & half)) add_and_subtract(v[i], v[i + half]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kQuads; i++) __builtin_memcpy(values + 4 * i, &v[i], 16);
}

}  // namespace mill
