// Packed weights: int8 against its definition, and the file that keeps them.
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "../runtime/convert.h"
#include "../runtime/failure.h"
#include "test.h"

namespace mill::test {
namespace {

// Each block of 64 times a Hadamard matrix, over 64, as src/quant/rotation.ts has it.
std::vector<float> rotated(const float* row, int64_t k, int64_t padded) {
  std::vector<float> out(static_cast<size_t>(padded), 0.0f);
  for (int64_t i = 0; i < k; i++) out[static_cast<size_t>(i)] = row[i] / 64;
  for (size_t half = 1; half < 64; half *= 2) {
    for (size_t i = 0; i < out.size(); i++) {
      if (i & half) continue;
      const float a = out[i], b = out[i + half];
      out[i] = a + b;
      out[i + half] = a - b;
    }
  }
  return out;
}

// Of the rotated row: scale = absmax / 127, or 1; q = round(x / scale), ties to even.
void check_int8(const std::vector<float>& data, int64_t n, int64_t k) {
  ThreadTeam team(2);
  const LinearWeight weight = pack_linear(team, {{"w", reinterpret_cast<const uint8_t*>(data.data()), WeightType::f32, n}}, k, WeightType::i8);
  const int8_t* packed = static_cast<const int8_t*>(weight.packed.data);
  const int64_t padded = weight.packed.k_padded;
  for (int64_t r = 0; r < weight.packed.panels() * kPanel; r++) {
    const std::vector<float> row = r < n ? rotated(data.data() + r * k, k, padded) : std::vector<float>(static_cast<size_t>(padded), 0.0f);
    float most = 0;
    for (const float x : row) most = std::max(most, std::fabs(x));
    const float scale = most / 127 > 0 ? most / 127 : 1;
    for (int64_t i = 0; i < padded; i++) {
      const float q = std::min(127.0f, std::max(-127.0f, std::nearbyint(row[static_cast<size_t>(i)] / scale)));
      const int8_t found = packed[r / kPanel * kPanel * padded + i / 4 * 4 * kPanel + r % kPanel * 4 + i % 4];
      check(found == static_cast<int8_t>(q), "row " + std::to_string(r) + ", element " + std::to_string(i) + " is " + std::to_string(found));
    }
    if (r < n) check(weight.packed.scales[r] == scale, "scale of row " + std::to_string(r));
  }
}

TEST("packing int8 follows its definition: ties, zeros, the smallest and the largest numbers") {
  Random random(11);
  check_int8(random.floats(16 * 64), 16, 64);
  check_int8(random.floats(35 * 131), 35, 131);
  std::vector<float> ties(18 * 300);
  for (size_t i = 0; i < ties.size(); i++) ties[i] = static_cast<float>(static_cast<int>(i % 509) - 254) * 0.5f;
  check_int8(ties, 18, 300);
  std::vector<float> edges(17 * 40, 0.0f);
  const float special[] = {3.4e38f, -3.4e38f, 1e-45f, -1e-45f, 6e-43f, -0.0f, 1.17549435e-38f};
  for (size_t row = 1; row < 17; row++) {
    for (size_t i = 0; i < 40; i++) edges[row * 40 + i] = row % 7 == i % 7 ? special[row % 7] : special[row % 7] * (static_cast<float>(i) / 41.0f);
  }
  check_int8(edges, 17, 40);
}

TEST("packing goes through all of a weight larger than a slice, and says which rows are done") {
  ThreadTeam team(2);
  const int64_t n = 40, k = 131072;
  std::vector<uint16_t> data(static_cast<size_t>(n * k));
  for (size_t i = 0; i < data.size(); i++) data[i] = float_to_bf16(static_cast<float>(i % 251));
  std::vector<int64_t> ends = {0};
  const LinearWeight weight = pack_linear(team, {{"w", reinterpret_cast<const uint8_t*>(data.data()), WeightType::bf16, n}}, k, WeightType::bf16,
                                          {false, [&](int64_t begin, int64_t end) {
                                             check(begin == ends.back() && end > begin, "rows are reported in order");
                                             ends.push_back(end);
                                           }});
  check(ends.back() == n, "not all rows were reported");
  const uint16_t* packed = static_cast<const uint16_t*>(weight.packed.data);
  for (const int64_t row : {int64_t{0}, int64_t{17}, n - 1}) {
    for (int64_t i = 0; i < k; i += 977) {
      const uint16_t found = packed[row / kPanel * kPanel * k + i / 2 * 2 * kPanel + row % kPanel * 2 + i % 2];
      check(found == data[static_cast<size_t>(row * k + i)], "row " + std::to_string(row) + " differs");
    }
  }
}

std::string scratch(const char* name) {
  const char* folder = std::getenv("TMPDIR");
  return std::string(folder ? folder : "/tmp") + "/tokenmill_packed_" + std::to_string(getpid()) + name;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

PackedWriter::State wait(const PackedWriter& writer) {
  while (writer.state() == PackedWriter::State::writing) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return writer.state();
}

TEST("packed writer: pieces lie where they should, with zeros between them") {
  const std::string path = scratch("file"), temporary = scratch("temporary");
  // Over the edges of windows and of blocks of zeros.
  const std::vector<uint8_t> first(20 << 20, 7), second(70000, 9);
  const uint64_t at = (21 << 20) + 64, bytes = at + second.size();
  {
    const PackedWriter writer(temporary, path, "header", {{4096, first.data(), first.size()}, {at, second.data(), second.size()}}, bytes);
    check(wait(writer) == PackedWriter::State::done, "not written");
  }
  std::string expected(bytes, '\0');
  expected.replace(0, 6, "header");
  std::fill_n(expected.begin() + 4096, first.size(), 7);
  std::fill_n(expected.begin() + static_cast<int64_t>(at), second.size(), 9);
  check(read(path) == expected, "other bytes");
  check(access(temporary.c_str(), F_OK) != 0, "the temporary file is still there");
  unlink(path.c_str());
}

TEST("packed writer: refuses pieces that overlap, leave the file or end before it, and a file that somebody else makes") {
  const std::string path = scratch("file"), temporary = scratch("temporary");
  const uint8_t data[64] = {};
  const auto write = [&](std::vector<PackedWriter::Piece> pieces, uint64_t bytes) { const PackedWriter writer(temporary, path, "header", std::move(pieces), bytes); };
  check_fails("assertion", [&] { write({{0, data, 64}}, 64); });
  check_fails("assertion", [&] { write({{64, data, 64}, {100, data, 64}}, 164); });
  check_fails("assertion", [&] { write({{64, data, 64}}, 100); });
  check_fails("assertion", [&] { write({{64, data, ~uint64_t{0}}}, 100); });
  check_fails("assertion", [&] { write({{64, data, 64}}, 200); });
  check_fails("internal", [&] { const PackedWriter writer("/nowhere/file", path, "header", {}, 6); });
  std::ofstream(temporary) << "another";
  check_fails("internal", [&] { write({}, 6); });
  check(read(temporary) == "another", "another's file was touched");
  unlink(temporary.c_str());
}

TEST("packed writer: what cannot be renamed, or is given up, leaves nothing") {
  const std::string temporary = scratch("temporary"), folder = scratch("folder");
  check(mkdir(folder.c_str(), 0700) == 0, "no folder");
  {
    const PackedWriter writer(temporary, folder, "header", {}, 6);
    check(wait(writer) == PackedWriter::State::failed, "renamed over a folder");
  }
  check(access(temporary.c_str(), F_OK) != 0, "the temporary file is still there");
  rmdir(folder.c_str());
  const std::vector<uint8_t> large(64 << 20);
  const std::string path = scratch("file");
  { const PackedWriter writer(temporary, path, "header", {{64, large.data(), large.size()}}, 64 + large.size()); }
  check(access(temporary.c_str(), F_OK) != 0, "the temporary file is still there");
  check(access(path.c_str(), F_OK) != 0 || read(path).size() == 64 + large.size(), "half a file");
  unlink(path.c_str());
}

}  // namespace
}  // namespace mill::test
