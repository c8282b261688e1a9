#include "pack.h"

#include <atomic>
#include <cmath>
#include <cstring>

#include "convert.h"
#include "failure.h"

namespace mill {
namespace {

// Finds which part and element is not finite, for the message.
[[noreturn]] void refuse(const WeightPart& part, int64_t element) {
  throw Failure("weights_invalid", "Tensor " + part.name + " holds NaN or infinity at element " + std::to_string(element) + ".");
}

void widen_row(const WeightPart& part, int64_t row, int64_t width, float* out) {
  const uint8_t* from = part.data + row * width * element_bytes(part.type);
  if (part.type == WeightType::f32) {
    std::memcpy(out, from, static_cast<size_t>(width) * 4);
    return;
  }
  for (int64_t i = 0; i < width; i++) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, 2);
    out[i] = part.type == WeightType::bf16 ? bf16_to_float(bits) : f16_to_float(bits);
  }
}

// Index of the first element that is not finite, or -1.
int64_t first_not_finite(const float* row, int64_t width) {
  uint32_t any = 0;
  for (int64_t i = 0; i < width; i++) any |= (std::bit_cast<uint32_t>(row[i]) & 0x7f800000u) == 0x7f800000u ? 1 : 0;
  if (!any) return -1;
  int64_t i = 0;
  while (std::isfinite(row[i])) i++;
  return i;
}

struct RowSource {
  const WeightPart* part;
  int64_t row;
};

RowSource find_row(const std::vector<WeightPart>& parts, int64_t row) {
  size_t index = 0;
  while (row >= parts[index].rows) row -= parts[index++].rows;
  return {&parts[index], row};
}

void pack_panel_f32(const float* rows, int64_t count, int64_t k, float* out) {
  for (int64_t r = 0; r < count; r++) {
    for (int64_t i = 0; i < k; i++) out[i * kPanel + r] = rows[r * k + i];
  }
}

bool pack_panel_f16(const float* rows, int64_t count, int64_t k, uint16_t* out) {
  uint16_t overflow = 0;
  for (int64_t r = 0; r < count; r++) {
    for (int64_t i = 0; i < k; i++) {
      const uint16_t bits = float_to_f16(rows[r * k + i]);
      overflow |= (bits & 0x7c00u) == 0x7c00u ? 1 : 0;
      out[i * kPanel + r] = bits;
    }
  }
  return overflow == 0;
}

bool pack_panel_bf16(const float* rows, int64_t count, int64_t k, uint16_t* out) {
  uint16_t overflow = 0;
  for (int64_t r = 0; r < count; r++) {
    for (int64_t i = 0; i < k; i++) {
      const uint16_t bits = float_to_bf16(rows[r * k + i]);
      overflow |= (bits & 0x7f80u) == 0x7f80u ? 1 : 0;
      out[i / 2 * 2 * kPanel + 2 * r + i % 2] = bits;
    }
  }
  return overflow == 0;
}

// Vectors of the compiler, which become the machine's own.
typedef uint32_t Words __attribute__((vector_size(16)));
typedef uint16_t Halves __attribute__((vector_size(16)));

// Pairs of k of 4 rows, 4 pairs each, to [pair][row]. Adds to `bad` where an element is not finite.
void transpose_pairs(const uint8_t* const rows[4], int64_t byte, uint32_t* out, Halves& bad) {
  Words v[4];
  for (int r = 0; r < 4; r++) {
    std::memcpy(&v[r], rows[r] + byte, 16);
    Halves halves;
    std::memcpy(&halves, &v[r], 16);
    bad |= reinterpret_cast<Halves>((halves & 0x7f80) == 0x7f80);
  }
  const Words low01 = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), high01 = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const Words low23 = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), high23 = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  const Words pairs[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                          __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  for (int i = 0; i < 4; i++) std::memcpy(out + i * kPanel, &pairs[i], 16);
}

// bf16 rows that stay bf16 are only moved: 16 rows, k a multiple of 8. False when an element is not finite.
bool move_panel_bf16(const uint8_t* const rows[kPanel], int64_t k, uint16_t* out) {
  Halves bad = {};
  uint32_t* pairs = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < k; i += 8, pairs += 4 * kPanel) {
    for (int r = 0; r < kPanel; r += 4) transpose_pairs(rows + r, 2 * i, pairs + r, bad);
  }
  uint64_t any[2];
  std::memcpy(any, &bad, 16);
  return (any[0] | any[1]) == 0;
}

void pack_panel_i8(const float* rows, int64_t count, int64_t k, int8_t* out, float* scales, int32_t* sums) {
  for (int64_t r = 0; r < count; r++) {
    float most = 0;
    for (int64_t i = 0; i < k; i++) most = std::max(most, std::fabs(rows[r * k + i]));
    float scale = most / 127;
    if (!(scale > 0)) scale = 1;
    int32_t sum = 0;
    for (int64_t i = 0; i < k; i++) {
      const float q = std::min(127.0f, std::max(-127.0f, std::nearbyint(rows[r * k + i] / scale)));
      const int8_t byte = static_cast<int8_t>(q);
      sum += byte;
      out[i / 4 * 4 * kPanel + 4 * r + i % 4] = byte;
    }
    scales[r] = scale;
    sums[r] = sum * 128;
  }
}

struct Layout {
  size_t data_bytes;
  size_t scales_offset;
  size_t sums_offset;
  size_t bytes;
};

Layout layout_of(int64_t n, int64_t k, WeightType type) {
  const size_t columns = static_cast<size_t>((n + kPanel - 1) / kPanel * kPanel);
  Layout layout;
  layout.data_bytes = columns * static_cast<size_t>(padded_k(type, k) * element_bytes(type));
  layout.scales_offset = (layout.data_bytes + 63) / 64 * 64;
  layout.sums_offset = layout.scales_offset + (type == WeightType::i8 ? columns * 4 : 0);
  layout.bytes = layout.sums_offset + (type == WeightType::i8 ? columns * 4 : 0);
  return layout;
}

// Moves a panel whose rows are bf16 in the checkpoint; false when they are not, or not finite.
bool move_panel(const std::vector<WeightPart>& parts, int64_t begin, int64_t k, uint16_t* out) {
  const uint8_t* rows[kPanel];
  for (int64_t r = 0; r < kPanel; r++) {
    const RowSource source = find_row(parts, begin + r);
    if (source.part->type != WeightType::bf16) return false;
    rows[r] = source.part->data + source.row * k * 2;
  }
  return move_panel_bf16(rows, k, out);
}

// Packs panel `panel` through `rows`, 16 rows of k fp32.
void pack_panel(const std::vector<WeightPart>& parts, LinearWeight& weight, const Layout& layout, int64_t panel, float* rows) {
  const PackedLinear& p = weight.packed;
  const int64_t begin = panel * kPanel;
  const int64_t count = std::min<int64_t>(kPanel, p.n - begin);
  uint8_t* out = weight.memory.data() + panel * kPanel * p.k_padded * element_bytes(p.type);
  if (p.type == WeightType::bf16 && count == kPanel && p.k % 8 == 0 && move_panel(parts, begin, p.k, reinterpret_cast<uint16_t*>(out))) return;
  for (int64_t r = 0; r < count; r++) {
    const RowSource source = find_row(parts, begin + r);
    widen_row(*source.part, source.row, p.k, rows + r * p.k);
    const int64_t bad = first_not_finite(rows + r * p.k, p.k);
    if (bad >= 0) refuse(*source.part, source.row * p.k + bad);
  }
  bool fits = true;
  switch (p.type) {
    case WeightType::f32: pack_panel_f32(rows, count, p.k, reinterpret_cast<float*>(out)); break;
    case WeightType::f16: fits = pack_panel_f16(rows, count, p.k, reinterpret_cast<uint16_t*>(out)); break;
    case WeightType::bf16: fits = pack_panel_bf16(rows, count, p.k, reinterpret_cast<uint16_t*>(out)); break;
    case WeightType::i8:
      pack_panel_i8(rows, count, p.k, reinterpret_cast<int8_t*>(out), weight.memory.as<float>(layout.scales_offset) + begin,
                    weight.memory.as<int32_t>(layout.sums_offset) + begin);
      break;
  }
  if (!fits) throw Failure("weights_invalid", "Tensor " + find_row(parts, begin).part->name + " holds values beyond the range of the weight type.");
}

}  // namespace

LinearWeight pack_linear(ThreadTeam& team, const std::vector<WeightPart>& parts, int64_t k, WeightType type) {
  int64_t n = 0;
  for (const WeightPart& part : parts) n += part.rows;
  // An int32 sum of products of int8 must not overflow.
  require(n > 0 && k > 0 && k <= 131072, "a linear weight has rows, and at most 131072 columns");
  const Layout layout = layout_of(n, k, type);
  LinearWeight weight{{type, n, k, padded_k(type, k), nullptr, nullptr, nullptr}, Region(layout.bytes, "weights")};
  weight.packed.data = weight.memory.data();
  weight.packed.scales = weight.memory.as<float>(layout.scales_offset);
  weight.packed.column_sums = weight.memory.as<int32_t>(layout.sums_offset);
  std::atomic<int64_t> next{0};
  const int64_t panels = weight.packed.panels();
  team.run([&](int) {
    std::vector<float> rows(static_cast<size_t>(kPanel * k));
    for (int64_t panel = next++; panel < panels; panel = next++) pack_panel(parts, weight, layout, panel, rows.data());
  });
  return weight;
}

void widen_parts(const std::vector<WeightPart>& parts, int64_t width, float* out) {
  for (const WeightPart& part : parts) {
    for (int64_t row = 0; row < part.rows; row++, out += width) {
      widen_row(part, row, width, out);
      const int64_t bad = first_not_finite(out, width);
      if (bad >= 0) refuse(part, row * width + bad);
    }
  }
}

void check_finite(const WeightPart& part, int64_t begin, int64_t end, int64_t width) {
  std::vector<float> row(static_cast<size_t>(width));
  for (int64_t r = begin; r < end; r++) {
    widen_row(part, r, width, row.data());
    const int64_t bad = first_not_finite(row.data(), width);
    if (bad >= 0) refuse(part, r * width + bad);
  }
}

}  // namespace mill
