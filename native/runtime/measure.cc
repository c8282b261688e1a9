#include "measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "region.h"

namespace mill {
namespace {

template <class Work>
double seconds_of(ThreadTeam& team, const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  team.run(work);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Enough chains for the loads to be the limit.
uint64_t read_all(const uint64_t* data, size_t words) {
  uint64_t sums[16] = {};
  for (size_t i = 0; i + 16 <= words; i += 16) {
    for (size_t j = 0; j < 16; j++) sums[j] ^= data[i + j];
  }
  uint64_t all = 0;
  for (const uint64_t sum : sums) all ^= sum;
  return all;
}

}  // namespace

double measure_bandwidth(ThreadTeam& team, size_t bytes) {
  const Region buffer(bytes, "the bandwidth measurement");
  const size_t words = bytes / 8 / static_cast<size_t>(team.members());
  std::atomic<uint64_t> sink{0};
  const auto own = [&](int member) { return buffer.as<uint64_t>() + words * static_cast<size_t>(member); };
  team.run([&](int member) { std::fill_n(own(member), words, uint64_t{1}); });
  double best = 0;
  for (int pass = 0; pass < 5; pass++) {
    const double seconds = seconds_of(team, [&](int member) { sink ^= read_all(own(member), words); });
    best = std::max(best, static_cast<double>(words) * 8 * team.members() / seconds / 1e9);
  }
  return best;
}

TeamTimes measure_team(ThreadTeam& team, std::chrono::microseconds idle) {
  constexpr int kBarriers = 1000, kRuns = 101;
  const auto median = [](std::vector<double>& times) {
    std::sort(times.begin(), times.end());
    return times[times.size() / 2] * 1e6;
  };
  std::vector<double> barriers, runs;
  for (int i = 0; i < kRuns; i++) {
    barriers.push_back(seconds_of(team, [&](int) {
                         for (int b = 0; b < kBarriers; b++) team.barrier();
                       }) /
                       kBarriers);
  }
  for (int i = 0; i < kRuns; i++) {
    // Not asleep, as the thread that makes steps is not.
    const auto end = std::chrono::steady_clock::now() + idle;
    while (std::chrono::steady_clock::now() < end) continue;
    runs.push_back(seconds_of(team, [](int) {}));
  }
  return {median(barriers), median(runs)};
}

double measure_peak(ThreadTeam& team, const KernelTable& kernels, int kind) {
  struct alignas(64) Result {
    double operations;
    float sink[4];
  };
  std::vector<Result> results(static_cast<size_t>(team.members()), Result{0, {0.5f, 0.25f, 0, 0}});
  double best = 0;
  for (int64_t iterations = 1000; iterations < (int64_t{1} << 40); iterations *= 4) {
    const double seconds = seconds_of(team, [&](int member) {
      Result& result = results[static_cast<size_t>(member)];
      result.operations = kernels.peak(kind, iterations, result.sink);
    });
    best = std::max(best, results[0].operations * team.members() / seconds / 1e9);
    if (seconds > 0.1) break;
  }
  return best;
}

}  // namespace mill
