// Volume rendering of the samples of one ray, forward and backward. See
// avatar3d/kernels/composite.py.
#pragma once

#include "common.h"

namespace avatar3d {

constexpr float kStopTransmittance = 1e-4f;

// Sums over the samples so far. Distances count from the first sample, which keeps their digits.
struct RaySums {
  float transmittance = 1.0f;
  float color[3] = {0.0f, 0.0f, 0.0f};
  float mass = 0.0f, moment = 0.0f;  // of w and w t
  float distortion = 0.0f;
};

// Whether a sample's colour can be used: not NaN, not infinite.
A3D_HD bool is_finite_color(const float c[3]) {
  const float sum = c[0] * 0.0f + c[1] * 0.0f + c[2] * 0.0f;
  return sum == 0.0f;
}

// `kept` of the light passes the sample. Returns its weight.
A3D_HD float add_sample(RaySums& s, float kept, const float color[3], float t, float dt) {
  const float w = s.transmittance * (1.0f - kept);
  for (int k = 0; k < 3; k++) s.color[k] += w * color[k];
  s.distortion += w * (2.0f * (t * s.mass - s.moment) + w * dt * (1.0f / 3.0f));
  s.mass += w, s.moment += w * t;
  s.transmittance *= kept;
  return w;
}

// Gradients at a ray's sums.
struct RayGradient {
  float color[3], alpha, depth, distortion;
};

// The gradient at a sample's weight, without extra channels. before: the ray's sums in front of
// the sample; mass, moment: of all samples.
A3D_HD float weight_gradient(const RayGradient& v, const RaySums& before, float mass,
                             float moment, float start, float w, const float color[3], float t,
                             float dt) {
  const float behind = mass - before.mass - w, moment_behind = moment - before.moment - w * t;
  const float spread =
      2.0f * (t * (before.mass - behind) - (before.moment - moment_behind) + w * dt / 3.0f);
  return v.color[0] * color[0] + v.color[1] * color[1] + v.color[2] * color[2] + v.alpha +
         v.depth * (start + t) + v.distortion * spread;
}

}  // namespace avatar3d
