// linear with bf16 weights by the bf16 dot product instruction: x is rounded to bf16 once, then each output element is one
// chain over pairs of k in one lane. Blocking is that of linear.h and, as there, changes nothing in the result.
#pragma once
#include "linear.h"

namespace mill::MILL_ISA {

template <int ROWS, int PANELS>
inline void linear_block_bf16(const uint32_t* x, const WeightsBf16& weights, int64_t pairs, const Target& target, Ahead ahead) {
  F acc[ROWS][PANELS];
  start_block<ROWS, PANELS>(acc, target);
  for (int64_t pair = 0; pair < pairs; pair++) {
    for (int j = 0; j < PANELS; j++) Simd::prefetch(ahead.at + j * ahead.panel_stride);
    ahead.at += ahead.step;
#pragma GCC unroll 8
    for (int j = 0; j < PANELS; j++) {
      const uint16_t* w = weights.at(pair, j);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) acc[r][j] = Simd::dot_bf16(acc[r][j], x[pair * ROWS + r], w);
    }
  }
  finish_block<ROWS, PANELS>(acc, target);
}

template <int ROWS, int PANELS>
inline void linear_rows_bf16(int64_t rows, const uint32_t* x, const WeightsBf16& weights, int64_t pairs, const Target& target, const Ahead& ahead) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return linear_rows_bf16<ROWS - 1, PANELS>(rows, x, weights, pairs, target, ahead);
  }
  linear_block_bf16<ROWS, PANELS>(x, weights, pairs, target, ahead);
}

// As linear_slice.
template <int PANELS>
inline void linear_slice_bf16(const LinearArgs& args, const WeightsBf16& weights, const Slice& slice) {
  const WeightsBf16 here = weights.from(slice.panel, slice.k);
  const int64_t k_padded = args.weight.k_padded, pairs = slice.depth / 2;
  for (int64_t i = 0; i < slice.count; i++) {
    const RowBlock block = row_block(args.m, Simd::kRows, slice.block + i);
    const uint32_t* x = static_cast<const uint32_t*>(args.prepared) + (block.begin * k_padded + slice.k * block.rows) / 2;
    const Target target = linear_target(args, block.begin, slice.panel, slice.k == 0, slice.k + slice.depth == k_padded);
    linear_rows_bf16<Simd::kRows, PANELS>(block.rows, x, here, pairs, target, slice_ahead<PANELS>(here, slice, i));
  }
}

struct LinearDotBf16 {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return first_row(args.m, Simd::kRows, member, members); }

  // x as [block][k/2][rows] pairs of bf16, zero-padded in k.
  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const PackedLinear& weight = args.weight;
    const int64_t blocks = row_blocks(args.m, Simd::kRows);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock block = row_block(args.m, Simd::kRows, b);
      uint32_t* to = static_cast<uint32_t*>(args.prepared) + block.begin * weight.k_padded / 2;
      for (int64_t r = 0; r < block.rows; r++) {
        const float* x = args.x + (block.begin + r) * weight.k;
        for (int64_t k = 0; k < weight.k_padded; k += 2) {
          const uint32_t even = k < weight.k ? to_bf16(x[k]) : 0u, odd = k + 1 < weight.k ? to_bf16(x[k + 1]) : 0u;
          to[k / 2 * block.rows + r] = even | odd << 16;
        }
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    const WeightsBf16 weights = WeightsBf16::of(args.weight.data, args.weight.k_padded * kPanel);
    // A single block of rows reads each weight once: all of k at a time.
    const int64_t depth = args.m <= Simd::kRows ? args.weight.k_padded : kDepth;
    walk_groups(args.m, [&](int64_t block, int64_t count) {
      int64_t panel = begin;
      if (args.m == 1) panel = walk_slices<Simd::kPanelsOneRow>(args, depth, block, count, panel, end, [&](const Slice& slice) { linear_slice_bf16<Simd::kPanelsOneRow>(args, weights, slice); });
      panel = walk_slices<Simd::kPanels>(args, depth, block, count, panel, end, [&](const Slice& slice) { linear_slice_bf16<Simd::kPanels>(args, weights, slice); });
      walk_slices<1>(args, depth, block, count, panel, end, [&](const Slice& slice) { linear_slice_bf16<1>(args, weights, slice); });
    });
  }
};

}  // namespace mill::MILL_ISA
