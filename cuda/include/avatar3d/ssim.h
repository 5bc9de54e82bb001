// Structural similarity at one point from its windowed moments, and its derivatives.
#pragma once

#include "common.h"

namespace avatar3d {

constexpr int kSsimRadius = 5;
constexpr int kSsimTaps = 2 * kSsimRadius + 1;
constexpr float kSsimC1 = 1e-4f;
constexpr float kSsimC2 = 9e-4f;

// exp(-k^2 / (2 1.5^2)) for k = -5..5, normalised to sum 1
constexpr float kSsimWindow[kSsimTaps] = {
    0.00102838008447911f, 0.00759875813523919f, 0.03600077212843083f, 0.10936068950970002f,
    0.21300553771125370f, 0.26601172486179436f, 0.21300553771125370f, 0.10936068950970002f,
    0.03600077212843083f, 0.00759875813523919f, 0.00102838008447911f};

struct SsimPoint {
  float value;
  float d_mean;     // d value / d E[x]
  float d_squares;  // d value / d E[x^2 + y^2]
  float d_product;  // d value / d E[x y]
};

// mx, my: windowed means; q: E[x^2 + y^2]; p: E[x y]
A3D_HD SsimPoint ssim_point(float mx, float my, float q, float p) {
  const float mm = mx * mx + my * my, xy = mx * my;
  const float a = 2 * xy + kSsimC1, b = 2 * (p - xy) + kSsimC2;
  const float c = mm + kSsimC1, d = (q - mm) + kSsimC2;
  const float inv = 1.0f / (c * d);
  SsimPoint s;
  s.value = a * b * inv;
  s.d_product = 2 * a * inv;
  s.d_squares = -s.value * c * inv;  // -value / d
  // a, b, c and d all move with mx
  s.d_mean = 2 * my * (b - a) * inv + 2 * mx * s.value * (c - d) * inv;
  return s;
}

}  // namespace avatar3d
