// Front-to-back blending, one tile at a time and a chunk of its Gaussians at a time: for each block
// of kWidth pixels, the Gaussians whose ellipse touches it, with the pixels in registers.
#pragma once

#include "bit_transpose.h"
#include "raster_tiles.h"

namespace {

// Pixel centres of a column's and of a row's blocks, relative to the tile's corner.
struct BlockTable {
  alignas(64) float columns[kBlocksX][kWidth];
  alignas(64) float rows[kBlocksY][kWidth];
  BlockTable() {
    for (int l = 0; l < kWidth; l++) {
      for (int b = 0; b < kBlocksX; b++) columns[b][l] = (float)(b * kBlockX + l % kBlockX) + 0.5f;
      for (int b = 0; b < kBlocksY; b++) rows[b][l] = (float)(b * kBlockY + l / kBlockX) + 0.5f;
    }
  }
  Vec x(int block) const { return load(columns[block % kBlocksX]); }
  Vec y(int block) const { return load(rows[block / kBlocksX]); }
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

// The alpha of a splat at an offset from its centre, 0 under 1/255.
A3D_INLINE Vec alpha_of(const Splat& s, Vec dx, Vec dy) {
  const Vec u = madd(set(s.b), dy, mul(set(s.a), dx)), v = mul(set(s.c), dy);
  const Vec p = nmadd(v, v, nmadd(u, u, set(s.log2_opacity)));
  return keep(ge(p, set(kLog2MinAlpha)), vmin(exp2_in_range(p), set(kMaxAlpha)));
}

// Per block: transmittance of all Gaussians so far; of those drawn, which a pixel stops counting
// when the first would fall to kMinTransmittance; red, green, blue, depth.
struct alignas(64) BlendState {
  float v[kBlocks][6][kWidth];
};

constexpr int kChunk = 64;  // the bits of a mask

// Those of the chunk's Gaussians that are in `touching`, over one block. False when no pixel of it
// is left to draw.
template <bool kDepth>
A3D_INLINE bool blend_block(const RasterScene& scene, const Entry* chunk, uint64_t touching, Vec px,
                            Vec py, float (*state)[kWidth]) {
  Vec T = load(state[0]), drawn = load(state[1]);
  Vec red = load(state[2]), green = load(state[3]), blue = load(state[4]), depth = load(state[5]);
  while (touching) {
    const int32_t id = chunk[take_lowest_bit(touching)].id;
    const Splat& s = scene.splats[id];
    const Vec alpha = alpha_of(s, sub(px, set(s.x)), sub(py, set(s.y)));
    const Vec weight = mul(alpha, T);
    T = sub(T, weight);
    const Mask alive = gt(T, set(kMinTransmittance));
    const Vec w = keep(alive, weight);
    drawn = select(alive, T, drawn);
    red = madd(w, set(s.red), red);
    green = madd(w, set(s.green), green);
    blue = madd(w, set(s.blue), blue);
    if (kDepth) depth = madd(w, set(scene.depths[id]), depth);
  }
  store(state[0], T), store(state[1], drawn);
  store(state[2], red), store(state[3], green), store(state[4], blue);
  if (kDepth) store(state[5], depth);
  return any(gt(T, set(kMinTransmittance)));
}

// Fills mask, for the backward: the live blocks that each Gaussian of the list touches.
template <bool kDepth>
inline void blend_tile(const RasterScene& scene, const Entry* list, uint64_t* mask, int n,
                       const Tile& tile, const BlockTable& table, const RowTable& rows,
                       BlendState& state) {
  for (int b = 0; b < kBlocks; b++)
    for (int k = 0; k < 6; k++) store(state.v[b][k], set(k < 2 ? 1.0f : 0.0f));
  uint64_t live = tile.blocks;
  int j = 0;
  for (; j < n && live; j += kChunk) {
    const Entry* chunk = list + j;
    const int size = smaller(kChunk, n - j);
    alignas(64) uint64_t touched[kChunk], touching[kChunk];
    for (int i = 0; i < size; i++) {
      if (j + i + 8 < n) prefetch(&scene.splats[chunk[i + 8].id]);
      const Splat& s = scene.splats[chunk[i].id];
      mask[j + i] = touched[i] =
          live & touched_blocks(s, s.x - (float)tile.x0, s.y - (float)tile.y0, rows);
    }
    for (int i = size; i < kChunk; i++) touched[i] = 0;
    transpose_bits(touched, touching);
    for (uint64_t todo = live; todo;) {
      const int b = take_lowest_bit(todo);
      if (!touching[b]) continue;
      const Vec px = add(table.x(b), set((float)tile.x0));
      const Vec py = add(table.y(b), set((float)tile.y0));
      if (!blend_block<kDepth>(scene, chunk, touching[b], px, py, state.v[b])) live &= ~(1ull << b);
    }
  }
  for (; j < n; j++) mask[j] = 0;
}

// One row of a tile, planar; a row of blocks holds kBlockX neighbours together.
struct TileRow {
  alignas(64) float left[kTile], red[kTile], green[kTile], blue[kTile], depth[kTile];
};

inline void read_row(const BlendState& state, int y, TileRow& row) {
  const int lane = y % kBlockY * kBlockX;
  for (int bx = 0; bx < kBlocksX; bx++) {
    const float (*block)[kWidth] = state.v[y / kBlockY * kBlocksX + bx];
    float* const to[5] = {row.left, row.red, row.green, row.blue, row.depth};
    for (int k = 0; k < 5; k++)
      memcpy(to[k] + bx * kBlockX, block[1 + k] + lane, sizeof(float) * kBlockX);
  }
}

constexpr int kRowsAhead =
    4;                     // rows of a tile are far apart in memory: fetch before they are needed
constexpr int kLine = 16;  // floats in a cache line

inline void write_tile(const RasterInput& in, const RasterOutput& out, const Tile& tile,
                       const BlendState& state) {
  TileRow row;
  const int n = tile.x1 - tile.x0;
  for (int y = tile.y0; y < tile.y1; y++) {
    read_row(state, y - tile.y0, row);
    const size_t pixel = (size_t)y * in.width + tile.x0;
    if (y + kRowsAhead < tile.y1) {
      const size_t ahead = pixel + (size_t)kRowsAhead * in.width;
      for (int x = 0; x < n; x += kLine) {
        prefetch_for_write(out.alpha + ahead + x);
        for (int k = 0; k < 3; k++) prefetch_for_write(out.image + 3 * (ahead + x) + kLine * k);
      }
    }
    float* A3D_RESTRICT alpha = out.alpha + pixel;
    float* A3D_RESTRICT image = out.image + 3 * pixel;
    const float* A3D_RESTRICT bg = in.background + (in.background_is_image ? 3 * pixel : 0);
    for (int x = 0; x < n; x++) alpha[x] = 1.0f - row.left[x];
    if (out.depth) memcpy(out.depth + pixel, row.depth, sizeof(float) * (size_t)n);
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

// A tile that no Gaussian reaches.
inline void write_empty_tile(const RasterInput& in, const RasterOutput& out, const Tile& tile) {
  const size_t n = (size_t)(tile.x1 - tile.x0);
  for (int y = tile.y0; y < tile.y1; y++) {
    const size_t pixel = (size_t)y * in.width + tile.x0;
    memset(out.alpha + pixel, 0, sizeof(float) * n);
    if (out.depth) memset(out.depth + pixel, 0, sizeof(float) * n);
    float* A3D_RESTRICT image = out.image + 3 * pixel;
    if (in.background_is_image)
      memcpy(image, in.background + 3 * pixel, 3 * sizeof(float) * n);
    else
      for (size_t x = 0; x < n; x++)
        for (int k = 0; k < 3; k++) image[3 * x + k] = in.background[k];
  }
}

// Has the background no NaN and no infinity here?
inline bool finite_background(const RasterInput& in, const Tile& tile) {
  const int n = in.background_is_image ? 3 * (tile.x1 - tile.x0) : 3;
  const int rows = in.background_is_image ? tile.y1 - tile.y0 : 1;
  const size_t first = in.background_is_image ? 3 * ((size_t)tile.y0 * in.width + tile.x0) : 0;
  int bad = 0;
  for (int y = 0; y < rows; y++) {
    const float* row = in.background + first + 3 * (size_t)y * in.width;
    for (int x = 0; x < n; x++) bad |= !(fabsf(row[x]) < HUGE_VALF);
  }
  return !bad;
}

template <bool kDepth>
inline void blend_one(const RasterInput& in, const RasterOutput& out, RasterState& state, int t) {
  static const BlockTable table;
  static const RowTable rows;
  const RasterScene scene = {data<Splat>(state.splats), data<float>(state.depths)};
  const int32_t* start = data<int32_t>(state.tile_start);
  const Tile tile = tile_at(t, state.tiles_x, in.width, in.height);
  data<uint8_t>(state.finite)[t] = finite_background(in, tile);
  if (start[t + 1] == start[t]) return write_empty_tile(in, out, tile);
  BlendState blend;
  blend_tile<kDepth>(scene, data<Entry>(state.list) + start[t],
                     data<uint64_t>(state.mask) + start[t], start[t + 1] - start[t], tile, table,
                     rows, blend);
  write_tile(in, out, tile, blend);
}

bool rasterize(const RasterInput* in, const RasterOutput* out, RasterState* states, int images,
               int threads) {
  project_all(in, out, states, images, threads);
  fill_tiles(in, states, images, threads);
  const int tiles = states[0].tiles_x * states[0].tiles_y;
  for (int i = 0; i < images; i++) reserve<uint8_t>(states[i].finite, (size_t)tiles);
  parallel_for(images * tiles, threads, [&](int i, int) {
    const int image = i / tiles;
    if (out[image].depth)
      blend_one<true>(in[image], out[image], states[image], i % tiles);
    else
      blend_one<false>(in[image], out[image], states[image], i % tiles);
  });
  for (int i = 0; i < images; i++)
    if (memchr(data<uint8_t>(states[i].finite), 0, (size_t)tiles)) return false;
  return true;
}

}  // namespace
