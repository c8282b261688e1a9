// Promise P1 for paged_attention: a query has the same bits however the tokens are cut into items.
#include <cstring>
#include <numeric>

#include "test.h"

namespace mill::test {
namespace {

struct Cache {
  KvLayer layer;
  std::vector<float> keys, values;
  std::vector<int32_t> table;
};

// One sequence of `length` tokens in shuffled blocks.
Cache make_cache(const KernelTable& kernels, int64_t length, int64_t block_size, int64_t kv_heads, int64_t head_dim) {
  Random random(9);
  Cache cache;
  const int64_t blocks = (length + block_size - 1) / block_size;
  cache.table.resize(static_cast<size_t>(blocks));
  std::iota(cache.table.begin(), cache.table.end(), 0);
  for (int64_t i = blocks - 1; i > 0; i--) std::swap(cache.table[static_cast<size_t>(i)], cache.table[static_cast<size_t>(random.below(i + 1))]);
  const int64_t stride = (head_dim + 7) / 8 * 8;
  cache.keys.resize(static_cast<size_t>(blocks * kv_heads * block_size * head_dim + 64));
  cache.values.resize(static_cast<size_t>(blocks * kv_heads * block_size * stride + 64));
  cache.layer = {KvType::f32, block_size, block_size % kTile == 0 ? kTile : block_size, kv_heads, head_dim, stride, cache.keys.data(), cache.values.data()};
  Random content(3);
  const std::vector<float> k = content.floats(length * kv_heads * head_dim), v = content.floats(length * kv_heads * head_dim);
  std::vector<int32_t> slots;
  for (int64_t p = 0; p < length; p++) slots.push_back(cache.table[static_cast<size_t>(p / block_size)] * static_cast<int32_t>(block_size) + static_cast<int32_t>(p % block_size));
  kernels.kv_write({k.data(), v.data(), slots.data(), cache.layer}, 0, length);
  return cache;
}

struct Setting {
  int64_t block_size, window, tokens_per_item;
  float softcap;
};

std::vector<float> attend(const KernelTable& kernels, const Setting& setting) {
  constexpr int64_t kLength = 83, kQueries = 29, kHeads = 6, kKvHeads = 2, kHeadDim = 40;
  Cache cache = make_cache(kernels, kLength, setting.block_size, kKvHeads, kHeadDim);
  Random random(4);
  const std::vector<float> q = random.floats(kQueries * kHeads * kHeadDim);
  std::vector<float> y(q.size());
  std::vector<int32_t> positions(kQueries);
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(kLength - kQueries));
  const AttentionArgs args{q.data(), y.data(), cache.layer, kHeads, 0.158f, setting.softcap, setting.window, positions.data(), cache.table.data(), static_cast<int64_t>(cache.table.size())};
  std::vector<char> scratch(static_cast<size_t>(attention_scratch_bytes(kHeadDim)));
  for (int64_t t = 0; t < kQueries; t += setting.tokens_per_item) {
    const int32_t end = static_cast<int32_t>(std::min(kQueries, t + setting.tokens_per_item));
    for (int32_t head = 0; head < kKvHeads; head++) kernels.paged_attention(args, {0, static_cast<int32_t>(t), end, head}, scratch.data());
  }
  return y;
}

TEST("paged_attention: a query has the same bits for any chunking and block size") {
  for (const KernelTable* kernels : levels()) {
    for (const int64_t window : {0, 1, 17}) {
      for (const float softcap : {0.0f, 3.0f}) {
        const std::vector<float> expected = attend(*kernels, {16, window, 1, softcap});
        for (const Setting& setting : {Setting{16, window, 7, softcap}, {32, window, 20, softcap}, {8, window, 3, softcap}, {24, window, 5, softcap}, {1, window, 21, softcap}}) {
          const std::vector<float> y = attend(*kernels, setting);
          check(std::memcmp(y.data(), expected.data(), y.size() * 4) == 0, std::string(kernels->name) + ": block size " + std::to_string(setting.block_size) + " differs");
        }
      }
    }
  }
}

}  // namespace
}  // namespace mill::test
