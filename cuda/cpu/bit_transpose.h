// Turns "which blocks does each of 64 Gaussians touch" into "which of 64 Gaussians touch each
// block".
#pragma once

#include "simd.h"

namespace {

#if A3D_SIMD == 512

// out[b] bit j = in[j] bit b, for all 64 x 64.
inline void transpose_bits(const uint64_t in[64], uint64_t out[64]) {
  // bytes of two neighbouring words side by side, then of all eight words of a vector
  const __m512i pairs =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
  const __m512i fours = _mm512_set_epi16(31, 23, 15, 7, 30, 22, 14, 6, 29, 21, 13, 5, 28, 20, 12, 4,
                                         27, 19, 11, 3, 26, 18, 10, 2, 25, 17, 9, 1, 24, 16, 8, 0);
  alignas(64) uint64_t bytes[8][8];  // [words 8 k .. 8 k + 7][which byte of them]
  for (int k = 0; k < 8; k++) {
    const __m512i words = _mm512_loadu_si512(in + 8 * k);
    _mm512_store_si512(bytes[k],
                       _mm512_permutexvar_epi16(fours, _mm512_shuffle_epi8(words, pairs)));
  }
  const __m512i stride = _mm512_setr_epi64(0, 8, 16, 24, 32, 40, 48, 56);
  for (int k = 0; k < 8; k++) {
    __m512i column = _mm512_i64gather_epi64(stride, &bytes[0][k], 8);
    for (int bit = 7; bit >= 0; bit--) {
      out[8 * k + bit] = _mm512_movepi8_mask(column);
      column = _mm512_add_epi8(column, column);
    }
  }
}

#else

// out[b] bit j = in[j] bit b: squares of 32, 16, .. 1 bits change places across the diagonal
// (Warren, Hacker's Delight, 7-3).
inline void transpose_bits(const uint64_t in[64], uint64_t out[64]) {
  for (int k = 0; k < 64; k++) out[k] = in[k];
  uint64_t low = 0xffffffffull;
  for (int half = 32; half; half >>= 1, low ^= low << half)
    for (int start = 0; start < 64; start += 2 * half)
      for (int k = start; k < start + half; k++) {
        const uint64_t swapped = ((out[k] >> half) ^ out[k + half]) & low;
        out[k] ^= swapped << half;
        out[k + half] ^= swapped;
      }
}

#endif

}  // namespace
