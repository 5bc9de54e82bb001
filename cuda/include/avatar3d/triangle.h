// One triangle on the pixel grid: edge functions and perspective-correct barycentrics.
#pragma once

#include "common.h"

namespace avatar3d {

struct Triangle {
  // lambda_i / z_i at pixel centre (x, y) = gx[i] x + gy[i] y + g0[i], with lambda screen-space
  // barycentrics that are 1 at vertex i; computed about the first vertex.
  double x0, y0;
  double lx[3], ly[3], l0[3];
  double inv_z[3];
  bool visible;
};

// p: three vertices of (pixel x, pixel y, camera z). A triangle with a vertex at or behind the
// camera plane, of no area, or not finite is not visible. Both windings are drawn.
A3D_HD Triangle make_triangle(const float* a, const float* b, const float* c) {
  Triangle t;
  const double bx = (double)b[0] - a[0], by = (double)b[1] - a[1];
  const double cx = (double)c[0] - a[0], cy = (double)c[1] - a[1];
  const double area = bx * cy - by * cx;
  t.visible = a[2] > 0 && b[2] > 0 && c[2] > 0 && a[2] < 1e30f && b[2] < 1e30f && c[2] < 1e30f &&
              area - area == 0 && area != 0;
  const double inv = t.visible ? 1.0 / area : 0.0;
  t.x0 = a[0], t.y0 = a[1];
  t.lx[1] = cy * inv, t.ly[1] = -cx * inv, t.l0[1] = 0;
  t.lx[2] = -by * inv, t.ly[2] = bx * inv, t.l0[2] = 0;
  t.lx[0] = -t.lx[1] - t.lx[2], t.ly[0] = -t.ly[1] - t.ly[2], t.l0[0] = 1;
  t.inv_z[0] = 1.0 / a[2], t.inv_z[1] = 1.0 / b[2], t.inv_z[2] = 1.0 / c[2];
  return t;
}

// Screen-space barycentrics at (x, y); true when the point is inside or on an edge.
A3D_HD bool cover(const Triangle& t, double x, double y, double lambda[3]) {
  x -= t.x0, y -= t.y0;
  for (int i = 0; i < 3; i++) lambda[i] = t.lx[i] * x + t.ly[i] * y + t.l0[i];
  return lambda[0] >= 0 && lambda[1] >= 0 && lambda[2] >= 0;
}

// Turns screen-space barycentrics into perspective-correct ones; returns the depth.
A3D_HD double to_perspective(const Triangle& t, double lambda[3]) {
  double total = 0;
  for (int i = 0; i < 3; i++) {
    lambda[i] *= t.inv_z[i];
    total += lambda[i];
  }
  const double depth = 1.0 / total;
  for (int i = 0; i < 3; i++) lambda[i] *= depth;
  return depth;
}

}  // namespace avatar3d
