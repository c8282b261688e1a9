#include "simd_neon.h"
#include "table.h"

namespace mill {
extern const KernelTable kNeonDotprodTable;
constinit const KernelTable kNeonDotprodTable = neon_dotprod::base_table("neon_dotprod");
}  // namespace mill
