// A test harness of one screen: named tests, checks that say where, and the last line that scripts read.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../runtime/model.h"

namespace mill::test {

struct Test {
  std::string name;
  std::function<void()> run;
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Register {
  Register(std::string name, std::function<void()> run) { tests().push_back({std::move(name), std::move(run)}); }
};

// Ends the test when `condition` is false.
void check(bool condition, const std::string& what);
// The work must throw a Failure of this code.
void check_fails(const char* code, const std::function<void()>& work);

// Adds the tests of a file written by scripts/write_op_cases.ts.
void add_op_cases(const std::string& path);

// Every level that can run here, the emulated ones included.
std::vector<const KernelTable*> levels();
// Those whose attention is not that of another: its long tests take minutes under an emulated processor.
std::vector<const KernelTable*> attention_levels();

// A small deterministic generator; values in (-1, 1).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 1) {}
  float next();
  int64_t below(int64_t bound);
  std::vector<float> floats(int64_t count);

 private:
  uint64_t state_;
};

#define MILL_JOIN_(a, b) a##b
#define MILL_JOIN(a, b) MILL_JOIN_(a, b)
#define TEST(name) \
  static void MILL_JOIN(test_, __LINE__)(); \
  static const ::mill::test::Register MILL_JOIN(register_, __LINE__)(name, MILL_JOIN(test_, __LINE__)); \
  static void MILL_JOIN(test_, __LINE__)()

}  // namespace mill::test
