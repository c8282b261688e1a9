// silu_mul: y = gate * sigmoid(gate) * up.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

inline F silu_mul_vector(F gate, F up) {
  const F denominator = Simd::add(Simd::set1(1.0f), exp(Simd::sub(Simd::zero(), gate)));
  return Simd::mul(Simd::div(gate, denominator), up);
}

inline void silu_mul(const SiluMulArgs& args, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + W <= end; i += W) Simd::store(args.y + i, silu_mul_vector(Simd::load(args.gate + i), Simd::load(args.up + i)));
  const int64_t rest = end - i;
  if (rest > 0) store_partial(args.y + i, silu_mul_vector(load_partial(args.gate + i, rest), load_partial(args.up + i, rest)), rest);
}

}  // namespace mill::MILL_ISA
