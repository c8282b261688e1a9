// Rows of logits: what the sampler asks of the vocabulary. Sums are fp64 in a fixed order.
#pragma once
#include "simd_common.h"

namespace mill::MILL_ISA {

// Lanes of a sum; the compiler makes vectors of these loops.
constexpr int kLanes = 8;

// exp for x in [-708, 709], relative error below 1e-14; 0 below. Cody-Waite reduction, Taylor polynomial of degree 12.
inline double exp64(double x) {
  const double clamped = x < -708.0 ? -708.0 : x;
  constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  const double shifted = clamped * 1.4426950408889634 + kRounder;
  const double n = shifted - kRounder;
  const double r = (clamped - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  uint64_t bits;
  __builtin_memcpy(&bits, &shifted, 8);
  bits = (bits + 1023) << 52;
  double scale;
  __builtin_memcpy(&scale, &bits, 8);
  return x < -708.0 ? 0.0 : p * scale;
}

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
  const float most = row_max(row, n);
  int64_t i = 0;
  while (i < n && !(row[i] == most)) i++;
  return i < n ? i : 0;
}

inline double add_lanes(const double (&lanes)[kLanes]) {
  double total = 0;
  for (int j = 0; j < kLanes; j++) total += lanes[j];
  return total;
}

// log(sum(exp(row))) without the final log: the caller adds it, so that no libm is needed here.
inline double log_sum_exp(const float* row, int64_t n) {
  const double shift = row_max(row, n);
  if (shift == -__builtin_inf()) return shift;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; j++) lanes[j] += exp64(static_cast<double>(row[i + j]) - shift);
  }
  for (; i < n; i++) lanes[0] += exp64(static_cast<double>(row[i]) - shift);
  return shift + __builtin_log(add_lanes(lanes));
}

inline int64_t rank(const float* row, int64_t n, float value) {
  int64_t larger = 0;
  for (int64_t i = 0; i < n; i++) larger += row[i] > value ? 1 : 0;
  return 1 + larger;
}

inline double softmax_weights(const float* row, int64_t n, double temperature, double shift, double least, double* weights) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; j++) {
      const double scaled = static_cast<double>(row[i + j]) / temperature;
      const double weight = scaled >= least ? exp64(scaled - shift) : 0.0;
      weights[i + j] = weight;
      lanes[j] += weight;
    }
  }
  for (; i < n; i++) {
    const double scaled = static_cast<double>(row[i]) / temperature;
    weights[i] = scaled >= least ? exp64(scaled - shift) : 0.0;
    lanes[0] += weights[i];
  }
  return add_lanes(lanes);
}

}  // namespace mill::MILL_ISA
