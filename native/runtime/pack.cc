#include "pack.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "../kernels/rotation.h"
#include "convert.h"
#include "failure.h"
#include "mapped_file.h"
#include "numa.h"

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
  const auto halves = [from](int64_t i) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, 2);
    return bits;
  };
  if (part.type == WeightType::bf16) {
    for (int64_t i = 0; i < width; i++) out[i] = bf16_to_float(halves(i));
  } else {
    for (int64_t i = 0; i < width; i++) out[i] = f16_to_float(halves(i));
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

// Words of 4 rows, 4 words each, to [word][row].
void transpose_words(const Words v[4], uint32_t* out) {
  const Words low01 = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), high01 = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const Words low23 = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), high23 = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  const Words words[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                          __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  for (int i = 0; i < 4; i++) std::memcpy(out + i * kPanel, &words[i], 16);
}

// Pairs of k of 4 rows, 4 pairs each, to [pair][row]. Adds to `bad` where an element is not finite.
void transpose_pairs(const uint8_t* const rows[4], int64_t byte, uint32_t* out, Halves& bad) {
  Words v[4];
  for (int r = 0; r < 4; r++) {
    std::memcpy(&v[r], rows[r] + byte, 16);
    Halves halves;
    std::memcpy(&halves, &v[r], 16);
    bad |= reinterpret_cast<Halves>((halves & 0x7f80) == 0x7f80);
  }
  transpose_words(v, out);
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

// The bits of a number without its sign order as the number does, and the compiler makes vectors of integers only.
float largest_magnitude(const float* row, int64_t k) {
  int32_t most = 0;
  for (int64_t i = 0; i < k; i++) {
    const int32_t magnitude = std::bit_cast<int32_t>(row[i]) & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  return std::bit_cast<float>(most);
}

// round(x / scale), ties to even, within [-127, 127].
void quantise_row(const float* row, int64_t k, float scale, int8_t* out) {
  // 1.5 * 2^23: adding it leaves no fraction bits, so the addition rounds, and the integer lies in the lowest bits.
  constexpr float kRounder = 12582912.0f;
  for (int64_t i = 0; i < k; i++) {
    // A denormal scale is so coarse that a quotient reaches 190. Bounded as an integer: of that the compiler makes vectors.
    const int32_t whole = std::bit_cast<int32_t>(row[i] / scale + kRounder) - std::bit_cast<int32_t>(kRounder);
    out[i] = static_cast<int8_t>(std::min(127, std::max(-127, whole)));
  }
}

// A row in blocks as rotation.h has them, over their size: the product with a rotated x is that of the row with x.
void rotate_row(const float* row, int64_t k, std::vector<float>& out) {
  const int64_t padded = (k + kRotation - 1) / kRotation * kRotation;
  out.assign(static_cast<size_t>(padded), 0.0f);
  for (int64_t i = 0; i < k; i++) out[static_cast<size_t>(i)] = row[i] * (1.0f / kRotation);
  for (int64_t i = 0; i < padded; i += kRotation) rotate_block(out.data() + i);
}

void pack_panel_i8(const float* rows, int64_t count, int64_t k, int8_t* out, float* scales) {
  const int64_t padded = padded_k(WeightType::i8, k);
  thread_local std::vector<int8_t> quantised;
  thread_local std::vector<float> rotated;
  quantised.assign(static_cast<size_t>(kPanel * padded), 0);
  for (int64_t r = 0; r < count; r++) {
    rotate_row(rows + r * k, k, rotated);
    const float scale = largest_magnitude(rotated.data(), padded) / 127;
    scales[r] = scale > 0 ? scale : 1;
    quantise_row(rotated.data(), padded, scales[r], quantised.data() + r * padded);
  }
  uint32_t* words = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < padded; i += 16, words += 4 * kPanel) {
    for (int64_t r = 0; r < kPanel; r += 4) {
      Words v[4];
      for (int64_t j = 0; j < 4; j++) std::memcpy(&v[j], quantised.data() + (r + j) * padded + i, 16);
      transpose_words(v, words + r);
    }
  }
}

// A group's weights are about scale * q + minimum. In fp64 in this order, as src/quant/int4_group.ts has it.
struct Line {
  double scale;
  double minimum;
};

double int4_quotient(double w, const Line& line) {
  if (!(line.scale > 0)) return 0;
  const double steps = (w - line.minimum) / line.scale + 0.5;
  return steps < 0 ? 0 : steps >= 15 ? 15 : static_cast<double>(static_cast<int32_t>(steps));
}

// The range divided into 15 steps, then twice the line that fits the weights best for the quotients of the one before.
Line fit_line(const float* w, int64_t count) {
  double low = static_cast<double>(w[0]), high = low;
  for (int64_t i = 1; i < count; i++) {
    low = std::min(low, static_cast<double>(w[i]));
    high = std::max(high, static_cast<double>(w[i]));
  }
  Line line{(high - low) / 15, low};
  for (int fit = 0; fit < 2 && line.scale > 0; fit++) {
    double q1 = 0, q2 = 0, w1 = 0, qw = 0;
    for (int64_t i = 0; i < count; i++) {
      const double x = static_cast<double>(w[i]), q = int4_quotient(x, line);
      q1 += q;
      q2 += q * q;
      w1 += x;
      qw += q * x;
    }
    const double n = static_cast<double>(count);
    line.scale = (n * qw - q1 * w1) / (n * q2 - q1 * q1);
    line.minimum = (w1 - line.scale * q1) / n;
  }
  return line;
}

// The smallest unit in which a row's scales and minimums fit 8 bits; 1 for zeros, also where fp32 has no such unit.
float int4_unit(const std::vector<Line>& lines) {
  double unit = 0;
  for (const Line& line : lines) unit = std::max(unit, std::max(line.scale / 255, std::abs(line.minimum) / (127 * kMinimumStepI4)));
  const float rounded = static_cast<float>(unit);
  return rounded > 0 ? rounded : 1;
}

struct Int4Group {
  uint8_t scale;
  int8_t minimum;
  uint8_t quotients[128];
};

// The scale in whole units, the minimum fitted to its quotients and rounded, then the quotients of both.
Int4Group round_group(const float* w, int64_t count, const Line& line, double unit) {
  Int4Group group{};
  group.scale = static_cast<uint8_t>(std::min(255.0, std::floor(line.scale / unit + 0.5)));
  Line rounded{group.scale * unit, line.minimum};
  double q1 = 0, w1 = 0;
  for (int64_t i = 0; i < count; i++) {
    q1 += int4_quotient(static_cast<double>(w[i]), rounded);
    w1 += static_cast<double>(w[i]);
  }
  const double fitted = (w1 - rounded.scale * q1) / static_cast<double>(count) / (kMinimumStepI4 * unit);
  group.minimum = static_cast<int8_t>(std::max(-128.0, std::min(127.0, std::floor(fitted + 0.5))));
  rounded.minimum = group.minimum * kMinimumStepI4 * unit;
  for (int64_t i = 0; i < count; i++) group.quotients[i] = static_cast<uint8_t>(int4_quotient(static_cast<double>(w[i]), rounded));
  return group;
}

// `k` is where in a row the group begins; column `r` of the panel.
void store_group(const Int4Group& encoded, int64_t group, int64_t k, int64_t r, uint8_t* panel) {
  const int64_t span = int4_span(group), groups = span / group, index = k % span / group;
  uint8_t* header = panel + k / span * int4_span_bytes(group);
  header[index * kPanel + r] = encoded.scale;
  header[groups * kPanel + r * groups + index] = static_cast<uint8_t>(encoded.minimum);
  uint8_t* quads = header + int4_header_bytes(group) + k % span / 2 * kPanel + 4 * r;
  for (int64_t i = 0; i < group; i++) quads[i / 8 * 4 * kPanel + i % 4] |= static_cast<uint8_t>(encoded.quotients[i] << (i % 8 >= 4 ? 4 : 0));
}

void pack_panel_i4(const float* rows, int64_t count, int64_t k, int64_t group, uint8_t* out, float* units) {
  thread_local std::vector<float> rotated;
  thread_local std::vector<Line> lines;
  for (int64_t r = 0; r < count; r++) {
    rotate_row(rows + r * k, k, rotated);
    const int64_t padded = static_cast<int64_t>(rotated.size());
    lines.clear();
    for (int64_t from = 0; from < padded; from += group) lines.push_back(fit_line(rotated.data() + from, std::min(group, padded - from)));
    units[r] = int4_unit(lines);
    for (int64_t from = 0; from < padded; from += group) {
      const Line& line = lines[static_cast<size_t>(from / group)];
      store_group(round_group(rotated.data() + from, std::min(group, padded - from), line, static_cast<double>(units[r])), group, from, r, out);
    }
  }
}

struct Layout {
  size_t data_bytes;
  size_t scales_offset;
  size_t bytes;
};

Layout layout_of(int64_t n, int64_t k, WeightType type) {
  const size_t columns = static_cast<size_t>((n + kPanel - 1) / kPanel * kPanel);
  Layout layout;
  layout.data_bytes = columns / kPanel * static_cast<size_t>(panel_bytes(type, padded_k(type, k)));
  layout.scales_offset = (layout.data_bytes + 63) / 64 * 64;
  layout.bytes = layout.scales_offset + (type == WeightType::i8 || int4_group(type) ? columns * 4 : 0);
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
  uint8_t* out = weight.memory.data() + panel * panel_bytes(p.type, p.k_padded);
  if (p.type == WeightType::bf16 && count == kPanel && p.k % 8 == 0 && move_panel(parts, begin, p.k, reinterpret_cast<uint16_t*>(out))) return;
  for (int64_t r = 0; r < count; r++) {
    const RowSource source = find_row(parts, begin + r);
    widen_row(*source.part, source.row, p.k, rows + r * p.k);
    const int64_t bad = first_not_finite(rows + r * p.k, p.k);
    if (bad >= 0) refuse(*source.part, source.row * p.k + bad);
  }
  float* scales = weight.memory.as<float>(layout.scales_offset) + begin;
  bool fits = true;
  switch (p.type) {
    case WeightType::f32: pack_panel_f32(rows, count, p.k, reinterpret_cast<float*>(out)); break;
    case WeightType::f16: fits = pack_panel_f16(rows, count, p.k, reinterpret_cast<uint16_t*>(out)); break;
    case WeightType::bf16: fits = pack_panel_bf16(rows, count, p.k, reinterpret_cast<uint16_t*>(out)); break;
    case WeightType::i8: pack_panel_i8(rows, count, p.k, reinterpret_cast<int8_t*>(out), scales); break;
    case WeightType::i4_g32:
    case WeightType::i4_g64:
    case WeightType::i4_g128: pack_panel_i4(rows, count, p.k, int4_group(p.type), out, scales); break;
  }
  if (!fits) throw Failure("weights_invalid", "Tensor " + find_row(parts, begin).part->name + " holds values beyond the range of the weight type.");
}

// Source bytes packed between two reports of rows that are done with, and those that a thread takes at once.
constexpr int64_t kSliceBytes = 64 << 20;
constexpr int64_t kGrabBytes = 1 << 20;

// Maps the pages of rows [begin, end) in one call instead of a fault for every few of them.
void prefault_rows(const std::vector<WeightPart>& parts, int64_t begin, int64_t end, int64_t k) {
  for (const WeightPart& part : parts) {
    const int64_t first = std::max<int64_t>(0, begin), last = std::min(part.rows, end), row = k * element_bytes(part.type);
    if (first < last) prefault(part.data + first * row, static_cast<size_t>((last - first) * row));
    begin -= part.rows;
    end -= part.rows;
  }
}

}  // namespace

size_t packed_bytes(int64_t n, int64_t k, WeightType type) {
  // An int32 sum of products of int8 must not overflow.
  require(n > 0 && n < (int64_t{1} << 31) && k > 0 && k <= 131072, "a linear weight has rows, and at most 131072 columns");
  return layout_of(n, k, type).bytes;
}

LinearWeight view_packed(const uint8_t* bytes, int64_t n, int64_t k, WeightType type) {
  const Layout layout = layout_of(n, k, type);
  const float* scales = reinterpret_cast<const float*>(bytes + layout.scales_offset);
  return {{type, n, k, padded_k(type, k), bytes, scales}, bytes, Region()};
}

LinearWeight pack_linear(ThreadTeam& team, const std::vector<WeightPart>& parts, int64_t k, WeightType type, const PackOptions& options) {
  int64_t n = 0;
  for (const WeightPart& part : parts) n += part.rows;
  Region memory(packed_bytes(n, k, type), "weights");
  LinearWeight weight = view_packed(memory.data(), n, k, type);
  weight.memory = std::move(memory);
  const Layout layout = layout_of(n, k, type);
  const int64_t panels = weight.packed.panels();
  if (options.by_node) touch_shares(team, weight.memory.data(), panels, panel_bytes(type, weight.packed.k_padded), static_cast<int64_t>(layout.bytes));
  const int64_t grab = std::max<int64_t>(1, kGrabBytes / (kPanel * k * 2)), slice = std::max<int64_t>(grab, kSliceBytes / (kPanel * k * 2));
  for (int64_t from = 0; from < panels; from += slice) {
    const int64_t to = std::min(panels, from + slice);
    std::atomic<int64_t> next{from};
    team.run([&](int) {
      std::vector<float> rows(static_cast<size_t>(kPanel * k));
      for (int64_t begin = next.fetch_add(grab); begin < to; begin = next.fetch_add(grab)) {
        const int64_t end = std::min(to, begin + grab);
        prefault_rows(parts, begin * kPanel, end * kPanel, k);
        for (int64_t panel = begin; panel < end; panel++) pack_panel(parts, weight, layout, panel, rows.data());
      }
    });
    if (options.done) options.done(from * kPanel, std::min(n, to * kPanel));
  }
  return weight;
}

LinearWeight copy_packed(ThreadTeam& team, const LinearWeight& weight) {
  const PackedLinear& p = weight.packed;
  const int64_t bytes = static_cast<int64_t>(packed_bytes(p.n, p.k, p.type));
  Region memory(static_cast<size_t>(bytes), "weights");
  team.run([&](int member) {
    const Range own = pages_of_share(p.panels(), panel_bytes(p.type, p.k_padded), bytes, member, team.members());
    std::memcpy(memory.data() + own.begin, weight.bytes + own.begin, static_cast<size_t>(own.end - own.begin));
  });
  LinearWeight copy = view_packed(memory.data(), p.n, p.k, p.type);
  copy.memory = std::move(memory);
  return copy;
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
