// AdamW for a basis whose gradient is a sum of outer products, made and used in registers: one
// thread a number, all reads and writes in order. cuda/cpu/adam.h is the twin.
#include "avatar3d/adam.h"

namespace {

constexpr int kThreads = 256;

}  // namespace

// parameter, exp_avg, exp_avg_sq: (rows, size); row_gradients: (frames, rows); weights: (frames,
// size). The gradient is the sum over frames of their outer products. rows * size < 2^32.
extern "C" __global__ void __launch_bounds__(kThreads)
    outer_adamw(int frames, int rows, int size, const float* __restrict__ row_gradients,
                const float* __restrict__ weights, float* __restrict__ parameter,
                float* __restrict__ exp_avg, float* __restrict__ exp_avg_sq, float keep,
                float beta2, float gain1, float gain2, float rate, float inverse_root, float eps) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  const unsigned row = i / (unsigned)size, k = i % (unsigned)size;
  if (row >= (unsigned)rows) return;
  float gradient = 0.0f;
  for (int frame = 0; frame < frames; frame++)
    gradient += row_gradients[(size_t)frame * rows + row] * weights[(size_t)frame * size + k];
  const avatar3d::AdamWStep step = {keep, beta2, gain1, gain2, rate, inverse_root, eps};
  float p = parameter[i], m = exp_avg[i], v = exp_avg_sq[i];
  avatar3d::adamw(step, gradient, p, m, v);
  parameter[i] = p, exp_avg[i] = m, exp_avg_sq[i] = v;
}
