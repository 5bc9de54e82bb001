// Multiresolution hash grid of Mueller et al., "Instant neural graphics primitives", with the
// conventions of tiny-cuda-nn; see avatar3d/kernels/hashgrid.py.
#pragma once

#include "common.h"

namespace avatar3d {

constexpr int kGridCorners = 8;  // of a cell: bit 0 is one step in x, bit 1 in y, bit 2 in z
constexpr int kMostGridLevels = 32, kMostGridFeatures = 8;

// Of a point in [0, 1]; NaN counts as 0.
A3D_HD float inside_grid(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// Lower node of the cell that x, of [0, 1], lies in, and how far beyond it.
A3D_HD unsigned grid_node(float scale, float x, float& fraction) {
  const float position = x * scale + 0.5f;
  const int node = (int)position;
  fraction = position - (float)node;
  return (unsigned)node;
}

// The nodes of one y and z, in a level with `resolution` nodes a side.
struct GridRow {
  unsigned in_order, hash;
};
A3D_HD GridRow grid_row(unsigned y, unsigned z, unsigned resolution) {
  return {resolution * (y + resolution * z), y * 2654435761u ^ z * 805459861u};
}

// Entry of a row's node x within its level, which has `size` entries. Nodes one beyond the last,
// which x = 1 reaches, run into the next row, as in tiny-cuda-nn. hashed: all bits set or none;
// branches would keep compilers from vectorising this.
A3D_HD unsigned grid_entry(unsigned x, GridRow row, unsigned size, unsigned hashed) {
  const unsigned in_order = x + row.in_order;
  const unsigned wrapped = in_order - (in_order >= size ? size : 0u);
  const unsigned hash = (x ^ row.hash) & (size - 1u);
  return (hash & hashed) | (wrapped & ~hashed);
}

}  // namespace avatar3d
