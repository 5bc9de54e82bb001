// Pictures between bytes and floats in [0, 1]. All cores take part less for the arithmetic than
// because a picture that one core alone has touched must first travel to the others.
#pragma once

#include <stdint.h>

#include "parallel.h"

namespace {

using namespace avatar3d;

constexpr int kPixelRows = 32;  // of the picture, in a piece of work

// bytes / 255, or with a matte color + matte (bytes / 255 - color).
inline void decode_row(const PixelInput& in, int y, float* A3D_RESTRICT out) {
  constexpr float kUnit = 1.0f / 255.0f;
  const int n = 3 * in.width;
  const uint8_t* A3D_RESTRICT bytes = in.bytes + (size_t)y * n;
  if (!in.matte) {
    for (int i = 0; i < n; i++) out[i] = (float)bytes[i] * kUnit;
    return;
  }
  const uint8_t* A3D_RESTRICT matte = in.matte + (size_t)y * in.width;
  const float r = in.color[0], g = in.color[1], b = in.color[2];
  for (int x = 0; x < in.width; x++) {
    const float m = (float)matte[x] * kUnit;
    out[3 * x] = r + m * ((float)bytes[3 * x] * kUnit - r);
    out[3 * x + 1] = g + m * ((float)bytes[3 * x + 1] * kUnit - g);
    out[3 * x + 2] = b + m * ((float)bytes[3 * x + 2] * kUnit - b);
  }
}

void decode_pixels(const PixelInput& in, float* out, int threads) {
  parallel_for(chunks_of(kPixelRows, in.height), threads, [&](int chunk, int) {
    const int end = smaller(in.height, (chunk + 1) * kPixelRows);
    for (int y = chunk * kPixelRows; y < end; y++)
      decode_row(in, y, out + (size_t)y * 3 * in.width);
  });
}

// Clamped to [0, 1] and rounded; NaN becomes 0.
void encode_pixels(const float* values, int64_t count, uint8_t* bytes, int threads) {
  constexpr int kPiece = 1 << 15;
  const int pieces = (int)((count + kPiece - 1) / kPiece);
  parallel_for(pieces, threads, [&](int piece, int) {
    const int64_t begin = (int64_t)piece * kPiece;
    const int n = (int)(count - begin < kPiece ? count - begin : kPiece);
    const float* A3D_RESTRICT in = values + begin;
    uint8_t* A3D_RESTRICT out = bytes + begin;
    for (int i = 0; i < n; i++) {
      float v = in[i] * 255.0f + 0.5f;
      v = v > 0.5f ? v : 0.5f;
      v = v < 255.5f ? v : 255.5f;
      out[i] = (uint8_t)(int)v;
    }
  });
}

}  // namespace
