// What every kernel needs beyond one instruction: partial vectors, exp, fixed-order reductions. Everything here lives in the
// ISA's own namespace, so that no two translation units with different instruction sets share an inline function.
#pragma once
#include <cstdint>

#include "kernel_table.h"

namespace mill::MILL_ISA {

constexpr int W = Simd::kWidth;
using F = Simd::F;

// Out of line, as the edge of a matrix is rare and the calls are many.
[[gnu::noinline]] static F load_partial(const float* p, int64_t count) {
  float lanes[W] = {};
  for (int64_t i = 0; i < count; i++) lanes[i] = p[i];
  return Simd::load(lanes);
}

inline F load_partial_or(const float* p, int64_t count, float rest) {
  float lanes[W];
  for (int64_t i = 0; i < W; i++) lanes[i] = i < count ? p[i] : rest;
  return Simd::load(lanes);
}

[[gnu::noinline]] static void store_partial(float* p, F x, int64_t count) {
  float lanes[W];
  Simd::store(lanes, x);
  for (int64_t i = 0; i < count; i++) p[i] = lanes[i];
}

// Lanes are added pairwise, the upper half to the lower, on every instruction set.
inline float reduce_add(F x) { return Simd::reduce_add(x); }
inline float reduce_max(F x) { return Simd::reduce_max(x); }

// exp(x) is mantissa * 2^n, n integral: Cody-Waite reduction to |r| <= ln2/2 and the Taylor polynomial, whose remainder
// there is below 2^-25. x in [-87.3, 88.7].
struct Exponential {
  F mantissa;
  F n;
};

inline Exponential exponential(F x) {
  const F n = Simd::round(Simd::mul(x, Simd::set1(1.44269504f)));
  F r = Simd::fma(n, Simd::set1(-0.693359375f), x);
  r = Simd::fma(n, Simd::set1(2.12194440e-4f), r);
  F p = Simd::set1(1.0f / 5040);
  p = Simd::fma(p, r, Simd::set1(1.0f / 720));
  p = Simd::fma(p, r, Simd::set1(1.0f / 120));
  p = Simd::fma(p, r, Simd::set1(1.0f / 24));
  p = Simd::fma(p, r, Simd::set1(1.0f / 6));
  p = Simd::fma(p, r, Simd::set1(0.5f));
  p = Simd::fma(Simd::mul(r, r), p, r);
  return {Simd::add(p, Simd::set1(1.0f)), n};
}

// exp(x), error below 2 units in the last place; 0 below -87.3 (no denormals), +inf above 88.7. x must not be NaN.
inline F exp(F x) {
  const Exponential e = exponential(Simd::min(Simd::max(x, Simd::set1(-87.3f)), Simd::set1(88.7f)));
  // 2^128 is not a float: scale in two steps.
  const F half = Simd::round(Simd::mul(e.n, Simd::set1(0.5f)));
  const F y = Simd::mul(Simd::mul(e.mantissa, Simd::exp2i(half)), Simd::exp2i(Simd::sub(e.n, half)));
  const F low = Simd::select(Simd::less(x, Simd::set1(-87.3f)), Simd::zero(), y);
  return Simd::select(Simd::less(Simd::set1(88.7f), x), Simd::set1(__builtin_inff()), low);
}

// The same for x <= 0, at less work.
inline F exp_not_positive(F x) {
  const Exponential e = exponential(Simd::max(x, Simd::set1(-87.3f)));
  return Simd::select(Simd::less(x, Simd::set1(-87.3f)), Simd::zero(), Simd::mul(e.mantissa, Simd::exp2i(e.n)));
}

inline float to_float(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

inline uint32_t to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

inline float from_bf16(uint16_t x) { return to_float(static_cast<uint32_t>(x) << 16); }

// Round to nearest even; NaN stays NaN.
inline uint16_t to_bf16(float x) {
  const uint32_t bits = to_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fu;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 31) return to_float(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -tiny : tiny;
}

inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace mill::MILL_ISA
