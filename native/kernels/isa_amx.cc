#define MILL_VNNI
#define MILL_AMX
#include "simd_avx512.h"
#include "tile_amx.h"
#include "table.h"

namespace mill {
extern const KernelTable kAmxTable;
constinit const KernelTable kAmxTable = amx::base_table("amx");
}  // namespace mill
