#define MILL_VNNI
#define MILL_AMX
#include "simd_emulated.h"
#include "tile_emulated.h"
#include "table.h"

namespace mill {
extern const KernelTable kAmxEmulatedTable;
constinit const KernelTable kAmxEmulatedTable = amx_emulated::base_table("amx_emulated");
}  // namespace mill
