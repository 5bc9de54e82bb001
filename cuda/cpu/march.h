// Samples along rays. A thread walks through the rays of a piece, collects steps in cells that
// posed matter may reach, and takes a block of them to canonical space at a time.
#pragma once

#include "warp_field.h"

namespace {

using namespace avatar3d;

constexpr int kStepsOfBlock = 512;

// Posed points that may become samples.
struct StepBlock {
  alignas(64) float p[3][kStepsOfBlock + kWidth];
  float t[kStepsOfBlock];
  int32_t ray[kStepsOfBlock], frame[kStepsOfBlock + kWidth];
  int count = 0;
};

inline void add_step(StepBlock& b, const float p[3], float t, int ray, int frame) {
  const int n = b.count++;
  for (int k = 0; k < 3; k++) b.p[k][n] = p[k];
  b.t[n] = t, b.ray[n] = ray, b.frame[n] = frame;
}

// Samples, x y z t each, and how many of them each ray has.
struct SampleList {
  float* samples;
  int32_t* counts;
  int count;
};

// To canonical space.
inline void unwarp_block(const MarchInput& in, StepBlock& b) {
  if (!in.inverse.coarse.nodes || !b.count) return;
  for (int i = b.count; i < b.count + kWidth; i++) b.frame[i] = b.frame[b.count - 1];
  for (int i = 0; i < b.count; i += kWidth) {
    Lanes p[3], u[3];
    for (int k = 0; k < 3; k++) p[k] = Lanes(b.p[k] + i);
    displace_block(in.inverse, b.frame + i, p, u);
    for (int k = 0; k < 3; k++) store(b.p[k] + i, (p[k] + u[k]).v);
  }
}

// Whether step i of an unwarped block becomes a sample, whose point is c.
inline bool is_sample(const MarchInput& in, const StepBlock& b, int i, float c[3]) {
  for (int k = 0; k < 3; k++) c[k] = b.p[k][i];
  return !in.inverse.coarse.nodes || is_occupied(in.volume, in.bits, c);
}

inline void take_block(const MarchInput& in, StepBlock& b, SampleList& out) {
  unwarp_block(in, b);
  for (int i = 0; i < b.count; i++) {
    float c[3];
    if (!is_sample(in, b, i, c)) continue;
    float* s = out.samples + 4 * (size_t)out.count++;
    s[0] = c[0], s[1] = c[1], s[2] = c[2], s[3] = b.t[i];
    out.counts[b.ray[i]]++;
  }
  b.count = 0;
}

// The box around the bricks that hold anything, a little larger than they are.
inline void bound_bricks(const Volume& v, const Brick* bricks, float box[2][3]) {
  const int side = v.resolution / 4;
  int low[3] = {side, side, side}, high[3] = {-1, -1, -1};
  for (int z = 0; z < side; z++)
    for (int y = 0; y < side; y++) {
      const Brick* row = bricks + ((size_t)z * side + y) * side;
      int a = 0, b = side - 1;
      while (a < side && !row[a]) a++;
      if (a == side) continue;
      while (!row[b]) b--;
      low[0] = smaller(low[0], a), high[0] = larger(high[0], b);
      low[1] = smaller(low[1], y), high[1] = larger(high[1], y);
      low[2] = smaller(low[2], z), high[2] = z;
    }
  for (int k = 0; k < 3; k++) {
    if (high[k] < low[k]) low[k] = high[k] = 1 << 20;  // nothing is there: far away
    box[0][k] = v.low[k] + ((float)(4 * low[k]) - 0.1f) / v.scale[k];
    box[1][k] = v.low[k] + ((float)(4 * high[k] + 4) + 0.1f) / v.scale[k];
  }
}

// What the rays of each frame may skip by, and the box around it.
struct FrameTable {
  const Brick* skip;
  float bounds[2][3];
};

inline size_t table_bytes(const MarchInput& in) {
  return (sizeof(FrameTable) * (size_t)in.frames + 63) / 64 * 64;
}

inline void fill_table(const MarchInput& in, FrameTable* table) {
  const bool warped = in.inverse.coarse.nodes != nullptr;
  for (int f = 0; f < in.frames; f++) {
    FrameTable& t = table[f];
    t.skip = warped ? (in.mask ? in.mask + bricks_of(in.volume) * f : nullptr) : in.bits;
    if (!t.skip) {
      memcpy(t.bounds[0], in.volume.low, sizeof in.volume.low);
      memcpy(t.bounds[1], in.volume.high, sizeof in.volume.high);
    } else if (f == 0 || warped) {
      bound_bricks(in.volume, t.skip, t.bounds);
    } else {
      memcpy(t.bounds, table[0].bounds, sizeof t.bounds);
    }
  }
}

// Narrowed to what is occupied, in the frame of the ray; false if that is nothing.
inline bool begin_ray(const MarchInput& in, const FrameTable& table, int ray, RaySteps& steps) {
  const float *o = in.origins + 3 * (size_t)ray, *d = in.directions + 3 * (size_t)ray;
  const float shift = in.jitter ? in.jitter[ray] : 0.5f;
  if (!begin_steps(in.volume, o, d, in.step, shift, steps)) return false;
  if (in.first) {
    steps.first = max_of(in.first[ray], steps.first);
    steps.last = min_of(in.last[ray], steps.last);
  }
  float near, far;
  if (!cross_box(o, d, table.bounds[0], table.bounds[1], near, far)) return false;
  steps.first = max_of(near, steps.first), steps.last = min_of(far, steps.last);
  return steps.first <= steps.last;
}

inline void march_rays(const MarchInput& in, const FrameTable* table, int first, int end,
                       SampleList& out) {
  StepBlock block;
  for (int ray = first; ray < end; ray++) {
    out.counts[ray - first] = 0;
    RaySteps steps;
    if (!begin_ray(in, table[in.frame[ray]], ray, steps)) continue;
    const Brick* skip = table[in.frame[ray]].skip;
    float t, p[3];
    for (int i = begin_bricks(in.volume, steps.first, steps);
         next_step(in.volume, skip, steps, i, t, p); i++) {
      if (block.count == kStepsOfBlock) take_block(in, block, out);
      add_step(block, p, t, ray - first, in.frame[ray]);
    }
  }
  take_block(in, block, out);
}

inline int most_steps(const MarchInput& in) {
  float square = 0.0f;
  for (int k = 0; k < 3; k++) {
    const float side = in.volume.high[k] - in.volume.low[k];
    square += side * side;
  }
  return (int)(sqrtf(square) / in.step) + 3;
}

void march(const MarchInput& in, MarchPiece* pieces, int32_t* counts, Buffer& scratch,
           int threads) {
  const size_t room = 4 * (size_t)kRaysOfPiece * (size_t)most_steps(in);
  char* memory = reserve<char>(scratch, table_bytes(in) + sizeof(float) * room * (size_t)threads);
  FrameTable* table = reinterpret_cast<FrameTable*>(memory);
  float* lists = reinterpret_cast<float*>(memory + table_bytes(in));
  fill_table(in, table);
  parallel_for(chunks_of(kRaysOfPiece, in.rays), threads, [&](int piece, int worker) {
    const int first = piece * kRaysOfPiece, end = smaller(in.rays, first + kRaysOfPiece);
    SampleList list = {lists + room * worker, counts + first, 0};
    march_rays(in, table, first, end, list);
    pieces[piece].count = list.count;
    const size_t bytes = sizeof(float) * 4 * (size_t)list.count;
    if (bytes) memcpy(reserve_bytes(*pieces[piece].samples, bytes), list.samples, bytes);
  });
}

}  // namespace
