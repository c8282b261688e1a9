// AVX2 + FMA + F16C: 8 lanes of fp32.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace mill::MILL_ISA {

struct Simd {
  static constexpr int kWidth = 8;
  // Rows and panels of the fp32 micro-kernel: 6 x 16 keeps 12 of 16 registers as accumulators, see accumulate_row.
  static constexpr int kRows = 6;
  static constexpr int kPanels = 1;
  // Panels side by side for one row, so that enough independent chains hide the FMA latency.
  static constexpr int kPanelsOneRow = 4;
  static constexpr int kRowsI8 = 4;
  static constexpr int kRowsI4 = 6;
  using F = __m256;
  using I = __m256i;
  struct Mask {
    F lanes;
  };

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  // The second operand when either is NaN.
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // 2^n for integral n in [-126, 127].
  static F exp2i(F n) {
    const I bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_castsi256_ps(bits);
  }
  // The upper half to the lower, again and again.
  static float reduce_add(F x) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float reduce_max(F x) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  static Mask less(F a, F b) { return {_mm256_cmp_ps(a, b, _CMP_LT_OQ)}; }
  static F select(Mask m, F yes, F no) { return _mm256_blendv_ps(no, yes, m.lanes); }
  static F iota() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }

  static F load_bf16(const uint16_t* p) {
    const I wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  // The low and the high halves of 8 pairs.
  static F load_bf16_even(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const I*>(p)), 16));
  }
  static F load_bf16_odd(const uint16_t* p) {
    const I pair = _mm256_loadu_si256(reinterpret_cast<const I*>(p));
    return _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static F load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static F load_int8(const int8_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))); }
  // fp8 by way of fp16, whose exponent is wider: e4m3 comes out 256 times too small, and its NaN as 480 / 256.
  static F load_e4m3(const uint8_t* p) {
    const __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16(static_cast<int16_t>(0xbfff))));
  }
  static F load_e5m2(const uint8_t* p) { return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))); }

  // acc + dot of four int8 per lane; |w| <= 127 and |x| <= 127, so the 16-bit sums cannot saturate.
  struct Int8Weights {
    I value;
    I magnitude;
  };
  static I zero_i32() { return _mm256_setzero_si256(); }
  static I set1_i32(int32_t x) { return _mm256_set1_epi32(x); }
  static Int8Weights load_i8(const int8_t* p) {
    const I w = _mm256_loadu_si256(reinterpret_cast<const I*>(p));
    return {w, _mm256_abs_epi8(w)};
  }
  // In assembly, as GCC 12 would keep the parts of many products at once, which takes more registers than there are.
  static I dot_i8(I acc, Int8Weights w, I x) {
    I sum;
    __asm__("vpsignb %3, %5, %1\n\tvpmaddubsw %1, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
            : "+x"(acc), "=&x"(sum)
            : "x"(w.magnitude), "x"(w.value), "x"(_mm256_set1_epi16(1)), "x"(x));
    return acc;
  }
  // Integers within int8.
  static void store_i8(int8_t* p, F x) {
    const I wide = _mm256_cvtps_epi32(x);
    const __m128i narrow = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(narrow, narrow));
  }
  static constexpr bool kOffsetI8 = false;

  // Bytes of two 4-bit weights: the first, in 0..15, and the second.
  static I load_u4_low(const uint8_t* p) { return _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const I*>(p)), _mm256_set1_epi8(15)); }
  static I load_u4_high(const uint8_t* p) {
    return _mm256_and_si256(_mm256_srli_epi16(_mm256_loadu_si256(reinterpret_cast<const I*>(p)), 4), _mm256_set1_epi8(15));
  }
  // Two 16-bit sums a lane: at most 8 dot products before scale_u4 adds them up.
  static I dot_u4(I acc, I w, I x) { return _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)); }
  // Scales as scale_u4 takes them: each twice in 16 bits.
  static I load_scales_u8(const uint8_t* p) {
    const I order = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
    return _mm256_shuffle_epi8(_mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))), order);
  }
  // total + sum * scale, where `sum` is what dot_u4 made.
  static I scale_u4(I total, I sum, I scale) { return _mm256_add_epi32(total, _mm256_madd_epi16(sum, scale)); }
  // Lanes of two int16: from pairs of int8, or from each int8 twice; `shift` bits up.
  static I load_pairs_i8(const int8_t* p, int shift) { return _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), shift); }
  static I load_twice_i8(const int8_t* p, int shift) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(bytes, bytes)), shift);
  }
  // acc + the sum of two products of int16.
  static I dot_i16(I acc, I a, I b) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  static I sub_i32(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I load_i32(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }

  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
};

}  // namespace mill::MILL_ISA
