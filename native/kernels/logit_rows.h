// Rows of logits: what the sampler asks of the vocabulary. Sums are fp64 in a fixed order.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

inline float row_max(const float* row, int64_t n) {
  F best = Simd::set1(-__builtin_inff());
  int64_t i = 0;
  for (; i + W <= n; i += W) best = Simd::max(Simd::load(row + i), best);
  float most = reduce_max(best);
  for (; i < n; i++) most = row[i] > most ? row[i] : most;
  return most;
}

// The lowest index wins a tie; NaN never wins, except that index 0 is returned when nothing does.
inline int64_t argmax(const float* row, int64_t n) {
  float most = -__builtin_inff();
  int64_t block = 0;
  for (int64_t i = 0; i < n; i += kMaximaBlock) {
    const float largest = row_max(row + i, min_i64(kMaximaBlock, n - i));
    if (largest > most) {
      most = largest;
      block = i;
    }
  }
  for (int64_t i = block; i < min_i64(n, block + kMaximaBlock); i++) {
    if (row[i] == most) return i;
  }
  return 0;
}

// Vectors of fp32 weights that are added up before the sum goes on in fp64.
constexpr int64_t kSumVectors = 8;

// Sums exp((row[i] - largest) * inverse_temperature) over entries > above, 0 elsewhere (and for NaN), and hands every vector of weights
// to `store`. Always in the same order: vectors of W, kSumVectors of them in fp32, then fp64.
template <class Store>
inline double sum_weights(const float* row, int64_t n, float largest, float inverse_temperature, float above, const Store& store) {
  const F shift = Simd::set1(largest), factor = Simd::set1(inverse_temperature), bound = Simd::set1(above);
  double total = 0;
  for (int64_t i = 0; i < n;) {
    F sum = Simd::zero();
    for (int64_t v = 0; v < kSumVectors && i < n; v++, i += W) {
      const F x = i + W <= n ? Simd::load(row + i) : load_partial_or(row + i, n - i, -__builtin_inff());
      const F weight = exp(Simd::mul(Simd::sub(x, shift), factor));
      const F kept = Simd::select(Simd::less(bound, x), weight, Simd::zero());
      store(i, kept);
      sum = Simd::add(sum, kept);
    }
    total += static_cast<double>(reduce_add(sum));
  }
  return total;
}

// log(sum(exp(row))); exp in fp32, the sum in fp64.
inline double log_sum_exp(const float* row, int64_t n) {
  const float largest = row_max(row, n);
  if (largest == -__builtin_inff()) return largest;
  const double total = sum_weights(row, n, largest, 1, -__builtin_inff(), [](int64_t, F) {});
  return static_cast<double>(largest) + __builtin_log(total);
}

// Largest entry of each block of kMaximaBlock, and of all.
inline float block_maxima(const float* row, int64_t n, float* maxima) {
  float most = -__builtin_inff();
  for (int64_t i = 0; i < n; i += kMaximaBlock) {
    const float block = row_max(row + i, min_i64(kMaximaBlock, n - i));
    maxima[i / kMaximaBlock] = block;
    most = block > most ? block : most;
  }
  return most;
}

inline int64_t rank(const float* row, int64_t n, float value) {
  int64_t larger = 0;
  for (int64_t i = 0; i < n; i++) larger += row[i] > value ? 1 : 0;
  return 1 + larger;
}

inline double softmax_weights(const float* row, int64_t n, float largest, float inverse_temperature, float above, float* weights) {
  return sum_weights(row, n, largest, inverse_temperature, above, [&](int64_t i, F x) { store_columns(weights + i, x, n - i); });
}

}  // namespace mill::MILL_ISA
