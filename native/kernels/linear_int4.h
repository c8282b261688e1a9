// linear with 4-bit weights in groups of k, each with a scale and a minimum a column, and activations in int8 as in
// linear_int8.h: w = d q + m with q in 0..15, so a row's sum over a group is d (q . x) + m (sum of x). The sums of products
// are exact integers; what they become in fp32 is one chain over ascending k for each scale of x and one over those scales,
// so that every instruction set, number of rows and tiling gives the same bits.
#pragma once
#include "linear_int8.h"

namespace mill::MILL_ISA {

// Steps of k whose products are summed before they are scaled: 8 times two products of at most 15 * 127 fit in 16 bits.
constexpr int64_t kChunk = 32;

// One panel's groups, one after the other: 16 scales, 16 minimums (bf16), then [group / 8][16 columns][4] bytes whose low
// halves belong to the first four k and whose high halves to the next four.
struct WeightsInt4 {
  const uint8_t* data;
  int64_t groups;
  int64_t groups_per_scale;  // of x
  int64_t chunks;            // of a group
  int64_t group_bytes;
  int64_t panel_bytes;
  const uint8_t* group(int64_t g, int panel) const { return data + panel * panel_bytes + g * group_bytes; }
  static const uint16_t* scales(const uint8_t* group) { return reinterpret_cast<const uint16_t*>(group); }
  static const uint16_t* minimums(const uint8_t* group) { return scales(group) + kPanel; }
  static const uint8_t* quads(const uint8_t* group) { return group + int4_header_bytes; }
};

static_assert(kGroupI8 % 128 == 0, "a scale of x covers whole groups of weights");

// Prepared rows of a block, as linear_int8.h has them, with fp32 sums of x over each group of weights, [group][rows].
struct Int4Input {
  float* scales;
  float* sums;
  int32_t* quads;
};

inline int64_t int4_groups(const PackedLinear& weight) { return weight.k_padded / int4_group(weight.type); }

inline Int4Input int4_input(const LinearArgs& args, const RowBlock& block) {
  const int64_t scales = int8_groups(args.weight), sums = int4_groups(args.weight);
  float* at = static_cast<float*>(args.prepared) + block.begin * (args.weight.k_padded / 4 + scales + sums);
  return {at, at + scales * block.rows, reinterpret_cast<int32_t*>(at + (scales + sums) * block.rows)};
}

// sum[r][j] = x . q over kChunk steps of k, in int32.
template <int ROWS, int PANELS>
MILL_INLINE void int4_chunk(const int32_t* x, const uint8_t* const (&quads)[PANELS], int64_t chunk, I (&sum)[ROWS][PANELS * kVectors]) {
  constexpr int N = PANELS * kVectors;
#pragma GCC unroll 64
  for (int i = 0; i < ROWS * N; i++) sum[i / N][i % N] = Simd::zero_i32();
#pragma GCC unroll 1
  for (int64_t pair = 0; pair < kChunk / 8; pair++) {
    const int32_t* at = x + pair * 2 * ROWS;
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) {
      const auto w = Simd::load_u4(quads[j / kVectors] + (chunk * (kChunk / 8) + pair) * 4 * kPanel + j % kVectors * 4 * W);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++) {
        sum[r][j] = Simd::dot_u4(sum[r][j], w.low, Simd::set1_i32(at[r]));
        sum[r][j] = Simd::dot_u4(sum[r][j], w.high, Simd::set1_i32(at[ROWS + r]));
      }
    }
  }
#pragma GCC unroll 64
  for (int i = 0; i < ROWS * N; i++) sum[i / N][i % N] = Simd::sum_u4(sum[i / N][i % N]);
}

// ONE: a group is one chunk.
template <int ROWS, int PANELS, bool ONE>
[[gnu::noinline]] static void linear_block_int4(const Int4Input& x, const WeightsInt4& weights, Ahead ahead, F (&acc)[ROWS][PANELS * kVectors]) {
  constexpr int N = PANELS * kVectors;
  F part[ROWS][N];
  for (int i = 0; i < ROWS * N; i++) part[i / N][i % N] = acc[i / N][i % N] = Simd::zero();
  const int64_t chunks = ONE ? 1 : weights.chunks;
  for (int64_t g = 0; g < weights.groups; g++) {
    const uint8_t* group[PANELS];
    const uint8_t* quads[PANELS];
    for (int p = 0; p < PANELS; p++) {
      group[p] = weights.group(g, p);
      quads[p] = WeightsInt4::quads(group[p]);
      for (int64_t byte = 0; byte < weights.group_bytes; byte += 64) Simd::prefetch(ahead.at + p * ahead.panel_stride + byte * ahead.step / 64);
    }
    ahead.at += weights.group_bytes * ahead.step / 64;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      I sum[ROWS][N];
      int4_chunk<ROWS, PANELS>(x.quads + (g * chunks + chunk) * kChunk / 4 * ROWS, quads, chunk, sum);
      const bool last = chunk + 1 == chunks;
#pragma GCC unroll 16
      for (int j = 0; j < N; j++) {
        const F d = Simd::load_bf16(WeightsInt4::scales(group[j / kVectors]) + j % kVectors * W);
        const F m = Simd::load_bf16(WeightsInt4::minimums(group[j / kVectors]) + j % kVectors * W);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
          F y = Simd::fma(Simd::to_float(sum[r][j]), d, part[r][j]);
          if (last) y = Simd::fma(Simd::set1(x.sums[g * ROWS + r]), m, y);
          part[r][j] = y;
        }
      }
    }
    if ((g + 1) % weights.groups_per_scale != 0 && g + 1 != weights.groups) continue;
    const float* scales = x.scales + g / weights.groups_per_scale * ROWS;
    for (int i = 0; i < ROWS * N; i++) {
      acc[i / N][i % N] = Simd::fma(part[i / N][i % N], Simd::set1(scales[i / N]), acc[i / N][i % N]);
      part[i / N][i % N] = Simd::zero();
    }
  }
}

// y = acc + bias.
template <int ROWS, int PANELS>
inline void linear_tile_int4(const LinearArgs& args, const WeightsInt4& weights, const RowBlock& block, int64_t panel, const Ahead& ahead) {
  WeightsInt4 from = weights;
  from.data += panel * weights.panel_bytes;
  F acc[ROWS][PANELS * kVectors];
  if (weights.chunks == 1) linear_block_int4<ROWS, PANELS, true>(int4_input(args, block), from, ahead, acc);
  else linear_block_int4<ROWS, PANELS, false>(int4_input(args, block), from, ahead, acc);
  const Target target = linear_target(args, block.begin, panel, true, true);
  for (int r = 0; r < ROWS; r++) {
    for (int j = 0; j < PANELS * kVectors; j++) {
      const int64_t columns = target.columns - j * W;
      F y = acc[r][j];
      if (target.bias) y = Simd::add(y, load_columns(target.bias + j * W, columns));
      store_columns(target.y + r * target.stride + j * W, y, columns);
    }
  }
}

template <int ROWS, int PANELS>
inline void linear_rows_int4(const LinearArgs& args, const WeightsInt4& weights, const RowBlock& block, int64_t panel, const Ahead& ahead) {
  if constexpr (ROWS > 1) {
    if (block.rows < ROWS) return linear_rows_int4<ROWS - 1, PANELS>(args, weights, block, panel, ahead);
  }
  linear_tile_int4<ROWS, PANELS>(args, weights, block, panel, ahead);
}

// Block `index` of `count` asks for its part of the weights of the panels after these; a single one runs ahead of itself.
template <int PANELS>
inline Ahead int4_ahead(const WeightsInt4& weights, int64_t panel, int64_t index, int64_t count) {
  const char* here = reinterpret_cast<const char*>(weights.data + panel * weights.panel_bytes);
  if (count == 1) return {here + kAhead * 64, weights.panel_bytes, 64};
  return {here + PANELS * weights.panel_bytes + weights.panel_bytes * index / count, weights.panel_bytes, 64 / count};
}

template <int PANELS>
inline void linear_panels_int4(const LinearArgs& args, const WeightsInt4& weights, int64_t panel) {
  const int64_t blocks = row_blocks(args.m, Simd::kRowsI8);
  for (int64_t b = 0; b < blocks; b++) {
    linear_rows_int4<Simd::kRowsI8, PANELS>(args, weights, row_block(args.m, Simd::kRowsI8, b), panel, int4_ahead<PANELS>(weights, panel, b, blocks));
  }
}

struct LinearDotI4 {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return first_row(args.m, Simd::kRowsI8, member, members); }

  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const PackedLinear& weight = args.weight;
    const int64_t group = int4_group(weight.type), blocks = row_blocks(args.m, Simd::kRowsI8);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock block = row_block(args.m, Simd::kRowsI8, b);
      const Int4Input to = int4_input(args, block);
      for (int64_t r = 0; r < block.rows; r++) {
        for (int64_t g = 0; g < int8_groups(weight); g++) {
          RotatedGroup x;
          rotate_group(weight, args.x + (block.begin + r) * weight.k, g * kGroupI8, x);
          const float scale = to.scales[g * block.rows + r] = scale_i8(x);
          for (int64_t begin = 0; begin < x.width; begin += group) {
            const int64_t k = g * kGroupI8 + begin;
            to.sums[k / group * block.rows + r] = quantise_group(x, begin, begin + group, scale, reinterpret_cast<int8_t*>(to.quads + k / 4 * block.rows + r), 4 * block.rows);
          }
        }
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    const int64_t group = int4_group(args.weight.type), groups = int4_groups(args.weight), bytes = int4_group_bytes(group);
    const WeightsInt4 weights{static_cast<const uint8_t*>(args.weight.data), groups, kGroupI8 / group, group / kChunk, bytes, groups * bytes};
    int64_t panel = begin;
    if (args.m == 1) {
      constexpr int wide = Simd::kPanelsOneRow;
      for (; panel + wide <= end; panel += wide) linear_tile_int4<1, wide>(args, weights, {0, 1}, panel, int4_ahead<wide>(weights, panel, 0, 1));
    }
    for (; panel + Simd::kPanels <= end; panel += Simd::kPanels) linear_panels_int4<Simd::kPanels>(args, weights, panel);
    for (; panel < end; panel++) linear_panels_int4<1>(args, weights, panel);
  }
};

}  // namespace mill::MILL_ISA
