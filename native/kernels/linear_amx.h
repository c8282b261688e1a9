// linear with bf16 or int8 weights on AMX tiles. A result tile meets the tiles of k in ascending order, and each of its
// elements is computed by itself: neither the number of rows nor where a row lies in a tile matters.
#pragma once
#include "linear_int8.h"

namespace mill::MILL_ISA {

constexpr int kTileRows = 16;
constexpr int64_t kTileBytes = 64;  // of one row of x: 32 bf16 or 64 int8

// Rows of prepared x lie this far apart, padded to whole tiles with rows that are computed and thrown away.
inline int64_t tile_row_bytes(const PackedLinear& weight) { return weight.k_padded * (weight.type == WeightType::bf16 ? 2 : 1); }

inline char* tile_rows(const LinearArgs& args) {
  return static_cast<char*>(args.prepared) + (args.weight.type == WeightType::i8 ? (args.m * 4 + 63) / 64 * 64 : 0);
}

// One row of a result tile: to fp32, bias, and into the columns that exist.
template <bool BF16>
inline void store_tile_row(const LinearArgs& args, const uint32_t* from, int64_t row, int64_t panel) {
  const Target target = linear_target(args, row, panel, true, true);
  for (int j = 0; j < kVectors; j++) {
    const int64_t columns = target.columns - j * W;
    F y;
    if constexpr (BF16) {
      y = Simd::load(reinterpret_cast<const float*>(from + j * W));
    } else {
      const F scales = Simd::mul(Simd::set1(int8_row_scales(args)[row]), Simd::load(args.weight.scales + panel * kPanel + j * W));
      y = Simd::mul(Simd::to_float(Simd::load_i32(reinterpret_cast<const int32_t*>(from + j * W))), scales);
    }
    if (target.bias) y = Simd::add(y, load_columns(target.bias + j * W, columns));
    store_columns(target.y + j * W, y, columns);
  }
}

// Up to 32 rows from `row` of one or two panels.
template <bool BF16>
inline void linear_tiles(const LinearArgs& args, int64_t row, int64_t panel, bool two_columns) {
  const int64_t row_bytes = tile_row_bytes(args.weight), panel_bytes = row_bytes * kPanel;
  const bool two_rows = args.m > row + kTileRows;
  const char* x = tile_rows(args) + row * row_bytes;
  const char* w = static_cast<const char*>(args.weight.data) + panel * panel_bytes;
  TileBlock block;
  block.zero();
  for (int64_t at = 0; at < row_bytes; at += kTileBytes) {
    block.load_w(0, w + at * kPanel);
    if (two_columns) block.load_w(1, w + panel_bytes + at * kPanel);
    block.load_x(0, x + at, row_bytes);
    if (two_rows) block.load_x(1, x + kTileRows * row_bytes + at, row_bytes);
    block.multiply<BF16>(two_rows, two_columns);
  }
  alignas(64) uint32_t result[16 * 16];
  for (int i = 0; i <= (two_rows ? 1 : 0); i++) {
    const int64_t rows = min_i64(kTileRows, args.m - row - i * kTileRows);
    for (int j = 0; j <= (two_columns ? 1 : 0); j++) {
      block.store(i, j, result);
      for (int64_t r = 0; r < rows; r++) store_tile_row<BF16>(args, result + r * 16, row + i * kTileRows + r, panel + j);
    }
  }
}

template <bool BF16>
inline void linear_amx(const LinearArgs& args, int64_t begin, int64_t end) {
  TileBlock::begin(static_cast<int>(min_i64(kTileRows, args.m)));
  for (int64_t panel = begin; panel < end; panel += 2) {
    for (int64_t row = 0; row < args.m; row += 2 * kTileRows) linear_tiles<BF16>(args, row, panel, panel + 1 < end);
  }
  TileBlock::end();
}

struct LinearTiles {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t padded_rows(const LinearArgs& args) { return (args.m + kTileRows - 1) / kTileRows * kTileRows; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return min_i64(args.m, padded_rows(args) * member / members); }

  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const PackedLinear& weight = args.weight;
    const int64_t row_bytes = tile_row_bytes(weight), padded = padded_rows(args);
    for (int64_t r = padded * member / members; r < padded * (member + 1) / members; r++) {
      char* to = tile_rows(args) + r * row_bytes;
      __builtin_memset(to, 0, static_cast<uint64_t>(row_bytes));
      if (r >= args.m) continue;
      const float* x = args.x + r * weight.k;
      if (weight.type == WeightType::bf16) {
        uint16_t* bf16 = reinterpret_cast<uint16_t*>(to);
        for (int64_t k = 0; k < weight.k; k++) bf16[k] = to_bf16(x[k]);
      } else {
        float scale = absmax(x, weight.k) / 127;
        if (!(scale > 0)) scale = 1;
        int8_row_scales(args)[r] = scale;
        quantise_row(x, weight.k, scale, reinterpret_cast<int8_t*>(to), 4);
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    if (args.weight.type == WeightType::bf16) linear_amx<true>(args, begin, end);
    else linear_amx<false>(args, begin, end);
  }
};

}  // namespace mill::MILL_ISA
