// AMX: a block of 2 x 2 result tiles, each 16 rows by 16 columns, fed with tiles of 64 bytes of k.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace mill::MILL_ISA {

class TileBlock {
 public:
  // Of linears: tiles of k in a slice, and half the tiles of rows and of columns of a block, see linear_amx.h.
  static constexpr int64_t kSliceTiles = 32;
  static constexpr int64_t kParts = 8;

  // `rows` of each tile of x, at most 16. The configuration belongs to the thread until `end`.
  static void begin(int rows) {
    struct alignas(64) Config {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t colsb[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; tile++) {
      config.colsb[tile] = 64;
      config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : 16);
    }
    // Not `_tile_loadconfig`: GCC 12 tells the optimiser that it reads 8 bytes, which then drops the stores of the rest.
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  static void end() { _tile_release(); }

  void zero() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  // All tiles are [16][64 bytes] in memory.
  void load_x(int i, const void* p) {
    if (i == 0) _tile_loadd(4, p, 64);
    else _tile_loadd(5, p, 64);
  }
  void load_w(int j, const void* p) {
    if (j == 0) _tile_loadd(6, p, 64);
    else _tile_loadd(7, p, 64);
  }
  template <bool BF16>
  void multiply(bool two_rows, bool two_columns) {
    if constexpr (BF16) {
      _tile_dpbf16ps(0, 4, 6);
      if (two_columns) _tile_dpbf16ps(1, 4, 7);
      if (two_rows) _tile_dpbf16ps(2, 5, 6);
      if (two_rows && two_columns) _tile_dpbf16ps(3, 5, 7);
    } else {
      _tile_dpbssd(0, 4, 6);
      if (two_columns) _tile_dpbssd(1, 4, 7);
      if (two_rows) _tile_dpbssd(2, 5, 6);
      if (two_rows && two_columns) _tile_dpbssd(3, 5, 7);
    }
  }
  // Tile X of x times tile Y of weights, added to result tile T in the order of `store`: for other shapes than 2 x 2.
  template <int T, int X, int Y>
  void dot_bf16() {
    // The intrinsic takes literals only.
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(T), "i"(4 + X), "i"(6 + Y));
  }

  // Result tile (i, j) from and to [16][16] 32-bit elements.
  void load(int i, int j, const void* p) {
    const int tile = 2 * i + j;
    if (tile == 0) _tile_loadd(0, p, 64);
    if (tile == 1) _tile_loadd(1, p, 64);
    if (tile == 2) _tile_loadd(2, p, 64);
    if (tile == 3) _tile_loadd(3, p, 64);
  }
  void store(int i, int j, void* p) {
    const int tile = 2 * i + j;
    if (tile == 0) _tile_stored(0, p, 64);
    if (tile == 1) _tile_stored(1, p, 64);
    if (tile == 2) _tile_stored(2, p, 64);
    if (tile == 3) _tile_stored(3, p, 64);
  }
};

}  // namespace mill::MILL_ISA
