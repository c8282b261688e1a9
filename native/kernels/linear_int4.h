// linear with 4-bit weights in groups of k and activations in int8 as in linear_int8.h. A group has an 8-bit scale d and
// minimum m in units of its column, w = unit (d q + 16 m) with q in 0..15: a row's sum over what shares a scale of x is an exact
// integer, the sum of d (q . x) + 16 m (sum of x). What these become is one chain y = fma(sum, scale, y) over ascending k, times
// the column's unit, so that every instruction set, number of rows and tiling gives the same bits.
#pragma once
#include "linear_int8.h"

namespace mill::MILL_ISA {

// Steps of k whose products are summed before they are scaled: 8 times two products of at most 15 * 127 fit in 16 bits.
constexpr int64_t kChunk = 32;
// Steps of k whose minimums meet the sums of x together, one sum for each chunk.
constexpr int64_t kHalf = 2 * kChunk;
constexpr int kMinimumShift = 4;
static_assert(1 << kMinimumShift == kMinimumStepI4);
static_assert(kGroupI8 == 2 * kHalf, "127 * 15 * 255 * kGroupI8 of products and less of minimums fit in 32 bits");

// One panel's spans, one after the other: [groups][16] scales, then minimums, [16] of one group or [16][2] of two, then
// [span / 8][16 columns][4] bytes whose low halves belong to the first four k and whose high halves to the next four.
struct WeightsInt4 {
  const uint8_t* data;
  int64_t panel_bytes;
  int64_t halves;
  int64_t bytes;  // of kGroupI8 steps
  // From one half of these steps to the other.
  int64_t header_stride;
  int64_t quad_stride;
  int64_t header_bytes;
  bool pairs;  // two groups a span
  const uint8_t* at(int64_t group, int panel) const { return data + panel * panel_bytes + group * bytes; }
  const uint8_t* scales(const uint8_t* at, int64_t half, int64_t chunk) const { return at + half * header_stride + (pairs ? chunk * kPanel : 0); }
  const uint8_t* quads(const uint8_t* at, int64_t half, int64_t chunk) const { return at + header_bytes + half * quad_stride + chunk * (kChunk / 2 * kPanel); }
  const int8_t* minimum(const uint8_t* at, int64_t half) const { return reinterpret_cast<const int8_t*>(at + half * header_stride + header_bytes / 2); }
  I minimums(const uint8_t* at, int64_t half, int v) const {
    const int8_t* from = minimum(at, half);
    return pairs ? Simd::load_pairs_i8(from + 2 * v * W, kMinimumShift) : Simd::load_twice_i8(from + v * W, kMinimumShift);
  }
};

inline WeightsInt4 int4_weights(const PackedLinear& weight) {
  const int64_t group = int4_group(weight.type), span = int4_span(group), bytes = int4_span_bytes(group);
  WeightsInt4 weights{static_cast<const uint8_t*>(weight.data), panel_bytes(weight.type, weight.k_padded), weight.k_padded / kHalf, kGroupI8 / span * bytes, 0, 0, int4_header_bytes(group), group == kChunk};
  weights.header_stride = span == kHalf ? bytes : 0;
  weights.quad_stride = span == kHalf ? bytes : kHalf / 2 * kPanel;
  return weights;
}

// Prepared rows of a block, as linear_int8.h has them, with the sums of x over the two chunks of each half, [half][rows] of
// two int16.
struct Int4Input {
  float* scales;
  int32_t* sums;
  int32_t* quads;
};

inline Int4Input int4_input(const LinearArgs& args, const RowBlock& block) {
  const int64_t scales = int8_groups(args.weight), sums = args.weight.k_padded / kHalf;
  int32_t* at = static_cast<int32_t*>(args.prepared) + block.begin * (args.weight.k_padded / 4 + scales + sums);
  return {reinterpret_cast<float*>(at), at + scales * block.rows, at + (scales + sums) * block.rows};
}

// sum[j] += x . w[j], four steps of k.
template <int N, class Weights>
MILL_INLINE void accumulate_row_u4(I (&sum)[N], const int32_t& x, const Weights (&w)[N]) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // The micro-kernel's 12 sums and 2 weights leave two registers. GCC 12 would keep a broadcast for each product.
  if constexpr (N == 2 && sizeof(I) == 32) {
    I broadcast, products;
    __asm__("vpbroadcastd %4, %2\n\tvpmaddubsw %2, %5, %3\n\tvpaddw %3, %0, %0\n\tvpmaddubsw %2, %6, %2\n\tvpaddw %2, %1, %1"
            : "+x"(sum[0]), "+x"(sum[1]), "=&x"(broadcast), "=&x"(products)
            : "m"(x), "x"(w[0]), "x"(w[1]));
    return;
  }
#endif
  const I broadcast = Simd::set1_i32(x);
#pragma GCC unroll 16
  for (int j = 0; j < N; j++) sum[j] = Simd::dot_u4(sum[j], w[j], broadcast);
}

// total[r][j] += scale (x . q) over kChunk steps of k.
template <int ROWS, int PANELS>
MILL_INLINE void int4_chunk(const int32_t* x, const uint8_t* const (&quads)[PANELS], const uint8_t* const (&scales)[PANELS], I (&total)[ROWS][PANELS * kVectors]) {
  constexpr int N = PANELS * kVectors;
  I sum[ROWS][N];
#pragma GCC unroll 64
  for (int i = 0; i < ROWS * N; i++) sum[i / N][i % N] = Simd::zero_i32();
#pragma GCC unroll 4
  for (int64_t pair = 0; pair < kChunk / 8; pair++) {
    const int32_t* at = x + pair * 2 * ROWS;
    decltype(Simd::load_u4_low(nullptr)) w[N];
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) w[j] = Simd::load_u4_low(quads[j / kVectors] + pair * 4 * kPanel + j % kVectors * 4 * W);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) accumulate_row_u4(sum[r], at[r], w);
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) w[j] = Simd::load_u4_high(quads[j / kVectors] + pair * 4 * kPanel + j % kVectors * 4 * W);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) accumulate_row_u4(sum[r], at[ROWS + r], w);
  }
#pragma GCC unroll 16
  for (int j = 0; j < N; j++) {
    const I scale = Simd::load_scales_u8(scales[j / kVectors] + j % kVectors * W);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) total[r][j] = Simd::scale_u4(total[r][j], sum[r][j], scale);
  }
}

// acc = the chain over all of k. Out of line, as linear_block.
template <int ROWS, int PANELS>
[[gnu::noinline]] static void linear_block_int4(const Int4Input& x, const WeightsInt4& weights, Ahead ahead, F (&acc)[ROWS][PANELS * kVectors]) {
  constexpr int N = PANELS * kVectors;
  for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = Simd::zero();
  for (int64_t begin = 0; begin < weights.halves; begin += 2) {
    const uint8_t *at[PANELS], *quads[PANELS], *scales[PANELS];
    for (int p = 0; p < PANELS; p++) at[p] = weights.at(begin / 2, p);
    I total[ROWS][N];
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) total[i / N][i % N] = Simd::zero_i32();
    const int64_t halves = min_i64(2, weights.halves - begin);
#pragma GCC unroll 1
    for (int64_t half = 0; half < halves; half++) {
#pragma GCC unroll 16
      for (int j = 0; j < N; j++) {
        const I minimum = weights.minimums(at[j / kVectors], half, j % kVectors);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) total[r][j] = Simd::dot_i16(total[r][j], Simd::set1_i32(x.sums[(begin + half) * ROWS + r]), minimum);
      }
#pragma GCC unroll 1
      for (int64_t chunk = 0; chunk < 2; chunk++) {
        for (int p = 0; p < PANELS; p++) {
          quads[p] = weights.quads(at[p], half, chunk);
          scales[p] = weights.scales(at[p], half, chunk);
          // A chunk and its share of a header are less than five lines. Here, as GCC 12 loses them in functions inlined by force.
#pragma GCC unroll 5
          for (int64_t line = 0; line < 5; line++) Simd::prefetch(ahead.at + p * ahead.panel_stride + line * ahead.step);
        }
        ahead.at += weights.bytes / (kGroupI8 / kChunk) * ahead.step / 64;
        int4_chunk<ROWS, PANELS>(x.quads + (2 * (begin + half) + chunk) * (kChunk / 4) * ROWS, quads, scales, total);
      }
    }
    const float* scale = x.scales + begin / 2 * ROWS;
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = Simd::fma(Simd::to_float(total[i / N][i % N]), Simd::set1(scale[i / N]), acc[i / N][i % N]);
  }
}

template <int ROWS, int PANELS>
inline void linear_tile_int4(const LinearArgs& args, const WeightsInt4& weights, const RowBlock& block, int64_t panel, const Ahead& ahead) {
  WeightsInt4 from = weights;
  from.data += panel * weights.panel_bytes;
  F acc[ROWS][PANELS * kVectors];
  linear_block_int4<ROWS, PANELS>(int4_input(args, block), from, ahead, acc);
  store_scaled<ROWS, PANELS>(args, block.begin, panel, acc);
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
  const int64_t blocks = row_blocks(args.m, Simd::kRowsI4);
  for (int64_t b = 0; b < blocks; b++) {
    linear_rows_int4<Simd::kRowsI4, PANELS>(args, weights, row_block(args.m, Simd::kRowsI4, b), panel, int4_ahead<PANELS>(weights, panel, b, blocks));
  }
}

struct LinearDotI4 {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return first_row(args.m, Simd::kRowsI4, member, members); }

  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const PackedLinear& weight = args.weight;
    const int64_t blocks = row_blocks(args.m, Simd::kRowsI4);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock block = row_block(args.m, Simd::kRowsI4, b);
      const Int4Input to = int4_input(args, block);
      for (int64_t r = 0; r < block.rows; r++) {
        for (int64_t g = 0; g < int8_groups(weight); g++) {
          RotatedGroup x;
          rotate_group(weight, args.x + (block.begin + r) * weight.k, g * kGroupI8, x);
          const float scale = to.scales[g * block.rows + r] = scale_i8(x);
          for (int64_t begin = 0; begin < x.width; begin += kHalf) {
            const int64_t k = g * kGroupI8 + begin;
            const auto quantise = [&](int64_t from) {
              return static_cast<int32_t>(quantise_group(x, from, from + kChunk, scale, reinterpret_cast<int8_t*>(to.quads + (k - begin + from) / 4 * block.rows + r), 4 * block.rows));
            };
            const int32_t first = quantise(begin), second = quantise(begin + kChunk);
            to.sums[k / kHalf * block.rows + r] = static_cast<int32_t>(static_cast<uint32_t>(second) << 16 | (static_cast<uint32_t>(first) & 0xffffu));
          }
        }
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    const WeightsInt4 weights = int4_weights(args.weight);
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
