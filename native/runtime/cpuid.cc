#include "cpuid.h"

#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace mill {

#if defined(__x86_64__)
extern const KernelTable kAvx2Table, kAvx512Table, kAvx512Bf16Table, kAmxTable;
#elif defined(__aarch64__)
extern const KernelTable kNeonTable, kNeonDotprodTable, kNeonI8mmTable;
#endif
extern const KernelTable kAvx512EmulatedTable, kAvx512Bf16EmulatedTable, kAmxEmulatedTable;

namespace {

#if defined(__x86_64__)

struct Features {
  bool avx2 = false;
  bool avx512 = false;
  bool avx512_bf16 = false;
  bool amx = false;
};

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool bit(unsigned word, int index) { return (word >> index) & 1u; }

// Register state that the system saves at a context switch; an instruction set without it must not be used.
uint64_t enabled_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux hands out the 8 KiB of tile state only to processes that ask.
bool request_amx() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Features detect() {
  Features f;
  const Registers basic = cpuid(1, 0), extended = cpuid(7, 0), more = cpuid(7, 1);
  if (!bit(basic.ecx, 27)) return f;  // OSXSAVE
  const uint64_t state = enabled_state();
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6, tiles = (state & 0x60000) == 0x60000;
  f.avx2 = ymm && bit(basic.ecx, 12) && bit(basic.ecx, 29) && bit(extended.ebx, 5);
  f.avx512 = f.avx2 && zmm && bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) && bit(extended.ebx, 31);
  f.avx512_bf16 = f.avx512 && bit(more.eax, 5) && bit(extended.ecx, 11);
  f.amx = f.avx512_bf16 && tiles && bit(extended.edx, 22) && bit(extended.edx, 24) && bit(extended.edx, 25) && request_amx();
  return f;
}

std::string processor_name() {
  std::string name;
  for (unsigned leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
    const Registers r = cpuid(leaf, 0);
    for (const unsigned word : {r.eax, r.ebx, r.ecx, r.edx}) name.append(reinterpret_cast<const char*>(&word), 4);
  }
  name.resize(name.find('\0') == std::string::npos ? name.size() : name.find('\0'));
  const size_t begin = name.find_first_not_of(' '), end = name.find_last_not_of(' ');
  return begin == std::string::npos ? "unknown" : name.substr(begin, end - begin + 1);
}

#elif defined(__aarch64__)

struct Features {
  bool dotprod = false;
  bool i8mm = false;  // with bf16, as in ARMv8.6
};

#if defined(__linux__)
Features detect() {
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  constexpr unsigned long kAsimddp = 1ul << 20, kI8mmBf16 = 1ul << 13 | 1ul << 14;
  Features f;
  f.dotprod = (first & kAsimddp) != 0;
  f.i8mm = f.dotprod && (second & kI8mmBf16) == kI8mmBf16;
  return f;
}
#elif defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}

Features detect() {
  Features f;
  f.dotprod = has("hw.optional.arm.FEAT_DotProd");
  f.i8mm = f.dotprod && has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16");
  return f;
}
#else
Features detect() { return {}; }
#endif

#endif

int64_t cache_bytes(int level) {
  for (int index = 0; index < 8; index++) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    std::ifstream level_file(folder + "level"), type_file(folder + "type"), size_file(folder + "size");
    int found = 0;
    std::string type;
    int64_t size = 0;
    char unit = 0;
    if (!(level_file >> found && type_file >> type && size_file >> size)) return 0;
    size_file >> unit;
    if (found == level && type != "Instruction") return size * (unit == 'K' ? 1024 : unit == 'M' ? 1024 * 1024 : 1);
  }
  return 0;
}

}  // namespace

std::vector<IsaLevel> isa_levels() {
  std::vector<IsaLevel> levels;
#if defined(__x86_64__)
  static const Features features = detect();
  levels.push_back({&kAmxTable, features.amx, false});
  levels.push_back({&kAvx512Bf16Table, features.avx512_bf16, false});
  levels.push_back({&kAvx512Table, features.avx512, false});
  levels.push_back({&kAvx2Table, features.avx2, false});
#elif defined(__aarch64__)
  static const Features features = detect();
  levels.push_back({&kNeonI8mmTable, features.i8mm, false});
  levels.push_back({&kNeonDotprodTable, features.dotprod, false});
  levels.push_back({&kNeonTable, true, false});
#endif
  for (const KernelTable* table : {&kAmxEmulatedTable, &kAvx512Bf16EmulatedTable, &kAvx512EmulatedTable}) levels.push_back({table, true, true});
  return levels;
}

const KernelTable* find_isa(const std::string& name) {
  for (const IsaLevel& level : isa_levels()) {
    if (level.available && name == level.table->name) return level.table;
  }
  return nullptr;
}

CpuInfo cpu_info() {
  CpuInfo info;
#if defined(__x86_64__)
  info.name = processor_name();
  const Features f = detect();
  if (f.avx2) info.features = {"avx2", "fma", "f16c"};
  if (f.avx512) info.features.insert(info.features.end(), {"avx512f", "avx512bw", "avx512vl", "avx512dq"});
  if (f.avx512_bf16) info.features.insert(info.features.end(), {"avx512_bf16", "avx512_vnni"});
  if (f.amx) info.features.insert(info.features.end(), {"amx_tile", "amx_bf16", "amx_int8"});
#elif defined(__aarch64__)
  info.name = "arm64";
  const Features f = detect();
  info.features = {"neon"};
  if (f.dotprod) info.features.push_back("dotprod");
  if (f.i8mm) info.features.insert(info.features.end(), {"i8mm", "bf16"});
#endif
  info.l1d_bytes = cache_bytes(1);
  info.l2_bytes = cache_bytes(2);
  info.l3_bytes = cache_bytes(3);
  return info;
}

}  // namespace mill
