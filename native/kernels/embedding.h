// embedding: rows of the table, read where the checkpoint lies in memory and widened to fp32.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

inline void embedding_bf16(const uint16_t* row, int64_t width, float* y) {
  int64_t i = 0;
  for (; i + W <= width; i += W) Simd::store(y + i, Simd::load_bf16(row + i));
  for (; i < width; i++) y[i] = from_bf16(row[i]);
}

inline void embedding_f16(const uint16_t* row, int64_t width, float* y) {
  int64_t i = 0;
  for (; i + W <= width; i += W) Simd::store(y + i, Simd::load_f16(row + i));
  for (; i < width; i++) y[i] = from_f16(row[i]);
}

inline void embedding(const EmbeddingArgs& args, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++) {
    const int64_t row = args.token_ids[t] * args.width;
    float* y = args.y + t * args.width;
    if (args.type == WeightType::bf16) embedding_bf16(static_cast<const uint16_t*>(args.table) + row, args.width, y);
    else if (args.type == WeightType::f16) embedding_f16(static_cast<const uint16_t*>(args.table) + row, args.width, y);
    else __builtin_memcpy(y, static_cast<const float*>(args.table) + row, static_cast<uint64_t>(args.width) * 4);
  }
}

}  // namespace mill::MILL_ISA
