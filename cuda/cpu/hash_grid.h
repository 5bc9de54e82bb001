// The hash grid for batches of points. A vector holds levels, not points: the cells of a point are
// found for all levels at once, its features come out in order, and a lone point is as fast as one
// of many.
#pragma once

#include "avatar3d/hashgrid.h"
#include "pairs.h"
#include "parallel.h"

namespace {

using namespace avatar3d;

constexpr int kGridPoints = 512;  // of a piece of work

// Entries in the table, and weights, of the corners of a point's cells in kWidth levels.
struct LevelCells {
  alignas(64) uint32_t entry[kGridCorners][kWidth];
  alignas(64) float fraction[3][kWidth];
};

A3D_INLINE void find_cells(const GridLayout& layout, int level, const float point[3],
                           LevelCells& cells) {
  const float* A3D_RESTRICT scale = layout.scale + level;
  const uint32_t* A3D_RESTRICT resolution = layout.resolution + level;
  const uint32_t* A3D_RESTRICT first = layout.first + level;
  const uint32_t* A3D_RESTRICT size = layout.size + level;
  const uint32_t* A3D_RESTRICT hashed = layout.hashed + level;
  alignas(64) uint32_t node[3][kWidth];
  for (int l = 0; l < kWidth; l++)
    for (int k = 0; k < 3; k++) node[k][l] = grid_node(scale[l], point[k], cells.fraction[k][l]);
  for (int yz = 0; yz < 4; yz++)
    for (int l = 0; l < kWidth; l++) {
      const GridRow row = grid_row(node[1][l] + (yz & 1), node[2][l] + (yz >> 1), resolution[l]);
      cells.entry[2 * yz][l] = first[l] + grid_entry(node[0][l], row, size[l], hashed[l]);
      cells.entry[2 * yz + 1][l] = first[l] + grid_entry(node[0][l] + 1, row, size[l], hashed[l]);
    }
}

// Weights of the corners in x, y and z; kWidth levels.
struct CornerWeights {
  Vec axis[3][2];
};

inline CornerWeights corner_weights(const LevelCells& cells) {
  CornerWeights w;
  for (int k = 0; k < 3; k++) {
    w.axis[k][1] = load(cells.fraction[k]);
    w.axis[k][0] = sub(set(1.0f), w.axis[k][1]);
  }
  return w;
}

inline void encode_pairs(const GridInput& grid, int level, const float point[3], float* out) {
  LevelCells cells;
  find_cells(grid.layout, level, point, cells);
  const CornerWeights w = corner_weights(cells);
  alignas(64) float weight[kGridCorners][kWidth];
  for (int yz = 0; yz < 4; yz++) {
    const Vec v = mul(w.axis[1][yz & 1], w.axis[2][yz >> 1]);
    store(weight[2 * yz], mul(v, w.axis[0][0]));
    store(weight[2 * yz + 1], mul(v, w.axis[0][1]));
  }
  const int levels = smaller(kWidth, grid.layout.levels - level);
  for (int l = 0; l < levels; l += kPairs) {
    Vec sum = mul(each_twice(weight[0] + l), load_pairs(grid.table, cells.entry[0] + l));
    A3D_UNROLL(8)
    for (int c = 1; c < kGridCorners; c++)
      sum = madd(each_twice(weight[c] + l), load_pairs(grid.table, cells.entry[c] + l), sum);
    const int n = 2 * (levels - l);
    if (n >= kWidth)
      store(out + 2 * l, sum);
    else
      store_part(out + 2 * l, sum, n);
  }
}

// Any number of features.
inline void encode_rows(const GridInput& grid, int level, const float point[3], float* out) {
  LevelCells cells;
  find_cells(grid.layout, level, point, cells);
  const int features = grid.layout.features, levels = smaller(kWidth, grid.layout.levels - level);
  for (int l = 0; l < levels; l++) {
    float sum[kMostGridFeatures] = {0};
    for (int c = 0; c < kGridCorners; c++) {
      float weight = 1.0f;
      for (int k = 0; k < 3; k++) {
        const float f = cells.fraction[k][l];
        weight *= c >> k & 1 ? f : 1.0f - f;
      }
      const float* row = grid.table + (size_t)cells.entry[c][l] * features;
      for (int f = 0; f < features; f++) sum[f] += weight * row[f];
    }
    for (int f = 0; f < features; f++) out[l * features + f] = sum[f];
  }
}

// Features of n points, (n, 3) of any values, to rows of `stride` floats.
inline void encode_points(const GridInput& grid, const float* points, int n, float* out,
                          int stride) {
  const GridLayout& layout = grid.layout;
  for (int i = 0; i < n; i++) {
    float point[3];
    for (int k = 0; k < 3; k++) point[k] = inside_grid(points[3 * i + k]);
    float* row = out + (size_t)i * stride;
    for (int level = 0; level < layout.levels; level += kWidth) {
      if (layout.features == 2)
        encode_pairs(grid, level, point, row + 2 * level);
      else
        encode_rows(grid, level, point, row + level * layout.features);
    }
  }
}

void hash_encode(const GridInput& grid, const float* points, int64_t count, float* out,
                 int threads) {
  const int pieces = (int)((count + kGridPoints - 1) / kGridPoints);
  const int size = grid.layout.levels * grid.layout.features;
  parallel_for(pieces, threads, [&](int piece, int) {
    const int64_t first = (int64_t)piece * kGridPoints;
    const int n = (int)(count - first < kGridPoints ? count - first : kGridPoints);
    encode_points(grid, points + 3 * first, n, out + first * size, size);
  });
}

}  // namespace
