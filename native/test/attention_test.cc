// Promise P1 for paged_attention: a query has the same bits however the tokens are cut into items.
#include <cmath>
#include <cstring>
#include <numeric>

#include "test.h"

namespace mill::test {
namespace {

struct Cache {
  KvLayer layer;
  std::vector<uint8_t> keys, values;
  std::vector<int32_t> table;
};

// One sequence of `length` tokens in shuffled blocks; keys and values of the token `spoilt` are not finite.
Cache make_cache(const KernelTable& kernels, KvType type, int64_t length, int64_t block_size, int64_t kv_heads, int64_t head_dim, int64_t spoilt) {
  Random random(9);
  Cache cache;
  const int64_t blocks = (length + block_size - 1) / block_size;
  cache.table.resize(static_cast<size_t>(blocks));
  std::iota(cache.table.begin(), cache.table.end(), 0);
  for (int64_t i = blocks - 1; i > 0; i--) std::swap(cache.table[static_cast<size_t>(i)], cache.table[static_cast<size_t>(random.below(i + 1))]);
  cache.layer = kv_layer(type, block_size, blocks, kv_heads, head_dim, nullptr, nullptr);
  cache.keys.resize(static_cast<size_t>(cache.layer.key_bytes() + 256));
  cache.values.resize(static_cast<size_t>(cache.layer.value_bytes() + 256));
  cache.layer.keys = cache.keys.data();
  cache.layer.values = cache.values.data();
  Random content(3);
  std::vector<float> k = content.floats(length * kv_heads * head_dim), v = content.floats(length * kv_heads * head_dim);
  for (int64_t i = 0; spoilt >= 0 && i < kv_heads * head_dim; i++) {
    k[static_cast<size_t>(spoilt * kv_heads * head_dim + i)] = i % 2 ? INFINITY : NAN;
    v[static_cast<size_t>(spoilt * kv_heads * head_dim + i)] = i % 2 ? NAN : -INFINITY;
  }
  std::vector<int32_t> slots;
  for (int64_t p = 0; p < length; p++) slots.push_back(cache.table[static_cast<size_t>(p / block_size)] * static_cast<int32_t>(block_size) + static_cast<int32_t>(p % block_size));
  kernels.kv_write({k.data(), v.data(), slots.data(), cache.layer}, 0, length);
  return cache;
}

struct Setting {
  KvType type;
  int64_t block_size, window, tokens_per_item;
  float softcap;
  bool biased = false;  // with sinks and slopes
  int64_t splits_per_piece = 0;  // 0 = an item has all splits
  int64_t spoilt = -1;           // token whose keys and values are not finite
};

constexpr int64_t kQueries = 29, kHeads = 6, kKvHeads = 2, kHeadDim = 40;

// One item by pieces of its splits, the last one first, as other threads might end.
void attend_in_pieces(const KernelTable& kernels, const AttentionArgs& args, AttentionItem whole, int64_t splits_per_piece, void* scratch) {
  const int64_t split_floats = (whole.token_end - whole.token_begin) * (kHeads / kKvHeads) * attention_row_floats(kHeadDim);
  std::vector<float> partials(static_cast<size_t>(whole.split_end * split_floats));
  whole.partials = partials.data();
  for (int64_t begin = (whole.split_end - 1) / splits_per_piece * splits_per_piece; begin >= 0; begin -= splits_per_piece) {
    AttentionItem piece = whole;
    piece.split_begin = static_cast<int32_t>(begin);
    piece.split_end = static_cast<int32_t>(std::min<int64_t>(whole.split_end, begin + splits_per_piece));
    piece.partials += begin * split_floats;
    kernels.paged_attention(args, piece, scratch);
  }
  kernels.attention_merge(args, whole, scratch);
}

std::vector<float> attend(const KernelTable& kernels, const Setting& setting, int64_t length) {
  Cache cache = make_cache(kernels, setting.type, length, setting.block_size, kKvHeads, kHeadDim, setting.spoilt);
  Random random(4);
  const std::vector<float> q = random.floats(kQueries * kHeads * kHeadDim), sinks = random.floats(kHeads), slopes = random.floats(kHeads);
  std::vector<float> y(q.size());
  std::vector<int32_t> positions(kQueries);
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(length - kQueries));
  const AttentionArgs args{q.data(), y.data(), cache.layer, kHeads, 0.158f, setting.softcap, setting.window, setting.biased ? sinks.data() : nullptr,
                           setting.biased ? slopes.data() : nullptr, positions.data(), cache.table.data(), static_cast<int64_t>(cache.table.size())};
  std::vector<char> scratch(static_cast<size_t>(attention_scratch_bytes(kHeadDim)));
  for (int64_t t = 0; t < kQueries; t += setting.tokens_per_item) {
    const int32_t end = static_cast<int32_t>(std::min(kQueries, t + setting.tokens_per_item));
    const int32_t splits = static_cast<int32_t>(positions[static_cast<size_t>(end) - 1] / kSplit + 1);
    for (int32_t head = 0; head < kKvHeads; head++) {
      const AttentionItem item{0, static_cast<int32_t>(t), end, head, 0, splits, nullptr};
      if (setting.splits_per_piece > 0) attend_in_pieces(kernels, args, item, setting.splits_per_piece, scratch.data());
      else kernels.paged_attention(args, item, scratch.data());
    }
  }
  return y;
}

void check_same(const KernelTable& kernels, const std::vector<float>& expected, const Setting& setting, int64_t length) {
  const std::vector<float> y = attend(kernels, setting, length);
  const std::string what = std::string(kernels.name) + ": KV type " + std::to_string(static_cast<int>(setting.type)) + ", block size " + std::to_string(setting.block_size);
  check(std::memcmp(y.data(), expected.data(), y.size() * 4) == 0, what + " differs");
}

// Emulated AMX has tiles for bf16; for the other types it is avx512_emulated again.
std::vector<KvType> types_of(const KernelTable& kernels) {
  if (std::string(kernels.name) == "amx_emulated") return {KvType::bf16};
  return {KvType::f32, KvType::bf16, KvType::e4m3, KvType::e5m2, KvType::i8};
}

TEST("paged_attention: a query has the same bits for any chunking and block size") {
  for (const KernelTable* kernels : attention_levels()) {
    for (const KvType type : types_of(*kernels)) {
      for (const int64_t window : {0, 1, 17}) {
        for (const float softcap : {0.0f, 3.0f}) {
          const bool biased = softcap > 0;
          const std::vector<float> expected = attend(*kernels, {type, 16, window, 1, softcap, biased}, 83);
          for (const Setting& setting : {Setting{type, 16, window, 7, softcap, biased}, {type, 32, window, 20, softcap, biased}, {type, 8, window, 3, softcap, biased},
                                         {type, 24, window, 5, softcap, biased}, {type, 1, window, 21, softcap, biased}}) {
            check_same(*kernels, expected, setting, 83);
          }
        }
      }
    }
  }
}

TEST("paged_attention: a query has the same bits however its splits are shared out") {
  for (const KernelTable* kernels : attention_levels()) {
    for (const KvType type : types_of(*kernels)) {
      for (const int64_t window : {0, 700}) {
        // Some of the queries see one split less than the others.
        const int64_t length = 3 * kSplit + 11;
        const std::vector<float> expected = attend(*kernels, {type, 16, window, 1, 0, true}, length);
        for (const int64_t splits_per_piece : {0, 1, 2, 3}) check_same(*kernels, expected, {type, 32, window, 20, 0, true, splits_per_piece}, length);
      }
    }
  }
}

TEST("paged_attention: a token that is not finite spoils those that see it and no other") {
  constexpr int64_t kLength = 83, kSpoilt = 70, kWindow = 5;
  for (const KernelTable* kernels : attention_levels()) {
    for (const KvType type : types_of(*kernels)) {
      const std::vector<float> expected = attend(*kernels, {type, 16, kWindow, 1, 0}, kLength);
      const std::vector<float> together = attend(*kernels, {type, 16, kWindow, 20, 0, false, 0, kSpoilt}, kLength);
      for (int64_t t = 0; t < kQueries; t++) {
        const int64_t position = kLength - kQueries + t;
        if (position >= kSpoilt && position < kSpoilt + kWindow) continue;
        const size_t at = static_cast<size_t>(t * kHeads * kHeadDim);
        check(std::memcmp(together.data() + at, expected.data() + at, kHeads * kHeadDim * 4) == 0, std::string(kernels->name) + ": the query at " + std::to_string(position) + " differs");
      }
    }
  }
}

}  // namespace
}  // namespace mill::test
