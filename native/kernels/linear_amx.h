// linear with bf16 or int8 weights on AMX tiles. A result tile meets the tiles of k in ascending order, and each of its
// elements is computed by itself: neither the number of rows nor where a row lies in a tile matters.
#pragma once
#include "linear_int8.h"

namespace mill::MILL_ISA {

constexpr int kTileRows = 16;
constexpr int64_t kTileBytes = 64;  // of one row of x: 32 bf16 or 64 int8

// Rows of prepared x lie this far apart, padded to whole tiles with rows that are computed and thrown away.
inline int64_t tile_row_bytes(const PackedLinear& weight) { return weight.k_padded * (weight.type == WeightType::bf16 ? 2 : 1); }

// Scales [row][group] of x come before the rows.
inline float* tile_scales(const LinearArgs& args) { return static_cast<float*>(args.prepared); }

inline char* tile_rows(const LinearArgs& args) {
  const int64_t scales = args.weight.type == WeightType::i8 ? args.m * int8_groups(args.weight) * 4 : 0;
  return static_cast<char*>(args.prepared) + (scales + 63) / 64 * 64;
}

// Up to 32 rows from `row` of one or two panels.
struct TileTarget {
  int64_t row;
  int64_t panel;
  bool two_rows;
  bool two_columns;
};

// result += x w over bytes [begin, end) of the rows.
template <bool BF16>
inline void multiply_tiles(const LinearArgs& args, const TileTarget& target, int64_t begin, int64_t end, TileBlock& result) {
  const int64_t row_bytes = tile_row_bytes(args.weight), panel_bytes = row_bytes * kPanel;
  const char* x = tile_rows(args) + target.row * row_bytes;
  const char* w = static_cast<const char*>(args.weight.data) + target.panel * panel_bytes;
  for (int64_t at = begin; at < end; at += kTileBytes) {
    result.load_w(0, w + at * kPanel);
    if (target.two_columns) result.load_w(1, w + panel_bytes + at * kPanel);
    result.load_x(0, x + at, row_bytes);
    if (target.two_rows) result.load_x(1, x + kTileRows * row_bytes + at, row_bytes);
    result.multiply<BF16>(target.two_rows, target.two_columns);
  }
}

// Calls visit(i, j, rows) for each result tile and the number of its rows that are wanted.
template <class Visit>
inline void each_tile(const LinearArgs& args, const TileTarget& target, const Visit& visit) {
  for (int i = 0; i <= (target.two_rows ? 1 : 0); i++) {
    for (int j = 0; j <= (target.two_columns ? 1 : 0); j++) visit(i, j, min_i64(kTileRows, args.m - target.row - i * kTileRows));
  }
}

// 16 columns of one row: bias, and into the columns that exist.
inline void store_tile_row(const LinearArgs& args, const F (&y)[kVectors], int64_t row, int64_t panel) {
  const Target target = linear_target(args, row, panel, true, true);
  for (int v = 0; v < kVectors; v++) {
    const int64_t columns = target.columns - v * W;
    store_columns(target.y + v * W, target.bias ? Simd::add(y[v], load_columns(target.bias + v * W, columns)) : y[v], columns);
  }
}

inline void linear_tiles_bf16(const LinearArgs& args, const TileTarget& target) {
  TileBlock block;
  block.zero();
  multiply_tiles<true>(args, target, 0, tile_row_bytes(args.weight), block);
  each_tile(args, target, [&](int i, int j, int64_t rows) {
    alignas(64) float result[kTileRows][kPanel];
    block.store(i, j, result);
    for (int64_t r = 0; r < rows; r++) {
      F y[kVectors];
      for (int v = 0; v < kVectors; v++) y[v] = Simd::load(result[r] + v * W);
      store_tile_row(args, y, target.row + i * kTileRows + r, target.panel + j);
    }
  });
}

// As linear_int8.h: the integer sums of a group are read out of the tiles and added to the chain of each element.
inline void linear_tiles_i8(const LinearArgs& args, const TileTarget& target) {
  F acc[2][2][kTileRows][kVectors];
  each_tile(args, target, [&](int i, int j, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) {
      for (int v = 0; v < kVectors; v++) acc[i][j][r][v] = Simd::zero();
    }
  });
  const int64_t groups = int8_groups(args.weight);
  for (int64_t g = 0; g < groups; g++) {
    TileBlock block;
    block.zero();
    multiply_tiles<false>(args, target, g * kGroupI8, min_i64(args.weight.k_padded, (g + 1) * kGroupI8), block);
    each_tile(args, target, [&](int i, int j, int64_t rows) {
      alignas(64) int32_t result[kTileRows][kPanel];
      block.store(i, j, result);
      const float* scales = tile_scales(args) + (target.row + i * kTileRows) * groups + g;
      for (int64_t r = 0; r < rows; r++) {
        for (int v = 0; v < kVectors; v++) {
          F& sum = acc[i][j][r][v];
          sum = Simd::fma(Simd::to_float(Simd::load_i32(result[r] + v * W)), Simd::set1(scales[r * groups]), sum);
        }
      }
    });
  }
  each_tile(args, target, [&](int i, int j, int64_t rows) {
    const float* columns = args.weight.scales + (target.panel + j) * kPanel;
    for (int64_t r = 0; r < rows; r++) {
      F y[kVectors];
      for (int v = 0; v < kVectors; v++) y[v] = Simd::mul(acc[i][j][r][v], Simd::load(columns + v * W));
      store_tile_row(args, y, target.row + i * kTileRows + r, target.panel + j);
    }
  });
}

template <bool BF16>
inline void linear_amx(const LinearArgs& args, int64_t begin, int64_t end) {
  TileBlock::begin(static_cast<int>(min_i64(kTileRows, args.m)));
  for (int64_t panel = begin; panel < end; panel += 2) {
    for (int64_t row = 0; row < args.m; row += 2 * kTileRows) {
      const TileTarget target{row, panel, args.m > row + kTileRows, panel + 1 < end};
      if constexpr (BF16) linear_tiles_bf16(args, target);
      else linear_tiles_i8(args, target);
    }
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
        const int64_t groups = int8_groups(weight);
        for (int64_t g = 0; g < groups; g++) {
          RotatedGroup group;
          rotate_group(weight, x, g * kGroupI8, group);
          const float scale = tile_scales(args)[r * groups + g] = scale_i8(group);
          quantise_group(group, 0, group.width, scale, reinterpret_cast<int8_t*>(to + g * kGroupI8), 4);
        }
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    if (args.weight.type == WeightType::bf16) linear_amx<true>(args, begin, end);
    else linear_amx<false>(args, begin, end);
  }
};

}  // namespace mill::MILL_ISA
