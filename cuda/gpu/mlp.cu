// The conditioned MLP; cuda/cpu/mlp.h is the twin. A block takes 32 points through all layers in
// shared memory. Gradients of weights are products of what these kernels leave behind, (N, H)
// matrices, which the caller multiplies.
//
//   mlp_forward   outputs, and the hidden layers' activations
//   mlp_backward  gradients at every layer's sums and at the inputs
#include "avatar3d/common.h"

namespace {

constexpr int kThreads = 256;
constexpr int kPoints = 32;         // of a block
constexpr int kPointsTogether = 8;  // of a thread, for one neuron
constexpr int kMostWidth = 128;     // of a layer
constexpr int kParts = kPoints / kPointsTogether;
constexpr int kUnits = kParts * kMostWidth / kThreads;  // neurons of a thread, at most

// A thread's share of a layer: the neurons of eight points each.
struct Sums {
  float value[kUnits][kPointsTogether];
};

// sums = x w, with x (kPoints, depth) in shared memory and w (depth, width). Every thread of the
// block has read x when this returns.
__device__ void multiply(float (*x)[kMostWidth], const float* __restrict__ w, int depth, int width,
                         Sums& sums) {
#pragma unroll
  for (int u = 0; u < kUnits; u++) {
#pragma unroll
    for (int p = 0; p < kPointsTogether; p++) sums.value[u][p] = 0.0f;
    const int unit = threadIdx.x + u * kThreads;
    if (unit >= kParts * width) continue;
    const int neuron = unit % width, first = unit / width * kPointsTogether;
    for (int k = 0; k < depth; k++) {
      const float weight = w[(size_t)k * width + neuron];
#pragma unroll
      for (int p = 0; p < kPointsTogether; p++) sums.value[u][p] += weight * x[first + p][k];
    }
  }
  __syncthreads();
}

// rows (count, width) from `first` on, to shared memory; zeros beyond the last.
__device__ void load_rows(float (*x)[kMostWidth], const float* __restrict__ rows, int first,
                          int count, int width) {
  for (int i = threadIdx.x; i < kPoints * width; i += kThreads) {
    const int p = i / width, k = i % width;
    x[p][k] = first + p < count ? rows[(size_t)(first + p) * width + k] : 0.0f;
  }
  __syncthreads();
}

}  // namespace

// weights: of each layer (in, out), one after the other; biases likewise. x: (count, inputs);
// gates: (count, groups) or null for ones; vectors: (F, groups, hidden) or null; rows: (count,) or
// null for zeros; active: (layers - 1, count, hidden) or null; out: (count, outputs).
extern "C" __global__ void __launch_bounds__(kThreads)
    mlp_forward(int count, int layers, int inputs, int hidden, int outputs, int groups,
                const float* __restrict__ weights, const float* __restrict__ biases,
                const float* __restrict__ x, const float* __restrict__ gates,
                const float* __restrict__ vectors, const int* __restrict__ rows,
                float* __restrict__ active, float* __restrict__ out) {
  __shared__ float tile[kPoints][kMostWidth];
  const int begin = blockIdx.x * kPoints;
  load_rows(tile, x, begin, count, inputs);
  int depth = inputs;
  for (int layer = 0; layer < layers; layer++) {
    const bool last = layer + 1 == layers;
    const int width = last ? outputs : hidden;
    Sums sums;
    multiply(tile, weights, depth, width, sums);
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      const int unit = threadIdx.x + u * kThreads;
      if (unit >= kParts * width) continue;
      const int neuron = unit % width, first = unit / width * kPointsTogether;
#pragma unroll
      for (int p = 0; p < kPointsTogether; p++) {
        const int at = begin + first + p;
        if (at >= count) continue;
        float value = sums.value[u][p] + biases[neuron];
        if (layer == 0 && vectors) {
          const float* own = vectors + (size_t)(rows ? rows[at] : 0) * groups * hidden;
          for (int g = 0; g < groups; g++)
            value += (gates ? gates[(size_t)at * groups + g] : 1.0f) * own[g * hidden + neuron];
        }
        if (last) {
          out[(size_t)at * outputs + neuron] = value;
          continue;
        }
        value = value < 0.0f ? 0.0f : value;  // NaN stays
        tile[first + p][neuron] = value;
        if (active) active[((size_t)layer * count + at) * hidden + neuron] = value;
      }
    }
    __syncthreads();
    weights += depth * width, biases += width, depth = width;
  }
}

// weights: of each layer (out, in), the last layer first. active: as above. v_sums: (layers - 1,
// count, hidden), gradients before each ReLU; v_inputs: (count, inputs), or null.
extern "C" __global__ void __launch_bounds__(kThreads)
    mlp_backward(int count, int layers, int inputs, int hidden, int outputs,
                 const float* __restrict__ weights, const float* __restrict__ active,
                 const float* __restrict__ v_outputs, float* __restrict__ v_sums,
                 float* __restrict__ v_inputs) {
  __shared__ float tile[kPoints][kMostWidth];
  const int begin = blockIdx.x * kPoints;
  load_rows(tile, v_outputs, begin, count, outputs);
  int depth = outputs;
  for (int layer = layers - 1; layer >= 0; layer--) {
    if (layer == 0 && !v_inputs) break;
    const int width = layer ? hidden : inputs;
    Sums sums;
    multiply(tile, weights, depth, width, sums);
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      const int unit = threadIdx.x + u * kThreads;
      if (unit >= kParts * width) continue;
      const int neuron = unit % width, first = unit / width * kPointsTogether;
#pragma unroll
      for (int p = 0; p < kPointsTogether; p++) {
        const int at = begin + first + p;
        if (at >= count) continue;
        if (layer == 0) {
          v_inputs[(size_t)at * inputs + neuron] = sums.value[u][p];
          continue;
        }
        const size_t to = ((size_t)(layer - 1) * count + at) * hidden + neuron;
        const float value = active[to] > 0.0f ? sums.value[u][p] : 0.0f;
        tile[first + p][neuron] = value;
        v_sums[to] = value;
      }
    }
    __syncthreads();
    weights += depth * width, depth = width;
  }
}
