// Rotations for Gaussians that ride on a mesh: triangle frames, quaternions, skinning.
#pragma once

#include "common.h"

namespace avatar3d {

template <class F>
A3D_HD F dot3(const F a[3], const F b[3]) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <class F>
A3D_HD void cross3(const F a[3], const F b[3], F out[3]) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

// Divides by the length, or by 1e-12 if that is larger, as torch.nn.functional.normalize does.
template <class F>
A3D_HD void normalize3(F v[3]) {
  const F inv = F(1.0f) / max_of(sqrt_of(dot3(v, v)), F(1e-12f));
  for (int k = 0; k < 3; k++) v[k] = v[k] * inv;
}

// Rotation of a triangle, row major: columns are the first edge, normal x edge, normal.
template <class F>
A3D_HD void triangle_frame(const F a[3], const F b[3], const F c[3], F rot[9]) {
  F u[3], v[3], n[3], e[3];
  for (int k = 0; k < 3; k++) u[k] = b[k] - a[k], v[k] = c[k] - a[k];
  normalize3(u);
  cross3(u, v, n);
  normalize3(n);
  cross3(n, u, e);
  for (int k = 0; k < 3; k++) rot[3 * k] = u[k], rot[3 * k + 1] = e[k], rot[3 * k + 2] = n[k];
}

// Unit quaternion wxyz with w >= 0: Shepperd's method, the best conditioned of four candidates.
template <class F>
A3D_HD void quaternion_of(const F m[9], F q[4]) {
  const F one(1.0f);
  const F candidates[4][4] = {{one + m[0] + m[4] + m[8], m[7] - m[5], m[2] - m[6], m[3] - m[1]},
                              {m[7] - m[5], one + m[0] - m[4] - m[8], m[1] + m[3], m[2] + m[6]},
                              {m[2] - m[6], m[1] + m[3], one - m[0] + m[4] - m[8], m[5] + m[7]},
                              {m[3] - m[1], m[2] + m[6], m[5] + m[7], one - m[0] - m[4] + m[8]}};
  F best = candidates[0][0];
  for (int k = 0; k < 4; k++) q[k] = candidates[0][k];
  for (int i = 1; i < 4; i++) {
    const auto better = candidates[i][i] > best;
    best = select(better, candidates[i][i], best);
    for (int k = 0; k < 4; k++) q[k] = select(better, candidates[i][k], q[k]);
  }
  F inv = one / sqrt_of(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  inv = select(q[0] < F(0.0f), F(0.0f) - inv, inv);
  for (int k = 0; k < 4; k++) q[k] = q[k] * inv;
}

template <class F>
A3D_HD void multiply_quaternions(const F a[4], const F b[4], F out[4]) {
  out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
  out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2];
  out[2] = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1];
  out[3] = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0];
}

// conj(a) b: what a product a x sends back to x from the gradient b, for a unit a.
template <class F>
A3D_HD void multiply_conjugate(const F a[4], const F b[4], F out[4]) {
  const F zero(0.0f);
  const F c[4] = {a[0], zero - a[1], zero - a[2], zero - a[3]};
  multiply_quaternions(c, b, out);
}

struct RigidTransform {
  float r[9];
  float t[3];
  float quat[4];
};

A3D_HD RigidTransform rigid_of(const float m[16]) {
  RigidTransform t;
  for (int i = 0; i < 3; i++) {
    for (int k = 0; k < 3; k++) t.r[3 * i + k] = m[4 * i + k];
    t.t[i] = m[4 * i + 3];
  }
  quaternion_of(t.r, t.quat);
  return t;
}

template <class F>
A3D_HD void apply_rigid(const RigidTransform& t, const F p[3], F out[3]) {
  for (int i = 0; i < 3; i++)
    out[i] = F(t.r[3 * i]) * p[0] + F(t.r[3 * i + 1]) * p[1] + F(t.r[3 * i + 2]) * p[2] + F(t.t[i]);
}

template <class F>
A3D_HD void rotate_back(const RigidTransform& t, const F v[3], F out[3]) {
  for (int i = 0; i < 3; i++)
    out[i] = F(t.r[i]) * v[0] + F(t.r[3 + i]) * v[1] + F(t.r[6 + i]) * v[2];
}

}  // namespace avatar3d
