// The blend replayed front to back with the gradient of every pixel, then the projection's backward.
// Each (tile, Gaussian) pair owns one slot of 12 floats, so there are no atomics and the sums do not
// depend on how many threads there are.
#pragma once

#include "raster_forward.h"

namespace {

// Sums over a tile's pixels, v = gradient at sigma = -log(alpha / opacity):
// v dx, v dy, v dx^2, v dx dy, v dy^2, v, red, green, blue, |mean2d x|, |mean2d y|, unused
constexpr int kSlot = 12;

// Per block: transmittance, what is still to come of (gradient . colour), gradient r g b.
struct alignas(64) ReplayState {
  float v[kBlocks][5][kWidth];
};

inline void read_tile(const RasterInput& in, const RasterGradient& grad, const Tile& tile,
                      ReplayState& state) {
  if (!tile.whole) memset(&state, 0, sizeof state);
  for (int b = 0; b < kBlocks; b++) store(state.v[b][0], set(1.0f));
  for (int y = tile.y0; y < tile.y1; y++) {
    const int by = (y - tile.y0) / kBlockY, ly = (y - tile.y0) % kBlockY;
    for (int x = tile.x0; x < tile.x1; x++) {
      float(*block)[kWidth] = state.v[by * kBlocksX + (x - tile.x0) / kBlockX];
      const int l = ly * kBlockX + (x - tile.x0) % kBlockX;
      const size_t pixel = (size_t)y * in.width + x;
      const float* v = grad.v_image + 3 * pixel;
      const float* c = grad.image + 3 * pixel;
      // Alpha = 1 - T, so its gradient acts like a background of "colour" -v_alpha.
      block[1][l] =
          c[0] * v[0] + c[1] * v[1] + c[2] * v[2] - grad.v_alpha[pixel] * (1.0f - grad.alpha[pixel]);
      for (int k = 0; k < 3; k++) block[2 + k][l] = v[k];
    }
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

inline void store_sums(float* slot, const Vec v[kSlot]) {
#if A3D_SIMD
#if A3D_SIMD == 512
  __m256 h[kSlot];
  for (int i = 0; i < kSlot; i++)
    h[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i]), _mm512_extractf32x8_ps(v[i], 1));
#else
  const Vec* h = v;
#endif
  for (int q = 0; q < kSlot / 4; q++) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(h[4 * q], h[4 * q + 1]),
                                    _mm256_hadd_ps(h[4 * q + 2], h[4 * q + 3]));
    _mm_storeu_ps(slot + 4 * q,
                  _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
  }
#else
  for (int i = 0; i < kSlot; i++) slot[i] = sum(v[i]);
#endif
}

template <bool kMean2d>
inline void replay_tile(const Splat* splats, const int32_t* list, const uint64_t* mask, int64_t n,
                        const Tile& tile, const BlockTable& table, ReplayState& state,
                        float* slots) {
  const Vec limit = set(kLog2MinAlpha), alpha_max = set(kMaxAlpha), t_min = set(kMinTransmittance);
  const Vec one = set(1.0f), zero = set(0.0f), clamped = set(kLog2MaxAlpha);
  for (int64_t j = 0; j < n; j++) {
    uint64_t todo = mask[j];
    if (!todo) continue;
    if (j + 8 < n) prefetch(&splats[list[j + 8]]);
    const Splat& s = splats[list[j]];
    const SplatVectors g(s, s.x - (float)tile.x0, s.y - (float)tile.y0);
    const Vec red = set(s.red), green = set(s.green), blue = set(s.blue);
    Vec acc[kSlot];
    for (int i = 0; i < kSlot; i++) acc[i] = zero;
    do {
      const int b = lowest_bit(todo);
      todo &= todo - 1;
      float(*block)[kWidth] = state.v[b];
      const Vec T = load(block[0]);
      const Vec dx = sub(load(table.x[b]), g.x), dy = sub(load(table.y[b]), g.y);
      const Vec p = g.log2_alpha(dx, dy);
      const Vec alpha = keep(ge(p, limit), vmin(exp2_of(p), alpha_max));
      const Vec next = nmadd(alpha, T, T);
      const Mask alive = gt(next, t_min);
      store(block[0], select(alive, next, zero));
      const Vec w = keep(alive, mul(alpha, T));
      const Vec v0 = load(block[2]), v1 = load(block[3]), v2 = load(block[4]);
      const Vec dot = madd(blue, v2, madd(green, v1, mul(red, v0)));
      const Vec rest = nmadd(w, dot, load(block[1]));
      store(block[1], rest);
      acc[6] = madd(w, v0, acc[6]), acc[7] = madd(w, v1, acc[7]), acc[8] = madd(w, v2, acc[8]);
      // d pixel / d sigma = alpha rest / (1 - alpha) - w dot, none where alpha is clamped
      const Vec through = mul(mul(alpha, rest), reciprocal(sub(one, alpha)));
      const Vec v = keep(both(alive, le(p, clamped)), nmadd(w, dot, through));
      const Vec vx = mul(v, dx), vy = mul(v, dy);
      acc[0] = add(acc[0], vx), acc[1] = add(acc[1], vy);
      acc[2] = madd(vx, dx, acc[2]), acc[3] = madd(vx, dy, acc[3]), acc[4] = madd(vy, dy, acc[4]);
      acc[5] = add(acc[5], v);
      if (kMean2d) {
        const Vec A = set(s.conic_a), B = set(s.conic_b), C = set(s.conic_c);
        acc[9] = add(acc[9], vabs(madd(A, vx, mul(B, vy))));
        acc[10] = add(acc[10], vabs(madd(B, vx, mul(C, vy))));
      }
    } while (todo);
    store_sums(slots + kSlot * j, acc);
  }
}

template <bool kMean2d>
inline void replay_all(const RasterInput& in, const RasterGradient& grad, RasterState& state,
                       int threads) {
  static const BlockTable table;
  const int tiles = state.tiles_x * state.tiles_y;
  const Splat* splats = data<Splat>(state.splats);
  const int64_t* start = data<int64_t>(state.tile_start);
  float* slots = reserve<float>(state.slots, (size_t)state.entries * kSlot);
  float(*partial)[3] = reinterpret_cast<float(*)[3]>(reserve<float>(state.partial, 3 * (size_t)tiles));
#pragma omp parallel num_threads(threads)
  {
    ReplayState replay;
#pragma omp for schedule(dynamic, 2)
    for (int t = 0; t < tiles; t++) {
      const Tile tile = tile_at(t, state.tiles_x, in.width, in.height);
      if (grad.background) background_backward(in, grad, tile, partial[t]);
      if (start[t + 1] == start[t]) continue;
      read_tile(in, grad, tile, replay);
      replay_tile<kMean2d>(splats, data<int32_t>(state.list) + start[t],
                           data<uint64_t>(state.mask) + start[t], start[t + 1] - start[t], tile,
                           table, replay, slots + kSlot * start[t]);
    }
  }
  if (grad.background && !in.background_is_image) {
    double total[3] = {0, 0, 0};
    for (int t = 0; t < tiles; t++)
      for (int k = 0; k < 3; k++) total[k] += partial[t][k];
    for (int k = 0; k < 3; k++) grad.background[k] = (float)total[k];
  }
}

struct alignas(64) GradientLanes {
  float sums[kSlot][kLanes];
  float mean[3][kLanes], quat[4][kLanes], scale[3][kLanes], r[9][kLanes], t[3][kLanes];
};

inline void gather_slots(const RasterState& state, int first, int n, GradientLanes& out) {
  const Splat* splats = data<Splat>(state.splats);
  const int64_t* start = data<int64_t>(state.entry_start);
  const int32_t* slot = data<int32_t>(state.entry_slot);
  const uint64_t* mask = data<uint64_t>(state.mask);
  const float* slots = data<float>(state.slots);
  for (int l = 0; l < kLanes; l++) {
    float total[kSlot] = {0};
    if (l < n && splats[first + l].half_x >= 0) {
      const TileRect r = rect_of(splats[first + l], state.tiles_x, state.tiles_y);
      const int64_t begin = start[first + l];
      const int64_t end = begin + (int64_t)(r.x1 - r.x0 + 1) * (r.y1 - r.y0 + 1);
      for (int64_t e = begin; e < end; e++) {
        if (!mask[slot[e]]) continue;
        const float* s = slots + (size_t)kSlot * slot[e];
        for (int k = 0; k < kSlot; k++) total[k] += s[k];
      }
    }
    for (int k = 0; k < kSlot; k++) out.sums[k][l] = total[k];
  }
}

inline void project_backward_lanes(const PinholeCamera& camera, const Lanes& in,
                                   const float conic[3][kLanes], GradientLanes& out) {
#pragma omp simd
  for (int l = 0; l < kLanes; l++) {
    const float sx = out.sums[0][l], sy = out.sums[1][l];
    const float A = conic[0][l], B = conic[1][l], C = conic[2][l];
    const float v_mean2d[2] = {-(A * sx + B * sy), -(B * sx + C * sy)};
    const float v_conic[3] = {0.5f * out.sums[2][l], out.sums[3][l], 0.5f * out.sums[4][l]};
    GaussianGradient g;
    project_backward(camera, lane(in, l), v_mean2d, v_conic, g);
    for (int k = 0; k < 3; k++) out.mean[k][l] = g.mean[k], out.scale[k][l] = g.scale[k];
    for (int k = 0; k < 4; k++) out.quat[k][l] = g.quat[k];
    for (int k = 0; k < 9; k++) out.r[k][l] = g.r[k];
    for (int k = 0; k < 3; k++) out.t[k][l] = g.t[k];
  }
}

inline void write_gradients(const RasterState& state, const Lanes& in, int first, int n,
                            const GradientLanes& v, const RasterGradient& grad,
                            float camera_sums[12]) {
  const Splat* splats = data<Splat>(state.splats);
  for (int k = 0; k < 12; k++) camera_sums[k] = 0;
  for (int l = 0; l < n; l++) {
    const size_t i = (size_t)first + l;
    const bool drawn = splats[i].half_x >= 0;  // a NaN Gaussian must not leak into 0 * NaN
    for (int k = 0; k < 3; k++) {
      grad.means[3 * i + k] = drawn ? v.mean[k][l] : 0.0f;
      grad.scales[3 * i + k] = drawn ? v.scale[k][l] : 0.0f;
      grad.colors[3 * i + k] = v.sums[6 + k][l];
    }
    for (int k = 0; k < 4; k++) grad.quats[4 * i + k] = drawn ? v.quat[k][l] : 0.0f;
    grad.opacities[i] = drawn ? -v.sums[5][l] / in.opacity[l] : 0.0f;
    if (grad.mean2d) grad.mean2d[2 * i] = v.sums[9][l], grad.mean2d[2 * i + 1] = v.sums[10][l];
    if (grad.viewmat && drawn) {
      for (int k = 0; k < 9; k++) camera_sums[k / 3 * 4 + k % 3] += v.r[k][l];
      for (int k = 0; k < 3; k++) camera_sums[k * 4 + 3] += v.t[k][l];
    }
  }
}

inline void project_backward_all(const RasterInput& in, const RasterGradient& grad,
                                 RasterState& state, int threads) {
  const PinholeCamera camera = camera_of(in);
  const Splat* splats = data<Splat>(state.splats);
  const int batches = (in.count + kLanes - 1) / kLanes;
  float* partial = reserve<float>(state.partial, 12 * (size_t)batches);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int batch = 0; batch < batches; batch++) {
    const int first = batch * kLanes, n = smaller(kLanes, in.count - first);
    Lanes lanes;
    GradientLanes v;
    alignas(64) float conic[3][kLanes];
    load_lanes(lanes, in, first, n);
    for (int l = 0; l < kLanes; l++) {
      const Splat& s = splats[first + (l < n ? l : 0)];
      conic[0][l] = s.conic_a, conic[1][l] = s.conic_b, conic[2][l] = s.conic_c;
    }
    gather_slots(state, first, n, v);
    project_backward_lanes(camera, lanes, conic, v);
    write_gradients(state, lanes, first, n, v, grad, partial + 12 * (size_t)batch);
  }
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
