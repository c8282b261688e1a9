// The AMX tiles of tile_amx.h in portable C++, with the exact order and rounding of TDPBF16PS and TDPBSSD.
#pragma once
#include <cstdint>

#include "simd_common.h"

namespace mill::MILL_ISA {

class TileBlock {
 public:
  // Smaller blocks than on the real thing, so that small matrices have several; they do not change results.
  static constexpr int64_t kSliceTiles = 4;
  static constexpr int64_t kParts = 2;

  static void begin(int rows) { rows_ = rows; }
  static void end() {}

  void zero() { __builtin_memset(result_, 0, sizeof result_); }
  void load_x(int i, const void* p) { __builtin_memcpy(x_[i], p, 1024); }
  void load_w(int j, const void* p) { __builtin_memcpy(w_[j], p, 1024); }
  template <bool BF16>
  void multiply(bool two_rows, bool two_columns) {
    for (int i = 0; i <= (two_rows ? 1 : 0); i++) {
      for (int j = 0; j <= (two_columns ? 1 : 0); j++) {
        for (int row = 0; row < rows_; row++) {
          for (int column = 0; column < 16; column++) {
            if constexpr (BF16) dot_bf16(i, j, row, column, i, j);
            else dot_i8(i, j, row, column);
          }
        }
      }
    }
  }
  template <int T, int X, int Y>
  void dot_bf16() {
    for (int row = 0; row < rows_; row++) {
      for (int column = 0; column < 16; column++) dot_bf16(T / 2, T % 2, row, column, X, Y);
    }
  }
  void load(int i, int j, const void* p) { __builtin_memcpy(result_[2 * i + j], p, 1024); }
  void store(int i, int j, void* p) { __builtin_memcpy(p, result_[2 * i + j], 1024); }

 private:
  // Even and odd elements are summed apart, from zero, and their sum is added to the result.
  void dot_bf16(int i, int j, int row, int column, int x_tile, int w_tile) {
    float even = 0, odd = 0;
    for (int k = 0; k < 16; k++) {
      const uint32_t x = x_[x_tile][row][k], w = w_[w_tile][k][column];
      even = Simd::flush(__builtin_fmaf(low(x), low(w), even));
      odd = Simd::flush(__builtin_fmaf(high(x), high(w), odd));
    }
    uint32_t& result = result_[2 * i + j][row][column];
    result = to_bits(Simd::flush(Simd::flush(even + odd) + Simd::flush(to_float(result))));
  }
  void dot_i8(int i, int j, int row, int column) {
    uint32_t& result = result_[2 * i + j][row][column];
    for (int k = 0; k < 16; k++) {
      const uint32_t x = x_[i][row][k], w = w_[j][k][column];
      for (int b = 0; b < 32; b += 8) result += static_cast<uint32_t>(static_cast<int8_t>(x >> b) * static_cast<int8_t>(w >> b));
    }
  }
  static float low(uint32_t pair) { return Simd::flush(to_float(pair << 16)); }
  static float high(uint32_t pair) { return Simd::flush(to_float(pair & 0xffff0000u)); }

  // Of the thread, as the processor's configuration is.
  static inline thread_local int rows_ = 16;

  uint32_t x_[2][16][16];
  uint32_t w_[2][16][16];
  uint32_t result_[4][16][16];
};

}  // namespace mill::MILL_ISA
