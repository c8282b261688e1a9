#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mill {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// vLLM raises smaller positive temperatures to this.
constexpr double kLeastTemperature = 0.01;

bool before(const TopEntry& a, const TopEntry& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

// Logits more than this below the largest share one bin: e^-64 of the largest weight.
constexpr int kBins = 4096;
constexpr double kBinsPerNat = 64;

int bin_of(double below_largest) {
  const double bin = below_largest * kBinsPerNat;
  return bin < kBins - 1 ? static_cast<int>(bin) : kBins - 1;
}

struct Restricted {
  double temperature;
  double largest;  // scaled
  double total;    // of weights exp(scaled - largest)
  double least;    // scaled; what is below was removed by min_p or top_k
};

// Drops from `weights` what top_p removes; returns what is left in sum.
double keep_top_p(const float* row, int64_t n, double top_p, const Restricted& r, double* weights) {
  const auto below = [&](int64_t id) { return r.largest - static_cast<double>(row[id]) / r.temperature; };
  std::vector<double> mass(kBins, 0.0);
  for (int64_t id = 0; id < n; id++) {
    if (weights[id] > 0) mass[static_cast<size_t>(bin_of(below(id)))] += weights[id];
  }
  const double most = (1 - top_p) * r.total;
  double dropped = 0;
  int bin = kBins - 1;
  while (bin > 0 && dropped + mass[static_cast<size_t>(bin)] <= most) dropped += mass[static_cast<size_t>(bin--)];
  std::vector<TopEntry> edge;
  for (int64_t id = 0; id < n; id++) {
    if (!(weights[id] > 0)) continue;
    const int own = bin_of(below(id));
    if (own > bin) weights[id] = 0;
    else if (own == bin) edge.push_back({row[id], static_cast<int32_t>(id)});
  }
  std::sort(edge.begin(), edge.end(), before);
  // The largest of all is first in bin 0 and always stays.
  const size_t stays = bin == 0 ? 1 : 0;
  for (size_t i = edge.size(); i > stays; i--) {
    dropped += weights[edge[i - 1].id];
    if (dropped > most) break;
    weights[edge[i - 1].id] = 0;
  }
  double left = 0;
  for (int64_t id = 0; id < n; id++) left += weights[id];
  return left;
}

Restricted restrict_row(const KernelTable& kernels, const float* row, int64_t n, const DrawParams& params, double* weights) {
  Restricted r;
  r.temperature = std::max(params.temperature, kLeastTemperature);
  r.largest = static_cast<double>(row[kernels.argmax(row, n)]) / r.temperature;
  r.least = -std::numeric_limits<double>::max();
  if (params.min_p > 0) r.least = std::max(r.least, r.largest + std::log(params.min_p));
  if (params.top_k > 0 && params.top_k < n) {
    const std::vector<TopEntry> top = top_k(row, n, params.top_k);
    if (static_cast<int64_t>(top.size()) == params.top_k) r.least = std::max(r.least, static_cast<double>(top.back().logit) / r.temperature);
  }
  r.total = kernels.softmax_weights(row, n, r.temperature, r.largest, r.least, weights);
  if (params.top_p < 1) r.total = keep_top_p(row, n, params.top_p, r, weights);
  return r;
}

}  // namespace

std::vector<TopEntry> top_k(const float* row, int64_t n, int64_t k) {
  std::vector<TopEntry> heap;  // its front is the entry that leaves first
  heap.reserve(static_cast<size_t>(std::min(k, n)));
  float least = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n && k > 0; i++) {
    // Ids ascend, so an equal logit never displaces an earlier one.
    if (!(row[i] > least)) continue;
    if (static_cast<int64_t>(heap.size()) == k) {
      std::pop_heap(heap.begin(), heap.end(), before);
      heap.pop_back();
    }
    heap.push_back({row[i], static_cast<int32_t>(i)});
    std::push_heap(heap.begin(), heap.end(), before);
    if (static_cast<int64_t>(heap.size()) == k) least = heap.front().logit;
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

int64_t sample_row(const KernelTable& kernels, const float* row, int64_t n, const DrawParams& params, double u, double* weights) {
  const Restricted r = restrict_row(kernels, row, n, params, weights);
  const double target = u * r.total;
  double sum = 0;
  int64_t last = 0;
  for (int64_t id = 0; id < n; id++) {
    if (weights[id] == 0) continue;
    last = id;
    sum += weights[id];
    if (sum > target) break;
  }
  return last;
}

void process_row(const KernelTable& kernels, float* row, int64_t n, const DrawParams& params, double* weights) {
  const Restricted r = restrict_row(kernels, row, n, params, weights);
  const double shift = r.largest + std::log(r.total);
  for (int64_t id = 0; id < n; id++) {
    const double scaled = static_cast<double>(row[id]) / r.temperature;
    // A weight that underflowed to zero was not removed for that, unless by top_p, which drops the smallest first.
    const bool kept = weights[id] > 0 || (params.top_p >= 1 && scaled >= r.least);
    row[id] = static_cast<float>(kept ? scaled - shift : -kInfinity);
  }
}

}  // namespace mill
