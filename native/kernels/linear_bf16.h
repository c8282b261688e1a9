// linear with bf16 weights by the bf16 dot product instruction: x is rounded to bf16 once, then each output element is one
// chain over pairs of k in one lane. Blocking is that of linear.h and, as there, changes nothing in the result.
#pragma once
#include "linear.h"

namespace mill::MILL_ISA {

template <int ROWS, int PANELS>
inline void linear_block_bf16(const uint32_t* x, const uint16_t* weights, int64_t stride, int64_t pairs, const Target& target) {
  F acc[ROWS][PANELS];
  for (int r = 0; r < ROWS; r++) {
    for (int j = 0; j < PANELS; j++) {
      acc[r][j] = target.first ? Simd::zero() : load_columns(target.y + r * target.stride + j * W, target.columns - j * W);
    }
  }
  for (int64_t pair = 0; pair < pairs; pair++) {
#pragma GCC unroll 8
    for (int j = 0; j < PANELS; j++) {
      const uint16_t* w = weights + j * stride + pair * 2 * kPanel;
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) acc[r][j] = Simd::dot_bf16(acc[r][j], x[pair * ROWS + r], w);
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int j = 0; j < PANELS; j++) {
      const int64_t columns = target.columns - j * W;
      F y = acc[r][j];
      if (target.last && target.bias) y = Simd::add(y, load_columns(target.bias + j * W, columns));
      store_columns(target.y + r * target.stride + j * W, y, columns);
    }
  }
}

template <int ROWS, int PANELS>
inline void linear_rows_bf16(int64_t rows, const uint32_t* x, const uint16_t* weights, int64_t stride, int64_t pairs, const Target& target) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return linear_rows_bf16<ROWS - 1, PANELS>(rows, x, weights, stride, pairs, target);
  }
  linear_block_bf16<ROWS, PANELS>(x, weights, stride, pairs, target);
}

// Weights of this depth stay in the L1 cache while all rows pass by.
constexpr int64_t kDepthBf16 = 512;

template <int PANELS>
inline void linear_panels_bf16(const LinearArgs& args, int64_t panel, int64_t k, int64_t depth) {
  const PackedLinear& weight = args.weight;
  const int64_t stride = weight.k_padded * kPanel;
  const uint16_t* data = static_cast<const uint16_t*>(weight.data) + panel * stride + k * kPanel;
  const int64_t blocks = row_blocks(args.m, Simd::kRows);
  for (int64_t b = 0; b < blocks; b++) {
    const RowBlock block = row_block(args.m, Simd::kRows, b);
    const uint32_t* x = static_cast<const uint32_t*>(args.prepared) + (block.begin * weight.k_padded + k * block.rows) / 2;
    const Target target = linear_target(args, block.begin, panel, k == 0, k + depth == weight.k_padded);
    linear_rows_bf16<Simd::kRows, PANELS>(block.rows, x, data, stride, depth / 2, target);
  }
}

struct LinearDotBf16 {
  static bool needs_prepare(const LinearArgs&) { return true; }

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
    // One row: all of k at once for many panels side by side.
    int64_t from = begin;
    if (args.m == 1) {
      constexpr int wide = Simd::kPanelsOneRow;
      const int64_t stride = args.weight.k_padded * kPanel;
      for (; from + wide <= end; from += wide) {
        const uint16_t* data = static_cast<const uint16_t*>(args.weight.data) + from * stride;
        linear_block_bf16<1, wide>(static_cast<const uint32_t*>(args.prepared), data, stride, args.weight.k_padded / 2, linear_target(args, 0, from, true, true));
      }
    }
    for (int64_t k = 0; k < args.weight.k_padded; k += kDepthBf16) {
      const int64_t depth = min_i64(kDepthBf16, args.weight.k_padded - k);
      int64_t panel = from;
      for (; panel + Simd::kPanels <= end; panel += Simd::kPanels) linear_panels_bf16<Simd::kPanels>(args, panel, k, depth);
      for (; panel < end; panel++) linear_panels_bf16<1>(args, panel, k, depth);
    }
  }
};

}  // namespace mill::MILL_ISA
