// linear on AMX tiles. A result tile meets the tiles of k in ascending order, and each of its elements is computed by itself:
// neither the number of rows nor where a row lies in a tile matters. Between slices of k a result waits in memory, which is
// exact.
//
// bf16 sums all of k in the tile. int8 is as in linear_int8.h: the integer sums of a group are read out of the tiles and join
// the chain of each element. 4 bits take tiles from kRowsI4Tiles rows on; fewer are left to linear_int4.h, which gives the
// same bits, as the sums of a group are exact integers in both.
#pragma once
#include "linear_int4.h"
#include "linear_int8.h"

namespace mill::MILL_ISA {

constexpr int kTileRows = 16;
constexpr int64_t kTileK = 64;                       // bytes of k in a tile: 32 bf16 or 64 int8
constexpr int64_t kTileBytes = kTileRows * kTileK;   // of x and of weights alike
constexpr int64_t kTileFloats = kTileRows * kPanel;  // of a result
constexpr int64_t kPairRows = 2 * kTileRows;
// A slice of the rows of a block stays in the second cache while a group of panels passes by, and so do the results of all of
// them; of the panels a pair at a time. What comes next is asked for meanwhile: beyond that cache a core reads a tenth of
// what its tiles could take.
constexpr int64_t kSliceTiles = TileBlock::kSliceTiles;
constexpr int64_t kSliceBytes = kSliceTiles * kTileBytes;
// A pair of rows has kParts steps in a slice, and so has a pair of panels.
constexpr int64_t kParts = TileBlock::kParts;
constexpr int64_t kBlockRows = kParts * kPairRows;
constexpr int64_t kGroupPanels = kParts * 2;
// Lines that each tile of k asks for, of rows and of panels alike: in kParts steps the next slice of a pair.
constexpr int64_t kAheadLines = 2 * kTileBytes / 64 / kParts;
// Tiles of k by which a few rows ask for weights ahead of their use.
constexpr int64_t kAheadTiles = 4;
constexpr int64_t kRowsI4Tiles = 16;
static_assert(kTileRows * kTileBytes % kGroupI8 == 0 && kGroupI8 % kTileK == 0);

// Where a linear keeps results between slices of k, and 4-bit weights as bytes.
struct TileScratch {
  float* results;  // [kBlockRows / 16][kGroupPanels][16][16]
  int8_t* planes;  // [2][kSliceTiles] tiles
};

inline TileScratch tile_scratch(const LinearArgs& args) {
  float* results = static_cast<float*>(args.scratch);
  return {results, reinterpret_cast<int8_t*>(results + kBlockRows * kGroupPanels * kPanel)};
}
static_assert(linear_scratch_bytes() >= kBlockRows * kGroupPanels * kPanel * 4 + 2 * kSliceTiles * kTileBytes);

// Prepared x: scales [row][group] first, then tiles [row / 16][tile of k][16 rows][64 bytes], the last rows padded with zeros.
inline int64_t row_tiles(const LinearArgs& args) { return (args.m + kTileRows - 1) / kTileRows; }
inline int64_t k_tiles(const PackedLinear& weight) { return weight.k_padded * (weight.type == WeightType::bf16 ? 2 : 1) / kTileK; }
inline float* tile_scales(const LinearArgs& args) { return static_cast<float*>(args.prepared); }
inline char* x_tiles(const LinearArgs& args) {
  const int64_t scales = args.weight.type == WeightType::bf16 ? 0 : row_tiles(args) * kTileRows * int8_groups(args.weight) * 4;
  return static_cast<char*>(args.prepared) + (scales + 63) / 64 * 64;
}

// What is multiplied between two looks at other tiles: up to two tiles of rows, up to two of columns, some of k.
struct TileStep {
  int64_t row_tile;
  int64_t panel;
  int64_t slice;  // first tile of k
  int64_t tiles;
  bool two_rows;
  bool two_columns;
  bool first;
  float* results[2][2];  // [16][16] each
  // Asked for meanwhile, kAheadLines for each tile of k: the step's part of the rows' next slice, and of the next panels.
  const char* ahead_x;
  const char* ahead_w;
};

// Streams of tiles: those of the second row tile or panel lie a stride further.
struct TileStreams {
  const char* x;
  int64_t x_stride;
  const char* w;
  int64_t w_stride;
};

inline const char* x_tile(const LinearArgs& args, int64_t row_tile, int64_t k_tile) { return x_tiles(args) + (row_tile * k_tiles(args.weight) + k_tile) * kTileBytes; }

inline TileStreams tile_streams(const LinearArgs& args, const TileStep& step) {
  const int64_t stride = k_tiles(args.weight) * kTileBytes;
  return {x_tile(args, step.row_tile, step.slice), stride, static_cast<const char*>(args.weight.data) + step.panel * stride + step.slice * kTileBytes, stride};
}

template <bool BF16, bool ROWS, bool COLUMNS>
MILL_INLINE void multiply_tile(const TileStreams& from, int64_t at, TileBlock& block) {
  block.load_w(0, from.w + at);
  if (COLUMNS) block.load_w(1, from.w + from.w_stride + at);
  block.load_x(0, from.x + at);
  if (ROWS) block.load_x(1, from.x + from.x_stride + at);
  block.multiply<BF16>(ROWS, COLUMNS);
}

// block += x w over tiles [at, at + tiles) of the step.
template <bool BF16, bool ROWS, bool COLUMNS>
inline void multiply_many(const TileStreams& from, const TileStep& step, int64_t at, int64_t tiles, TileBlock& block) {
  for (int64_t t = at; t < at + tiles; t++) {
#pragma GCC unroll 4
    for (int64_t line = t * kAheadLines; line < (t + 1) * kAheadLines; line++) {
      Simd::prefetch_near(step.ahead_x + line * 64);
      Simd::prefetch_near(step.ahead_w + line * 64);
    }
    multiply_tile<BF16, ROWS, COLUMNS>(from, t * kTileBytes, block);
  }
}

// The same for a few rows, which wait for weights. After the last k come the panels behind these.
template <bool BF16, bool ROWS, bool COLUMNS>
inline void multiply_few(const TileStreams& from, int64_t at, int64_t tiles, int64_t all, TileBlock& block) {
  for (int64_t t = at; t < at + tiles; t++) {
    const int64_t ahead = t + kAheadTiles, wrap = ahead < all ? 0 : (COLUMNS ? 2 : 1) * from.w_stride - all * kTileBytes;
    for (int64_t line = 0; line < kTileBytes; line += 64) {
      Simd::prefetch(from.w + ahead * kTileBytes + wrap + line);
      if (COLUMNS) Simd::prefetch(from.w + from.w_stride + ahead * kTileBytes + wrap + line);
    }
    multiply_tile<BF16, ROWS, COLUMNS>(from, t * kTileBytes, block);
  }
}

// Calls work<ROWS, COLUMNS>().
template <class Work>
MILL_INLINE void with_shape(const TileStep& step, const Work& work) {
  if (step.two_rows && step.two_columns) work.template operator()<true, true>();
  else if (step.two_rows) work.template operator()<true, false>();
  else if (step.two_columns) work.template operator()<false, true>();
  else work.template operator()<false, false>();
}

template <class Visit>
inline void each_tile(const TileStep& step, const Visit& visit) {
  for (int i = 0; i <= (step.two_rows ? 1 : 0); i++) {
    for (int j = 0; j <= (step.two_columns ? 1 : 0); j++) visit(i, j);
  }
}

// 16 columns of one row: times the column's scale or unit, bias, and into the columns that exist.
inline void store_tile_row(const LinearArgs& args, const float* result, int64_t row, int64_t panel) {
  const Target target = linear_target(args, row, panel, true, true);
  for (int v = 0; v < kVectors; v++) {
    const int64_t columns = target.columns - v * W;
    F y = Simd::load(result + v * W);
    if (args.weight.type != WeightType::bf16) y = Simd::mul(y, Simd::load(args.weight.scales + panel * kPanel + v * W));
    store_columns(target.y + v * W, target.bias ? Simd::add(y, load_columns(target.bias + v * W, columns)) : y, columns);
  }
}

inline void step_bf16(const LinearArgs& args, const TileStep& step) {
  TileBlock block;
  if (step.first) block.zero();
  else each_tile(step, [&](int i, int j) { block.load(i, j, step.results[i][j]); });
  const TileStreams from = tile_streams(args, step);
  const bool few = args.m <= kPairRows;
  with_shape(step, [&]<bool ROWS, bool COLUMNS>() {
    if (few) multiply_few<true, ROWS, COLUMNS>(from, 0, step.tiles, step.tiles, block);
    else multiply_many<true, ROWS, COLUMNS>(from, step, 0, step.tiles, block);
  });
  each_tile(step, [&](int i, int j) {
    block.store(i, j, step.results[i][j]);
  });
}

// results = fma(sums, scales of x, results) for the rows of a tile; `sum_of` gives the exact sums of a vector of columns.
template <class SumOf>
inline void add_group(const LinearArgs& args, int64_t row_tile, int64_t group, bool first, float* results, const SumOf& sum_of) {
  const int64_t groups = int8_groups(args.weight);
  const float* scales = tile_scales(args) + row_tile * kTileRows * groups + group;
  const int64_t rows = min_i64(kTileRows, args.m - row_tile * kTileRows);
  for (int64_t r = 0; r < rows; r++) {
    for (int v = 0; v < kVectors; v++) {
      const int64_t at = r * kPanel + v * W;
      const F chain = first ? Simd::zero() : Simd::load(results + at);
      Simd::store(results + at, Simd::fma(sum_of(at), Simd::set1(scales[r * groups]), chain));
    }
  }
}

// Groups of a step, each as `multiply(first tile, tiles, block)` and then `read(group, first of the chain, sums)`. A group is read out while
// the products of the next are under way.
template <class Multiply, class Read>
inline void each_group(const TileStep& step, const Multiply& multiply, const Read& read) {
  constexpr int64_t kTiles = kGroupI8 / kTileK;
  alignas(64) int32_t sums[2][2][2][kTileFloats];
  const int64_t groups = (step.tiles + kTiles - 1) / kTiles;
  for (int64_t g = 0; g <= groups; g++) {
    if (g < groups) {
      TileBlock block;
      block.zero();
      multiply(g * kTiles, min_i64(kTiles, step.tiles - g * kTiles), block);
      each_tile(step, [&](int i, int j) { block.store(i, j, sums[g & 1][i][j]); });
    }
    if (g > 0) read(step.slice / kTiles + g - 1, step.first && g == 1, sums[(g - 1) & 1]);
  }
}

inline void step_i8(const LinearArgs& args, const TileStep& step) {
  const TileStreams from = tile_streams(args, step);
  const bool few = args.m <= kPairRows;
  with_shape(step, [&]<bool ROWS, bool COLUMNS>() {
    each_group(
        step,
        [&](int64_t at, int64_t tiles, TileBlock& block) {
          if (few) multiply_few<false, ROWS, COLUMNS>(from, at, tiles, step.tiles, block);
          else multiply_many<false, ROWS, COLUMNS>(from, step, at, tiles, block);
        },
        [&](int64_t group, bool first, const int32_t (&sums)[2][2][kTileFloats]) {
          each_tile(step, [&](int i, int j) { add_group(args, step.row_tile + i, group, first, step.results[i][j], [&](int64_t at) { return Simd::to_float(Simd::load_i32(sums[i][j] + at)); }); });
        });
  });
}

// 4-bit weights as integers d q + 16 m in two planes of int8: w = 128 high + low, with low in 0..127.
constexpr int kPlaneShift = 7;
static_assert(15 * 255 + kMinimumStepI4 * 127 < 128 << kPlaneShift && kMinimumStepI4 * 128 <= 128 << kPlaneShift);

// A slice of a panel as the two planes, each in tiles of k.
inline void unpack_planes(const LinearArgs& args, int64_t panel, int64_t slice, int64_t tiles, int8_t* planes) {
  const WeightsInt4 weights = int4_weights(args.weight);
  const uint8_t* data = weights.data + panel * weights.panel_bytes;
  const int64_t end = min_i64(weights.halves, (slice + tiles) * kTileK / kHalf);
  for (int64_t half = slice * kTileK / kHalf; half < end; half++) {
    const uint8_t* at = data + half / 2 * weights.bytes;
    for (int64_t chunk = 0; chunk < 2; chunk++) {
      const auto lines = Simd::lines_u4(weights.scales(at, half % 2, chunk), weights.minimum(at, half % 2) + (weights.pairs ? chunk : 0), weights.pairs ? 2 : 1, kMinimumStepI4);
      const uint8_t* quads = weights.quads(at, half % 2, chunk);
      int8_t* high = planes + (half * 2 + chunk) * kChunk * kPanel - slice * kTileBytes;
      for (int64_t pair = 0; pair < kChunk / 8; pair++, quads += 4 * kPanel, high += 8 * kPanel) {
        Simd::planes_u4<kPlaneShift>(lines, Simd::load_u4_low(quads), high, high + kSliceBytes);
        Simd::planes_u4<kPlaneShift>(lines, Simd::load_u4_high(quads), high + 4 * kPanel, high + 4 * kPanel + kSliceBytes);
      }
    }
  }
}

// The planes take the place of two panels.
inline void step_i4(const LinearArgs& args, const TileStep& step, const int8_t* planes) {
  const TileStreams from = {x_tile(args, step.row_tile, step.slice), k_tiles(args.weight) * kTileBytes, reinterpret_cast<const char*>(planes), kSliceBytes};
  TileStep both = step;
  both.two_columns = true;
  with_shape(both, [&]<bool ROWS, bool COLUMNS>() {
    each_group(
        both,
        [&](int64_t at, int64_t tiles, TileBlock& block) { multiply_many<false, ROWS, COLUMNS>(from, step, at, tiles, block); },
        [&](int64_t group, bool first, const int32_t (&sums)[2][2][kTileFloats]) {
          for (int i = 0; i <= (ROWS ? 1 : 0); i++) {
            // Both sums are exact in fp32, so that this rounds once, as the conversion of their sum does.
            add_group(args, step.row_tile + i, group, first, step.results[i][0], [&](int64_t at) {
              return Simd::fma(Simd::to_float(Simd::load_i32(sums[i][0] + at)), Simd::set1(1 << kPlaneShift), Simd::to_float(Simd::load_i32(sums[i][1] + at)));
            });
          }
        });
  });
}

// A block of rows and a group of panels.
struct TileArea {
  int64_t row_begin;
  int64_t row_end;
  int64_t begin;
  int64_t end;
};

// Areas in the order they are computed; one without rows after the last.
inline TileArea tile_area(const LinearArgs& args, int64_t begin, int64_t end, int64_t index) {
  constexpr int64_t kRows = kBlockRows / kTileRows;
  const int64_t rows = row_tiles(args), blocks = (rows + kRows - 1) / kRows;
  const int64_t panel = begin + index / blocks * kGroupPanels, row = index % blocks * kRows;
  return {row, panel < end ? min_i64(rows, row + kRows) : row, panel, min_i64(end, panel + kGroupPanels)};
}

inline float* tile_results(const LinearArgs& args, int64_t row, int64_t column) { return tile_scratch(args).results + (row * kGroupPanels + column) * kTileFloats; }

// The panels of a slice, each as visit(step) for pairs of rows. `next_x` and `next_w` are what comes then.
template <class Visit>
inline void walk_slice(const LinearArgs& args, const TileArea& area, int64_t slice, int64_t depth, int64_t panels, const char* next_x, const char* next_w, const Visit& visit) {
  const int64_t all = k_tiles(args.weight), stride = all * kTileBytes, w_bytes = panel_bytes(args.weight.type, args.weight.k_padded);
  const char* w = static_cast<const char*>(args.weight.data) + slice * (w_bytes / all);
  for (int64_t panel = area.begin; panel < area.end; panel += panels) {
    const char* ahead_w = panel + panels < area.end ? w + (panel + panels) * w_bytes : next_w;
    for (int64_t row = area.row_begin; row < area.row_end; row += 2) {
      const int64_t column = panel - area.begin, line = row - area.row_begin;
      TileStep step{row, panel, slice, min_i64(depth, all - slice), row + 1 < area.row_end, panels == 2 && panel + 1 < area.end, slice == 0, {}, nullptr, nullptr};
      each_tile({0, 0, 0, 0, true, true, true, {}, nullptr, nullptr}, [&](int i, int j) { step.results[i][j] = tile_results(args, line + i, column + j); });
      const auto part = [&](const char* from, int64_t bytes, int64_t index) { return from + index / (kParts / 2) * bytes + index % (kParts / 2) * (2 * kSliceBytes / kParts); };
      step.ahead_x = part(next_x + line * stride, stride, column / 2);
      step.ahead_w = part(ahead_w, w_bytes, line / 2);
      visit(step);
    }
  }
}

template <class Visit>
inline void walk_area(const LinearArgs& args, const TileArea& area, const TileArea& next, int64_t depth, int64_t panels, const Visit& visit) {
  const int64_t all = k_tiles(args.weight), w_bytes = panel_bytes(args.weight.type, args.weight.k_padded);
  for (int64_t slice = 0; slice < all; slice += depth) {
    const bool last = slice + depth >= all;
    const TileArea& then = last ? next : area;
    const int64_t at = last ? 0 : slice + depth;
    walk_slice(args, area, slice, depth, panels, x_tile(args, then.row_begin, at), static_cast<const char*>(args.weight.data) + then.begin * w_bytes + at * (w_bytes / all), visit);
  }
  // Row by row, as y lies in memory.
  const int64_t row_end = min_i64(args.m, area.row_end * kTileRows);
  for (int64_t row = area.row_begin * kTileRows; row < row_end; row++) {
    const int64_t line = row / kTileRows - area.row_begin;
    for (int64_t panel = area.begin; panel < area.end; panel++) store_tile_row(args, tile_results(args, line, panel - area.begin) + row % kTileRows * kPanel, row, panel);
  }
}

template <class Visit>
inline void walk_tiles(const LinearArgs& args, int64_t begin, int64_t end, int64_t depth, int64_t panels, const Visit& visit) {
  TileBlock::begin(static_cast<int>(min_i64(kTileRows, args.m)));
  TileArea area = tile_area(args, begin, end, 0);
  for (int64_t index = 1; area.row_begin < area.row_end; index++) {
    const TileArea next = tile_area(args, begin, end, index);
    walk_area(args, area, next, depth, panels, visit);
    area = next;
  }
  TileBlock::end();
}

// A row's group of int8, as tiles have it: `out` is its first 64 bytes, and the next lie a tile further.
inline void quantise_into_tiles(const RotatedGroup& group, float scale, char* out) {
  for (int64_t begin = 0; begin < group.width; begin += kTileK) {
    quantise_group(group, begin, begin + kTileK, scale, reinterpret_cast<int8_t*>(out + begin / kTileK * kTileBytes), 4);
  }
}

struct LinearTiles {
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) { return min_i64(args.m, row_tiles(args) * kTileRows * member / members); }

  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    const int64_t padded = row_tiles(args) * kTileRows;
    for (int64_t r = padded * member / members; r < padded * (member + 1) / members; r++) prepare_row(args, r, x_tiles(args) + r / kTileRows * k_tiles(args.weight) * kTileBytes + r % kTileRows * kTileK);
  }

  // `to` is the row's place in the first tile.
  static void prepare_row(const LinearArgs& args, int64_t r, char* to) {
    const PackedLinear& weight = args.weight;
    const float* x = args.x + r * weight.k;
    if (r >= args.m) {
      for (int64_t tile = 0; tile < k_tiles(weight); tile++) __builtin_memset(to + tile * kTileBytes, 0, kTileK);
    } else if (weight.type == WeightType::bf16) {
      for (int64_t k = 0; k < weight.k_padded; k += kTileK / 2, to += kTileBytes) {
        alignas(64) float values[kTileK / 2];
        for (int64_t i = 0; i < kTileK / 2; i += W) Simd::store(values + i, load_columns(x + k + i, weight.k - k - i));
        uint16_t* bf16 = reinterpret_cast<uint16_t*>(to);
        for (int64_t i = 0; i < kTileK / 2; i++) bf16[i] = to_bf16(values[i]);
      }
    } else {
      const int64_t groups = int8_groups(weight);
      for (int64_t g = 0; g < groups; g++, to += kGroupI8 / kTileK * kTileBytes) {
        RotatedGroup group;
        rotate_group(weight, x, g * kGroupI8, group);
        quantise_into_tiles(group, tile_scales(args)[r * groups + g] = scale_i8(group), to);
      }
    }
  }

  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    const bool few = args.m <= kPairRows;
    if (int4_group(args.weight.type)) {
      int8_t* planes = tile_scratch(args).planes;
      walk_tiles(args, begin, end, kSliceTiles, 1, [&](const TileStep& step) {
        if (step.row_tile % (kBlockRows / kTileRows) == 0) unpack_planes(args, step.panel, step.slice, step.tiles, planes);
        step_i4(args, step, planes);
      });
    } else if (args.weight.type == WeightType::bf16) {
      walk_tiles(args, begin, end, few ? k_tiles(args.weight) : kSliceTiles, 2, [&](const TileStep& step) { step_bf16(args, step); });
    } else {
      walk_tiles(args, begin, end, few ? k_tiles(args.weight) : kSliceTiles, 2, [&](const TileStep& step) { step_i8(args, step); });
    }
  }
};

// As LinearDotI4, with tiles where there are rows enough to be worth the unpacking.
struct LinearTilesI4 {
  static bool tiles(const LinearArgs& args) { return args.m >= kRowsI4Tiles; }
  static bool needs_prepare(const LinearArgs&) { return true; }
  static int64_t prepare_begin(const LinearArgs& args, int64_t member, int64_t members) {
    return tiles(args) ? LinearTiles::prepare_begin(args, member, members) : LinearDotI4::prepare_begin(args, member, members);
  }
  static void prepare(const LinearArgs& args, int64_t member, int64_t members) {
    if (tiles(args)) LinearTiles::prepare(args, member, members);
    else LinearDotI4::prepare(args, member, members);
  }
  static void run(const LinearArgs& args, int64_t begin, int64_t end) {
    if (tiles(args)) LinearTiles::run(args, begin, end);
    else LinearDotI4::run(args, begin, end);
  }
};

}  // namespace mill::MILL_ISA
