// Fills the function table of one ISA level from the templates above. Included last by each isa_*.cc.
#pragma once
#include "add.h"
#include "embedding.h"
#include "gather_rows.h"
#include "kv_write.h"
#include "linear.h"
#include "linear_int8.h"
#include "logit_rows.h"
#include "paged_attention.h"
#include "peak.h"
#include "rms_norm.h"
#include "rope.h"
#include "silu_mul.h"

namespace mill::MILL_ISA {

inline bool linear_needs_prepare(const LinearArgs& args) {
  return args.weight.type == WeightType::i8 || linear_input(args) != args.x;
}

inline void linear_prepare(const LinearArgs& args, int64_t member, int64_t members) {
  if (args.weight.type == WeightType::i8) linear_prepare_i8(args, member, members);
  else linear_prepare_fma(args, member, members);
}

inline void linear(const LinearArgs& args, int64_t begin, int64_t end, void* scratch) {
  float* widened = static_cast<float*>(scratch);
  switch (args.weight.type) {
    case WeightType::f32: return linear_fma<WeightsF32, float>(args, begin, end, widened);
    case WeightType::bf16: return linear_fma<WeightsBf16, uint16_t>(args, begin, end, widened);
    case WeightType::f16: return linear_fma<WeightsF16, uint16_t>(args, begin, end, widened);
    case WeightType::i8: return linear_i8(args, begin, end);
  }
}

inline double peak(int kind, int64_t iterations, float* sink) {
  return kind == 2 ? peak_i8(iterations, sink) : peak_fma(iterations, sink);
}

constexpr KernelTable base_table(const char* name) {
  return {name, embedding, rms_norm, linear_needs_prepare, linear_prepare, linear, rope, kv_write, paged_attention, add, silu_mul, gather_rows, argmax, log_sum_exp, rank, softmax_weights, peak};
}

}  // namespace mill::MILL_ISA
