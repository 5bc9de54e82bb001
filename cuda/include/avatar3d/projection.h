// One Gaussian to its footprint on the image and back: classic EWA splatting with gsplat's
// conventions (quaternions wxyz, OpenCV camera, covariance blur eps2d, frustum clamp of 1.3 / 2).
#pragma once

#include "common.h"

namespace avatar3d {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kMinAlpha = 1.0f / 255.0f;
constexpr float kLog2MinAlpha = -7.994353436858858f;
constexpr float kMaxAlpha = 0.999f;
constexpr float kLog2MaxAlpha = -0.0014434168696687f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kNear = 0.01f;
constexpr float kFar = 1e10f;
constexpr float kEps2d = 0.3f;
// Footprints wider than 1e9 pixels overflow float arithmetic and are dropped, as NaN and Inf are.
constexpr float kMaxVariance = 1e18f;

struct PinholeCamera {
  float r[9];  // world to camera rotation, row major
  float t[3];
  float fx, fy, cx, cy;
  float width, height;
  float min_x, max_x, min_y, max_y;  // clamp of x/z and y/z inside the Jacobian
};

template <class F>
struct Gaussian {
  F mean[3];
  F quat[4];
  F scale[3];
};

template <class F>
struct Footprint {
  F x, y;           // centre, pixels
  F depth;          // camera z
  F cxx, cxy, cyy;  // 2D covariance with blur, pixels^2
  F det;
};

template <class F>
struct GaussianGradient {
  F mean[3];
  F quat[4];
  F scale[3];
  F r[9];  // of the camera
  F t[3];
};

template <class F>
struct CovarianceFrame {
  F q[4];      // unit quaternion, or zero
  F inv_norm;  // zero for a zero quaternion
  F rot[9];
};

template <class F>
A3D_HD void rotation_of(const F quat[4], CovarianceFrame<F>& f) {
  const F n2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  // torch.nn.functional.normalize turns a zero quaternion into zero, whose matrix is the identity.
  const F safe = select(n2 > F(1e-24f), n2, F(1.0f));
  f.inv_norm = select(n2 > F(1e-24f), F(1.0f) / sqrt_of(safe), F(0.0f));
  const F w = quat[0] * f.inv_norm, x = quat[1] * f.inv_norm;
  const F y = quat[2] * f.inv_norm, z = quat[3] * f.inv_norm;
  f.q[0] = w, f.q[1] = x, f.q[2] = y, f.q[3] = z;
  const F one(1.0f), two(2.0f);
  f.rot[0] = one - two * (y * y + z * z), f.rot[1] = two * (x * y - w * z);
  f.rot[2] = two * (x * z + w * y), f.rot[3] = two * (x * y + w * z);
  f.rot[4] = one - two * (x * x + z * z), f.rot[5] = two * (y * z - w * x);
  f.rot[6] = two * (x * z - w * y), f.rot[7] = two * (y * z + w * x);
  f.rot[8] = one - two * (x * x + y * y);
}

template <class F>
A3D_HD void to_camera(const PinholeCamera& c, const F m[3], F p[3]) {
  p[0] = F(c.r[0]) * m[0] + F(c.r[1]) * m[1] + F(c.r[2]) * m[2] + F(c.t[0]);
  p[1] = F(c.r[3]) * m[0] + F(c.r[4]) * m[1] + F(c.r[5]) * m[2] + F(c.t[1]);
  p[2] = F(c.r[6]) * m[0] + F(c.r[7]) * m[1] + F(c.r[8]) * m[2] + F(c.t[2]);
}

template <class F>
struct ProjectionJacobian {
  F rz, tx, ty;          // 1/z and the clamped x/z, y/z
  F j00, j02, j11, j12;  // the non-zero entries of the 2x3 Jacobian
  F a[6];                // J R_camera, 2x3
};

template <class F>
A3D_HD void jacobian_of(const PinholeCamera& c, const F p[3], ProjectionJacobian<F>& j) {
  j.rz = F(1.0f) / p[2];
  j.tx = min_of(max_of(p[0] * j.rz, F(c.min_x)), F(c.max_x));
  j.ty = min_of(max_of(p[1] * j.rz, F(c.min_y)), F(c.max_y));
  j.j00 = F(c.fx) * j.rz, j.j02 = F(-c.fx) * j.tx * j.rz;
  j.j11 = F(c.fy) * j.rz, j.j12 = F(-c.fy) * j.ty * j.rz;
  for (int k = 0; k < 3; k++) {
    j.a[k] = j.j00 * F(c.r[k]) + j.j02 * F(c.r[6 + k]);
    j.a[3 + k] = j.j11 * F(c.r[3 + k]) + j.j12 * F(c.r[6 + k]);
  }
}

// U = J R_camera R_gaussian diag(scale), 2x3; the covariance is U U^T + eps2d I.
template <class F>
A3D_HD void factor_of(const ProjectionJacobian<F>& j, const CovarianceFrame<F>& f, const F scale[3],
                      F u[6]) {
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 3; k++)
      u[3 * i + k] =
          (j.a[3 * i] * f.rot[k] + j.a[3 * i + 1] * f.rot[3 + k] + j.a[3 * i + 2] * f.rot[6 + k]) *
          scale[k];
}

template <class F>
A3D_HD void covariance_of(const F u[6], F& cxx, F& cxy, F& cyy, F& det) {
  const F eps(kEps2d);
  const F uu = u[0] * u[0] + u[1] * u[1] + u[2] * u[2];
  const F vv = u[3] * u[3] + u[4] * u[4] + u[5] * u[5];
  cxx = uu + eps, cyy = vv + eps;
  cxy = u[0] * u[3] + u[1] * u[4] + u[2] * u[5];
  // det(U U^T) = |u x v|^2 (Cauchy-Binet): needles do not cancel as they do in cxx cyy - cxy^2.
  const F c0 = u[1] * u[5] - u[2] * u[4];
  const F c1 = u[2] * u[3] - u[0] * u[5];
  const F c2 = u[0] * u[4] - u[1] * u[3];
  det = c0 * c0 + c1 * c1 + c2 * c2 + eps * (uu + vv) + eps * eps;
}

template <class F>
A3D_HD Footprint<F> project(const PinholeCamera& camera, const Gaussian<F>& g) {
  F p[3], u[6];
  CovarianceFrame<F> f;
  ProjectionJacobian<F> j;
  to_camera(camera, g.mean, p);
  rotation_of(g.quat, f);
  jacobian_of(camera, p, j);
  factor_of(j, f, g.scale, u);
  Footprint<F> s;
  covariance_of(u, s.cxx, s.cxy, s.cyy, s.det);
  s.x = F(camera.fx) * p[0] * j.rz + F(camera.cx);
  s.y = F(camera.fy) * p[1] * j.rz + F(camera.cy);
  s.depth = p[2];
  return s;
}

// (A, B, C) = the conic, v its gradient: g = the symmetric gradient at the covariance, -X V X.
template <class F>
A3D_HD void conic_backward(F A, F B, F C, const F v[3], F g[3]) {
  const F v01 = F(0.5f) * v[1];
  const F e00 = A * v[0] + B * v01, e01 = A * v01 + B * v[2];
  const F e10 = B * v[0] + C * v01, e11 = B * v01 + C * v[2];
  g[0] = F(0.0f) - (e00 * A + e01 * B);
  g[1] = F(0.0f) - (e00 * B + e01 * C);
  g[2] = F(0.0f) - (e10 * B + e11 * C);
}

template <class F>
A3D_HD void quaternion_backward(const CovarianceFrame<F>& f, const F d[9], F out[4]) {
  const F w = f.q[0], x = f.q[1], y = f.q[2], z = f.q[3], two(2.0f);
  const F hw = two * (x * (d[7] - d[5]) + y * (d[2] - d[6]) + z * (d[3] - d[1]));
  const F hx =
      two * (y * (d[3] + d[1]) + z * (d[6] + d[2]) + w * (d[7] - d[5]) - two * x * (d[4] + d[8]));
  const F hy =
      two * (x * (d[3] + d[1]) + z * (d[7] + d[5]) + w * (d[2] - d[6]) - two * y * (d[0] + d[8]));
  const F hz =
      two * (x * (d[6] + d[2]) + y * (d[7] + d[5]) + w * (d[3] - d[1]) - two * z * (d[0] + d[4]));
  const F along = hw * w + hx * x + hy * y + hz * z;  // the normalisation removes this part
  out[0] = (hw - along * w) * f.inv_norm, out[1] = (hx - along * x) * f.inv_norm;
  out[2] = (hy - along * y) * f.inv_norm, out[3] = (hz - along * z) * f.inv_norm;
}

// Gradient at the camera-space point, from those at the projected centre and at J R_camera (da).
template <class F>
A3D_HD void point_backward(const PinholeCamera& c, const ProjectionJacobian<F>& j, const F p[3],
                           const F v_mean2d[2], const F da[6], F dp[3]) {
  const float* r = c.r;
  const F dj00 = da[0] * F(r[0]) + da[1] * F(r[1]) + da[2] * F(r[2]);
  const F dj02 = da[0] * F(r[6]) + da[1] * F(r[7]) + da[2] * F(r[8]);
  const F dj11 = da[3] * F(r[3]) + da[4] * F(r[4]) + da[5] * F(r[5]);
  const F dj12 = da[3] * F(r[6]) + da[4] * F(r[7]) + da[5] * F(r[8]);
  const F px = p[0] * j.rz, py = p[1] * j.rz, one(1.0f), zero(0.0f);
  const F in_x = select((px >= F(c.min_x)) & (px <= F(c.max_x)), one, zero);
  const F in_y = select((py >= F(c.min_y)) & (py <= F(c.max_y)), one, zero);
  const F fx = F(c.fx) * j.rz, fy = F(c.fy) * j.rz;
  dp[0] = fx * (v_mean2d[0] - in_x * j.rz * dj02);
  dp[1] = fy * (v_mean2d[1] - in_y * j.rz * dj12);
  // j02 = -fx tx / z: through 1/z always, through tx = x/z only where it is not clamped
  dp[2] = fx * (((one + in_x) * j.tx * dj02 - dj00) * j.rz - px * v_mean2d[0]) +
          fy * (((one + in_y) * j.ty * dj12 - dj11) * j.rz - py * v_mean2d[1]);
}

// v_mean2d: gradient at the centre; v_conic: at (A, B, C) of sigma = (A dx^2 + C dy^2) / 2 + B dx
// dy; v_depth: at the camera z.
template <class F>
A3D_HD void project_backward(const PinholeCamera& camera, const Gaussian<F>& g, const F v_mean2d[2],
                             const F v_conic[3], F v_depth, GaussianGradient<F>& out) {
  F p[3], u[6], cxx, cxy, cyy, det, dcov[3];
  CovarianceFrame<F> f;
  ProjectionJacobian<F> j;
  to_camera(camera, g.mean, p);
  rotation_of(g.quat, f);
  jacobian_of(camera, p, j);
  factor_of(j, f, g.scale, u);
  covariance_of(u, cxx, cxy, cyy, det);
  const F inv = F(1.0f) / det;
  conic_backward(cyy * inv, F(0.0f) - cxy * inv, cxx * inv, v_conic, dcov);
  F du[6];
  for (int k = 0; k < 3; k++) {
    du[k] = F(2.0f) * (dcov[0] * u[k] + dcov[1] * u[3 + k]);
    du[3 + k] = F(2.0f) * (dcov[1] * u[k] + dcov[2] * u[3 + k]);
  }

  // U = a M, M = rot diag(scale): dM = a^T dU, da = dU M^T
  F dm[9], da[6], dp[3];
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < 3; k++) dm[3 * i + k] = j.a[i] * du[k] + j.a[3 + i] * du[3 + k];
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 3; k++)
      da[3 * i + k] = du[3 * i] * f.rot[3 * k] * g.scale[0] +
                      du[3 * i + 1] * f.rot[3 * k + 1] * g.scale[1] +
                      du[3 * i + 2] * f.rot[3 * k + 2] * g.scale[2];
  for (int k = 0; k < 3; k++) {
    out.scale[k] = f.rot[k] * dm[k] + f.rot[3 + k] * dm[3 + k] + f.rot[6 + k] * dm[6 + k];
    dm[k] = dm[k] * g.scale[k];
    dm[3 + k] = dm[3 + k] * g.scale[k];
    dm[6 + k] = dm[6 + k] * g.scale[k];
  }
  quaternion_backward(f, dm, out.quat);
  point_backward(camera, j, p, v_mean2d, da, dp);
  dp[2] = dp[2] + v_depth;
  const float* r = camera.r;
  for (int k = 0; k < 3; k++) {
    out.mean[k] = F(r[k]) * dp[0] + F(r[3 + k]) * dp[1] + F(r[6 + k]) * dp[2];
    out.t[k] = dp[k];
    out.r[k] = dp[0] * g.mean[k] + j.j00 * da[k];
    out.r[3 + k] = dp[1] * g.mean[k] + j.j11 * da[3 + k];
    out.r[6 + k] = dp[2] * g.mean[k] + j.j02 * da[k] + j.j12 * da[3 + k];
  }
}

}  // namespace avatar3d
