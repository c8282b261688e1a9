// Fills the function table of one ISA level from the templates above. Included last by each isa_*.cc.
#pragma once
#include "add.h"
#include "embedding.h"
#include "gather_rows.h"
#include "kv_write.h"
#include "linear.h"
#include "linear_int4.h"
#include "linear_int8.h"
#ifdef MILL_VNNI
#include "linear_bf16.h"
#endif
#ifdef MILL_MMLA
#include "linear_mmla.h"
#endif
#ifdef MILL_AMX
#include "linear_amx.h"
#endif
#include "logit_rows.h"
#include "paged_attention.h"
#include "peak.h"
#include "rms_norm.h"
#include "rope.h"
#include "silu_mul.h"

namespace mill::MILL_ISA {

// How a linear is computed is a function of the level and the weight's type alone, so that every number of rows gives the
// same bits.
#if defined(MILL_AMX)
using PathBf16 = LinearTiles;
using PathI8 = LinearTiles;
using PathI4 = LinearTilesI4;
constexpr int64_t kPanelsManyRows = kGroupPanels;
#elif defined(MILL_MMLA)
using PathBf16 = LinearMmla;
using PathI8 = LinearMmla;
#elif defined(MILL_VNNI)
using PathBf16 = LinearDotBf16;
using PathI8 = LinearDotI8;
#else
using PathBf16 = LinearFma;
using PathI8 = LinearDotI8;
#endif
#if !defined(MILL_AMX)
using PathI4 = LinearDotI4;
constexpr int64_t kPanelsManyRows = 2;
#endif

template <class Act>
MILL_INLINE auto with_path(WeightType type, const Act& act) {
  if (type == WeightType::bf16) return act(PathBf16{});
  if (type == WeightType::i8) return act(PathI8{});
  return int4_group(type) ? act(PathI4{}) : act(LinearFma{});
}

inline bool linear_needs_prepare(const LinearArgs& args) {
  return with_path(args.weight.type, [&](auto path) { return path.needs_prepare(args); });
}

inline int64_t linear_prepare_begin(const LinearArgs& args, int64_t member, int64_t members) {
  return with_path(args.weight.type, [&](auto path) { return path.prepare_begin(args, member, members); });
}

inline void linear_prepare(const LinearArgs& args, int64_t member, int64_t members) {
  with_path(args.weight.type, [&](auto path) { path.prepare(args, member, members); });
}

inline void linear(const LinearArgs& args, int64_t begin, int64_t end) {
  with_path(args.weight.type, [&](auto path) { path.run(args, begin, end); });
}

inline double peak(int kind, int64_t iterations, float* sink) {
  if (kind == 2) return peak_int8(iterations, sink);
  return kind == 1 ? peak_bf16(iterations, sink) : peak_fma(iterations, sink);
}

constexpr KernelTable base_table(const char* name) {
  return {name, Simd::kPanelsOneRow, kPanelsManyRows, embedding, rms_norm, linear_needs_prepare, linear_prepare_begin, linear_prepare, linear, rope, kv_write, paged_attention, attention_merge, add, silu_mul, gather_rows, argmax, log_sum_exp, rank, block_maxima, softmax_weights, peak};
}

}  // namespace mill::MILL_ISA
