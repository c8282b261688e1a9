// kv_write: stores keys transposed (16 positions side by side for each dimension) and values row by row.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

inline float kv_round(float x, float*) { return x; }
inline uint16_t kv_round(float x, uint16_t*) { return to_bf16(x); }

template <class T>
inline void kv_write_token(const KvWriteArgs& args, int64_t t) {
  const KvLayer& kv = args.kv;
  const int64_t block = args.slots[t] / kv.block_size;
  const int64_t offset = args.slots[t] % kv.block_size;
  for (int64_t head = 0; head < kv.kv_heads; head++) {
    const int64_t source = (t * kv.kv_heads + head) * kv.head_dim;
    const int64_t entry = block * kv.kv_heads + head;
    T* keys = static_cast<T*>(kv.keys) + entry * kv.key_head_elements() + offset / kv.unit * kv.unit * kv.head_dim + offset % kv.unit;
    T* values = static_cast<T*>(kv.values) + entry * kv.value_head_elements() + offset * kv.value_stride;
    for (int64_t d = 0; d < kv.head_dim; d++) keys[d * kv.unit] = kv_round(args.k[source + d], static_cast<T*>(nullptr));
    for (int64_t d = 0; d < kv.head_dim; d++) values[d] = kv_round(args.v[source + d], static_cast<T*>(nullptr));
  }
}

inline void kv_write(const KvWriteArgs& args, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++) {
    if (args.kv.type == KvType::bf16) kv_write_token<uint16_t>(args, t);
    else kv_write_token<float>(args, t);
  }
}

}  // namespace mill::MILL_ISA
