// A field of displacements, trilinear in the nodes of a coarse lattice and of a finer one inside of
// it, and its inverse. See avatar3d/kernels/warp.py.
#pragma once

#include "common.h"

namespace avatar3d {

// Nodes on the faces of a box and regularly in between, x fastest. Four numbers each, of which the
// last is not used: they are read together.
struct Lattice {
  const float* nodes;  // (F, nz, ny, nx, 4); null for none
  float low[3];        // the lower corner, metres
  float scale[3];      // nodes a metre
  int size[3];         // nodes in x, y, z
};

struct WarpField {
  Lattice coarse, fine;  // the fine one adds nothing outside of its box
};

A3D_HD long long lattice_nodes(const Lattice& l) {
  return (long long)l.size[0] * l.size[1] * l.size[2];
}

// Adds the displacement at p to u. Outside of the box: that of the nearest point, or if it fades,
// nothing. NaN counts as the lower corner.
A3D_HD void add_displacement(const Lattice& l, int frame, const float p[3], bool fades,
                             float u[3]) {
  float part[3];
  int corner[3];
  bool inside = true;
  for (int k = 0; k < 3; k++) {
    const float last = (float)(l.size[k] - 1), place = (p[k] - l.low[k]) * l.scale[k];
    inside = inside & (place >= 0.0f) & (place <= last);
    const float within = min_of(max_of(place, 0.0f), last);
    corner[k] = (int)min_of(within, last - 1.0f);
    part[k] = within - (float)corner[k];
  }
  if (fades && !inside) return;
  const int row = 4 * l.size[0], slice = row * l.size[1];
  const float* n = l.nodes + 4 * (frame * lattice_nodes(l)) + (long long)corner[2] * slice +
                   corner[1] * row + 4 * corner[0];
  for (int k = 0; k < 3; k++) {
    float along[2];
    for (int i = 0; i < 2; i++) {
      const float* a = n + 4 * i + k;
      const float near = a[0] + part[1] * (a[row] - a[0]);
      const float far = a[slice] + part[1] * (a[slice + row] - a[slice]);
      along[i] = near + part[2] * (far - near);
    }
    u[k] += along[0] + part[0] * (along[1] - along[0]);
  }
}

A3D_HD void displacement(const WarpField& w, int frame, const float p[3], float u[3]) {
  u[0] = u[1] = u[2] = 0.0f;
  add_displacement(w.coarse, frame, p, false, u);
  if (w.fine.nodes) add_displacement(w.fine, frame, p, true, u);
}

constexpr int kWarpEvaluations = 10;
constexpr float kWarpTolerance = 2e-5f;  // metres, of the residual that ends the iteration

// The search for the c with c + u(c) = x: fixed point iteration from c = x with Aitken's
// relaxation, since where lips part u changes faster than c does and plain iteration runs away.
template <class F>
struct WarpSearch {
  F c[3], before[3], relaxation;
};

// One step, given u at the current c; returns the squared residual that c had.
template <class F>
A3D_HD F search_step(const F x[3], const F u[3], bool first, WarpSearch<F>& s) {
  F along(0.0f), change(0.0f), size(0.0f), r[3];
  for (int k = 0; k < 3; k++) {
    r[k] = x[k] - s.c[k] - u[k];
    size = size + r[k] * r[k];
  }
  if (!first) {
    for (int k = 0; k < 3; k++) {
      const F d = r[k] - s.before[k];
      along = along + s.before[k] * d, change = change + d * d;
    }
    const F wanted = F(0.0f) - s.relaxation * along / max_of(change, F(1e-20f));
    s.relaxation = min_of(max_of(wanted, F(0.1f)), F(1.0f));
  }
  // once it has arrived, rounding alone would decide about the relaxation
  const F pace = select(size > F(kWarpTolerance * kWarpTolerance), s.relaxation, F(0.0f));
  for (int k = 0; k < 3; k++) {
    s.c[k] = s.c[k] + pace * r[k];
    s.before[k] = r[k];
  }
  return size;
}

}  // namespace avatar3d
