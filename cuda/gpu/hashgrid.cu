// The multiresolution hash grid; cuda/cpu/hash_grid.h is the twin.
//
//   hash_encode         features of points; a thread is a point in one level, a block's y the level
//   hash_encode_table   gradient of the table, by atomic additions
//   hash_encode_points  gradient of the points; a thread is a point
#include "avatar3d/hashgrid.h"

namespace {

using namespace avatar3d;

constexpr int kThreads = 256;

// levels: (5, L) scale as bits of a float, resolution, first, size, hashed (0 or -1).
struct Level {
  float scale;
  unsigned resolution, first, size, hashed;
};

__device__ Level level_of(const int* levels, int count, int level) {
  return {float_of(levels[level]), (unsigned)levels[count + level],
          (unsigned)levels[2 * count + level], (unsigned)levels[3 * count + level],
          (unsigned)levels[4 * count + level]};
}

struct Cell {
  unsigned node[3];
  float fraction[3];
};

__device__ Cell cell_of(const Level& level, const float* point) {
  Cell cell;
#pragma unroll
  for (int k = 0; k < 3; k++)
    cell.node[k] = grid_node(level.scale, inside_grid(point[k]), cell.fraction[k]);
  return cell;
}

__device__ size_t entry_of(const Level& level, const Cell& cell, int corner) {
  const GridRow row = grid_row(cell.node[1] + (corner >> 1 & 1), cell.node[2] + (corner >> 2),
                               level.resolution);
  return (size_t)level.first +
         grid_entry(cell.node[0] + (corner & 1), row, level.size, level.hashed);
}

__device__ float axis_weight(const Cell& cell, int corner, int axis) {
  return corner >> axis & 1 ? cell.fraction[axis] : 1.0f - cell.fraction[axis];
}

__device__ float weight_of(const Cell& cell, int corner) {
  return axis_weight(cell, corner, 0) * axis_weight(cell, corner, 1) *
         axis_weight(cell, corner, 2);
}

}  // namespace

// points: (count, 3); table: (P, features); out: (count, level_count * features).
extern "C" __global__ void __launch_bounds__(kThreads)
    hash_encode(int count, int level_count, int features, const int* __restrict__ levels,
                const float* __restrict__ points, const float* __restrict__ table,
                float* __restrict__ out) {
  const int i = blockIdx.x * kThreads + threadIdx.x, l = blockIdx.y;
  if (i >= count) return;
  const Level level = level_of(levels, level_count, l);
  const Cell cell = cell_of(level, points + 3 * (size_t)i);
  float sum[kMostGridFeatures] = {0.0f};
  for (int c = 0; c < kGridCorners; c++) {
    const float* row = table + entry_of(level, cell, c) * features;
    const float weight = weight_of(cell, c);
#pragma unroll
    for (int f = 0; f < kMostGridFeatures; f++)
      if (f < features) sum[f] += weight * row[f];
  }
  float* result = out + ((size_t)i * level_count + l) * features;
#pragma unroll
  for (int f = 0; f < kMostGridFeatures; f++)
    if (f < features) result[f] = sum[f];
}

// v_features: (count, level_count * features); v_table: (P, features), added to.
extern "C" __global__ void __launch_bounds__(kThreads)
    hash_encode_table(int count, int level_count, int features, const int* __restrict__ levels,
                      const float* __restrict__ points, const float* __restrict__ v_features,
                      float* __restrict__ v_table) {
  const int i = blockIdx.x * kThreads + threadIdx.x, l = blockIdx.y;
  if (i >= count) return;
  const Level level = level_of(levels, level_count, l);
  const Cell cell = cell_of(level, points + 3 * (size_t)i);
  const float* v = v_features + ((size_t)i * level_count + l) * features;
  for (int c = 0; c < kGridCorners; c++) {
    float* row = v_table + entry_of(level, cell, c) * features;
    const float weight = weight_of(cell, c);
    for (int f = 0; f < features; f++) atomicAdd(row + f, weight * v[f]);
  }
}

// v_points: (count, 3).
extern "C" __global__ void __launch_bounds__(kThreads)
    hash_encode_points(int count, int level_count, int features, const int* __restrict__ levels,
                       const float* __restrict__ points, const float* __restrict__ table,
                       const float* __restrict__ v_features, float* __restrict__ v_points) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const float* point = points + 3 * (size_t)i;
  float slope[3] = {0.0f, 0.0f, 0.0f};
  for (int l = 0; l < level_count; l++) {
    const Level level = level_of(levels, level_count, l);
    const Cell cell = cell_of(level, point);
    const float* v = v_features + ((size_t)i * level_count + l) * features;
    for (int c = 0; c < kGridCorners; c++) {
      const float* row = table + entry_of(level, cell, c) * features;
      float dot = 0.0f;
      for (int f = 0; f < features; f++) dot += row[f] * v[f];
#pragma unroll
      for (int k = 0; k < 3; k++) {
        const float across =
            axis_weight(cell, c, (k + 1) % 3) * axis_weight(cell, c, (k + 2) % 3);
        slope[k] += (c >> k & 1 ? level.scale : -level.scale) * across * dot;
      }
    }
  }
#pragma unroll
  for (int k = 0; k < 3; k++)
    v_points[3 * (size_t)i + k] = point[k] >= 0.0f && point[k] <= 1.0f ? slope[k] : 0.0f;
}
