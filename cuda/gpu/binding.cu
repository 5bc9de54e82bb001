// Gaussians from the frame of the mesh they ride on to the camera's frame, and back: one thread a
// Gaussian. The contract is that of avatar3d.kernels.bind_gaussians; cuda/cpu/bind.h is the twin.
//
// The basis (with_basis, 10, K) is most of the memory traffic, so its rows are not read by the
// Gaussians' threads but by groups of eight lanes, which fill whole 32-byte sectors at any K.
#include "avatar3d/binding.h"

namespace {

using namespace avatar3d;

constexpr int kThreads = 128;  // also the Gaussians of a block
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kLanes = 8;  // that share a row of the basis
constexpr int kGroups = kThreads / kLanes;
constexpr int kBasisRows = 10;   // position 3, quat 4, color 3
constexpr int kCameraSums = 24;  // head, then torso, (3, 4) each

// N Gaussians of which the first `bound` ride on triangles and the first `with_basis` have
// blendshapes; K blendshape weights.
struct Sizes {
  int count, bound, with_basis, basis_size;
};

struct Rig {
  const float *vertices, *bary;
  const int* corners;
};

// Where a Gaussian is attached: the point and the rotation that its offset is relative to.
struct Anchor {
  float point[3], frame[9], quat[4];
};

// Ten values a Gaussian of the block; 11 and 32 banks have no common divisor.
typedef float BlockRows[kThreads][kBasisRows + 1];

__device__ int block_rows(const Sizes& n) {
  const int blended = n.basis_size ? n.with_basis - (int)blockIdx.x * kThreads : 0;
  return kBasisRows * (blended < 0 ? 0 : (blended < kThreads ? blended : kThreads));
}

__device__ size_t block_basis(const Sizes& n) {
  return (size_t)blockIdx.x * kThreads * kBasisRows * n.basis_size;
}

__device__ void load_carriers(const float* head, const float* torso, RigidTransform carriers[2]) {
  if (threadIdx.x < 2) carriers[threadIdx.x] = rigid_of(threadIdx.x ? torso : head);
}

// units * (basis @ weights) of the block's Gaussians. All threads take part.
__device__ void blend_basis(const Sizes& n, const float* basis, const float* weights,
                            const float* units, BlockRows deltas) {
  const int rows = block_rows(n), lane = threadIdx.x % kLanes;
  for (int first = 0; first < rows; first += kGroups) {
    const int row = first + threadIdx.x / kLanes;
    const float* values = basis + block_basis(n) + (size_t)row * n.basis_size;
    float sum = 0.0f;
    for (int k = lane; row < rows && k < n.basis_size; k += kLanes) sum += values[k] * weights[k];
    for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    if (lane == 0 && row < rows)
      deltas[row / kBasisRows][row % kBasisRows] = sum * units[row % kBasisRows];
  }
}

__device__ Anchor anchor_of(const Sizes& n, const Rig& rig, int i) {
  Anchor a = {{0, 0, 0}, {1, 0, 0, 0, 1, 0, 0, 0, 1}, {1, 0, 0, 0}};
  if (i >= n.bound) return a;
  float corner[3][3];
  for (int c = 0; c < 3; c++) {
    const float share = rig.bary[3 * i + c];
    for (int k = 0; k < 3; k++) {
      corner[c][k] = rig.vertices[3 * (size_t)rig.corners[3 * i + c] + k];
      a.point[k] += share * corner[c][k];
    }
  }
  triangle_frame(corner[0], corner[1], corner[2], a.frame);
  quaternion_of(a.frame, a.quat);
  return a;
}

__device__ void place(const Anchor& a, const float position[3], float point[3]) {
  for (int k = 0; k < 3; k++) point[k] = a.point[k] + dot3(a.frame + 3 * k, position);
}

__device__ float warp_sum(float value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Sums over the block of v_mean [point, 1]^T, split between head and torso. All threads take part.
__device__ void camera_sums(const float v_mean[3], const float point[3], float torso_share,
                            float* out) {
  __shared__ float sums[kThreads / kWarp][kCameraSums];
  for (int c = 0; c < 2; c++)
    for (int i = 0; i < 3; i++)
      for (int k = 0; k < 4; k++) {
        const float share = c ? torso_share : 1.0f - torso_share;
        const float sum = warp_sum(share * v_mean[i] * (k < 3 ? point[k] : 1.0f));
        if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp][12 * c + 4 * i + k] = sum;
      }
  __syncthreads();
  if (threadIdx.x >= kCameraSums) return;
  float total = 0.0f;
  for (int warp = 0; warp < kThreads / kWarp; warp++) total += sums[warp][threadIdx.x];
  out[threadIdx.x] = total;
}

// From the gradients at the block's blends, `rows`, to those at the basis, (with_basis, 10, K), and
// the block's sums at the weights, (K,); null ones are left out. All threads take part.
__device__ void basis_backward(const Sizes& n, const float* basis, const float* weights,
                               const BlockRows rows, float* grad_basis, float* weight_sums) {
  __shared__ float sums[kGroups][kLanes];
  const int used = block_rows(n), lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  for (int first = 0; first < n.basis_size; first += kLanes) {
    const int k = first + lane;
    float sum = 0.0f;
    for (int row = group; row < used && k < n.basis_size; row += kGroups) {
      const size_t at = block_basis(n) + (size_t)row * n.basis_size + k;
      const float v = rows[row / kBasisRows][row % kBasisRows];
      if (grad_basis) grad_basis[at] = v * weights[k];
      if (weight_sums) sum += v * basis[at];
    }
    if (!weight_sums) continue;
    sums[group][lane] = sum;
    __syncthreads();
    if (group == 0 && k < n.basis_size) {
      float total = 0.0f;
      for (int g = 0; g < kGroups; g++) total += sums[g][lane];
      weight_sums[k] = total;
    }
    __syncthreads();
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 8)
    bind_forward(int count, int bound, int with_basis, int basis_size,
                 const float* __restrict__ position, const float* __restrict__ quat,
                 const float* __restrict__ log_scale, const float* __restrict__ opacity,
                 const float* __restrict__ color, const float* __restrict__ basis,
                 const float* __restrict__ weights, const float* __restrict__ units,
                 const float* __restrict__ vertices, const int* __restrict__ corners,
                 const float* __restrict__ bary, const float* __restrict__ torso_weight,
                 const float* __restrict__ head, const float* __restrict__ torso,
                 float* __restrict__ means, float* __restrict__ quats, float* __restrict__ scales,
                 float* __restrict__ opacities, float* __restrict__ colors) {
  __shared__ RigidTransform carriers[2];
  __shared__ BlockRows deltas;
  const Sizes n = {count, bound, with_basis, basis_size};
  const int i = (int)(blockIdx.x * kThreads + threadIdx.x);
  load_carriers(head, torso, carriers);
  blend_basis(n, basis, weights, units, deltas);
  __syncthreads();
  if (i >= count) return;

  const bool blended = basis_size && i < with_basis;
  const float* delta = deltas[threadIdx.x];
  float offset[3], own[4], point[3], by_head[3], by_torso[3], turned[4], out[4];
  for (int k = 0; k < 3; k++) offset[k] = position[3 * i + k] + (blended ? delta[k] : 0.0f);
  for (int k = 0; k < 4; k++) own[k] = quat[4 * i + k] + (blended ? delta[3 + k] : 0.0f);
  const Anchor anchor = anchor_of(n, {vertices, bary, corners}, i);
  const float w = torso_weight[i];
  place(anchor, offset, point);
  apply_rigid(carriers[0], point, by_head);
  apply_rigid(carriers[1], point, by_torso);
  multiply_quaternions(carriers[w >= 0.5f].quat, anchor.quat, turned);
  multiply_quaternions(turned, own, out);
  for (int k = 0; k < 3; k++) means[3 * i + k] = by_head[k] + w * (by_torso[k] - by_head[k]);
  for (int k = 0; k < 4; k++) quats[4 * i + k] = out[k];
  for (int k = 0; k < 3; k++) scales[3 * i + k] = expf(log_scale[3 * i + k]);
  opacities[i] = 1.0f / (1.0f + expf(-opacity[i]));
  for (int k = 0; k < 3; k++)
    colors[3 * i + k] = color[3 * i + k] + (blended ? delta[7 + k] : 0.0f);
}

// v_*: gradients at the outputs. Of the other gradients, null ones are not computed; the five
// attributes go together, and those at basis @ weights, grad_blend (with_basis, 10), at the basis
// and at the weights need them. The caller adds up weight_sums (blocks, K) and pose_sums (blocks,
// 24). grad_vertices must be zero beforehand.
extern "C" __global__ void __launch_bounds__(kThreads, 8)
    bind_backward(int count, int bound, int with_basis, int basis_size,
                  const float* __restrict__ position, const float* __restrict__ log_scale,
                  const float* __restrict__ opacity, const float* __restrict__ basis,
                  const float* __restrict__ weights, const float* __restrict__ units,
                  const float* __restrict__ vertices, const int* __restrict__ corners,
                  const float* __restrict__ bary, const float* __restrict__ torso_weight,
                  const float* __restrict__ head, const float* __restrict__ torso,
                  const float* __restrict__ v_means, const float* __restrict__ v_quats,
                  const float* __restrict__ v_scales, const float* __restrict__ v_opacities,
                  const float* __restrict__ v_colors, float* __restrict__ grad_position,
                  float* __restrict__ grad_quat, float* __restrict__ grad_log_scale,
                  float* __restrict__ grad_opacity, float* __restrict__ grad_color,
                  float* __restrict__ grad_basis, float* __restrict__ grad_blend,
                  float* __restrict__ weight_sums, float* __restrict__ grad_vertices,
                  float* __restrict__ pose_sums) {
  __shared__ RigidTransform carriers[2];
  __shared__ BlockRows rows;  // deltas first, then the gradients at basis @ weights
  const Sizes n = {count, bound, with_basis, basis_size};
  const int i = (int)(blockIdx.x * kThreads + threadIdx.x);
  const bool used = i < count;
  load_carriers(head, torso, carriers);
  if (pose_sums) blend_basis(n, basis, weights, units, rows);
  __syncthreads();

  float w = 0.0f, v_mean[3] = {0, 0, 0}, v_point[3] = {0, 0, 0};
  Anchor anchor = {};
  if (used) {
    float by_head[3], by_torso[3];
    w = torso_weight[i];
    anchor = anchor_of(n, {vertices, bary, corners}, i);
    for (int k = 0; k < 3; k++) v_mean[k] = v_means[3 * i + k];
    rotate_back(carriers[0], v_mean, by_head);
    rotate_back(carriers[1], v_mean, by_torso);
    for (int k = 0; k < 3; k++) v_point[k] = by_head[k] + w * (by_torso[k] - by_head[k]);
  }
  if (grad_vertices && i < bound) {
    for (int c = 0; c < 3; c++)
      for (int k = 0; k < 3; k++)
        atomicAdd(&grad_vertices[3 * (size_t)corners[3 * i + c] + k], bary[3 * i + c] * v_point[k]);
  }
  if (pose_sums) {
    float point[3] = {0, 0, 0};
    if (used) {
      const bool blended = basis_size && i < with_basis;
      float offset[3];
      for (int k = 0; k < 3; k++)
        offset[k] = position[3 * i + k] + (blended ? rows[threadIdx.x][k] : 0.0f);
      place(anchor, offset, point);
    }
    camera_sums(v_mean, point, w, pose_sums + (size_t)blockIdx.x * kCameraSums);
  }
  if (!grad_position) return;

  if (used) {
    float turned[4], v[kBasisRows];
    for (int k = 0; k < 3; k++)  // rotated back into the triangle's frame
      v[k] = anchor.frame[k] * v_point[0] + anchor.frame[3 + k] * v_point[1] +
             anchor.frame[6 + k] * v_point[2];
    const float v_quat[4] = {v_quats[4 * i], v_quats[4 * i + 1], v_quats[4 * i + 2],
                             v_quats[4 * i + 3]};
    multiply_quaternions(carriers[w >= 0.5f].quat, anchor.quat, turned);
    multiply_conjugate(turned, v_quat, v + 3);
    for (int k = 0; k < 3; k++) v[7 + k] = v_colors[3 * i + k];
    for (int k = 0; k < 3; k++) grad_position[3 * i + k] = v[k];
    for (int k = 0; k < 4; k++) grad_quat[4 * i + k] = v[3 + k];
    for (int k = 0; k < 3; k++) grad_color[3 * i + k] = v[7 + k];
    for (int k = 0; k < 3; k++)
      grad_log_scale[3 * i + k] = v_scales[3 * i + k] * expf(log_scale[3 * i + k]);
    const float o = 1.0f / (1.0f + expf(-opacity[i]));
    grad_opacity[i] = v_opacities[i] * o * (1.0f - o);
    for (int k = 0; k < kBasisRows; k++) {
      rows[threadIdx.x][k] = v[k] * units[k];
      if (grad_blend && i < with_basis) grad_blend[kBasisRows * i + k] = v[k] * units[k];
    }
  }
  if (!grad_basis && !weight_sums) return;
  __syncthreads();
  basis_backward(n, basis, weights, rows, grad_basis,
                 weight_sums ? weight_sums + (size_t)blockIdx.x * basis_size : nullptr);
}
