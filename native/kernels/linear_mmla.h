// linear with bf16 or int8 weights by the matrix instructions of ARMv8.6, bfmmla and smmla: two rows of x by two columns, over
// 8 bytes of k each. An element's sum is its own and takes k in ascending order, so neither the number of rows nor the row
// beside it matters. Two words of k of four columns, as they are packed, interleave to two such pairs of columns.
#pragma once
#include "linear_int8.h"

namespace mill::MILL_ISA {

// Pairs of rows in a block: with 8 columns 16 of 32 registers accumulate, 4 hold x, 4 weights.
constexpr int kMmlaPairs = 4;
constexpr int64_t kStepBytes = 8;    // of one row of x
constexpr int64_t kStepWeights = 2 * kPanel * 4;  // bytes of a panel's weights for one step

inline int64_t mmla_pairs(const LinearArgs& args) { return (args.m + 1) / 2; }
inline int64_t mmla_steps(const PackedLinear& weight) { return weight.k_padded * element_bytes(weight.type) / kStepBytes; }
inline int64_t mmla_groups(const PackedLinear& weight) { return weight.type == WeightType::i8 ? int8_groups(weight) : 0; }

// A block of pairs as prepared: [group][pair][4] scales, each twice, then [step][pair][2 rows] of 8 bytes.
struct MmlaInput {
  float* scales;
  char* rows;
};

inline MmlaInput mmla_input(const LinearArgs& args, const RowBlock& pairs) {
  const int64_t scales = mmla_groups(args.weight) * 16;
  char* at = static_cast<char*>(args.prepared) + pairs.begin * (scales + mmla_steps(args.weight) * 2 * kStepBytes);
  return {reinterpret_cast<float*>(at), at + pairs.rows * scales};
}

// Some columns of one panel; two in each accumulator, under two rows.
template <int PAIRS>
struct MmlaShape {
  static constexpr int columns = PAIRS > kMmlaPairs / 2 ? kPanel / 2 : kPanel;
  static constexpr int sums = columns / 2;
};

template <int PAIRS>
using MmlaFloats = F[PAIRS][MmlaShape<PAIRS>::sums];

// sum += x w over `steps` steps of k.
template <int PAIRS, class Sum, int N>
MILL_INLINE void multiply_steps(const char* x, const char* weights, int64_t steps, Ahead& ahead, Sum (&sum)[PAIRS][N]) {
#pragma GCC unroll 1
  for (int64_t step = 0; step < steps; step++) {
    Simd::prefetch(ahead.at);
    Simd::prefetch(ahead.at + ahead.step / 2);
    ahead.at += ahead.step;
    Simd::Bytes rows[PAIRS];
#pragma GCC unroll 8
    for (int p = 0; p < PAIRS; p++) rows[p] = Simd::load_bytes(x + (step * PAIRS + p) * 2 * kStepBytes);
#pragma GCC unroll 8
    for (int j = 0; j < N; j += 2) {
      const char* at = weights + step * kStepWeights + j * 8;
      const Simd::BytesPair w = Simd::zip_words(Simd::load_bytes(at), Simd::load_bytes(at + kStepWeights / 2));
#pragma GCC unroll 8
      for (int p = 0; p < PAIRS; p++) {
        sum[p][j] = Simd::mmla(sum[p][j], rows[p], w.first);
        sum[p][j + 1] = Simd::mmla(sum[p][j + 1], rows[p], w.second);
      }
    }
  }
}

template <int PAIRS>
[[gnu::noinline]] static void mmla_block_bf16(const MmlaInput& x, const char* weights, int64_t steps, Ahead ahead, MmlaFloats<PAIRS>& acc) {
  constexpr int N = MmlaShape<PAIRS>::sums;
  F sum[PAIRS][N];
#pragma GCC unroll 64
  for (int i = 0; i < PAIRS * N; i++) sum[i / N][i % N] = Simd::zero();
  multiply_steps(x.rows, weights, steps, ahead, sum);
#pragma GCC unroll 64
  for (int i = 0; i < PAIRS * N; i++) acc[i / N][i % N] = sum[i / N][i % N];
}

// As linear_int8.h: the exact sums of a group join the chain of each element.
template <int PAIRS>
[[gnu::noinline]] static void mmla_block_i8(const MmlaInput& x, const char* weights, int64_t steps, Ahead ahead, MmlaFloats<PAIRS>& acc) {
  constexpr int N = MmlaShape<PAIRS>::sums;
  constexpr int64_t group = kGroupI8 / kStepBytes;
  for (int i = 0; i < PAIRS * N; i++) acc[i / N][i % N] = Simd::zero();
  for (int64_t first = 0; first < steps; first += group) {
    I sum[PAIRS][N];
#pragma GCC unroll 64
    for (int i = 0; i < PAIRS * N; i++) sum[i / N][i % N] = Simd::zero_i32();
    multiply_steps(x.rows + first * PAIRS * 2 * kStepBytes, weights + first * kStepWeights, min_i64(group, steps - first), ahead, sum);
#pragma GCC unroll 8
    for (int p = 0; p < PAIRS; p++) {
      const F scale = Simd::load(x.scales + (first / group * PAIRS + p) * 4);
#pragma GCC unroll 8
      for (int j = 0; j < N; j++) acc[p][j] = Simd::fma(Simd::to_float(sum[p][j]), scale, acc[p][j]);
    }
  }
}

// y = acc times the columns' scales, if there are any, + bias.
template <int PAIRS>
inline void store_mmla(const LinearArgs& args, int64_t pair, int64_t column, const MmlaFloats<PAIRS>& acc) {
  const int64_t n = args.weight.n;
  for (int p = 0; p < PAIRS; p++) {
    for (int j = 0; j < MmlaShape<PAIRS>::sums; j += 2) {
      const Simd::FloatPair rows = Simd::zip_halves(acc[p][j], acc[p][j + 1]);
      const int64_t at = column + j * 2, columns = n - at;
      for (int64_t r = 0; r < min_i64(2, args.m - (pair + p) * 2); r++) {
        F y = r == 0 ? rows.first : rows.second;
        if (args.weight.type == WeightType::i8) y = Simd::mul(y, Simd::load(args.weight.scales + at));
        if (args.bias) y = Simd::add(y, load_columns(args.bias + at, columns));
        store_columns(args.y + ((pair + p) * 2 + r) * n + at, y, columns);
      }
    }
  }
}

template <int PAIRS>
inline void linear_tile_mmla(const LinearArgs& args, const RowBlock& pairs, int64_t panel, const Ahead& ahead) {
  if constexpr (PAIRS > 1) {
    if (pairs.rows < PAIRS) return linear_tile_mmla<PAIRS - 1>(args, pairs, panel, ahead);
  }
  const int64_t steps = mmla_steps(args.weight);
  const MmlaInput x = mmla_input(args, pairs);
  const char* weights = static_cast<const char*>(args.weight.data) + panel * steps * kStepWeights;
  for (int64_t column = 0; column < kPanel; column += MmlaShape<PAIRS>::columns) {
    MmlaFloats<PAIRS> acc;
    if (args.weight.type == WeightType::i8) mmla_block_i8<PAIRS>(x, weights + column * 4, steps, ahead, acc);
    else mmla_block_bf16<PAIRS>(x, weights + column * 4, steps, ahead, acc);
    store_mmla<PAIRS>(args, pairs.begin, panel * kPanel + column, acc);
  }
}

// Block `index` of `count` asks for its part of the next panel; a single one runs ahead of itself.
inline Ahead mmla_ahead(const PackedLinear& weight, int64_t panel, int64_t index, int64_t count) {
  const int64_t bytes = mmla_steps(weight) * kStepWeights;
  const char* here = static_cast<const char*>(weight.data) + panel * bytes;
  if (count == 1) return {here + kAhead * 64, bytes, kStepWeights};
  return {here + bytes + bytes * index / count, bytes, kStepWeights / count};
}

// Row `row` of x, from step `from` of its block on; 8 bytes a step.
inline void put_steps(const MmlaInput& to, const RowBlock& pairs, int64_t row, int64_t from, const void* data, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += kStepBytes) {
    __builtin_memcpy(to.rows + (((from + at / kStepBytes) * pairs.rows) * 2 + row) * kStepBytes, static_cast<const char*>(data) + at, kStepBytes);
  }
}

inline void prepare_mmla_bf16(const LinearArgs& args, const RowBlock& pairs, int64_t row) {
  const PackedLinear& weight = args.weight;
  const int64_t from = pairs.begin * 2 + row;
  for (int64_t step = 0; step < mmla_steps(weight); step++) {
    uint16_t four[4];
    for (int64_t i = 0, k = step * 4; i < 4; i++, k++) four[i] = from < args.m && k < weight.k ? to_bf16(args.x[from * weight.k + k]) : uint16_t{0};
    put_steps(mmla_input(args, pairs), pairs, row, step, four, kStepBytes);
  }
}

inline void prepare_mmla_i8(const LinearArgs& args, const RowBlock& pairs, int64_t row) {
  const PackedLinear& weight = args.weight;
  const MmlaInput to = mmla_input(args, pairs);
  const int64_t from = pairs.begin * 2 + row;
  for (int64_t g = 0; g < int8_groups(weight); g++) {
    RotatedGroup x;
    int8_t q[kGroupI8] = {};
    float scale = 1;
    x.width = min_i64(kGroupI8, weight.k_padded - g * kGroupI8);
    if (from < args.m) {
      rotate_group(weight, args.x + from * weight.k, g * kGroupI8, x);
      scale = scale_i8(x);
      quantise_group(x, 0, x.width, scale, q, 4);
    }
    float* scales = to.scales + (g * pairs.rows * 2 + row) * 2;
    scales[0] = scales[1] = scale;
    put_steps(to, pairs, row, g * kGroupI8 / kStepBytes, q, x.width);
  }
}

struct LinearMmla {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) {
    return min_i64(args.m, 2 * first_row(mmla_pairs(args), kMmlaPairs, member, members));
  }

  // An odd last row has a row of zeros beside it.
  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const int64_t blocks = row_blocks(mmla_pairs(args), kMmlaPairs);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock pairs = row_block(mmla_pairs(args), kMmlaPairs, b);
      for (int64_t row = 0; row < pairs.rows * 2; row++) {
        if (args.weight.type == WeightType::i8) prepare_mmla_i8(args, pairs, row);
        else prepare_mmla_bf16(args, pairs, row);
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    constexpr int64_t most = kGroupRows / (2 * kMmlaPairs);
    const int64_t pairs = mmla_pairs(args), blocks = row_blocks(pairs, kMmlaPairs);
    for (int64_t g = 0; g < row_blocks(blocks, most); g++) {
      const RowBlock group = row_block(blocks, most, g);
      for (int64_t panel = begin; panel < end; panel++) {
        for (int64_t b = 0; b < group.rows; b++) {
          linear_tile_mmla<kMmlaPairs>(args, row_block(pairs, kMmlaPairs, group.begin + b), panel, mmla_ahead(args.weight, panel, b, group.rows));
        }
      }
    }
  }
};

}  // namespace mill::MILL_ISA
