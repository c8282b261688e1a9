// What the sampler asks of one row of logits beyond a single scan: the largest k, restriction and draw. Order and formulas:
// temperature, min_p, top_k (ties with the k-th are kept), top_p (drop in ascending order while the dropped probability is
// at most 1 - p; the largest stays).
#pragma once
#include <cstdint>
#include <vector>

#include "../kernels/kernel_table.h"

namespace mill {

struct TopEntry {
  float logit;
  int32_t id;
};

// The k largest, largest first, ties by lower id; -infinity and NaN are left out.
std::vector<TopEntry> top_k(const float* row, int64_t n, int64_t k);

// Draws an id with `u` in [0, 1) by the inverse of the distribution in id order. `weights`: scratch of n.
int64_t sample_row(const KernelTable& kernels, const float* row, int64_t n, const DrawParams& params, double u, double* weights);

// Replaces the row by its log-probabilities after all restrictions, -infinity where removed.
void process_row(const KernelTable& kernels, float* row, int64_t n, const DrawParams& params, double* weights);

}  // namespace mill
