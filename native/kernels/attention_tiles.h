// paged_attention with bf16 keys and values on AMX tiles: as paged_attention.h, but queries and weights are rounded to bf16, and
// a stripe's scores and sums of values are tile products. A row's score is one chain over the head dimension; its sum over a
// stripe is one chain over the stripe's 64 positions, of which those it does not see have weight 0, and joins the sums of the
// stripes before. So its result does not depend on the rows beside it.
//
// Zero times a value is zero only if the value is finite. Positions that no row sees are read as zeros, as nobody has written
// them yet. A stripe where a row does not see a value that is not finite is computed row by row.
#pragma once
#include "attention_rows.h"

namespace mill::MILL_ISA {

constexpr int kDotDims = 32;  // of the head, in a tile of queries or keys
constexpr int kTileBytesBf16 = 1024;
constexpr int kTileHalves = 512;    // bf16 of a tile
constexpr int kTileResults = 256;   // fp32 of a result tile
constexpr int kScoreFloats = 1024;  // of a row tile and a stripe
constexpr uint16_t kZeros[kTile] = {};
constexpr int kStripeDots = kStripe / 32;

inline int64_t dot_dims(int64_t head_dim) { return (head_dim + kDotDims - 1) / kDotDims; }

// Cut from the thread's scratch behind what attention_scratch has there.
struct AttentionTiles {
  uint16_t* queries;  // [row tile][dims / 32][16 rows][32]
  uint16_t* keys;     // [dims / 32][4 tiles of positions][16 pairs of dims][16 positions][2]
  uint16_t* values;   // [dims / 16][2][16 pairs of positions][16 dims][2]
  float* scores;      // [2][4 tiles of positions][16 rows][16], of two row tiles in turns
  uint16_t* weights;  // [2][2][16 rows][32 positions], of two row tiles in turns
  float* sums;        // [4][16 rows][16]
};

inline AttentionTiles attention_tiles(const AttentionArgs& args, void* scratch) {
  char* at = static_cast<char*>(scratch) + vector_scratch_bytes(args.kv.head_dim);
  at += (64 - reinterpret_cast<uintptr_t>(at) % 64) % 64;
  const int64_t dots = dot_dims(args.kv.head_dim) * kTileBytesBf16;
  const auto cut = [&](int64_t bytes) {
    at += bytes;
    return at - bytes;
  };
  AttentionTiles tiles;
  tiles.queries = reinterpret_cast<uint16_t*>(cut(kAttentionRows / 16 * dots));
  tiles.keys = reinterpret_cast<uint16_t*>(cut(kStripeTiles * dots));
  tiles.values = reinterpret_cast<uint16_t*>(cut(padded_head_dim(args.kv.head_dim) / 16 * kStripeDots * kTileBytesBf16));
  tiles.scores = reinterpret_cast<float*>(cut(2 * kScoreFloats * 4));
  tiles.weights = reinterpret_cast<uint16_t*>(cut(2 * kStripeDots * kTileBytesBf16));
  tiles.sums = reinterpret_cast<float*>(cut(kScoreFloats * 4));
  return tiles;
}

// Rows of zeros up to a whole tile, dimensions of zeros up to 32.
inline void tile_queries(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s, const AttentionTiles& tiles) {
  const int64_t dim = args.kv.head_dim, dots = dot_dims(dim);
  const F scale = Simd::set1(args.scale);
  const auto load = [&](const float* q, int64_t d) { return Simd::mul(d + W <= dim ? Simd::load(q + d) : d < dim ? load_partial(q + d, dim - d) : Simd::zero(), scale); };
  for (int64_t row = 0; row < (shape.rows + 15) / 16 * 16; row++) {
    uint16_t* to = tiles.queries + (row / 16 * dots * 16 + row % 16) * kDotDims;
    if (row >= shape.rows) {
      for (int64_t d = 0; d < dots; d++) __builtin_memset(to + d * kTileHalves, 0, 64);
      continue;
    }
    const int64_t token = item.token_begin + row / shape.group, head = item.kv_head * shape.group + row % shape.group;
    const float* q = args.q + (token * args.heads + head) * dim;
    for (int64_t d = 0; d < dots; d++) Simd::store_bf16(to + d * kTileHalves, load(q, d * kDotDims), load(q, d * kDotDims + W));
    s.positions[row] = args.positions[token];
    s.slopes[row] = args.slopes ? args.slopes[head] : 0;
  }
}

// Keys of a stripe as pairs of dimensions, while its values are asked for. Of positions that nobody sees they are whatever lies
// there: those scores are not used.
inline void tile_keys(const AttentionArgs& args, const Stripe<KvBf16>& stripe, const AttentionTiles& tiles) {
  const int64_t dim = args.kv.head_dim;
  for (int64_t d = 0; d < dot_dims(dim) * kDotDims; d += 2) {
    uint16_t* to = tiles.keys + d / kDotDims * kStripeTiles * kTileHalves + d % kDotDims * kTile;
#pragma GCC unroll 4
    for (int64_t t = 0; t < kStripeTiles; t++) {
      Simd::prefetch(stripe.values[t] + d * kTile);
      if (d + 1 < dim) Simd::store_pairs_u16(to + t * kTileHalves, stripe.keys[t] + d * kTile, stripe.keys[t] + (d + 1) * kTile);
      else if (d < dim) Simd::store_pairs_u16(to + t * kTileHalves, stripe.keys[t] + d * kTile, kZeros);
      else __builtin_memset(to + t * kTileHalves, 0, 64);
    }
  }
}

// Values of positions [low, high) of a stripe as pairs of positions, and zeros around them, while `ahead` is asked for.
inline void tile_values(const AttentionArgs& args, const Stripe<KvBf16>& stripe, const Visible& range, const AttentionTiles& tiles, const uint16_t* const* ahead) {
  const int64_t stride = args.kv.value_stride, dims = padded_head_dim(args.kv.head_dim);
  for (int64_t p = 0; p < kStripe; p += 2) {
    const uint16_t* from = stripe.values[p / kTile] + p % kTile * stride;
    const bool first = p >= range.low && p < range.high, second = p + 1 >= range.low && p + 1 < range.high;
    // Instead of a position that is not seen, zeros at each step.
    const uint16_t *a = first ? from : kZeros, *b = second ? from + stride : kZeros;
    const int64_t step_a = first ? 16 : 0, step_b = second ? 16 : 0;
    const uint16_t* next = ahead[p / kTile] + p % kTile * dims;
    uint16_t* to = tiles.values + p / 32 * kTileHalves + p % 32 * 16;
    for (int64_t d = 0; d < dims; d += 16, a += step_a, b += step_b, to += kStripeDots * kTileHalves) {
      Simd::prefetch(next + 2 * d);
      Simd::store_pairs_u16(to, a, b);
    }
  }
}

// Whether all values of positions [low, high) are finite; beyond head_dim nothing counts.
inline bool finite_values(const AttentionArgs& args, const Stripe<KvBf16>& stripe, int64_t low, int64_t high) {
  for (int64_t p = low; p < high; p++) {
    const uint16_t* from = stripe.values[p / kTile] + p % kTile * args.kv.value_stride;
    bool finite = true;
    for (int64_t d = 0; d < args.kv.head_dim; d++) finite &= (from[d] & 0x7f80u) != 0x7f80u;
    if (!finite) return false;
  }
  return true;
}

inline float* tile_scores_at(const AttentionTiles& tiles, int64_t row_tile) { return tiles.scores + row_tile % 2 * kScoreFloats; }
inline uint16_t* tile_weights_at(const AttentionTiles& tiles, int64_t row_tile) { return tiles.weights + row_tile % 2 * (kStripeDots * kTileHalves); }

// Up to four result tiles = the product of `dots` x tiles, one after the other, with weight tiles `stride` apart for each result.
inline void multiply_row_tile(const uint16_t* x, const uint16_t* w, int64_t dots, int64_t step, int64_t stride, int64_t columns, float* to) {
  TileBlock block;
  block.zero();
  for (int64_t d = 0; d < dots; d++, x += kTileHalves, w += step) {
    block.load_x(0, x);
    block.load_w(0, w);
    block.dot_bf16<0, 0, 0>();
    if (columns > 1) {
      block.load_w(1, w + stride);
      block.dot_bf16<1, 0, 1>();
    }
    if (columns > 2) {
      block.load_w(0, w + 2 * stride);
      block.dot_bf16<2, 0, 0>();
    }
    if (columns > 3) {
      block.load_w(1, w + 3 * stride);
      block.dot_bf16<3, 0, 1>();
    }
  }
  for (int t = 0; t < columns; t++) block.store(t / 2, t % 2, to + t * kTileResults);
}

inline void score_row_tile(const AttentionArgs& args, const AttentionTiles& tiles, int64_t row_tile) {
  const int64_t dots = dot_dims(args.kv.head_dim);
  multiply_row_tile(tiles.queries + row_tile * dots * kTileHalves, tiles.keys, dots, kStripeTiles * kTileHalves, kTileHalves, kStripeTiles, tile_scores_at(tiles, row_tile));
}

// Rows [begin, end) of a tile of rows, and what their sums of values shrink by as their largest score grew.
struct RowTile {
  int64_t begin;
  int64_t end;
  float factors[16];
};

constexpr int kScoreVectors = kStripe / W;
inline const float* score_vector(const float* scores, int v) { return scores + v * W / kTile * kTileResults + v * W % kTile; }

// Scales, caps, biases and masks the scores of a row where there is anything to do; returns the largest.
inline float final_scores(const AttentionArgs& args, const Visible& visible, const Bias& bias, float* scores) {
  if (args.softcap > 0 || args.slopes || visible.low > 0 || visible.high < kStripe) {
    for (int64_t t = 0; t < kStripeTiles; t++) {
      adjust_scores(args, nullptr, {visible.low - t * kTile, visible.high - t * kTile}, {bias.slope, bias.distance + static_cast<float>(t * kTile)}, scores + t * kTileResults);
    }
  }
  F most = Simd::load(scores);
#pragma GCC unroll 8
  for (int v = 1; v < kScoreVectors; v++) most = Simd::max(Simd::load(score_vector(scores, v)), most);
  return Simd::reduce_max(most);
}

// A row's final scores become weights exp(s - max) in bf16; returns their sum before that rounding.
inline float weigh_scores(const float* scores, float max, uint16_t* weights) {
  F p[kScoreVectors], total = Simd::zero();
#pragma GCC unroll 8
  for (int v = 0; v < kScoreVectors; v++) p[v] = exp_not_positive(Simd::sub(Simd::load(score_vector(scores, v)), Simd::set1(max)));
#pragma GCC unroll 8
  for (int v = 0; v < kScoreVectors; v++) total = Simd::add(total, p[v]);
  for (int half = 0; half < kStripeDots; half++) Simd::store_bf16(weights + half * kTileHalves, p[2 * half], p[2 * half + 1]);
  return Simd::reduce_add(total);
}

// The weights of a tile of rows whose scores are known; 0 for rows that are not in [begin, end). Row by row only where that must
// be, so that rows need not wait for one another.
inline void weigh_row_tile(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, const AttentionTiles& tiles, int64_t at, RowTile& rows, float* sums) {
  alignas(64) float most[16], before[16], totals[16];
  const int64_t first = rows.begin / 16 * 16;
  float* scores = tile_scores_at(tiles, first / 16);
  uint16_t* weights = tile_weights_at(tiles, first / 16);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const Bias bias = {s.slopes[row], static_cast<float>(at - s.positions[row])};
    before[row - first] = sums[row * shape.stride + shape.padded];
    most[row - first] = final_scores(args, visible_to(args, s.positions[row], at), bias, scores + (row - first) * kTile);
  }
  for (int64_t v = 0; v < 16; v += W) {
    const F old = Simd::load(before + v), max = Simd::max(Simd::load(most + v), old);
    Simd::store(rows.factors + v, exp_not_positive(Simd::sub(old, max)));
    Simd::store(most + v, max);
  }
  for (int64_t row = first; row < first + 16; row++) {
    uint16_t* to = weights + (row - first) * kDotDims;
    if (row >= rows.begin && row < rows.end) {
      totals[row - first] = weigh_scores(scores + (row - first) * kTile, most[row - first], to);
    } else {
      for (int64_t half = 0; half < kStripeDots; half++) __builtin_memset(to + half * kTileHalves, 0, 64);
    }
  }
  for (int64_t row = rows.begin; row < rows.end; row++) {
    float* to = sums + row * shape.stride + shape.padded;
    to[0] = most[row - first];
    to[1] = to[1] * rows.factors[row - first] + totals[row - first];
  }
}

// Sums of the rows = sums * factor + weights times values.
inline void add_values(const AttentionShape& shape, const AttentionTiles& tiles, const RowTile& rows, float* sums) {
  for (int64_t d = 0; d < shape.padded; d += 64) {
    const int64_t columns = min_i64(4, (shape.padded - d) / 16);
    multiply_row_tile(tile_weights_at(tiles, rows.begin / 16), tiles.values + d / 16 * kStripeDots * kTileHalves, kStripeDots, kTileHalves, kStripeDots * kTileHalves, columns, tiles.sums);
    for (int64_t row = rows.begin; row < rows.end; row++) {
      const F factor = Simd::set1(rows.factors[row % 16]);
      for (int64_t at = 0; at < columns * 16; at += W) {
        float* to = sums + row * shape.stride + d + at;
        Simd::store(to, Simd::fma(Simd::load(to), factor, Simd::load(tiles.sums + at / 16 * kTileResults + row % 16 * 16 + at % 16)));
      }
    }
  }
}

// Rows of one item before one stripe.
struct StripeRows {
  int64_t begin;
  int64_t end;
  Visible all;     // what any row sees
  Visible common;  // what every row sees
};

inline StripeRows stripe_rows(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, int64_t at) {
  StripeRows rows = {0, shape.rows, {}, {}};
  while (rows.begin < rows.end && s.positions[rows.begin] < at) rows.begin++;
  while (rows.begin < rows.end && first_visible(args, s.positions[rows.end - 1]) >= at + kStripe) rows.end--;
  if (rows.begin == rows.end) return rows;
  // What rows see moves monotonically with their position.
  const Visible first = visible_to(args, s.positions[rows.begin], at), last = visible_to(args, s.positions[rows.end - 1], at);
  return {rows.begin, rows.end, {first.low, last.high}, {last.low, first.high}};
}

// A row sees no value of the others that would spoil its sums.
inline bool harmless(const AttentionArgs& args, const Stripe<KvBf16>& stripe, const StripeRows& rows) {
  const auto finite = [&](int64_t low, int64_t high) { return finite_values(args, stripe, low, min_i64(high, rows.all.high)); };
  return finite(rows.all.low, rows.common.low) && finite(max_i64(rows.common.low, rows.common.high), rows.all.high);
}

// All rows that see some of a stripe. The tiles work at the next scores while these are weighed, and weights are multiplied a row
// tile later: a tile waits long for what was just written.
inline void attend_together(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, const AttentionTiles& tiles, int64_t at, const StripeRows& rows, float* sums) {
  RowTile parts[2];
  const int64_t begin = rows.begin / 16, end = (rows.end + 15) / 16;
  score_row_tile(args, tiles, begin);
  for (int64_t tile = begin; tile < end; tile++) {
    RowTile& part = parts[tile % 2];
    part.begin = max_i64(rows.begin, tile * 16);
    part.end = min_i64(rows.end, tile * 16 + 16);
    if (tile + 1 < end) score_row_tile(args, tiles, tile + 1);
    weigh_row_tile(args, shape, s, tiles, at, part, sums);
    if (tile > begin) add_values(shape, tiles, parts[(tile - 1) % 2], sums);
  }
  add_values(shape, tiles, parts[(end - 1) % 2], sums);
}

inline void attend_stripe_tiles(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, const AttentionTiles& tiles, float* sums, const Stripe<KvBf16>& stripe, const Stripe<KvBf16>& next) {
  const StripeRows rows = stripe_rows(args, shape, s, stripe.at);
  if (rows.begin == rows.end) return;
  tile_keys(args, stripe, tiles);
  if (harmless(args, stripe, rows)) {
    tile_values(args, stripe, rows.all, tiles, next.keys);
    return attend_together(args, shape, s, tiles, stripe.at, rows, sums);
  }
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const Visible visible = visible_to(args, s.positions[row], stripe.at);
    tile_values(args, stripe, visible, tiles, next.keys);
    attend_together(args, shape, s, tiles, stripe.at, {row, row + 1, visible, visible}, sums);
  }
}

struct TileStripes {
  AttentionTiles tiles;
  void begin(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s, void* scratch) {
    tiles = attention_tiles(args, scratch);
    tile_queries(args, item, shape, s, tiles);
    TileBlock::begin(static_cast<int>(min_i64(16, shape.rows)));
  }
  void stripe(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, float* sums, const Stripe<KvBf16>& here, const Stripe<KvBf16>& next) { attend_stripe_tiles(args, shape, s, tiles, sums, here, next); }
  void end() { TileBlock::end(); }
};

template <class Kv>
struct StripesFor {
  using Type = VectorStripes<Kv>;
};
template <>
struct StripesFor<KvBf16> {
  using Type = TileStripes;
};
template <class Kv>
using StripesOf = typename StripesFor<Kv>::Type;

}  // namespace mill::MILL_ISA
