// rms_norm: y = x / sqrt(mean(x^2) + eps) * weight over groups of `group` elements.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

inline void rms_norm_group(const RmsNormArgs& args, const float* x, float* y) {
  F sums = Simd::zero();
  int64_t i = 0;
  for (; i + W <= args.group; i += W) {
    const F v = Simd::load(x + i);
    sums = Simd::fma(v, v, sums);
  }
  const int64_t rest = args.group - i;
  if (rest > 0) {
    const F v = load_partial(x + i, rest);
    sums = Simd::fma(v, v, sums);
  }
  const float inverse = 1.0f / __builtin_sqrtf(reduce_add(sums) / static_cast<float>(args.group) + args.eps);
  const F factor = Simd::set1(inverse);
  for (i = 0; i + W <= args.group; i += W) {
    Simd::store(y + i, Simd::mul(Simd::mul(Simd::load(x + i), factor), Simd::load(args.weight + i)));
  }
  for (; i < args.group; i++) y[i] = x[i] * inverse * args.weight[i];
}

// Groups [begin, end).
inline void rms_norm(const RmsNormArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) rms_norm_group(args, args.x + i * args.group, args.y + i * args.group);
}

}  // namespace mill::MILL_ISA
