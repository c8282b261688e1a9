// gather_rows: the rows whose logits are wanted.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

inline void gather_rows(const GatherRowsArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; r++) {
    __builtin_memcpy(args.y + r * args.width, args.x + args.rows[r] * args.width, static_cast<uint64_t>(args.width) * 4);
  }
}

}  // namespace mill::MILL_ISA
