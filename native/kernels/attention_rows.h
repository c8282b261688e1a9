// What paged_attention does with the query rows of an item and one stripe of 64 positions, by vectors: scores, the online softmax,
// sums of values; and what it keeps between stripes and splits. attention_tiles.h is the same on AMX.
#pragma once
#include "kv_types.h"

namespace mill::MILL_ISA {

constexpr int kTileVectors = kTile / W;
constexpr int kStripeTiles = kStripe / kTile;

// Of 4, 2, 1: the most parts of `each` registers of sums that fit where the fp32 matrix kernel keeps its own; at least one.
constexpr int parts_of_sums(int each) {
  constexpr int kSums = Simd::kRows * Simd::kPanels * kTileVectors;
  return 4 * each <= kSums ? 4 : 2 * each <= kSums ? 2 : 1;
}

struct AttentionShape {
  int64_t group;   // query heads per KV head
  int64_t padded;  // head_dim rounded up to 16
  int64_t stride;  // floats of one row's sums: [padded] weighted values, the largest score, the sum of weights
  int64_t rows;
  int64_t query_stride;  // floats between two dimensions of the queries
};

// One thread's working memory, cut from its scratch.
struct AttentionScratch {
  float* query;        // [head_dim][query_stride], scaled
  float* split;        // [rows][stride], of the split in hand
  float* total;        // [rows][stride], of all splits so far
  float* slopes;       // [rows]
  int32_t* positions;  // [rows], ascending
  uint8_t* tiles;      // a gathered stripe
};

inline AttentionShape attention_shape(const AttentionArgs& args, const AttentionItem& item) {
  const int64_t group = args.heads / args.kv.kv_heads;
  const int64_t rows = (item.token_end - item.token_begin) * group;
  return {group, padded_head_dim(args.kv.head_dim), attention_row_floats(args.kv.head_dim), rows, rows > 16 ? kQueryStride : 16};
}

inline AttentionScratch attention_scratch(void* scratch, const AttentionShape& shape) {
  float* query = static_cast<float*>(scratch);
  float* split = query + kQueryStride * shape.padded;
  float* total = split + kAttentionRows * shape.stride;
  float* slopes = total + kAttentionRows * shape.stride;
  float* positions = slopes + kAttentionRows;
  return {query, split, total, slopes, reinterpret_cast<int32_t*>(positions), reinterpret_cast<uint8_t*>(positions + kAttentionRows)};
}

// 64 positions of one KV head. Tiles that no row of the item sees repeat one that is seen.
template <class Kv>
struct Stripe {
  int64_t at;                                  // first position
  const typename Kv::T* keys[kStripeTiles];    // [head_dim][16]
  const typename Kv::T* values[kStripeTiles];  // [16][value_stride]
  const uint16_t* key_scales[kStripeTiles];    // [16], bf16
  const uint16_t* value_scales[kStripeTiles];
};

template <class Kv>
inline void set_tile(Stripe<Kv>& stripe, int64_t tile, const KvLayer& kv, const uint8_t* keys, const uint8_t* values) {
  stripe.keys[tile] = reinterpret_cast<const typename Kv::T*>(keys);
  stripe.values[tile] = reinterpret_cast<const typename Kv::T*>(values);
  stripe.key_scales[tile] = reinterpret_cast<const uint16_t*>(keys + kv.key_scales_at);
  stripe.value_scales[tile] = reinterpret_cast<const uint16_t*>(values + kv.value_scales_at);
}

// Positions [position, position + count) from units of another size into a unit of 16.
template <class Kv>
inline void gather_tile(const KvLayer& kv, const int32_t* table, int64_t kv_head, int64_t position, int64_t count, const KvLayer& tile, uint8_t* to_keys, uint8_t* to_values) {
  using T = typename Kv::T;
  for (int64_t j = 0; j < count; j++) {
    const int64_t block = table[(position + j) / kv.block_size], offset = (position + j) % kv.block_size, at = offset % kv.unit;
    const uint8_t* keys = kv.key_unit(block, kv_head, offset / kv.unit);
    const uint8_t* values = kv.value_unit(block, kv_head, offset / kv.unit);
    for (int64_t d = 0; d < kv.head_dim; d++) reinterpret_cast<T*>(to_keys)[d * kTile + j] = reinterpret_cast<const T*>(keys)[d * kv.unit + at];
    for (int64_t d = 0; d < kv.head_dim; d++) reinterpret_cast<T*>(to_values)[j * kv.value_stride + d] = reinterpret_cast<const T*>(values)[at * kv.value_stride + d];
    if constexpr (Kv::kScaled) {
      __builtin_memcpy(to_keys + tile.key_scales_at + j * 2, keys + kv.key_scales_at + at * 2, 2);
      __builtin_memcpy(to_values + tile.value_scales_at + j * 2, values + kv.value_scales_at + at * 2, 2);
    }
  }
}

// The stripe that begins at `at`, of which [first, end) is seen; tiles lie where they are, or in `gathered`.
template <class Kv>
inline Stripe<Kv> find_stripe(const KvLayer& kv, const int32_t* table, int64_t kv_head, int64_t at, int64_t first, int64_t end, uint8_t* gathered) {
  Stripe<Kv> stripe;
  stripe.at = at;
  const int64_t tile_begin = max_i64(first - at, 0) / kTile, tile_end = (min_i64(end - at, kStripe) + kTile - 1) / kTile;
  int64_t entry = (at + tile_begin * kTile) / kv.block_size, unit = (at + tile_begin * kTile) % kv.block_size / kTile;
  for (int64_t tile = tile_begin; tile < tile_end; tile++) {
    if (kv.unit == kTile) {
      set_tile(stripe, tile, kv, kv.key_unit(table[entry], kv_head, unit), kv.value_unit(table[entry], kv_head, unit));
      unit = unit + 1 < kv.units ? unit + 1 : 0;
      entry += unit == 0;
    } else {
      const KvLayer layout = kv_layer(kv.type, kTile, 1, 1, kv.head_dim, nullptr, nullptr);
      uint8_t* keys = gathered + tile * (layout.key_unit_bytes + layout.value_unit_bytes);
      uint8_t* values = keys + layout.key_unit_bytes;
      gather_tile<Kv>(kv, table, kv_head, at + tile * kTile, min_i64(kTile, end - at - tile * kTile), layout, keys, values);
      set_tile(stripe, tile, layout, keys, values);
    }
  }
  for (int64_t tile = 0; tile < kStripeTiles; tile++) {
    if (tile >= tile_begin && tile < tile_end) continue;
    stripe.keys[tile] = stripe.keys[tile_begin];
    stripe.values[tile] = stripe.values[tile_begin];
  }
  return stripe;
}

// Positions [low, high) of a stripe that a query sees; none when low >= high.
struct Visible {
  int64_t low;
  int64_t high;
};

// Positions that the query at `position` sees begin here.
inline int64_t first_visible(const AttentionArgs& args, int64_t position) {
  return args.window > 0 && position - args.window + 1 > 0 ? position - args.window + 1 : 0;
}

inline Visible visible_to(const AttentionArgs& args, int64_t position, int64_t at) {
  return {max_i64(first_visible(args, position) - at, 0), min_i64(position + 1 - at, kStripe)};
}

// acc[r][i] += factors[r * stride] * load(i), fused. Few vectors stay in registers for all rows; of many, one at a time.
template <int ROWS, int N, class Load>
MILL_INLINE void add_products(F (&acc)[ROWS][N], const float* factors, int64_t stride, const Load& load) {
  if constexpr (N <= 2) {
    F x[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) x[i] = load(i);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const F factor = Simd::set1(factors[r * stride]);
#pragma GCC unroll 16
      for (int i = 0; i < N; i++) acc[r][i] = Simd::fma(factor, x[i], acc[r][i]);
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      const F x = load(i);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++) acc[r][i] = Simd::fma(Simd::set1(factors[r * stride]), x, acc[r][i]);
    }
  }
}

// Scores of ROWS queries [head_dim][stride] against the keys of TILES tiles: one chain over the head dimension for each. `ahead` is asked for.
template <int ROWS, int TILES, class Kv>
inline void score_tiles(const float* query, int64_t stride, const typename Kv::T* const* keys, const typename Kv::T* const* ahead, int64_t head_dim, float* scores) {
  constexpr int N = TILES * kTileVectors;
  F acc[ROWS][N];
  for (int r = 0; r < ROWS; r++) {
    for (int i = 0; i < N; i++) acc[r][i] = Simd::zero();
  }
  for (int64_t d = 0; d < head_dim; d++) {
#pragma GCC unroll 4
    for (int t = 0; t < TILES; t++) Simd::prefetch(ahead[t] + d * kTile);
    add_products(acc, query + d * stride, 1, [&](int i) { return Kv::load(keys[i / kTileVectors] + d * kTile + i % kTileVectors * W); });
  }
  for (int r = 0; r < ROWS; r++) {
    for (int i = 0; i < N; i++) Simd::store(scores + r * kStripe + i * W, acc[r][i]);
  }
}

inline F soft_cap(F s, float cap) {
  // tanh(x) = 1 - 2 / (exp(2x) + 1)
  const F x = Simd::div(s, Simd::set1(cap));
  const F e = exp(Simd::add(x, x));
  const F tanh = Simd::sub(Simd::set1(1), Simd::div(Simd::set1(2), Simd::add(e, Simd::set1(1))));
  return Simd::mul(Simd::set1(cap), tanh);
}

// What a row adds to its scores: slope times how far before it a key is.
struct Bias {
  float slope;
  float distance;  // of the tile's first position; not positive where the row sees it
};

// Scales, caps, biases and masks one row of a tile's scores in place; scales is null where the type has none.
inline void adjust_scores(const AttentionArgs& args, const uint16_t* scales, const Visible& visible, const Bias& bias, float* scores) {
  const F minus_infinity = Simd::set1(-__builtin_inff());
  const F low = Simd::set1(static_cast<float>(visible.low)), high = Simd::set1(static_cast<float>(visible.high));
  for (int v = 0; v < kTileVectors; v++) {
    F s = Simd::load(scores + v * W);
    if (scales) s = Simd::mul(s, Simd::load_bf16(scales + v * W));
    if (args.softcap > 0) s = soft_cap(s, args.softcap);
    const F position = Simd::add(Simd::iota(), Simd::set1(static_cast<float>(v * W)));
    if (args.slopes) s = Simd::fma(Simd::set1(bias.slope), Simd::add(Simd::set1(bias.distance), position), s);
    s = Simd::select(Simd::less(position, low), minus_infinity, s);
    s = Simd::select(Simd::less(position, high), s, minus_infinity);
    Simd::store(scores + v * W, s);
  }
}

// One row's sums times exp(from - to), as its largest score grew.
inline void rescale_sums(const AttentionShape& shape, float from, float to, float* sums) {
  const F factor = exp_not_positive(Simd::set1(from - to));
  for (int64_t d = 0; d < shape.padded; d += W) Simd::store(sums + d, Simd::mul(Simd::load(sums + d), factor));
  float lanes[W];
  Simd::store(lanes, factor);
  sums[shape.padded] = to;
  sums[shape.padded + 1] *= lanes[0];
}

// Makes one row's scores of a stripe final, and brings its sums to the new largest one.
template <class Kv>
inline void raise_max(const AttentionArgs& args, const AttentionShape& shape, const Stripe<Kv>& stripe, const Visible& visible, const Bias& bias, float* scores, float* sums) {
  const bool adjusted = Kv::kScaled || args.softcap > 0 || args.slopes;
  F best = Simd::set1(-__builtin_inff());
  for (int64_t t = visible.low / kTile; t * kTile < visible.high; t++) {
    const Visible here = {visible.low - t * kTile, visible.high - t * kTile};
    if (adjusted || here.low > 0 || here.high < kTile) {
      adjust_scores(args, Kv::kScaled ? stripe.key_scales[t] : nullptr, here, {bias.slope, bias.distance + static_cast<float>(t * kTile)}, scores + t * kTile);
    }
    for (int v = 0; v < kTileVectors; v++) best = Simd::max(Simd::load(scores + t * kTile + v * W), best);
  }
  const float most = Simd::reduce_max(best), before = sums[shape.padded];
  if (most > before) rescale_sums(shape, before, most, sums);
}

// Turns one row's final scores of a stripe into weights exp(s - max), times the value's scale.
template <class Kv>
inline void weigh_row(const AttentionShape& shape, const Stripe<Kv>& stripe, const Visible& visible, float* scores, float* sums) {
  const F max = Simd::set1(sums[shape.padded]);
  F total = Simd::zero();
  for (int64_t t = visible.low / kTile; t * kTile < visible.high; t++) {
    for (int v = 0; v < kTileVectors; v++) {
      float* score = scores + t * kTile + v * W;
      const F p = exp_not_positive(Simd::sub(Simd::load(score), max));
      if constexpr (Kv::kScaled) Simd::store(score, Simd::mul(p, Simd::load_bf16(stripe.value_scales[t] + v * W)));
      else Simd::store(score, p);
      total = Simd::add(total, p);
    }
  }
  sums[shape.padded + 1] += Simd::reduce_add(total);
}

// out += sum of weight * value over positions [low, high) of a stripe, ascending, for PARTS * 16 dimensions of ROWS rows.
// Out of line, as each is used for one row in several places.
template <int ROWS, int PARTS, class Kv>
inline void accumulate_dims(const float* weights, const typename Kv::T* const* values, const typename Kv::T* const* ahead, int64_t dim, int64_t value_stride, const Visible& range, float* out, int64_t out_stride) {
  constexpr int N = PARTS * kTileVectors;
  F acc[ROWS][N];
  for (int r = 0; r < ROWS; r++) {
    for (int i = 0; i < N; i++) acc[r][i] = Simd::load(out + r * out_stride + dim + i * W);
  }
  for (int64_t t = range.low / kTile; t * kTile < range.high; t++) {
    const int64_t begin = max_i64(range.low - t * kTile, 0), end = min_i64(range.high - t * kTile, kTile);
    const typename Kv::T* from = values[t] + dim;
    const typename Kv::T* next = ahead[t] + dim * kTile;
    const float* weight = weights + t * kTile;
    for (int64_t j = begin; j < end; j++) {
      Simd::prefetch(next + j * PARTS * kTile);
      add_products(acc, weight + j, kStripe, [&](int i) { return Kv::load(from + j * value_stride + i * W); });
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int i = 0; i < N; i++) Simd::store(out + r * out_stride + dim + i * W, acc[r][i]);
  }
}

template <int ROWS, class Kv>
inline void accumulate(const AttentionArgs& args, const AttentionShape& shape, const float* weights, const typename Kv::T* const* values, const typename Kv::T* const* ahead, const Visible& range, float* out) {
  if (range.low >= range.high) return;
  constexpr int kParts = parts_of_sums(ROWS * kTileVectors);
  int64_t d = 0;
  for (; d + kParts * kTile <= shape.padded; d += kParts * kTile) accumulate_dims<ROWS, kParts, Kv>(weights, values, ahead, d, args.kv.value_stride, range, out, shape.stride);
  for (; d < shape.padded; d += kTile) accumulate_dims<ROWS, 1, Kv>(weights, values, ahead, d, args.kv.value_stride, range, out, shape.stride);
}

// ROWS consecutive rows, each of which sees some of the stripe. While at the keys it asks for `ahead_keys`, and so on.
template <int ROWS, class Kv>
inline void attend_rows(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, float* sums, int64_t row, const Stripe<Kv>& stripe, const typename Kv::T* const* ahead_keys, const typename Kv::T* const* ahead_values) {
  constexpr int kTiles = parts_of_sums(ROWS * kTileVectors);
  float scores[ROWS * kStripe];
  Visible visible[ROWS];
  for (int r = 0; r < ROWS; r++) visible[r] = visible_to(args, s.positions[row + r], stripe.at);
  // What rows see moves monotonically with their position.
  const Visible common = {visible[ROWS - 1].low, visible[0].high};
  for (int64_t t = visible[0].low / kTile / kTiles * kTiles; t * kTile < visible[ROWS - 1].high; t += kTiles) {
    score_tiles<ROWS, kTiles, Kv>(s.query + row, shape.query_stride, stripe.keys + t, ahead_keys + t, args.kv.head_dim, scores + t * kTile);
  }
  float* out = sums + row * shape.stride;
  for (int r = 0; r < ROWS; r++) {
    const Bias bias = {s.slopes[row + r], static_cast<float>(stripe.at - s.positions[row + r])};
    raise_max(args, shape, stripe, visible[r], bias, scores + r * kStripe, out + r * shape.stride);
  }
  for (int r = 0; r < ROWS; r++) {
    weigh_row(shape, stripe, visible[r], scores + r * kStripe, out + r * shape.stride);
    accumulate<1, Kv>(args, shape, scores + r * kStripe, stripe.values, stripe.values, {visible[r].low, min_i64(visible[r].high, common.low)}, out + r * shape.stride);
  }
  accumulate<ROWS, Kv>(args, shape, scores, stripe.values, ahead_values, common, out);
  for (int r = 0; r < ROWS; r++) {
    accumulate<1, Kv>(args, shape, scores + r * kStripe, stripe.values, stripe.values, {max_i64(common.low, common.high), visible[r].high}, out + r * shape.stride);
  }
}

// The same for a number of rows known at run time, at most ROWS.
template <int ROWS, class Kv>
inline void attend_some_rows(int64_t count, const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, float* sums, int64_t row, const Stripe<Kv>& stripe, const typename Kv::T* const* ahead_keys, const typename Kv::T* const* ahead_values) {
  if constexpr (ROWS > 1) {
    if (count < ROWS) return attend_some_rows<ROWS - 1>(count, args, shape, s, sums, row, stripe, ahead_keys, ahead_values);
  }
  attend_rows<ROWS>(args, shape, s, sums, row, stripe, ahead_keys, ahead_values);
}

// All rows that see some of a stripe, in blocks of about the same size. Blocks of memory are scattered, so the hardware cannot
// see the next one coming: the first rows ask for this stripe's values, then for the next one's keys.
template <class Kv>
inline void attend_stripe(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, float* sums, const Stripe<Kv>& stripe, const Stripe<Kv>& next) {
  int64_t row = 0, end = shape.rows;
  while (row < end && s.positions[row] < stripe.at) row++;
  while (row < end && first_visible(args, s.positions[end - 1]) >= stripe.at + kStripe) end--;
  const typename Kv::T* const* ahead_keys = stripe.values;
  const typename Kv::T* const* ahead_values = next.keys;
  for (int64_t blocks = (end - row + Simd::kRows - 1) / Simd::kRows; blocks > 0; blocks--) {
    const int64_t count = (end - row + blocks - 1) / blocks;
    attend_some_rows<Simd::kRows>(count, args, shape, s, sums, row, stripe, ahead_keys, ahead_values);
    row += count;
    ahead_keys = stripe.keys;
    ahead_values = stripe.values;
  }
}

inline void clear_sums(const AttentionShape& shape, float* sums) {
  for (int64_t row = 0; row < shape.rows; row++) {
    float* to = sums + row * shape.stride;
    for (int64_t d = 0; d < shape.padded; d++) to[d] = 0;
    to[shape.padded] = -__builtin_inff();
    to[shape.padded + 1] = 0;
  }
}

// Adds the sums of a split to those of the splits before it. A row that sees none of the split is left as it is.
inline void merge_sums(const AttentionShape& shape, const float* split, float* total) {
  const int64_t max = shape.padded, sum = shape.padded + 1;
  for (int64_t row = 0; row < shape.rows; row++, split += shape.stride, total += shape.stride) {
    if (split[sum] == 0) continue;
    const float most = split[max] > total[max] ? split[max] : total[max];
    float drops[W] = {total[max] - most, split[max] - most};
    Simd::store(drops, exp(Simd::load(drops)));
    const F before = Simd::set1(drops[0]), here = Simd::set1(drops[1]);
    for (int64_t d = 0; d < shape.padded; d += W) {
      Simd::store(total + d, Simd::fma(Simd::load(split + d), here, Simd::mul(Simd::load(total + d), before)));
    }
    total[sum] = total[sum] * drops[0] + split[sum] * drops[1];
    total[max] = most;
  }
}

template <class Kv>
inline void attention_begin(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s) {
  const int64_t dim = args.kv.head_dim;
  const float scale = args.scale * Kv::kFactor;
  for (int64_t row = 0; row < shape.rows; row++) {
    const int64_t token = item.token_begin + row / shape.group;
    const int64_t head = item.kv_head * shape.group + row % shape.group;
    const float* q = args.q + (token * args.heads + head) * dim;
    for (int64_t d = 0; d < dim; d++) s.query[d * shape.query_stride + row] = q[d] * scale;
    s.positions[row] = args.positions[token];
    s.slopes[row] = args.slopes ? args.slopes[head] : 0;
  }
}

// How stripes are computed: begin() once for an item, stripe() for each.
template <class Kv>
struct VectorStripes {
  void begin(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s, void*) { attention_begin<Kv>(args, item, shape, s); }
  void stripe(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, float* sums, const Stripe<Kv>& here, const Stripe<Kv>& next) { attend_stripe(args, shape, s, sums, here, next); }
  void end() {}
};

// y = sums / (sum of weights); a sink is one more weight, of no value.
template <class Kv>
inline void attention_end(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const float* total) {
  const int64_t dim = args.kv.head_dim;
  for (int64_t row = 0; row < shape.rows; row++, total += shape.stride) {
    const int64_t token = item.token_begin + row / shape.group;
    const int64_t head = item.kv_head * shape.group + row % shape.group;
    float sum = total[shape.padded + 1], factor = Kv::kFactor;
    if (args.sinks) {
      const float sink = args.sinks[head], max = total[shape.padded];
      const float most = sink > max ? sink : max;
      float drops[W] = {max - most, sink - most};
      Simd::store(drops, exp(Simd::load(drops)));
      factor = Kv::kFactor * drops[0];
      sum = sum * drops[0] + drops[1];
    }
    float* y = args.y + (token * args.heads + head) * dim;
    for (int64_t d = 0; d < dim; d++) y[d] = total[d] * factor / sum;
  }
}

}  // namespace mill::MILL_ISA
