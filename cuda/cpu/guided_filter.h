// The guided filter of He, Sun and Tang (2010) with a colour guide: in every window the mask is
// taken for a linear function of the colours, which puts its edges on those of the picture. The
// coefficients are worked out at half the size ("Fast guided filter", 2015).
#pragma once

#include "parallel.h"
#include "simd.h"

namespace {

using namespace avatar3d;

constexpr int kWindowMoments = 13;  // of r, g, b and the mask p: r g b p, rp gp bp, rr rg rb gg gb bb
constexpr int kCoefficients = 4;
constexpr float kColorUnit = 1.0f / 255.0f;

// Planes (rows, stride) of the half-sized picture. Rows begin and end with `margin` zeros, so that
// windows may reach over the border.
struct GuidedPlanes {
  int width, height, margin, stride;
  float* color[4];                    // red, green, blue, mask
  float* coefficient[kCoefficients];  // of red, green, blue, and the constant
  float* sums;                        // (kWindowMoments, stride): of the columns in the window
  float *share, *means;               // (stride,): 1 / columns in the window; (kWindowMoments, stride)
  float* row(float* plane, int y) const { return plane + (size_t)y * stride + margin; }
};

inline void halve(const GuidedInput& in, const GuidedPlanes& p) {
  for (int y = 0; y < p.height; y++) {
    const int first = 2 * y, second = smaller(first + 1, in.height - 1);
    const uint8_t *a = in.image + (size_t)first * in.width * 3,
                  *b = in.image + (size_t)second * in.width * 3;
    const float *c = in.mask + (size_t)first * in.width, *d = in.mask + (size_t)second * in.width;
    float *red = p.row(p.color[0], y), *green = p.row(p.color[1], y), *blue = p.row(p.color[2], y),
          *mask = p.row(p.color[3], y);
    for (int x = 0; x < p.width; x++) {
      const int i = 2 * x, k = smaller(i + 1, in.width - 1), u = 3 * i, v = 3 * k;
      // About zero, so that little is lost when squares of means are taken off means of squares.
      red[x] = (float)(a[u] + a[v] + b[u] + b[v]) * (0.25f * kColorUnit) - 0.5f;
      green[x] = (float)(a[u + 1] + a[v + 1] + b[u + 1] + b[v + 1]) * (0.25f * kColorUnit) - 0.5f;
      blue[x] = (float)(a[u + 2] + a[v + 2] + b[u + 2] + b[v + 2]) * (0.25f * kColorUnit) - 0.5f;
      mask[x] = 0.25f * (c[i] + c[k] + d[i] + d[k]);
    }
  }
}

// sums += sign * the moments of row y
inline void add_moments(const GuidedPlanes& p, int y, float sign) {
  const float *A3D_RESTRICT r = p.row(p.color[0], y), *A3D_RESTRICT g = p.row(p.color[1], y),
                            *A3D_RESTRICT b = p.row(p.color[2], y),
                            *A3D_RESTRICT m = p.row(p.color[3], y);
  const Vec s = set(sign);
  float* sums = p.sums + p.margin;
  const size_t next = (size_t)p.stride;
  for (int x = 0; x < p.width; x += kWidth) {  // what is read past the end is margin
    const Vec v[4] = {load(r + x), load(g + x), load(b + x), load(m + x)};
    float* out = sums + x;
    int k = 0;
    for (; k < 4; k++) store(out + k * next, madd(s, v[k], load(out + k * next)));
    for (int i = 0; i < 3; i++, k++)
      store(out + k * next, madd(s, mul(v[i], v[3]), load(out + k * next)));
    for (int i = 0; i < 3; i++)
      for (int j = i; j < 3; j++, k++)
        store(out + k * next, madd(s, mul(v[i], v[j]), load(out + k * next)));
  }
}

// means[x] = scale share[x] times the sum of the 2 margin + 1 values of `sums` around x
inline void average_rows(const GuidedPlanes& p, int planes, float scale) {
  const Vec factor = set(scale);
  const float* share = p.share + p.margin;
  for (int k = 0; k < planes; k++) {
    const float* from = p.sums + (size_t)k * p.stride;
    float* out = p.means + (size_t)k * p.stride + p.margin;
    for (int x = 0; x < p.width; x += kWidth) {
      Vec total = load(from + x);
      for (int i = 1; i <= 2 * p.margin; i++) total = add(total, load(from + x + i));
      store(out + x, mul(total, mul(factor, load(share + x))));
    }
  }
}

// The coefficients of row y, zero past its end, from the means of the moments: (covariance + eps)^-1 times that with p.
inline void fit_colors(const GuidedPlanes& p, int y, float eps) {
  const size_t next = (size_t)p.stride;
  for (int x = 0; x < p.width; x += kWidth) {
    const float* in = p.means + p.margin + x;
    Vec m[kWindowMoments];
    for (int k = 0; k < kWindowMoments; k++) m[k] = load(in + k * next);
    Vec c[3];
    for (int i = 0; i < 3; i++) c[i] = nmadd(m[i], m[3], m[4 + i]);
    const Vec e = set(eps);
    const Vec rr = add(e, nmadd(m[0], m[0], m[7])), rg = nmadd(m[0], m[1], m[8]),
              rb = nmadd(m[0], m[2], m[9]), gg = add(e, nmadd(m[1], m[1], m[10])),
              gb = nmadd(m[1], m[2], m[11]), bb = add(e, nmadd(m[2], m[2], m[12]));
    const Vec i00 = nmadd(gb, gb, mul(gg, bb)), i01 = nmadd(rg, bb, mul(rb, gb)),
              i02 = nmadd(rb, gg, mul(rg, gb)), i11 = nmadd(rb, rb, mul(rr, bb)),
              i12 = nmadd(rr, gb, mul(rb, rg)), i22 = nmadd(rg, rg, mul(rr, gg));
    const Vec one_by = quotient(set(1.0f), madd(rr, i00, madd(rg, i01, mul(rb, i02))));
    const Vec a[3] = {mul(one_by, madd(i00, c[0], madd(i01, c[1], mul(i02, c[2])))),
                      mul(one_by, madd(i01, c[0], madd(i11, c[1], mul(i12, c[2])))),
                      mul(one_by, madd(i02, c[0], madd(i12, c[1], mul(i22, c[2]))))};
    Vec rest = m[3];
    for (int i = 0; i < 3; i++) {
      rest = nmadd(a[i], m[i], rest);
      store(p.row(p.coefficient[i], y) + x, a[i]);
    }
    store(p.row(p.coefficient[3], y) + x, rest);
  }
}

inline void add_coefficients(const GuidedPlanes& p, int y, float sign) {
  const Vec s = set(sign);
  for (int k = 0; k < kCoefficients; k++) {
    const float* from = p.row(p.coefficient[k], y);
    float* out = p.sums + (size_t)k * p.stride + p.margin;
    for (int x = 0; x < p.width; x += kWidth)
      store(out + x, madd(s, load(from + x), load(out + x)));
  }
}

// Calls row(y) for every row after the sums were moved on to the window around it.
template <class Add, class Row>
inline void slide(const GuidedPlanes& p, int planes, const Add& add_row, const Row& row) {
  memset(p.sums, 0, sizeof(float) * (size_t)planes * p.stride);
  for (int y = 0; y < smaller(p.margin, p.height); y++) add_row(y, 1.0f);
  for (int y = 0; y < p.height; y++) {
    if (y + p.margin < p.height) add_row(y + p.margin, 1.0f);
    if (y > p.margin) add_row(y - p.margin - 1, -1.0f);
    const int low = larger(0, y - p.margin), high = smaller(p.height - 1, y + p.margin);
    row(y, 1.0f / (float)(high - low + 1));
  }
}

// One row of the full size: mean coefficients between the half-sized rows, times the colours.
inline void apply_row(const GuidedInput& in, const GuidedPlanes& p, int y, float* out) {
  const int near = y / 2, other = y % 2 ? smaller(near + 1, p.height - 1) : larger(near - 1, 0);
  float* mixed[kCoefficients];
  for (int k = 0; k < kCoefficients; k++) {
    const float *a = p.row(p.color[k], near), *b = p.row(p.color[k], other);
    mixed[k] = p.means + (size_t)k * p.stride + p.margin;
    for (int x = 0; x < p.width; x++) mixed[k][x] = 0.75f * a[x] + 0.25f * b[x];
    mixed[k][-1] = mixed[k][0], mixed[k][p.width] = mixed[k][p.width - 1];
  }
  const uint8_t* A3D_RESTRICT color = in.image + (size_t)y * in.width * 3;
  const float *A3D_RESTRICT r = mixed[0], *A3D_RESTRICT g = mixed[1], *A3D_RESTRICT b = mixed[2],
                            *A3D_RESTRICT rest = mixed[3];
  float* A3D_RESTRICT to = out + (size_t)y * in.width;
  for (int x = 0; x < in.width; x++) {
    const int i = x / 2, k = i - 1 + 2 * (x % 2);
    const float red = (float)color[3 * x] * kColorUnit - 0.5f,
                green = (float)color[3 * x + 1] * kColorUnit - 0.5f,
                blue = (float)color[3 * x + 2] * kColorUnit - 0.5f;
    to[x] = (0.75f * r[i] + 0.25f * r[k]) * red + (0.75f * g[i] + 0.25f * g[k]) * green +
            (0.75f * b[i] + 0.25f * b[k]) * blue + 0.75f * rest[i] + 0.25f * rest[k];
  }
}

void guided_filter(const GuidedInput& in, float* out, Buffer& scratch) {
  GuidedPlanes p;
  p.width = (in.width + 1) / 2, p.height = (in.height + 1) / 2;
  p.margin = larger(1, in.radius / 2);
  p.stride = 2 * p.margin + (p.width + kWidth) / kWidth * kWidth;
  const size_t plane = (size_t)p.stride * p.height, rows = (size_t)p.stride * kWindowMoments;
  // Windows at the end of the last row read a little further.
  const size_t size = 8 * plane + 2 * rows + p.stride + 2 * (p.margin + kWidth);
  float* at = reserve<float>(scratch, size);
  memset(at, 0, sizeof(float) * size);
  for (float*& c : p.color) c = at, at += plane;
  for (float*& c : p.coefficient) c = at, at += plane;
  p.sums = at, p.means = at + rows, p.share = at + 2 * rows;
  for (int x = 0; x < p.width; x++)
    p.share[p.margin + x] =
        1.0f / (float)(smaller(p.width - 1, x + p.margin) - larger(0, x - p.margin) + 1);
  halve(in, p);
  slide(
      p, kWindowMoments, [&](int y, float sign) { add_moments(p, y, sign); },
      [&](int y, float share) {
        average_rows(p, kWindowMoments, share);
        fit_colors(p, y, in.eps);
      });
  // The colours are done with; the mean coefficients take their place.
  slide(
      p, kCoefficients, [&](int y, float sign) { add_coefficients(p, y, sign); },
      [&](int y, float share) {
        average_rows(p, kCoefficients, share);
        for (int k = 0; k < kCoefficients; k++)
          memcpy(p.row(p.color[k], y), p.means + (size_t)k * p.stride + p.margin,
                 sizeof(float) * p.width);
      });
  for (int y = 0; y < in.height; y++) apply_row(in, p, y, out);
}

}  // namespace
