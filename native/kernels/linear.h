// linear: y = x weight^T + bias with fp32, bf16 or fp16 weights, by fused multiply-add in fp32.
//
// Each output element is one chain acc = fma(x[k], w[k], acc) over ascending k, in one lane of one register, plus the bias
// at the end. Blocking over rows, columns and k only decides when a link of the chain is computed: between blocks of k the
// accumulator waits in y, which is exact. So an element does not depend on the number of rows, threads or the tiling.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

constexpr int kVectors = kPanel / W;
// Steps of k whose weights stay in the nearest caches while all rows pass by.
constexpr int64_t kDepth = 256;

// Pairs of k by which weights are asked for ahead of their use.
constexpr int64_t kAhead = 32;

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

// Where the micro-kernel reads weights of two consecutive k: from panels in their packed type, widened on the way.
template <class Element>
struct WeightsIn {
  const Element* data;
  int64_t panel_stride;
  const Element* at(int64_t pair, int panel) const { return data + panel * panel_stride + pair * 2 * kPanel; }
};

struct WeightsBf16 : WeightsIn<uint16_t> {
  static WeightsBf16 of(const void* data, int64_t stride) { return {{static_cast<const uint16_t*>(data), stride}}; }
  WeightsBf16 from(int64_t panel, int64_t k) const { return {{data + panel * panel_stride + k * kPanel, panel_stride}}; }
  F even(int64_t pair, int panel, int v) const { return Simd::load_bf16_even(at(pair, panel) + 2 * v * W); }
  F odd(int64_t pair, int panel, int v) const { return Simd::load_bf16_odd(at(pair, panel) + 2 * v * W); }
};

struct WeightsF16 : WeightsIn<uint16_t> {
  static WeightsF16 of(const void* data, int64_t stride) { return {{static_cast<const uint16_t*>(data), stride}}; }
  WeightsF16 from(int64_t panel, int64_t k) const { return {{data + panel * panel_stride + k * kPanel, panel_stride}}; }
  F even(int64_t pair, int panel, int v) const { return Simd::load_f16(at(pair, panel) + v * W); }
  F odd(int64_t pair, int panel, int v) const { return Simd::load_f16(at(pair, panel) + kPanel + v * W); }
};

struct WeightsF32 : WeightsIn<float> {
  static WeightsF32 of(const void* data, int64_t stride) { return {{static_cast<const float*>(data), stride}}; }
  WeightsF32 from(int64_t panel, int64_t k) const { return {{data + panel * panel_stride + k * kPanel, panel_stride}}; }
  F even(int64_t pair, int panel, int v) const { return Simd::load(at(pair, panel) + v * W); }
  F odd(int64_t pair, int panel, int v) const { return Simd::load(at(pair, panel) + kPanel + v * W); }
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

// acc[j] += x * w[j], fused.
template <int N>
MILL_INLINE void accumulate_row(F (&acc)[N], const float& x, const F (&w)[N]) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // The micro-kernel's 12 accumulators, 2 weights and a mask leave one register for the broadcast. GCC 12 takes two when it
  // may choose, and spills an accumulator in every step.
  if constexpr (N == 2 && sizeof(F) == 32) {
    F broadcast;
    __asm__("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"
            : "+x"(acc[0]), "+x"(acc[1]), "=&x"(broadcast)
            : "m"(x), "x"(w[0]), "x"(w[1]));
    return;
  }
#endif
  const F broadcast = Simd::set1(x);
#pragma GCC unroll 16
  for (int j = 0; j < N; j++) acc[j] = Simd::fma(broadcast, w[j], acc[j]);
}

// Out of line: inlined into its callers it loses registers to their pointers.
// ROWS x (PANELS * 16) elements over `pairs` pairs of k; `x` is [k][ROWS].
template <int ROWS, int PANELS, class Weights>
[[gnu::noinline]] static void linear_block(const float* x, Weights weights, int64_t pairs, const Target& target) {
  constexpr int N = PANELS * kVectors;
  F acc[ROWS][N];
#pragma GCC unroll 32
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) {
      acc[r][j] = target.first ? Simd::zero() : load_columns(target.y + r * target.stride + j * W, target.columns - j * W);
    }
  }
  for (int64_t pair = 0; pair < pairs; pair++) {
    const float* at = x + pair * 2 * ROWS;
    // Each panel is a stream of its own; the hardware follows only so many.
    for (int panel = 0; panel < PANELS; panel++) Simd::prefetch(weights.at(pair + kAhead, panel));
    F w[N];
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) w[j] = weights.even(pair, j / kVectors, j % kVectors);
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; r++) accumulate_row(acc[r], at[r], w);
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) w[j] = weights.odd(pair, j / kVectors, j % kVectors);
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; r++) accumulate_row(acc[r], at[ROWS + r], w);
  }
#pragma GCC unroll 32
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) {
      const int64_t columns = target.columns - j * W;
      F y = acc[r][j];
      if (target.last && target.bias) y = Simd::add(y, load_columns(target.bias + j * W, columns));
      store_columns(target.y + r * target.stride + j * W, y, columns);
    }
  }
}

// The least height of a block when there are several, see row_block.
constexpr int least_rows(int most) { return (most + 1) / 2; }

// Chooses the instance for a block height known only at run time.
template <int ROWS, int PANELS, class Weights>
inline void linear_rows(int64_t rows, const float* x, Weights weights, int64_t pairs, const Target& target) {
  if constexpr (ROWS > least_rows(Simd::kRows)) {
    if (rows < ROWS) return linear_rows<ROWS - 1, PANELS>(rows, x, weights, pairs, target);
  }
  linear_block<ROWS, PANELS>(x, weights, pairs, target);
}

inline const float* linear_input(const LinearArgs& args) {
  const bool as_it_is = args.m == 1 && args.weight.k == args.weight.k_padded;
  return as_it_is ? args.x : static_cast<const float*>(args.prepared);
}

inline Target linear_target(const LinearArgs& args, int64_t row, int64_t panel, bool first, bool last) {
  const int64_t column = panel * kPanel;
  return {args.y + row * args.weight.n + column, args.weight.n, args.weight.n - column, args.bias ? args.bias + column : nullptr, first, last};
}

// Panels side by side for a single block of rows: few rows need more columns for enough independent chains.
constexpr int panels_for(int rows) { return rows >= Simd::kPanelsOneRow ? 1 : Simd::kPanelsOneRow / rows; }

// One block of rows: weights are read once, over all of k.
template <int ROWS, class Weights>
inline void linear_one_block(const LinearArgs& args, Weights weights, int64_t begin, int64_t end) {
  if constexpr (ROWS > 1) {
    if (args.m < ROWS) return linear_one_block<ROWS - 1>(args, weights, begin, end);
  }
  constexpr int panels = panels_for(ROWS);
  const float* x = linear_input(args);
  const int64_t pairs = args.weight.k_padded / 2;
  int64_t panel = begin;
  for (; panel + panels <= end; panel += panels) {
    linear_block<ROWS, panels>(x, weights.from(panel, 0), pairs, linear_target(args, 0, panel, true, true));
  }
  for (; panel < end; panel++) linear_block<ROWS, 1>(x, weights.from(panel, 0), pairs, linear_target(args, 0, panel, true, true));
}

// All row blocks over `depth` steps of k from `k`, for PANELS panels from `panel`.
template <int PANELS, class Weights>
inline void linear_slice(const LinearArgs& args, Weights weights, int64_t panel, int64_t k, int64_t depth) {
  const float* x = linear_input(args);
  const int64_t blocks = row_blocks(args.m, Simd::kRows);
  const bool last = k + depth == args.weight.k_padded;
  for (int64_t b = 0; b < blocks; b++) {
    const RowBlock block = row_block(args.m, Simd::kRows, b);
    const float* at = x + block.begin * args.weight.k_padded + k * block.rows;
    linear_rows<Simd::kRows, PANELS>(block.rows, at, weights.from(panel, k), depth / 2, linear_target(args, block.begin, panel, k == 0, last));
  }
}

// All rows of PANELS panels: the columns of y stay in the caches while k goes by.
template <int PANELS, class Weights>
inline void linear_panels(const LinearArgs& args, Weights weights, int64_t panel) {
  const int64_t k_padded = args.weight.k_padded;
  for (int64_t k = 0; k < k_padded; k += kDepth) linear_slice<PANELS>(args, weights, panel, k, min_i64(kDepth, k_padded - k));
}

template <class Weights>
inline void linear_fma(const LinearArgs& args, int64_t begin, int64_t end) {
  const int64_t k_padded = args.weight.k_padded;
  const Weights weights = Weights::of(args.weight.data, k_padded * kPanel);
  if (args.m <= Simd::kRows) return linear_one_block<Simd::kRows>(args, weights, begin, end);
  int64_t panel = begin;
  for (; panel + Simd::kPanels <= end; panel += Simd::kPanels) linear_panels<Simd::kPanels>(args, weights, panel);
  for (; panel < end; panel++) linear_panels<1>(args, weights, panel);
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

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    if (args.weight.type == WeightType::f32) linear_fma<WeightsF32>(args, begin, end);
    else if (args.weight.type == WeightType::f16) linear_fma<WeightsF16>(args, begin, end);
    else linear_fma<WeightsBf16>(args, begin, end);
  }
};

}  // namespace mill::MILL_ISA
