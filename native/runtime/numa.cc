#include "numa.h"

#include <unistd.h>

#include <algorithm>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace mill {
namespace {

int64_t page_bytes() { return static_cast<int64_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

Range pages_of_share(int64_t panels, int64_t panel_bytes, int64_t bytes, int member, int members) {
  const Range share = share_of(panels, member, members);
  const int64_t page = page_bytes();
  const auto start_of_page = [&](int64_t panel) { return panel * panel_bytes / page * page; };
  return {start_of_page(share.begin), member + 1 == members ? bytes : start_of_page(share.end)};
}

void touch_shares(ThreadTeam& team, uint8_t* data, int64_t panels, int64_t panel_bytes, int64_t bytes) {
  const int64_t page = page_bytes();
  team.run([&](int member) {
    const Range own = pages_of_share(panels, panel_bytes, bytes, member, team.members());
    for (int64_t at = own.begin; at < own.end; at += page) *static_cast<volatile uint8_t*>(data + at) = 0;
  });
}

bool several_nodes(const std::vector<int>& nodes) {
  return std::any_of(nodes.begin(), nodes.end(), [&](int node) { return node != nodes.front(); });
}

// By system call, since libnuma may not be there. Sources: mbind(2), get_mempolicy(2).
bool interleave(void* data, size_t bytes, const std::vector<int>& nodes) {
#if defined(__linux__)
  constexpr int kInterleave = 3;  // MPOL_INTERLEAVE
  constexpr size_t kBits = 8 * sizeof(unsigned long);
  std::vector<unsigned long> mask;
  for (const int node : nodes) {
    const size_t bit = static_cast<size_t>(node);
    mask.resize(std::max(mask.size(), bit / kBits + 1));
    mask[bit / kBits] |= 1ul << bit % kBits;
  }
  // The kernel reads one bit less than it is told.
  return syscall(SYS_mbind, data, bytes, kInterleave, mask.data(), mask.size() * kBits + 1, 0) == 0;
#else
  static_cast<void>(data), static_cast<void>(bytes), static_cast<void>(nodes);
  return false;
#endif
}

int node_of(const void* data) {
#if defined(__linux__)
  constexpr unsigned long kNodeOfAddress = 1 | 2;  // MPOL_F_NODE | MPOL_F_ADDR
  int node = -1;
  return syscall(SYS_get_mempolicy, &node, nullptr, 0, data, kNodeOfAddress) == 0 ? node : -1;
#else
  static_cast<void>(data);
  return -1;
#endif
}

}  // namespace mill
