#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace mill {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// vLLM raises smaller positive temperatures to this.
constexpr double kLeastTemperature = 0.01;

// Fewer candidates than this are sorted; more are narrowed down first.
constexpr size_t kSortable = 128;

bool before(const TopEntry& a, const TopEntry& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

struct Restricted {
  double temperature;
  double largest;  // logit
  double total;    // of the weights left
  float above;     // logits at or below were removed by min_p or top_k
};

// The largest logit that `least`, a bound on logit / temperature, removes.
float last_below(double least, double temperature) {
  float bound = static_cast<float>(least * temperature);
  while (static_cast<double>(bound) / temperature >= least) bound = std::nextafter(bound, -kInfinity);
  for (float next; (next = std::nextafter(bound, kInfinity)), static_cast<double>(next) / temperature < least;) bound = next;
  return bound;
}

// The whole vocabulary as a range of ids.
struct AllIds {
  struct Iterator {
    int32_t id;
    int32_t operator*() const { return id; }
    Iterator& operator++() { id++; return *this; }
    bool operator!=(const Iterator& other) const { return id != other.id; }
  };
  int32_t n;
  Iterator begin() const { return {0}; }
  Iterator end() const { return {n}; }
};

// Ids of `from` whose weight is at least `bound`, in order, to `to` (which may be `from`); returns how many.
template <class Ids>
size_t gather(const float* weights, const Ids& from, float bound, int32_t* to) {
  size_t count = 0;
  for (const int32_t id : from) {
    to[count] = id;
    count += weights[id] >= bound ? 1 : 0;
  }
  return count;
}

double sum_of(const float* weights, const std::vector<int32_t>& ids) {
  double sum = 0;
  for (const int32_t id : ids) sum += static_cast<double>(weights[id]);
  return sum;
}

TopEntry median_of(const float* row, int32_t a, int32_t b, int32_t c) {
  TopEntry x{row[a], a}, y{row[b], b}, z{row[c], c};
  if (before(y, x)) std::swap(x, y);
  if (before(z, y)) y = before(z, x) ? x : z;
  return y;
}

// The last entry, in falling order, that top_p keeps of `ids`, which it reorders. Quickselect: a part whose sum may be dropped is
// dropped as a whole, so that flat distributions need no sort of the vocabulary either. `dropped` is what is gone already.
TopEntry last_kept(const float* row, const float* weights, int32_t* first, int32_t* last, double dropped, double most) {
  // The median of three has one of them on either side, so both parts have members; after this many the rest is sorted as it is.
  for (int splits = 0; last - first > static_cast<int64_t>(kSortable) && splits < 64; splits++) {
    const TopEntry pivot = median_of(row, first[0], first[(last - first) / 2], last[-1]);
    int32_t* const rest = std::partition(first, last, [&](int32_t id) { return before({row[id], id}, pivot); });
    double sum = 0;
    for (const int32_t* id = rest; id != last; id++) sum += static_cast<double>(weights[*id]);
    if (dropped + sum <= most) {
      dropped += sum;
      last = rest;
    } else {
      first = rest;
    }
  }
  std::sort(first, last, [&](int32_t a, int32_t b) { return before({row[a], a}, {row[b], b}); });
  while (last - first > 1) {
    dropped += static_cast<double>(weights[last[-1]]);
    if (dropped > most) break;
    last--;
  }
  return {row[last[-1]], last[-1]};
}

// Leaves in `scratch.candidates` the ids that top_p keeps, in order, and returns their sum. Every weight below (what may still
// be dropped) / (weights left) is dropped for certain, since all of those together are: repeated, this leaves few candidates
// of a distribution with a peak; a pass that drops less than an eighth is the last.
double keep_top_p(const float* row, int64_t n, double top_p, double total, RowScratch& scratch) {
  const float* weights = scratch.weights.data();
  std::vector<int32_t>& left = scratch.candidates;
  const double most = (1 - top_p) * total;
  const auto bound = [&](double may_drop, int64_t among) {
    // Never zero: what min_p or top_k removed is no candidate.
    return std::max(static_cast<float>(may_drop / static_cast<double>(among)), std::numeric_limits<float>::min());
  };
  left.resize(static_cast<size_t>(n));
  left.resize(gather(weights, AllIds{static_cast<int32_t>(n)}, bound(most, n), left.data()));
  double sum = sum_of(weights, left);
  for (size_t size = SIZE_MAX; left.size() > kSortable && left.size() < size - size / 8;) {
    size = left.size();
    left.resize(gather(weights, left, bound(most - (total - sum), static_cast<int64_t>(left.size())), left.data()));
    sum = sum_of(weights, left);
  }
  scratch.order.assign(left.begin(), left.end());
  const TopEntry cut = last_kept(row, weights, scratch.order.data(), scratch.order.data() + scratch.order.size(), total - sum, most);
  left.erase(std::remove_if(left.begin(), left.end(), [&](int32_t id) { return before(cut, {row[id], id}); }), left.end());
  return sum_of(weights, left);
}

Restricted restrict_row(const KernelTable& kernels, const float* row, int64_t n, float largest, const DrawParams& params, RowScratch& scratch) {
  scratch.weights.resize(static_cast<size_t>(n));
  Restricted r;
  r.temperature = std::max(params.temperature, kLeastTemperature);
  r.largest = static_cast<double>(largest);
  r.above = -kInfinity;
  if (params.min_p > 0) r.above = last_below(r.largest / r.temperature + std::log(params.min_p), r.temperature);
  if (params.top_k > 0 && params.top_k < n) {
    const std::vector<TopEntry> top = top_k(kernels, row, n, params.top_k, scratch);
    if (static_cast<int64_t>(top.size()) == params.top_k) r.above = std::max(r.above, std::nextafter(top.back().logit, -kInfinity));
  }
  const float inverse = static_cast<float>(1 / r.temperature);
  r.total = kernels.softmax_weights(row, n, largest, inverse, r.above, scratch.weights.data());
  if (params.top_p < 1) r.total = keep_top_p(row, n, params.top_p, r.total, scratch);
  return r;
}

// First id of `ids` (any range of ids in order) at which the sum of weights exceeds `target`; the last one with weight if none.
template <class Ids>
int64_t draw(const std::vector<float>& weights, const Ids& ids, double target) {
  double sum = 0;
  int64_t last = 0;
  for (const int32_t id : ids) {
    const float weight = weights[static_cast<size_t>(id)];
    if (weight == 0) continue;
    last = id;
    sum += static_cast<double>(weight);
    if (sum > target) break;
  }
  return last;
}

int64_t sample_below(const KernelTable& kernels, const float* row, int64_t n, float largest, const DrawParams& params, double u, RowScratch& scratch) {
  const Restricted r = restrict_row(kernels, row, n, largest, params, scratch);
  const double target = u * r.total;
  return params.top_p < 1 ? draw(scratch.weights, scratch.candidates, target) : draw(scratch.weights, AllIds{static_cast<int32_t>(n)}, target);
}

// As the kernel's argmax, which looks for the block first too.
int64_t argmax_of(const KernelTable& kernels, const float* row, int64_t n, const float* maxima) {
  const int64_t block = kernels.argmax(maxima, (n + kMaximaBlock - 1) / kMaximaBlock);
  for (int64_t i = block * kMaximaBlock; i < std::min(n, (block + 1) * kMaximaBlock); i++) {
    if (row[i] == maxima[block]) return i;
  }
  return 0;
}

}  // namespace

std::vector<TopEntry> top_k(const KernelTable& kernels, const float* row, int64_t n, int64_t k, RowScratch& scratch) {
  std::vector<TopEntry> heap;  // its front is the entry that leaves first
  if (k <= 0) return heap;
  heap.reserve(static_cast<size_t>(std::min(k, n)));
  scratch.maxima.resize(static_cast<size_t>((n + kMaximaBlock - 1) / kMaximaBlock));
  kernels.block_maxima(row, n, scratch.maxima.data());
  float least = -kInfinity;
  for (int64_t begin = 0; begin < n; begin += kMaximaBlock) {
    if (!(scratch.maxima[static_cast<size_t>(begin / kMaximaBlock)] > least)) continue;
    for (int64_t i = begin; i < std::min(n, begin + kMaximaBlock); i++) {
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
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

int64_t sample_row(const KernelTable& kernels, const float* row, int64_t n, const DrawParams& params, double u, RowScratch& scratch) {
  return sample_below(kernels, row, n, row[kernels.argmax(row, n)], params, u, scratch);
}

int32_t draw_row(const KernelTable& kernels, const RowDraw& draw, int64_t n, RowScratch& scratch) {
  int64_t id = draw.maxima ? argmax_of(kernels, draw.row, n, draw.maxima) : kernels.argmax(draw.row, n);
  if (!std::isfinite(draw.row[id])) return -1;
  if (draw.params.temperature > 0) id = sample_below(kernels, draw.row, n, draw.row[id], draw.params, draw.u, scratch);
  return draw.row[id] > -kInfinity ? static_cast<int32_t>(id) : -1;
}

void process_row(const KernelTable& kernels, float* row, int64_t n, const DrawParams& params, RowScratch& scratch) {
  const Restricted r = restrict_row(kernels, row, n, row[kernels.argmax(row, n)], params, scratch);
  const double shift = r.largest / r.temperature + std::log(r.total);
  const auto logprob = [&](int64_t id) { return static_cast<float>(static_cast<double>(row[id]) / r.temperature - shift); };
  if (params.top_p < 1) {
    std::vector<float>& kept = scratch.weights;  // no longer needed as weights
    for (const int32_t id : scratch.candidates) kept[static_cast<size_t>(id)] = logprob(id);
    std::fill(row, row + n, -kInfinity);
    for (const int32_t id : scratch.candidates) row[id] = kept[static_cast<size_t>(id)];
    return;
  }
  // A weight may have underflowed to zero; it was removed only if min_p or top_k says so.
  for (int64_t id = 0; id < n; id++) row[id] = row[id] > r.above ? logprob(id) : -kInfinity;
}

}  // namespace mill
