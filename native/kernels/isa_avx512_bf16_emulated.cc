#define MILL_VNNI
#include "simd_emulated.h"
#include "table.h"

namespace mill {
extern const KernelTable kAvx512Bf16EmulatedTable;
constinit const KernelTable kAvx512Bf16EmulatedTable = avx512_bf16_emulated::base_table("avx512_bf16_emulated");
}  // namespace mill
