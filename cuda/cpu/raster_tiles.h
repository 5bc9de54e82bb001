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

struct RasterScene {
  const Splat* splats;
  const float* depths;  // camera z, metres; not drawn: negative
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

constexpr int kTogether = 16 * kWidth;  // Gaussians that a thread claims at a time

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

// The tile of a pixel coordinate, as a float that holds an integer after truncation.
inline Lanes tile_of(Lanes pixel, int tiles) {
  const Lanes t = (pixel - Lanes(0.5f)) * Lanes(1.0f / kTile);
  return max_of(Lanes(0.0f), min_of(t, Lanes((float)(tiles - 1))));
}

// Fills splats, rects, depths (negative: not drawn) and radii of kWidth Gaussians from `first` on.
// Corners counts, in (tiles_y + 1, tiles_x + 1), where rects begin and end: its sums from the top
// left are how many Gaussians reach each tile. Slots numbers the pairs of the chunk.
inline void project_some(const RasterInput& in, const PinholeCamera& camera, int first,
                         RasterState& state, float* radii, int32_t* corners, int32_t& slots) {
  Splat* splats = data<Splat>(state.splats);
  TileRect* rects = data<TileRect>(state.rects);
  const int tiles_x = state.tiles_x, tiles_y = state.tiles_y;
  const int count = smaller(kWidth, in.count - first);
  Lanes color[3];
  load_columns<3>(in.colors + 3 * (size_t)first, count, color);
  SplatBatch s =
      project_batch(camera, load_batch(in, first, count), color[0] + color[1] + color[2]);
  const Lanes rows[16] = {s.x,       s.y,        s.a,        s.b,       s.c,     s.log2_opacity,
                          color[0],  color[1],   color[2],   s.slope,   s.inv_a, s.half_x,
                          s.right_y, s.conic[0], s.conic[1], s.conic[2]};
  store_columns<16>(rows, count, &splats[first].x);
  const Lanes zero(0.0f);
  const LaneMask drawn = s.half_x >= zero;
  s.depth = select(drawn, s.depth, Lanes(-1.0f));
  store_columns<1>(&s.depth, count, data<float>(state.depths) + first);
  const Lanes radius = select(drawn, max_of(s.half_x, s.half_y), zero);
  store_columns<1>(&radius, count, radii + first);
  alignas(64) float x0[kWidth], x1[kWidth], y0[kWidth], y1[kWidth], once[kWidth];
  store(x0, tile_of(s.x - s.half_x, tiles_x).v), store(x1, tile_of(s.x + s.half_x, tiles_x).v);
  store(y0, tile_of(s.y - s.half_y, tiles_y).v), store(y1, tile_of(s.y + s.half_y, tiles_y).v);
  store(once, select(drawn, Lanes(1.0f), zero).v);
  for (int l = 0; l < count; l++) {
    const int left = (int)x0[l], right = (int)x1[l] + 1, top = (int)y0[l], bottom = (int)y1[l] + 1;
    rects[first + l] =
        TileRect{(uint16_t)left, (uint16_t)(right - 1), (uint16_t)top, (uint16_t)(bottom - 1)};
    const int stride = tiles_x + 1, n = (int)once[l];
    data<int32_t>(state.slot_in_chunk)[first + l] = slots;
    slots += n * (right - left) * (bottom - top);
    corners[top * stride + left] += n;
    corners[top * stride + right] -= n;
    corners[bottom * stride + left] -= n;
    corners[bottom * stride + right] += n;
  }
}

// Every image's Gaussians; corners then holds one table for each thread.
inline void project_all(const RasterInput* in, const RasterOutput* out, RasterState* states,
                        int images, int threads) {
  const size_t n = (size_t)in->count;
  const int tiles_x = (in->width + kTile - 1) / kTile, tiles_y = (in->height + kTile - 1) / kTile;
  const size_t table = (size_t)(tiles_x + 1) * (tiles_y + 1);
  const int chunks = chunks_of(kTogether, in->count);
  for (int i = 0; i < images; i++) {
    RasterState& state = states[i];
    state.tiles_x = tiles_x, state.tiles_y = tiles_y;
    reserve<Splat>(state.splats, n);
    reserve<TileRect>(state.rects, n);
    reserve<float>(state.depths, n);
    reserve<int32_t>(state.slot_in_chunk, n);
    reserve<int64_t>(state.chunk_slots, (size_t)chunks);
    memset(reserve<int32_t>(state.corners, table * threads), 0, sizeof(int32_t) * table * threads);
  }
  parallel_for(images * chunks, threads, [&](int k, int worker) {
    const int i = k / chunks, chunk = k % chunks;
    const int begin = chunk * kTogether, end = smaller(begin + kTogether, in->count);
    const PinholeCamera camera = camera_of(in[i]);
    int32_t* corners = data<int32_t>(states[i].corners) + table * worker;
    int32_t slots = 0;
    for (int first = begin; first < end; first += kWidth)
      project_some(in[i], camera, first, states[i], out[i].radii, corners, slots);
    data<int64_t>(states[i].chunk_slots)[chunk] = slots;
  });
  for (int i = 0; i < images; i++) {
    int64_t *chunk_slots = data<int64_t>(states[i].chunk_slots), total = 0;
    for (int chunk = 0; chunk < chunks; chunk++) {
      const int64_t own = chunk_slots[chunk];
      chunk_slots[chunk] = total;
      total += own;
    }
    states[i].entries = total;
    if (total > 0x7fffffff) throw_too_many_entries();
  }
}

// A Gaussian's pairs, which are numbered consecutively.
inline int32_t first_slot(const RasterState& state, int i) {
  return (int32_t)data<int64_t>(state.chunk_slots)[i / kTogether] +
         data<int32_t>(state.slot_in_chunk)[i];
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

// A drawn Gaussian, in depth order, with all that filling the lists needs of it.
struct Sorted {
  int32_t id, slot;
  TileRect rect;
};

// The depth range is cut into pieces that are sorted side by side.
constexpr int kMostPieces = 4;
constexpr int kSmallPiece = 2048;  // Gaussians; fewer are not worth another thread
constexpr int kSamples = 32;       // of each piece, to find where to cut
constexpr uint32_t kInfinity = 0x7f800000;

struct DepthSort {
  int pieces;
  uint32_t cuts[kMostPieces + 1];  // bits of depths; positive floats sort like their bits
  int sizes[kMostPieces];
};

inline uint32_t bits_of(float depth) {
  uint32_t bits;
  memcpy(&bits, &depth, sizeof bits);
  return bits;
}

inline void begin_sort(const RasterInput& in, RasterState& state, int pieces, DepthSort& sort) {
  const size_t n = (size_t)in.count;
  const float* depths = data<float>(state.depths);
  reserve<uint32_t>(state.keys, n * pieces), reserve<uint32_t>(state.keys2, n * pieces);
  reserve<int32_t>(state.order, n * pieces), reserve<int32_t>(state.order2, n * pieces);
  reserve<Sorted>(state.sorted, n * pieces);
  uint32_t sample[kMostPieces * kSamples];
  int size = 0;
  for (size_t k = 0; n && k < (size_t)pieces * kSamples; k++) {
    const float depth = depths[n * k / ((size_t)pieces * kSamples)];
    if (depth <= 0) continue;
    int at = size++;
    for (; at > 0 && sample[at - 1] > bits_of(depth); at--) sample[at] = sample[at - 1];
    sample[at] = bits_of(depth);
  }
  sort.pieces = pieces;
  for (int p = 1; p < pieces; p++) sort.cuts[p] = size ? sample[size * p / pieces] : 0;
  sort.cuts[0] = 0, sort.cuts[pieces] = kInfinity;
}

// One piece, front to back; equal depths keep their index order.
inline void sort_piece(const RasterInput& in, RasterState& state, DepthSort& sort, int piece) {
  const size_t at = (size_t)in.count * piece;
  const float* depths = data<float>(state.depths);
  uint32_t* keys = data<uint32_t>(state.keys) + at;
  int32_t* order = data<int32_t>(state.order) + at;
  const uint32_t low = sort.cuts[piece], span = sort.cuts[piece + 1] - low;
  int size = 0;
  for (int i = 0; i < in.count; i++) {
    keys[size] = bits_of(depths[i]), order[size] = i;
    size += bits_of(depths[i]) - low < span;  // false for those not drawn, which are negative
  }
  sort.sizes[piece] = size;
  order = radix_sort(keys, order, data<uint32_t>(state.keys2) + at,
                     data<int32_t>(state.order2) + at, size);
  const TileRect* rects = data<TileRect>(state.rects);
  Sorted* sorted = data<Sorted>(state.sorted) + at;
  for (int k = 0; k < size; k++)
    sorted[k] = Sorted{order[k], first_slot(state, order[k]), rects[order[k]]};
}

// Where each tile's list begins, from the corners that each thread has counted.
inline void begin_lists(RasterState& state, int threads) {
  const int tiles_x = state.tiles_x, tiles_y = state.tiles_y, tiles = tiles_x * tiles_y;
  const size_t stride = (size_t)tiles_x + 1, table = stride * (tiles_y + 1);
  int32_t* tile_start = reserve<int32_t>(state.tile_start, (size_t)tiles + 1);
  int32_t* next = reserve<int32_t>(state.next, (size_t)tiles);
  int32_t* corners = data<int32_t>(state.corners);
  reserve<Entry>(state.list, (size_t)state.entries);
  reserve<uint64_t>(state.mask, (size_t)state.entries);
  for (int t = 1; t < threads; t++)
    for (size_t k = 0; k < table; k++) corners[k] += corners[table * t + k];
  int32_t total = 0;
  for (int y = 0; y < tiles_y; y++) {
    int32_t along = 0;
    for (int x = 0; x < tiles_x; x++) {
      int32_t* here = corners + stride * y + x;
      along += *here;
      *here = along + (y ? here[-(ptrdiff_t)stride] : 0);  // Gaussians that reach the tile
      next[y * tiles_x + x] = tile_start[y * tiles_x + x] = total;
      total += *here;
    }
  }
  tile_start[tiles] = total;
}

// The lists of one band of tile rows: an ordered scatter, so no tile needs sorting. The bands hold
// about equal numbers of pairs, and each walks all Gaussians.
inline void fill_band(const RasterInput& in, RasterState& state, const DepthSort& sort, int band,
                      int bands) {
  const int tiles_x = state.tiles_x, tiles_y = state.tiles_y;
  const int32_t* tile_start = data<int32_t>(state.tile_start);
  int32_t* next = data<int32_t>(state.next);
  Entry* list = data<Entry>(state.list);
  int y0 = 0, y1 = 0;
  for (int y = 0; y < tiles_y; y++) {
    const int64_t before = (int64_t)tile_start[y * tiles_x] * bands;
    y0 += before < state.entries * band;
    y1 += before < state.entries * (band + 1);
  }
  for (int piece = 0; piece < sort.pieces; piece++) {
    const Sorted* sorted = data<Sorted>(state.sorted) + (size_t)in.count * piece;
    for (int k = 0; k < sort.sizes[piece]; k++) {
      const Sorted s = sorted[k];
      const TileRect r = s.rect;
      const int from = larger(r.y0, y0), to = smaller(r.y1, y1 - 1), wide = r.x1 - r.x0 + 1;
      for (int y = from; y <= to; y++) {
        int32_t* row = next + y * tiles_x + r.x0;
        const int32_t slot = s.slot + (y - r.y0) * wide;
        for (int x = 0; x < wide; x++) list[row[x]++] = Entry{s.id, slot + x};
      }
    }
  }
}

// Fills tile_start and list of every image. Threads share out the images, or where those are too
// few, depth ranges and bands of each.
inline void fill_tiles(const RasterInput* in, RasterState* states, int images, int threads) {
  const int each = chunks_of(threads, images);
  const int pieces = larger(1, smaller(smaller(each, kMostPieces), in->count / kSmallPiece));
  DepthSort* sorts = reserve<DepthSort>(states->sorts, (size_t)images);
  for (int i = 0; i < images; i++) begin_sort(in[i], states[i], pieces, sorts[i]);
  parallel_for(images * pieces, threads, [&](int k, int) {
    sort_piece(in[k / pieces], states[k / pieces], sorts[k / pieces], k % pieces);
  });
  for (int i = 0; i < images; i++) begin_lists(states[i], threads);
  const int bands = smaller(each, states->tiles_y);
  parallel_for(images * bands, threads, [&](int k, int) {
    fill_band(in[k / bands], states[k / bands], sorts[k / bands], k % bands, bands);
  });
}

}  // namespace
