// Rays through a box of cells of which some are occupied: where they enter and leave, and their
// steps in occupied cells. See avatar3d/kernels/raymarch.py.
#pragma once

#include "common.h"

namespace avatar3d {

// R^3 cells, a bit each. Bits lie in words of 64 for bricks of 4 x 4 x 4 cells, so that one look
// tells an empty brick; bricks, and the cells in each, are in order, x fastest.
struct Volume {
  float low[3], high[3];
  float scale[3];  // cells a metre
  int resolution;  // R, a multiple of 4
};

typedef unsigned long long Brick;

A3D_HD long long bricks_of(const Volume& v) {
  const long long side = v.resolution / 4;
  return side * side * side;
}

A3D_HD int brick_index(const Volume& v, const int cell[3]) {
  const int side = v.resolution >> 2;
  return ((cell[2] >> 2) * side + (cell[1] >> 2)) * side + (cell[0] >> 2);
}

A3D_HD int bit_in_brick(const int cell[3]) {
  return ((cell[2] & 3) << 4) + ((cell[1] & 3) << 2) + (cell[0] & 3);
}

// The cell of a point; false outside of the box and for NaN.
A3D_HD bool find_cell(const Volume& v, const float p[3], float place[3], int cell[3]) {
  const float end = (float)v.resolution;
  bool inside = true;
  for (int k = 0; k < 3; k++) {
    place[k] = (p[k] - v.low[k]) * v.scale[k];
    inside = inside & (place[k] >= 0.0f) & (place[k] < end);
    cell[k] = (int)(inside ? place[k] : 0.0f);
  }
  return inside;
}

A3D_HD bool is_occupied(const Volume& v, const Brick* bits, const float p[3]) {
  float place[3];
  int cell[3];
  return find_cell(v, p, place, cell) && (bits[brick_index(v, cell)] >> bit_in_brick(cell) & 1);
}

// Distances at which a ray enters and leaves a box; near >= 0. False if it misses it or is not
// finite. A ray parallel to two faces runs between them or misses.
A3D_HD bool cross_box(const float origin[3], const float direction[3], const float low[3],
                      const float high[3], float& near, float& far) {
  constexpr float kLargest = 3.0e38f;
  near = 0.0f, far = kLargest;
  bool hit = true;
  for (int k = 0; k < 3; k++) {
    const float o = origin[k], d = direction[k];
    hit = hit & (o - o == 0.0f) & (d - d == 0.0f);
    if (d == 0.0f) {
      hit = hit & (o >= low[k]) & (o <= high[k]);
    } else {
      const float a = (low[k] - o) / d, b = (high[k] - o) / d;
      near = max_of(near, min_of(a, b)), far = min_of(far, max_of(a, b));
    }
  }
  return hit && near < far && far < kLargest;
}

// A ray's steps, number i at t = near + (i + shift) step, and the brick that it has come to.
struct RaySteps {
  float origin[3], direction[3];
  float near, step, per_step, shift;
  float first, last;   // t of interest; last is where the ray leaves the box
  float start[3];      // the origin, in bricks
  float slowness[3];   // metres along the ray for a brick; 0: it never leaves it this way
  int way[3], jump[3]; // to the next brick: by one up or down; in the array
  int brick[3], index;
  float enter, leave[3];
};

A3D_HD float step_at(const RaySteps& r, int i) { return r.near + ((float)i + r.shift) * r.step; }

A3D_HD void point_at(const RaySteps& r, float t, float p[3]) {
  for (int k = 0; k < 3; k++) p[k] = r.origin[k] + t * r.direction[k];
}

// The first step that is not before t, or by rounding one before it.
A3D_HD int step_from(const RaySteps& r, float t) {
  const float i = (t - r.near) * r.per_step - r.shift - 0.01f;
  const int down = (int)i;
  return i > 0.0f ? down + ((float)down < i) : 0;
}

A3D_HD float leaving_at(const RaySteps& r, int k) {
  const int border = r.brick[k] + (r.way[k] > 0);
  return r.slowness[k] == 0.0f ? 3.0e38f : ((float)border - r.start[k]) * r.slowness[k];
}

// False if the ray misses the box.
A3D_HD bool begin_steps(const Volume& v, const float origin[3], const float direction[3],
                        float step, float shift, RaySteps& r) {
  if (!cross_box(origin, direction, v.low, v.high, r.near, r.last)) return false;
  for (int k = 0; k < 3; k++) {
    r.origin[k] = origin[k], r.direction[k] = direction[k];
    const float rate = 0.25f * direction[k] * v.scale[k];
    r.start[k] = 0.25f * (origin[k] - v.low[k]) * v.scale[k];
    r.slowness[k] = rate > 1e-9f || rate < -1e-9f ? 1.0f / rate : 0.0f;
    r.way[k] = rate < 0.0f ? -1 : 1;
  }
  r.step = step, r.per_step = 1.0f / step, r.shift = shift, r.first = r.near;
  return shift >= 0.0f;
}

// To the brick that the ray is in at t, and the number of the step there.
A3D_HD int begin_bricks(const Volume& v, float t, RaySteps& r) {
  const int side = v.resolution >> 2;
  float p[3];
  point_at(r, t, p);
  for (int k = 0; k < 3; k++) {
    const float place = 0.25f * (p[k] - v.low[k]) * v.scale[k];
    r.brick[k] = (int)min_of(max_of(place, 0.0f), (float)(side - 1));
    r.leave[k] = leaving_at(r, k);
  }
  r.jump[0] = r.way[0], r.jump[1] = r.way[1] * side, r.jump[2] = r.way[2] * side * side;
  r.index = (r.brick[2] * side + r.brick[1]) * side + r.brick[0];
  r.enter = t;
  return step_from(r, t);
}

A3D_HD float leaving(const RaySteps& r) {
  return min_of(r.leave[0], min_of(r.leave[1], r.leave[2]));
}

// False if that is outside of the box.
A3D_HD bool to_next_brick(const Volume& v, RaySteps& r) {
  const int side = v.resolution >> 2;
  const bool by_x = (r.leave[0] <= r.leave[1]) & (r.leave[0] <= r.leave[2]);
  const bool by_y = !by_x & (r.leave[1] <= r.leave[2]);
  const bool by[3] = {by_x, by_y, !(by_x | by_y)};
  r.enter = leaving(r);
  bool inside = true;
  for (int k = 0; k < 3; k++) {
    r.brick[k] += by[k] ? r.way[k] : 0;
    r.index += by[k] ? r.jump[k] : 0;
    r.leave[k] = leaving_at(r, k);
    inside = inside & ((unsigned)r.brick[k] < (unsigned)side);
  }
  return inside;
}

// The next step from number i on whose cell is occupied, with its t and point; false if there is
// none. Null bits: every cell is.
A3D_HD bool next_step(const Volume& v, const Brick* bits, RaySteps& r, int& i, float& t,
                      float p[3]) {
  const float slack = 0.01f * r.step;  // so that rounding at the border loses no step
  for (;; i++) {
    t = step_at(r, i);
    if (bits) {
      if (t > leaving(r) + slack || !bits[r.index]) {
        do {
          if (!to_next_brick(v, r) || r.enter > r.last) return false;
        } while (!bits[r.index]);
        const int there = step_from(r, r.enter - slack);
        if (there > i) i = there, t = step_at(r, i);
        if (t > leaving(r) + slack) {
          i--;
          continue;
        }
      }
    }
    if (!(t <= r.last)) return false;
    if (t < r.first) continue;
    point_at(r, t, p);
    float place[3];
    int cell[3];
    if (!find_cell(v, p, place, cell)) continue;
    if (!bits || (bits[brick_index(v, cell)] >> bit_in_brick(cell) & 1)) return true;
  }
}

}  // namespace avatar3d
