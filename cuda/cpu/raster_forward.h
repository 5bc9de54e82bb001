// Front-to-back blending, one tile at a time with its state in L1: for each Gaussian, for each
// block of the tile that its ellipse touches, kWidth pixels at once.
#pragma once

#include "raster_tiles.h"

namespace {

// Pixel centres of every block, relative to the tile's corner.
struct BlockTable {
  alignas(64) float x[kBlocks][kWidth];
  alignas(64) float y[kBlocks][kWidth];
  BlockTable() {
    for (int b = 0; b < kBlocks; b++)
      for (int l = 0; l < kWidth; l++) {
        x[b][l] = (float)(b % kBlocksX * kBlockX + l % kBlockX) + 0.5f;
        y[b][l] = (float)(b / kBlocksX * kBlockY + l / kBlockX) + 0.5f;
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

// The rows of blocks of a tile, twice: once for the left and once for the right side of an ellipse.
constexpr int kSides = 2 * kBlocksY;
static_assert(kBlocksY % kWidth == 0 || kSides == kWidth, "a side fills whole vectors");
static_assert(kBlocksY == 8 || !A3D_SIMD, "row_spans packs eight rows");

struct RowTable {
  alignas(64) float top[kSides];   // first pixel centre
  alignas(64) float side[kSides];  // -1 left, 1 right
  alignas(
      64) float centre[kSides];  // last pixel centre of the first block on the left, first right
  RowTable() {
    for (int i = 0; i < kSides; i++) {
      const bool right = i >= kBlocksY;
      top[i] = (float)(i % kBlocksY * kBlockY) + 0.5f;
      side[i] = right ? 1.0f : -1.0f;
      centre[i] = right ? 0.5f : kBlockX - 0.5f;
    }
  }
};

// Bits of the blocks from ceil(left) to floor(right) in each row, none where not valid.
// column: left sides of the rows in the first half, right sides in the second.
A3D_INLINE uint64_t row_spans(const Vec* column, const Mask* valid) {
#if A3D_SIMD == 512
  const __m256i all = _mm256_set1_epi32((1 << kBlocksX) - 1);
  const __m256 left = _mm512_castps512_ps256(column[0]);
  const __m256 right = _mm512_extractf32x8_ps(column[0], 1);
  const __m256i from = _mm256_cvtps_epi32(_mm256_ceil_ps(
      _mm256_min_ps(_mm256_max_ps(left, _mm256_setzero_ps()), _mm256_set1_ps(kBlocksX))));
  const __m256i to = _mm256_cvtps_epi32(_mm256_floor_ps(
      _mm256_min_ps(_mm256_max_ps(right, _mm256_set1_ps(-1.0f)), _mm256_set1_ps(kBlocksX - 1.0f))));
  const __m256i span = _mm256_and_si256(
      _mm256_sllv_epi32(all, from),
      _mm256_srlv_epi32(all, _mm256_sub_epi32(_mm256_set1_epi32(kBlocksX - 1), to)));
  const __mmask8 both_valid = (__mmask8)(valid[0] & (valid[0] >> 8));
  return (uint64_t)_mm_cvtsi128_si64(
      _mm256_cvtepi32_epi8(_mm256_maskz_mov_epi32(both_valid, span)));
#elif A3D_SIMD == 256
  const __m256i all = _mm256_set1_epi32((1 << kBlocksX) - 1);
  const __m256i from =
      _mm256_cvtps_epi32(_mm256_ceil_ps(vmin(vmax(column[0], set(0.0f)), set(kBlocksX))));
  const __m256i to =
      _mm256_cvtps_epi32(_mm256_floor_ps(vmin(vmax(column[1], set(-1.0f)), set(kBlocksX - 1.0f))));
  __m256i span = _mm256_and_si256(
      _mm256_sllv_epi32(all, from),
      _mm256_srlv_epi32(all, _mm256_sub_epi32(_mm256_set1_epi32(kBlocksX - 1), to)));
  span = _mm256_and_si256(span, _mm256_castps_si256(both(valid[0], valid[1])));
  span = _mm256_sllv_epi32(span, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
  __m128i s = _mm_or_si128(_mm256_castsi256_si128(span), _mm256_extracti128_si256(span, 1));
  s = _mm_or_si128(s, _mm_unpackhi_epi64(s, s));
  s = _mm_or_si128(s, _mm_shuffle_epi32(s, 1));
  return (uint32_t)_mm_cvtsi128_si32(s);
#else
  uint64_t spans = 0;
  for (int row = 0; row < kBlocksY; row++) {
    const int l = row / kWidth, r = (kBlocksY + row) / kWidth, i = row % kWidth;
    if (!(lane(valid[l], i) & lane(valid[r], i))) continue;
    const float from = min_of(max_of(lane(column[l], i), 0.0f), (float)kBlocksX);
    const float to = min_of(max_of(lane(column[r], i), -1.0f), kBlocksX - 1.0f);
    const int first = (int)from + (from > (float)(int)from);  // ceil, without a call to the library
    const int last = (int)(to + 1.0f) - 1;                    // floor
    for (int b = first; b <= last; b++) spans |= 1ull << (row * kBlocksX + b);
  }
  return spans;
#endif
}

// Blocks with a point where alpha reaches 1/255. That set is an ellipse, and what it leaves in a
// row of blocks is convex, so the blocks it touches there are neighbours: from the one that holds
// its leftmost point to the one that holds its rightmost.
A3D_INLINE uint64_t touched_blocks(const Splat& s, float gx, float gy, const RowTable& table) {
  const float reach = s.log2_opacity - kLog2MinAlpha;  // (a dx + b dy)^2 + (c dy)^2 on the ellipse
  Vec column[kSides / kWidth];
  Mask valid[kSides / kWidth];
  for (int v = 0; v < kSides / kWidth; v++) {
    const Vec top = sub(load(table.top + v * kWidth), set(gy));
    const Vec bottom = add(top, set(kBlockY - 1.0f)), side = load(table.side + v * kWidth);
    // the height at which the whole ellipse reaches furthest, or the nearest to it in this row
    const Vec y = vmin(vmax(mul(side, set(s.right_y)), top), bottom);
    const Vec cy = mul(set(s.c), y);
    const Vec room = nmadd(cy, cy, set(reach));
    const Vec x =
        madd(mul(side, set(s.inv_a)), root(vmax(room, set(0.0f))), madd(set(s.slope), y, set(gx)));
    column[v] = mul(sub(x, load(table.centre + v * kWidth)), set(1.0f / kBlockX));
    valid[v] = ge(room, set(0.0f));
  }
  return row_spans(column, valid);
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

// One splat over one block. False when no pixel of the block is left to draw.
A3D_INLINE bool blend_block(const SplatVectors& g, const Vec color[3], const BlockTable& table,
                            int b, BlendState& state) {
  float (*block)[kWidth] = state.v[b];
  const Vec T = load(block[0]);
  const Vec p = g.log2_alpha(sub(load(table.x[b]), g.x), sub(load(table.y[b]), g.y));
  const Vec alpha = keep(ge(p, set(kLog2MinAlpha)), vmin(exp2_of(p), set(kMaxAlpha)));
  const Vec next = nmadd(alpha, T, T);
  const Mask alive = gt(next, set(kMinTransmittance));
  const Vec w = keep(alive, mul(alpha, T));
  store(block[0], select_or_negate(alive, next, T));
  for (int c = 0; c < 3; c++) store(block[1 + c], madd(w, color[c], load(block[1 + c])));
  return any(alive);
}

constexpr int kChunk = 32;  // masks are computed a few at a time, which hides their latency

inline void blend_tile(const Splat* splats, const Entry* list, uint64_t* mask, int n,
                       const Tile& tile, const BlockTable& table, const RowTable& rows,
                       BlendState& state) {
  for (int b = 0; b < kBlocks; b++) {
    store(state.v[b][0], set(1.0f));
    for (int k = 1; k < 4; k++) store(state.v[b][k], set(0.0f));
  }
  uint64_t live = tile.blocks;
  int j = 0;
  for (int chunk = 0; chunk < n && live; chunk += kChunk) {
    const int end = smaller(chunk + kChunk, n);
    for (j = chunk; j < end; j++) {
      if (j + 8 < n) prefetch(&splats[list[j + 8].id]);
      const Splat& s = splats[list[j].id];
      mask[j] = touched_blocks(s, s.x - (float)tile.x0, s.y - (float)tile.y0, rows);
    }
    for (j = chunk; j < end; j++) {
      uint64_t todo = mask[j] &= live;
      if (!todo) continue;
      const Splat& s = splats[list[j].id];
      const SplatVectors g(s, s.x - (float)tile.x0, s.y - (float)tile.y0);
      const Vec color[3] = {set(s.red), set(s.green), set(s.blue)};
      do {
        const int b = take_lowest_bit(todo);
        if (!blend_block(g, color, table, b, state)) live &= ~(1ull << b);
      } while (todo);
    }
  }
  for (; j < n; j++) mask[j] = 0;
}

// One row of a tile, planar; a row of blocks holds kBlockX neighbours together.
struct TileRow {
  alignas(64) float red[kTile], green[kTile], blue[kTile], left[kTile];
};

inline void write_tile(const RasterInput& in, const RasterOutput& out, const Tile& tile,
                       const BlendState& state) {
  TileRow row;
  const int n = tile.x1 - tile.x0;
  for (int y = tile.y0; y < tile.y1; y++) {
    const int by = (y - tile.y0) / kBlockY, lane = (y - tile.y0) % kBlockY * kBlockX;
    for (int bx = 0; bx < kBlocksX; bx++) {
      const float (*block)[kWidth] = state.v[by * kBlocksX + bx];
      memcpy(row.left + bx * kBlockX, block[0] + lane, sizeof(float) * kBlockX);
      memcpy(row.red + bx * kBlockX, block[1] + lane, sizeof(float) * kBlockX);
      memcpy(row.green + bx * kBlockX, block[2] + lane, sizeof(float) * kBlockX);
      memcpy(row.blue + bx * kBlockX, block[3] + lane, sizeof(float) * kBlockX);
    }
    const size_t pixel = (size_t)y * in.width + tile.x0;
    float* A3D_RESTRICT alpha = out.alpha + pixel;
    float* A3D_RESTRICT image = out.image + 3 * pixel;
    const float* A3D_RESTRICT bg = in.background + (in.background_is_image ? 3 * pixel : 0);
    for (int x = 0; x < n; x++) {
      row.left[x] = fabsf(row.left[x]);
      alpha[x] = 1.0f - row.left[x];
    }
    if (in.background_is_image) {
      for (int x = 0; x < n; x++) {
        image[3 * x] = row.red[x] + row.left[x] * bg[3 * x];
        image[3 * x + 1] = row.green[x] + row.left[x] * bg[3 * x + 1];
        image[3 * x + 2] = row.blue[x] + row.left[x] * bg[3 * x + 2];
      }
    } else {
      const float red = bg[0], green = bg[1], blue = bg[2];
      for (int x = 0; x < n; x++) {
        image[3 * x] = row.red[x] + row.left[x] * red;
        image[3 * x + 1] = row.green[x] + row.left[x] * green;
        image[3 * x + 2] = row.blue[x] + row.left[x] * blue;
      }
    }
  }
}

inline void blend_all(const RasterInput& in, const RasterOutput& out, RasterState& state,
                      int threads) {
  static const BlockTable table;
  static const RowTable rows;
  const int tiles = state.tiles_x * state.tiles_y;
  const Splat* splats = data<Splat>(state.splats);
  const int32_t* start = data<int32_t>(state.tile_start);
  parallel_for(tiles, threads, [&](int t, int) {
    BlendState blend;
    const Tile tile = tile_at(t, state.tiles_x, in.width, in.height);
    blend_tile(splats, data<Entry>(state.list) + start[t], data<uint64_t>(state.mask) + start[t],
               start[t + 1] - start[t], tile, table, rows, blend);
    write_tile(in, out, tile, blend);
  });
}

void rasterize(const RasterInput& in, const RasterOutput& out, RasterState& state, int threads) {
  project_all(in, out.radii, state, threads);
  fill_tiles(in, state, threads);
  blend_all(in, out, state, threads);
}

}  // namespace
