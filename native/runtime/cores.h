// Which CPUs threads may run on. Who is to run where is decided by src/config/topology.ts.
#pragma once
#include <vector>

namespace mill {

// CPUs that this process may use: those of its main thread, since others may be bound to some of them.
int available_cores();
// CPUs that the calling thread may run on, ascending; empty when the system does not say.
std::vector<int> thread_cpus();
// Binds the calling thread to the CPUs; a system that refuses is left alone.
void bind_thread(const std::vector<int>& cpus);
// The calling thread may run wherever the process may.
void unbind_thread();

}  // namespace mill
