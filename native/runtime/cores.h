// Which cores this process may use.
#pragma once
#include <vector>

namespace mill {

// Core ids of the process's affinity mask, ascending; empty when the system does not say.
std::vector<int> allowed_cores();
// CPUs' worth of time the cgroup grants (v2, else v1), the tightest of all ancestors; 0 = no limit.
double cpu_quota();
int available_cores();
// Binds the calling thread; a system that refuses is left alone.
void bind_to_core(int core);

}  // namespace mill
