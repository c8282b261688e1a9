// From checkpoint tensors to what the kernels read.
#pragma once
#include <cstdint>
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

struct LinearWeight {
  PackedLinear packed;
  Region memory;
};

// Concatenates the parts along rows and packs them. Throws Failure(weights_invalid) naming the tensor that holds NaN or
// infinity, also when a finite value overflows `type`.
LinearWeight pack_linear(ThreadTeam& team, const std::vector<WeightPart>& parts, int64_t k, WeightType type);

// The parts as fp32, one after the other; `width` elements a row.
void widen_parts(const std::vector<WeightPart>& parts, int64_t width, float* out);

// Throws Failure(weights_invalid) when rows [begin, end) of the part, `width` elements each, hold NaN or infinity.
void check_finite(const WeightPart& part, int64_t begin, int64_t end, int64_t width);

}  // namespace mill
