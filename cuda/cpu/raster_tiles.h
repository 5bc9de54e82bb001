// Footprints, depth order and tile lists: everything the blending loops need.
#pragma once

#include "avatar3d/projection.h"
#include "lanes.h"
#include "parallel.h"

namespace {

using namespace avatar3d;

// A tile is kTile x kTile pixels, cut into blocks of kBlockX x kBlockY = kWidth pixels. At most 64
// blocks, so that a tile's blocks fit one uint64.
constexpr int kTile = kWidth == 16 ? 32 : 16;
constexpr int kBlockX = 4;
constexpr int kBlockY = kWidth / kBlockX;
constexpr int kBlocksX = kTile / kBlockX;
constexpr int kBlocksY = kTile / kBlockY;
constexpr int kBlocks = kBlocksX * kBlocksY;
static_assert(kBlocks <= 64 && kBlocks % kWidth == 0,
              "a tile's blocks are masked in whole vectors");

// 64 bytes. log2(alpha) at (dx, dy) from the centre = log2_opacity - (a dx + b dy)^2 - (c dy)^2;
// squares of a Cholesky factor keep long thin Gaussians from cancelling.
struct Splat {
  float x, y;
  float a, b, c;
  float log2_opacity;
  float red, green, blue;
  // The ellipse alpha = 1/255: at height dy its sides are at slope dy +- sqrt(..) / a, its
  // rightmost point is (half_x, right_y). half_x < 0: not drawn.
  float slope, inv_a, half_x, right_y;
  float conic_a, conic_b, conic_c;
};

// The tiles that a drawn Gaussian's box reaches, inclusive.
struct TileRect {
  uint16_t x0, x1, y0, y1;
  int count() const { return (x1 - x0 + 1) * (y1 - y0 + 1); }
};

// One (tile, Gaussian) pair. The slot is where the backward leaves its gradient: a Gaussian's slots
// are neighbours, so that the projection's backward reads them in one sweep.
struct Entry {
  int32_t id;
  int32_t slot;
};

constexpr int kBatchesTogether = 16;  // claimed at a time by a thread

// kWidth Gaussians side by side.
struct Batch {
  Gaussian<Lanes> gaussian;
  Lanes opacity;
};

inline Batch load_batch(const RasterInput& in, int first, int n) {
  const size_t i = (size_t)first;
  Batch b;
  load_columns<3>(in.means + 3 * i, n, b.gaussian.mean);
  load_columns<4>(in.quats + 4 * i, n, b.gaussian.quat);
  load_columns<3>(in.scales + 3 * i, n, b.gaussian.scale);
  load_columns<1>(in.opacities + i, n, &b.opacity);
  return b;
}

inline PinholeCamera camera_of(const RasterInput& in) {
  PinholeCamera c;
  for (int i = 0; i < 3; i++) {
    for (int k = 0; k < 3; k++) c.r[3 * i + k] = in.viewmat[4 * i + k];
    c.t[i] = in.viewmat[4 * i + 3];
  }
  c.fx = in.intrinsics[0], c.fy = in.intrinsics[4];
  c.cx = in.intrinsics[2], c.cy = in.intrinsics[5];
  c.width = (float)in.width, c.height = (float)in.height;
  const float slack_x = 0.15f * c.width / c.fx, slack_y = 0.15f * c.height / c.fy;
  c.min_x = -(c.cx / c.fx + slack_x), c.max_x = (c.width - c.cx) / c.fx + slack_x;
  c.min_y = -(c.cy / c.fy + slack_y), c.max_y = (c.height - c.cy) / c.fy + slack_y;
  return c;
}

// The geometric part of kWidth Splats, and what else binning needs.
struct SplatBatch {
  Lanes x, y, a, b, c, log2_opacity, slope, inv_a, half_x, right_y, conic[3], half_y, depth;
};

inline SplatBatch project_batch(const PinholeCamera& camera, const Batch& in, Lanes color_sum) {
  const Footprint<Lanes> f = project(camera, in.gaussian);
  SplatBatch s;
  const Lanes zero(0.0f), one(1.0f), k(0.5f * kLog2E), inv = one / f.det, inv_yy = one / f.cyy;
  s.x = f.x, s.y = f.y, s.depth = f.depth;
  s.log2_opacity = log2_of(in.opacity);
  s.a = sqrt_of(k * f.cyy * inv);
  s.b = zero - f.cxy * sqrt_of(k * inv * inv_yy);
  s.c = sqrt_of(k * inv_yy);
  s.slope = f.cxy * inv_yy, s.inv_a = one / s.a;
  s.conic[0] = f.cyy * inv, s.conic[1] = zero - f.cxy * inv, s.conic[2] = f.cxx * inv;
  // alpha >= 1/255 inside the ellipse dx' conic dx <= reach
  const Lanes reach =
      max_of(Lanes(2.0f * 0.6931471805599453f) * (s.log2_opacity - Lanes(kLog2MinAlpha)), zero);
  s.half_x = sqrt_of(reach * f.cxx), s.half_y = sqrt_of(reach * f.cyy);
  s.right_y = s.half_x * f.cxy / f.cxx;
  // Comparisons are false for NaN, so a poisoned Gaussian is dropped by the first it meets.
  const LaneMask drawn =
      (f.depth > Lanes(kNear)) & (f.depth < Lanes(kFar)) & (in.opacity >= Lanes(kMinAlpha)) &
      (in.opacity < Lanes(1e30f)) & (f.cxx < Lanes(kMaxVariance)) & (f.cyy < Lanes(kMaxVariance)) &
      (s.x + s.half_x > zero) & (s.x - s.half_x < Lanes(camera.width)) & (s.y + s.half_y > zero) &
      (s.y - s.half_y < Lanes(camera.height)) & (color_sum - color_sum <= zero);
  s.half_x = select(drawn, s.half_x, Lanes(-1.0f));
  return s;
}

inline uint16_t tile_of(float pixel, int tiles) {
  const float t = (pixel - 0.5f) * (1.0f / kTile);
  return (uint16_t)(int)max_of(0.0f, min_of(t, (float)(tiles - 1)));
}

// Fills splats, rects, depths (negative: not drawn), radii and, in counts, how many Gaussians reach
// each tile.
inline void project_all(const RasterInput& in, float* radii, RasterState& state, int threads) {
  const PinholeCamera camera = camera_of(in);
  const size_t n = (size_t)in.count;
  const int tiles_x = state.tiles_x = (in.width + kTile - 1) / kTile;
  const int tiles_y = state.tiles_y = (in.height + kTile - 1) / kTile;
  const int tiles = tiles_x * tiles_y, batches = (in.count + kWidth - 1) / kWidth;
  Splat* splats = reserve<Splat>(state.splats, n);
  TileRect* rects = reserve<TileRect>(state.rects, n);
  float* depths = reserve<float>(state.depths, n);
  int32_t* counts = reserve<int32_t>(state.counts, (size_t)tiles * threads);
  memset(counts, 0, sizeof(int32_t) * tiles * threads);
  const auto project_one = [&](int batch, int32_t* own_counts) {
    const int first = batch * kWidth, count = smaller(kWidth, in.count - first);
    Lanes color[3];
    load_columns<3>(in.colors + 3 * (size_t)first, count, color);
    SplatBatch s =
        project_batch(camera, load_batch(in, first, count), color[0] + color[1] + color[2]);
    const Lanes rows[16] = {s.x,       s.y,        s.a,        s.b,       s.c,     s.log2_opacity,
                            color[0],  color[1],   color[2],   s.slope,   s.inv_a, s.half_x,
                            s.right_y, s.conic[0], s.conic[1], s.conic[2]};
    store_columns<16>(rows, count, &splats[first].x);
    s.depth = select(s.half_x >= Lanes(0.0f), s.depth, Lanes(-1.0f));
    store_columns<1>(&s.depth, count, depths + first);
    alignas(64) float half_y[kWidth];
    store(half_y, s.half_y.v);
    for (int l = 0; l < count; l++) {
      const Splat& p = splats[first + l];
      const bool drawn = p.half_x >= 0;
      radii[first + l] = drawn ? max_of(p.half_x, half_y[l]) : 0.0f;
      if (!drawn) continue;
      const TileRect r = rects[first + l] =
          TileRect{tile_of(p.x - p.half_x, tiles_x), tile_of(p.x + p.half_x, tiles_x),
                   tile_of(p.y - half_y[l], tiles_y), tile_of(p.y + half_y[l], tiles_y)};
      for (int y = r.y0; y <= r.y1; y++)
        for (int x = r.x0; x <= r.x1; x++) own_counts[y * tiles_x + x]++;
    }
  };
  parallel_for(chunks_of(kBatchesTogether, batches), threads, [&](int chunk, int worker) {
    const int end = smaller(batches, (chunk + 1) * kBatchesTogether);
    for (int batch = chunk * kBatchesTogether; batch < end; batch++)
      project_one(batch, counts + (size_t)tiles * worker);
  });
}

// Stable least-significant-digit radix sort of (key, value) pairs, 11 bits a pass, as many passes
// as the range of the keys needs. Returns the sorted values, which are in either array.
inline int32_t* radix_sort(uint32_t* keys, int32_t* values, uint32_t* keys2, int32_t* values2,
                           int n) {
  constexpr int kDigits = 2048;
  uint32_t low = ~0u, high = 0;
  for (int i = 0; i < n; i++) {
    low = keys[i] < low ? keys[i] : low;
    high = keys[i] > high ? keys[i] : high;
  }
  for (int shift = 0; n && shift < 32 && (high - low) >> shift; shift += 11) {
    uint32_t start[kDigits] = {0};
    for (int i = 0; i < n; i++) start[((keys[i] - low) >> shift) & (kDigits - 1)]++;
    uint32_t total = 0;
    for (int d = 0; d < kDigits; d++) {
      const uint32_t c = start[d];
      start[d] = total;
      total += c;
    }
    for (int i = 0; i < n; i++) {
      const uint32_t at = start[((keys[i] - low) >> shift) & (kDigits - 1)]++;
      keys2[at] = keys[i], values2[at] = values[i];
    }
    uint32_t* k = keys;
    keys = keys2, keys2 = k;
    int32_t* v = values;
    values = values2, values2 = v;
  }
  return values;
}

// Drawn Gaussians front to back; equal depths keep their index order. Also numbers their slots.
// Returns how many are drawn.
inline int sort_by_depth(const RasterInput& in, RasterState& state, const int32_t** sorted) {
  const size_t n = (size_t)in.count;
  const TileRect* rects = data<TileRect>(state.rects);
  const float* depths = data<float>(state.depths);
  int64_t* slot_start = reserve<int64_t>(state.slot_start, n + 1);
  uint32_t* keys = reserve<uint32_t>(state.keys, n);
  uint32_t* keys2 = reserve<uint32_t>(state.keys2, n);
  int32_t* order = reserve<int32_t>(state.order, n);
  int32_t* order2 = reserve<int32_t>(state.order2, n);
  int drawn = 0;
  int64_t slots = 0;
  for (int i = 0; i < in.count; i++) {
    const bool here = depths[i] > 0;
    memcpy(&keys[drawn], &depths[i], sizeof(uint32_t));  // positive floats sort like their bits
    order[drawn] = i;
    drawn += here;
    slot_start[i] = slots;
    slots += here ? rects[i].count() : 0;
  }
  slot_start[n] = state.entries = slots;
  if (slots > 0x7fffffff) throw_too_many_entries();
  *sorted = radix_sort(keys, order, keys2, order2, drawn);
  return drawn;
}

// Fills tile_start and list: an ordered scatter of the sorted Gaussians, so no tile needs sorting.
// Each thread owns a band of tile rows and walks them all.
inline void fill_tiles(const RasterInput& in, RasterState& state, int threads) {
  const int tiles_x = state.tiles_x, tiles_y = state.tiles_y, tiles = tiles_x * tiles_y;
  const int32_t* sorted;
  const int drawn = sort_by_depth(in, state, &sorted);
  const TileRect* rects = data<TileRect>(state.rects);
  const int64_t* slot_start = data<int64_t>(state.slot_start);
  int32_t* tile_start = reserve<int32_t>(state.tile_start, (size_t)tiles + 1);
  int32_t* next = data<int32_t>(state.counts);
  Entry* list = reserve<Entry>(state.list, (size_t)state.entries);
  reserve<uint64_t>(state.mask, (size_t)state.entries);
  int32_t total = 0;
  for (int tile = 0; tile < tiles; tile++) {
    tile_start[tile] = total;
    for (int t = 0; t < threads; t++) total += next[(size_t)tiles * t + tile];
    next[tile] = tile_start[tile];
  }
  tile_start[tiles] = total;
  const int bands = smaller(threads, tiles_y);
  parallel_for(bands, threads, [&](int band, int) {
    // bands of about equal numbers of pairs
    int y0 = 0, y1 = 0;
    for (int y = 0; y < tiles_y; y++) {
      const int64_t before = (int64_t)tile_start[y * tiles_x] * bands;
      y0 += before < (int64_t)total * band;
      y1 += before < (int64_t)total * (band + 1);
    }
    for (int k = 0; k < drawn; k++) {
      const int32_t id = sorted[k];
      const TileRect r = rects[id];
      const int from = larger(r.y0, y0), to = smaller(r.y1, y1 - 1);
      for (int y = from; y <= to; y++) {
        int32_t slot = (int32_t)slot_start[id] + (y - r.y0) * (r.x1 - r.x0 + 1);
        for (int x = r.x0; x <= r.x1; x++) list[next[y * tiles_x + x]++] = Entry{id, slot++};
      }
    }
  });
}

}  // namespace
