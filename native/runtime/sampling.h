// What the sampler asks of one row of logits beyond a single scan: the largest k, restriction and draw. Order and formulas:
// temperature, min_p, top_k (ties with the k-th are kept), top_p (drop in ascending order while the dropped probability is
// at most 1 - p; the largest stays). Weights are fp32, their sums fp64; every row alone, always in the same order.
#pragma once
#include <cstdint>
#include <vector>

#include "../kernels/kernel_table.h"

namespace mill {

struct TopEntry {
  float logit;
  int32_t id;
};

// Scratch that row operations share; grows to the vocabulary once.
struct RowScratch {
  std::vector<float> weights;
  std::vector<float> maxima;
  std::vector<int32_t> candidates;
  std::vector<int32_t> order;
  int64_t bytes() const { return static_cast<int64_t>(weights.capacity() + maxima.capacity() + candidates.capacity() + order.capacity()) * 4; }
};

// The k largest, largest first, ties by lower id; -infinity and NaN are left out.
std::vector<TopEntry> top_k(const KernelTable& kernels, const float* row, int64_t n, int64_t k, RowScratch& scratch);

// Draws an id with `u` in [0, 1) by the inverse of the distribution in id order.
int64_t sample_row(const KernelTable& kernels, const float* row, int64_t n, const DrawParams& params, double u, RowScratch& scratch);

// One row of a batch; a temperature of 0 takes the largest.
struct RowDraw {
  const float* row;
  DrawParams params;
  double u;
  const float* maxima = nullptr;  // of its blocks, when they are known
};

// The token of a draw, as argmax or sample_row give it; -1 when the row's largest, or the drawn, logit is not a finite number.
int32_t draw_row(const KernelTable& kernels, const RowDraw& draw, int64_t n, RowScratch& scratch);

// Replaces the row by its log-probabilities after all restrictions, -infinity where removed.
void process_row(const KernelTable& kernels, float* row, int64_t n, const DrawParams& params, RowScratch& scratch);

}  // namespace mill
