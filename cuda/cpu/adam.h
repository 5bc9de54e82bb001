// AdamW for a parameter whose gradient is a sum of outer products, which is never stored whole.
#pragma once

#include "avatar3d/adam.h"
#include "lanes.h"
#include "parallel.h"

namespace {

using namespace avatar3d;

constexpr int kGradientFloats = kLargestOuterSize;  // of a thread, in its first-level cache
constexpr int kAdamPiecesPerThread = 8;  // so that a thread that is held up does not hold up others

// gradient[r][k] = sum over frames of rows[frame][first + r] weights[frame][k].
inline void outer_products(const OuterAdamW& in, int64_t first, int rows, float* gradient) {
  const int size = in.size;
  for (int frame = 0; frame < in.frames; frame++) {
    const float* weights = in.weights + (size_t)frame * size;
    const float* values = in.row_gradients + (size_t)frame * in.rows + first;
    for (int k = 0; k < size; k += kWidth) {
      const int n = smaller(kWidth, size - k);
      const Vec w = n == kWidth ? load(weights + k) : load_part(weights + k, n);
      for (int r = 0; r < rows; r++) {
        float* out = gradient + (size_t)r * size + k;
        const Vec v = set(values[r]);
        if (n == kWidth)
          store(out, frame ? madd(v, w, load(out)) : mul(v, w));
        else
          store_part(out, frame ? madd(v, w, load_part(out, n)) : mul(v, w), n);
      }
    }
  }
}

inline void adamw_span(const AdamWStep& step, const float* gradient, float* parameter,
                       float* exp_avg, float* exp_avg_sq, int count) {
  int i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    Lanes p(parameter + i), m(exp_avg + i), v(exp_avg_sq + i);
    adamw(step, Lanes(gradient + i), p, m, v);
    store(parameter + i, p.v);
    store(exp_avg + i, m.v);
    store(exp_avg_sq + i, v.v);
  }
  const int n = count - i;
  if (!n) return;
  Lanes p(load_part(parameter + i, n)), m(load_part(exp_avg + i, n)),
      v(load_part(exp_avg_sq + i, n));
  adamw(step, Lanes(load_part(gradient + i, n)), p, m, v);
  store_part(parameter + i, p.v, n);
  store_part(exp_avg + i, m.v, n);
  store_part(exp_avg_sq + i, v.v, n);
}

void outer_adamw(const OuterAdamW& in, int threads) {
  const AdamWStep step = {(float)in.keep,        (float)in.beta2, (float)(1 - in.beta1),
                          (float)(1 - in.beta2), (float)in.rate,  (float)in.inverse_root,
                          (float)in.eps};
  const int rows_together = larger(1, kGradientFloats / in.size);
  const int64_t blocks = (in.rows + rows_together - 1) / rows_together;
  const int pieces =
      (int)(blocks < threads * kAdamPiecesPerThread ? blocks : threads * kAdamPiecesPerThread);
  parallel_for(pieces, threads, [&](int piece, int) {
    alignas(64) float gradient[kGradientFloats];
    const int64_t begin = blocks * piece / pieces, end = blocks * (piece + 1) / pieces;
    for (int64_t block = begin; block < end; block++) {
      const int64_t first = block * rows_together;
      const int64_t left = in.rows - first;
      const int rows = left < rows_together ? (int)left : rows_together;
      outer_products(in, first, rows, gradient);
      const size_t at = (size_t)first * in.size;
      adamw_span(step, gradient, in.parameter + at, in.exp_avg + at, in.exp_avg_sq + at,
                 rows * in.size);
    }
  });
}

}  // namespace
