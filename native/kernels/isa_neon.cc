#include "simd_neon.h"
#include "table.h"

namespace mill {
extern const KernelTable kNeonTable;
constinit const KernelTable kNeonTable = neon::base_table("neon");
}  // namespace mill
