// The conditioned MLP for batches of points that stay in the first-level cache. Vectors hold the
// neurons of a layer, so that every point can have conditions of its own.
#pragma once

#include "parallel.h"
#include "simd.h"

namespace {

using namespace avatar3d;

constexpr int kMlpBatch = 48;   // points
constexpr int kMlpPadding = 16; // widths are filled up to its multiples: a vector of any build
constexpr int kMlpTileRows = 6;
#if A3D_SIMD == 512
constexpr int kMlpTileVecs = 4;
#else
constexpr int kMlpTileVecs = 2;  // of 16 registers
#endif

inline int padded_width(int width) { return (width + kMlpPadding - 1) / kMlpPadding * kMlpPadding; }

// out[r][j] = start + sum over k of x[r][k] w[k][j] for R rows and C vectors of columns. Each sum is
// one chain in the order of k, whatever R and C are.
template <int R, int C>
A3D_INLINE void multiply_tile(const float* A3D_RESTRICT x, int x_stride, int depth,
                              const float* A3D_RESTRICT w, int w_stride, const float* start,
                              bool relu, float* A3D_RESTRICT out, int out_stride) {
  Vec sum[R][C];
  A3D_UNROLL(8)
  for (int r = 0; r < R; r++)
    A3D_UNROLL(8)
    for (int c = 0; c < C; c++)
      sum[r][c] = load((start ? start : out + r * out_stride) + c * kWidth);
  for (int k = 0; k < depth; k++) {
    Vec b[C];
    A3D_UNROLL(8)
    for (int c = 0; c < C; c++) b[c] = load(w + k * w_stride + c * kWidth);
    A3D_UNROLL(8)
    for (int r = 0; r < R; r++) {
      const Vec a = set(x[r * x_stride + k]);
      A3D_UNROLL(8)
      for (int c = 0; c < C; c++) sum[r][c] = madd(a, b[c], sum[r][c]);
    }
  }
  A3D_UNROLL(8)
  for (int r = 0; r < R; r++)
    A3D_UNROLL(8)
    for (int c = 0; c < C; c++)
      // in this order NaN stays NaN
      store(out + r * out_stride + c * kWidth,
            relu ? vmax(set(0.0f), sum[r][c]) : sum[r][c]);
}

// The last rows, R or fewer of them.
template <int R, int C>
inline void multiply_rest(const float* x, int x_stride, int rows, int depth, const float* w,
                          int w_stride, const float* start, bool relu, float* out,
                          int out_stride) {
  if (rows == R)
    multiply_tile<R, C>(x, x_stride, depth, w, w_stride, start, relu, out, out_stride);
  else if constexpr (R > 1)
    multiply_rest<R - 1, C>(x, x_stride, rows, depth, w, w_stride, start, relu, out, out_stride);
}

template <int C>
inline void multiply_columns(const float* x, int x_stride, int rows, int depth, const float* w,
                             int w_stride, const float* start, bool relu, float* out,
                             int out_stride) {
  int r = 0;
  for (; r + kMlpTileRows <= rows; r += kMlpTileRows)
    multiply_tile<kMlpTileRows, C>(x + r * x_stride, x_stride, depth, w, w_stride, start, relu,
                                out + r * out_stride, out_stride);
  multiply_rest<kMlpTileRows - 1, C>(x + r * x_stride, x_stride, rows - r, depth, w, w_stride,
                                     start, relu, out + r * out_stride, out_stride);
}

// out (rows, columns) = start + x (rows, depth) w (depth, columns), rectified if so wished. columns
// is a multiple of kMlpPadding. start: (columns,), or null for what out holds.
inline void multiply(const float* x, int x_stride, int rows, int depth, const float* w, int columns,
                     const float* start, bool relu, float* out, int out_stride) {
  int j = 0;
  for (; j + kMlpTileVecs * kWidth <= columns; j += kMlpTileVecs * kWidth)
    multiply_columns<kMlpTileVecs>(x, x_stride, rows, depth, w + j, columns,
                                start ? start + j : nullptr, relu, out + j, out_stride);
  for (; j < columns; j += kWidth)
    multiply_columns<1>(x, x_stride, rows, depth, w + j, columns, start ? start + j : nullptr, relu,
                        out + j, out_stride);
}

// The layers as multiply wants them, made once for many points.
struct PackedMlp {
  int layers, inputs, hidden, outputs, frames, groups;
  const float* vectors;
  const float* weight[kMostMlpLayers];  // (in, padded out)
  const float* bias[kMostMlpLayers];    // (padded out,), zeros where there is none

  int width_in(int layer) const { return layer ? hidden : inputs; }
  int width_out(int layer) const { return layer + 1 < layers ? hidden : outputs; }
};

inline size_t packed_mlp_floats(const MlpInput& mlp) {
  size_t floats = 0;
  for (int i = 0; i < mlp.layers; i++)
    floats += (size_t)((i ? mlp.hidden : mlp.inputs) + 1) *
              (size_t)padded_width(i + 1 < mlp.layers ? mlp.hidden : mlp.outputs);
  return floats;
}

// memory: packed_mlp_floats, which must outlive the result.
inline PackedMlp pack_mlp(const MlpInput& mlp, float* memory) {
  PackedMlp packed = {mlp.layers, mlp.inputs,  mlp.hidden, mlp.outputs, mlp.frames,
                      mlp.groups, mlp.vectors, {},         {}};
  for (int i = 0; i < mlp.layers; i++) {
    const int in = packed.width_in(i), out = packed.width_out(i), columns = padded_width(out);
    for (int k = 0; k < in; k++)
      for (int j = 0; j < columns; j++)
        memory[k * columns + j] = j < out ? mlp.weight[i][(size_t)j * in + k] : 0.0f;
    packed.weight[i] = memory;
    memory += (size_t)in * columns;
    for (int j = 0; j < columns; j++) memory[j] = j < out && mlp.bias[i] ? mlp.bias[i][j] : 0.0f;
    packed.bias[i] = memory;
    memory += columns;
  }
  return packed;
}

inline const float* frame_vectors(const PackedMlp& mlp, const MlpPoints& points, int64_t point) {
  return mlp.vectors +
         (points.rows ? (size_t)points.rows[point] : 0) * (size_t)mlp.groups * mlp.hidden;
}

// out (n, hidden): bias and what the frames add to points from `first` on.
inline void condition(const PackedMlp& mlp, const MlpPoints& points, int64_t first, int n,
                      float* out) {
  const int hidden = mlp.hidden;
  for (int p = 0; p < n; p++) {
    const float* vectors = frame_vectors(mlp, points, first + p);
    const float* gates = points.gates ? points.gates + (first + p) * mlp.groups : nullptr;
    for (int j = 0; j < hidden; j += kWidth) {
      Vec sum = load(mlp.bias[0] + j);
      for (int g = 0; g < mlp.groups; g++)
        sum = madd(set(gates ? gates[g] : 1.0f), load(vectors + g * hidden + j), sum);
      store(out + (size_t)p * hidden + j, sum);
    }
  }
}

// Activations of a hidden layer: n <= kMlpBatch points from `first` on, to out (n, hidden).
inline void hidden_layer(const PackedMlp& mlp, int layer, const MlpPoints& points, int64_t first,
                         int n, const float* x, int x_stride, float* out) {
  const bool conditioned = layer == 0 && mlp.groups;
  if (conditioned) condition(mlp, points, first, n, out);
  multiply(x, x_stride, n, mlp.width_in(layer), mlp.weight[layer], mlp.hidden,
           conditioned ? nullptr : mlp.bias[layer], true, out, mlp.hidden);
}

// The MLP of n <= kMlpBatch points, x (n, x_stride); gates and rows are those from `first` on.
// out: (n, kMlpPadding), the outputs first.
inline void mlp_batch(const PackedMlp& mlp, const MlpPoints& points, int64_t first, int n,
                      const float* x, int x_stride, float* out) {
  alignas(64) float memory[2][kMlpBatch * kMostMlpWidth];
  for (int i = 0; i + 1 < mlp.layers; i++) {
    hidden_layer(mlp, i, points, first, n, x, x_stride, memory[i & 1]);
    x = memory[i & 1];
    x_stride = mlp.hidden;
  }
  const int last = mlp.layers - 1;
  multiply(x, x_stride, n, mlp.hidden, mlp.weight[last], padded_width(mlp.outputs), mlp.bias[last], false,
           out, kMlpPadding);
}

void mlp_forward(const MlpInput& in, const MlpPoints& points, float* out, Buffer& scratch,
                 int threads) {
  const PackedMlp mlp = pack_mlp(in, reserve<float>(scratch, packed_mlp_floats(in)));
  constexpr int kBatches = 8;  // of a piece of work
  const int pieces = (int)((points.count + kBatches * kMlpBatch - 1) / (kBatches * kMlpBatch));
  parallel_for(pieces, threads, [&](int piece, int) {
    alignas(64) float result[kMlpBatch * kMlpPadding];
    for (int b = 0; b < kBatches; b++) {
      const int64_t first = ((int64_t)piece * kBatches + b) * kMlpBatch;
      const int64_t left = points.count - first;
      if (left <= 0) break;
      const int n = left < kMlpBatch ? (int)left : kMlpBatch;
      mlp_batch(mlp, points, first, n, points.inputs + first * mlp.inputs, mlp.inputs, result);
      for (int p = 0; p < n; p++)
        memcpy(out + (first + p) * mlp.outputs, result + p * kMlpPadding,
               sizeof(float) * (size_t)mlp.outputs);
    }
  });
}

}  // namespace
