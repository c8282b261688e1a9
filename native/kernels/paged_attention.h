// paged_attention: softmax(scale q k^T) v through block tables.
//
// Online softmax over tiles of 16 positions that begin at multiples of 16 in the sequence, whatever the block size; the tiles
// of a split of kSplit positions are summed by themselves, and the splits' sums are merged in ascending order. A query row
// meets exactly the tiles and positions it can see, so its result depends neither on the other rows of the item, nor on how
// the prompt was chunked, nor on which threads took which splits; positions it cannot see are never read into it, not even
// times zero. Values are read in vectors of 16 dimensions: what lies beyond head_dim is computed and thrown away.
#pragma once
#include "kv_types.h"

namespace mill::MILL_ISA {

constexpr int kTileVectors = kTile / W;

struct AttentionShape {
  int64_t group;   // query heads per KV head
  int64_t padded;  // head_dim rounded up to 16
  int64_t stride;  // floats of one row's sums: [padded] weighted values, the largest score, the sum of weights
  int64_t rows;
};

// One thread's working memory, cut from its scratch.
struct AttentionScratch {
  float* query;        // [rows][padded]
  float* split;        // [rows][stride], of the split in hand
  float* total;        // [rows][stride], of all splits so far
  float* slopes;       // [rows]
  int32_t* positions;  // [rows]
  uint8_t* tile;       // a gathered tile: keys [head_dim][16], values [16][value_stride], scales of both
};

inline AttentionShape attention_shape(const AttentionArgs& args, const AttentionItem& item) {
  const int64_t group = args.heads / args.kv.kv_heads;
  return {group, padded_head_dim(args.kv.head_dim), attention_row_floats(args.kv.head_dim), (item.token_end - item.token_begin) * group};
}

inline AttentionScratch attention_scratch(void* scratch, const AttentionShape& shape) {
  float* query = static_cast<float*>(scratch);
  float* split = query + kAttentionRows * shape.padded;
  float* total = split + kAttentionRows * shape.stride;
  float* slopes = total + kAttentionRows * shape.stride;
  float* positions = slopes + kAttentionRows;
  return {query, split, total, slopes, reinterpret_cast<int32_t*>(positions), reinterpret_cast<uint8_t*>(positions + kAttentionRows)};
}

// Where a tile that is one unit lies: entry of the block table, unit of the block.
struct TilePlace {
  int64_t entry;
  int64_t unit;
};

// 16 positions of one KV head, and where the next ones lie: blocks are scattered, so the hardware cannot see them coming.
template <class Kv>
struct KvTile {
  const typename Kv::T* keys;    // [head_dim][16]
  const typename Kv::T* values;  // [16][value_stride]
  const uint16_t* key_scales;    // [16], bf16
  const uint16_t* value_scales;
  const typename Kv::T* next_keys;
  const typename Kv::T* next_values;
};

// A tile that is one unit is read where it is; `next` is the position of the one after it.
template <class Kv>
inline KvTile<Kv> tile_in_block(const KvLayer& kv, const int32_t* table, int64_t kv_head, TilePlace here, TilePlace next) {
  using T = typename Kv::T;
  const uint8_t* keys = kv.key_unit(table[here.entry], kv_head, here.unit);
  const uint8_t* values = kv.value_unit(table[here.entry], kv_head, here.unit);
  const uint8_t* next_keys = kv.key_unit(table[next.entry], kv_head, next.unit);
  const uint8_t* next_values = kv.value_unit(table[next.entry], kv_head, next.unit);
  return {reinterpret_cast<const T*>(keys), reinterpret_cast<const T*>(values), reinterpret_cast<const uint16_t*>(keys + kv.key_scales_at),
          reinterpret_cast<const uint16_t*>(values + kv.value_scales_at), reinterpret_cast<const T*>(next_keys), reinterpret_cast<const T*>(next_values)};
}

// The first `count` positions of a tile, from units of another size.
template <class Kv>
inline KvTile<Kv> gather_tile(const KvLayer& kv, const int32_t* table, int64_t kv_head, int64_t position, int64_t count, uint8_t* scratch) {
  using T = typename Kv::T;
  T* to_keys = reinterpret_cast<T*>(scratch);
  T* to_values = to_keys + kv.head_dim * kTile;
  uint16_t* key_scales = reinterpret_cast<uint16_t*>(to_values + kv.value_stride * kTile);
  uint16_t* value_scales = key_scales + kTile;
  for (int64_t j = 0; j < count; j++) {
    const int64_t block = table[(position + j) / kv.block_size], offset = (position + j) % kv.block_size, at = offset % kv.unit;
    const uint8_t* keys = kv.key_unit(block, kv_head, offset / kv.unit);
    const uint8_t* values = kv.value_unit(block, kv_head, offset / kv.unit);
    for (int64_t d = 0; d < kv.head_dim; d++) to_keys[d * kTile + j] = reinterpret_cast<const T*>(keys)[d * kv.unit + at];
    for (int64_t d = 0; d < kv.head_dim; d++) to_values[j * kv.value_stride + d] = reinterpret_cast<const T*>(values)[at * kv.value_stride + d];
    if constexpr (Kv::kScaled) {
      __builtin_memcpy(key_scales + j, keys + kv.key_scales_at + at * 2, 2);
      __builtin_memcpy(value_scales + j, values + kv.value_scales_at + at * 2, 2);
    }
  }
  return {to_keys, to_values, key_scales, value_scales, to_keys, to_values};
}

// Scores of ROWS queries against the 16 keys of a tile: one chain over the head dimension for each.
template <int ROWS, class Kv>
inline void score_tile(const float* query, int64_t stride, const KvTile<Kv>& tile, int64_t head_dim, float* scores) {
  F acc[ROWS][kTileVectors];
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < kTileVectors; v++) acc[r][v] = Simd::zero();
  }
  for (int64_t d = 0; d < head_dim; d++) {
    Simd::prefetch(tile.next_keys + d * kTile);
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; v++) {
      const F key = Kv::load(tile.keys + d * kTile + v * W);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) acc[r][v] = Simd::fma(Simd::set1(query[r * stride + d]), key, acc[r][v]);
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < kTileVectors; v++) Simd::store(scores + r * kTile + v * W, acc[r][v]);
  }
}

inline F soft_cap(F s, float cap) {
  // tanh(x) = 1 - 2 / (exp(2x) + 1)
  const F x = Simd::div(s, Simd::set1(cap));
  const F e = exp(Simd::add(x, x));
  const F tanh = Simd::sub(Simd::set1(1), Simd::div(Simd::set1(2), Simd::add(e, Simd::set1(1))));
  return Simd::mul(Simd::set1(cap), tanh);
}

// Positions [low, high) of a tile that a query sees; none when low >= high.
struct Visible {
  int64_t low;
  int64_t high;
  bool operator==(const Visible& other) const { return low == other.low && high == other.high; }
};

// What a row adds to its scores: slope times how far before it a key is.
struct Bias {
  float slope;
  float distance;  // of the tile's first position; not positive where the row sees it
};

// Scales, caps, biases and masks one row of raw scores in place; returns the largest.
template <class Kv>
inline float mask_scores(const AttentionArgs& args, const KvTile<Kv>& tile, const Visible& visible, const Bias& bias, float* scores) {
  const F minus_infinity = Simd::set1(-__builtin_inff());
  const F low = Simd::set1(static_cast<float>(visible.low)), high = Simd::set1(static_cast<float>(visible.high));
  const F scale = Simd::set1(args.scale * Kv::kFactor);
  F best = minus_infinity;
  for (int v = 0; v < kTileVectors; v++) {
    F s = Simd::load(scores + v * W);
    if constexpr (Kv::kScaled) s = Simd::mul(s, Simd::load_bf16(tile.key_scales + v * W));
    s = Simd::mul(s, scale);
    if (args.softcap > 0) s = soft_cap(s, args.softcap);
    const F position = Simd::add(Simd::iota(), Simd::set1(static_cast<float>(v * W)));
    if (args.slopes) s = Simd::fma(Simd::set1(bias.slope), Simd::add(Simd::set1(bias.distance), position), s);
    s = Simd::select(Simd::less(position, low), minus_infinity, s);
    s = Simd::select(Simd::less(position, high), s, minus_infinity);
    Simd::store(scores + v * W, s);
    best = Simd::max(s, best);
  }
  return Simd::reduce_max(best);
}

// Turns raw scores into weights exp(s - max), times the value's scale, and gives each row's factor for what it summed so far.
template <int ROWS, class Kv>
inline void weigh_tile(const AttentionArgs& args, const KvTile<Kv>& tile, const Visible& visible, const Bias* biases, float* scores, float* sums, int64_t stride, float* factors) {
  float drops[W] = {};
  float* row_max = sums;
  float* row_sum = sums + 1;
  for (int r = 0; r < ROWS; r++) {
    const float tile_max = mask_scores(args, tile, visible, biases[r], scores + r * kTile);
    const float new_max = tile_max > row_max[r * stride] ? tile_max : row_max[r * stride];
    drops[r] = row_max[r * stride] - new_max;
    row_max[r * stride] = new_max;
  }
  Simd::store(factors, exp(Simd::load(drops)));
  for (int r = 0; r < ROWS; r++) {
    F total = Simd::zero();
    for (int v = 0; v < kTileVectors; v++) {
      const F p = exp(Simd::sub(Simd::load(scores + r * kTile + v * W), Simd::set1(row_max[r * stride])));
      if constexpr (Kv::kScaled) Simd::store(scores + r * kTile + v * W, Simd::mul(p, Simd::load_bf16(tile.value_scales + v * W)));
      else Simd::store(scores + r * kTile + v * W, p);
      total = v == 0 ? p : Simd::add(total, p);
    }
    row_sum[r * stride] = row_sum[r * stride] * factors[r] + Simd::reduce_add(total);
  }
}

// out = out * factor + sum over visible j of weight[j] * value[j], j ascending, for DIMS dimensions of ROWS rows.
template <int ROWS, int DIMS, class Kv>
inline void accumulate_dims(const float* weights, const float* factors, const typename Kv::T* values, const typename Kv::T* next_values, int64_t value_stride, const Visible& visible, float* out, int64_t out_stride) {
  constexpr int N = DIMS / W;
  F acc[ROWS][N];
  for (int r = 0; r < ROWS; r++) {
    for (int i = 0; i < N; i++) acc[r][i] = Simd::mul(Simd::load(out + r * out_stride + i * W), Simd::set1(factors[r]));
  }
  for (int64_t j = visible.low; j < visible.high; j++) {
    Simd::prefetch(next_values + j * value_stride);
    F weight[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) weight[r] = Simd::set1(weights[r * kTile + j]);
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      const F value = Kv::load(values + j * value_stride + i * W);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) acc[r][i] = Simd::fma(weight[r], value, acc[r][i]);
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int i = 0; i < N; i++) Simd::store(out + r * out_stride + i * W, acc[r][i]);
  }
}

// Positions that the query at `position` sees begin here.
inline int64_t first_visible(const AttentionArgs& args, int64_t position) {
  return args.window > 0 && position - args.window + 1 > 0 ? position - args.window + 1 : 0;
}

// ROWS consecutive rows that see the same of a tile.
template <int ROWS, class Kv>
inline void attend_rows(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, float* sums, int64_t row, int64_t at, const KvTile<Kv>& tile, const Visible& visible) {
  float scores[ROWS * kTile];
  float factors[W];
  Bias biases[ROWS];
  for (int r = 0; r < ROWS; r++) biases[r] = {s.slopes[row + r], static_cast<float>(at - s.positions[row + r])};
  float* out = sums + row * shape.stride;
  score_tile<ROWS>(s.query + row * shape.padded, shape.padded, tile, args.kv.head_dim, scores);
  weigh_tile<ROWS>(args, tile, visible, biases, scores, out + shape.padded, shape.stride, factors);
  // About as many registers of sums as hide the latency.
  constexpr int kDims = kTile * (W == 16 ? 8 : 4) / ROWS;
  const int64_t stride = args.kv.value_stride;
  int64_t d = 0;
  for (; d + kDims <= shape.padded; d += kDims) accumulate_dims<ROWS, kDims, Kv>(scores, factors, tile.values + d, tile.next_values + d, stride, visible, out + d, shape.stride);
  for (; d < shape.padded; d += kTile) accumulate_dims<ROWS, kTile, Kv>(scores, factors, tile.values + d, tile.next_values + d, stride, visible, out + d, shape.stride);
}

inline Visible visible_to(const AttentionArgs& args, int64_t position, int64_t tile) {
  return {max_i64(first_visible(args, position) - tile, 0), min_i64(position + 1 - tile, kTile)};
}

// All rows against one tile; rows that see none of it are left as they are.
template <class Kv>
inline void attend_tile(const AttentionArgs& args, const AttentionShape& shape, const AttentionScratch& s, float* sums, int64_t at, KvTile<Kv> tile) {
  constexpr int kTogether = 4;
  int64_t row = 0;
  while (row < shape.rows) {
    const Visible visible = visible_to(args, s.positions[row], at);
    // What rows see moves monotonically with their position, so the last speaks for those between.
    const bool together = row + kTogether <= shape.rows && visible == visible_to(args, s.positions[row + kTogether - 1], at);
    if (visible.low < visible.high) {
      if (together) attend_rows<kTogether>(args, shape, s, sums, row, at, tile, visible);
      else attend_rows<1>(args, shape, s, sums, row, at, tile, visible);
    }
    row += together ? kTogether : 1;
    // Asked for once.
    tile.next_keys = tile.keys;
    tile.next_values = tile.values;
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

inline void attention_begin(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s) {
  const int64_t dim = args.kv.head_dim;
  for (int64_t row = 0; row < shape.rows; row++) {
    const int64_t token = item.token_begin + row / shape.group;
    const int64_t head = item.kv_head * shape.group + row % shape.group;
    __builtin_memcpy(s.query + row * shape.padded, args.q + (token * args.heads + head) * dim, static_cast<uint64_t>(dim) * 4);
    s.positions[row] = args.positions[token];
    s.slopes[row] = args.slopes ? args.slopes[head] : 0;
  }
}

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

// The tiles of one split, in ascending order.
template <class Kv>
inline void attend_split(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s, int64_t split, float* sums) {
  const int32_t* table = args.block_tables + item.sequence * args.max_blocks_per_seq;
  const int64_t last = args.positions[item.token_end - 1];
  const int64_t first = max_i64(first_visible(args, args.positions[item.token_begin]) / kTile * kTile, split * kSplit);
  const int64_t end = min_i64(last + 1, (split + 1) * kSplit);
  if (args.kv.unit != kTile) {
    for (int64_t at = first; at < end; at += kTile) {
      attend_tile<Kv>(args, shape, s, sums, at, gather_tile<Kv>(args.kv, table, item.kv_head, at, min_i64(kTile, last + 1 - at), s.tile));
    }
    return;
  }
  TilePlace here = {first / args.kv.block_size, first % args.kv.block_size / kTile};
  for (int64_t at = first; at < end; at += kTile) {
    TilePlace next = here;
    if (at + kTile <= last) next = here.unit + 1 < args.kv.units ? TilePlace{here.entry, here.unit + 1} : TilePlace{here.entry + 1, 0};
    attend_tile<Kv>(args, shape, s, sums, at, tile_in_block<Kv>(args.kv, table, item.kv_head, here, next));
    here = next;
  }
}

template <class Kv>
inline void attend(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  const AttentionShape shape = attention_shape(args, item);
  const AttentionScratch s = attention_scratch(scratch, shape);
  attention_begin(args, item, shape, s);
  if (!item.partials) clear_sums(shape, s.total);
  // Splits before a window are empty.
  const int64_t begin = item.partials ? item.split_begin : max_i64(item.split_begin, first_visible(args, args.positions[item.token_begin]) / kSplit);
  for (int64_t split = begin; split < item.split_end; split++) {
    float* sums = item.partials ? item.partials + (split - item.split_begin) * shape.rows * shape.stride : s.split;
    clear_sums(shape, sums);
    attend_split<Kv>(args, item, shape, s, split, sums);
    if (!item.partials) merge_sums(shape, sums, s.total);
  }
  if (!item.partials) attention_end<Kv>(args, item, shape, s.total);
}

inline void paged_attention(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  with_kv_type(args.kv.type, [&](auto type) { attend<decltype(type)>(args, item, scratch); });
}

inline void attention_merge(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  const AttentionShape shape = attention_shape(args, item);
  const AttentionScratch s = attention_scratch(scratch, shape);
  clear_sums(shape, s.total);
  for (int64_t split = item.split_begin; split < item.split_end; split++) {
    merge_sums(shape, item.partials + (split - item.split_begin) * shape.rows * shape.stride, s.total);
  }
  with_kv_type(args.kv.type, [&](auto type) { attention_end<decltype(type)>(args, item, shape, s.total); });
}

}  // namespace mill::MILL_ISA
