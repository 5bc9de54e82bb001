// Gaussians from the frame of the mesh they ride on to the camera's frame, and back.
#pragma once

#include "avatar3d/binding.h"
#include "lanes.h"
#include "parallel.h"

namespace {

using namespace avatar3d;

constexpr int kBasisRows = 10;  // position 3, quat 4, color 3

// Sum over k of basis[row][k] weights[k] for the ten rows of one Gaussian, times the units.
inline void blend_basis(const BindInput& in, int gaussian, float* delta) {
  Vec acc[kSums];
  for (int r = 0; r < kSums; r++) acc[r] = set(0.0f);
  const int size = in.basis_size;
  const float* rows = in.basis + (size_t)gaussian * kBasisRows * size;
  int k = 0;
  for (; k + kWidth <= size; k += kWidth) {
    const Vec w = load(in.weights + k);
    for (int r = 0; r < kBasisRows; r++) acc[r] = madd(load(rows + r * size + k), w, acc[r]);
  }
  if (k < size) {
    const Vec w = load_part(in.weights + k, size - k);
    for (int r = 0; r < kBasisRows; r++)
      acc[r] = madd(load_part(rows + r * size + k, size - k), w, acc[r]);
  }
  store_sums(delta, acc);
  for (int r = 0; r < kBasisRows; r++) delta[r] *= in.units[r];
}

// kWidth Gaussians with their blendshapes applied.
struct BoundBatch {
  Lanes position[3], quat[4], color[3];
};

inline BoundBatch load_bound(const BindInput& in, int first, int n) {
  const size_t i = (size_t)first;
  BoundBatch b;
  load_columns<3>(in.position + 3 * i, n, b.position);
  load_columns<4>(in.quat + 4 * i, n, b.quat);
  load_columns<3>(in.color + 3 * i, n, b.color);
  const int blended = in.basis_size ? smaller(n, in.with_basis - first) : 0;
  if (blended <= 0) return b;
  alignas(64) float deltas[kWidth][kSums] = {{0}};
  for (int l = 0; l < blended; l++) blend_basis(in, first + l, deltas[l]);
  Lanes delta[kSums];
  load_columns<kSums>(&deltas[0][0], kWidth, delta);
  for (int k = 0; k < 3; k++) {
    b.position[k] = b.position[k] + delta[k];
    b.color[k] = b.color[k] + delta[7 + k];
  }
  for (int k = 0; k < 4; k++) b.quat[k] = b.quat[k] + delta[3 + k];
  return b;
}

// Where kWidth Gaussians are attached: the point and the rotation that their offset is relative to.
struct Anchor {
  Lanes point[3], frame[9], quat[4];
};

inline Anchor anchor_of(const BindInput& in, int first, int n) {
  Anchor a;
  const Lanes zero(0.0f), one(1.0f);
  if (first >= in.bound) {
    for (int k = 0; k < 3; k++) a.point[k] = zero;
    for (int k = 0; k < 9; k++) a.frame[k] = k % 4 ? zero : one;
    for (int k = 0; k < 4; k++) a.quat[k] = k ? zero : one;
    return a;
  }
  alignas(64) float columns[9][kWidth];
  for (int l = 0; l < kWidth; l++) {
    const int32_t* corner = in.corners + 3 * (size_t)(first + (l < n ? l : 0));
    for (int c = 0; c < 3; c++)
      for (int k = 0; k < 3; k++) columns[3 * c + k][l] = in.vertices[3 * (size_t)corner[c] + k];
  }
  Lanes corner[9], bary[3];
  for (int k = 0; k < 9; k++) corner[k] = Lanes(columns[k]);
  load_columns<3>(in.bary + 3 * (size_t)first, n, bary);
  for (int k = 0; k < 3; k++)
    a.point[k] = bary[0] * corner[k] + bary[1] * corner[3 + k] + bary[2] * corner[6 + k];
  triangle_frame(corner, corner + 3, corner + 6, a.frame);
  quaternion_of(a.frame, a.quat);
  return a;
}

inline void place(const Anchor& a, const Lanes position[3], Lanes point[3]) {
  for (int i = 0; i < 3; i++)
    point[i] = a.point[i] + a.frame[3 * i] * position[0] + a.frame[3 * i + 1] * position[1] +
               a.frame[3 * i + 2] * position[2];
}

// Rotation from the Gaussian's own frame to the camera's: the carrier's times the anchor's.
inline void carry(const RigidTransform& head, const RigidTransform& torso, Lanes torso_weight,
                  const Anchor& a, Lanes out[4]) {
  const LaneMask follows_torso = torso_weight >= Lanes(0.5f);
  Lanes carrier[4];
  for (int k = 0; k < 4; k++)
    carrier[k] = select(follows_torso, Lanes(torso.quat[k]), Lanes(head.quat[k]));
  multiply_quaternions(carrier, a.quat, out);
}

constexpr int kRigBatchesTogether = 16;  // claimed at a time by a thread

// Batches never straddle the border between bound and free Gaussians.
struct BatchRange {
  int first, n;
};

inline int batch_count(const BindInput& in) {
  return (in.bound + kWidth - 1) / kWidth + (in.count - in.bound + kWidth - 1) / kWidth;
}

inline BatchRange batch_at(const BindInput& in, int batch) {
  const int bound_batches = (in.bound + kWidth - 1) / kWidth;
  if (batch < bound_batches) return {batch * kWidth, smaller(kWidth, in.bound - batch * kWidth)};
  const int first = in.bound + (batch - bound_batches) * kWidth;
  return {first, smaller(kWidth, in.count - first)};
}

inline void bind_batch(const BindInput& in, const RigidTransform& head, const RigidTransform& torso,
                       BatchRange range, const BindOutput& out) {
  const int n = range.n;
  const size_t i = (size_t)range.first;
  const BoundBatch b = load_bound(in, range.first, n);
  const Anchor anchor = anchor_of(in, range.first, n);
  Lanes w, point[3], by_head[3], by_torso[3], mean[3], carrier[4], quat[4], scale[3], opacity;
  load_columns<1>(in.torso_weight + i, n, &w);
  place(anchor, b.position, point);
  apply_rigid(head, point, by_head);
  apply_rigid(torso, point, by_torso);
  for (int k = 0; k < 3; k++) mean[k] = by_head[k] + w * (by_torso[k] - by_head[k]);
  carry(head, torso, w, anchor, carrier);
  multiply_quaternions(carrier, b.quat, quat);
  load_columns<3>(in.log_scale + 3 * i, n, scale);
  for (int k = 0; k < 3; k++) scale[k] = exp_of(scale[k]);
  load_columns<1>(in.opacity + i, n, &opacity);
  opacity = Lanes(1.0f) / (Lanes(1.0f) + exp_of(Lanes(0.0f) - opacity));
  store_columns<3>(mean, n, out.means + 3 * i);
  store_columns<4>(quat, n, out.quats + 4 * i);
  store_columns<3>(scale, n, out.scales + 3 * i);
  store_columns<1>(&opacity, n, out.opacities + i);
  store_columns<3>(b.color, n, out.colors + 3 * i);
}

void bind(const BindInput& in, const BindOutput& out, int threads) {
  const RigidTransform head = rigid_of(in.head), torso = rigid_of(in.torso);
  const int batches = batch_count(in);
  parallel_for(chunks_of(kRigBatchesTogether, batches), threads, [&](int chunk, int) {
    const int end = smaller(batches, (chunk + 1) * kRigBatchesTogether);
    for (int batch = chunk * kRigBatchesTogether; batch < end; batch++)
      bind_batch(in, head, torso, batch_at(in, batch), out);
  });
}

// Sums that many Gaussians share are kept per slice of the batches, so that they do not depend on
// the number of threads.
constexpr int kSlices = 8;

struct SliceSums {
  float* weights;     // (K,)
  float* vertices;    // (V, 3)
  double camera[24];  // head then torso, (3, 4) each
};

// basis[row][k] = v[row] weights[k] for the ten rows of one Gaussian.
inline void store_basis_gradient(const BindInput& in, const float* v, float* basis) {
  const int size = in.basis_size;
  for (int k = 0; k < size; k += kWidth) {
    const int n = smaller(kWidth, size - k);
    const Vec w = n == kWidth ? load(in.weights + k) : load_part(in.weights + k, n);
    for (int r = 0; r < kBasisRows; r++) {
      float* out = basis + r * size + k;
      if (n == kWidth)
        store(out, mul(set(v[r]), w));
      else
        store_part(out, mul(set(v[r]), w), n);
    }
  }
}

// v_weights[k] += sum over rows and the Gaussians first..first + count of v[row] basis[row][k].
inline void add_weight_gradient(const BindInput& in, int first, int count, const float (*v)[kSums],
                                float* v_weights) {
  const int size = in.basis_size;
  for (int k = 0; k < size; k += kWidth) {
    const int n = smaller(kWidth, size - k);
    const bool whole = n == kWidth;
    Vec even = whole ? load(v_weights + k) : load_part(v_weights + k, n), odd = set(0.0f);
    const float* row = in.basis + (size_t)first * kBasisRows * size + k;
    for (int l = 0; l < count; l++) {
      float largest = 0;
      for (int r = 0; r < kBasisRows; r++) largest = max_of(largest, fabsf(v[l][r]));
      if (largest == 0) {  // not drawn, perhaps because its basis holds NaN
        row += (size_t)kBasisRows * size;
        continue;
      }
      for (int r = 0; r < kBasisRows; r += 2, row += 2 * size) {
        even = madd(set(v[l][r]), whole ? load(row) : load_part(row, n), even);
        odd = madd(set(v[l][r + 1]), whole ? load(row + size) : load_part(row + size, n), odd);
      }
    }
    if (whole)
      store(v_weights + k, add(even, odd));
    else
      store_part(v_weights + k, add(even, odd), n);
  }
}

inline void camera_backward(const Lanes point[3], const Lanes v_mean[3], Lanes share,
                            const float* used, double* sums) {
  const Lanes zero(0.0f);
  for (int i = 0; i < 3; i++) {
    const Lanes v = share * v_mean[i] * Lanes(used);
    // a poisoned Gaussian is not drawn, and 0 * NaN would reach everybody's transform
    const LaneMask moved = max_of(v, zero - v) > zero;
    for (int k = 0; k < 3; k++) sums[4 * i + k] += (double)sum(select(moved, v * point[k], zero).v);
    sums[4 * i + 3] += (double)sum(v.v);
  }
}

inline void bind_backward_batch(const BindInput& in, const BindGradient& grad,
                                const RigidTransform& head, const RigidTransform& torso,
                                BatchRange range, SliceSums& sums) {
  const int n = range.n;
  const size_t i = (size_t)range.first;
  const Anchor anchor = anchor_of(in, range.first, n);
  Lanes w, v_mean[3], v_quat_out[4], v_color[3], by_head[3], by_torso[3], v_point[3];
  load_columns<1>(in.torso_weight + i, n, &w);
  load_columns<3>(grad.v_means + 3 * i, n, v_mean);
  load_columns<4>(grad.v_quats + 4 * i, n, v_quat_out);
  load_columns<3>(grad.v_colors + 3 * i, n, v_color);
  rotate_back(head, v_mean, by_head);
  rotate_back(torso, v_mean, by_torso);
  for (int k = 0; k < 3; k++) v_point[k] = by_head[k] + w * (by_torso[k] - by_head[k]);
  if (grad.vertices && range.first < in.bound) {
    alignas(64) float v[3][kWidth];
    for (int k = 0; k < 3; k++) store(v[k], v_point[k].v);
    for (int l = 0; l < n; l++)
      for (int c = 0; c < 3; c++) {
        const size_t corner = (size_t)in.corners[3 * (i + l) + c];
        const float bary = in.bary[3 * (i + l) + c];
        for (int k = 0; k < 3; k++) sums.vertices[3 * corner + k] += bary * v[k][l];
      }
  }
  if (grad.head) {
    const BoundBatch b = load_bound(in, range.first, n);
    Lanes point[3];
    place(anchor, b.position, point);
    alignas(64) float used[kWidth];
    for (int l = 0; l < kWidth; l++) used[l] = l < n ? 1.0f : 0.0f;
    camera_backward(point, v_mean, Lanes(1.0f) - w, used, sums.camera);
    camera_backward(point, v_mean, w, used, sums.camera + 12);
  }
  if (!grad.position) return;

  Lanes carrier[4], v[kSums], scale[3], v_scale[3], logit, v_opacity;
  for (int k = 0; k < 3; k++)  // rotated back into the triangle's frame
    v[k] = anchor.frame[k] * v_point[0] + anchor.frame[3 + k] * v_point[1] +
           anchor.frame[6 + k] * v_point[2];
  carry(head, torso, w, anchor, carrier);
  multiply_conjugate(carrier, v_quat_out, v + 3);
  for (int k = 0; k < 3; k++) v[7 + k] = v_color[k];
  v[10] = v[11] = Lanes(0.0f);
  load_columns<3>(in.log_scale + 3 * i, n, scale);
  load_columns<3>(grad.v_scales + 3 * i, n, v_scale);
  for (int k = 0; k < 3; k++) v_scale[k] = v_scale[k] * exp_of(scale[k]);
  load_columns<1>(in.opacity + i, n, &logit);
  load_columns<1>(grad.v_opacities + i, n, &v_opacity);
  const Lanes one(1.0f), opacity = one / (one + exp_of(Lanes(0.0f) - logit));
  v_opacity = v_opacity * opacity * (one - opacity);
  store_columns<3>(v, n, grad.position + 3 * i);
  store_columns<4>(v + 3, n, grad.quat + 4 * i);
  store_columns<3>(v + 7, n, grad.color + 3 * i);
  store_columns<3>(v_scale, n, grad.log_scale + 3 * i);
  store_columns<1>(&v_opacity, n, grad.opacity + i);
  const int blended = smaller(n, in.with_basis - range.first);
  if (blended <= 0 || !(grad.basis || grad.blend || grad.weights)) return;
  for (int r = 0; r < kBasisRows; r++) v[r] = v[r] * Lanes(in.units[r]);
  alignas(64) float rows[kWidth][kSums];
  store_columns<kSums>(v, kWidth, &rows[0][0]);
  if (grad.blend)
    for (int l = 0; l < blended; l++)
      memcpy(grad.blend + kBasisRows * (i + l), rows[l], kBasisRows * sizeof(float));
  if (grad.basis)
    for (int l = 0; l < blended; l++)
      store_basis_gradient(in, rows[l], grad.basis + (i + l) * kBasisRows * in.basis_size);
  if (grad.weights) add_weight_gradient(in, range.first, blended, rows, sums.weights);
}

void bind_backward(const BindInput& in, const BindGradient& grad, Buffer& scratch, int threads) {
  const RigidTransform head = rigid_of(in.head), torso = rigid_of(in.torso);
  const int batches = batch_count(in);
  const size_t weight_floats = grad.weights ? (size_t)in.basis_size : 0;
  const size_t vertex_floats = grad.vertices ? 3 * (size_t)in.vertex_count : 0;
  const size_t stride = weight_floats + vertex_floats;
  float* shared = reserve<float>(scratch, kSlices * stride);
  SliceSums sums[kSlices];
  parallel_for(kSlices, threads, [&](int s, int) {
    sums[s].weights = shared + s * stride;
    sums[s].vertices = sums[s].weights + weight_floats;
    memset(sums[s].weights, 0, sizeof(float) * stride);
    memset(sums[s].camera, 0, sizeof sums[s].camera);
    const int begin = (int)((int64_t)batches * s / kSlices);
    const int end = (int)((int64_t)batches * (s + 1) / kSlices);
    for (int batch = begin; batch < end; batch++)
      bind_backward_batch(in, grad, head, torso, batch_at(in, batch), sums[s]);
  });
  for (size_t k = 0; k < weight_floats; k++) {
    float total = 0;
    for (int s = 0; s < kSlices; s++) total += sums[s].weights[k];
    grad.weights[k] = total;
  }
  for (size_t k = 0; k < vertex_floats; k++) {
    float total = 0;
    for (int s = 0; s < kSlices; s++) total += sums[s].vertices[k];
    grad.vertices[k] = total;
  }
  if (grad.head) {
    for (int k = 0; k < 16; k++) {
      double head_total = 0, torso_total = 0;
      for (int s = 0; s < kSlices && k < 12; s++) {
        head_total += sums[s].camera[k];
        torso_total += sums[s].camera[12 + k];
      }
      grad.head[k] = (float)head_total, grad.torso[k] = (float)torso_total;
    }
  }
}

}  // namespace
