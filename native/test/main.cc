#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "../runtime/cpuid.h"
#include "../runtime/failure.h"
#include "test.h"

namespace mill::test {

void check(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

void check_fails(const char* code, const std::function<void()>& work) {
  try {
    work();
  } catch (const Failure& failure) {
    return check(failure.code == code, "failed with " + failure.code + " instead of " + code + ": " + failure.what());
  }
  check(false, std::string("did not fail with ") + code);
}

std::vector<const KernelTable*> levels() {
  std::vector<const KernelTable*> tables;
  for (const IsaLevel& level : isa_levels()) {
    if (level.available) tables.push_back(level.table);
  }
  return tables;
}

std::vector<const KernelTable*> attention_levels() {
  // They have the vectors of avx512_emulated and neon, and linears of their own.
  const std::string_view like_others[] = {"avx512_bf16_emulated", "neon_dotprod"};
  std::vector<const KernelTable*> tables;
  for (const KernelTable* table : levels()) {
    if (std::find(std::begin(like_others), std::end(like_others), table->name) == std::end(like_others)) tables.push_back(table);
  }
  return tables;
}

float Random::next() {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return static_cast<float>(static_cast<int32_t>(state_ >> 32)) * 0x1p-31f;
}

int64_t Random::below(int64_t bound) { return static_cast<int64_t>((next() * 0.5 + 0.5) * static_cast<double>(bound)) % bound; }

std::vector<float> Random::floats(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = next();
  return values;
}

}  // namespace mill::test

// native_test CASES [SHARD SHARDS [WORD]]: every SHARDS-th test, from SHARD on; of those, what has the word in its name.
int main(int argc, char** argv) {
  using namespace mill::test;
  const size_t shard = argc > 3 ? std::strtoul(argv[2], nullptr, 10) : 0, shards = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1;
  int passed = 0, failed = 0;
  try {
    if (argc > 1) add_op_cases(argv[1]);
  } catch (const std::exception& error) {
    std::printf("FAILED to read %s: %s\n", argv[1], error.what());
    failed++;
  }
  if (shard == 0) {
    std::printf("levels:");
    for (const mill::KernelTable* table : levels()) std::printf(" %s", table->name);
    std::printf("\n");
  }
  for (size_t i = shard; i < tests().size(); i += shards) {
    const Test& test = tests()[i];
    if (argc > 4 && test.name.find(argv[4]) == std::string::npos) continue;
    try {
      test.run();
      passed++;
    } catch (const std::exception& error) {
      std::printf("FAILED %s: %s\n", test.name.c_str(), error.what());
      failed++;
    }
  }
  // Where a word chooses, somebody counts on it: a test that was renamed would pass for ever.
  if (argc > 4 && passed + failed == 0) {
    std::printf("FAILED to find a test with '%s' in its name\n", argv[4]);
    failed++;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
