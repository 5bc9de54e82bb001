// The blend replayed front to back with the gradient of every pixel, then the projection's
// backward. Each (tile, Gaussian) pair owns one slot, so there are no atomics and the sums do not
// depend on how many threads there are.
#pragma once

#include "raster_forward.h"

namespace {

// Sums over a tile's pixels, v = gradient at sigma = -log(alpha / opacity):
// v dx, v dy, v dx^2, v dx dy, v dy^2, v, red, green, blue, |mean2d x|, |mean2d y|, depth
constexpr int kSlot = 16;  // a cache line

// Per block: transmittance, what is still to come of (gradient . colour), gradient r g b depth.
struct alignas(64) ReplayState {
  float v[kBlocks][6][kWidth];
};

inline void read_tile(const RasterInput& in, const RasterGradient& grad, const Tile& tile,
                      ReplayState& state) {
  if (!tile.whole) memset(&state, 0, sizeof state);
  for (int b = 0; b < kBlocks; b++) store(state.v[b][0], set(1.0f));
  alignas(64) float rows[5][kTile] = {{0}};
  const int n = tile.x1 - tile.x0;
  for (int y = tile.y0; y < tile.y1; y++) {
    const size_t pixel = (size_t)y * in.width + tile.x0;
    const float* A3D_RESTRICT v = grad.v_image + 3 * pixel;
    const float* A3D_RESTRICT c = grad.image + 3 * pixel;
    if (y + kRowsAhead < tile.y1) {
      const size_t ahead = 3 * (size_t)kRowsAhead * in.width;
      for (int x = 0; x < 3 * n; x += kLine) prefetch(v + ahead + x), prefetch(c + ahead + x);
    }
    for (int x = 0; x < n; x++) {
      rows[1][x] = v[3 * x], rows[2][x] = v[3 * x + 1], rows[3][x] = v[3 * x + 2];
      rows[0][x] = c[3 * x] * v[3 * x] + c[3 * x + 1] * v[3 * x + 1] + c[3 * x + 2] * v[3 * x + 2];
    }
    // Alpha = 1 - T, so its gradient acts like a background of "colour" -v_alpha.
    if (grad.v_alpha)
      for (int x = 0; x < n; x++)
        rows[0][x] -= grad.v_alpha[pixel + x] * (1.0f - grad.alpha[pixel + x]);
    if (grad.v_depth)
      for (int x = 0; x < n; x++) {
        rows[4][x] = grad.v_depth[pixel + x];
        rows[0][x] += rows[4][x] * grad.depth[pixel + x];
      }
    const int by = (y - tile.y0) / kBlockY, lane = (y - tile.y0) % kBlockY * kBlockX;
    for (int bx = 0; bx < kBlocksX; bx++)
      for (int k = 0; k < 5; k++)
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

// One splat, broadcast, and its sums over a tile.
template <bool kMean2d, bool kDepth>
struct Replay {
  Vec x, y, red, green, blue, z, conic[3];
  Vec acc[kSums];

  Replay(const Splat& s, float depth, const Tile& tile)
      : x(set(s.x - (float)tile.x0)),
        y(set(s.y - (float)tile.y0)),
        red(set(s.red)),
        green(set(s.green)),
        blue(set(s.blue)),
        z(set(depth)),
        conic{set(s.conic_a), set(s.conic_b), set(s.conic_c)} {
    for (int i = 0; i < kSums; i++) acc[i] = set(0.0f);
  }

  A3D_INLINE void block(Vec alpha, Vec px, Vec py, float (*state)[kWidth]) {
    const Vec T = load(state[0]);
    const Vec weight = mul(alpha, T), next = sub(T, weight);
    store(state[0], next);
    const Mask alive = gt(next, set(kMinTransmittance));
    const Vec w = keep(alive, weight);
    const Vec v0 = load(state[2]), v1 = load(state[3]), v2 = load(state[4]);
    Vec dot = madd(blue, v2, madd(green, v1, mul(red, v0)));
    acc[6] = madd(w, v0, acc[6]), acc[7] = madd(w, v1, acc[7]), acc[8] = madd(w, v2, acc[8]);
    if (kDepth) {
      const Vec v3 = load(state[5]);
      dot = madd(z, v3, dot);
      acc[11] = madd(w, v3, acc[11]);
    }
    const Vec rest = nmadd(w, dot, load(state[1]));
    store(state[1], rest);
    // d pixel / d sigma = alpha rest / (1 - alpha) - w dot, none where alpha is clamped
    const Vec through = mul(mul(alpha, rest), reciprocal(sub(set(1.0f), alpha)));
    const Vec v = keep(both(alive, gt(set(kMaxAlpha), alpha)), nmadd(w, dot, through));
    const Vec dx = sub(px, x), dy = sub(py, y), vx = mul(v, dx), vy = mul(v, dy);
    acc[0] = add(acc[0], vx), acc[1] = add(acc[1], vy), acc[5] = add(acc[5], v);
    acc[2] = madd(vx, dx, acc[2]), acc[3] = madd(vx, dy, acc[3]), acc[4] = madd(vy, dy, acc[4]);
    if (kMean2d) {
      acc[9] = add(acc[9], vabs(madd(conic[0], vx, mul(conic[1], vy))));
      acc[10] = add(acc[10], vabs(madd(conic[1], vx, mul(conic[2], vy))));
    }
  }
};

// Two short loops over a Gaussian's blocks, not one long: a processor looks ahead so far that the
// chain of dependent operations in a block must be short for several to run at once.
template <bool kMean2d, bool kDepth>
inline void replay_tile(const RasterScene& scene, const Entry* list, const uint64_t* mask, int n,
                        const Tile& tile, const BlockTable& table, ReplayState& state,
                        float* slots) {
  alignas(64) float alphas[kBlocks][kWidth];
  for (int j = 0; j < n; j++) {
    float* slot = slots + (size_t)kSlot * list[j].slot;
    if (j + 8 < n) {
      prefetch(&scene.splats[list[j + 8].id]);
      prefetch_for_write(slots + (size_t)kSlot * list[j + 8].slot);
    }
    const int32_t id = list[j].id;
    const Splat& s = scene.splats[id];
    Replay<kMean2d, kDepth> replay(s, scene.depths[id], tile);
    int k = 0;
    for (uint64_t todo = mask[j]; todo; k++) {
      const int b = take_lowest_bit(todo);
      store(alphas[k], alpha_of(s, sub(table.x(b), replay.x), sub(table.y(b), replay.y)));
    }
    k = 0;
    for (uint64_t todo = mask[j]; todo; k++) {
      const int b = take_lowest_bit(todo);
      replay.block(load(alphas[k]), table.x(b), table.y(b), state.v[b]);
    }
    store_sums(slot, replay.acc);
  }
}

inline void replay_one(const RasterInput& in, const RasterGradient& grad, RasterState& state,
                       int t) {
  static const BlockTable table;
  const int32_t* start = data<int32_t>(state.tile_start);
  const Tile tile = tile_at(t, state.tiles_x, in.width, in.height);
  if (grad.background)
    background_backward(in, grad, tile, data<float>(state.partial) + 3 * (size_t)t);
  const int n = start[t + 1] - start[t];
  if (!n) return;
  ReplayState replay;
  read_tile(in, grad, tile, replay);
  const RasterScene scene = {data<Splat>(state.splats), data<float>(state.depths)};
  const auto run = grad.v_depth
                       ? (grad.mean2d ? replay_tile<true, true> : replay_tile<false, true>)
                       : (grad.mean2d ? replay_tile<true, false> : replay_tile<false, false>);
  run(scene, data<Entry>(state.list) + start[t], data<uint64_t>(state.mask) + start[t], n, tile,
      table, replay, data<float>(state.slots));
}

inline void replay_all(const RasterInput* in, const RasterGradient* grad, RasterState* states,
                       int images, int threads) {
  const int tiles = states->tiles_x * states->tiles_y;
  for (int i = 0; i < images; i++) {
    reserve<float>(states[i].slots, (size_t)states[i].entries * kSlot);
    reserve<float>(states[i].partial, 3 * (size_t)tiles);
  }
  parallel_for(images * tiles, threads, [&](int k, int) {
    replay_one(in[k / tiles], grad[k / tiles], states[k / tiles], k % tiles);
  });
  for (int i = 0; i < images; i++) {
    if (!grad[i].background || in[i].background_is_image) continue;
    const float* partial = data<float>(states[i].partial);
    double total[3] = {0, 0, 0};
    for (int t = 0; t < tiles; t++)
      for (int k = 0; k < 3; k++) total[k] += partial[3 * (size_t)t + k];
    for (int k = 0; k < 3; k++) grad[i].background[k] = (float)total[k];
  }
}

// Sums of each Gaussian's slots, for kWidth Gaussians side by side.
inline void gather_slots(const RasterState& state, int first, int n, Lanes out[kSums]) {
  const TileRect* rects = data<TileRect>(state.rects);
  const float *slots = data<float>(state.slots), *depths = data<float>(state.depths);
  alignas(64) float rows[kWidth][kSlot] = {{0}};
  for (int l = 0; l < n; l++) {
    const int32_t begin = first_slot(state, first + l);
    const int32_t end = begin + (depths[first + l] > 0 ? rects[first + l].count() : 0);
    for (int32_t e = begin; e < end; e++)
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
  const Lanes v_depth = grad.v_depth ? sums[11] : zero;
  project_backward(camera, batch.gaussian, v_mean2d, v_conic, v_depth, g);
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

inline void project_backward_all(const RasterInput* in, const RasterGradient* grad,
                                 RasterState* states, int images, int threads) {
  const int batches = chunks_of(kWidth, in->count), pieces = chunks_of(kTogether, in->count);
  const int each = kTogether / kWidth;
  for (int i = 0; i < images; i++) reserve<float>(states[i].partial, 12 * (size_t)batches);
  parallel_for(images * pieces, threads, [&](int k, int) {
    const int i = k / pieces, begin = k % pieces * each;
    const PinholeCamera camera = camera_of(in[i]);
    for (int batch = begin; batch < smaller(batches, begin + each); batch++) {
      const int first = batch * kWidth, n = smaller(kWidth, in->count - first);
      project_backward_batch(camera, in[i], grad[i], states[i], first, n,
                             data<float>(states[i].partial) + 12 * (size_t)batch);
    }
  });
  for (int i = 0; i < images; i++) {
    if (!grad[i].viewmat) continue;
    const float* partial = data<float>(states[i].partial);
    double total[12] = {0};
    for (int b = 0; b < batches; b++)
      for (int k = 0; k < 12; k++) total[k] += partial[12 * (size_t)b + k];
    for (int k = 0; k < 16; k++) grad[i].viewmat[k] = k < 12 ? (float)total[k] : 0.0f;
  }
}

void rasterize_backward(const RasterInput* in, const RasterGradient* grad, RasterState* states,
                        int images, int threads) {
  replay_all(in, grad, states, images, threads);
  project_backward_all(in, grad, states, images, threads);
}

}  // namespace
