// Fused L1 + SSIM over interleaved (H, W, 3) images, as cuda/cpu/ssim_loss.h does it: a row is 3 W
// floats and the window's taps along it lie 3 floats apart, so the three channels need no planes
// and every load is coalesced. Windows are separable, through shared memory.
//
//   ssim_forward   a tile of both images -> its share of the loss, and the three derivative maps
//   ssim_backward  a tile of the maps -> the gradient at the image
#include "avatar3d/ssim.h"

namespace {

using namespace avatar3d;

constexpr int kThreads = 256;
constexpr int kColumns = 48;  // floats of a tile's row: 16 pixels
constexpr int kRows = 16;
constexpr int kReach = 3 * kSsimRadius;  // floats that a window reaches along the row
constexpr int kSourceColumns = kColumns + 2 * kReach;
constexpr int kSourceRows = kRows + 2 * kSsimRadius;

struct Image {
  int columns, rows;  // floats in a row, rows
  __device__ bool has(int x, int y) const { return x >= 0 && x < columns && y >= 0 && y < rows; }
  __device__ size_t at(int x, int y) const { return (size_t)y * columns + x; }
};

// One plane of a tile with its surroundings; zero outside of the image.
__device__ void load_tile(const Image& image, const float* plane, int x0, int y0,
                          float tile[kSourceRows][kSourceColumns]) {
  for (int i = threadIdx.x; i < kSourceRows * kSourceColumns; i += kThreads) {
    const int row = i / kSourceColumns, column = i % kSourceColumns;
    const int x = x0 + column - kReach, y = y0 + row - kSsimRadius;
    tile[row][column] = image.has(x, y) ? plane[image.at(x, y)] : 0.0f;
  }
}

// The sum over the block; every thread takes part, thread 0 gets it.
__device__ float block_sum(float value) {
  __shared__ float sums[kThreads];
  sums[threadIdx.x] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  return sums[threadIdx.x];
}

}  // namespace

// x, y: (height, width, 3); weight: (height, width) or null. loss = sum over values of
// weight (l1_factor |x - y| + ssim_factor (1 - ssim)), one partial sum per block, which the caller
// adds up. maps: (3, height, width, 3), d loss / d each moment at every window, or null.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    ssim_forward(const float* __restrict__ x, const float* __restrict__ y,
                 const float* __restrict__ weight, float* __restrict__ partial_loss,
                 float* __restrict__ maps, int height, int width, float l1_factor,
                 float ssim_factor) {
  __shared__ float tile_x[kSourceRows][kSourceColumns], tile_y[kSourceRows][kSourceColumns];
  __shared__ float4 along[kSourceRows][kColumns];  // windowed along the rows: x, y, x^2 + y^2, x y
  const Image image = {3 * width, height};
  const int x0 = blockIdx.x * kColumns, y0 = blockIdx.y * kRows;
  load_tile(image, x, x0, y0, tile_x);
  load_tile(image, y, x0, y0, tile_y);
  __syncthreads();

  for (int i = threadIdx.x; i < kSourceRows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    float4 m = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < kSsimTaps; k++) {
      const float a = tile_x[row][column + 3 * k], b = tile_y[row][column + 3 * k];
      const float w = kSsimWindow[k];
      m.x += w * a, m.y += w * b, m.z += w * (a * a + b * b), m.w += w * (a * b);
    }
    along[row][column] = m;
  }
  __syncthreads();

  float loss = 0.0f;
  for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    if (!image.has(x0 + column, y0 + row)) continue;
    float4 m = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < kSsimTaps; k++) {
      const float4 v = along[row + k][column];
      const float w = kSsimWindow[k];
      m.x += w * v.x, m.y += w * v.y, m.z += w * v.z, m.w += w * v.w;
    }
    const SsimPoint<float> s = ssim_point(m.x, m.y, m.z, m.w);
    const size_t at = image.at(x0 + column, y0 + row);
    const float w = weight ? weight[at / 3] : 1.0f;
    const float difference =
        tile_x[row + kSsimRadius][column + kReach] - tile_y[row + kSsimRadius][column + kReach];
    loss += w * (l1_factor * fabsf(difference) + ssim_factor * (1.0f - s.value));
    if (!maps) continue;
    const size_t plane = image.at(0, height);
    const float f = -ssim_factor * w;
    maps[at] = f * s.d_mean, maps[plane + at] = f * s.d_squares;
    maps[2 * plane + at] = f * s.d_product;
  }
  loss = block_sum(loss);
  if (threadIdx.x == 0) partial_loss[blockIdx.y * gridDim.x + blockIdx.x] = loss;
}

// gradient: (height, width, 3), of the loss at x. The window is symmetric, so carrying the maps
// back through it is windowing them once more.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    ssim_backward(const float* __restrict__ x, const float* __restrict__ y,
                  const float* __restrict__ weight, const float* __restrict__ maps,
                  float* __restrict__ gradient, int height, int width, float l1_factor) {
  __shared__ float tile[3][kSourceRows][kSourceColumns];
  __shared__ float along[3][kSourceRows][kColumns];
  const Image image = {3 * width, height};
  const int x0 = blockIdx.x * kColumns, y0 = blockIdx.y * kRows;
  for (int map = 0; map < 3; map++)
    load_tile(image, maps + map * image.at(0, height), x0, y0, tile[map]);
  __syncthreads();

  for (int i = threadIdx.x; i < kSourceRows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    for (int map = 0; map < 3; map++) {
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < kSsimTaps; k++) sum += kSsimWindow[k] * tile[map][row][column + 3 * k];
      along[map][row][column] = sum;
    }
  }
  __syncthreads();

  for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    if (!image.has(x0 + column, y0 + row)) continue;
    float d[3] = {0.0f, 0.0f, 0.0f};  // at E[x], E[x^2 + y^2], E[x y] of this pixel
#pragma unroll
    for (int k = 0; k < kSsimTaps; k++)
      for (int map = 0; map < 3; map++) d[map] += kSsimWindow[k] * along[map][row + k][column];
    const size_t at = image.at(x0 + column, y0 + row);
    const float a = x[at], b = y[at];
    const float l1 = l1_factor * (weight ? weight[at / 3] : 1.0f);
    const float sign = a > b ? l1 : (a < b ? -l1 : 0.0f);
    gradient[at] = d[0] + 2.0f * a * d[1] + b * d[2] + sign;
  }
}
