// What a training step does to the learned attributes besides drawing them. A few numbers a
// Gaussian, so one thread is done before others would have woken up.
#include "module.h"
#include "parallel.h"

namespace avatar3d {

namespace {

// An attribute's (n, 3) squared departures, summed, and 2 factor departure * slope for the gradient.
double pull_to(const float* value, const float* goal, const float* slope, int64_t n, float factor,
               float* A3D_RESTRICT gradient) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const float s = slope ? slope[i] : 1.0f;
    float row = 0;
    for (int c = 0; c < 3; c++) {
      const float departure = (value[3 * i + c] - goal[3 * i + c]) * s;
      row += departure * departure;
      gradient[3 * i + c] = 2 * factor * s * departure;
    }
    sum += row;
  }
  return factor * sum;
}

// See avatar3d/kernels/pull.py.
double pull(FloatIn color, FloatIn position, FloatIn log_scale, FloatIn opacity, IntIn neighbour,
            FloatIn anchor, FloatIn inverse_reach, FloatIn size, FloatIn solid, float solid_logit,
            FloatIn factors, FloatOut v_color, FloatOut v_position, FloatOut v_log_scale,
            FloatOut v_opacity) {
  const int64_t n = (int64_t)opacity.size();
  const size_t rows = opacity.size();
  expect(color, 3 * rows, "color"), expect(position, 3 * rows, "position");
  expect(log_scale, 3 * rows, "log_scale"), expect(neighbour, rows, "neighbour");
  expect(anchor, 3 * rows, "anchor"), expect(inverse_reach, rows, "inverse_reach");
  expect(size, 3 * rows, "size"), expect(solid, rows, "solid"), expect(factors, 4, "factors");
  expect(v_color, 3 * rows, "v_color"), expect(v_position, 3 * rows, "v_position");
  expect(v_log_scale, 3 * rows, "v_log_scale"), expect(v_opacity, rows, "v_opacity");
  const int32_t* other = neighbour.data();
  for (int64_t i = 0; i < n; i++)
    if (other[i] < 0 || other[i] >= n) throw std::invalid_argument("neighbour out of range");
  nb::gil_scoped_release unlocked;
  const float* f = factors.data();
  const float* a = color.data();
  float* v = v_color.data();
  for (int64_t i = 0; i < 3 * n; i++) v[i] = 0;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const int64_t j = other[i];
    float row = 0;
    for (int c = 0; c < 3; c++) {
      const float departure = a[3 * i + c] - a[3 * j + c], g = 2 * f[0] * departure;
      row += departure * departure;
      v[3 * i + c] += g, v[3 * j + c] -= g;
    }
    sum += row;
  }
  double loss = f[0] * sum;
  loss += pull_to(position.data(), anchor.data(), inverse_reach.data(), n, f[1],
                  v_position.data());
  loss += pull_to(log_scale.data(), size.data(), nullptr, n, f[2], v_log_scale.data());
  sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const float departure = (opacity.data()[i] - solid_logit) * solid.data()[i];
    sum += (double)departure * departure;
    v_opacity.data()[i] = 2 * f[3] * departure * solid.data()[i];
  }
  return loss + f[3] * sum;
}

}  // namespace

void add_training_kernels(nb::module_& m) { m.def("pull", &pull); }

}  // namespace avatar3d
