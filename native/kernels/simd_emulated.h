// The AVX-512 levels in portable C++, lane by lane with the exact semantics of their instructions, so that the kernels for
// processors that are not here still run in tests.
#pragma once
#include <cstdint>

namespace mill::MILL_ISA {

struct Simd {
  static constexpr int kWidth = 16;
  // Smaller blocks than on the real thing, which take a fraction of the time to compile; they do not change results.
  static constexpr int kRows = 3;
  static constexpr int kPanels = 2;
  static constexpr int kPanelsOneRow = 2;
  static constexpr int kRowsI8 = 3;
  static constexpr int kRowsI4 = 3;
  struct F {
    float lanes[16];
  };
  struct I {
    int32_t lanes[16];
  };
  struct Mask {
    bool lanes[16];
  };

  template <class Lane>
  static F each(Lane lane) {
    F result;
    for (int i = 0; i < 16; i++) result.lanes[i] = lane(i);
    return result;
  }
  template <class Lane>
  static I each_i32(Lane lane) {
    I result;
    for (int i = 0; i < 16; i++) result.lanes[i] = lane(i);
    return result;
  }
  static float from_bits(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
  }

  static F zero() { return set1(0); }
  static F set1(float x) { return each([=](int) { return x; }); }
  static F load(const float* p) { return each([=](int i) { return p[i]; }); }
  static void store(float* p, const F& x) { __builtin_memcpy(p, x.lanes, 64); }
  static F fma(const F& a, const F& b, const F& c) { return each([&](int i) { return __builtin_fmaf(a.lanes[i], b.lanes[i], c.lanes[i]); }); }
  static F add(const F& a, const F& b) { return each([&](int i) { return a.lanes[i] + b.lanes[i]; }); }
  static F sub(const F& a, const F& b) { return each([&](int i) { return a.lanes[i] - b.lanes[i]; }); }
  static F mul(const F& a, const F& b) { return each([&](int i) { return a.lanes[i] * b.lanes[i]; }); }
  static F div(const F& a, const F& b) { return each([&](int i) { return a.lanes[i] / b.lanes[i]; }); }
  static F min(const F& a, const F& b) { return each([&](int i) { return a.lanes[i] < b.lanes[i] ? a.lanes[i] : b.lanes[i]; }); }
  static F max(const F& a, const F& b) { return each([&](int i) { return a.lanes[i] > b.lanes[i] ? a.lanes[i] : b.lanes[i]; }); }
  static F abs(const F& a) { return each([&](int i) { return __builtin_fabsf(a.lanes[i]); }); }
  static F round(const F& a) { return each([&](int i) { return __builtin_rintf(a.lanes[i]); }); }
  static F exp2i(const F& n) { return each([&](int i) { return from_bits(static_cast<uint32_t>(static_cast<int32_t>(n.lanes[i]) + 127) << 23); }); }
  static float reduce_add(F x) {
    for (int half = 8; half > 0; half /= 2) {
      for (int i = 0; i < half; i++) x.lanes[i] += x.lanes[i + half];
    }
    return x.lanes[0];
  }
  static float reduce_max(const F& x) {
    float most = x.lanes[0];
    for (const float lane : x.lanes) most = lane > most ? lane : most;
    return most;
  }
  static Mask less(const F& a, const F& b) {
    Mask m;
    for (int i = 0; i < 16; i++) m.lanes[i] = a.lanes[i] < b.lanes[i];
    return m;
  }
  static F select(const Mask& m, const F& yes, const F& no) { return each([&](int i) { return m.lanes[i] ? yes.lanes[i] : no.lanes[i]; }); }
  static F iota() { return each([](int i) { return static_cast<float>(i); }); }

  static float widen(uint16_t x) { return from_bits(static_cast<uint32_t>(x) << 16); }
  static F load_bf16(const uint16_t* p) { return each([=](int i) { return widen(p[i]); }); }
  static F load_bf16_even(const uint16_t* p) { return each([=](int i) { return widen(p[2 * i]); }); }
  static F load_bf16_odd(const uint16_t* p) { return each([=](int i) { return widen(p[2 * i + 1]); }); }
  static float widen_f16(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -tiny : tiny;
  }
  static F load_f16(const uint16_t* p) { return each([=](int i) { return widen_f16(p[i]); }); }
  static F load_int8(const int8_t* p) { return each([=](int i) { return static_cast<float>(p[i]); }); }
  static F load_e4m3(const uint8_t* p) { return each([=](int i) { return widen_f16(static_cast<uint16_t>((p[i] & 0x80u) << 8 | (p[i] & 0x7fu) << 7)); }); }
  static F load_e5m2(const uint8_t* p) { return each([=](int i) { return widen_f16(static_cast<uint16_t>(p[i] << 8)); }); }

  static I zero_i32() { return set1_i32(0); }
  static I set1_i32(int32_t x) { return each_i32([=](int) { return x; }); }
  static F to_float(const I& a) { return each([&](int i) { return static_cast<float>(a.lanes[i]); }); }
  static int32_t wrap(uint32_t x) { return static_cast<int32_t>(x); }
  static I sub_i32(const I& a, const I& b) { return each_i32([&](int i) { return wrap(static_cast<uint32_t>(a.lanes[i]) - static_cast<uint32_t>(b.lanes[i])); }); }
  static I load_i32(const int32_t* p) { return each_i32([=](int i) { return p[i]; }); }
  struct Int8Weights {
    int8_t lanes[64];
  };
  static Int8Weights load_i8(const int8_t* p) {
    Int8Weights w;
    __builtin_memcpy(w.lanes, p, 64);
    return w;
  }

  // Denormals are zero on the way in and on the way out of the bf16 instructions.
  static float flush(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x; }

#ifdef MILL_VNNI
  // vdpbf16ps: a product of two bf16 is exact in fp32, so each of the two additions rounds once.
  static F dot_bf16(const F& acc, uint32_t x, const uint16_t* w) {
    const float even = flush(widen(static_cast<uint16_t>(x))), odd = flush(widen(static_cast<uint16_t>(x >> 16)));
    return each([&](int i) {
      const float first = flush(__builtin_fmaf(odd, flush(widen(w[2 * i + 1])), flush(acc.lanes[i])));
      return flush(__builtin_fmaf(even, flush(widen(w[2 * i])), first));
    });
  }
  // vpdpbusd: unsigned times signed, wrapping; see simd_avx512.h.
  static constexpr bool kOffsetI8 = true;
  static I dot_i8(const I& acc, const Int8Weights& w, const I& x) {
    return each_i32([&](int i) {
      uint32_t sum = static_cast<uint32_t>(acc.lanes[i]);
      for (int j = 0; j < 4; j++) {
        const uint8_t offset = static_cast<uint8_t>(w.lanes[4 * i + j]) ^ 0x80u;
        sum += static_cast<uint32_t>(offset * static_cast<int8_t>(static_cast<uint32_t>(x.lanes[i]) >> (8 * j)));
      }
      return wrap(sum);
    });
  }
#else
  static constexpr bool kOffsetI8 = false;
  // vpmaddubsw and vpmaddwd: pairs saturate at 16 bits, which |w|, |x| <= 127 never reach.
  static I dot_i8(const I& acc, const Int8Weights& w, const I& x) {
    return each_i32([&](int i) {
      int32_t sum = acc.lanes[i];
      for (int j = 0; j < 4; j += 2) {
        int32_t pair = 0;
        for (int l = j; l < j + 2; l++) pair += static_cast<int8_t>(static_cast<uint32_t>(x.lanes[i]) >> (8 * l)) * w.lanes[4 * i + l];
        sum += pair > 32767 ? 32767 : pair < -32768 ? -32768 : pair;
      }
      return sum;
    });
  }
#endif

  // Integers within int8.
  static void store_i8(int8_t* p, const F& x) {
    for (int i = 0; i < kWidth; i++) p[i] = static_cast<int8_t>(x.lanes[i]);
  }

  // Bytes of two 4-bit weights: the first, in 0..15, and the second.
  static Int8Weights load_u4_low(const uint8_t* p) {
    Int8Weights w;
    for (int i = 0; i < 64; i++) w.lanes[i] = static_cast<int8_t>(p[i] & 15);
    return w;
  }
  static Int8Weights load_u4_high(const uint8_t* p) {
    Int8Weights w;
    for (int i = 0; i < 64; i++) w.lanes[i] = static_cast<int8_t>(p[i] >> 4);
    return w;
  }
  static int32_t product_u4(const Int8Weights& w, const I& x, int i, int j) {
    return static_cast<int8_t>(static_cast<uint32_t>(x.lanes[i]) >> (8 * j)) * w.lanes[4 * i + j];
  }
#ifdef MILL_VNNI
  static I dot_u4(const I& acc, const Int8Weights& w, const I& x) {
    return each_i32([&](int i) {
      uint32_t sum = static_cast<uint32_t>(acc.lanes[i]);
      for (int j = 0; j < 4; j++) sum += static_cast<uint32_t>(product_u4(w, x, i, j));
      return wrap(sum);
    });
  }
  static I load_scales_u8(const uint8_t* p) { return each_i32([=](int i) { return p[i]; }); }
  static I scale_u4(const I& total, const I& sum, const I& scale) {
    return each_i32([&](int i) { return wrap(static_cast<uint32_t>(total.lanes[i]) + static_cast<uint32_t>(sum.lanes[i]) * static_cast<uint32_t>(scale.lanes[i])); });
  }
#else
  // vpmaddubsw and vpaddw: two wrapping 16-bit sums a lane; vpmaddwd adds them.
  static I dot_u4(const I& acc, const Int8Weights& w, const I& x) {
    return each_i32([&](int i) {
      const uint32_t before = static_cast<uint32_t>(acc.lanes[i]);
      const uint32_t low = before + static_cast<uint32_t>(product_u4(w, x, i, 0) + product_u4(w, x, i, 1));
      const uint32_t high = (before >> 16) + static_cast<uint32_t>(product_u4(w, x, i, 2) + product_u4(w, x, i, 3));
      return wrap((high & 0xffffu) << 16 | (low & 0xffffu));
    });
  }
  static I load_scales_u8(const uint8_t* p) { return each_i32([=](int i) { return p[i] << 16 | p[i]; }); }
  static I scale_u4(const I& total, const I& sum, const I& scale) { return dot_i16(total, sum, scale); }
#endif
  // Lanes of two int16: from pairs of int8, or from each int8 twice; `shift` bits up.
  static int32_t two_i16(int32_t low, int32_t high) { return wrap(static_cast<uint32_t>(high) << 16 | (static_cast<uint32_t>(low) & 0xffffu)); }
  static I load_pairs_i8(const int8_t* p, int shift) { return each_i32([=](int i) { return two_i16(p[2 * i] * (1 << shift), p[2 * i + 1] * (1 << shift)); }); }
  static I load_twice_i8(const int8_t* p, int shift) { return each_i32([=](int i) { return two_i16(p[i] * (1 << shift), p[i] * (1 << shift)); }); }
  // vpmaddwd and vpaddd, vpdpwssd: acc + the sum of two products of int16.
  static I dot_i16(const I& acc, const I& a, const I& b) {
    return each_i32([&](int i) {
      const auto high = [](int32_t lane) { return static_cast<int32_t>(static_cast<int16_t>(static_cast<uint32_t>(lane) >> 16)); };
      const int32_t low = static_cast<int16_t>(a.lanes[i]) * static_cast<int16_t>(b.lanes[i]);
      return wrap(static_cast<uint32_t>(acc.lanes[i]) + static_cast<uint32_t>(low) + static_cast<uint32_t>(high(a.lanes[i]) * high(b.lanes[i])));
    });
  }

  static void store_bf16(uint16_t* p, const F& first, const F& second) {
    for (int i = 0; i < 32; i++) {
      uint32_t bits;
      __builtin_memcpy(&bits, i < 16 ? &first.lanes[i] : &second.lanes[i - 16], 4);
      const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
      p[i] = static_cast<uint16_t>(nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
  }
  static void store_pairs_u16(uint16_t* p, const uint16_t* a, const uint16_t* b) {
    for (int i = 0; i < 16; i++) {
      p[2 * i] = a[i];
      p[2 * i + 1] = b[i];
    }
  }
  struct Lines {
    int32_t scales[16], offsets[16];
  };
  static Lines lines_u4(const uint8_t* scales, const int8_t* minimums, int stride, int step) {
    Lines lines;
    for (int c = 0; c < 16; c++) {
      lines.scales[c] = scales[c];
      lines.offsets[c] = step * minimums[c * stride];
    }
    return lines;
  }
  template <int SHIFT>
  static void planes_u4(const Lines& lines, const Int8Weights& q, int8_t* high, int8_t* low) {
    for (int i = 0; i < 64; i++) {
      const int32_t w = lines.scales[i / 4] * q.lanes[i] + lines.offsets[i / 4];
      high[i] = static_cast<int8_t>(w >> SHIFT);
      low[i] = static_cast<int8_t>(w & ((1 << SHIFT) - 1));
    }
  }

  static void prefetch(const void*) {}
  static void prefetch_near(const void*) {}
};

}  // namespace mill::MILL_ISA
