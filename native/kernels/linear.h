// linear: y = x weight^T + bias with fp32, bf16 or fp16 weights, by fused multiply-add in fp32.
//
// Each output element is one chain acc = fma(x[k], w[k], acc) over ascending k, in one lane of one register, plus the bias
// at the end. Blocking over rows, columns and k only decides when a link of the chain is computed: between blocks of k the
// accumulator waits in y, which is exact. So an element does not depend on the number of rows, threads or the tiling.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

constexpr int kVectors = kPanel / W;
// Steps of k whose weights stay in the nearest caches while a group of rows passes by.
constexpr int64_t kDepth = 1024;

// Rows that pass before the next weights: enough for each weight read from memory to be used often, few enough for their x
// to stay in the outer caches while all panels pass.
constexpr int64_t kGroupRows = 96;

// Pairs of k by which a single block of rows asks for weights ahead of their use.
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

// Begin of the share of rows, in whole blocks, that is the member's to prepare.
inline int64_t first_row(int64_t m, int64_t most, int64_t member, int64_t members) { return row_block(m, most, row_blocks(m, most) * member / members).begin; }

// Where the micro-kernel reads weights of two consecutive k: from panels in their packed type, widened on the way.
template <class Element>
struct WeightsIn {
  const Element* data;
  int64_t panel_stride;
  const Element* at(int64_t pair, int panel) const { return data + panel * panel_stride + pair * 2 * kPanel; }
};

// Where a block asks for weights before they are used: as it goes from pair to pair, `step` bytes further in each panel.
struct Ahead {
  const char* at;
  int64_t panel_stride;
  int64_t step;
};

template <class Weights>
inline Ahead ahead_of(Weights weights, int64_t pair, int64_t step) {
  const int64_t element = static_cast<int64_t>(sizeof(*weights.data));
  return {reinterpret_cast<const char*>(weights.at(pair, 0)), weights.panel_stride * element, step};
}

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

template <int ROWS, int N>
MILL_INLINE void start_block(F (&acc)[ROWS][N], const Target& target) {
  if (target.first) {
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = Simd::zero();
  } else if (target.columns >= N * W) {
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = Simd::load(target.y + i / N * target.stride + i % N * W);
  } else {
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = load_columns(target.y + i / N * target.stride + i % N * W, target.columns - i % N * W);
  }
}

template <int ROWS, int N>
MILL_INLINE void finish_block(F (&acc)[ROWS][N], const Target& target) {
  if (target.last && target.bias) {
    F bias[N];
    for (int j = 0; j < N; j++) bias[j] = load_columns(target.bias + j * W, target.columns - j * W);
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) acc[i / N][i % N] = Simd::add(acc[i / N][i % N], bias[i % N]);
  }
  if (target.columns >= N * W) {
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) Simd::store(target.y + i / N * target.stride + i % N * W, acc[i / N][i % N]);
  } else {
#pragma GCC unroll 64
    for (int i = 0; i < ROWS * N; i++) store_columns(target.y + i / N * target.stride + i % N * W, acc[i / N][i % N], target.columns - i % N * W);
  }
}

// ROWS x (PANELS * 16) elements over `pairs` pairs of k; `x` is [k][ROWS].
// Out of line: inlined into its callers it loses registers to their pointers.
template <int ROWS, int PANELS, class Weights>
[[gnu::noinline]] static void linear_block(const float* x, Weights weights, int64_t pairs, const Target& target, Ahead ahead) {
  constexpr int N = PANELS * kVectors;
  F acc[ROWS][N];
  start_block<ROWS, N>(acc, target);
  for (int64_t pair = 0; pair < pairs; pair++) {
    const float* at = x + pair * 2 * ROWS;
    // Each panel is a stream of its own; the hardware follows only so many.
    for (int panel = 0; panel < PANELS; panel++) Simd::prefetch(ahead.at + panel * ahead.panel_stride);
    ahead.at += ahead.step;
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
  finish_block<ROWS, N>(acc, target);
}

// The least height of a block when there are several, see row_block.
constexpr int least_rows(int most) { return (most + 1) / 2; }

// Chooses the instance for a block height known only at run time.
template <int ROWS, int PANELS, class Weights>
inline void linear_rows(int64_t rows, const float* x, Weights weights, int64_t pairs, const Target& target, const Ahead& ahead) {
  if constexpr (ROWS > least_rows(Simd::kRows)) {
    if (rows < ROWS) return linear_rows<ROWS - 1, PANELS>(rows, x, weights, pairs, target, ahead);
  }
  linear_block<ROWS, PANELS>(x, weights, pairs, target, ahead);
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

// The part of a tall linear between two looks at other weights: `count` blocks of rows, some panels, `depth` steps of k.
struct Slice {
  int64_t block;
  int64_t count;
  int64_t panel;
  int64_t k;
  int64_t depth;
};

// Block `index` of a slice asks for its part of the weights of the slice after it, evenly, so that memory is read at one pace
// all the time and never waited for. A single block has no later one to do so and runs ahead of itself.
template <int PANELS, class Weights>
inline Ahead slice_ahead(Weights here, const Slice& slice, int64_t index) {
  const int64_t pairs = slice.depth / 2, line = 2 * kPanel * static_cast<int64_t>(sizeof(*here.data));
  if (slice.count == 1) return ahead_of(here, kAhead, line);
  // After the last k come the next panels, which follow these in memory.
  const bool last = (slice.k + slice.depth) * kPanel == here.panel_stride;
  const int64_t next = pairs + (last ? (PANELS - 1) * here.panel_stride / (2 * kPanel) : 0);
  return ahead_of(here, next + pairs * index / slice.count, line / slice.count);
}

// One block of rows: weights are read once, over all of k.
template <int ROWS, class Weights>
inline void linear_one_block(const LinearArgs& args, Weights weights, int64_t begin, int64_t end) {
  if constexpr (ROWS > 1) {
    if (args.m < ROWS) return linear_one_block<ROWS - 1>(args, weights, begin, end);
  }
  constexpr int panels = panels_for(ROWS);
  const int64_t k = args.weight.k_padded;
  const float* x = linear_input(args);
  int64_t panel = begin;
  for (; panel + panels <= end; panel += panels) {
    const Weights from = weights.from(panel, 0);
    linear_block<ROWS, panels>(x, from, k / 2, linear_target(args, 0, panel, true, true), slice_ahead<panels>(from, {0, 1, panel, 0, k}, 0));
  }
  for (; panel < end; panel++) {
    const Weights from = weights.from(panel, 0);
    linear_block<ROWS, 1>(x, from, k / 2, linear_target(args, 0, panel, true, true), slice_ahead<1>(from, {0, 1, panel, 0, k}, 0));
  }
}

// All row blocks of a slice.
template <int PANELS, class Weights>
inline void linear_slice(const LinearArgs& args, Weights weights, const Slice& slice) {
  const float* x = linear_input(args);
  const Weights here = weights.from(slice.panel, slice.k);
  const int64_t pairs = slice.depth / 2;
  const bool first = slice.k == 0, last = slice.k + slice.depth == args.weight.k_padded;
  for (int64_t i = 0; i < slice.count; i++) {
    const RowBlock block = row_block(args.m, Simd::kRows, slice.block + i);
    const float* at = x + block.begin * args.weight.k_padded + slice.k * block.rows;
    const Target target = linear_target(args, block.begin, slice.panel, first, last);
    linear_rows<Simd::kRows, PANELS>(block.rows, at, here, pairs, target, slice_ahead<PANELS>(here, slice, i));
  }
}

// Visits the slices of a tall linear: groups of rows, in them panels, in them k, so that the columns of y stay in the caches.
template <int PANELS, class Visit>
inline int64_t walk_slices(const LinearArgs& args, int64_t depth, int64_t block, int64_t count, int64_t begin, int64_t end, const Visit& visit) {
  int64_t panel = begin;
  for (; panel + PANELS <= end; panel += PANELS) {
    for (int64_t k = 0; k < args.weight.k_padded; k += depth) visit(Slice{block, count, panel, k, min_i64(depth, args.weight.k_padded - k)});
  }
  return panel;
}

// Calls visit_group(first block, blocks) for groups of at most kGroupRows rows.
template <class Visit>
inline void walk_groups(int64_t m, const Visit& visit) {
  const int64_t blocks = row_blocks(m, Simd::kRows), groups = row_blocks(blocks, kGroupRows / Simd::kRows);
  for (int64_t g = 0; g < groups; g++) visit(g * blocks / groups, (g + 1) * blocks / groups - g * blocks / groups);
}

template <class Weights>
inline void linear_fma(const LinearArgs& args, int64_t begin, int64_t end) {
  const Weights weights = Weights::of(args.weight.data, args.weight.k_padded * kPanel);
  if (args.m <= Simd::kRows) return linear_one_block<Simd::kRows>(args, weights, begin, end);
  walk_groups(args.m, [&](int64_t block, int64_t count) {
    const int64_t rest = walk_slices<Simd::kPanels>(args, kDepth, block, count, begin, end, [&](const Slice& slice) { linear_slice<Simd::kPanels>(args, weights, slice); });
    walk_slices<1>(args, kDepth, block, count, rest, end, [&](const Slice& slice) { linear_slice<1>(args, weights, slice); });
  });
}

// Rows [row, row + ROWS) of x as [k][ROWS], zero-padded in k.
template <int ROWS>
inline void interleave_rows(int64_t rows, const float* x, int64_t k, int64_t k_padded, float* to) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return interleave_rows<ROWS - 1>(rows, x, k, k_padded, to);
  }
  for (int64_t i = 0; i < k; i++, to += ROWS) {
    for (int r = 0; r < ROWS; r++) to[r] = x[r * k + i];
  }
  for (int64_t i = k * ROWS; i < k_padded * ROWS; i++) *to++ = 0;
}

struct LinearFma {
  static bool needs_prepare(const LinearArgs& args) { return linear_input(args) != args.x; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return first_row(args.m, Simd::kRows, member, members); }

  // x as [block][k][rows], zero-padded in k.
  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const int64_t k = args.weight.k, k_padded = args.weight.k_padded;
    const int64_t blocks = row_blocks(args.m, Simd::kRows);
    for (int64_t b = blocks * member / members; b < blocks * (member + 1) / members; b++) {
      const RowBlock block = row_block(args.m, Simd::kRows, b);
      interleave_rows<Simd::kRows>(block.rows, args.x + block.begin * k, k, k_padded, static_cast<float*>(args.prepared) + block.begin * k_padded);
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    if (args.weight.type == WeightType::f32) linear_fma<WeightsF32>(args, begin, end);
    else if (args.weight.type == WeightType::f16) linear_fma<WeightsF16>(args, begin, end);
    else linear_fma<WeightsBf16>(args, begin, end);
  }
};

}  // namespace mill::MILL_ISA
