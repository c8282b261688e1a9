// What the machine can do at most: the roof that kernels are measured against.
#pragma once
#include "../kernels/kernel_table.h"
#include "thread_team.h"

namespace mill {

// GB/s of reading `bytes` of memory by all members; the best of several passes.
double measure_bandwidth(ThreadTeam& team, size_t bytes);
// 10^9 operations per second; `kind` as in KernelTable::peak.
double measure_peak(ThreadTeam& team, const KernelTable& kernels, int kind);

}  // namespace mill
