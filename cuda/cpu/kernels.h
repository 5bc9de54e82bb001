// What the CPU kernels take and return. One table of functions per instruction set; module.cpp
// picks. Only plain data here: the tables are built from translation units with different compiler
// flags.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "field_types.h"
#include "ray_kernels.h"

namespace avatar3d {

// Memory that grows and is never shrunk or initialised. 64-byte aligned.
struct Buffer {
  void* data = nullptr;
  size_t capacity = 0;
};

// Throws std::bad_alloc. Contents are lost when it grows.
void* reserve_bytes(Buffer& buffer, size_t bytes);

// Calls body(context, i, worker) once for each i in [0, count), on up to `threads` threads; worker
// is below `threads`. See thread_pool.h.
typedef void (*ParallelBody)(void* context, int i, int worker);
void run_parallel(int count, int threads, ParallelBody body, void* context);

// Throws std::length_error: the scene covers more (tile, Gaussian) pairs than an int32 can number.
[[noreturn]] void throw_too_many_entries();

// All tensors are contiguous float32. H, W rows and columns, N Gaussians.
struct RasterInput {
  int count;
  const float* means;       // (N, 3) world
  const float* quats;       // (N, 4) wxyz
  const float* scales;      // (N, 3)
  const float* opacities;   // (N,)
  const float* colors;      // (N, 3)
  const float* viewmat;     // (4, 4) world to camera
  const float* intrinsics;  // (3, 3)
  const float* background;  // (3,) or (H, W, 3)
  bool background_is_image;
  int width, height;
};

struct RasterOutput {
  float* image;  // (H, W, 3)
  float* alpha;  // (H, W)
  float* depth;  // (H, W) camera z, weighted like the colours, or null
  float* radii;  // (N,) pixels, 0 when not drawn
};

struct RasterGradient {
  const float* v_image;  // (H, W, 3)
  const float* v_alpha;  // (H, W), or null for zeros
  const float* v_depth;  // (H, W), or null for zeros
  const float* image;    // the forward's outputs
  const float* alpha;
  const float* depth;  // null when v_depth is
  float* means;
  float* quats;
  float* scales;
  float* opacities;
  float* colors;
  float* viewmat;     // (4, 4)
  float* background;  // like the input
  float* mean2d;      // (N, 2): sum over pixels of |gradient| at the projected centre
};

// What the backward reuses of the forward, and both passes' scratch memory. M (tile, Gaussian)
// pairs.
struct RasterState {
  Buffer splats;                      // Splat[N]
  Buffer rects;                       // TileRect[N]
  Buffer slot_in_chunk, chunk_slots;  // int32[N], int64[]: where each Gaussian's slots begin
  Buffer tile_start;                  // int32[tiles + 1]
  Buffer list;                        // Entry[M]: Gaussians of each tile, front to back
  Buffer mask;                        // uint64[M]: blocks of the tile that the Gaussian touches
  Buffer slots;                       // float[M][16]: gradients of each pair
  Buffer depths;                      // float[N]: camera z, negative when not drawn
  Buffer keys, keys2, order, order2, sorted, sorts, corners, next, partial, finite;
  int tiles_x = 0, tiles_y = 0;
  int64_t entries = 0;
};

struct SsimInput {
  const float* image;   // (H, W, 3)
  const float* target;  // (H, W, 3)
  const float* weight;  // (H, W) or null
  int width, height;
  float l1_factor;  // loss = sum over values of weight (l1_factor |d| + ssim_factor (1 - ssim))
  float ssim_factor;
  const RasterState* drawn;  // where tiles without Gaussians need no loss nor gradient, or null
};

// A region of two pictures, with at least one more pixel than a patch of 8 each way.
struct DetailInput {
  const float* image;   // (H, W, 3)
  const float* target;  // (H, W, 3)
  const float* weight;  // (H, W) or null
  int width, height;
  int top, left, bottom, right;  // exclusive ends
  float factor;                  // of the loss
  bool onto;                     // add to the gradient that is there
};

struct MeshInput {
  int vertices, faces;
  const float* points;  // (V, 3): pixel x, pixel y, camera z
  const int32_t* face;  // (F, 3)
  int width, height;
};

// N Gaussians of which the first `bound` ride on triangles and the first `with_basis` have
// blendshapes; K blendshape weights; V vertices. See avatar3d.kernels.bind_gaussians.
struct BindInput {
  int count, bound, with_basis, basis_size, vertex_count;
  const float* position;      // (N, 3)
  const float* quat;          // (N, 4)
  const float* log_scale;     // (N, 3)
  const float* opacity;       // (N,)
  const float* color;         // (N, 3)
  const float* basis;         // (with_basis, 10, K)
  const float* weights;       // (K,)
  const float* units;         // (10,)
  const float* vertices;      // (V, 3)
  const int32_t* corners;     // (bound, 3)
  const float* bary;          // (bound, 3)
  const float* torso_weight;  // (N,)
  const float* head;          // (4, 4)
  const float* torso;         // (4, 4)
};

struct BindOutput {
  float *means, *quats, *scales, *opacities, *colors;
};

// The first five are gradients at the outputs. Of the rest, null ones are not computed.
struct BindGradient {
  const float *v_means, *v_quats, *v_scales, *v_opacities, *v_colors;
  float *position, *quat, *log_scale, *opacity, *color;  // all or none
  float* basis;
  float* blend;  // (with_basis, 10): at basis @ weights, of which the basis' is an outer product
  float* weights;
  float* vertices;
  float *head, *torso;  // (4, 4), both or none
};

// A parameter of R rows of K numbers, whose gradient is sum over f of row_gradients[f]
// weights[f]^T. The factors of the step are those of avatar3d/adam.h.
struct OuterAdamW {
  int64_t rows;                // R
  int size, frames;            // K, F
  const float* row_gradients;  // (F, R)
  const float* weights;        // (F, K)
  float *parameter, *exp_avg, *exp_avg_sq;
  double keep, beta1, beta2, rate, inverse_root, eps;
};

constexpr int kLargestOuterSize = 2048;  // of K

struct PixelInput {
  int width, height;
  const uint8_t* bytes;  // (H, W, 3)
  const uint8_t* matte;  // (H, W), or null
  const float* color;    // (3,), behind the matte
};

// T frames of Q points with slopes by A unknowns of the frame's own and, through `view`, by E
// common movements of the points. Their errors are followed by those of pairs of points:
// differences.
struct NormalInput {
  int frames, points, pairs, own_size, basis_size;
  const float* own;       // (T, Q, 2, A)
  const float* view;      // (T, Q, 2, 3)
  const float* basis;     // (Q, 3, E)
  const float* error;     // (T, Q + pairs, 2)
  const float* strength;  // (T, Q + pairs), not negative
  const int32_t* pair;    // (pairs, 2)
};

struct BlockInput {
  int frames, size;
  const float* blocks;  // (frames, size, size)
};

constexpr int kLargestSide = 32768;  // of a picture to be filtered

struct GuidedInput {
  int width, height;
  int radius;            // of the window, in pixels
  float eps;             // variance, of colours in [0, 1], below which a window counts as flat
  const uint8_t* image;  // (H, W, 3)
  const float* mask;     // (H, W)
};

struct Kernels {
  const char* name;
  // Arrays of `images` scenes of one size and one number of Gaussians. False when a background
  // holds NaN or infinity.
  bool (*rasterize)(const RasterInput*, const RasterOutput*, RasterState*, int images, int threads);
  void (*rasterize_backward)(const RasterInput*, const RasterGradient*, RasterState*, int images,
                             int threads);
  // gradient (H, W, 3) at the image, or null; returns the loss
  double (*l1_ssim)(const SsimInput&, float* gradient, Buffer& scratch, int threads);
  // gradient (H, W, 3) at the image, 0 outside of the region; returns the loss
  double (*detail)(const DetailInput&, float* gradient, Buffer& scratch, int threads);
  void (*rasterize_mesh)(const MeshInput&, int32_t* face, float* bary, float* depth, int threads);
  void (*bind)(const BindInput&, const BindOutput&, int threads);
  void (*bind_backward)(const BindInput&, const BindGradient&, Buffer& scratch, int threads);
  void (*outer_adamw)(const OuterAdamW&, int threads);
  void (*decode_pixels)(const PixelInput&, float* out, int threads);
  void (*encode_pixels)(const float* values, int64_t count, uint8_t* bytes, int threads);
  // H (T, A + E, A + E) and g (T, A + E), the frame's own unknowns first
  void (*normal_equations)(const NormalInput&, float* H, float* g, Buffer& scratch, int threads);
  // mask and added (frames, size); false when mask H mask + diag(added) is not positive definite
  bool (*factor_blocks)(const BlockInput&, const float* mask, const float* added, float* upper,
                        int threads);
  void (*solve_blocks)(const BlockInput& upper, const float* b, float* x, int threads);
  void (*multiply_blocks)(const BlockInput&, const float* x, float* y, int threads);
  // mask (H, W) with its edges put on those of the picture; works at half the size
  void (*guided_filter)(const GuidedInput&, float* out, Buffer& scratch);
  void (*hash_encode)(const GridInput&, const float* points, int64_t count, float* out,
                      int threads);
  void (*hash_encode_backward)(const GridInput&, const float* points, int64_t count,
                               const GridGradient&, Buffer& scratch, int threads);
  void (*mlp_forward)(const MlpInput&, const MlpPoints&, float* out, Buffer& scratch, int threads);
  void (*mlp_backward)(const MlpInput&, const MlpPoints&, const MlpGradient&, Buffer& scratch,
                       int threads);
  void (*sparse_adam)(const SparseAdam&, int threads);
  RayKernels rays;
  // for benchmarks; sink holds one float a thread; returns the floating-point operations done
  double (*spin_fma)(int rounds, int threads, float* sink);
};

const Kernels* kernels_plain();
const Kernels* kernels_avx2();    // null when this build has none
const Kernels* kernels_avx512();  // null when this build has none

}  // namespace avatar3d
