// Fused L1 + SSIM over interleaved (H, W, 3) rows: a row is 3 W floats, and the window's taps along
// it lie 3 floats apart. The image is worked on in bands of rows, so that the derivative maps
// between the two passes of separable windows stay in the cache. Where it is known what Gaussians
// were drawn, a band is no wider than they are: nobody asks for the gradient elsewhere.
#pragma once

#include "avatar3d/ssim.h"
#include "raster_tiles.h"

namespace {

using namespace avatar3d;

constexpr int kRows =
    kWidth == 16 ? 4 : 2;  // output rows per step, so loads are shared in registers
constexpr int kPad = 16;  // at least the 3 * kSsimRadius floats that a window reaches, and a vector
constexpr int kMaps = 3;  // derivative maps: at E[x], E[x^2 + y^2], E[x y]
constexpr int kMoments = 4;                            // E[x], E[y], E[x^2 + y^2], E[x y]
constexpr int kMapRows = 2 * kSsimRadius + 3 * kRows;  // that are there at once

// Rows that a vector load may read kWidth floats from; narrower images are copied with zeros.
struct Plane {
  const float* data;
  size_t stride;
  const float* zeros;
  int height;
  const float* row(int y) const { return y >= 0 && y < height ? data + y * stride : zeros; }
};

constexpr int kRowBuffers = kRows * kMoments + kMaps + 1;  // per thread, the last for weights
constexpr int kBandRows = 64;                              // a multiple of kRows

// Floats of a row, in whole vectors or to the row's end.
struct Columns {
  int begin, end;
  Columns around(const Columns& row) const {  // all that a window reaches
    return {larger(row.begin, begin - kPad), smaller(row.end, end + kPad)};
  }
};

struct SsimPlan {
  int n;              // floats in a row
  int readable;       // n, or kWidth when the image is narrower
  int bands;          // of kBandRows rows
  size_t map_stride;  // of one row of one map
  size_t padded;      // floats in a row buffer with kPad zeros on both sides
  Plane image, target;
  double* loss;  // per group of kRows rows
  float* work;   // per thread: row buffers, then the maps of a band
  size_t work_size;
};

inline SsimPlan plan_ssim(const SsimInput& in, Buffer& scratch, int threads) {
  SsimPlan s;
  s.n = 3 * in.width;
  s.readable = larger(s.n, kWidth);
  s.bands = (in.height + kBandRows - 1) / kBandRows;
  s.padded = ((size_t)s.readable + 2 * kPad + kWidth + 15) / 16 * 16;
  // An odd number of cache lines, or the rows that a vertical window reads share a cache set.
  s.map_stride = (((size_t)s.readable + 15) / 16 | 1) * 16;
  const bool narrow = s.n < kWidth;
  const size_t copies = narrow ? 2 * (size_t)in.height * kWidth : 0;
  s.work_size = kRowBuffers * s.padded + kMapRows * (kMaps + 1) * s.map_stride;
  const size_t groups = (size_t)s.bands * (kBandRows / kRows);
  const size_t zero_size = (kMaps + 1) * s.map_stride;  // a row outside the image, of anything
  const size_t floats = zero_size + s.work_size * threads + copies;
  s.loss = reserve<double>(scratch, groups + (floats + 1) / 2);
  float* zeros = reinterpret_cast<float*>(s.loss + groups);
  memset(zeros, 0, sizeof(float) * zero_size);
  s.work = zeros + zero_size;
  s.image = Plane{in.image, (size_t)s.n, zeros, in.height};
  s.target = Plane{in.target, (size_t)s.n, zeros, in.height};
  if (narrow) {
    float* copy = s.work + s.work_size * threads;
    memset(copy, 0, sizeof(float) * copies);
    for (int y = 0; y < in.height; y++) {
      const size_t at = (size_t)y * s.n, size = sizeof(float) * s.n;
      memcpy(copy + (size_t)y * kWidth, in.image + at, size);
      memcpy(copy + (size_t)(in.height + y) * kWidth, in.target + at, size);
    }
    s.image = Plane{copy, kWidth, zeros, in.height};
    s.target = Plane{copy + (size_t)in.height * kWidth, kWidth, zeros, in.height};
  }
  return s;
}

// Calls body(i) for vectors that cover the columns; the last of a row overlaps its neighbour.
template <class Body>
inline void for_vectors(const SsimPlan& plan, const Columns& columns, const Body& body) {
  int i = columns.begin;
  for (; i + kWidth <= plan.readable && i < columns.end; i += kWidth) body(i);
  if (i < columns.end) body(plan.readable - kWidth);
}

// From the first to the last tile of the rows [begin, end) with a Gaussian in it; empty without.
inline Columns drawn_columns(const SsimInput& in, int begin, int end) {
  const int n = 3 * in.width;
  if (!in.drawn) return {0, n};
  const int32_t* start = data<int32_t>(in.drawn->tile_start);
  const int tiles_x = in.drawn->tiles_x, last = (end - 1) / kTile;
  int left = tiles_x, right = 0;
  for (int y = begin / kTile; y <= last; y++)
    for (int x = 0; x < tiles_x; x++) {
      const int t = y * tiles_x + x;
      if (start[t] == start[t + 1]) continue;
      left = smaller(left, x), right = larger(right, x + 1);
    }
  return {left * kTile * 3, smaller(right * kTile * 3, n)};
}

inline void store_first(float* p, Vec a, int n) {
  if (n == kWidth)
    store(p, a);
  else
    store_part(p, a, n);
}

// The windowed value at `center`; kPad floats on both sides of it may be read.
inline Vec window_along_row(const float* center) {
#if A3D_SIMD == 512
  // Three loads and shifts: eleven loads that straddle cache lines take twice as long.
  const __m512i before = _mm512_castps_si512(load(center - 16));
  const __m512i here = _mm512_castps_si512(load(center));
  const __m512i after = _mm512_castps_si512(load(center + 16));
#define A3D_TAPS(K)                                                                       \
  add(_mm512_castsi512_ps(_mm512_alignr_epi32(here, before, 16 - 3 * (kSsimRadius - K))), \
      _mm512_castsi512_ps(_mm512_alignr_epi32(after, here, 3 * (kSsimRadius - K))))
  Vec s = mul(set(kSsimWindow[0]), A3D_TAPS(0));
  s = madd(set(kSsimWindow[1]), A3D_TAPS(1), s);
  s = madd(set(kSsimWindow[2]), A3D_TAPS(2), s);
  s = madd(set(kSsimWindow[3]), A3D_TAPS(3), s);
  s = madd(set(kSsimWindow[4]), A3D_TAPS(4), s);
#undef A3D_TAPS
#else
  Vec s = mul(set(kSsimWindow[0]), add(load(center - 15), load(center + 15)));
  for (int k = 1; k < kSsimRadius; k++)
    s = madd(set(kSsimWindow[k]),
             add(load(center + 3 * (k - kSsimRadius)), load(center - 3 * (k - kSsimRadius))), s);
#endif
  return madd(set(kSsimWindow[kSsimRadius]), load(center), s);
}

// Vertical windows of the four moments for rows y0 .. y0 + kRows - 1.
inline void moments_of_rows(const SsimPlan& plan, const Columns& columns, int y0, float* out) {
  constexpr int kSource = kRows + kSsimTaps - 1;
  const float* x_rows[kSource];
  const float* y_rows[kSource];
  for (int k = 0; k < kSource; k++) {
    x_rows[k] = plan.image.row(y0 + k - kSsimRadius);
    y_rows[k] = plan.target.row(y0 + k - kSsimRadius);
  }
  for_vectors(plan, columns, [&](int i) {
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

// One row: moments -> SSIM -> loss, the derivative maps windowed along the row and the L1 part.
// `work` holds kMaps padded rows and one of weights; maps is null where only the loss is wanted.
inline double ssim_row(const SsimInput& in, const SsimPlan& plan, const Columns& wanted, int y,
                       const float* moments, float* work, float* maps) {
  const Columns points = maps ? wanted.around({0, plan.n}) : wanted;
  float* weight = work + kMaps * plan.padded;
  for (int i = points.begin / 3; i < smaller(in.width, points.end / 3 + 1); i++) {
    const float w = in.weight ? in.weight[(size_t)y * in.width + i] : 1.0f;
    weight[3 * i] = weight[3 * i + 1] = weight[3 * i + 2] = w;
  }
  const float* image = plan.image.row(y);
  const float* target = plan.target.row(y);
  Vec loss = set(0.0f);
  for (int i = points.begin; i < points.end; i += kWidth) {
    Lanes m[kMoments];
    for (int k = 0; k < kMoments; k++)
      m[k] = Lanes(window_along_row(moments + k * plan.padded + kPad + i));
    const int n = smaller(kWidth, plan.n - i);
    const bool whole = n == kWidth;
    const Vec w = whole ? load(weight + i) : load_part(weight + i, n);
    const SsimPoint<Lanes> s = ssim_point(m[0], m[1], m[2], m[3]);
    if (i >= wanted.begin && i < wanted.end) {
      const Vec x = whole ? load(image + i) : load_part(image + i, n);
      const Vec t = whole ? load(target + i) : load_part(target + i, n);
      const Vec d = sub(x, t), l1 = mul(set(in.l1_factor), vabs(d));
      loss = madd(w, madd(set(in.ssim_factor), sub(set(1.0f), s.value.v), l1), loss);
      if (maps) {  // sign(0) = 0 as torch has it
        const Vec f = mul(set(in.l1_factor), w);
        store_first(maps + kMaps * plan.map_stride + i,
                    sub(keep(gt(d, set(0.0f)), f), keep(gt(set(0.0f), d), f)), n);
      }
    }
    if (!maps) continue;
    const Vec f = mul(set(-in.ssim_factor), w);
    const Vec d[kMaps] = {mul(f, s.d_mean.v), mul(f, s.d_squares.v), mul(f, s.d_product.v)};
    for (int k = 0; k < kMaps; k++) store_first(work + k * plan.padded + kPad + i, d[k], n);
  }
  for (int k = 0; maps && k < kMaps; k++) {
    const float* row = work + k * plan.padded + kPad;
    for_vectors(plan, wanted,
                [&](int i) { store(maps + k * plan.map_stride + i, window_along_row(row + i)); });
  }
  return (double)sum(loss);
}

// Rows of the derivative maps and of the L1 part: only those that windows still reach are kept.
struct MapRows {
  float* rows;
  size_t stride;
  const float* zeros;
  int height;
  float* at(int y) const { return rows + y % kMapRows * stride; }
  const float* row(int y) const { return y >= 0 && y < height ? at(y) : zeros; }
};

// Vertical windows of the derivative maps, then the chain rule to the image.
inline void gradient_of_rows(const SsimInput& in, const SsimPlan& plan, const Columns& wanted,
                             int y0, const MapRows& maps, float* gradient) {
  constexpr int kSource = kRows + kSsimTaps - 1;
  const float* rows[kSource];
  for (int k = 0; k < kSource; k++) rows[k] = maps.row(y0 + k - kSsimRadius);
  const int used = smaller(kRows, in.height - y0);
  for_vectors(plan, wanted, [&](int i) {
    Vec acc[kRows][kMaps];
    for (int r = 0; r < kRows; r++)
      for (int m = 0; m < kMaps; m++) acc[r][m] = set(0.0f);
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    for (int k = 0; k < kSource; k++) {
      Vec d[kMaps];
      for (int m = 0; m < kMaps; m++) d[m] = load(rows[k] + m * plan.map_stride + i);
#if defined(__GNUC__)
#pragma GCC unroll 4
#endif
      for (int r = 0; r < kRows; r++) {
        if (k - r < 0 || k - r >= kSsimTaps) continue;
        const Vec w = set(kSsimWindow[k - r]);
        for (int m = 0; m < kMaps; m++) acc[r][m] = madd(w, d[m], acc[r][m]);
      }
    }
    for (int r = 0; r < kRows; r++) {
      if (r >= used) break;
      const Vec x = load(plan.image.row(y0 + r) + i), t = load(plan.target.row(y0 + r) + i);
      const Vec l1 = load(rows[r + kSsimRadius] + kMaps * plan.map_stride + i);
      const Vec g = madd(t, acc[r][2], madd(mul(set(2.0f), x), acc[r][1], acc[r][0]));
      store_first(gradient + (size_t)(y0 + r) * plan.n + i, add(g, l1), smaller(kWidth, plan.n));
    }
  });
}

inline void ssim_band(const SsimInput& in, const SsimPlan& plan, int band, float* work,
                      float* gradient) {
  const int begin = band * kBandRows, end = smaller(begin + kBandRows, in.height);
  const Columns wanted = drawn_columns(in, begin, end), all = {0, plan.n};
  if (wanted.begin >= wanted.end) return;
  const Columns reached = gradient ? wanted.around(all).around(all) : wanted.around(all);
  const int halo = gradient ? kSsimRadius : 0;
  const int first = larger(0, begin - halo), last = smaller(in.height, end + halo);
  float* moments = work;
  float* rows = moments + (size_t)kRows * kMoments * plan.padded;
  const MapRows maps = {rows + (kMaps + 1) * plan.padded, (kMaps + 1) * plan.map_stride,
                        plan.image.zeros, in.height};
  int done = first;  // rows whose maps are there
  for (int y0 = begin; y0 < end; y0 += kRows) {
    for (; done < smaller(last, y0 + kRows + halo); done += kRows) {
      moments_of_rows(plan, reached, done, moments);
      for (int r = 0; r < kRows && done + r < last; r++) {
        const int y = done + r;
        const double loss = ssim_row(in, plan, wanted, y, moments + r * kMoments * plan.padded,
                                     rows, gradient ? maps.at(y) : nullptr);
        if (y >= begin && y < end) plan.loss[y / kRows] += loss;
      }
    }
    if (gradient) gradient_of_rows(in, plan, wanted, y0, maps, gradient);
  }
}

double l1_ssim(const SsimInput& in, float* gradient, Buffer& scratch, int threads) {
  const SsimPlan plan = plan_ssim(in, scratch, threads);
  const int groups = plan.bands * (kBandRows / kRows);
  for (int g = 0; g < groups; g++) plan.loss[g] = 0;
  // the padding of the row buffers stays zero from here on
  for (int t = 0; t < threads; t++)
    memset(plan.work + t * plan.work_size, 0, sizeof(float) * kRowBuffers * plan.padded);
  parallel_for(plan.bands, threads, [&](int band, int worker) {
    ssim_band(in, plan, band, plan.work + plan.work_size * worker, gradient);
  });
  double total = 0;
  for (int g = 0; g < groups; g++) total += plan.loss[g];
  return total;
}

}  // namespace
