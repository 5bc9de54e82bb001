// The blend replayed front to back with the gradient of every pixel, then the projection's
// backward. Each (tile, Gaussian) pair owns one slot, so there are no atomics and the sums do not
// depend on how many threads there are.
#pragma once

#include "raster_forward.h"

namespace {

// Sums over a tile's pixels, v = gradient at sigma = -log(alpha / opacity):
// v dx, v dy, v dx^2, v dx dy, v dy^2, v, red, green, blue, |mean2d x|, |mean2d y|, unused
constexpr int kSlot = 16;  // a cache line

// Per block: transmittance, what is still to come of (gradient . colour), gradient r g b.
struct alignas(64) ReplayState {
  float v[kBlocks][5][kWidth];
};

inline void read_tile(const RasterInput& in, const RasterGradient& grad, const Tile& tile,
                      ReplayState& state) {
  if (!tile.whole) memset(&state, 0, sizeof state);
  for (int b = 0; b < kBlocks; b++) store(state.v[b][0], set(1.0f));
  alignas(64) float rows[4][kTile] = {{0}};
  const int n = tile.x1 - tile.x0;
  for (int y = tile.y0; y < tile.y1; y++) {
    const size_t pixel = (size_t)y * in.width + tile.x0;
    const float* A3D_RESTRICT v = grad.v_image + 3 * pixel;
    const float* A3D_RESTRICT c = grad.image + 3 * pixel;
    for (int x = 0; x < n; x++) {
      rows[1][x] = v[3 * x], rows[2][x] = v[3 * x + 1], rows[3][x] = v[3 * x + 2];
      rows[0][x] = c[3 * x] * v[3 * x] + c[3 * x + 1] * v[3 * x + 1] + c[3 * x + 2] * v[3 * x + 2];
    }
    // Alpha = 1 - T, so its gradient acts like a background of "colour" -v_alpha.
    if (grad.v_alpha)
      for (int x = 0; x < n; x++)
        rows[0][x] -= grad.v_alpha[pixel + x] * (1.0f - grad.alpha[pixel + x]);
    const int by = (y - tile.y0) / kBlockY, lane = (y - tile.y0) % kBlockY * kBlockX;
    for (int bx = 0; bx < kBlocksX; bx++)
      for (int k = 0; k < 4; k++)
        memcpy(state.v[by * kBlocksX + bx][1 + k] + lane, rows[k] + bx * kBlockX,
               sizeof(float) * kBlockX);
  }
}

// Gradient at the background; sums[3] collects it when the background is one colour.
inline void background_backward(const RasterInput& in, const RasterGradient& grad, const Tile& tile,
                                float sums[3]) {
  float total[3] = {0, 0, 0};
  for (int y = tile.y0; y < tile.y1; y++)
    for (int x = tile.x0; x < tile.x1; x++) {
      const size_t pixel = (size_t)y * in.width + x;
      const float T = 1.0f - grad.alpha[pixel];
      for (int k = 0; k < 3; k++) {
        const float v = T * grad.v_image[3 * pixel + k];
        if (in.background_is_image)
          grad.background[3 * pixel + k] = v;
        else
          total[k] += v;
      }
    }
  for (int k = 0; k < 3; k++) sums[k] = total[k];
}

// One splat over one block, adding to kSums sums.
template <bool kMean2d>
A3D_INLINE void replay_block(const SplatVectors& g, const Vec color[3], const Vec conic[3],
                             const BlockTable& table, int b, ReplayState& state, Vec* acc) {
  float (*block)[kWidth] = state.v[b];
  const Vec T = load(block[0]);
  const Vec dx = sub(load(table.x[b]), g.x), dy = sub(load(table.y[b]), g.y);
  const Vec p = g.log2_alpha(dx, dy);
  const Vec alpha = keep(ge(p, set(kLog2MinAlpha)), vmin(exp2_of(p), set(kMaxAlpha)));
  const Vec next = nmadd(alpha, T, T);
  const Mask alive = gt(next, set(kMinTransmittance));
  store(block[0], keep(alive, next));
  const Vec w = keep(alive, mul(alpha, T));
  const Vec v0 = load(block[2]), v1 = load(block[3]), v2 = load(block[4]);
  const Vec dot = madd(color[2], v2, madd(color[1], v1, mul(color[0], v0)));
  const Vec rest = nmadd(w, dot, load(block[1]));
  store(block[1], rest);
  acc[6] = madd(w, v0, acc[6]), acc[7] = madd(w, v1, acc[7]), acc[8] = madd(w, v2, acc[8]);
  // d pixel / d sigma = alpha rest / (1 - alpha) - w dot, none where alpha is clamped
  const Vec through = mul(mul(alpha, rest), reciprocal(sub(set(1.0f), alpha)));
  const Vec v = keep(both(alive, le(p, set(kLog2MaxAlpha))), nmadd(w, dot, through));
  const Vec vx = mul(v, dx), vy = mul(v, dy);
  acc[0] = add(acc[0], vx), acc[1] = add(acc[1], vy), acc[5] = add(acc[5], v);
  acc[2] = madd(vx, dx, acc[2]), acc[3] = madd(vx, dy, acc[3]), acc[4] = madd(vy, dy, acc[4]);
  if (kMean2d) {
    acc[9] = add(acc[9], vabs(madd(conic[0], vx, mul(conic[1], vy))));
    acc[10] = add(acc[10], vabs(madd(conic[1], vx, mul(conic[2], vy))));
  }
}

template <bool kMean2d>
inline void replay_tile(const Splat* splats, const Entry* list, const uint64_t* mask, int n,
                        const Tile& tile, const BlockTable& table, ReplayState& state,
                        float* slots) {
  for (int j = 0; j < n; j++) {
    uint64_t todo = mask[j];
    float* slot = slots + (size_t)kSlot * list[j].slot;
    if (j + 8 < n) {
      prefetch(&splats[list[j + 8].id]);
      prefetch_for_write(slots + (size_t)kSlot * list[j + 8].slot);
    }
    Vec acc[kSums];
    for (int i = 0; i < kSums; i++) acc[i] = set(0.0f);
    if (todo) {
      const Splat& s = splats[list[j].id];
      const SplatVectors g(s, s.x - (float)tile.x0, s.y - (float)tile.y0);
      const Vec color[3] = {set(s.red), set(s.green), set(s.blue)};
      const Vec conic[3] = {set(s.conic_a), set(s.conic_b), set(s.conic_c)};
      do {
        replay_block<kMean2d>(g, color, conic, table, take_lowest_bit(todo), state, acc);
      } while (todo);
    }
    store_sums(slot, acc);
  }
}

template <bool kMean2d>
inline void replay_all(const RasterInput& in, const RasterGradient& grad, RasterState& state,
                       int threads) {
  static const BlockTable table;
  const int tiles = state.tiles_x * state.tiles_y;
  const Splat* splats = data<Splat>(state.splats);
  const int32_t* start = data<int32_t>(state.tile_start);
  float* slots = reserve<float>(state.slots, (size_t)state.entries * kSlot);
  float* partial = reserve<float>(state.partial, 3 * (size_t)tiles);
  parallel_for(tiles, threads, [&](int t, int) {
    ReplayState replay;
    const Tile tile = tile_at(t, state.tiles_x, in.width, in.height);
    if (grad.background) background_backward(in, grad, tile, partial + 3 * (size_t)t);
    if (start[t + 1] == start[t]) return;
    read_tile(in, grad, tile, replay);
    replay_tile<kMean2d>(splats, data<Entry>(state.list) + start[t],
                         data<uint64_t>(state.mask) + start[t], start[t + 1] - start[t], tile,
                         table, replay, slots);
  });
  if (grad.background && !in.background_is_image) {
    double total[3] = {0, 0, 0};
    for (int t = 0; t < tiles; t++)
      for (int k = 0; k < 3; k++) total[k] += partial[3 * (size_t)t + k];
    for (int k = 0; k < 3; k++) grad.background[k] = (float)total[k];
  }
}

// Sums of each Gaussian's slots, for kWidth Gaussians side by side.
inline void gather_slots(const RasterState& state, int first, int n, Lanes out[kSums]) {
  const int64_t* start = data<int64_t>(state.slot_start);
  const float* slots = data<float>(state.slots);
  alignas(64) float rows[kWidth][kSlot] = {{0}};
  for (int l = 0; l < n; l++) {
    for (int64_t e = start[first + l]; e < start[first + l + 1]; e++)
      for (int k = 0; k < kSlot; k += kWidth)
        store(rows[l] + k, add(load(rows[l] + k), load(slots + kSlot * (size_t)e + k)));
  }
  alignas(64) float columns[kSums][kWidth];
  for (int l = 0; l < kWidth; l++)
    for (int k = 0; k < kSums; k++) columns[k][l] = rows[l][k];
  for (int k = 0; k < kSums; k++) out[k] = Lanes(columns[k]);
}

// One batch of Gaussians: their gradients, and the sums of the camera's.
inline void project_backward_batch(const PinholeCamera& camera, const RasterInput& in,
                                   const RasterGradient& grad, const RasterState& state, int first,
                                   int n, float* camera_sums) {
  const size_t i = (size_t)first;
  const Batch batch = load_batch(in, first, n);
  const Splat* splats = data<Splat>(state.splats) + first;
  Lanes sums[kSums], conic[3];
  gather_slots(state, first, n, sums);
  alignas(64) float columns[4][kWidth];
  for (int l = 0; l < kWidth; l++) {
    const Splat& s = splats[l < n ? l : 0];
    columns[0][l] = l < n ? s.half_x : -1.0f;
    columns[1][l] = s.conic_a, columns[2][l] = s.conic_b, columns[3][l] = s.conic_c;
  }
  for (int k = 0; k < 3; k++) conic[k] = Lanes(columns[1 + k]);
  // a Gaussian that is not drawn may hold NaN, which must not leak as 0 * NaN
  const Lanes zero(0.0f), half(0.5f);
  const LaneMask drawn = Lanes(columns[0]) >= zero;
  const Lanes v_mean2d[2] = {zero - (conic[0] * sums[0] + conic[1] * sums[1]),
                             zero - (conic[1] * sums[0] + conic[2] * sums[1])};
  const Lanes v_conic[3] = {half * sums[2], sums[3], half * sums[4]};
  GaussianGradient<Lanes> g;
  project_backward(camera, batch.gaussian, v_mean2d, v_conic, g);
  for (int k = 0; k < 3; k++) {
    g.mean[k] = select(drawn, g.mean[k], zero);
    g.scale[k] = select(drawn, g.scale[k], zero);
  }
  for (int k = 0; k < 4; k++) g.quat[k] = select(drawn, g.quat[k], zero);
  const Lanes opacity = select(drawn, zero - sums[5] / batch.opacity, zero);
  store_columns<3>(g.mean, n, grad.means + 3 * i);
  store_columns<4>(g.quat, n, grad.quats + 4 * i);
  store_columns<3>(g.scale, n, grad.scales + 3 * i);
  store_columns<1>(&opacity, n, grad.opacities + i);
  store_columns<3>(sums + 6, n, grad.colors + 3 * i);
  if (grad.mean2d) store_columns<2>(sums + 9, n, grad.mean2d + 2 * i);
  if (grad.viewmat) {
    for (int k = 0; k < 9; k++) camera_sums[k / 3 * 4 + k % 3] = sum(select(drawn, g.r[k], zero).v);
    for (int k = 0; k < 3; k++) camera_sums[k * 4 + 3] = sum(select(drawn, g.t[k], zero).v);
  }
}

inline void project_backward_all(const RasterInput& in, const RasterGradient& grad,
                                 RasterState& state, int threads) {
  const PinholeCamera camera = camera_of(in);
  const int batches = (in.count + kWidth - 1) / kWidth;
  float* partial = reserve<float>(state.partial, 12 * (size_t)batches);
  parallel_for(chunks_of(kBatchesTogether, batches), threads, [&](int chunk, int) {
    const int end = smaller(batches, (chunk + 1) * kBatchesTogether);
    for (int batch = chunk * kBatchesTogether; batch < end; batch++) {
      const int first = batch * kWidth, n = smaller(kWidth, in.count - first);
      project_backward_batch(camera, in, grad, state, first, n, partial + 12 * (size_t)batch);
    }
  });
  if (grad.viewmat) {
    double total[12] = {0};
    for (int b = 0; b < batches; b++)
      for (int k = 0; k < 12; k++) total[k] += partial[12 * (size_t)b + k];
    for (int k = 0; k < 16; k++) grad.viewmat[k] = k < 12 ? (float)total[k] : 0.0f;
  }
}

void rasterize_backward(const RasterInput& in, const RasterGradient& grad, RasterState& state,
                        int threads) {
  if (grad.mean2d)
    replay_all<true>(in, grad, state, threads);
  else
    replay_all<false>(in, grad, state, threads);
  project_backward_all(in, grad, state, threads);
}

}  // namespace
