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

struct Gaussian {
  float mean[3];
  float quat[4];
  float scale[3];
};

struct Footprint {
  float x, y;           // centre, pixels
  float depth;          // camera z
  float cxx, cxy, cyy;  // 2D covariance with blur, pixels^2
  float det;
};

struct GaussianGradient {
  float mean[3];
  float quat[4];
  float scale[3];
  float r[9];  // of the camera
  float t[3];
};

struct CovarianceFrame {
  float q[4];      // unit quaternion, or zero
  float inv_norm;  // zero for a zero quaternion
  float rot[9];
};

A3D_HD void rotation_of(const float quat[4], CovarianceFrame& f) {
  const float n2 =
      quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  // torch.nn.functional.normalize turns a zero quaternion into zero, whose matrix is the identity.
  const float safe = n2 > 1e-24f ? n2 : 1.0f;
  f.inv_norm = n2 > 1e-24f ? 1.0f / sqrtf(safe) : 0.0f;
  const float w = quat[0] * f.inv_norm, x = quat[1] * f.inv_norm;
  const float y = quat[2] * f.inv_norm, z = quat[3] * f.inv_norm;
  f.q[0] = w, f.q[1] = x, f.q[2] = y, f.q[3] = z;
  f.rot[0] = 1 - 2 * (y * y + z * z), f.rot[1] = 2 * (x * y - w * z);
  f.rot[2] = 2 * (x * z + w * y), f.rot[3] = 2 * (x * y + w * z);
  f.rot[4] = 1 - 2 * (x * x + z * z), f.rot[5] = 2 * (y * z - w * x);
  f.rot[6] = 2 * (x * z - w * y), f.rot[7] = 2 * (y * z + w * x);
  f.rot[8] = 1 - 2 * (x * x + y * y);
}

A3D_HD void to_camera(const PinholeCamera& c, const float m[3], float p[3]) {
  p[0] = c.r[0] * m[0] + c.r[1] * m[1] + c.r[2] * m[2] + c.t[0];
  p[1] = c.r[3] * m[0] + c.r[4] * m[1] + c.r[5] * m[2] + c.t[1];
  p[2] = c.r[6] * m[0] + c.r[7] * m[1] + c.r[8] * m[2] + c.t[2];
}

struct ProjectionJacobian {
  float rz, tx, ty;          // 1/z and the clamped x/z, y/z
  float j00, j02, j11, j12;  // the non-zero entries of the 2x3 Jacobian
  float a[6];                // J R_camera, 2x3
};

A3D_HD void jacobian_of(const PinholeCamera& c, const float p[3], ProjectionJacobian& j) {
  j.rz = 1.0f / p[2];
  j.tx = min_of(max_of(p[0] * j.rz, c.min_x), c.max_x);
  j.ty = min_of(max_of(p[1] * j.rz, c.min_y), c.max_y);
  j.j00 = c.fx * j.rz, j.j02 = -c.fx * j.tx * j.rz;
  j.j11 = c.fy * j.rz, j.j12 = -c.fy * j.ty * j.rz;
  for (int k = 0; k < 3; k++) {
    j.a[k] = j.j00 * c.r[k] + j.j02 * c.r[6 + k];
    j.a[3 + k] = j.j11 * c.r[3 + k] + j.j12 * c.r[6 + k];
  }
}

// U = J R_camera R_gaussian diag(scale), 2x3; the covariance is U U^T + eps2d I.
A3D_HD void factor_of(const ProjectionJacobian& j, const CovarianceFrame& f, const float scale[3],
                      float u[6]) {
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 3; k++)
      u[3 * i + k] = (j.a[3 * i] * f.rot[k] + j.a[3 * i + 1] * f.rot[3 + k] +
                      j.a[3 * i + 2] * f.rot[6 + k]) *
                     scale[k];
}

A3D_HD Footprint project(const PinholeCamera& camera, const Gaussian& g) {
  float p[3], u[6];
  CovarianceFrame f;
  ProjectionJacobian j;
  to_camera(camera, g.mean, p);
  rotation_of(g.quat, f);
  jacobian_of(camera, p, j);
  factor_of(j, f, g.scale, u);
  Footprint s;
  const float uu = u[0] * u[0] + u[1] * u[1] + u[2] * u[2];
  const float vv = u[3] * u[3] + u[4] * u[4] + u[5] * u[5];
  s.cxx = uu + kEps2d;
  s.cyy = vv + kEps2d;
  s.cxy = u[0] * u[3] + u[1] * u[4] + u[2] * u[5];
  // det(U U^T) = |u x v|^2 (Cauchy-Binet): needles do not cancel as they do in cxx cyy - cxy^2.
  const float c0 = u[1] * u[5] - u[2] * u[4];
  const float c1 = u[2] * u[3] - u[0] * u[5];
  const float c2 = u[0] * u[4] - u[1] * u[3];
  s.det = c0 * c0 + c1 * c1 + c2 * c2 + kEps2d * (uu + vv) + kEps2d * kEps2d;
  s.x = camera.fx * p[0] * j.rz + camera.cx;
  s.y = camera.fy * p[1] * j.rz + camera.cy;
  s.depth = p[2];
  return s;
}

// v_mean2d: gradient at the centre; v_conic: at (A, B, C) of sigma = (A dx^2 + C dy^2) / 2 + B dx dy.
A3D_HD void project_backward(const PinholeCamera& camera, const Gaussian& g,
                             const float v_mean2d[2], const float v_conic[3],
                             GaussianGradient& out) {
  float p[3], u[6];
  CovarianceFrame f;
  ProjectionJacobian j;
  to_camera(camera, g.mean, p);
  rotation_of(g.quat, f);
  jacobian_of(camera, p, j);
  factor_of(j, f, g.scale, u);
  const float uu = u[0] * u[0] + u[1] * u[1] + u[2] * u[2];
  const float vv = u[3] * u[3] + u[4] * u[4] + u[5] * u[5];
  const float uv = u[0] * u[3] + u[1] * u[4] + u[2] * u[5];
  const float c0 = u[1] * u[5] - u[2] * u[4];
  const float c1 = u[2] * u[3] - u[0] * u[5];
  const float c2 = u[0] * u[4] - u[1] * u[3];
  const float det = c0 * c0 + c1 * c1 + c2 * c2 + kEps2d * (uu + vv) + kEps2d * kEps2d;
  const float inv = 1.0f / det;
  const float A = (vv + kEps2d) * inv, B = -uv * inv, C = (uu + kEps2d) * inv;

  // d covariance = -X V X with X the conic and V the symmetric gradient at X
  const float v00 = v_conic[0], v01 = 0.5f * v_conic[1], v11 = v_conic[2];
  const float e00 = A * v00 + B * v01, e01 = A * v01 + B * v11;
  const float e10 = B * v00 + C * v01, e11 = B * v01 + C * v11;
  const float g00 = -(e00 * A + e01 * B), g01 = -(e00 * B + e01 * C);
  const float g11 = -(e10 * B + e11 * C);
  float du[6];
  for (int k = 0; k < 3; k++) {
    du[k] = 2 * (g00 * u[k] + g01 * u[3 + k]);
    du[3 + k] = 2 * (g01 * u[k] + g11 * u[3 + k]);
  }

  // U = a M, M = rot diag(scale): dM = a^T dU, da = dU M^T
  float dm[9], da[6];
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < 3; k++) dm[3 * i + k] = j.a[i] * du[k] + j.a[3 + i] * du[3 + k];
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 3; k++)
      da[3 * i + k] = du[3 * i] * f.rot[3 * k] * g.scale[0] +
                      du[3 * i + 1] * f.rot[3 * k + 1] * g.scale[1] +
                      du[3 * i + 2] * f.rot[3 * k + 2] * g.scale[2];
  for (int k = 0; k < 3; k++) {
    out.scale[k] =
        f.rot[k] * dm[k] + f.rot[3 + k] * dm[3 + k] + f.rot[6 + k] * dm[6 + k];
    dm[k] *= g.scale[k], dm[3 + k] *= g.scale[k], dm[6 + k] *= g.scale[k];
  }

  // a = J R_camera
  const float* r = camera.r;
  const float dj00 = da[0] * r[0] + da[1] * r[1] + da[2] * r[2];
  const float dj02 = da[0] * r[6] + da[1] * r[7] + da[2] * r[8];
  const float dj11 = da[3] * r[3] + da[4] * r[4] + da[5] * r[5];
  const float dj12 = da[3] * r[6] + da[4] * r[7] + da[5] * r[8];
  const float px = p[0] * j.rz, py = p[1] * j.rz, rz2 = j.rz * j.rz;
  const float in_x = (px >= camera.min_x) & (px <= camera.max_x) ? 1.0f : 0.0f;
  const float in_y = (py >= camera.min_y) & (py <= camera.max_y) ? 1.0f : 0.0f;
  float dp[3];
  dp[0] = camera.fx * j.rz * v_mean2d[0] - in_x * camera.fx * rz2 * dj02;
  dp[1] = camera.fy * j.rz * v_mean2d[1] - in_y * camera.fy * rz2 * dj12;
  // j02 = -fx tx / z: through 1/z always, through tx = x/z only where it is not clamped
  dp[2] = -camera.fx * px * j.rz * v_mean2d[0] - camera.fy * py * j.rz * v_mean2d[1] -
          camera.fx * rz2 * dj00 - camera.fy * rz2 * dj11 +
          (1.0f + in_x) * camera.fx * j.tx * rz2 * dj02 +
          (1.0f + in_y) * camera.fy * j.ty * rz2 * dj12;
  for (int k = 0; k < 3; k++) {
    out.mean[k] = r[k] * dp[0] + r[3 + k] * dp[1] + r[6 + k] * dp[2];
    out.t[k] = dp[k];
    out.r[k] = dp[0] * g.mean[k] + j.j00 * da[k];
    out.r[3 + k] = dp[1] * g.mean[k] + j.j11 * da[3 + k];
    out.r[6 + k] = dp[2] * g.mean[k] + j.j02 * da[k] + j.j12 * da[3 + k];
  }

  const float w = f.q[0], x = f.q[1], y = f.q[2], z = f.q[3];
  const float hw = 2 * (x * (dm[7] - dm[5]) + y * (dm[2] - dm[6]) + z * (dm[3] - dm[1]));
  const float hx = 2 * (-2 * x * (dm[4] + dm[8]) + y * (dm[3] + dm[1]) + z * (dm[6] + dm[2]) +
                        w * (dm[7] - dm[5]));
  const float hy = 2 * (x * (dm[3] + dm[1]) - 2 * y * (dm[0] + dm[8]) + z * (dm[7] + dm[5]) +
                        w * (dm[2] - dm[6]));
  const float hz = 2 * (x * (dm[6] + dm[2]) + y * (dm[7] + dm[5]) - 2 * z * (dm[0] + dm[4]) +
                        w * (dm[3] - dm[1]));
  const float along = hw * w + hx * x + hy * y + hz * z;
  out.quat[0] = (hw - along * w) * f.inv_norm, out.quat[1] = (hx - along * x) * f.inv_norm;
  out.quat[2] = (hy - along * y) * f.inv_norm, out.quat[3] = (hz - along * z) * f.inv_norm;
}

}  // namespace avatar3d
