// Displacement fields for many points at a time: where in the lattice kWidth points are is found
// for all together, the nodes are fetched point by point, four numbers each.
#pragma once

#include "avatar3d/warp.h"
#include "lanes.h"
#include "parallel.h"

namespace {

using namespace avatar3d;

// kWidth points in a lattice.
struct LatticePlaces {
  alignas(64) float part[3][kWidth];
  alignas(64) float inside[kWidth];  // 1 or 0
  alignas(64) int32_t node[kWidth];
};

// Whole number at most x, or for a whole x > 0 perhaps the one below.
inline Lanes lower_whole(Lanes x) {
  const Lanes shift(kRoundingShift);
  return max_of((x - Lanes(0.5f)) + shift - shift, Lanes(0.0f));
}

inline void place_in_lattice(const Lattice& l, const Lanes p[3], LatticePlaces& out) {
  const Lanes zero(0.0f), one(1.0f);
  Lanes node = zero, inside = one;
  float stride = 1.0f;
  for (int k = 0; k < 3; k++) {
    const Lanes last((float)(l.size[k] - 1));
    const Lanes place = (p[k] - Lanes(l.low[k])) * Lanes(l.scale[k]);
    inside = select((place >= zero) & (place <= last), inside, zero);
    const Lanes within = min_of(max_of(place, zero), last);
    const Lanes corner = min_of(lower_whole(within), last - one);
    store(out.part[k], (within - corner).v);
    node = node + corner * Lanes(stride);
    stride *= (float)l.size[k];
  }
  store(out.inside, inside.v);
  alignas(64) float index[kWidth];
  store(index, node.v);
  for (int i = 0; i < kWidth; i++) out.node[i] = (int32_t)index[i];
}

// Adds the displacement of point i to u[0..3]; a row and a slice in floats.
A3D_INLINE void add_nodes(const float* frame, int row, int slice, const LatticePlaces& at, int i,
                          float* u) {
  const float* n = frame + 4 * (size_t)at.node[i];
#if A3D_SIMD
  const __m256 y = _mm256_set1_ps(at.part[1][i]), z = _mm256_set1_ps(at.part[2][i]);
  __m256 near = _mm256_loadu_ps(n), far = _mm256_loadu_ps(n + slice);
  near = _mm256_fmadd_ps(_mm256_sub_ps(_mm256_loadu_ps(n + row), near), y, near);
  far = _mm256_fmadd_ps(_mm256_sub_ps(_mm256_loadu_ps(n + slice + row), far), y, far);
  near = _mm256_fmadd_ps(_mm256_sub_ps(far, near), z, near);
  const __m128 low = _mm256_castps256_ps128(near), high = _mm256_extractf128_ps(near, 1);
  const __m128 x = _mm_set1_ps(at.part[0][i]);
  _mm_storeu_ps(u, _mm_add_ps(_mm_loadu_ps(u), _mm_fmadd_ps(_mm_sub_ps(high, low), x, low)));
#else
  const Vec x = set(at.part[0][i]), y = set(at.part[1][i]), z = set(at.part[2][i]);
  Vec along[2];
  for (int k = 0; k < 2; k++) {
    const float* a = n + 4 * k;
    const Vec near = madd(sub(load(a + row), load(a)), y, load(a));
    const Vec far = madd(sub(load(a + slice + row), load(a + slice)), y, load(a + slice));
    along[k] = madd(sub(far, near), z, near);
  }
  store(u, add(load(u), madd(sub(along[1], along[0]), x, along[0])));
#endif
}

// u of kWidth points; frames: of each one.
inline void displace_block(const WarpField& w, const int32_t* frames, const Lanes p[3],
                           Lanes u[3]) {
  alignas(64) float sums[kWidth][4] = {{0}};
  LatticePlaces at;
  place_in_lattice(w.coarse, p, at);
  const size_t stride = 4 * (size_t)lattice_nodes(w.coarse);
  int row = 4 * w.coarse.size[0], slice = row * w.coarse.size[1];
  for (int i = 0; i < kWidth; i++)
    add_nodes(w.coarse.nodes + stride * frames[i], row, slice, at, i, sums[i]);
  if (w.fine.nodes) {
    place_in_lattice(w.fine, p, at);
    const size_t fine_stride = 4 * (size_t)lattice_nodes(w.fine);
    row = 4 * w.fine.size[0], slice = row * w.fine.size[1];
    for (int i = 0; i < kWidth; i++)
      if (at.inside[i] > 0.0f)
        add_nodes(w.fine.nodes + fine_stride * frames[i], row, slice, at, i, sums[i]);
  }
  alignas(64) float columns[3][kWidth];
  for (int i = 0; i < kWidth; i++)
    for (int k = 0; k < 3; k++) columns[k][i] = sums[i][k];
  for (int k = 0; k < 3; k++) u[k] = Lanes(columns[k]);
}

void displace(const WarpField& w, const float* points, const int32_t* frames, int64_t count,
              float* out, int threads) {
  constexpr int kPiece = 1024;
  parallel_for((int)((count + kPiece - 1) / kPiece), threads, [&](int piece, int) {
    const int64_t end = count < (int64_t)(piece + 1) * kPiece ? count : (piece + 1ll) * kPiece;
    for (int64_t i = (int64_t)piece * kPiece; i < end; i += kWidth) {
      const int n = end - i < kWidth ? (int)(end - i) : kWidth;
      int32_t which[kWidth];
      for (int l = 0; l < kWidth; l++) which[l] = frames[i + (l < n ? l : 0)];
      Lanes p[3], u[3];
      load_columns<3>(points + 3 * i, n, p);
      displace_block(w, which, p, u);
      for (int k = 0; k < 3; k++) u[k] = u[k] + p[k];
      store_columns<3>(u, n, out + 3 * i);
    }
  });
}

// Places of kWidth nodes of a row; past the last one it goes on.
inline void node_places(const Lattice& l, int x, int y, int z, Lanes p[3]) {
  alignas(64) float columns[kWidth];
  for (int i = 0; i < kWidth; i++) columns[i] = l.low[0] + (float)(x + i) / l.scale[0];
  p[0] = Lanes(columns);
  p[1] = Lanes(l.low[1] + (float)y / l.scale[1]), p[2] = Lanes(l.low[2] + (float)z / l.scale[2]);
}

inline void store_nodes(const Lanes u[3], int n, float* nodes) {
  const Lanes four[4] = {u[0], u[1], u[2], Lanes(0.0f)};
  store_columns<4>(four, n, nodes);
}

void warp_nodes(const NodeProduct& in, float* nodes, int threads) {
  const Lattice& l = in.at;
  const int rows = l.size[1] * l.size[2];
  parallel_for(in.frames * l.size[2], threads, [&](int piece, int) {
    const int frame = piece / l.size[2], z = piece % l.size[2];
    const float* vectors = in.displacements + 3 * (size_t)frame * in.vertices;
    const WarpField coarse = {in.coarse ? *in.coarse : Lattice{}, Lattice{}};
    int32_t frames[kWidth];
    for (int i = 0; i < kWidth; i++) frames[i] = frame;
    for (int y = 0; y < l.size[1]; y++) {
      const int64_t first = ((int64_t)z * l.size[1] + y) * l.size[0];
      float* out = nodes + 4 * ((int64_t)frame * rows * l.size[0] + first);
      for (int x = 0; x < l.size[0]; x++) {
        float sum[3] = {0.0f, 0.0f, 0.0f};
        for (int e = in.offsets[first + x]; e < in.offsets[first + x + 1]; e++) {
          const float* v = vectors + 3 * (size_t)in.columns[e];
          for (int k = 0; k < 3; k++) sum[k] += in.weights[e] * v[k];
        }
        for (int k = 0; k < 3; k++) out[4 * x + k] = sum[k];
        out[4 * x + 3] = 0.0f;
      }
      for (int x = 0; x < l.size[0] && (in.coarse || in.taper); x += kWidth) {
        const int n = smaller(kWidth, l.size[0] - x);
        Lanes p[3], there[3], own[4], taper(1.0f);
        if (in.coarse) {
          node_places(l, x, y, z, p);
          displace_block(coarse, frames, p, there);
        }
        if (in.taper) taper = Lanes(n == kWidth ? load(in.taper + first + x)
                                                : load_part(in.taper + first + x, n));
        load_columns<4>(out + 4 * x, n, own);
        for (int k = 0; k < 3; k++)
          own[k] = taper * (in.coarse ? own[k] - there[k] : own[k]);
        store_nodes(own, n, out + 4 * x);
      }
    }
  });
}

// -u(c) of the c that `forward` takes to each of kWidth points.
inline void search_block(const WarpField& forward, const int32_t* frames, const Lanes x[3],
                         Lanes back[3]) {
  WarpSearch<Lanes> s;
  s.relaxation = Lanes(1.0f);
  for (int k = 0; k < 3; k++) s.c[k] = x[k], s.before[k] = Lanes(0.0f);
  for (int i = 0; i < kWarpEvaluations; i++) {
    Lanes u[3];
    displace_block(forward, frames, s.c, u);
    const Lanes size = search_step(x, u, i == 0, s);
    if (!any((size > Lanes(kWarpTolerance * kWarpTolerance)).m)) break;
  }
  for (int k = 0; k < 3; k++) back[k] = s.c[k] - x[k];
}

inline void invert_lattice(const WarpField& forward, const Lattice& to, const Lattice* coarse,
                           int frames, int threads) {
  const WarpField smooth = {coarse ? *coarse : Lattice{}, Lattice{}};
  parallel_for(frames * to.size[2], threads, [&](int piece, int) {
    const int frame = piece / to.size[2], z = piece % to.size[2];
    const bool end = z == 0 || z == to.size[2] - 1;
    int32_t which[kWidth];
    for (int i = 0; i < kWidth; i++) which[i] = frame;
    for (int y = 0; y < to.size[1]; y++) {
      const int64_t first = ((int64_t)piece * to.size[1] + y) * to.size[0];
      float* out = const_cast<float*>(to.nodes) + 4 * first;
      if (coarse && (end || y == 0 || y == to.size[1] - 1)) {
        memset(out, 0, sizeof(float) * 4 * (size_t)to.size[0]);
        continue;
      }
      for (int x = 0; x < to.size[0]; x += kWidth) {
        const int n = smaller(kWidth, to.size[0] - x);
        Lanes p[3], back[3], there[3];
        node_places(to, x, y, z, p);
        search_block(forward, which, p, back);
        if (coarse) {
          displace_block(smooth, which, p, there);
          for (int k = 0; k < 3; k++) back[k] = back[k] - there[k];
        }
        store_nodes(back, n, out + 4 * x);
      }
      if (coarse)  // without a step at the border
        for (int k = 0; k < 4; k++) out[k] = out[4 * (to.size[0] - 1) + k] = 0.0f;
    }
  });
}

void invert_warp(const WarpField& forward, const WarpField& inverse, int frames, int threads) {
  invert_lattice(forward, inverse.coarse, nullptr, frames, threads);
  if (inverse.fine.nodes)
    invert_lattice(forward, inverse.fine, &inverse.coarse, frames, threads);
}

constexpr float kMaskMargin = 0.25f;  // cells, for what interpolation makes of the inverse

// Corners of a brick's cells, in cells from the volume's lower corner, moved by the warp.
inline void move_corners(const Volume& v, const WarpField& w, const int32_t* frames, int bx, int by,
                         int bz, float moved[3][144]) {
  for (int first = 0; first < 125; first += kWidth) {
    alignas(64) float start[3][kWidth];
    for (int i = 0; i < kWidth; i++) {
      const int c = smaller(first + i, 124);
      const int at[3] = {4 * bx + c % 5, 4 * by + c / 5 % 5, 4 * bz + c / 25};
      for (int k = 0; k < 3; k++) start[k][i] = v.low[k] + (float)at[k] / v.scale[k];
    }
    const Lanes p[3] = {Lanes(start[0]), Lanes(start[1]), Lanes(start[2])};
    Lanes u[3];
    displace_block(w, frames, p, u);
    for (int k = 0; k < 3; k++)
      store(moved[k] + first, ((p[k] + u[k] - Lanes(v.low[k])) * Lanes(v.scale[k])).v);
  }
}

// Sets the cells around a moved cell.
inline void mark_cell(const Volume& v, const float moved[3][144], int cell, Brick* mask) {
  const int x = cell & 3, y = cell >> 2 & 3, z = cell >> 4, corner = (z * 5 + y) * 5 + x;
  int low[3], high[3];
  for (int k = 0; k < 3; k++) {
    const float* m = moved[k] + corner;
    float a = m[0], b = m[0];
    for (int i = 1; i < 8; i++) {
      const float other = m[(i & 1) + 5 * (i >> 1 & 1) + 25 * (i >> 2)];
      a = min_of(a, other), b = max_of(b, other);
    }
    const float end = (float)v.resolution;
    low[k] = (int)min_of(max_of(a - kMaskMargin, 0.0f), end);
    high[k] = b + kMaskMargin < 0.0f ? -1 : (int)min_of(b + kMaskMargin, end - 1.0f);
  }
  for (int c[3] = {0, 0, low[2]}; c[2] <= high[2]; c[2]++)
    for (c[1] = low[1]; c[1] <= high[1]; c[1]++)
      for (c[0] = low[0]; c[0] <= high[0]; c[0]++)
        mask[brick_index(v, c)] |= (Brick)1 << bit_in_brick(c);
}

void posed_mask(const Volume& v, const Brick* bits, const WarpField& forward, int frames,
                Brick* mask, Buffer& scratch, int threads) {
  const size_t bricks = (size_t)bricks_of(v);
  const int side = v.resolution / 4;
  Brick* own = reserve<Brick>(scratch, bricks * (size_t)threads);
  for (int frame = 0; frame < frames; frame++) {
    memset(own, 0, sizeof(Brick) * bricks * (size_t)threads);
    parallel_for(side * side, threads, [&](int row, int worker) {
      int32_t which[kWidth];
      for (int i = 0; i < kWidth; i++) which[i] = frame;
      alignas(64) float moved[3][144];
      for (int bx = 0; bx < side; bx++) {
        uint64_t left = bits[(size_t)row * side + bx];
        if (!left) continue;
        move_corners(v, forward, which, bx, row % side, row / side, moved);
        while (left) mark_cell(v, moved, take_lowest_bit(left), own + bricks * worker);
      }
    });
    Brick* out = mask + bricks * frame;
    for (size_t i = 0; i < bricks; i++) out[i] = own[i];
    for (int t = 1; t < threads; t++)
      for (size_t i = 0; i < bricks; i++) out[i] |= own[bricks * t + i];
  }
}

}  // namespace
