// Arithmetic without memory: what the machine could do at most. The denominators of every claim of speed.
#pragma once
#include "linear_int8.h"

namespace mill::MILL_ISA {

// Independent chains; enough to hide the latency of every instruction measured, few enough for the registers.
constexpr int kChains = Simd::kRows * Simd::kPanels * kVectors < 8 ? 8 : Simd::kRows * Simd::kPanels * kVectors;

inline double peak_fma(int64_t iterations, float* sink) {
  F acc[kChains];
  for (int i = 0; i < kChains; i++) acc[i] = Simd::set1(static_cast<float>(i));
  const F a = Simd::set1(sink[0]), b = Simd::set1(sink[1]);
  for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; i++) acc[i] = Simd::fma(a, acc[i], b);
  }
  F total = acc[0];
  for (int i = 1; i < kChains; i++) total = Simd::add(total, acc[i]);
  sink[2] = reduce_add(total);
  return static_cast<double>(iterations) * kChains * W * 2;
}

inline double peak_i8(int64_t iterations, float* sink) {
  constexpr int chains = 8;
  I acc[chains];
  for (int i = 0; i < chains; i++) acc[i] = Simd::zero_i32();
  int8_t bytes[4 * W];
  for (int i = 0; i < 4 * W; i++) bytes[i] = static_cast<int8_t>(i);
  const auto w = Simd::load_i8(bytes);
  I x = Simd::set1_i32(static_cast<int32_t>(sink[0]));
  for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 8
    for (int i = 0; i < chains; i++) acc[i] = Simd::dot_i8(acc[i], w, x);
    x = Simd::sub_i32(x, acc[0]);
  }
  F total = Simd::to_float(acc[0]);
  for (int i = 1; i < chains; i++) total = Simd::add(total, Simd::to_float(acc[i]));
  sink[2] = reduce_add(total);
  return static_cast<double>(iterations) * chains * W * 4 * 2;
}

#if defined(MILL_AMX)

// Two by two tiles, as in linear_amx.h, of numbers whose bits differ: with zeros the processor runs a fifth faster than in any
// product that is of use.
template <bool BF16>
inline double peak_tiles(int64_t iterations, float* sink) {
  alignas(64) uint32_t data[16 * 16];
  uint32_t bits = 1;
  for (uint32_t& pair : data) {
    bits = bits * 1664525u + 1013904223u;
    const uint32_t both = bits >> 16 | bits << 16;
    // bf16: of 1 to 2 with either sign.
    pair = BF16 ? (both & 0x807f807fu) | 0x3f803f80u : both;
  }
  TileBlock::begin(16);
  TileBlock block;
  block.zero();
  for (int i = 0; i < 2; i++) {
    block.load_x(i, data);
    block.load_w(i, data);
  }
  for (int64_t n = 0; n < iterations; n++) block.multiply<BF16>(true, true);
  block.store(0, 0, data);
  TileBlock::end();
  sink[2] = to_float(data[0]);
  return static_cast<double>(iterations) * 4 * 16 * 16 * (BF16 ? 32 : 64) * 2;
}

inline double peak_bf16(int64_t iterations, float* sink) { return peak_tiles<true>(iterations, sink); }
inline double peak_int8(int64_t iterations, float* sink) { return peak_tiles<false>(iterations, sink); }

#elif defined(MILL_MMLA)

template <class Sum>
inline double peak_mmla(int64_t iterations, float* sink, Sum zero, int depth) {
  constexpr int chains = 16;
  Sum acc[chains];
  for (int i = 0; i < chains; i++) acc[i] = zero;
  const Simd::Bytes x = Simd::load_bytes(sink), w = Simd::load_bytes(sink);
  for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 16
    for (int i = 0; i < chains; i++) acc[i] = Simd::mmla(acc[i], x, w);
  }
  alignas(16) uint32_t result[4] = {};
  for (int i = 0; i < chains; i++) {
    uint32_t bits[4];
    __builtin_memcpy(bits, &acc[i], 16);
    for (int j = 0; j < 4; j++) result[j] ^= bits[j];
  }
  sink[2] = to_float(result[0] ^ result[1] ^ result[2] ^ result[3]);
  return static_cast<double>(iterations) * chains * 2 * 2 * depth * 2;
}

inline double peak_bf16(int64_t iterations, float* sink) { return peak_mmla(iterations, sink, Simd::zero(), 4); }
inline double peak_int8(int64_t iterations, float* sink) { return peak_mmla(iterations, sink, Simd::zero_i32(), 8); }

#else

inline double peak_int8(int64_t iterations, float* sink) { return peak_i8(iterations, sink); }

#ifdef MILL_VNNI
inline double peak_bf16(int64_t iterations, float* sink) {
  constexpr int chains = 16;
  F acc[chains];
  for (int i = 0; i < chains; i++) acc[i] = Simd::zero();
  uint16_t weights[2 * W] = {};
  for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 16
    for (int i = 0; i < chains; i++) acc[i] = Simd::dot_bf16(acc[i], to_bits(sink[0]), weights);
  }
  F total = acc[0];
  for (int i = 1; i < chains; i++) total = Simd::add(total, acc[i]);
  sink[2] = reduce_add(total);
  return static_cast<double>(iterations) * chains * W * 2 * 2;
}
#else
// Without the instruction bf16 weights are multiplied as fp32.
inline double peak_bf16(int64_t iterations, float* sink) { return peak_fma(iterations, sink); }
#endif

#endif

}  // namespace mill::MILL_ISA
