// add: y = a + b.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

inline void add(const AddArgs& args, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + W <= end; i += W) Simd::store(args.y + i, Simd::add(Simd::load(args.a + i), Simd::load(args.b + i)));
  for (; i < end; i++) args.y[i] = args.a[i] + args.b[i];
}

}  // namespace mill::MILL_ISA
