#define MILL_MMLA
#include "simd_neon.h"
#include "table.h"

namespace mill {
extern const KernelTable kNeonI8mmTable;
constinit const KernelTable kNeonI8mmTable = neon_i8mm::base_table("neon_i8mm");
}  // namespace mill
