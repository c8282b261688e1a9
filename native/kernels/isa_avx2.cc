#include "simd_avx2.h"
#include "table.h"

namespace mill {
extern const KernelTable kAvx2Table;
constinit const KernelTable kAvx2Table = avx2::base_table("avx2");
}  // namespace mill
