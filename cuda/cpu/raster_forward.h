// Front-to-back blending, one tile at a time with its state in L1: for each Gaussian, for each block
// of the tile that its ellipse touches, kWidth pixels at once.
#pragma once

#include "raster_tiles.h"

namespace {

// Pixel centres of every block, relative to the tile's corner.
struct BlockTable {
  alignas(64) float x[kBlocks][kWidth];
  alignas(64) float y[kBlocks][kWidth];
  alignas(64) float left[kBlocks];  // first pixel centre of each block
  alignas(64) float top[kBlocks];
  BlockTable() {
    for (int b = 0; b < kBlocks; b++) {
      const int bx = b % kBlocksX * kBlockX, by = b / kBlocksX * kBlockY;
      left[b] = (float)bx + 0.5f, top[b] = (float)by + 0.5f;
      for (int l = 0; l < kWidth; l++) {
        x[b][l] = (float)(bx + l % kBlockX) + 0.5f;
        y[b][l] = (float)(by + l / kBlockX) + 0.5f;
      }
    }
  }
};

constexpr uint64_t kAllBlocks = kBlocks == 64 ? ~0ull : ((1ull << (kBlocks & 63)) - 1);

struct Tile {
  int x0, y0, x1, y1;  // pixels, exclusive end, clipped to the image
  bool whole;          // not clipped
  uint64_t blocks;     // those with a pixel inside the image
};

inline Tile tile_at(int tile, int tiles_x, int width, int height) {
  Tile t;
  t.x0 = tile % tiles_x * kTile, t.y0 = tile / tiles_x * kTile;
  t.x1 = smaller(t.x0 + kTile, width), t.y1 = smaller(t.y0 + kTile, height);
  t.whole = t.x1 - t.x0 == kTile && t.y1 - t.y0 == kTile;
  t.blocks = kAllBlocks;
  if (!t.whole) {
    t.blocks = 0;
    for (int b = 0; b < kBlocks; b++)
      if (t.x0 + b % kBlocksX * kBlockX < t.x1 && t.y0 + b / kBlocksX * kBlockY < t.y1)
        t.blocks |= 1ull << b;
  }
  return t;
}

// Blocks with a point where alpha reaches 1/255. log2(alpha) is concave, so its maximum over a
// rectangle lies at the rectangle's point nearest in x or in y, with the other coordinate optimal.
inline uint64_t touched_blocks(const Splat& s, float gx, float gy, const BlockTable& table) {
  uint64_t touched = 0;
  const Vec zero = set(0.0f), limit = set(kLog2MinAlpha);
  const Vec a = set(s.a), b = set(s.b), c = set(s.c), lo = set(s.log2_opacity);
  const Vec cx = set(gx), cy = set(gy), slope_x = set(s.slope_x), slope_y = set(s.slope_y);
  constexpr int kRows = kWidth / kBlocksX * kBlockY;  // pixel rows that one vector of blocks covers
  const float top = gy - s.half_y - 0.5f, bottom = gy + s.half_y - 0.5f;
  const int first = top <= 0 ? 0 : (int)min_of(top, (float)(kTile - 1)) / kRows;
  const int last = bottom < 0 ? -1 : (int)min_of(bottom, (float)(kTile - 1)) / kRows;
  for (int v = first; v <= last; v++) {
    const Vec x0 = sub(load(table.left + v * kWidth), cx);
    const Vec y0 = sub(load(table.top + v * kWidth), cy);
    const Vec x1 = add(x0, set(kBlockX - 1.0f)), y1 = add(y0, set(kBlockY - 1.0f));
    const Vec xe = vmin(vmax(zero, x0), x1), ye = vmin(vmax(zero, y0), y1);
    const Vec yb = vmin(vmax(mul(slope_y, xe), y0), y1);
    const Vec xb = vmin(vmax(mul(slope_x, ye), x0), x1);
    const Vec u1 = madd(b, yb, mul(a, xe)), v1 = mul(c, yb);
    const Vec u2 = madd(b, ye, mul(a, xb)), v2 = mul(c, ye);
    const Vec p1 = nmadd(v1, v1, nmadd(u1, u1, lo)), p2 = nmadd(v2, v2, nmadd(u2, u2, lo));
    touched |= (uint64_t)bits(ge(vmax(p1, p2), limit)) << (v * kWidth);
  }
  return touched;
}

// A splat broadcast to vectors, and log2(alpha) of it over one block.
struct SplatVectors {
  Vec x, y, a, b, c, lo;
  SplatVectors(const Splat& s, float gx, float gy)
      : x(set(gx)), y(set(gy)), a(set(s.a)), b(set(s.b)), c(set(s.c)), lo(set(s.log2_opacity)) {}
  Vec log2_alpha(Vec dx, Vec dy) const {
    const Vec u = madd(b, dy, mul(a, dx)), v = mul(c, dy);
    return nmadd(v, v, nmadd(u, u, lo));
  }
};

// Per block: transmittance, red, green, blue. A finished pixel's transmittance is negated, which
// makes every later "next transmittance > 1e-4" false without another mask.
struct alignas(64) BlendState {
  float v[kBlocks][4][kWidth];
};

inline void blend_tile(const Splat* splats, const int32_t* list, uint64_t* mask, int64_t n,
                       const Tile& tile, const BlockTable& table, BlendState& state) {
  const Vec limit = set(kLog2MinAlpha), alpha_max = set(kMaxAlpha), t_min = set(kMinTransmittance);
  for (int b = 0; b < kBlocks; b++) {
    store(state.v[b][0], set(1.0f));
    for (int k = 1; k < 4; k++) store(state.v[b][k], set(0.0f));
  }
  uint64_t live = tile.blocks;
  int64_t j = 0;
  for (; j < n && live; j++) {
    if (j + 6 < n) prefetch(&splats[list[j + 6]]);
    const Splat& s = splats[list[j]];
    const float gx = s.x - (float)tile.x0, gy = s.y - (float)tile.y0;
    uint64_t todo = touched_blocks(s, gx, gy, table) & live;
    mask[j] = todo;
    if (!todo) continue;
    const SplatVectors g(s, gx, gy);
    const Vec red = set(s.red), green = set(s.green), blue = set(s.blue);
    do {
      const int b = lowest_bit(todo);
      todo &= todo - 1;
      float(*block)[kWidth] = state.v[b];
      const Vec T = load(block[0]);
      const Vec p = g.log2_alpha(sub(load(table.x[b]), g.x), sub(load(table.y[b]), g.y));
      const Vec alpha = keep(ge(p, limit), vmin(exp2_of(p), alpha_max));
      const Vec next = nmadd(alpha, T, T);
      const Mask alive = gt(next, t_min);
      const Vec w = keep(alive, mul(alpha, T));
      store(block[0], select(alive, next, flip_sign(vabs(T))));
      store(block[1], madd(w, red, load(block[1])));
      store(block[2], madd(w, green, load(block[2])));
      store(block[3], madd(w, blue, load(block[3])));
      if (!any(alive)) live &= ~(1ull << b);
    } while (todo);
  }
  for (; j < n; j++) mask[j] = 0;
}

inline void write_tile(const RasterInput& in, const RasterOutput& out, const Tile& tile,
                       const BlendState& state) {
  for (int y = tile.y0; y < tile.y1; y++) {
    const int by = (y - tile.y0) / kBlockY, ly = (y - tile.y0) % kBlockY;
    for (int x = tile.x0; x < tile.x1; x++) {
      const float(*block)[kWidth] = state.v[by * kBlocksX + (x - tile.x0) / kBlockX];
      const int l = ly * kBlockX + (x - tile.x0) % kBlockX;
      const size_t pixel = (size_t)y * in.width + x;
      const float T = fabsf(block[0][l]);
      const float* bg = in.background + (in.background_is_image ? 3 * pixel : 0);
      out.alpha[pixel] = 1.0f - T;
      for (int k = 0; k < 3; k++) out.image[3 * pixel + k] = block[1 + k][l] + T * bg[k];
    }
  }
}

inline void blend_all(const RasterInput& in, const RasterOutput& out, RasterState& state,
                      int threads) {
  static const BlockTable table;
  const int tiles = state.tiles_x * state.tiles_y;
  const Splat* splats = data<Splat>(state.splats);
  const int64_t* start = data<int64_t>(state.tile_start);
#pragma omp parallel num_threads(threads)
  {
    BlendState blend;
#pragma omp for schedule(dynamic, 2)
    for (int t = 0; t < tiles; t++) {
      const Tile tile = tile_at(t, state.tiles_x, in.width, in.height);
      blend_tile(splats, data<int32_t>(state.list) + start[t], data<uint64_t>(state.mask) + start[t],
                 start[t + 1] - start[t], tile, table, blend);
      write_tile(in, out, tile, blend);
    }
  }
}

void rasterize(const RasterInput& in, const RasterOutput& out, RasterState& state, int threads) {
  project_all(in, out.radii, state, threads);
  fill_tiles(in, state, threads);
  blend_all(in, out, state, threads);
}

}  // namespace
