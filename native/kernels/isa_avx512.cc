#include "simd_avx512.h"
#include "table.h"

namespace mill {
extern const KernelTable kAvx512Table;
constinit const KernelTable kAvx512Table = avx512::base_table("avx512");
}  // namespace mill
