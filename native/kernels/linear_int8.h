// linear with int8 weights: each row of x is quantised once, the dot product is exact in int32, so every instruction set
// and every order gives the same sum.
#pragma once
#include "linear.h"

namespace mill::MILL_ISA {

using I = Simd::I;

// Prepared input: scales [m], then blocks [k/4][rows] of four int8.
inline float* int8_row_scales(const LinearArgs& args) { return static_cast<float*>(args.prepared); }

inline int32_t* int8_rows(const LinearArgs& args) {
  return reinterpret_cast<int32_t*>(static_cast<char*>(args.prepared) + (args.m * 4 + 63) / 64 * 64);
}

inline float absmax(const float* x, int64_t k) {
  F most = Simd::zero();
  int64_t i = 0;
  for (; i + W <= k; i += W) most = Simd::max(Simd::abs(Simd::load(x + i)), most);
  if (i < k) most = Simd::max(Simd::abs(load_partial(x + i, k - i)), most);
  return reduce_max(most);
}

inline int32_t quantise(float x, float scale) {
  const float q = __builtin_rintf(x / scale);
  return q > 127 ? 127 : q > -127 ? static_cast<int32_t>(q) : -127;
}

inline void quantise_row(const float* x, int64_t k, float scale, int8_t* out, int64_t stride) {
  const F divisor = Simd::set1(scale);
  int64_t i = 0;
  for (; i + W <= k; i += W) {
    const F rounded = Simd::round(Simd::div(Simd::load(x + i), divisor));
    int8_t q[W];
    Simd::store_i8(q, Simd::max(Simd::min(rounded, Simd::set1(127)), Simd::set1(-127)));
    for (int j = 0; j < W; j += 4) __builtin_memcpy(out + (i + j) / 4 * stride, q + j, 4);
  }
  for (; i < k; i++) out[i / 4 * stride + i % 4] = static_cast<int8_t>(quantise(x[i], scale));
}

template <int ROWS, int PANELS>
inline void linear_block_i8(const int32_t* x, const int8_t* weights, int64_t stride, int64_t quads, I (&acc)[ROWS][PANELS * kVectors]) {
  constexpr int N = PANELS * kVectors;
  for (int r = 0; r < ROWS; r++) {
    for (int j = 0; j < N; j++) acc[r][j] = Simd::zero_i32();
  }
  for (int64_t quad = 0; quad < quads; quad++) {
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) {
      const auto w = Simd::load_i8(weights + (j / kVectors) * stride + quad * 4 * kPanel + (j % kVectors) * 4 * W);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++) acc[r][j] = Simd::dot_i8(acc[r][j], w, Simd::set1_i32(x[quad * ROWS + r]));
    }
  }
}

// y = sum * (row scale * column scale) + bias.
template <int ROWS, int PANELS>
inline void linear_tile_i8(const LinearArgs& args, const int32_t* x, int64_t row, int64_t panel) {
  const PackedLinear& weight = args.weight;
  const int64_t stride = weight.k_padded * kPanel;
  I acc[ROWS][PANELS * kVectors];
  linear_block_i8<ROWS, PANELS>(x, static_cast<const int8_t*>(weight.data) + panel * stride, stride, weight.k_padded / 4, acc);
  const Target target = linear_target(args, row, panel, true, true);
  const float* scales = weight.scales + panel * kPanel;
  for (int r = 0; r < ROWS; r++) {
    const F row_scale = Simd::set1(int8_row_scales(args)[row + r]);
    for (int j = 0; j < PANELS * kVectors; j++) {
      I sum = acc[r][j];
      if constexpr (Simd::kOffsetI8) sum = Simd::sub_i32(sum, Simd::load_i32(weight.column_sums + panel * kPanel + j * W));
      const int64_t columns = target.columns - j * W;
      F y = Simd::mul(Simd::to_float(sum), Simd::mul(row_scale, Simd::load(scales + j * W)));
      if (target.bias) y = Simd::add(y, load_columns(target.bias + j * W, columns));
      store_columns(target.y + r * target.stride + j * W, y, columns);
    }
  }
}

template <int ROWS, int PANELS>
inline void linear_rows_i8(int64_t rows, const LinearArgs& args, const int32_t* x, int64_t row, int64_t panel) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return linear_rows_i8<ROWS - 1, PANELS>(rows, args, x, row, panel);
  }
  linear_tile_i8<ROWS, PANELS>(args, x, row, panel);
}

template <int PANELS>
inline void linear_panels_i8(const LinearArgs& args, int64_t panel) {
  const int64_t blocks = row_blocks(args.m, Simd::kRowsI8);
  for (int64_t b = 0; b < blocks; b++) {
    const RowBlock block = row_block(args.m, Simd::kRowsI8, b);
    const int32_t* x = int8_rows(args) + block.begin * args.weight.k_padded / 4;
    linear_rows_i8<Simd::kRowsI8, PANELS>(block.rows, args, x, block.begin, panel);
  }
}

// A block [k/4][rows] of four int8, zero-padded in k, and its rows' scales.
inline void quantise_block(const LinearArgs& args, const RowBlock& block, int32_t* to) {
  const PackedLinear& weight = args.weight;
  for (int64_t i = weight.k / 4 * block.rows; i < weight.k_padded / 4 * block.rows; i++) to[i] = 0;
  for (int64_t r = 0; r < block.rows; r++) {
    const float* x = args.x + (block.begin + r) * weight.k;
    float scale = absmax(x, weight.k) / 127;
    if (!(scale > 0)) scale = 1;
    int8_row_scales(args)[block.begin + r] = scale;
    quantise_row(x, weight.k, scale, reinterpret_cast<int8_t*>(to + r), 4 * block.rows);
  }
}

struct LinearDotI8 {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return first_row(args.m, Simd::kRowsI8, member, members); }

  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const int64_t blocks = row_blocks(args.m, Simd::kRowsI8);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock block = row_block(args.m, Simd::kRowsI8, b);
      quantise_block(args, block, int8_rows(args) + block.begin * args.weight.k_padded / 4);
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    int64_t panel = begin;
    if (args.m == 1) {
      constexpr int wide = Simd::kPanelsOneRow;
      for (; panel + wide <= end; panel += wide) linear_tile_i8<1, wide>(args, int8_rows(args), 0, panel);
    }
    for (; panel + Simd::kPanels <= end; panel += Simd::kPanels) linear_panels_i8<Simd::kPanels>(args, panel);
    for (; panel < end; panel++) linear_panels_i8<1>(args, panel);
  }
};

}  // namespace mill::MILL_ISA
