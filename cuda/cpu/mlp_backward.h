// Gradients of the conditioned MLP. Activations are computed again, which is faster than to store
// and fetch them. Points come in pieces whose number depends on that of the points alone; each has
// its own sums, which are added in order: the same bits on any number of threads.
#pragma once

#include "mlp.h"

namespace {

constexpr int kMostMlpPieces = 64;
constexpr int kBatchesOfPiece = 8;                  // at least
constexpr size_t kMostVectorSums = (size_t)1 << 24;  // floats, of all pieces

// sums[i][j] += sum over p of a[p][i] b[p][j] for R rows and C vectors.
template <int R, int C>
A3D_INLINE void outer_tile(const float* A3D_RESTRICT a, int a_stride, const float* A3D_RESTRICT b,
                           int b_stride, int n, float* A3D_RESTRICT sums, int columns) {
  Vec sum[R][C];
  A3D_UNROLL(8)
  for (int r = 0; r < R; r++)
    A3D_UNROLL(8)
    for (int c = 0; c < C; c++) sum[r][c] = load(sums + r * columns + c * kWidth);
  for (int p = 0; p < n; p++) {
    Vec v[C];
    A3D_UNROLL(8)
    for (int c = 0; c < C; c++) v[c] = load(b + p * b_stride + c * kWidth);
    A3D_UNROLL(8)
    for (int r = 0; r < R; r++) {
      const Vec u = set(a[p * a_stride + r]);
      A3D_UNROLL(8)
      for (int c = 0; c < C; c++) sum[r][c] = madd(u, v[c], sum[r][c]);
    }
  }
  A3D_UNROLL(8)
  for (int r = 0; r < R; r++)
    A3D_UNROLL(8)
    for (int c = 0; c < C; c++) store(sums + r * columns + c * kWidth, sum[r][c]);
}

template <int C>
inline void outer_columns(const float* a, int a_stride, int rows, const float* b, int b_stride,
                          int n, float* sums, int columns) {
  int r = 0;
  for (; r + kMlpTileRows <= rows; r += kMlpTileRows)
    outer_tile<kMlpTileRows, C>(a + r, a_stride, b, b_stride, n, sums + r * columns, columns);
  for (; r + 4 <= rows; r += 4)
    outer_tile<4, C>(a + r, a_stride, b, b_stride, n, sums + r * columns, columns);
  for (; r < rows; r++)
    outer_tile<1, C>(a + r, a_stride, b, b_stride, n, sums + r * columns, columns);
}

// sums (rows, columns) += a^T b, with a (n, rows) and b (n, columns).
inline void add_outer(const float* a, int a_stride, int rows, const float* b, int b_stride, int n,
                      float* sums, int columns) {
  int j = 0;
  for (; j + kMlpTileVecs * kWidth <= columns; j += kMlpTileVecs * kWidth)
    outer_columns<kMlpTileVecs>(a, a_stride, rows, b + j, b_stride, n, sums + j, columns);
  for (; j < columns; j += kWidth)
    outer_columns<1>(a, a_stride, rows, b + j, b_stride, n, sums + j, columns);
}

// Where a piece keeps its sums: floats from its beginning.
struct MlpSums {
  size_t weight[kMostMlpLayers];  // (out, padded in)
  size_t bias[kMostMlpLayers];    // (padded out,)
  size_t floats;

  explicit MlpSums(const PackedMlp& mlp) {
    floats = 0;
    for (int i = 0; i < mlp.layers; i++) {
      weight[i] = floats;
      floats += (size_t)mlp.width_out(i) * padded_width(mlp.width_in(i));
      bias[i] = floats;
      floats += (size_t)padded_width(mlp.width_out(i));
    }
  }
};

// A thread's memory for one batch.
struct MlpWorkspace {
  float* inputs;                         // (kMlpBatch, padded inputs)
  float* active[kMostMlpLayers];         // (kMlpBatch, hidden)
  float *gradient, *other;               // (kMlpBatch, the widest)

  static size_t widest(const PackedMlp& mlp) {
    return (size_t)larger(mlp.hidden, padded_width(mlp.inputs));
  }
  static size_t floats(const PackedMlp& mlp) {
    return kMlpBatch * (padded_width(mlp.inputs) + (size_t)mlp.layers * mlp.hidden + 2 * widest(mlp));
  }
  MlpWorkspace(const PackedMlp& mlp, float* memory) {
    inputs = memory;
    memory += kMlpBatch * padded_width(mlp.inputs);
    for (int i = 0; i < mlp.layers; i++, memory += kMlpBatch * mlp.hidden) active[i] = memory;
    gradient = memory;
    other = memory + kMlpBatch * widest(mlp);
  }
};

struct MlpBackward {
  const PackedMlp& mlp;
  const MlpPoints& points;
  const MlpGradient& out;
  const float* const* backwards;  // of each layer (out, padded in)
  const float* zeros;             // as many as the widest layer
  const MlpSums& sums;

  void run(int64_t first, int n, const MlpWorkspace& work, float* own, float* vector_sums,
           uint8_t* seen) const {
    const int in = padded_width(mlp.inputs);
    for (int p = 0; p < n; p++) {
      const float* x = points.inputs + (first + p) * mlp.inputs;
      for (int k = 0; k < in; k++) work.inputs[p * in + k] = k < mlp.inputs ? x[k] : 0.0f;
    }
    const int last = mlp.layers - 1;
    for (int i = 0; i < last; i++)
      hidden_layer(mlp, i, points, first, n, i ? work.active[i - 1] : work.inputs,
                   i ? mlp.hidden : in, work.active[i]);
    const float* gradient = out.v_outputs + first * mlp.outputs;
    int stride = mlp.outputs;
    float *room = work.gradient, *spare = work.other;
    for (int i = last; i >= 0; i--) {
      add_sums(i, gradient, stride, n, work, own);
      if (i == 0) break;
      multiply(gradient, stride, n, mlp.width_out(i), backwards[i], mlp.hidden, zeros, false, room,
               mlp.hidden);
      rectify(work.active[i - 1], (size_t)n * mlp.hidden, room);
      gradient = room;
      stride = mlp.hidden;
      float* swapped = room;
      room = spare, spare = swapped;
    }
    if (mlp.groups) add_conditions(first, n, gradient, vector_sums, seen);
    if (!out.inputs) return;
    multiply(gradient, stride, n, mlp.hidden, backwards[0], in, zeros, false, room, in);
    for (int p = 0; p < n; p++)
      memcpy(out.inputs + (first + p) * mlp.inputs, room + p * in,
             sizeof(float) * (size_t)mlp.inputs);
  }

  void add_sums(int layer, const float* gradient, int stride, int n, const MlpWorkspace& work,
                float* own) const {
    const int width = mlp.width_out(layer);
    add_outer(gradient, stride, width, layer ? work.active[layer - 1] : work.inputs,
              padded_width(mlp.width_in(layer)), n, own + sums.weight[layer], padded_width(mlp.width_in(layer)));
    float* bias = own + sums.bias[layer];
    for (int p = 0; p < n; p++)
      for (int j = 0; j < width; j++) bias[j] += gradient[p * stride + j];
  }

  static void rectify(const float* active, size_t count, float* gradient) {
    for (size_t i = 0; i < count; i += kWidth)
      store(gradient + i, keep(gt(load(active + i), set(0.0f)), load(gradient + i)));
  }

  // gradient: (n, hidden), before the first ReLU.
  void add_conditions(int64_t first, int n, const float* gradient, float* vector_sums,
                      uint8_t* seen) const {
    const int hidden = mlp.hidden, groups = mlp.groups;
    for (int p = 0; p < n; p++, gradient += hidden) {
      const int64_t i = first + p;
      const float* vectors = frame_vectors(mlp, points, i);
      if (out.gates)
        for (int g = 0; g < groups; g++) {
          Vec dot = set(0.0f);
          for (int j = 0; j < hidden; j += kWidth)
            dot = madd(load(vectors + g * hidden + j), load(gradient + j), dot);
          out.gates[i * groups + g] = ::sum(dot);
        }
      if (!out.vectors) continue;
      const size_t row = points.rows ? (size_t)points.rows[i] : 0;
      float* own = vector_sums + row * (size_t)groups * hidden;
      if (!seen[row]) memset(own, 0, sizeof(float) * (size_t)groups * hidden);
      seen[row] = 1;
      for (int g = 0; g < groups; g++) {
        const Vec gate = set(points.gates ? points.gates[i * groups + g] : 1.0f);
        for (int j = 0; j < hidden; j += kWidth)
          store(own + g * hidden + j,
                madd(gate, load(gradient + j), load(own + g * hidden + j)));
      }
    }
  }
};

// Adds up the pieces' sums and writes them without padding.
inline void write_sums(const PackedMlp& mlp, const MlpSums& sums, float* own, int pieces,
                       const MlpGradient& out, int threads) {
  constexpr size_t kChunk = 1024;
  parallel_for((int)((sums.floats + kChunk - 1) / kChunk), threads, [&](int chunk, int) {
    const size_t begin = chunk * kChunk;
    const size_t end = begin + kChunk < sums.floats ? begin + kChunk : sums.floats;
    for (int piece = 1; piece < pieces; piece++) {
      const float* other = own + (size_t)piece * sums.floats;
      for (size_t i = begin; i < end; i++) own[i] += other[i];
    }
  });
  for (int i = 0; i < mlp.layers; i++) {
    const int in = mlp.width_in(i), width = mlp.width_out(i);
    for (int j = 0; j < width && out.weight[i]; j++)
      memcpy(out.weight[i] + (size_t)j * in, own + sums.weight[i] + (size_t)j * padded_width(in),
             sizeof(float) * (size_t)in);
    if (out.bias[i]) memcpy(out.bias[i], own + sums.bias[i], sizeof(float) * (size_t)width);
  }
}

inline void write_vectors(const PackedMlp& mlp, const float* vector_sums, const uint8_t* seen,
                          int pieces, float* out, int threads) {
  const size_t size = (size_t)mlp.groups * mlp.hidden, frames = (size_t)mlp.frames;
  parallel_for(mlp.frames, threads, [&](int frame, int) {
    float* total = out + (size_t)frame * size;
    memset(total, 0, sizeof(float) * size);
    for (int piece = 0; piece < pieces; piece++) {
      if (!seen[(size_t)piece * frames + frame]) continue;
      const float* own = vector_sums + ((size_t)piece * frames + frame) * size;
      for (size_t j = 0; j < size; j++) total[j] += own[j];
    }
  });
}

void mlp_backward(const MlpInput& in, const MlpPoints& points, const MlpGradient& out,
                  Buffer& scratch, int threads) {
  const int64_t batches = (points.count + kMlpBatch - 1) / kMlpBatch;
  const size_t vectors = out.vectors ? (size_t)in.frames * in.groups * in.hidden : 0;
  int64_t most = vectors ? (int64_t)(kMostVectorSums / vectors) : kMostMlpPieces;
  most = most < 1 ? 1 : (most < kMostMlpPieces ? most : kMostMlpPieces);
  const int64_t wanted = batches / kBatchesOfPiece;
  const int pieces = (int)(wanted < 1 ? 1 : (wanted < most ? wanted : most));

  const size_t packed = packed_mlp_floats(in);
  PackedMlp shape = {in.layers, in.inputs, in.hidden, in.outputs, in.frames, in.groups,
                     nullptr,   {},        {}};
  const MlpSums sums(shape);
  const size_t widest = MlpWorkspace::widest(shape), workspace = MlpWorkspace::floats(shape);
  const size_t marks = vectors ? ((size_t)pieces * in.frames + 63) / 64 * 16 : 0;  // floats
  float* memory = reserve<float>(scratch, packed + sums.floats * (pieces + 1) + widest + marks +
                                              workspace * threads + vectors * pieces + 64);
  const PackedMlp mlp = pack_mlp(in, memory);
  memory += packed;
  const float* backwards[kMostMlpLayers];
  for (int i = 0; i < in.layers; i++) {
    const int width = mlp.width_in(i), columns = padded_width(width);
    backwards[i] = memory + sums.weight[i];
    for (int j = 0; j < mlp.width_out(i); j++)
      for (int k = 0; k < columns; k++)
        memory[sums.weight[i] + (size_t)j * columns + k] =
            k < width ? in.weight[i][(size_t)j * width + k] : 0.0f;
  }
  memory += sums.floats;
  float* zeros = memory;
  memset(zeros, 0, sizeof(float) * widest);
  uint8_t* seen = reinterpret_cast<uint8_t*>(memory + widest);
  memset(seen, 0, sizeof(float) * marks);
  float* own = memory + widest + marks;
  float* workspaces = own + sums.floats * pieces;
  float* vector_sums = workspaces + workspace * threads;

  const MlpBackward backward = {mlp, points, out, backwards, zeros, sums};
  parallel_for(pieces, threads, [&](int piece, int worker) {
    const MlpWorkspace work(mlp, workspaces + workspace * worker);
    float* piece_sums = own + sums.floats * piece;
    memset(piece_sums, 0, sizeof(float) * sums.floats);
    for (int64_t b = batches * piece / pieces; b < batches * (piece + 1) / pieces; b++) {
      const int64_t first = b * kMlpBatch, left = points.count - first;
      backward.run(first, left < kMlpBatch ? (int)left : kMlpBatch, work, piece_sums,
                   vector_sums + vectors * piece, seen + (size_t)in.frames * piece);
    }
  });
  write_sums(mlp, sums, own, pieces, out, threads);
  if (out.vectors) write_vectors(mlp, vector_sums, seen, pieces, out.vectors, threads);
}

}  // namespace
