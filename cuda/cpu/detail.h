// How alike the fine detail of two pictures is, patch by patch; see avatar3d.kernels.detail.
#pragma once

#include "parallel.h"

namespace {

using namespace avatar3d;

constexpr int kPatch = 8;         // pixels of a side
constexpr int kDetailRows = 16;   // of the picture, in a piece of work
constexpr float kFaintest = 1.0f / 255.0f;

// Planes over the region. The gradients' have a border of zeros.
struct DetailPlan {
  int rows, columns, patches_y, patches_x;
  double* loss;           // (patches_y,)
  float *ours, *theirs;   // (rows, columns): means over colours
  float *across, *down;   // (8 patches_y + 2, stride): loss gradients at the steps between pixels
  size_t stride;
};

inline DetailPlan plan_detail(const DetailInput& in, Buffer& scratch) {
  DetailPlan p;
  p.rows = in.bottom - in.top, p.columns = in.right - in.left;
  p.patches_y = (p.rows - 1) / kPatch, p.patches_x = (p.columns - 1) / kPatch;
  p.stride = (size_t)p.patches_x * kPatch + 2;
  const size_t plane = (size_t)p.rows * p.columns;
  const size_t bordered = p.stride * ((size_t)p.patches_y * kPatch + 2);
  const size_t bytes = sizeof(double) * p.patches_y + sizeof(float) * 2 * (plane + bordered);
  p.loss = static_cast<double*>(reserve_bytes(scratch, bytes));
  p.ours = reinterpret_cast<float*>(p.loss + p.patches_y);
  p.theirs = p.ours + plane;
  p.across = p.theirs + plane;
  p.down = p.across + bordered;
  return p;
}

inline void grey_row(const float* A3D_RESTRICT colors, int n, float* A3D_RESTRICT grey) {
  for (int x = 0; x < n; x++)
    grey[x] = (colors[3 * x] + colors[3 * x + 1] + colors[3 * x + 2]) * (1.0f / 3.0f);
}

// One patch's loss; the gradients at its steps go to the planes.
inline double detail_patch(const DetailInput& in, const DetailPlan& p, int py, int px) {
  float own_across[kPatch][kPatch], own_down[kPatch][kPatch];
  float true_across[kPatch][kPatch], true_down[kPatch][kPatch];
  float ours = 0, theirs = 0, apart = 0, weight = 0;
  for (int y = 0; y < kPatch; y++) {
    const size_t at = (size_t)(py * kPatch + y) * p.columns + (size_t)px * kPatch;
    const float *a = p.ours + at, *b = p.theirs + at;
    for (int x = 0; x < kPatch; x++) {
      own_across[y][x] = a[x + 1] - a[x], own_down[y][x] = a[x + p.columns] - a[x];
      true_across[y][x] = b[x + 1] - b[x], true_down[y][x] = b[x + p.columns] - b[x];
    }
    for (int x = 0; x < kPatch; x++) {
      const float u = own_across[y][x], v = own_down[y][x];
      const float s = true_across[y][x], t = true_down[y][x];
      ours += u * u + v * v;
      theirs += s * s + t * t;
      apart += (u - s) * (u - s) + (v - t) * (v - t);
    }
    if (in.weight) {
      const float* w = in.weight + (size_t)(in.top + py * kPatch + y) * in.width + in.left +
                       (size_t)px * kPatch;
      for (int x = 0; x < kPatch; x++) weight += w[x];
    }
  }
  constexpr float kMean = 1.0f / (kPatch * kPatch), kFloor = kFaintest * kFaintest;
  ours *= kMean, theirs *= kMean, apart *= kMean;
  const float both = ours + theirs + 2 * kFloor, share = apart / both;
  float importance = in.factor * sqrtf(theirs + kFloor) / ((float)p.patches_y * p.patches_x);
  if (in.weight) importance /= weight * kMean;
  const float other = importance * (2 * kMean / 3.0f) / both, own = other * (1 - share);
  for (int y = 0; y < kPatch; y++) {
    const size_t at = (size_t)(py * kPatch + y + 1) * p.stride + (size_t)px * kPatch + 1;
    for (int x = 0; x < kPatch; x++) {
      p.across[at + x] = own * own_across[y][x] - other * true_across[y][x];
      p.down[at + x] = own * own_down[y][x] - other * true_down[y][x];
    }
  }
  return (double)importance * share;
}

// Adds to `out`, a row of the picture.
inline void detail_gradient_row(const DetailInput& in, const DetailPlan& p, int y, float* out) {
  const int row = y - in.top, n = p.patches_x * kPatch + 1;
  if (row < 0 || row > p.patches_y * kPatch) return;
  const float* A3D_RESTRICT across = p.across + (size_t)(row + 1) * p.stride;
  const float* A3D_RESTRICT down = p.down + (size_t)(row + 1) * p.stride;
  const float* A3D_RESTRICT above = down - p.stride;
  float* A3D_RESTRICT gradient = out + 3 * (size_t)in.left;
  for (int x = 0; x < n; x++) {
    const float v = across[x] + above[x + 1] - across[x + 1] - down[x + 1];
    gradient[3 * x] += v, gradient[3 * x + 1] += v, gradient[3 * x + 2] += v;
  }
}

double detail(const DetailInput& in, float* gradient, Buffer& scratch, int threads) {
  const DetailPlan p = plan_detail(in, scratch);
  parallel_for(chunks_of(kDetailRows, p.rows), threads, [&](int chunk, int) {
    const int end = smaller(p.rows, (chunk + 1) * kDetailRows);
    for (int y = chunk * kDetailRows; y < end; y++) {
      const size_t at = 3 * ((size_t)(in.top + y) * in.width + in.left);
      grey_row(in.image + at, p.columns, p.ours + (size_t)y * p.columns);
      grey_row(in.target + at, p.columns, p.theirs + (size_t)y * p.columns);
    }
  });
  const size_t last = ((size_t)p.patches_y * kPatch + 1) * p.stride;
  float* const planes[] = {p.across, p.down};
  for (float* plane : planes) {
    memset(plane, 0, sizeof(float) * p.stride);
    memset(plane + last, 0, sizeof(float) * p.stride);
    for (size_t at = p.stride; at < last; at += p.stride) plane[at] = plane[at + p.stride - 1] = 0;
  }
  parallel_for(p.patches_y, threads, [&](int py, int) {
    double sum = 0;
    for (int px = 0; px < p.patches_x; px++) sum += detail_patch(in, p, py, px);
    p.loss[py] = sum;
  });
  parallel_for(chunks_of(kDetailRows, in.height), threads, [&](int chunk, int) {
    const int end = smaller(in.height, (chunk + 1) * kDetailRows);
    for (int y = chunk * kDetailRows; y < end; y++) {
      float* row = gradient + 3 * (size_t)y * in.width;
      if (!in.onto) memset(row, 0, sizeof(float) * 3 * (size_t)in.width);
      detail_gradient_row(in, p, y, row);
    }
  });
  double total = 0;
  for (int py = 0; py < p.patches_y; py++) total += p.loss[py];
  return total;
}

}  // namespace
