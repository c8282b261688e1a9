// AVX-512 (F, BW, VL, DQ): 16 lanes of fp32. With MILL_VNNI also the BF16 and VNNI dot products.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace mill::MILL_ISA {

struct Simd {
  static constexpr int kWidth = 16;
  // 8 rows x 48 columns: 24 of 32 registers accumulate, 3 hold weights.
  static constexpr int kRows = 8;
  static constexpr int kPanels = 3;
  static constexpr int kPanelsOneRow = 8;
  static constexpr int kRowsI8 = 8;
  static constexpr int kRowsI4 = 8;
  using F = __m512;
  using I = __m512i;
  struct Mask {
    __mmask16 lanes;
  };

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  // The second operand when either is NaN.
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // 2^n for integral n in [-126, 127].
  static F exp2i(F n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
  }
  // The upper half to the lower, again and again.
  static float reduce_add(F x) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float reduce_max(F x) { return _mm512_reduce_max_ps(x); }
  static Mask less(F a, F b) { return {_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)}; }
  static F select(Mask m, F yes, F no) { return _mm512_mask_blend_ps(m.lanes, no, yes); }
  static F iota() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

  static F load_bf16(const uint16_t* p) {
    const I wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  // The low and the high halves of 16 pairs.
  static F load_bf16_even(const uint16_t* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16)); }
  static F load_bf16_odd(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static F load_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static F load_int8(const int8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))); }
  // fp8 by way of fp16, whose exponent is wider: e4m3 comes out 256 times too small, and its NaN as 480 / 256.
  static F load_e4m3(const uint8_t* p) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(static_cast<int16_t>(0xbfff))));
  }
  static F load_e5m2(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 8));
  }

  static I zero_i32() { return _mm512_setzero_si512(); }
  static I set1_i32(int32_t x) { return _mm512_set1_epi32(x); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I sub_i32(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I load_i32(const int32_t* p) { return _mm512_loadu_si512(p); }

#ifdef MILL_VNNI
  // acc + x.odd * w.odd, then + x.even * w.even, per 32-bit lane.
  static F dot_bf16(F acc, uint32_t x, const uint16_t* w) {
    const I pairs = _mm512_set1_epi32(static_cast<int>(x));
    const I weights = _mm512_loadu_si512(w);
    __m512bh a, b;
    __builtin_memcpy(&a, &pairs, 64);
    __builtin_memcpy(&b, &weights, 64);
    return _mm512_dpbf16_ps(acc, a, b);
  }
  // The instruction wants one side unsigned: w is sent as w + 128, and a sum starts from -128 times the sum of x.
  static constexpr bool kOffsetI8 = true;
  using Int8Weights = I;
  static Int8Weights load_i8(const int8_t* p) { return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128)); }
  static I dot_i8(I acc, Int8Weights w, I x) { return _mm512_dpbusd_epi32(acc, w, x); }
#else
  // |w| <= 127 and |x| <= 127, so the 16-bit sums cannot saturate.
  static constexpr bool kOffsetI8 = false;
  struct Int8Weights {
    I magnitude;
    __mmask64 negative;
  };
  static Int8Weights load_i8(const int8_t* p) {
    const I w = _mm512_loadu_si512(p);
    return {_mm512_abs_epi8(w), _mm512_movepi8_mask(w)};
  }
  static I dot_i8(I acc, Int8Weights w, I x) {
    const I signed_x = _mm512_mask_sub_epi8(x, w.negative, _mm512_setzero_si512(), x);
    const I pairs = _mm512_maddubs_epi16(w.magnitude, signed_x);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
#endif

  // Integers within int8.
  static void store_i8(int8_t* p, F x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x))); }

  // Bytes of two 4-bit weights: the first, in 0..15, and the second.
  static I load_u4_low(const uint8_t* p) { return _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(15)); }
  static I load_u4_high(const uint8_t* p) { return _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(15)); }
#ifdef MILL_VNNI
  static I dot_u4(I acc, I w, I x) { return _mm512_dpbusd_epi32(acc, w, x); }
  static I load_scales_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  // total + sum * scale, where `sum` is what dot_u4 made.
  static I scale_u4(I total, I sum, I scale) { return _mm512_add_epi32(total, _mm512_mullo_epi32(sum, scale)); }
  // acc + the sum of two products of int16.
  static I dot_i16(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }
#else
  // Two 16-bit sums a lane: at most 8 dot products before scale_u4 adds them up.
  static I dot_u4(I acc, I w, I x) { return _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, x)); }
  // Scales as scale_u4 takes them: each twice in 16 bits.
  static I load_scales_u8(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepu8_epi16(_mm256_set_m128i(_mm_unpackhi_epi8(bytes, bytes), _mm_unpacklo_epi8(bytes, bytes)));
  }
  // total + sum * scale, where `sum` is what dot_u4 made.
  static I scale_u4(I total, I sum, I scale) { return _mm512_add_epi32(total, _mm512_madd_epi16(sum, scale)); }
  // acc + the sum of two products of int16.
  static I dot_i16(I acc, I a, I b) { return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)); }
#endif
  // Lanes of two int16: from pairs of int8, or from each int8 twice; `shift` bits up.
  static I load_pairs_i8(const int8_t* p, int shift) {
    return _mm512_slli_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), static_cast<unsigned>(shift));
  }
  static I load_twice_i8(const int8_t* p, int shift) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256i twice = _mm256_set_m128i(_mm_unpackhi_epi8(bytes, bytes), _mm_unpacklo_epi8(bytes, bytes));
    return _mm512_slli_epi16(_mm512_cvtepi8_epi16(twice), static_cast<unsigned>(shift));
  }

#ifdef MILL_VNNI
  // 32 numbers as bf16, to nearest even.
  static void store_bf16(uint16_t* p, F first, F second) {
    const __m512bh rounded = _mm512_cvtne2ps_pbh(second, first);
    __builtin_memcpy(p, &rounded, 64);
  }
#endif
  // 16 of a and 16 of b in turns.
  static void store_pairs_u16(uint16_t* p, const uint16_t* a, const uint16_t* b) {
    const I turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const I low = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
    const I both = _mm512_inserti64x4(low, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)), 1);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(turns, both));
  }
  // For planes_u4: scales d and minimums m of 16 columns, `stride` apart, beside q and one another in the bytes of a product.
  struct Lines {
    I scales_low, scales_high, minimums;
  };
  static Lines lines_u4(const uint8_t* scales, const int8_t* minimums, int stride, int step) {
    const I four = _mm512_set1_epi32(0x01010101);
    const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(minimums));
    const __m128i m = stride == 1 ? pairs : _mm256_cvtepi16_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(minimums)));
    const I d = _mm512_mullo_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))), four);
    const I steps = _mm512_set1_epi8(static_cast<int8_t>(step));
    return {_mm512_unpacklo_epi8(d, steps), _mm512_unpackhi_epi8(d, steps), _mm512_mullo_epi32(_mm512_cvtepu8_epi32(m), four)};
  }
  // w = d q + step m of four q a column, as w >> SHIFT and the bits below.
  template <int SHIFT>
  static void planes_u4(const Lines& lines, I q, int8_t* high, int8_t* low) {
    const I first = _mm512_maddubs_epi16(lines.scales_low, _mm512_unpacklo_epi8(q, lines.minimums));
    const I second = _mm512_maddubs_epi16(lines.scales_high, _mm512_unpackhi_epi8(q, lines.minimums));
    const I bits = _mm512_set1_epi16((1 << SHIFT) - 1);
    _mm512_storeu_si512(high, _mm512_packs_epi16(_mm512_srai_epi16(first, SHIFT), _mm512_srai_epi16(second, SHIFT)));
    _mm512_storeu_si512(low, _mm512_packs_epi16(_mm512_and_si512(first, bits), _mm512_and_si512(second, bits)));
  }

  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
  // Into the second cache only.
  static void prefetch_near(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
};

}  // namespace mill::MILL_ISA
