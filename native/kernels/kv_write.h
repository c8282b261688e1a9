// kv_write: stores keys transposed (a unit's positions side by side for each dimension) and values row by row.
#pragma once
#include "kv_types.h"

namespace mill::MILL_ISA {

// One head of one token: element d goes to to[d * stride], its scale to *scale.
template <class Kv>
inline void kv_write_head(const float* from, int64_t head_dim, typename Kv::T* to, int64_t stride, uint8_t* scale) {
  if constexpr (Kv::kScaled) {
    const uint16_t rounded = kv_scale(from, head_dim);
    __builtin_memcpy(scale, &rounded, 2);
    const float divisor = from_bf16(rounded);
    // Neither zeros nor what is not finite can be divided.
    const bool usable = divisor > 0;
    for (int64_t d = 0; d < head_dim; d++) to[d * stride] = usable ? Kv::round(from[d] / divisor) : typename Kv::T{0};
  } else {
    for (int64_t d = 0; d < head_dim; d++) to[d * stride] = Kv::round(from[d]);
  }
}

template <class Kv>
inline void kv_write_token(const KvWriteArgs& args, int64_t t) {
  using T = typename Kv::T;
  const KvLayer& kv = args.kv;
  const int64_t block = args.slots[t] / kv.block_size;
  const int64_t offset = args.slots[t] % kv.block_size;
  const int64_t unit = offset / kv.unit, at = offset % kv.unit;
  for (int64_t head = 0; head < kv.kv_heads; head++) {
    const int64_t source = (t * kv.kv_heads + head) * kv.head_dim;
    uint8_t* keys = kv.key_unit(block, head, unit);
    uint8_t* values = kv.value_unit(block, head, unit);
    kv_write_head<Kv>(args.k + source, kv.head_dim, reinterpret_cast<T*>(keys) + at, kv.unit, keys + kv.key_scales_at + at * 2);
    kv_write_head<Kv>(args.v + source, kv.head_dim, reinterpret_cast<T*>(values) + at * kv.value_stride, 1, values + kv.value_scales_at + at * 2);
  }
}

inline void kv_write(const KvWriteArgs& args, int64_t begin, int64_t end) {
  with_kv_type(args.kv.type, [&](auto type) {
    for (int64_t t = begin; t < end; t++) kv_write_token<decltype(type)>(args, t);
  });
}

}  // namespace mill::MILL_ISA
