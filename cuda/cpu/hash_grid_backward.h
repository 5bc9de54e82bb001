// Gradients of the hash grid. A level of the table belongs to one thread, which goes through the
// points in order: no atomics, and the same bits on any number of threads.
#pragma once

#include "hash_grid.h"

namespace {

constexpr int kCornerVecs = 2 * kGridCorners / kWidth;  // that hold a pair for each corner

// What consecutive points of one cell give to its corners. Samples along a ray share the cells of
// all but the finest levels.
template <int kFeatures>
struct CellGradient;

// Pairs: vectors hold corners. The weight of a corner in an axis is base + slope * fraction.
template <>
struct CellGradient<2> {
  Vec base[3][kCornerVecs], slope[3][kCornerVecs], sum[kCornerVecs];

  CellGradient() {
    for (int k = 0; k < 3; k++) {
      alignas(64) float b[2 * kGridCorners], s[2 * kGridCorners];
      for (int i = 0; i < 2 * kGridCorners; i++) {
        const bool upper = i >> 1 >> k & 1;
        b[i] = upper ? 0.0f : 1.0f;
        s[i] = upper ? 1.0f : -1.0f;
      }
      for (int v = 0; v < kCornerVecs; v++)
        base[k][v] = load(b + v * kWidth), slope[k][v] = load(s + v * kWidth);
    }
    clear();
  }
  void clear() {
    for (int v = 0; v < kCornerVecs; v++) sum[v] = set(0.0f);
  }
  void add_point(const float fraction[3], const float* gradient, int) {
    const Vec g = same_pair(gradient), x = set(fraction[0]), y = set(fraction[1]),
              z = set(fraction[2]);
    for (int v = 0; v < kCornerVecs; v++) {
      const Vec w = mul(madd(slope[0][v], x, base[0][v]), madd(slope[1][v], y, base[1][v]));
      sum[v] = madd(mul(w, madd(slope[2][v], z, base[2][v])), g, sum[v]);
    }
  }
  void give(const uint32_t entry[kGridCorners], float* table, int) {
    alignas(64) float total[2 * kGridCorners];
    for (int v = 0; v < kCornerVecs; v++) store(total + v * kWidth, sum[v]);
    for (int c = 0; c < kGridCorners; c++) {
      float* row = table + 2 * (size_t)entry[c];
      add_pair(row, total + 2 * c);
    }
    clear();
  }
};

template <>
struct CellGradient<0> {  // any number of features
  float sum[kGridCorners][kMostGridFeatures];

  CellGradient() { clear(); }
  void clear() { memset(sum, 0, sizeof sum); }
  void add_point(const float fraction[3], const float* gradient, int features) {
    for (int c = 0; c < kGridCorners; c++) {
      float weight = 1.0f;
      for (int k = 0; k < 3; k++) weight *= c >> k & 1 ? fraction[k] : 1.0f - fraction[k];
      for (int f = 0; f < features; f++) sum[c][f] += weight * gradient[f];
    }
  }
  void give(const uint32_t entry[kGridCorners], float* table, int features) {
    for (int c = 0; c < kGridCorners; c++)
      for (int f = 0; f < features; f++)
        table[(size_t)entry[c] * features + f] += sum[c][f];
    clear();
  }
};

// Cells of kWidth points in one level.
struct PointCells {
  alignas(64) uint32_t node[3][kWidth], entry[kGridCorners][kWidth];
  alignas(64) float fraction[3][kWidth];
};

inline void find_point_cells(const GridLayout& layout, int level, const float* const axis[3],
                             PointCells& cells) {
  const float scale = layout.scale[level];
  const uint32_t resolution = layout.resolution[level], size = layout.size[level],
                 hashed = layout.hashed[level];
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < kWidth; i++)
      cells.node[k][i] = grid_node(scale, axis[k][i], cells.fraction[k][i]);
  for (int yz = 0; yz < 4; yz++)
    for (int i = 0; i < kWidth; i++) {
      const GridRow row =
          grid_row(cells.node[1][i] + (yz & 1), cells.node[2][i] + (yz >> 1), resolution);
      cells.entry[2 * yz][i] = grid_entry(cells.node[0][i], row, size, hashed);
      cells.entry[2 * yz + 1][i] = grid_entry(cells.node[0][i] + 1, row, size, hashed);
    }
}

// Of one level. axis: x, y and z of the points, within [0, 1], readable to a multiple of kWidth.
// gradients: (count, features).
template <int kFeatures>
inline void level_gradient(const GridLayout& layout, int level, const float* const axis[3],
                           const float* gradients, int64_t count, float* table) {
  const int features = layout.features;
  float* rows = table + (size_t)layout.first[level] * features;
  CellGradient<kFeatures> cell;
  PointCells cells;
  uint32_t at[3] = {0, 0, 0}, entry[kGridCorners] = {0};
  for (int64_t begin = 0; begin < count; begin += kWidth) {
    const float* const here[3] = {axis[0] + begin, axis[1] + begin, axis[2] + begin};
    find_point_cells(layout, level, here, cells);
    const int n = (int)(count - begin < kWidth ? count - begin : kWidth);
    for (int i = 0; i < n; i++) {
      const uint32_t other = (cells.node[0][i] ^ at[0]) | (cells.node[1][i] ^ at[1]) |
                             (cells.node[2][i] ^ at[2]);
      if (other || begin + i == 0) {
        if (begin + i) cell.give(entry, rows, features);
        for (int k = 0; k < 3; k++) at[k] = cells.node[k][i];
        for (int c = 0; c < kGridCorners; c++) entry[c] = cells.entry[c][i];
      }
      const float fraction[3] = {cells.fraction[0][i], cells.fraction[1][i], cells.fraction[2][i]};
      cell.add_point(fraction, gradients + (begin + i) * features, features);
    }
  }
  if (count) cell.give(entry, rows, features);
}

// Derivatives of one point's features, times v, by the point; kWidth levels of pairs.
inline void pair_slopes(const GridInput& grid, int level, const float point[3], const float* v,
                        float out[3]) {
  const GridLayout& layout = grid.layout;
  LevelCells cells;
  find_cells(layout, level, point, cells);
  const CornerWeights w = corner_weights(cells);
  // Weights of the four edges along each axis, by their place on the other two.
  alignas(64) float edge[3][4][kWidth];
  for (int k = 0; k < 3; k++)
    for (int e = 0; e < 4; e++) {
      const Vec across = mul(w.axis[k == 0 ? 1 : 0][e & 1], w.axis[k == 2 ? 1 : 2][e >> 1]);
      store(edge[k][e], mul(across, load(layout.scale + level)));
    }
  const int levels = smaller(kWidth, layout.levels - level);
  Vec sum[3] = {set(0.0f), set(0.0f), set(0.0f)};
  for (int l = 0; l < levels; l += kPairs) {
    Vec corner[kGridCorners];
    A3D_UNROLL(8)
    for (int c = 0; c < kGridCorners; c++)
      corner[c] = load_pairs(grid.table, cells.entry[c] + l);
    const int n = 2 * (levels - l);
    const Vec g = n >= kWidth ? load(v + 2 * l) : load_part(v + 2 * l, n);
    A3D_UNROLL(3)
    for (int k = 0; k < 3; k++) {
      Vec slope = set(0.0f);
      A3D_UNROLL(4)
      for (int e = 0; e < 4; e++) {
        const int low = k == 0 ? 2 * e : (k == 1 ? (e & 1) | (e >> 1) << 2 : e);
        slope = madd(each_twice(edge[k][e] + l), sub(corner[low | 1 << k], corner[low]), slope);
      }
      sum[k] = madd(slope, g, sum[k]);
    }
  }
  for (int k = 0; k < 3; k++) out[k] += ::sum(sum[k]);
}

inline void row_slopes(const GridInput& grid, int level, const float point[3], const float* v,
                       float out[3]) {
  const GridLayout& layout = grid.layout;
  LevelCells cells;
  find_cells(layout, level, point, cells);
  const int features = layout.features, levels = smaller(kWidth, layout.levels - level);
  for (int l = 0; l < levels; l++)
    for (int c = 0; c < kGridCorners; c++) {
      const float* row = grid.table + (size_t)cells.entry[c][l] * features;
      float dot = 0.0f;
      for (int f = 0; f < features; f++) dot += row[f] * v[l * features + f];
      float weight[3], sign[3];
      for (int k = 0; k < 3; k++) {
        const bool upper = c >> k & 1;
        weight[k] = upper ? cells.fraction[k][l] : 1.0f - cells.fraction[k][l];
        sign[k] = upper ? layout.scale[level + l] : -layout.scale[level + l];
      }
      out[0] += dot * sign[0] * weight[1] * weight[2];
      out[1] += dot * sign[1] * weight[0] * weight[2];
      out[2] += dot * sign[2] * weight[0] * weight[1];
    }
}

inline void point_gradient(const GridInput& grid, const float* position, const float* v,
                           float* out) {
  const GridLayout& layout = grid.layout;
  float point[3], slope[3] = {0.0f, 0.0f, 0.0f};
  for (int k = 0; k < 3; k++) point[k] = inside_grid(position[k]);
  for (int level = 0; level < layout.levels; level += kWidth)
    if (layout.features == 2)
      pair_slopes(grid, level, point, v + 2 * level, slope);
    else
      row_slopes(grid, level, point, v + level * layout.features, slope);
  for (int k = 0; k < 3; k++) {
    const bool moved = !(position[k] >= 0.0f && position[k] <= 1.0f);
    out[k] = moved ? 0.0f : slope[k];
  }
}

// What the levels read of the points: coordinates axis by axis, gradients level by level. Otherwise
// every level would have to fetch all of v_features from memory.
struct LevelInputs {
  float* axis[3];
  float* gradients;  // (levels, count, features)
};

inline void sort_by_level(const GridLayout& layout, const float* points, const float* v_features,
                          int64_t count, int64_t first, int64_t last, const LevelInputs& out) {
  const int features = layout.features, levels = layout.levels;
  for (int64_t i = first; i < last; i++) {
    for (int k = 0; k < 3; k++) out.axis[k][i] = inside_grid(points[3 * i + k]);
    const float* v = v_features + i * levels * features;
    if (features == 2)
      for (int l = 0; l < levels; l++)
        memcpy(out.gradients + 2 * ((size_t)l * count + i), v + 2 * l, 2 * sizeof(float));
    else
      for (int l = 0; l < levels; l++)
        for (int f = 0; f < features; f++)
          out.gradients[((size_t)l * count + i) * features + f] = v[l * features + f];
  }
}

void hash_encode_backward(const GridInput& grid, const float* points, int64_t count,
                          const GridGradient& out, Buffer& scratch, int threads) {
  const GridLayout& layout = grid.layout;
  const int features = layout.features, levels = layout.levels, size = levels * features;
  const int pieces = (int)((count + kGridPoints - 1) / kGridPoints);
  const size_t padded = ((size_t)count + kWidth - 1) / kWidth * kWidth;
  LevelInputs inputs = {};
  if (out.table) {
    float* memory = reserve<float>(scratch, 3 * padded + (size_t)count * size);
    for (int k = 0; k < 3; k++) {
      inputs.axis[k] = memory + k * padded;
      for (size_t i = (size_t)count; i < padded; i++) inputs.axis[k][i] = 0.0f;
    }
    inputs.gradients = memory + 3 * padded;
  }
  parallel_for(pieces, threads, [&](int piece, int) {
    const int64_t first = (int64_t)piece * kGridPoints;
    const int64_t last = first + kGridPoints < count ? first + kGridPoints : count;
    if (out.table) sort_by_level(layout, points, out.v_features, count, first, last, inputs);
    if (out.points)
      for (int64_t i = first; i < last; i++)
        point_gradient(grid, points + 3 * i, out.v_features + i * size, out.points + 3 * i);
  });
  if (!out.table) return;
  parallel_for(levels, threads, [&](int turn, int) {
    const int level = levels - 1 - turn;  // the finest take longest
    const float* gradients = inputs.gradients + (size_t)level * count * features;
    if (features == 2)
      level_gradient<2>(layout, level, inputs.axis, gradients, count, out.table);
    else
      level_gradient<0>(layout, level, inputs.axis, gradients, count, out.table);
  });
}

}  // namespace
