// linear: y = x weight^T + bias with fp32, bf16 or fp16 weights, by fused multiply-add in fp32.
//
// Each output element is one chain acc = fma(x[k], w[k], acc) over ascending k, in one lane of one register, plus the bias
// at the end. Blocking over rows, columns and k only decides when a link of the chain is computed: between blocks of k the
// accumulator waits in y, which is exact. So an element does not depend on the number of rows, threads or the tiling.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

constexpr int kVectors = kPanel / W;
// Steps of k whose widened weights stay in the L1 cache while all rows pass by.
constexpr int64_t kDepth = 256;

struct RowBlock {
  int64_t begin;
  int64_t rows;
};

inline int64_t row_blocks(int64_t m, int64_t most) { return (m + most - 1) / most; }

// Blocks of nearly equal height: a last block of one row would run at a fraction of the speed.
inline RowBlock row_block(int64_t m, int64_t most, int64_t index) {
  const int64_t blocks = row_blocks(m, most);
  const int64_t begin = index * m / blocks;
  return {begin, (index + 1) * m / blocks - begin};
}

// Where the micro-kernel reads weights of two consecutive k: panels in their packed type, or widened into scratch.
struct WeightsBf16 {
  const uint16_t* data;
  int64_t panel_stride;
  F even(int64_t pair, int panel, int v) const { return Simd::load_bf16_even(at(pair, panel, v)); }
  F odd(int64_t pair, int panel, int v) const { return Simd::load_bf16_odd(at(pair, panel, v)); }
  const uint16_t* at(int64_t pair, int panel, int v) const { return data + panel * panel_stride + pair * 2 * kPanel + 2 * v * W; }
};

struct WeightsF16 {
  const uint16_t* data;
  int64_t panel_stride;
  F even(int64_t pair, int panel, int v) const { return Simd::load_f16(at(pair, panel, v)); }
  F odd(int64_t pair, int panel, int v) const { return Simd::load_f16(at(pair, panel, v) + kPanel); }
  const uint16_t* at(int64_t pair, int panel, int v) const { return data + panel * panel_stride + pair * 2 * kPanel + v * W; }
};

struct WeightsF32 {
  const float* data;
  int64_t panel_stride;
  F even(int64_t pair, int panel, int v) const { return Simd::load(at(pair, panel, v)); }
  F odd(int64_t pair, int panel, int v) const { return Simd::load(at(pair, panel, v) + kPanel); }
  const float* at(int64_t pair, int panel, int v) const { return data + panel * panel_stride + pair * 2 * kPanel + v * W; }
};

// A rectangle of y: `columns` may be fewer than the panels hold.
struct Target {
  float* y;
  int64_t stride;
  int64_t columns;
  const float* bias;
  bool first;  // start from zero instead of from y
  bool last;   // add the bias
};

inline F load_columns(const float* p, int64_t columns) {
  if (columns >= W) return Simd::load(p);
  return columns <= 0 ? Simd::zero() : load_partial(p, columns);
}

inline void store_columns(float* p, F x, int64_t columns) {
  if (columns >= W) Simd::store(p, x);
  else if (columns > 0) store_partial(p, x, columns);
}

// ROWS x (PANELS * 16) elements over `pairs` pairs of k; `x` is [k][ROWS].
template <int ROWS, int PANELS, class Weights>
inline void linear_block(const float* x, Weights weights, int64_t pairs, const Target& target) {
  constexpr int N = PANELS * kVectors;
  F acc[ROWS][N];
  for (int r = 0; r < ROWS; r++) {
    for (int j = 0; j < N; j++) {
      acc[r][j] = target.first ? Simd::zero() : load_columns(target.y + r * target.stride + j * W, target.columns - j * W);
    }
  }
  for (int64_t pair = 0; pair < pairs; pair++) {
    const float* at = x + pair * 2 * ROWS;
    F w[N];
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) w[j] = weights.even(pair, j / kVectors, j % kVectors);
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; r++) {
      const F broadcast = Simd::set1(at[r]);
#pragma GCC unroll 16
      for (int j = 0; j < N; j++) acc[r][j] = Simd::fma(broadcast, w[j], acc[r][j]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) w[j] = weights.odd(pair, j / kVectors, j % kVectors);
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; r++) {
      const F broadcast = Simd::set1(at[ROWS + r]);
#pragma GCC unroll 16
      for (int j = 0; j < N; j++) acc[r][j] = Simd::fma(broadcast, w[j], acc[r][j]);
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int j = 0; j < N; j++) {
      const int64_t columns = target.columns - j * W;
      F y = acc[r][j];
      if (target.last && target.bias) y = Simd::add(y, load_columns(target.bias + j * W, columns));
      store_columns(target.y + r * target.stride + j * W, y, columns);
    }
  }
}

// Chooses the instance for a block height known only at run time.
template <int ROWS, int PANELS, class Weights>
inline void linear_rows(int64_t rows, const float* x, Weights weights, int64_t pairs, const Target& target) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return linear_rows<ROWS - 1, PANELS>(rows, x, weights, pairs, target);
  }
  linear_block<ROWS, PANELS>(x, weights, pairs, target);
}

// The number of panels side by side that suits a height: few rows need more columns to hide the latency.
constexpr int panels_for(int rows) {
  const int most = Simd::kRows * Simd::kPanels / rows;
  return rows == 1 ? Simd::kPanelsOneRow : most < 1 ? 1 : most > Simd::kPanelsOneRow ? Simd::kPanelsOneRow : most;
}

inline const float* linear_input(const LinearArgs& args) {
  const bool as_it_is = args.m == 1 && args.weight.k == args.weight.k_padded;
  return as_it_is ? args.x : static_cast<const float*>(args.prepared);
}

inline Target linear_target(const LinearArgs& args, int64_t row, int64_t panel, bool first, bool last) {
  const int64_t column = panel * kPanel;
  return {args.y + row * args.weight.n + column, args.weight.n, args.weight.n - column, args.bias ? args.bias + column : nullptr, first, last};
}

// One block of rows: weights are read once, so they are widened on the fly.
template <int ROWS, class Weights, class Element>
inline void linear_once(const LinearArgs& args, int64_t begin, int64_t end) {
  constexpr int panels = panels_for(ROWS);
  const int64_t stride = args.weight.k_padded * kPanel;
  const Element* data = static_cast<const Element*>(args.weight.data);
  const float* x = linear_input(args);
  int64_t panel = begin;
  for (; panel + panels <= end; panel += panels) {
    linear_block<ROWS, panels>(x, Weights{data + panel * stride, stride}, args.weight.k_padded / 2, linear_target(args, 0, panel, true, true));
  }
  for (; panel < end; panel++) {
    linear_block<ROWS, 1>(x, Weights{data + panel * stride, stride}, args.weight.k_padded / 2, linear_target(args, 0, panel, true, true));
  }
}

template <int ROWS, class Weights, class Element>
inline void linear_few_rows(const LinearArgs& args, int64_t begin, int64_t end) {
  if constexpr (ROWS > 1) {
    if (args.m < ROWS) return linear_few_rows<ROWS - 1, Weights, Element>(args, begin, end);
  }
  linear_once<ROWS, Weights, Element>(args, begin, end);
}

// `depth` steps of `panels` panels as fp32 [panel][k][16].
template <class Weights, class Element>
inline void widen(const Element* data, int64_t panel_stride, int64_t panels, int64_t depth, float* out) {
  for (int64_t panel = 0; panel < panels; panel++) {
    const Weights weights{data + panel * panel_stride, panel_stride};
    float* at = out + panel * kDepth * kPanel;
    for (int64_t pair = 0; pair < depth / 2; pair++, at += 2 * kPanel) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        Simd::store(at + v * W, weights.even(pair, 0, v));
        Simd::store(at + kPanel + v * W, weights.odd(pair, 0, v));
      }
    }
  }
}

// All row blocks over `depth` steps of k from `k`, for PANELS panels from `panel`.
template <int PANELS, class Weights>
inline void linear_all_rows(const LinearArgs& args, Weights weights, int64_t panel, int64_t k, int64_t depth) {
  const float* x = linear_input(args);
  const int64_t blocks = row_blocks(args.m, Simd::kRows);
  const bool last = k + depth == args.weight.k_padded;
  for (int64_t b = 0; b < blocks; b++) {
    const RowBlock block = row_block(args.m, Simd::kRows, b);
    const float* at = x + block.begin * args.weight.k_padded + k * block.rows;
    linear_rows<Simd::kRows, PANELS>(block.rows, at, weights, depth / 2, linear_target(args, block.begin, panel, k == 0, last));
  }
}

// Many rows: a slice of k of some panels is widened once and meets all rows.
template <class Weights, class Element>
inline void linear_many_rows(const LinearArgs& args, int64_t begin, int64_t end, float* scratch) {
  const PackedLinear& weight = args.weight;
  const int64_t stride = weight.k_padded * kPanel;
  const Element* data = static_cast<const Element*>(weight.data);
  for (int64_t k = 0; k < weight.k_padded; k += kDepth) {
    const int64_t depth = min_i64(kDepth, weight.k_padded - k);
    int64_t panel = begin;
    for (; panel + Simd::kPanels <= end; panel += Simd::kPanels) {
      widen<Weights>(data + panel * stride + k * kPanel, stride, Simd::kPanels, depth, scratch);
      linear_all_rows<Simd::kPanels>(args, WeightsF32{scratch, kDepth * kPanel}, panel, k, depth);
    }
    for (; panel < end; panel++) {
      widen<Weights>(data + panel * stride + k * kPanel, stride, 1, depth, scratch);
      linear_all_rows<1>(args, WeightsF32{scratch, kDepth * kPanel}, panel, k, depth);
    }
  }
}

template <class Weights, class Element>
inline void linear_any_rows(const LinearArgs& args, int64_t begin, int64_t end, float* scratch) {
  if (args.m <= Simd::kRows) linear_few_rows<Simd::kRows, Weights, Element>(args, begin, end);
  else linear_many_rows<Weights, Element>(args, begin, end, scratch);
}

struct LinearFma {
  static bool needs_prepare(const LinearArgs& args) { return linear_input(args) != args.x; }

  // x as [block][k][rows], zero-padded in k.
  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const PackedLinear& weight = args.weight;
    const int64_t blocks = row_blocks(args.m, Simd::kRows);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock block = row_block(args.m, Simd::kRows, b);
      float* to = static_cast<float*>(args.prepared) + block.begin * weight.k_padded;
      for (int64_t r = 0; r < block.rows; r++) {
        const float* from = args.x + (block.begin + r) * weight.k;
        for (int64_t k = 0; k < weight.k; k++) to[k * block.rows + r] = from[k];
        for (int64_t k = weight.k; k < weight.k_padded; k++) to[k * block.rows + r] = 0;
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end, void* scratch) {
    float* widened = static_cast<float*>(scratch);
    if (args.weight.type == WeightType::f32) linear_any_rows<WeightsF32, float>(args, begin, end, widened);
    else if (args.weight.type == WeightType::f16) linear_any_rows<WeightsF16, uint16_t>(args, begin, end, widened);
    else linear_any_rows<WeightsBf16, uint16_t>(args, begin, end, widened);
  }
};

}  // namespace mill::MILL_ISA
