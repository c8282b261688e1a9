// From checkpoint tensors to what the kernels read.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../kernels/kernel_table.h"
#include "region.h"
#include "thread_team.h"

namespace mill {

// Some rows of a weight, as they lie in a file or an array: `type` is never i8.
struct WeightPart {
  std::string name;
  const uint8_t* data;
  WeightType type;
  int64_t rows;
};

// Part of the key of packed weights on disk: to be raised with every change to the bytes that packing gives.
constexpr int kPackVersion = 3;

struct LinearWeight {
  PackedLinear packed;
  const uint8_t* bytes = nullptr;  // packed_bytes(); in `memory`, or mapped
  Region memory;
};

// Bytes of a packed [n, k] weight; its layout depends on nothing else, not on the machine either.
size_t packed_bytes(int64_t n, int64_t k, WeightType type);

// Rows of the concatenated parts that were packed and will not be read again.
using RowsDone = std::function<void(int64_t begin, int64_t end)>;

struct PackOptions {
  // Each member is bound to a node and reads its share of the panels: its pages are to lie there.
  bool by_node = false;
  RowsDone done;
};

// Concatenates the parts along rows and packs them. Throws Failure(weights_invalid) naming the tensor that holds NaN or
// infinity, also when a finite value overflows `type`.
LinearWeight pack_linear(ThreadTeam& team, const std::vector<WeightPart>& parts, int64_t k, WeightType type, const PackOptions& options = {});

// A weight packed earlier: `bytes` has packed_bytes() and is aligned to 64.
LinearWeight view_packed(const uint8_t* bytes, int64_t n, int64_t k, WeightType type);

// The same in memory of its own, with its pages where their readers are.
LinearWeight copy_packed(ThreadTeam& team, const LinearWeight& weight);

// The parts as fp32, one after the other; `width` elements a row.
void widen_parts(const std::vector<WeightPart>& parts, int64_t width, float* out);

// Throws Failure(weights_invalid) when rows [begin, end) of the part, `width` elements each, hold NaN or infinity.
void check_finite(const WeightPart& part, int64_t begin, int64_t end, int64_t width);

}  // namespace mill
