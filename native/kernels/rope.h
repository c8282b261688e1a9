// rope: rotates the first rotary_dim elements of each head by the angles of its position.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

// Pairs (i, i + half). Products are rounded before the sum, as in the definition.
inline void rope_halves(const float* x, const float* cos, const float* sin, int64_t half, float* y) {
  int64_t i = 0;
  for (; i + W <= half; i += W) {
    const F a = Simd::load(x + i), b = Simd::load(x + half + i);
    const F c = Simd::load(cos + i), s = Simd::load(sin + i);
    Simd::store(y + i, Simd::sub(Simd::mul(a, c), Simd::mul(b, s)));
    Simd::store(y + half + i, Simd::add(Simd::mul(b, c), Simd::mul(a, s)));
  }
  for (; i < half; i++) {
    const float a = x[i], b = x[half + i];
    y[i] = a * cos[i] - b * sin[i];
    y[half + i] = b * cos[i] + a * sin[i];
  }
}

// Pairs (2i, 2i + 1).
inline void rope_interleaved(const float* x, const float* cos, const float* sin, int64_t half, float* y) {
  for (int64_t i = 0; i < half; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * cos[i] - b * sin[i];
    y[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

inline void rope(const RopeArgs& args, int64_t begin, int64_t end) {
  const int64_t half = args.rotary_dim / 2;
  for (int64_t t = begin; t < end; t++) {
    const float* cos = args.table + args.positions[t] * args.rotary_dim;
    const float* sin = cos + half;
    for (int64_t head = t * args.width; head < (t + 1) * args.width; head += args.head_dim) {
      const float* x = args.x + head;
      float* y = args.y + head;
      if (args.interleaved) rope_interleaved(x, cos, sin, half, y);
      else rope_halves(x, cos, sin, half, y);
      if (x == y) continue;
      for (int64_t i = args.rotary_dim; i < args.head_dim; i++) y[i] = x[i];
    }
  }
}

}  // namespace mill::MILL_ISA
