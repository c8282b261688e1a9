#include "simd_emulated.h"
#include "table.h"

namespace mill {
extern const KernelTable kAvx512EmulatedTable;
constinit const KernelTable kAvx512EmulatedTable = avx512_emulated::base_table("avx512_emulated");
}  // namespace mill
