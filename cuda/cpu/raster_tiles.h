// Footprints, depth order and tile lists: everything the blending loops need.
#pragma once

#include "parallel.h"
#include "simd.h"

#include "avatar3d/projection.h"

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
static_assert(kBlocks <= 64 && kBlocks % kWidth == 0, "a tile's blocks are masked in whole vectors");

// 64 bytes. log2(alpha) at (dx, dy) from the centre = log2_opacity - (a dx + b dy)^2 - (c dy)^2;
// squares of a Cholesky factor keep long thin Gaussians from cancelling.
struct Splat {
  float x, y;
  float a, b, c;
  float log2_opacity;
  float red, green, blue;
  float slope_x, slope_y;  // cxy / cyy, cxy / cxx: where the ellipse is widest and tallest
  float half_x, half_y;    // extent of alpha >= 1/255; half_x < 0: not drawn
  float conic_a, conic_b, conic_c;
};

constexpr int kLanes = 16;  // Gaussians projected together

struct alignas(64) Lanes {
  float mean[3][kLanes], quat[4][kLanes], scale[3][kLanes], opacity[kLanes], color[3][kLanes];
};

inline void load_lanes(Lanes& v, const RasterInput& in, int first, int n) {
  for (int l = 0; l < kLanes; l++) {
    const size_t i = (size_t)first + (l < n ? l : 0);
    for (int k = 0; k < 3; k++) v.mean[k][l] = in.means[3 * i + k];
    for (int k = 0; k < 4; k++) v.quat[k][l] = in.quats[4 * i + k];
    for (int k = 0; k < 3; k++) v.scale[k][l] = in.scales[3 * i + k];
    for (int k = 0; k < 3; k++) v.color[k][l] = in.colors[3 * i + k];
    v.opacity[l] = in.opacities[i];
  }
}

inline Gaussian lane(const Lanes& v, int l) {
  Gaussian g;
  for (int k = 0; k < 3; k++) g.mean[k] = v.mean[k][l];
  for (int k = 0; k < 4; k++) g.quat[k] = v.quat[k][l];
  for (int k = 0; k < 3; k++) g.scale[k] = v.scale[k][l];
  return g;
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

struct alignas(64) ProjectedLanes {
  float v[13][kLanes];  // x y depth a b c log2_opacity slope_x slope_y half_x half_y then conic below
  float conic[3][kLanes];
};

inline void project_lanes(const PinholeCamera& camera, const Lanes& in, ProjectedLanes& out) {
#pragma omp simd
  for (int l = 0; l < kLanes; l++) {
    const Footprint s = project(camera, lane(in, l));
    const float opacity = in.opacity[l];
    const float log2_opacity = log2_of(opacity);
    const float inv = 1.0f / s.det;
    // alpha >= 1/255 inside the ellipse dx' conic dx <= reach
    const float reach = max_of(2.0f * 0.6931471805599453f * (log2_opacity - kLog2MinAlpha), 0.0f);
    const float half_x = sqrtf(reach * s.cxx), half_y = sqrtf(reach * s.cyy);
    const float color = in.color[0][l] + in.color[1][l] + in.color[2][l];
    // Comparisons are false for NaN, so a poisoned Gaussian is dropped by the first it meets.
    const bool drawn = (s.depth > kNear) & (s.depth < kFar) & (opacity >= kMinAlpha) &
                       (opacity < 1e30f) & (s.cxx < kMaxVariance) & (s.cyy < kMaxVariance) &
                       (s.x + half_x > 0) & (s.x - half_x < camera.width) & (s.y + half_y > 0) &
                       (s.y - half_y < camera.height) & (color - color == 0.0f);
    const float k = 0.5f * kLog2E;
    out.v[0][l] = s.x, out.v[1][l] = s.y, out.v[2][l] = s.depth;
    out.v[3][l] = sqrtf(k * s.cyy * inv);
    out.v[4][l] = -s.cxy * sqrtf(k * inv / s.cyy);
    out.v[5][l] = sqrtf(k / s.cyy);
    out.v[6][l] = log2_opacity;
    out.v[7][l] = s.cxy / s.cyy, out.v[8][l] = s.cxy / s.cxx;
    out.v[9][l] = drawn ? half_x : -1.0f;
    out.v[10][l] = half_y;
    out.conic[0][l] = s.cyy * inv, out.conic[1][l] = -s.cxy * inv, out.conic[2][l] = s.cxx * inv;
  }
}

// Fills state.splats, radii and the unsorted depth keys (one per Gaussian, drawn or not).
inline void project_all(const RasterInput& in, float* radii, RasterState& state, int threads) {
  const PinholeCamera camera = camera_of(in);
  Splat* splats = reserve<Splat>(state.splats, (size_t)in.count);
  float* depths = reserve<float>(state.keys2, (size_t)in.count);
  const int batches = (in.count + kLanes - 1) / kLanes;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int batch = 0; batch < batches; batch++) {
    const int first = batch * kLanes, n = smaller(kLanes, in.count - first);
    Lanes lanes;
    ProjectedLanes p;
    load_lanes(lanes, in, first, n);
    project_lanes(camera, lanes, p);
    for (int l = 0; l < n; l++) {
      Splat& s = splats[first + l];
      s.x = p.v[0][l], s.y = p.v[1][l];
      s.a = p.v[3][l], s.b = p.v[4][l], s.c = p.v[5][l];
      s.log2_opacity = p.v[6][l];
      s.red = lanes.color[0][l], s.green = lanes.color[1][l], s.blue = lanes.color[2][l];
      s.slope_x = p.v[7][l], s.slope_y = p.v[8][l];
      s.half_x = p.v[9][l], s.half_y = p.v[10][l];
      s.conic_a = p.conic[0][l], s.conic_b = p.conic[1][l], s.conic_c = p.conic[2][l];
      depths[first + l] = p.v[2][l];
      radii[first + l] = s.half_x < 0 ? 0.0f : max_of(s.half_x, s.half_y);
    }
  }
}

// Stable least-significant-digit radix sort of (key, value) pairs in three passes of 11 bits.
// The result is in keys2 and values2.
inline void radix_sort(uint32_t* keys, int32_t* values, uint32_t* keys2, int32_t* values2, int n) {
  constexpr int kDigits = 2048;
  uint32_t start[3][kDigits];
  memset(start, 0, sizeof start);
  for (int i = 0; i < n; i++) {
    const uint32_t k = keys[i];
    start[0][k & 2047]++, start[1][(k >> 11) & 2047]++, start[2][k >> 22]++;
  }
  for (int pass = 0; pass < 3; pass++) {
    uint32_t total = 0;
    for (int d = 0; d < kDigits; d++) {
      const uint32_t c = start[pass][d];
      start[pass][d] = total;
      total += c;
    }
    const int shift = 11 * pass;
    for (int i = 0; i < n; i++) {
      const uint32_t at = start[pass][(keys[i] >> shift) & 2047]++;
      keys2[at] = keys[i], values2[at] = values[i];
    }
    uint32_t* k = keys;
    keys = keys2, keys2 = k;
    int32_t* v = values;
    values = values2, values2 = v;
  }
}

struct TileRect {
  uint16_t x0, x1, y0, y1;  // inclusive
};

inline int tile_of(float pixel, int tiles) {
  const float t = floorf((pixel - 0.5f) * (1.0f / kTile));
  return (int)max_of(0.0f, min_of(t, (float)(tiles - 1)));
}

inline TileRect rect_of(const Splat& s, int tiles_x, int tiles_y) {
  TileRect r;
  r.x0 = (uint16_t)tile_of(s.x - s.half_x, tiles_x);
  r.x1 = (uint16_t)tile_of(s.x + s.half_x, tiles_x);
  r.y0 = (uint16_t)tile_of(s.y - s.half_y, tiles_y);
  r.y1 = (uint16_t)tile_of(s.y + s.half_y, tiles_y);
  return r;
}

// Drawn Gaussians front to back; equal depths keep their index order. Returns how many.
inline int sort_by_depth(const RasterInput& in, RasterState& state, const int32_t** sorted) {
  const size_t n = (size_t)in.count;
  const Splat* splats = data<Splat>(state.splats);
  uint32_t* keys = reserve<uint32_t>(state.keys, n);
  uint32_t* keys2 = data<uint32_t>(state.keys2);  // the depths, until the sort's first pass
  int32_t* order = reserve<int32_t>(state.order, n);
  int32_t* order2 = reserve<int32_t>(state.order2, n);
  int drawn = 0;
  for (int i = 0; i < in.count; i++) {
    keys[drawn] = keys2[i];  // positive floats sort like their bits
    order[drawn] = i;
    drawn += splats[i].half_x >= 0;
  }
  radix_sort(keys, order, keys2, order2, drawn);
  *sorted = order2;
  return drawn;
}

// Fills tile_start, list, entry_start, entry_slot. Each thread takes a contiguous range of the depth
// order; counting first makes the scatter ordered, so no tile needs sorting.
inline void fill_tiles(const RasterInput& in, RasterState& state, int threads) {
  const int32_t* sorted;
  const int drawn = sort_by_depth(in, state, &sorted);
  const Splat* splats = data<Splat>(state.splats);
  const int tiles_x = state.tiles_x = (in.width + kTile - 1) / kTile;
  const int tiles_y = state.tiles_y = (in.height + kTile - 1) / kTile;
  const int tiles = tiles_x * tiles_y;
  if (drawn < 4096) threads = 1;
  int64_t* counts = reserve<int64_t>(state.counts, (size_t)(tiles + 1) * threads);
  int64_t* tile_start = reserve<int64_t>(state.tile_start, (size_t)tiles + 1);
  int64_t* entry_start = reserve<int64_t>(state.entry_start, (size_t)in.count + 1);
  TileRect* rects = reserve<TileRect>(state.rects, (size_t)drawn);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int t = 0; t < threads; t++) {
    int64_t* count = counts + (size_t)t * (tiles + 1);
    memset(count, 0, sizeof(int64_t) * (tiles + 1));
    const int begin = (int)((int64_t)drawn * t / threads);
    const int end = (int)((int64_t)drawn * (t + 1) / threads);
    for (int k = begin; k < end; k++) {
      if (k + 8 < end) prefetch(&splats[sorted[k + 8]]);
      const TileRect r = rects[k] = rect_of(splats[sorted[k]], tiles_x, tiles_y);
      for (int y = r.y0; y <= r.y1; y++)
        for (int x = r.x0; x <= r.x1; x++) count[y * tiles_x + x]++;
      count[tiles] += (int64_t)(r.x1 - r.x0 + 1) * (r.y1 - r.y0 + 1);
    }
  }
  int64_t total = 0;
  for (int tile = 0; tile < tiles; tile++) {
    tile_start[tile] = total;
    for (int t = 0; t < threads; t++) {
      int64_t& c = counts[(size_t)t * (tiles + 1) + tile];
      const int64_t n = c;
      c = total;
      total += n;
    }
  }
  tile_start[tiles] = state.entries = total;
  int64_t before = 0;
  for (int t = 0; t < threads; t++) {
    int64_t& c = counts[(size_t)t * (tiles + 1) + tiles];
    const int64_t n = c;
    c = before;
    before += n;
  }
  if (total > 0x7fffffff) throw_too_many_entries();
  int32_t* list = reserve<int32_t>(state.list, (size_t)total);
  int32_t* entry_slot = reserve<int32_t>(state.entry_slot, (size_t)total);
  reserve<uint64_t>(state.mask, (size_t)total);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int t = 0; t < threads; t++) {
    int64_t* next = counts + (size_t)t * (tiles + 1);
    int64_t slot = next[tiles];
    const int begin = (int)((int64_t)drawn * t / threads);
    const int end = (int)((int64_t)drawn * (t + 1) / threads);
    for (int k = begin; k < end; k++) {
      const TileRect r = rects[k];
      const int32_t id = sorted[k];
      entry_start[id] = slot;
      for (int y = r.y0; y <= r.y1; y++)
        for (int x = r.x0; x <= r.x1; x++) {
          const int64_t at = next[y * tiles_x + x]++;
          list[at] = id;
          entry_slot[slot++] = (int32_t)at;
        }
    }
  }
}

}  // namespace
