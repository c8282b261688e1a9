// paged_attention: softmax(scale q k^T) v through block tables.
//
// Online softmax over tiles of 16 positions that begin at multiples of 16 in the sequence, whatever the block size. A query
// row meets exactly the tiles and positions it can see, in ascending order, so its result depends neither on the other rows
// of the item nor on how the prompt was chunked; positions it cannot see are never read into it, not even times zero.
// Values are read in vectors of 16 dimensions: what lies beyond head_dim is computed and thrown away.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

constexpr int kTileVectors = kTile / W;

// One thread's working memory, cut from its scratch.
struct AttentionScratch {
  float* out;    // [rows][padded head_dim], running sum
  float* query;  // [rows][padded head_dim]
  float* max;    // [rows]
  float* sum;    // [rows]
  void* tile;    // a gathered tile: keys [head_dim][16], values [16][value_stride]
};

struct AttentionShape {
  int64_t group;   // query heads per KV head
  int64_t padded;  // head_dim rounded up to 16
  int64_t rows;
};

inline AttentionScratch attention_scratch(void* scratch, int64_t padded) {
  float* out = static_cast<float*>(scratch);
  float* query = out + kAttentionRows * padded;
  float* max = query + kAttentionRows * padded;
  float* sum = max + kAttentionRows;
  return {out, query, max, sum, sum + kAttentionRows};
}

inline F load_kv(const float* p) { return Simd::load(p); }
inline F load_kv(const uint16_t* p) { return Simd::load_bf16(p); }

// 16 positions of one KV head, and where the next ones lie: blocks are scattered, so the hardware cannot see them coming.
template <class T>
struct KvTile {
  const T* keys;    // [head_dim][16]
  const T* values;  // [16][value_stride]
  const T* next_keys;
  const T* next_values;
};

// A tile that lies within one block is read where it is; `next` is the position of the one after it.
template <class T>
inline KvTile<T> tile_in_block(const KvLayer& kv, const int32_t* table, int64_t kv_head, int64_t position, int64_t next) {
  const auto keys = [&](int64_t at) {
    return static_cast<const T*>(kv.keys) + (table[at / kv.block_size] * kv.kv_heads + kv_head) * kv.key_head_elements() + at % kv.block_size * kv.head_dim;
  };
  const auto values = [&](int64_t at) {
    return static_cast<const T*>(kv.values) + (table[at / kv.block_size] * kv.kv_heads + kv_head) * kv.value_head_elements() + at % kv.block_size * kv.value_stride;
  };
  return {keys(position), values(position), keys(next), values(next)};
}

// The first `count` positions of a tile, from blocks that no tile fits in.
template <class T>
inline KvTile<T> gather_tile(const KvLayer& kv, const int32_t* table, int64_t kv_head, int64_t position, int64_t count, void* scratch) {
  T* to_keys = static_cast<T*>(scratch);
  T* to_values = to_keys + kv.head_dim * kTile;
  for (int64_t j = 0; j < count; j++) {
    const int64_t at = position + j;
    const int64_t entry = table[at / kv.block_size] * kv.kv_heads + kv_head;
    const int64_t offset = at % kv.block_size;
    const T* keys = static_cast<const T*>(kv.keys) + entry * kv.key_head_elements() + offset / kv.unit * kv.unit * kv.head_dim + offset % kv.unit;
    const T* values = static_cast<const T*>(kv.values) + entry * kv.value_head_elements() + offset * kv.value_stride;
    for (int64_t d = 0; d < kv.head_dim; d++) to_keys[d * kTile + j] = keys[d * kv.unit];
    for (int64_t d = 0; d < kv.head_dim; d++) to_values[j * kv.value_stride + d] = values[d];
  }
  return {to_keys, to_values, to_keys, to_values};
}

// Scores of ROWS queries against the 16 keys of a tile: one chain over the head dimension for each.
template <int ROWS, class T>
inline void score_tile(const float* query, int64_t stride, const T* keys, const T* next_keys, int64_t head_dim, float* scores) {
  F acc[ROWS][kTileVectors];
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < kTileVectors; v++) acc[r][v] = Simd::zero();
  }
  for (int64_t d = 0; d < head_dim; d++) {
    Simd::prefetch(next_keys + d * kTile);
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; v++) {
      const F key = load_kv(keys + d * kTile + v * W);
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

// Scales, caps and masks one row of raw scores in place; returns the largest.
inline float mask_scores(const AttentionArgs& args, const Visible& visible, float* scores) {
  const F minus_infinity = Simd::set1(-__builtin_inff());
  const F low = Simd::set1(static_cast<float>(visible.low)), high = Simd::set1(static_cast<float>(visible.high));
  F best = minus_infinity;
  for (int v = 0; v < kTileVectors; v++) {
    F s = Simd::mul(Simd::load(scores + v * W), Simd::set1(args.scale));
    if (args.softcap > 0) s = soft_cap(s, args.softcap);
    const F position = Simd::add(Simd::iota(), Simd::set1(static_cast<float>(v * W)));
    s = Simd::select(Simd::less(position, low), minus_infinity, s);
    s = Simd::select(Simd::less(position, high), s, minus_infinity);
    Simd::store(scores + v * W, s);
    best = Simd::max(s, best);
  }
  return Simd::reduce_max(best);
}

// Turns raw scores into weights exp(s - max), and gives each row's factor for what it summed so far.
template <int ROWS>
inline void weigh_tile(const AttentionArgs& args, const Visible& visible, float* scores, float* row_max, float* row_sum, float* factors) {
  float drops[W] = {};
  for (int r = 0; r < ROWS; r++) {
    const float tile_max = mask_scores(args, visible, scores + r * kTile);
    const float new_max = tile_max > row_max[r] ? tile_max : row_max[r];
    drops[r] = row_max[r] - new_max;
    row_max[r] = new_max;
  }
  Simd::store(factors, exp(Simd::load(drops)));
  for (int r = 0; r < ROWS; r++) {
    F total = Simd::zero();
    for (int v = 0; v < kTileVectors; v++) {
      const F p = exp(Simd::sub(Simd::load(scores + r * kTile + v * W), Simd::set1(row_max[r])));
      Simd::store(scores + r * kTile + v * W, p);
      total = v == 0 ? p : Simd::add(total, p);
    }
    row_sum[r] = row_sum[r] * factors[r] + Simd::reduce_add(total);
  }
}

// out = out * factor + sum over visible j of weight[j] * value[j], j ascending, for DIMS dimensions of ROWS rows.
template <int ROWS, int DIMS, class T>
inline void accumulate_dims(const float* weights, const float* factors, const T* values, const T* next_values, int64_t value_stride, const Visible& visible, float* out, int64_t out_stride) {
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
      const F value = load_kv(values + j * value_stride + i * W);
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
template <int ROWS, class T>
inline void attend_rows(const AttentionArgs& args, const AttentionShape& shape, AttentionScratch& s, int64_t row, const KvTile<T>& tile, const Visible& visible) {
  float scores[ROWS * kTile];
  float factors[W];
  score_tile<ROWS>(s.query + row * shape.padded, shape.padded, tile.keys, tile.next_keys, args.kv.head_dim, scores);
  weigh_tile<ROWS>(args, visible, scores, s.max + row, s.sum + row, factors);
  // About as many registers of sums as hide the latency.
  constexpr int kDims = kTile * (W == 16 ? 8 : 4) / ROWS;
  float* out = s.out + row * shape.padded;
  int64_t d = 0;
  for (; d + kDims <= shape.padded; d += kDims) accumulate_dims<ROWS, kDims>(scores, factors, tile.values + d, tile.next_values + d, args.kv.value_stride, visible, out + d, shape.padded);
  for (; d < shape.padded; d += kTile) accumulate_dims<ROWS, kTile>(scores, factors, tile.values + d, tile.next_values + d, args.kv.value_stride, visible, out + d, shape.padded);
}

inline Visible visible_to(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, int64_t row, int64_t tile) {
  const int64_t position = args.positions[item.token_begin + row / shape.group];
  return {max_i64(first_visible(args, position) - tile, 0), min_i64(position + 1 - tile, kTile)};
}

// All rows against one tile; rows that see none of it are left as they are.
template <class T>
inline void attend_tile(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, AttentionScratch& s, int64_t at, KvTile<T> tile) {
  constexpr int kTogether = 4;
  int64_t row = 0;
  while (row < shape.rows) {
    const Visible visible = visible_to(args, item, shape, row, at);
    // What rows see moves monotonically with their position, so the last speaks for those between.
    const bool together = row + kTogether <= shape.rows && visible == visible_to(args, item, shape, row + kTogether - 1, at);
    if (visible.low < visible.high) {
      if (together) attend_rows<kTogether>(args, shape, s, row, tile, visible);
      else attend_rows<1>(args, shape, s, row, tile, visible);
    }
    row += together ? kTogether : 1;
    // Asked for once.
    tile.next_keys = tile.keys;
    tile.next_values = tile.values;
  }
}

inline void attention_begin(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, AttentionScratch& s) {
  const int64_t dim = args.kv.head_dim;
  for (int64_t row = 0; row < shape.rows; row++) {
    const int64_t token = item.token_begin + row / shape.group;
    const int64_t head = item.kv_head * shape.group + row % shape.group;
    __builtin_memcpy(s.query + row * shape.padded, args.q + (token * args.heads + head) * dim, static_cast<uint64_t>(dim) * 4);
    for (int64_t d = 0; d < shape.padded; d++) s.out[row * shape.padded + d] = 0;
    s.max[row] = -__builtin_inff();
    s.sum[row] = 0;
  }
}

inline void attention_end(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s) {
  const int64_t dim = args.kv.head_dim;
  for (int64_t row = 0; row < shape.rows; row++) {
    const int64_t token = item.token_begin + row / shape.group;
    const int64_t head = item.kv_head * shape.group + row % shape.group;
    float* y = args.y + (token * args.heads + head) * dim;
    for (int64_t d = 0; d < dim; d++) y[d] = s.out[row * shape.padded + d] / s.sum[row];
  }
}

template <class T>
inline void attend(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  const int64_t group = args.heads / args.kv.kv_heads;
  const AttentionShape shape = {group, (args.kv.head_dim + 15) / 16 * 16, (item.token_end - item.token_begin) * group};
  AttentionScratch s = attention_scratch(scratch, shape.padded);
  attention_begin(args, item, shape, s);
  const int32_t* table = args.block_tables + item.sequence * args.max_blocks_per_seq;
  const int64_t last = args.positions[item.token_end - 1];
  const int64_t first = first_visible(args, args.positions[item.token_begin]) / kTile * kTile;
  for (int64_t tile = first; tile <= last; tile += kTile) {
    const int64_t count = min_i64(kTile, last + 1 - tile);
    const bool in_block = args.kv.unit == kTile;
    attend_tile<T>(args, item, shape, s, tile, in_block ? tile_in_block<T>(args.kv, table, item.kv_head, tile, tile + kTile <= last ? tile + kTile : tile) : gather_tile<T>(args.kv, table, item.kv_head, tile, count, s.tile));
  }
  attention_end(args, item, shape, s);
}

inline void paged_attention(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  if (args.kv.type == KvType::bf16) attend<uint16_t>(args, item, scratch);
  else attend<float>(args, item, scratch);
}

}  // namespace mill::MILL_ISA
