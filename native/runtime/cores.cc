#include "cores.h"

#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace mill {

std::vector<int> allowed_cores() {
  std::vector<int> cores;
#if defined(__linux__)
  // Larger than cpu_set_t's 1024, which a big machine refuses.
  constexpr int kMost = 8192;
  cpu_set_t* set = CPU_ALLOC(kMost);
  const size_t bytes = CPU_ALLOC_SIZE(kMost);
  if (set && sched_getaffinity(0, bytes, set) == 0) {
    for (int core = 0; core < kMost; core++) {
      if (CPU_ISSET_S(static_cast<size_t>(core), bytes, set)) cores.push_back(core);
    }
  }
  CPU_FREE(set);
#endif
  return cores;
}

namespace {

double tighter(double a, double b) { return a == 0 ? b : b == 0 ? a : std::min(a, b); }

double quota_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period && period > 0 ? quota / period : 0;
}

double quota_v1() {
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period && quota > 0 && period > 0 ? quota / period : 0;
}

}  // namespace

double cpu_quota() {
  double quota = tighter(quota_v1(), quota_v2("/sys/fs/cgroup"));
  std::ifstream own("/proc/self/cgroup");
  for (std::string line; std::getline(own, line);) {
    if (line.rfind("0::/", 0) != 0) continue;
    std::string folder = "/sys/fs/cgroup";
    std::stringstream parts(line.substr(4));
    for (std::string part; std::getline(parts, part, '/');) {
      if (part.empty() || part == "..") continue;
      folder += "/" + part;
      quota = tighter(quota, quota_v2(folder));
    }
  }
  return quota;
}

int available_cores() {
  const size_t allowed = allowed_cores().size();
  const double cores = allowed > 0 ? static_cast<double>(allowed) : std::max(1u, std::thread::hardware_concurrency());
  const double quota = cpu_quota();
  return std::max(1, static_cast<int>(quota > 0 ? std::min(cores, std::ceil(quota)) : cores));
}

void bind_to_core(int core) {
#if defined(__linux__)
  constexpr int kMost = 8192;
  cpu_set_t* set = CPU_ALLOC(kMost);
  if (!set) return;
  const size_t bytes = CPU_ALLOC_SIZE(kMost);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(static_cast<size_t>(core), bytes, set);
  sched_setaffinity(0, bytes, set);
  CPU_FREE(set);
#else
  static_cast<void>(core);
#endif
}

}  // namespace mill
