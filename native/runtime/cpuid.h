// What this processor can do and is.
#pragma once
#include <string>
#include <vector>

#include "../kernels/kernel_table.h"

namespace mill {

struct IsaLevel {
  const KernelTable* table;
  bool available;  // on this processor
  bool emulated;   // portable code with the exact semantics of an instruction set, for tests
};

// Every level compiled in, best first.
std::vector<IsaLevel> isa_levels();
// The level of that name among those compiled in; null when there is none or this processor cannot run it.
const KernelTable* find_isa(const std::string& name);

struct CpuInfo {
  std::string name;
  std::vector<std::string> features;
  int64_t l1d_bytes = 0;
  int64_t l2_bytes = 0;
  int64_t l3_bytes = 0;
};
CpuInfo cpu_info();

}  // namespace mill
