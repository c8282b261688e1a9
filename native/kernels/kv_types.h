// How keys and values are stored: one struct a type, with the widening load of the kernels and the rounding of kv_write.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

// Numbers come out of `load` kFactor times too small. kScaled: each position of a unit has a scale.
struct KvF32 {
  using T = float;
  static constexpr bool kScaled = false;
  static constexpr float kFactor = 1;
  static F load(const T* p) { return Simd::load(p); }
  static T round(float x) { return x; }
};

struct KvBf16 {
  using T = uint16_t;
  static constexpr bool kScaled = false;
  static constexpr float kFactor = 1;
  static F load(const T* p) { return Simd::load_bf16(p); }
  static T round(float x) { return to_bf16(x); }
};

// fp8 with M mantissa bits and the smallest normal exponent kLeast; to nearest even, beyond kMost (the code of the largest
// number) the largest number, NaN the code of all ones.
template <int M, int kLeast, uint32_t kMost>
inline uint8_t to_fp8(float x) {
  const uint32_t bits = to_bits(x), magnitude = bits & 0x7fffffffu;
  const uint8_t sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude < static_cast<uint32_t>(127 + kLeast) << 23) {
    // The addition leaves no bits below the smallest denormal's, so it rounds.
    const float shift = to_float(static_cast<uint32_t>(127 + kLeast - M + 23) << 23);
    return static_cast<uint8_t>(sign | (to_bits(to_float(magnitude) + shift) - to_bits(shift)));
  }
  const uint32_t rounded = (magnitude + (1u << (22 - M)) - 1 + (magnitude >> (23 - M) & 1u)) >> (23 - M);
  const uint32_t code = rounded - (static_cast<uint32_t>(126 + kLeast) << M);
  return static_cast<uint8_t>(sign | (code < kMost ? code : kMost));
}

struct KvE4m3 {
  using T = uint8_t;
  static constexpr bool kScaled = false;
  static constexpr float kFactor = 256;
  static F load(const T* p) { return Simd::load_e4m3(p); }
  static T round(float x) { return to_fp8<3, -6, 0x7e>(x); }
};

struct KvE5m2 {
  using T = uint8_t;
  static constexpr bool kScaled = false;
  static constexpr float kFactor = 1;
  static F load(const T* p) { return Simd::load_e5m2(p); }
  static T round(float x) { return to_fp8<2, -14, 0x7b>(x); }
};

struct KvI8 {
  using T = int8_t;
  static constexpr bool kScaled = true;
  static constexpr float kFactor = 1;
  static F load(const T* p) { return Simd::load_int8(p); }
  // Of what was divided by the scale, which may be rounded down.
  static T round(float x) { return static_cast<T>(__builtin_rintf(x < -127 ? -127 : x > 127 ? 127 : x)); }
};

// absmax / 127 in bf16: then q * scale is exact in fp32, and quantising it again gives the same q and scale. NaN when a value
// is not finite; 0 for zeros.
inline uint16_t kv_scale(const float* x, int64_t count) {
  float most = 0;
  for (int64_t i = 0; i < count; i++) {
    const float magnitude = __builtin_fabsf(x[i]);
    if (!(magnitude <= 0x1.fffffep127f)) return 0x7fc0;
    most = magnitude > most ? magnitude : most;
  }
  return to_bf16(most / 127);
}

// Calls work(KvF32{}) or the like.
template <class Work>
inline void with_kv_type(KvType type, Work work) {
  switch (type) {
    case KvType::f32: return work(KvF32{});
    case KvType::bf16: return work(KvBf16{});
    case KvType::e4m3: return work(KvE4m3{});
    case KvType::e5m2: return work(KvE5m2{});
    case KvType::i8: return work(KvI8{});
  }
}

}  // namespace mill::MILL_ISA
