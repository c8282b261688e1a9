#include "cores.h"

#include <algorithm>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace mill {
namespace {

#if defined(__linux__)
// Larger than cpu_set_t's 1024, which a big machine refuses.
constexpr int kMost = 8192;

// `thread` as of gettid(); 0 = the calling one.
std::vector<int> cpus_of(pid_t thread) {
  std::vector<int> cpus;
  cpu_set_t* set = CPU_ALLOC(kMost);
  const size_t bytes = CPU_ALLOC_SIZE(kMost);
  if (set && sched_getaffinity(thread, bytes, set) == 0) {
    for (int cpu = 0; cpu < kMost; cpu++) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
  }
  CPU_FREE(set);
  return cpus;
}

// The main thread's number is the process's.
std::vector<int> process_cpus() { return cpus_of(getpid()); }
#else
std::vector<int> process_cpus() { return {}; }
#endif

}  // namespace

int available_cores() {
  const size_t allowed = process_cpus().size();
  return allowed > 0 ? static_cast<int>(allowed) : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

std::vector<int> thread_cpus() {
#if defined(__linux__)
  return cpus_of(0);
#else
  return {};
#endif
}

void bind_thread(const std::vector<int>& cpus) {
#if defined(__linux__)
  cpu_set_t* set = CPU_ALLOC(kMost);
  if (!set) return;
  const size_t bytes = CPU_ALLOC_SIZE(kMost);
  CPU_ZERO_S(bytes, set);
  for (const int cpu : cpus) {
    if (cpu >= 0 && cpu < kMost) CPU_SET_S(static_cast<size_t>(cpu), bytes, set);
  }
  sched_setaffinity(0, bytes, set);
  CPU_FREE(set);
#else
  static_cast<void>(cpus);
#endif
}

void unbind_thread() {
  const std::vector<int> cpus = process_cpus();
  if (!cpus.empty()) bind_thread(cpus);
}

}  // namespace mill
