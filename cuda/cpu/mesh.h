// A z-buffer: each thread owns a band of rows and walks all triangles that reach it.
#pragma once

#include "avatar3d/triangle.h"
#include "parallel.h"
#include "simd.h"

namespace {

using namespace avatar3d;

// First and one past the last pixel whose centre lies in [lo, hi], clipped to [0, size).
inline void centre_range(float lo, float hi, int size, int& first, int& last) {
  const double a = ceil((double)lo - 0.5), b = floor((double)hi - 0.5) + 1;
  first = a > 0 ? (a < size ? (int)a : size) : 0;
  last = b < size ? (b > 0 ? (int)b : 0) : size;
}

inline void draw_triangle(const MeshInput& in, int index, int row_begin, int row_end, int32_t* face,
                          float* bary, float* depth) {
  const float* p[3];
  for (int k = 0; k < 3; k++) p[k] = in.points + 3 * (size_t)in.face[3 * (size_t)index + k];
  float lo[2], hi[2];
  for (int k = 0; k < 2; k++) {
    lo[k] = fminf(p[0][k], fminf(p[1][k], p[2][k]));
    hi[k] = fmaxf(p[0][k], fmaxf(p[1][k], p[2][k]));
  }
  if (!(hi[1] >= (float)row_begin && lo[1] <= (float)row_end)) return;
  const Triangle t = make_triangle(p[0], p[1], p[2]);
  if (!t.visible) return;
  int x0, x1, y0, y1;
  centre_range(lo[0], hi[0], in.width, x0, x1);
  centre_range(lo[1], hi[1], in.height, y0, y1);
  for (int y = larger(y0, row_begin); y < smaller(y1, row_end); y++)
    for (int x = x0; x < x1; x++) {
      double lambda[3];
      if (!cover(t, x + 0.5, y + 0.5, lambda)) continue;
      const double z = to_perspective(t, lambda);
      const size_t pixel = (size_t)y * in.width + x;
      if (!((float)z < depth[pixel])) continue;
      face[pixel] = index, depth[pixel] = (float)z;
      for (int k = 0; k < 3; k++) bary[3 * pixel + k] = (float)lambda[k];
    }
}

void rasterize_mesh(const MeshInput& in, int32_t* face, float* bary, float* depth, int threads) {
  const int bands = threads == 1 ? 1 : smaller(in.height, 4 * threads);
  parallel_for(bands, threads, [&](int band, int) {
    const int begin = (int)((int64_t)in.height * band / bands);
    const int end = (int)((int64_t)in.height * (band + 1) / bands);
    const size_t first = (size_t)begin * in.width, last = (size_t)end * in.width;
    for (size_t i = first; i < last; i++) face[i] = -1, depth[i] = (float)HUGE_VAL;
    memset(bary + 3 * first, 0, sizeof(float) * 3 * (last - first));
    for (int f = 0; f < in.faces; f++) draw_triangle(in, f, begin, end, face, bary, depth);
  });
}

}  // namespace
