#define MILL_VNNI
#include "simd_avx512.h"
#include "table.h"

namespace mill {
extern const KernelTable kAvx512Bf16Table;
constinit const KernelTable kAvx512Bf16Table = avx512_bf16::base_table("avx512_bf16");
}  // namespace mill
