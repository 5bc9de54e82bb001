// Adam for the rows of a table that have a gradient, which is cleared on the way.
#pragma once

#include "avatar3d/adam.h"
#include "parallel.h"
#include "simd.h"

namespace {

using namespace avatar3d;

constexpr int kSparseRows = 32;     // that are looked at together
constexpr int kSparsePiece = 4096;  // rows of a piece of work

// What the rows' numbers of steps make of the learning rate, once for every number of a row.
struct SparseFactors {
  alignas(64) float rate[kSparseRows * kMostTableColumns];
  alignas(64) float inverse_root[kSparseRows * kMostTableColumns];
  alignas(64) int32_t touched[kSparseRows * kMostTableColumns];
};

// Counts the step of rows with a gradient that is finite and not zero; false if there are none.
inline bool count_steps(const SparseAdam& in, int64_t first, int rows, SparseFactors& factors) {
  const int size = in.size;
  bool some = false;
  for (int r = 0; r < rows; r++) {
    const float* g = in.gradient + (first + r) * size;
    bool zero = true, finite = true;
    for (int f = 0; f < size; f++) {
      zero &= g[f] == 0.0f;
      finite &= g[f] - g[f] == 0.0f;
    }
    const bool touched = !zero && finite;
    some |= !zero;
    int32_t& steps = in.steps[first + r];
    steps += touched && steps < 0x7fffffff;
    const int t = smaller(steps, in.correction_count - 1);
    for (int f = 0; f < size; f++) {
      factors.rate[r * size + f] = in.lr * in.corrections[2 * t];
      factors.inverse_root[r * size + f] = in.corrections[2 * t + 1];
      factors.touched[r * size + f] = touched;
    }
  }
  return some;
}

inline bool all_zero(const float* values, int count) {
  int32_t bits = 0;
  for (int i = 0; i < count; i++) {
    int32_t b;
    memcpy(&b, values + i, 4);
    bits |= b;
  }
  return bits == 0;
}

void sparse_adam(const SparseAdam& in, int threads) {
  const int pieces = (int)((in.rows + kSparsePiece - 1) / kSparsePiece);
  parallel_for(pieces, threads, [&](int piece, int) {
    SparseFactors factors;
    const int64_t begin = (int64_t)piece * kSparsePiece;
    const int64_t end = begin + kSparsePiece < in.rows ? begin + kSparsePiece : in.rows;
    for (int64_t first = begin; first < end; first += kSparseRows) {
      const int rows = end - first < kSparseRows ? (int)(end - first) : kSparseRows;
      const int count = rows * in.size;
      float* A3D_RESTRICT gradient = in.gradient + first * in.size;
      if (all_zero(gradient, count) || !count_steps(in, first, rows, factors)) continue;
      float* A3D_RESTRICT table = in.table + first * in.size;
      float* A3D_RESTRICT exp_avg = in.exp_avg + first * in.size;
      float* A3D_RESTRICT exp_avg_sq = in.exp_avg_sq + first * in.size;
      for (int i = 0; i < count; i++) {
        const AdamWStep step = {1.0f,           in.beta2, 1.0f - in.beta1, 1.0f - in.beta2,
                                factors.rate[i], factors.inverse_root[i], in.eps};
        float p = table[i], m = exp_avg[i], v = exp_avg_sq[i];
        adamw(step, gradient[i], p, m, v);
        const bool touched = factors.touched[i];
        table[i] = touched ? p : table[i];
        exp_avg[i] = touched ? m : exp_avg[i];
        exp_avg_sq[i] = touched ? v : exp_avg_sq[i];
        gradient[i] = 0.0f;
      }
    }
  });
}

}  // namespace
