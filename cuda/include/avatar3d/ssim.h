// Structural similarity at one point from its windowed moments, and its derivatives.
#pragma once

#include "common.h"

namespace avatar3d {

constexpr int kSsimRadius = 5;
constexpr int kSsimTaps = 2 * kSsimRadius + 1;
constexpr float kSsimC1 = 1e-4f;
constexpr float kSsimC2 = 9e-4f;

// exp(-k^2 / (2 1.5^2)) for k = -5..5, normalised to sum 1
A3D_CONSTANT float kSsimWindow[kSsimTaps] = {
    0.00102838008447911f, 0.00759875813523919f, 0.03600077212843083f, 0.10936068950970002f,
    0.21300553771125370f, 0.26601172486179436f, 0.21300553771125370f, 0.10936068950970002f,
    0.03600077212843083f, 0.00759875813523919f, 0.00102838008447911f};

template <class F>
struct SsimPoint {
  F value;
  F d_mean;     // d value / d E[x]
  F d_squares;  // d value / d E[x^2 + y^2]
  F d_product;  // d value / d E[x y]
};

// mx, my: windowed means; q: E[x^2 + y^2]; p: E[x y]
template <class F>
A3D_HD SsimPoint<F> ssim_point(F mx, F my, F q, F p) {
  const F two(2.0f), c1(kSsimC1), c2(kSsimC2);
  const F mm = mx * mx + my * my, xy = mx * my;
  const F a = two * xy + c1, b = two * (p - xy) + c2;
  const F c = mm + c1, d = (q - mm) + c2;
  const F inv = F(1.0f) / (c * d);
  SsimPoint<F> s;
  s.value = a * b * inv;
  s.d_product = two * a * inv;
  s.d_squares = F(0.0f) - s.value * c * inv;  // -value / d
  // a, b, c and d all move with mx
  s.d_mean = two * inv * (my * (b - a) + mx * s.value * (c - d));
  return s;
}

}  // namespace avatar3d
