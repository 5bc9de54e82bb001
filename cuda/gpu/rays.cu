// Volume rendering on a GPU, one thread a ray; avatar3d/ray.h, warp.h and composite.h have the
// maths.
//
//   march_rays           counts samples, or writes them where the counts' sums say
//   composite_rays, composite_rays_backward
//   invert_lattice       one thread a node
#include "avatar3d/composite.h"
#include "avatar3d/ray.h"
#include "avatar3d/warp.h"

namespace {

using namespace avatar3d;

constexpr int kThreads = 128;

__device__ int thread_index() { return (int)(blockIdx.x * kThreads + threadIdx.x); }

// box: (2, 3)
__device__ Lattice lattice_at(const float* nodes, const float* box, int nx, int ny, int nz) {
  Lattice l;
  l.nodes = nodes;
  l.size[0] = nx, l.size[1] = ny, l.size[2] = nz;
  for (int k = 0; k < 3; k++) {
    l.low[k] = box[k];
    l.scale[k] = (float)(l.size[k] - 1) / (box[3 + k] - box[k]);
  }
  return l;
}

__device__ void node_place(const Lattice& l, int node, float p[3]) {
  const int x = node % l.size[0], y = node / l.size[0] % l.size[1];
  const int at[3] = {x, y, node / l.size[0] / l.size[1]};
  for (int k = 0; k < 3; k++) p[k] = l.low[k] + (float)at[k] / l.scale[k];
}

__device__ float kept_of(float density, float dt, const float color[3], float extra_sum) {
  if (!(density >= 0.0f) || !is_finite_color(color) || extra_sum != 0.0f) return 2.0f;
  return expf(-density * dt);
}

// 0 unless a channel is not finite.
__device__ float poison(const float* extra, int channels) {
  float sum = 0.0f;
  for (int c = 0; c < channels; c++) sum += extra[c] * 0.0f;
  return sum;
}

}  // namespace

// Displacements back, for the places of the lattice's nodes; fine_x is 0 without a fine one. Of the
// coarse lattice with to_fine 0, else of the fine one over `smooth`, the coarse one's inverse.
extern "C" __global__ void __launch_bounds__(kThreads)
    invert_lattice(int frames, int to_fine, int x, int y, int z, int fine_x, int fine_y, int fine_z,
                   const float* __restrict__ coarse, const float* __restrict__ box,
                   const float* __restrict__ fine, const float* __restrict__ fine_box,
                   const float* __restrict__ smooth, float* __restrict__ out) {
  WarpField w;
  w.coarse = lattice_at(coarse, box, x, y, z);
  w.fine.nodes = nullptr;
  if (fine_x) w.fine = lattice_at(fine, fine_box, fine_x, fine_y, fine_z);
  const Lattice to = to_fine ? w.fine : w.coarse;
  const int nodes = (int)lattice_nodes(to), i = thread_index();
  if (i >= frames * nodes) return;
  const int frame = i / nodes, node = i % nodes;
  float p[3];
  node_place(to, node, p);
  WarpSearch<float> s;
  s.relaxation = 1.0f;
  for (int k = 0; k < 3; k++) s.c[k] = p[k], s.before[k] = 0.0f;
  for (int e = 0; e < kWarpEvaluations; e++) {
    float u[3];
    displacement(w, frame, s.c, u);
    if (search_step(p, u, e == 0, s) <= kWarpTolerance * kWarpTolerance) break;
  }
  float back[3] = {s.c[0] - p[0], s.c[1] - p[1], s.c[2] - p[2]};
  if (to_fine) {
    const Lattice below = lattice_at(smooth, box, x, y, z);
    float there[3] = {0.0f, 0.0f, 0.0f};
    add_displacement(below, frame, p, false, there);
    const int at[3] = {node % fine_x, node / fine_x % fine_y, node / fine_x / fine_y};
    bool border = false;
    for (int k = 0; k < 3; k++) border = border | (at[k] == 0) | (at[k] == to.size[k] - 1);
    for (int k = 0; k < 3; k++) back[k] = border ? 0.0f : back[k] - there[k];
  }
  for (int k = 0; k < 3; k++) out[4 * (size_t)i + k] = back[k];
  out[4 * (size_t)i + 3] = 0.0f;
}

// Canonical points of posed ones; the lattices are the inverse.
extern "C" __global__ void __launch_bounds__(kThreads)
    displace_points(int count, int x, int y, int z, int fine_x, int fine_y, int fine_z,
                    const float* __restrict__ coarse, const float* __restrict__ box,
                    const float* __restrict__ fine, const float* __restrict__ fine_box,
                    const float* __restrict__ points, const int* __restrict__ frames,
                    float* __restrict__ out) {
  const int i = thread_index();
  if (i >= count) return;
  WarpField w;
  w.coarse = lattice_at(coarse, box, x, y, z);
  w.fine.nodes = nullptr;
  if (fine_x) w.fine = lattice_at(fine, fine_box, fine_x, fine_y, fine_z);
  const float p[3] = {points[3 * i], points[3 * i + 1], points[3 * i + 2]};
  float u[3];
  displacement(w, frames[i], p, u);
  for (int k = 0; k < 3; k++) out[3 * (size_t)i + k] = p[k] + u[k];
}

// counts (R,) when points is null; otherwise samples from offsets[ray] on, of rays below marched.
// box (2, 3) of the volume; mask (F, bricks), jitter, first, last: or null. x is 0 without a warp.
extern "C" __global__ void __launch_bounds__(kThreads)
    march_rays(int rays, int marched, int resolution, int x, int y, int z, int fine_x, int fine_y,
               int fine_z, float step, const float* __restrict__ coarse,
               const float* __restrict__ warp_box, const float* __restrict__ fine,
               const float* __restrict__ fine_box, const float* __restrict__ origins,
               const float* __restrict__ directions, const int* __restrict__ frames,
               const float* __restrict__ box, const unsigned char* __restrict__ bits,
               const unsigned char* __restrict__ mask, const float* __restrict__ jitter,
               const float* __restrict__ first, const float* __restrict__ last,
               int* __restrict__ counts, const int* __restrict__ offsets,
               float* __restrict__ points, float* __restrict__ t_out, int* __restrict__ rays_out) {
  const int ray = thread_index();
  if (ray >= (points ? marched : rays)) return;
  WarpField inverse;
  inverse.fine.nodes = nullptr;
  if (x) inverse.coarse = lattice_at(coarse, warp_box, x, y, z);
  if (fine_x) inverse.fine = lattice_at(fine, fine_box, fine_x, fine_y, fine_z);
  Volume v;
  v.resolution = resolution;
  for (int k = 0; k < 3; k++) {
    v.low[k] = box[k], v.high[k] = box[3 + k];
    v.scale[k] = (float)resolution / (v.high[k] - v.low[k]);
  }
  const Brick* own = (const Brick*)bits;
  const int frame = x ? frames[ray] : 0;
  const Brick* skip = x ? (mask ? (const Brick*)mask + bricks_of(v) * frame : nullptr) : own;
  RaySteps r;
  int found = 0;
  const int at = points ? offsets[ray] : 0;
  if (begin_steps(v, origins + 3 * (size_t)ray, directions + 3 * (size_t)ray, step,
                  jitter ? jitter[ray] : 0.5f, r)) {
    if (first) r.first = max_of(first[ray], r.first), r.last = min_of(last[ray], r.last);
    float t, p[3];
    for (int i = begin_bricks(v, r.first, r); next_step(v, skip, r, i, t, p); i++) {
      if (x) {
        float u[3];
        displacement(inverse, frame, p, u);
        for (int k = 0; k < 3; k++) p[k] += u[k];
        if (!is_occupied(v, own, p)) continue;
      }
      if (points) {
        const size_t n = (size_t)(at + found);
        for (int k = 0; k < 3; k++) points[3 * n + k] = p[k];
        t_out[n] = t, rays_out[n] = ray;
      }
      found++;
    }
  }
  if (!points) counts[ray] = found;
}

// Outputs (R, ...) and weights (N,).
extern "C" __global__ void __launch_bounds__(kThreads)
    composite_rays(int rays, int channels, const float* __restrict__ density,
                   const float* __restrict__ color, const float* __restrict__ extra,
                   const float* __restrict__ t, const float* __restrict__ dt,
                   const int* __restrict__ offsets, float* __restrict__ out_color,
                   float* __restrict__ alpha, float* __restrict__ depth,
                   float* __restrict__ distortion, float* __restrict__ out_extra,
                   float* __restrict__ weights) {
  const int ray = thread_index();
  if (ray >= rays) return;
  const int begin = offsets[ray], end = offsets[ray + 1];
  float* sums_extra = out_extra + (size_t)ray * channels;
  for (int c = 0; c < channels; c++) sums_extra[c] = 0.0f;
  const float start = end > begin ? t[begin] : 0.0f;
  RaySums sums;
  for (int i = begin; i < end; i++) {
    const float* own = extra + (size_t)i * channels;
    float w = 0.0f;
    if (sums.transmittance >= kStopTransmittance) {
      const float kept = kept_of(density[i], dt[i], color + 3 * (size_t)i, poison(own, channels));
      if (kept < 1.0f) {
        w = add_sample(sums, kept, color + 3 * (size_t)i, t[i] - start, dt[i]);
        for (int c = 0; c < channels; c++) sums_extra[c] += w * own[c];
      }
    }
    weights[i] = w;
  }
  for (int k = 0; k < 3; k++) out_color[3 * (size_t)ray + k] = sums.color[k];
  alpha[ray] = sums.mass, depth[ray] = start * sums.mass + sums.moment;
  distortion[ray] = sums.distortion;
}

// g_density holds the light behind each sample on the way; slopes: (N,) of scratch.
extern "C" __global__ void __launch_bounds__(kThreads)
    composite_rays_backward(
        int rays, int channels, const float* __restrict__ density, const float* __restrict__ color,
        const float* __restrict__ extra, const float* __restrict__ t, const float* __restrict__ dt,
        const int* __restrict__ offsets, const float* __restrict__ v_color,
        const float* __restrict__ v_alpha, const float* __restrict__ v_depth,
        const float* __restrict__ v_distortion, const float* __restrict__ v_extra,
        float* __restrict__ weights, float* __restrict__ slopes, float* __restrict__ g_density,
        float* __restrict__ g_color, float* __restrict__ g_extra) {
  const int ray = thread_index();
  if (ray >= rays) return;
  const int begin = offsets[ray], end = offsets[ray + 1];
  if (begin == end) return;
  const RayGradient v = {{v_color[3 * (size_t)ray], v_color[3 * (size_t)ray + 1],
                          v_color[3 * (size_t)ray + 2]},
                         v_alpha[ray], v_depth[ray], v_distortion[ray]};
  const float* own_extra = v_extra + (size_t)ray * channels;
  const float start = t[begin];
  RaySums all, before;
  int stop = begin;
  for (; stop < end && all.transmittance >= kStopTransmittance; stop++) {
    const float* c = color + 3 * (size_t)stop;
    const float kept =
        kept_of(density[stop], dt[stop], c, poison(extra + (size_t)stop * channels, channels));
    weights[stop] = kept < 1.0f ? add_sample(all, kept, c, t[stop] - start, dt[stop]) : 0.0f;
    g_density[stop] = kept <= 1.0f ? all.transmittance : -1.0f;
  }
  for (int i = begin; i < stop; i++) {
    const float w = weights[i];
    const float* values = extra + (size_t)i * channels;
    float slope = 0.0f;
    if (g_density[i] >= 0.0f) {
      slope = weight_gradient(v, before, all.mass, all.moment, start, w, color + 3 * (size_t)i,
                              t[i] - start, dt[i]);
      for (int c = 0; c < channels; c++) slope += own_extra[c] * values[c];
    }
    slopes[i] = slope;
    for (int k = 0; k < 3; k++) g_color[3 * (size_t)i + k] = w * v.color[k];
    for (int c = 0; c < channels; c++) g_extra[(size_t)i * channels + c] = w * own_extra[c];
    before.mass += w, before.moment += w * (t[i] - start);
  }
  float dimmed = 0.0f;
  for (int i = stop - 1; i >= begin; i--) {
    const float behind = g_density[i];
    g_density[i] = behind >= 0.0f ? dt[i] * (behind * slopes[i] - dimmed) : 0.0f;
    dimmed += weights[i] * slopes[i];
  }
  for (int i = stop; i < end; i++) {
    g_density[i] = 0.0f;
    for (int k = 0; k < 3; k++) g_color[3 * (size_t)i + k] = 0.0f;
    for (int c = 0; c < channels; c++) g_extra[(size_t)i * channels + c] = 0.0f;
  }
}
