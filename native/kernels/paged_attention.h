// paged_attention: softmax(scale q k^T) v through block tables.
//
// Online softmax over tiles of 16 positions that begin at multiples of 16 in the sequence, whatever the block size. A query
// row meets exactly the tiles and positions it can see, in ascending order, so its result depends neither on the other rows
// of the item nor on how the prompt was chunked; positions it cannot see are never read into it, not even times zero.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

constexpr int kTileVectors = kTile / W;

// One thread's working memory, cut from its scratch.
struct AttentionScratch {
  float* out;        // [rows][padded head_dim], running sum
  float* query;      // [rows][padded head_dim], scaled by nothing: the scale is applied to the score
  float* max;        // [rows]
  float* sum;        // [rows]
  float* key_tile;   // [head_dim][16]
  float* value_tile; // [16][padded head_dim]
};

struct AttentionShape {
  int64_t group;   // query heads per KV head
  int64_t padded;  // head_dim rounded up to 16
  int64_t rows;
};

inline AttentionScratch attention_scratch(void* scratch, int64_t padded) {
  float* at = static_cast<float*>(scratch);
  float* query = at + kAttentionRows * padded;
  float* max = query + kAttentionRows * padded;
  float* sum = max + kAttentionRows;
  float* key_tile = sum + kAttentionRows;
  return {at, query, max, sum, key_tile, key_tile + padded * kTile};
}

inline F load_kv(const float* p) { return Simd::load(p); }
inline F load_kv(const uint16_t* p) { return Simd::load_bf16(p); }
inline float widen_kv(float x) { return x; }
inline float widen_kv(uint16_t x) { return from_bf16(x); }

// A tile that lies within one block, widened to fp32.
template <class T>
inline void load_tile(const KvLayer& kv, const int32_t* table, int64_t kv_head, int64_t position, int64_t padded, AttentionScratch& s) {
  const int64_t entry = table[position / kv.block_size] * kv.kv_heads + kv_head;
  const int64_t offset = position % kv.block_size;
  const T* keys = static_cast<const T*>(kv.keys) + entry * kv.key_head_elements() + offset * kv.head_dim;
  for (int64_t i = 0; i < kv.head_dim * kTile; i += W) Simd::store(s.key_tile + i, load_kv(keys + i));
  const T* values = static_cast<const T*>(kv.values) + entry * kv.value_head_elements() + offset * kv.value_stride;
  for (int j = 0; j < kTile; j++) {
    int64_t d = 0;
    for (; d + W <= kv.head_dim; d += W) Simd::store(s.value_tile + j * padded + d, load_kv(values + j * kv.value_stride + d));
    for (; d < kv.head_dim; d++) s.value_tile[j * padded + d] = widen_kv(values[j * kv.value_stride + d]);
  }
}

// The first `count` positions of a tile, from blocks that no tile fits in.
template <class T>
inline void gather_tile(const KvLayer& kv, const int32_t* table, int64_t kv_head, int64_t position, int64_t count, int64_t padded, AttentionScratch& s) {
  for (int64_t j = 0; j < count; j++) {
    const int64_t at = position + j;
    const int64_t entry = table[at / kv.block_size] * kv.kv_heads + kv_head;
    const int64_t offset = at % kv.block_size;
    const T* keys = static_cast<const T*>(kv.keys) + entry * kv.key_head_elements() + offset / kv.unit * kv.unit * kv.head_dim + offset % kv.unit;
    const T* values = static_cast<const T*>(kv.values) + entry * kv.value_head_elements() + offset * kv.value_stride;
    for (int64_t d = 0; d < kv.head_dim; d++) s.key_tile[d * kTile + j] = widen_kv(keys[d * kv.unit]);
    for (int64_t d = 0; d < kv.head_dim; d++) s.value_tile[j * padded + d] = widen_kv(values[d]);
  }
}

// Scores of ROWS queries against the 16 keys of a tile: one chain over the head dimension for each.
template <int ROWS>
inline void score_tile(const float* query, int64_t stride, const float* keys, int64_t head_dim, float* scores) {
  F acc[ROWS][kTileVectors];
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < kTileVectors; v++) acc[r][v] = Simd::zero();
  }
  for (int64_t d = 0; d < head_dim; d++) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; v++) {
      const F key = Simd::load(keys + d * kTile + v * W);
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

// Turns raw scores of positions [low, high) of the tile into weights exp(s - max); returns the factor for older sums.
inline float weigh_tile(const AttentionArgs& args, float* scores, int low, int high, float* row_max, float* row_sum) {
  const F minus_infinity = Simd::set1(-__builtin_inff());
  F best = minus_infinity;
  F s[kTileVectors];
  for (int v = 0; v < kTileVectors; v++) {
    s[v] = Simd::mul(Simd::load(scores + v * W), Simd::set1(args.scale));
    if (args.softcap > 0) s[v] = soft_cap(s[v], args.softcap);
    const F position = Simd::add(Simd::iota(), Simd::set1(static_cast<float>(v * W)));
    s[v] = Simd::select(Simd::less(position, Simd::set1(static_cast<float>(low))), minus_infinity, s[v]);
    s[v] = Simd::select(Simd::less(position, Simd::set1(static_cast<float>(high))), s[v], minus_infinity);
    best = Simd::max(s[v], best);
  }
  const float tile_max = reduce_max(best);
  const float new_max = tile_max > *row_max ? tile_max : *row_max;
  F total = Simd::zero();
  for (int v = 0; v < kTileVectors; v++) {
    const F p = exp(Simd::sub(s[v], Simd::set1(new_max)));
    Simd::store(scores + v * W, p);
    total = v == 0 ? p : Simd::add(total, p);
  }
  float factor[W];
  Simd::store(factor, exp(Simd::set1(*row_max - new_max)));
  *row_sum = *row_sum * factor[0] + reduce_add(total);
  *row_max = new_max;
  return factor[0];
}

// out = out * factor + sum over j in [low, high) of weight[j] * value[j], j ascending, for one row.
inline void accumulate_tile(const float* weights, const float* values, int low, int high, int64_t padded, float factor, float* out) {
  constexpr int N = 8;
  int64_t d = 0;
  const F f = Simd::set1(factor);
  for (; d + N * W <= padded; d += N * W) {
    F acc[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) acc[i] = Simd::mul(Simd::load(out + d + i * W), f);
    for (int j = low; j < high; j++) {
      const F w = Simd::set1(weights[j]);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) acc[i] = Simd::fma(w, Simd::load(values + j * padded + d + i * W), acc[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) Simd::store(out + d + i * W, acc[i]);
  }
  for (; d < padded; d += W) {
    F acc = Simd::mul(Simd::load(out + d), f);
    for (int j = low; j < high; j++) acc = Simd::fma(Simd::set1(weights[j]), Simd::load(values + j * padded + d), acc);
    Simd::store(out + d, acc);
  }
}

// Positions [first, last] that the query at `position` sees.
inline int64_t first_visible(const AttentionArgs& args, int64_t position) {
  return args.window > 0 && position - args.window + 1 > 0 ? position - args.window + 1 : 0;
}

// ROWS consecutive rows against one tile. Rows that see none of it are left as they are.
template <int ROWS>
inline void attend_rows(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, AttentionScratch& s, int64_t row, int64_t tile) {
  float scores[ROWS * kTile];
  score_tile<ROWS>(s.query + row * shape.padded, shape.padded, s.key_tile, args.kv.head_dim, scores);
  for (int r = 0; r < ROWS; r++) {
    const int64_t position = args.positions[item.token_begin + (row + r) / shape.group];
    const int64_t low = max_i64(first_visible(args, position) - tile, 0);
    const int64_t high = min_i64(position + 1 - tile, kTile);
    if (low >= high) continue;
    float* weights = scores + r * kTile;
    const float factor = weigh_tile(args, weights, static_cast<int>(low), static_cast<int>(high), s.max + row + r, s.sum + row + r);
    accumulate_tile(weights, s.value_tile, static_cast<int>(low), static_cast<int>(high), shape.padded, factor, s.out + (row + r) * shape.padded);
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
  // Columns beyond head_dim are computed and thrown away; they must hold numbers.
  for (int64_t i = 0; i < kTile * shape.padded; i++) s.value_tile[i] = 0;
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
    if (args.kv.unit == kTile) load_tile<T>(args.kv, table, item.kv_head, tile, shape.padded, s);
    else gather_tile<T>(args.kv, table, item.kv_head, tile, count, shape.padded, s);
    int64_t row = 0;
    for (; row + 4 <= shape.rows; row += 4) attend_rows<4>(args, item, shape, s, row, tile);
    for (; row < shape.rows; row++) attend_rows<1>(args, item, shape, s, row, tile);
  }
  attention_end(args, item, shape, s);
}

inline void paged_attention(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  if (args.kv.type == KvType::bf16) attend<uint16_t>(args, item, scratch);
  else attend<float>(args, item, scratch);
}

}  // namespace mill::MILL_ISA
