// Fused L1 + SSIM over interleaved (H, W, 3) rows: a row is 3 W floats, and the window's taps along
// it lie 3 floats apart. Two passes of separable windows; between them only the three derivative
// maps go through memory.
#pragma once

#include "avatar3d/ssim.h"
#include "lanes.h"
#include "parallel.h"

namespace {

using namespace avatar3d;

constexpr int kRows =
    kWidth == 16 ? 4 : 2;  // output rows per step, so loads are shared in registers
constexpr int kPad = 3 * kSsimRadius;
constexpr int kMaps = 3;     // derivative maps: at E[x], E[x^2 + y^2], E[x y]
constexpr int kMoments = 4;  // E[x], E[y], E[x^2 + y^2], E[x y]

// Rows that a vector load may read kWidth floats from; narrower images are copied with zeros.
struct Plane {
  const float* data;
  size_t stride;
  const float* zeros;
  int height;
  const float* row(int y) const { return y >= 0 && y < height ? data + y * stride : zeros; }
};

struct SsimPlan {
  int n;          // floats in a row
  int readable;   // n, or kWidth when the image is narrower
  int groups;     // of kRows rows
  size_t padded;  // floats in a row buffer with kPad zeros on both sides
  Plane image, target;
  float* maps;         // (groups * kRows, kMaps, readable)
  double* loss;        // per group
  float* row_buffers;  // per thread
  size_t row_floats;   // per thread
};

inline SsimPlan plan_ssim(const SsimInput& in, Buffer& scratch, int threads) {
  SsimPlan s;
  s.n = 3 * in.width;
  s.readable = larger(s.n, kWidth);
  s.groups = (in.height + kRows - 1) / kRows;
  s.padded = ((size_t)s.readable + 2 * kPad + kWidth + 15) / 16 * 16;
  const bool narrow = s.n < kWidth;
  const size_t copies = narrow ? 2 * (size_t)in.height * kWidth : 0;
  const size_t maps = (size_t)s.groups * kRows * kMaps * s.readable;
  s.row_floats = (size_t)kRows * kMoments * s.padded + 4 * s.padded;
  const size_t floats = copies + maps + (size_t)s.readable + 16 + s.row_floats * threads;
  double* p = reserve<double>(scratch, (size_t)s.groups + (floats + 1) / 2);
  s.loss = p;
  float* f = reinterpret_cast<float*>(p + s.groups);
  s.maps = f, f += maps;
  float* zeros = f;
  memset(zeros, 0, sizeof(float) * s.readable), f += s.readable;
  s.image = Plane{in.image, (size_t)s.n, zeros, in.height};
  s.target = Plane{in.target, (size_t)s.n, zeros, in.height};
  if (narrow) {
    memset(f, 0, sizeof(float) * copies);
    for (int y = 0; y < in.height; y++) {
      memcpy(f + (size_t)y * kWidth, in.image + (size_t)y * s.n, sizeof(float) * s.n);
      memcpy(f + (size_t)(in.height + y) * kWidth, in.target + (size_t)y * s.n,
             sizeof(float) * s.n);
    }
    s.image = Plane{f, kWidth, zeros, in.height};
    s.target = Plane{f + (size_t)in.height * kWidth, kWidth, zeros, in.height};
    f += copies;
  }
  s.row_buffers = f;
  memset(f, 0, sizeof(float) * s.row_floats * threads);
  return s;
}

// Calls body(i) for vectors that cover [0, readable); the last one overlaps its neighbour.
template <class Body>
inline void for_vectors(int readable, const Body& body) {
  int i = 0;
  for (; i + kWidth <= readable; i += kWidth) body(i);
  if (i < readable) body(readable - kWidth);
}

inline Vec window_along_row(const float* center) {
  Vec s = mul(set(kSsimWindow[0]), add(load(center - kPad), load(center + kPad)));
  for (int k = 1; k < kSsimRadius; k++)
    s = madd(set(kSsimWindow[k]),
             add(load(center + 3 * (k - kSsimRadius)), load(center - 3 * (k - kSsimRadius))), s);
  return madd(set(kSsimWindow[kSsimRadius]), load(center), s);
}

// Vertical windows of the four moments for rows y0 .. y0 + kRows - 1.
inline void moments_of_rows(const SsimPlan& plan, int y0, float* out) {
  constexpr int kSource = kRows + kSsimTaps - 1;
  const float* x_rows[kSource];
  const float* y_rows[kSource];
  for (int k = 0; k < kSource; k++) {
    x_rows[k] = plan.image.row(y0 + k - kSsimRadius);
    y_rows[k] = plan.target.row(y0 + k - kSsimRadius);
  }
  for_vectors(plan.readable, [&](int i) {
    Vec acc[kRows][kMoments];
    for (int r = 0; r < kRows; r++)
      for (int m = 0; m < kMoments; m++) acc[r][m] = set(0.0f);
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    for (int k = 0; k < kSource; k++) {
      const Vec x = load(x_rows[k] + i), y = load(y_rows[k] + i);
      const Vec squares = madd(x, x, mul(y, y)), product = mul(x, y);
#if defined(__GNUC__)
#pragma GCC unroll 4
#endif
      for (int r = 0; r < kRows; r++) {
        if (k - r < 0 || k - r >= kSsimTaps) continue;
        const Vec w = set(kSsimWindow[k - r]);
        acc[r][0] = madd(w, x, acc[r][0]), acc[r][1] = madd(w, y, acc[r][1]);
        acc[r][2] = madd(w, squares, acc[r][2]), acc[r][3] = madd(w, product, acc[r][3]);
      }
    }
    for (int r = 0; r < kRows; r++)
      for (int m = 0; m < kMoments; m++)
        store(out + (r * kMoments + m) * plan.padded + kPad + i, acc[r][m]);
  });
}

// One row: moments -> SSIM -> loss, and the derivative maps windowed along the row.
inline double ssim_row(const SsimInput& in, const SsimPlan& plan, int y, const float* moments,
                       float* work, bool with_gradient) {
  float* weight = work + kMaps * plan.padded;
  for (int i = 0; i < in.width; i++) {
    const float w = in.weight ? in.weight[(size_t)y * in.width + i] : 1.0f;
    weight[3 * i] = weight[3 * i + 1] = weight[3 * i + 2] = w;
  }
  const float* image = plan.image.row(y);
  const float* target = plan.target.row(y);
  double loss = 0;
  for (int i = 0; i < plan.n; i += kWidth) {
    Lanes m[kMoments];
    for (int k = 0; k < kMoments; k++)
      m[k] = Lanes(window_along_row(moments + k * plan.padded + kPad + i));
    const int n = smaller(kWidth, plan.n - i);
    alignas(64) float x[kWidth] = {0}, t[kWidth] = {0}, w[kWidth] = {0}, d[kMaps][kWidth];
    if (n == kWidth) {
      store(x, load(image + i)), store(t, load(target + i)), store(w, load(weight + i));
    } else {
      for (int l = 0; l < n; l++) x[l] = image[i + l], t[l] = target[i + l], w[l] = weight[i + l];
    }
    const SsimPoint<Lanes> s = ssim_point(m[0], m[1], m[2], m[3]);
    const Vec f = mul(set(-in.ssim_factor), load(w));
    store(d[0], mul(f, s.d_mean.v));
    store(d[1], mul(f, s.d_squares.v));
    store(d[2], mul(f, s.d_product.v));
    const Vec l1 = mul(set(in.l1_factor), vabs(sub(load(x), load(t))));
    const Vec terms = madd(set(in.ssim_factor), sub(set(1.0f), s.value.v), l1);
    loss += (double)sum(mul(load(w), terms));
    if (with_gradient)
      for (int k = 0; k < kMaps; k++) memcpy(work + k * plan.padded + kPad + i, d[k], 4 * n);
  }
  if (with_gradient) {
    for (int k = 0; k < kMaps; k++) {
      float* out = plan.maps + ((size_t)y * kMaps + k) * plan.readable;
      const float* row = work + k * plan.padded + kPad;
      for_vectors(plan.readable, [&](int i) { store(out + i, window_along_row(row + i)); });
    }
  }
  return loss;
}

// Vertical windows of the derivative maps, then the chain rule to the image.
inline void gradient_of_rows(const SsimInput& in, const SsimPlan& plan, int y0, float* gradient) {
  constexpr int kSource = kRows + kSsimTaps - 1;
  const float* rows[kSource];
  const Plane maps = {plan.maps, (size_t)kMaps * plan.readable, nullptr, in.height};
  for (int k = 0; k < kSource; k++) rows[k] = maps.row(y0 + k - kSsimRadius);
  const int used = smaller(kRows, in.height - y0);
  for_vectors(plan.readable, [&](int i) {
    Vec acc[kRows][kMaps];
    for (int r = 0; r < kRows; r++)
      for (int m = 0; m < kMaps; m++) acc[r][m] = set(0.0f);
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    for (int k = 0; k < kSource; k++) {
      if (!rows[k]) continue;
      Vec d[kMaps];
      for (int m = 0; m < kMaps; m++) d[m] = load(rows[k] + (size_t)m * plan.readable + i);
#if defined(__GNUC__)
#pragma GCC unroll 4
#endif
      for (int r = 0; r < kRows; r++) {
        if (k - r < 0 || k - r >= kSsimTaps) continue;
        const Vec w = set(kSsimWindow[k - r]);
        for (int m = 0; m < kMaps; m++) acc[r][m] = madd(w, d[m], acc[r][m]);
      }
    }
    for (int r = 0; r < used; r++) {
      const Vec x = load(plan.image.row(y0 + r) + i), t = load(plan.target.row(y0 + r) + i);
      const Vec g = madd(t, acc[r][2], madd(mul(set(2.0f), x), acc[r][1], acc[r][0]));
      float* out = gradient + (size_t)(y0 + r) * plan.n + i;
      if (plan.n >= kWidth) {
        store(out, g);
      } else {
        alignas(64) float narrow[kWidth];
        store(narrow, g);
        memcpy(out, narrow, sizeof(float) * plan.n);
      }
    }
  });
  // The L1 part, apart because the weight is per pixel: sign(0) = 0 as torch has it.
  for (int r = 0; r < used; r++) {
    const size_t y = (size_t)(y0 + r);
    for (int x = 0; x < in.width; x++) {
      const float f = in.l1_factor * (in.weight ? in.weight[y * in.width + x] : 1.0f);
      for (int k = 0; k < 3; k++) {
        const size_t at = y * plan.n + 3 * x + k;
        const float d = in.image[at] - in.target[at];
        gradient[at] += d > 0 ? f : (d < 0 ? -f : 0.0f);
      }
    }
  }
}

double l1_ssim(const SsimInput& in, float* gradient, Buffer& scratch, int threads) {
  const SsimPlan plan = plan_ssim(in, scratch, threads);
  parallel_for(plan.groups, threads, [&](int g, int worker) {
    float* moments = plan.row_buffers + plan.row_floats * worker;
    float* work = moments + (size_t)kRows * kMoments * plan.padded;
    moments_of_rows(plan, g * kRows, moments);
    plan.loss[g] = 0;
    for (int r = 0; r < kRows && g * kRows + r < in.height; r++)
      plan.loss[g] += ssim_row(in, plan, g * kRows + r, moments + r * kMoments * plan.padded, work,
                               gradient != nullptr);
  });
  if (gradient)
    parallel_for(plan.groups, threads,
                 [&](int g, int) { gradient_of_rows(in, plan, g * kRows, gradient); });
  double total = 0;
  for (int g = 0; g < plan.groups; g++) total += plan.loss[g];
  return total;
}

}  // namespace
