// linear with int8 weights: each row of x is rotated and quantised once, in groups of kGroupI8 steps of k with a scale each.
// The sum of products over a group is an exact integer, also in fp32. What it becomes is one chain y = fma(sum, scale, y) over
// ascending groups, times the column's scale, so that every instruction set, number of rows and tiling gives the same bits.
#pragma once
#include "linear.h"
#include "rotation.h"

namespace mill::MILL_ISA {

using I = Simd::I;

inline int64_t int8_groups(const PackedLinear& weight) { return (weight.k_padded + kGroupI8 - 1) / kGroupI8; }

// Prepared rows of a block: [group][rows] scales and what a group's sum starts from, then [k/4][rows] of four int8.
struct Int8Input {
  float* scales;
  int32_t* starts;
  int32_t* quads;
};

inline Int8Input int8_input(const LinearArgs& args, const RowBlock& block) {
  const int64_t groups = int8_groups(args.weight);
  int32_t* at = static_cast<int32_t*>(args.prepared) + block.begin * (args.weight.k_padded / 4 + 2 * groups);
  return {reinterpret_cast<float*>(at), at + groups * block.rows, at + 2 * groups * block.rows};
}

// A group of x as the products take it.
struct RotatedGroup {
  alignas(64) float values[kGroupI8];
  int64_t width;
};

// The group of row `x` that begins at `from`, padded with zeros.
inline void rotate_group(const PackedLinear& weight, const float* x, int64_t from, RotatedGroup& group) {
  group.width = min_i64(kGroupI8, weight.k_padded - from);
  for (int64_t i = 0; i < group.width; i += W) Simd::store(group.values + i, load_columns(x + from + i, weight.k - from - i));
  for (int64_t i = 0; i < group.width; i += kRotation) rotate_block(group.values + i);
}

inline float scale_i8(const RotatedGroup& group) {
  F most = Simd::zero();
  for (int64_t i = 0; i < group.width; i += W) most = Simd::max(Simd::abs(Simd::load(group.values + i)), most);
  const float scale = reduce_max(most) / 127;
  return scale > 0 ? scale : 1;
}

// Elements [begin, end) of a group as fours of int8, `stride` bytes apart. Returns their sum, which is exact in any order.
inline float quantise_group(const RotatedGroup& group, int64_t begin, int64_t end, float scale, int8_t* out, int64_t stride) {
  F sum = Simd::zero();
  for (int64_t i = begin; i < end; i += W) {
    // A quotient of a denormal scale may leave [-127, 127].
    const F rounded = Simd::round(Simd::div(Simd::load(group.values + i), Simd::set1(scale)));
    const F bounded = Simd::max(Simd::min(rounded, Simd::set1(127)), Simd::set1(-127));
    int8_t q[W];
    Simd::store_i8(q, bounded);
    for (int j = 0; j < W; j += 4) __builtin_memcpy(out + (i - begin + j) / 4 * stride, q + j, 4);
    sum = Simd::add(sum, bounded);
  }
  return reduce_add(sum);
}

// acc = the chain over all groups. Out of line, as linear_block.
template <int ROWS, int PANELS>
[[gnu::noinline]] static void linear_block_i8(const Int8Input& x, const int8_t* weights, int64_t stride, int64_t quads, F (&acc)[ROWS][PANELS * kVectors]) {
  constexpr int N = PANELS * kVectors;
  for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = Simd::zero();
  for (int64_t first = 0, at = 0; first < quads; first += kGroupI8 / 4, at += ROWS) {
    const int64_t end = min_i64(quads, first + kGroupI8 / 4);
    I sum[ROWS][N];
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) sum[i / N][i % N] = Simd::kOffsetI8 ? Simd::set1_i32(x.starts[at + i / N]) : Simd::zero_i32();
#pragma GCC unroll 1
    for (int64_t quad = first; quad < end; quad++) {
#pragma GCC unroll 16
      for (int j = 0; j < N; j++) {
        const auto w = Simd::load_i8(weights + (j / kVectors) * stride + quad * 4 * kPanel + (j % kVectors) * 4 * W);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) sum[r][j] = Simd::dot_i8(sum[r][j], w, Simd::set1_i32(x.quads[quad * ROWS + r]));
      }
    }
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = Simd::fma(Simd::to_float(sum[i / N][i % N]), Simd::set1(x.scales[at + i / N]), acc[i / N][i % N]);
  }
}

// y = acc * column scale (or unit) + bias.
template <int ROWS, int PANELS>
inline void store_scaled(const LinearArgs& args, int64_t row, int64_t panel, const F (&acc)[ROWS][PANELS * kVectors]) {
  const Target target = linear_target(args, row, panel, true, true);
  const float* scales = args.weight.scales + panel * kPanel;
  for (int r = 0; r < ROWS; r++) {
    for (int j = 0; j < PANELS * kVectors; j++) {
      const int64_t columns = target.columns - j * W;
      F y = Simd::mul(acc[r][j], Simd::load(scales + j * W));
      if (target.bias) y = Simd::add(y, load_columns(target.bias + j * W, columns));
      store_columns(target.y + r * target.stride + j * W, y, columns);
    }
  }
}

template <int ROWS, int PANELS>
inline void linear_tile_i8(const LinearArgs& args, const RowBlock& block, int64_t panel) {
  const PackedLinear& weight = args.weight;
  const int64_t stride = weight.k_padded * kPanel;
  F acc[ROWS][PANELS * kVectors];
  linear_block_i8<ROWS, PANELS>(int8_input(args, block), static_cast<const int8_t*>(weight.data) + panel * stride, stride, weight.k_padded / 4, acc);
  store_scaled<ROWS, PANELS>(args, block.begin, panel, acc);
}

template <int ROWS, int PANELS>
inline void linear_rows_i8(const LinearArgs& args, const RowBlock& block, int64_t panel) {
  if constexpr (ROWS > 1) {
    if (block.rows < ROWS) return linear_rows_i8<ROWS - 1, PANELS>(args, block, panel);
  }
  linear_tile_i8<ROWS, PANELS>(args, block, panel);
}

template <int PANELS>
inline void linear_panels_i8(const LinearArgs& args, int64_t panel) {
  const int64_t blocks = row_blocks(args.m, Simd::kRowsI8);
  for (int64_t b = 0; b < blocks; b++) linear_rows_i8<Simd::kRowsI8, PANELS>(args, row_block(args.m, Simd::kRowsI8, b), panel);
}

struct LinearDotI8 {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return first_row(args.m, Simd::kRowsI8, member, members); }

  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const PackedLinear& weight = args.weight;
    const int64_t blocks = row_blocks(args.m, Simd::kRowsI8), groups = int8_groups(weight);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock block = row_block(args.m, Simd::kRowsI8, b);
      const Int8Input to = int8_input(args, block);
      for (int64_t r = 0; r < block.rows; r++) {
        for (int64_t g = 0; g < groups; g++) {
          RotatedGroup x;
          rotate_group(weight, args.x + (block.begin + r) * weight.k, g * kGroupI8, x);
          const int64_t at = g * block.rows + r;
          to.scales[at] = scale_i8(x);
          const float sum = quantise_group(x, 0, x.width, to.scales[at], reinterpret_cast<int8_t*>(to.quads + g * kGroupI8 / 4 * block.rows + r), 4 * block.rows);
          to.starts[at] = static_cast<int32_t>(-128 * sum);
        }
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    int64_t panel = begin;
    if (args.m == 1) {
      constexpr int wide = Simd::kPanelsOneRow;
      for (; panel + wide <= end; panel += wide) linear_tile_i8<1, wide>(args, {0, 1}, panel);
    }
    for (; panel + Simd::kPanels <= end; panel += Simd::kPanels) linear_panels_i8<Simd::kPanels>(args, panel);
    for (; panel < end; panel++) linear_panels_i8<1>(args, panel);
  }
};

}  // namespace mill::MILL_ISA
