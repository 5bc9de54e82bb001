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

// Adam for the rows of a table that have a gradient, which is cleared; cuda/cpu/sparse_adam.h is the
// twin. table, gradient, exp_avg, exp_avg_sq: (rows, size); corrections: (correction_count, 2).
extern "C" __global__ void __launch_bounds__(kThreads)
    sparse_adam(int rows, int size, int correction_count, const float* __restrict__ corrections,
                float* __restrict__ table, float* __restrict__ gradient,
                float* __restrict__ exp_avg, float* __restrict__ exp_avg_sq,
                int* __restrict__ steps, float lr, float beta1, float beta2, float eps) {
  const int row = blockIdx.x * kThreads + threadIdx.x;
  if (row >= rows) return;
  const size_t first = (size_t)row * size;
  bool zero = true, finite = true;
  for (int f = 0; f < size; f++) {
    const float g = gradient[first + f];
    zero &= g == 0.0f;
    finite &= g - g == 0.0f;
  }
  if (zero) return;
  if (finite) {
    int t = steps[row];
    t += t < 0x7fffffff;
    steps[row] = t;
    t = t < correction_count ? t : correction_count - 1;
    const avatar3d::AdamWStep step = {1.0f,         beta2,
                                      1.0f - beta1, 1.0f - beta2,
                                      lr * corrections[2 * t], corrections[2 * t + 1],
                                      eps};
    for (int f = 0; f < size; f++) {
      const size_t i = first + f;
      float p = table[i], m = exp_avg[i], v = exp_avg_sq[i];
      avatar3d::adamw(step, gradient[i], p, m, v);
      table[i] = p, exp_avg[i] = m, exp_avg_sq[i] = v;
    }
  }
  for (int f = 0; f < size; f++) gradient[first + f] = 0.0f;
}
