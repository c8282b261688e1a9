// The contract between the runtime and the kernels: plain arguments and one function table per ISA level. Kernels know
// nothing of threads, memory plans or JavaScript; each function computes the range of its output it is asked for.
#pragma once
#include <cstdint>

namespace mill {

// Output columns of one weight panel; also the positions of one KV tile.
constexpr int kPanel = 16;
constexpr int kTile = 16;

// Steps of k that share a scale when activations are quantised to int8.
constexpr int64_t kGroupI8 = 128;
// Steps of k that are rotated together in linears with quantised weights, see rotation.h.
constexpr int64_t kRotation = 64;

// i4_g32: 4 bits a weight, an 8-bit scale and minimum for each 32 steps of k.
enum class WeightType : int32_t { f32 = 0, bf16 = 1, f16 = 2, i8 = 3, i4_g32 = 4, i4_g64 = 5, i4_g128 = 6 };
// e4m3, e5m2: fp8 with scale 1. i8: int8 with a bf16 scale for each token and head.
enum class KvType : int32_t { f32 = 0, bf16 = 1, e4m3 = 2, e5m2 = 3, i8 = 4 };

// K is padded with zeros to what every ISA's widest step needs, so that one packed layout serves all of them.
#define MILL_INLINE [[gnu::always_inline]] inline  // no out-of-line copy that two ISA files could share

// Steps of k that share a scale; 0 for other types.
MILL_INLINE constexpr int64_t int4_group(WeightType type) {
  return type == WeightType::i4_g32 ? 32 : type == WeightType::i4_g64 ? 64 : type == WeightType::i4_g128 ? 128 : 0;
}

MILL_INLINE constexpr int64_t padded_k(WeightType type, int64_t k) {
  const int64_t step = type == WeightType::i4_g128 ? 128 : type == WeightType::i8 || int4_group(type) ? 64 : type == WeightType::bf16 ? 32 : 2;
  return (k + step - 1) / step * step;
}

// Of types that are not packed in groups.
MILL_INLINE constexpr int64_t element_bytes(WeightType type) {
  return type == WeightType::f32 ? 4 : type == WeightType::i8 ? 1 : 2;
}

// Steps of k that lie together in a panel of 4-bit weights behind the scales and minimums of their groups, and their bytes.
MILL_INLINE constexpr int64_t int4_span(int64_t group) { return group > 64 ? group : 64; }
MILL_INLINE constexpr int64_t int4_header_bytes(int64_t group) { return int4_span(group) / group * 2 * kPanel; }
MILL_INLINE constexpr int64_t int4_span_bytes(int64_t group) { return int4_header_bytes(group) + int4_span(group) / 2 * kPanel; }
// The step of a minimum, in the units of the column, see src/quant/int4_group.ts.
constexpr int kMinimumStepI4 = 16;

MILL_INLINE constexpr int64_t panel_bytes(WeightType type, int64_t k_padded) {
  const int64_t group = int4_group(type);
  return group ? k_padded / int4_span(group) * int4_span_bytes(group) : k_padded * kPanel * element_bytes(type);
}

// A weight [n, k] in panels of 16 output columns, zero-padded columns in the last one:
//   f32, f16: [panel][k][16]     bf16: [panel][k/2][16][2]     i8: [panel][k/4][16][4] and one scale a column
//   i4: [panel][span]: scales, minimums, [k/8][16][4] bytes of two, see linear_int4.h; and one unit a column
struct PackedLinear {
  WeightType type;
  int64_t n;
  int64_t k;
  int64_t k_padded;
  const void* data;
  const float* scales;  // i8, i4: [n rounded up to 16]
  MILL_INLINE int64_t panels() const { return (n + kPanel - 1) / kPanel; }
};

struct LinearArgs {
  const float* x;  // [m, k]
  int64_t m;
  PackedLinear weight;
  const float* bias;  // [n] or null
  float* y;           // [m, n]
  void* prepared;     // written by linear_prepare, read by linear; prepared_bytes() large
  void* scratch;      // the thread's own; linear_scratch_bytes() large
};

// Largest prepared input of any level: rows of padded fp32, or int8 and what is kept for each group of k.
MILL_INLINE constexpr int64_t prepared_bytes(int64_t m, int64_t k) { return (m + 32) * ((k + 128) * 4 + 4) + 256; }

// Working memory of `linear` on AMX, more than any other level wants.
MILL_INLINE constexpr int64_t linear_scratch_bytes() { return (256 + 64) << 10; }

struct RmsNormArgs {
  const float* x;
  const float* weight;
  float* y;
  int64_t group;
  float eps;
};

struct RopeArgs {
  const float* x;
  const int32_t* positions;
  const float* table;  // [P, rotary_dim]
  float* y;
  int64_t width;
  int64_t head_dim;
  int64_t rotary_dim;
  bool interleaved;
};

// One layer's cache: for each KV head block after block, so that a sequence whose blocks follow one another is one stream.
// A head's part of a block is units of `unit` positions: 16 when block_size is a multiple of it, else block_size. A unit of
// keys is [head_dim][unit], one of values [unit][value_stride]; the i8 type's [unit] scales follow in the unit.
struct KvLayer {
  KvType type;
  int64_t block_size;
  int64_t blocks;
  int64_t unit;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t value_stride;
  uint8_t* keys;
  uint8_t* values;
  int64_t units;            // of one head in one block
  int64_t key_scales_at;    // bytes from the begin of a unit to its scales; even
  int64_t value_scales_at;
  int64_t key_unit_bytes;
  int64_t value_unit_bytes;

  MILL_INLINE int64_t unit_index(int64_t block, int64_t head, int64_t unit) const { return (head * blocks + block) * units + unit; }
  MILL_INLINE uint8_t* key_unit(int64_t block, int64_t head, int64_t unit) const { return keys + unit_index(block, head, unit) * key_unit_bytes; }
  MILL_INLINE uint8_t* value_unit(int64_t block, int64_t head, int64_t unit) const { return values + unit_index(block, head, unit) * value_unit_bytes; }
  MILL_INLINE int64_t key_bytes() const { return unit_index(0, kv_heads, 0) * key_unit_bytes; }
  MILL_INLINE int64_t value_bytes() const { return unit_index(0, kv_heads, 0) * value_unit_bytes; }
};

MILL_INLINE constexpr KvLayer kv_layer(KvType type, int64_t block_size, int64_t blocks, int64_t kv_heads, int64_t head_dim, uint8_t* keys, uint8_t* values) {
  const int64_t unit = block_size % kTile == 0 ? kTile : block_size, stride = (head_dim + 7) / 8 * 8;
  const int64_t bytes = type == KvType::f32 ? 4 : type == KvType::bf16 ? 2 : 1, scales = type == KvType::i8 ? unit * 2 : 0;
  const int64_t key_scales_at = (head_dim * unit * bytes + 1) / 2 * 2, value_scales_at = stride * unit * bytes;
  return {type, block_size, blocks, unit, kv_heads, head_dim, stride, keys, values, block_size / unit, key_scales_at, value_scales_at, key_scales_at + scales, value_scales_at + scales};
}

struct KvWriteArgs {
  const float* k;  // [T, kv_heads * head_dim]
  const float* v;
  const int32_t* slots;
  KvLayer kv;
};

struct AttentionArgs {
  const float* q;  // [T, heads * head_dim]
  float* y;
  KvLayer kv;
  int64_t heads;
  float scale;
  float softcap;
  int64_t window;
  const float* sinks;           // [heads] or null
  const float* slopes;          // [heads] or null
  const int32_t* positions;     // [T]
  const int32_t* block_tables;  // [S, max_blocks_per_seq]
  int64_t max_blocks_per_seq;
};

// Positions whose scores are known before the first of their values is read.
constexpr int64_t kStripe = 4 * kTile;
// Positions whose sums are taken together before they are merged with those of the splits before.
constexpr int64_t kSplit = 8 * kStripe;

// Some consecutive query tokens of one sequence, for one KV head, against the keys of splits [split_begin, split_end).
struct AttentionItem {
  int32_t sequence;
  int32_t token_begin;
  int32_t token_end;
  int32_t kv_head;
  int32_t split_begin;
  int32_t split_end;
  float* partials;  // where each split's sums go, for attention_merge; null when the item has all splits and writes y
};

// Query rows (tokens times heads per KV head) that one item may have; bounds the thread's scratch.
constexpr int64_t kAttentionRows = 64;
// Floats from one dimension of their queries to the next: not a power of two, which would put all in few sets of a cache.
constexpr int64_t kQueryStride = kAttentionRows + 16;

struct SiluMulArgs {
  const float* gate;
  const float* up;
  float* y;
};

struct AddArgs {
  const float* a;
  const float* b;
  float* y;
};

struct EmbeddingArgs {
  const int32_t* token_ids;
  const void* table;  // [V, width] as in the file
  WeightType type;
  int64_t width;
  float* y;
};

struct GatherRowsArgs {
  const float* x;
  const int32_t* rows;
  int64_t width;
  float* y;
};

// Logits of a row that share one maximum, so that a search can skip them.
constexpr int64_t kMaximaBlock = 64;

struct DrawParams {
  double temperature;
  int64_t top_k;  // 0 = off
  double top_p;
  double min_p;
};

// One row's sums in a partial: the weighted values, padded to vectors, then the largest score and the sum of weights.
MILL_INLINE constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
MILL_INLINE constexpr int64_t attention_row_floats(int64_t head_dim) { return padded_head_dim(head_dim) + 16; }

// Bytes of scratch a thread needs for `paged_attention` and `attention_merge` by vectors, and in all with what AMX adds.
MILL_INLINE constexpr int64_t vector_scratch_bytes(int64_t head_dim) {
  const int64_t stripe = 2 * kStripe * (head_dim + 16) * 4;
  return kQueryStride * padded_head_dim(head_dim) * 4 + kAttentionRows * (2 * attention_row_floats(head_dim) + 2) * 4 + stripe + 256;
}
MILL_INLINE constexpr int64_t attention_scratch_bytes(int64_t head_dim) {
  const int64_t dims = (head_dim + 31) / 32 * 32;
  return vector_scratch_bytes(head_dim) + (kAttentionRows + 2 * kStripe) * dims * 2 + (2 * 4 + 2 * 2 + 4) * 1024 + 64;
}

struct KernelTable {
  const char* name;
  // That `linear` multiplies by at a time: a single row, and many.
  int64_t panels_one_row;
  int64_t panels_many_rows;
  void (*embedding)(const EmbeddingArgs&, int64_t begin, int64_t end);
  void (*rms_norm)(const RmsNormArgs&, int64_t begin, int64_t end);  // groups
  // Whether `linear` reads prepared input; then all of linear_prepare comes first.
  bool (*linear_needs_prepare)(const LinearArgs&);
  // First row that linear_prepare does for `member`; for `members` itself, the number of rows.
  int64_t (*linear_prepare_begin)(const LinearArgs&, int64_t member, int64_t members);
  // The input of a linear in the form its kernel wants; `member` of `members` does its share of the rows.
  void (*linear_prepare)(const LinearArgs&, int64_t member, int64_t members);
  // Columns of panels [begin, end) of all rows.
  void (*linear)(const LinearArgs&, int64_t begin, int64_t end);
  void (*rope)(const RopeArgs&, int64_t begin, int64_t end);
  void (*kv_write)(const KvWriteArgs&, int64_t begin, int64_t end);
  void (*paged_attention)(const AttentionArgs&, const AttentionItem&, void* scratch);
  // Adds up the partials of the item's splits, which lie one after the other, and writes y.
  void (*attention_merge)(const AttentionArgs&, const AttentionItem&, void* scratch);
  void (*add)(const AddArgs&, int64_t begin, int64_t end);            // elements
  void (*silu_mul)(const SiluMulArgs&, int64_t begin, int64_t end);   // elements
  void (*gather_rows)(const GatherRowsArgs&, int64_t begin, int64_t end);
  // Rows of logits.
  int64_t (*argmax)(const float* row, int64_t n);
  double (*log_sum_exp)(const float* row, int64_t n);
  int64_t (*rank)(const float* row, int64_t n, float value);
  // Largest entry of each block of kMaximaBlock into `maxima`; returns the largest of all, -infinity when there is none.
  float (*block_maxima)(const float* row, int64_t n, float* maxima);
  // Writes exp((row[i] - largest) * inverse_temperature) for entries > above, 0 for others and NaN; returns their sum.
  double (*softmax_weights)(const float* row, int64_t n, float largest, float inverse_temperature, float above, float* weights);
  // Arithmetic alone, for measuring peaks: returns operations done; `kind` 0 = fp32 FMA, 1 = bf16 dot, 2 = int8 dot.
  double (*peak)(int kind, int64_t iterations, float* sink);
};

}  // namespace mill
