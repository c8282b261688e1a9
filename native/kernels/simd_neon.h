// NEON (aarch64): 4 lanes of fp32. With MILL_MMLA also the matrix instructions of ARMv8.6.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace mill::MILL_ISA {

struct Simd {
  static constexpr int kWidth = 4;
  // 6 rows x 16 columns: 24 of 32 registers accumulate, 4 hold weights.
  static constexpr int kRows = 6;
  static constexpr int kPanels = 1;
  static constexpr int kPanelsOneRow = 2;
#ifdef __ARM_FEATURE_DOTPROD
  static constexpr int kRowsI8 = 4;
#else
  static constexpr int kRowsI8 = 2;
#endif
  static constexpr int kRowsI4 = kRowsI8;
  using F = float32x4_t;
  using I = int32x4_t;
  struct Mask {
    uint32x4_t lanes;
  };

  static F zero() { return vdupq_n_f32(0); }
  static F set1(float x) { return vdupq_n_f32(x); }
  static F load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, F x) { vst1q_f32(p, x); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  // The second operand when either is NaN, as on x86.
  static F min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static F abs(F a) { return vabsq_f32(a); }
  static F round(F a) { return vrndnq_f32(a); }
  // 2^n for integral n in [-126, 127].
  static F exp2i(F n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)); }
  // The upper half to the lower, again and again.
  static float reduce_add(F x) {
    const float32x2_t two = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  static float reduce_max(F x) { return vmaxvq_f32(x); }
  static Mask less(F a, F b) { return {vcltq_f32(a, b)}; }
  static F select(Mask m, F yes, F no) { return vbslq_f32(m.lanes, yes, no); }
  static F iota() {
    const float lanes[4] = {0, 1, 2, 3};
    return vld1q_f32(lanes);
  }

  static F load_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
  // The low and the high halves of 4 pairs.
  static uint32x4_t load_pairs(const uint16_t* p) { return vreinterpretq_u32_u16(vld1q_u16(p)); }
  static F load_bf16_even(const uint16_t* p) { return vreinterpretq_f32_u32(vshlq_n_u32(load_pairs(p), 16)); }
  static F load_bf16_odd(const uint16_t* p) { return vreinterpretq_f32_u32(vandq_u32(load_pairs(p), vdupq_n_u32(0xffff0000u))); }
  static F load_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static int8x8_t load_four(const void* p) {
    uint32_t bytes;
    __builtin_memcpy(&bytes, p, 4);
    return vreinterpret_s8_u32(vdup_n_u32(bytes));
  }
  static F load_int8(const int8_t* p) { return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(load_four(p))))); }
  // fp8 by way of fp16, whose exponent is wider: e4m3 comes out 256 times too small, and its NaN as 480 / 256.
  static F load_e4m3(const uint8_t* p) {
    const uint16x4_t wide = vreinterpret_u16_s16(vget_low_s16(vmovl_s8(load_four(p))));
    return vcvt_f32_f16(vreinterpret_f16_u16(vand_u16(vshl_n_u16(wide, 7), vdup_n_u16(0xbfff))));
  }
  static F load_e5m2(const uint8_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vshll_n_u8(vreinterpret_u8_s8(load_four(p)), 8)))); }

  static I zero_i32() { return vdupq_n_s32(0); }
  static I set1_i32(int32_t x) { return vdupq_n_s32(x); }
  static F to_float(I a) { return vcvtq_f32_s32(a); }
  static I sub_i32(I a, I b) { return vsubq_s32(a, b); }
  static I load_i32(const int32_t* p) { return vld1q_s32(p); }
  static constexpr bool kOffsetI8 = false;
  using Int8Weights = int8x16_t;
  static Int8Weights load_i8(const int8_t* p) { return vld1q_s8(p); }
  static I dot_i8(I acc, Int8Weights w, I x) {
    const int8x16_t bytes = vreinterpretq_s8_s32(x);
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(acc, w, bytes);
#else
    // Products of |w|, |x| <= 127 fit 16 bits, also two of them added.
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(bytes));
    const int16x8_t high = vmull_high_s8(w, bytes);
    return vpadalq_s16(acc, vpaddq_s16(low, high));
#endif
  }

  // Integers within int8.
  static void store_i8(int8_t* p, F x) {
    const int16x4_t narrow = vqmovn_s32(vcvtq_s32_f32(x));
    const int8x8_t bytes = vqmovn_s16(vcombine_s16(narrow, narrow));
    __builtin_memcpy(p, &bytes, 4);
  }

  // Bytes of two 4-bit weights: the first, in 0..15, and the second.
  static int8x16_t load_u4_low(const uint8_t* p) { return vreinterpretq_s8_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))); }
  static int8x16_t load_u4_high(const uint8_t* p) { return vreinterpretq_s8_u8(vshrq_n_u8(vld1q_u8(p), 4)); }
  static I dot_u4(I acc, int8x16_t w, I x) { return dot_i8(acc, w, x); }
  static I load_scales_u8(const uint8_t* p) { return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_s8(load_four(p)))))); }
  // total + sum * scale, where `sum` is what dot_u4 made.
  static I scale_u4(I total, I sum, I scale) { return vmlaq_s32(total, sum, scale); }
  // Lanes of two int16: from pairs of int8, or from each int8 twice; `shift` bits up.
  static I shifted_i16(int8x8_t bytes, int shift) { return vreinterpretq_s32_s16(vshlq_s16(vmovl_s8(bytes), vdupq_n_s16(static_cast<int16_t>(shift)))); }
  static I load_pairs_i8(const int8_t* p, int shift) { return shifted_i16(vld1_s8(p), shift); }
  static I load_twice_i8(const int8_t* p, int shift) {
    const int8x8_t bytes = load_four(p);
    return shifted_i16(vzip1_s8(bytes, bytes), shift);
  }
  // acc + the sum of two products of int16.
  static I dot_i16(I acc, I a, I b) {
    const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    return vaddq_s32(acc, vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
  }

#ifdef MILL_MMLA
  using Bytes = int8x16_t;
  static Bytes load_bytes(const void* p) { return vld1q_s8(static_cast<const int8_t*>(p)); }
  struct BytesPair {
    Bytes first;
    Bytes second;
  };
  // a0 b0 a1 b1 and a2 b2 a3 b3, in words of 32 bits.
  static BytesPair zip_words(Bytes a, Bytes b) {
    const int32x4_t x = vreinterpretq_s32_s8(a), y = vreinterpretq_s32_s8(b);
    return {vreinterpretq_s8_s32(vzip1q_s32(x, y)), vreinterpretq_s8_s32(vzip2q_s32(x, y))};
  }
  struct FloatPair {
    F first;
    F second;
  };
  // a0 a1 b0 b1 and a2 a3 b2 b3.
  static FloatPair zip_halves(F a, F b) { return {vcombine_f32(vget_low_f32(a), vget_low_f32(b)), vcombine_f32(vget_high_f32(a), vget_high_f32(b))}; }
  // acc + x w^T, where x and w are two rows of 8 int8, or of 4 bf16 and acc, row by row, 2 x 2. For bf16 each pair of k is added
  // to the sum before the next, with inputs and results flushed to zero when denormal.
  static I mmla(I acc, Bytes x, Bytes w) { return vmmlaq_s32(acc, x, w); }
  static F mmla(F acc, Bytes x, Bytes w) { return vbfmmlaq_f32(acc, vreinterpretq_bf16_s8(x), vreinterpretq_bf16_s8(w)); }
#endif

  // Not __builtin_prefetch, which GCC 12 loses in functions that are inlined by force.
  static void prefetch(const void* p) { __asm__ volatile("prfm pldl1keep, [%0]" : : "r"(p)); }
};

}  // namespace mill::MILL_ISA
