// Promise P1 for linear: a row has the same bits alone and among others, whatever the share of the panels.
#include <cstring>

#include "../runtime/convert.h"
#include "../runtime/failure.h"
#include "../runtime/pack.h"
#include "test.h"

namespace mill::test {
namespace {

struct Shape {
  int64_t m, k, n;
};

std::vector<float> run_linear(const KernelTable& kernels, const PackedLinear& weight, const float* x, int64_t m, const float* bias, int64_t cut) {
  std::vector<float> y(static_cast<size_t>(m * weight.n));
  std::vector<char> prepared(static_cast<size_t>(prepared_bytes(m, weight.k)));
  void* aligned = prepared.data() + (64 - reinterpret_cast<uintptr_t>(prepared.data()) % 64) % 64;
  std::vector<char> scratch(static_cast<size_t>(linear_scratch_bytes()));
  const LinearArgs args{x, m, weight, bias, y.data(), aligned, scratch.data()};
  for (int64_t member = 0; member < 3; member++) kernels.linear_prepare(args, member, 3);
  kernels.linear(args, 0, cut);
  kernels.linear(args, cut, weight.panels());
  return y;
}

// Every `step`th row, alone and among others.
void check_some_rows(const KernelTable& kernels, WeightType type, const Shape& shape, int64_t step) {
  Random random(static_cast<uint64_t>(shape.k));
  ThreadTeam team(2);
  const std::vector<float> data = random.floats(shape.n * shape.k), x = random.floats(shape.m * shape.k), bias = random.floats(shape.n);
  const LinearWeight weight = pack_linear(team, {{"w", reinterpret_cast<const uint8_t*>(data.data()), WeightType::f32, shape.n}}, shape.k, type);
  const int64_t panels = weight.packed.panels();
  const std::vector<float> all = run_linear(kernels, weight.packed, x.data(), shape.m, bias.data(), panels / 2);
  for (int64_t row = 0; row < shape.m; row += step) {
    // Alone, and as the last of some rows, with the panels cut elsewhere.
    for (const int64_t others : {int64_t{0}, std::min<int64_t>(row, 6)}) {
      const std::vector<float> few = run_linear(kernels, weight.packed, x.data() + (row - others) * shape.k, others + 1, bias.data(), row % (panels + 1));
      const bool same = std::memcmp(few.data() + others * shape.n, all.data() + row * shape.n, static_cast<size_t>(shape.n) * 4) == 0;
      check(same, std::string(kernels.name) + ": row " + std::to_string(row) + " of " + std::to_string(shape.m) + " differs with " + std::to_string(others) + " others");
    }
  }
}

void check_rows(const KernelTable& kernels, WeightType type, const Shape& shape) { check_some_rows(kernels, type, shape, 1); }

TEST("linear: a row has the same bits whatever rows are with it") {
  const Shape shapes[] = {{37, 1, 5}, {37, 67, 33}, {13, 600, 130}, {70, 130, 17}};
  for (const KernelTable* kernels : levels()) {
    for (const WeightType type : {WeightType::f32, WeightType::bf16, WeightType::f16, WeightType::i8, WeightType::i4_g32}) {
      for (const Shape& shape : shapes) check_rows(*kernels, type, shape);
    }
    // More than a block of rows, a group of panels and a slice of k on AMX; emulated blocks are small.
    if (std::string(kernels->name) == "amx") {
      for (const WeightType type : {WeightType::bf16, WeightType::i8, WeightType::i4_g32}) check_some_rows(*kernels, type, {290, 2200, 275}, 37);
    }
    // Longer groups are the same kernel with more chunks.
    for (const WeightType type : {WeightType::i4_g64, WeightType::i4_g128}) check_rows(*kernels, type, shapes[2]);
  }
}

TEST("linear: rows of NaN and infinity change no other row") {
  ThreadTeam team(1);
  Random random(9);
  const int64_t m = 9, k = 130, n = 18;
  const std::vector<float> data = random.floats(n * k), x = random.floats(m * k);
  std::vector<float> odd_lost = x;
  for (int64_t i = 0; i < m * k; i++) {
    if (i / k % 2 == 1) odd_lost[static_cast<size_t>(i)] = i / k == 3 ? __builtin_inff() : __builtin_nanf("");
  }
  for (const WeightType type : {WeightType::f32, WeightType::bf16, WeightType::f16, WeightType::i8, WeightType::i4_g32}) {
    const LinearWeight weight = pack_linear(team, {{"w", reinterpret_cast<const uint8_t*>(data.data()), WeightType::f32, n}}, k, type);
    for (const KernelTable* kernels : levels()) {
      const std::vector<float> all = run_linear(*kernels, weight.packed, x.data(), m, nullptr, 1), rest = run_linear(*kernels, weight.packed, odd_lost.data(), m, nullptr, 1);
      for (int64_t row = 0; row < m; row += 2) {
        check(std::memcmp(all.data() + row * n, rest.data() + row * n, static_cast<size_t>(n) * 4) == 0, std::string(kernels->name) + ": row " + std::to_string(row) + " differs");
      }
    }
  }
}

TEST("linear int8 and int4: every level gives the same bits") {
  Random random(5);
  ThreadTeam team(1);
  const int64_t m = 19, k = 333, n = 50;
  const std::vector<float> data = random.floats(n * k), x = random.floats(m * k);
  for (const WeightType type : {WeightType::i8, WeightType::i4_g32, WeightType::i4_g64, WeightType::i4_g128}) {
    const LinearWeight weight = pack_linear(team, {{"w", reinterpret_cast<const uint8_t*>(data.data()), WeightType::f32, n}}, k, type);
    const std::vector<float> first = run_linear(*levels().front(), weight.packed, x.data(), m, nullptr, 1);
    for (const KernelTable* kernels : levels()) {
      const std::vector<float> y = run_linear(*kernels, weight.packed, x.data(), m, nullptr, 2);
      check(std::memcmp(y.data(), first.data(), y.size() * 4) == 0, std::string(kernels->name) + " differs");
    }
  }
}

TEST("packing refuses NaN and infinity and names the tensor") {
  ThreadTeam team(2);
  for (const WeightType type : {WeightType::f32, WeightType::bf16, WeightType::f16, WeightType::i8, WeightType::i4_g32, WeightType::i4_g64, WeightType::i4_g128}) {
    for (const float bad : {__builtin_nanf(""), __builtin_inff()}) {
      std::vector<float> data(33 * 40, 0.5f);
      data[32 * 40 + 39] = bad;
      const std::vector<WeightPart> parts = {{"a", reinterpret_cast<const uint8_t*>(data.data()), WeightType::f32, 16},
                                             {"b", reinterpret_cast<const uint8_t*>(data.data() + 16 * 40), WeightType::f32, 17}};
      try {
        pack_linear(team, parts, 40, type);
        check(false, "packed");
      } catch (const Failure& failure) {
        check(failure.code == "weights_invalid" && std::strstr(failure.what(), "Tensor b ") && std::strstr(failure.what(), "679"), failure.what());
      }
    }
  }
}

TEST("packing bf16 as it is and through fp32 gives the same bytes, and finds NaN alike") {
  ThreadTeam team(2);
  Random random(8);
  const int64_t n = 50, k = 72;
  std::vector<uint16_t> narrow(static_cast<size_t>(n * k));
  std::vector<float> wide(narrow.size());
  for (size_t i = 0; i < narrow.size(); i++) {
    narrow[i] = float_to_bf16(random.next());
    wide[i] = bf16_to_float(narrow[i]);
  }
  const auto pack = [&](const void* data, WeightType type) { return pack_linear(team, {{"w", static_cast<const uint8_t*>(data), type, n}}, k, WeightType::bf16); };
  const LinearWeight moved = pack(narrow.data(), WeightType::bf16), rounded = pack(wide.data(), WeightType::f32);
  check(moved.memory.bytes() == rounded.memory.bytes(), "sizes differ");
  check(std::memcmp(moved.memory.data(), rounded.memory.data(), moved.memory.bytes()) == 0, "bytes differ");
  narrow[17] = 0x7f80;
  check_fails("weights_invalid", [&] { pack(narrow.data(), WeightType::bf16); });
}

TEST("packing refuses values that the weight type cannot hold") {
  ThreadTeam team(1);
  const std::vector<float> data(16, 1e30f);
  check_fails("weights_invalid", [&] { pack_linear(team, {{"w", reinterpret_cast<const uint8_t*>(data.data()), WeightType::f32, 4}}, 4, WeightType::f16); });
}

}  // namespace
}  // namespace mill::test
