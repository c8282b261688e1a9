// What the machine can do at most: the roof that kernels are measured against.
#pragma once
#include "../kernels/kernel_table.h"
#include "thread_team.h"

namespace mill {

// GB/s of reading `bytes` of memory by all members; the best of several passes.
double measure_bandwidth(ThreadTeam& team, size_t bytes);
struct TeamTimes {
  double barrier_us;  // until all members have met
  double run_us;      // of a run without work
};
// Medians; `idle` passes between the runs.
TeamTimes measure_team(ThreadTeam& team, std::chrono::microseconds idle);
// 10^9 operations per second; `kind` as in KernelTable::peak.
double measure_peak(ThreadTeam& team, const KernelTable& kernels, int kind);

}  // namespace mill
