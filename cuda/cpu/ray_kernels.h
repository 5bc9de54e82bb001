// What the volume rendering kernels take and return; part of kernels.h.
#pragma once

#include <math.h>  // before include/, which brings no standard header itself
#include <stdint.h>

#include "avatar3d/ray.h"
#include "avatar3d/warp.h"
#include "field_types.h"

namespace avatar3d {

struct Buffer;

// Rows of a sparse matrix times F sets of V vectors, into nodes of a lattice.
struct NodeProduct {
  int frames, nodes, vertices;
  const int32_t* offsets;  // (nodes + 1,)
  const int32_t* columns;  // below vertices
  const float* weights;
  const float* displacements;  // (F, V, 3)
  const float* taper;          // (nodes,), or null for ones
  const Lattice* coarse;       // whose value there is taken off first, or null
  Lattice at;                  // the nodes' places
};

struct MarchInput {
  int rays, frames;
  const float *origins, *directions;  // (R, 3)
  const int32_t* frame;               // (R,)
  WarpField inverse;                  // coarse.nodes null: no warp
  Volume volume;
  const Brick* bits;
  const Brick* mask;          // (F, bricks), or null
  float step;                 //
  const float* jitter;        // (R,), or null for 1/2
  const float *first, *last;  // (R,), or both null
};

// Samples of kRaysOfPiece rays: x y z t each.
struct MarchPiece {
  Buffer* samples;
  int count;
};

constexpr int kRaysOfPiece = 64;

struct CompositeInput {
  int rays, channels;
  int64_t samples;
  const float* density;    // (N,)
  const float* color;      // (N, 3)
  const float* extra;      // (N, C)
  const float *t, *dt;     // (N,)
  const int32_t* offsets;  // (R + 1,)
};

struct CompositeOutput {
  float *color, *alpha, *depth, *distortion, *extra;  // (R, ...)
  float* weights;                                     // (N,)
};

// Gradients at the outputs, null for zeros, and where those of the inputs go.
struct CompositeGradient {
  const float *v_color, *v_alpha, *v_depth, *v_distortion, *v_extra;
  float *density, *color, *extra;
};

// A radiance field: gates = sigmoid(attention), raw = mlp(grid), density = exp of the first number
// plus log_density, within bounds; colour = sigmoid of the next three.
struct FieldInput {
  GridInput grid, attention;
  MlpInput mlp;
  float origin[3], scale;  // points reach the grids as (p - origin) scale
  float log_density, least, most;
  float opaque;  // a ray ends where less light than that comes through
};

// gates: (R, groups)
struct RenderOutput {
  float *color, *alpha, *depth, *gates;
};

struct RayKernels {
  void (*warp_nodes)(const NodeProduct&, float* nodes, int threads);
  // inverse.coarse and .fine hold where to write; (F, nodes, 4)
  void (*invert_warp)(const WarpField& forward, const WarpField& inverse, int frames, int threads);
  // inverse: adds its displacement to each point
  void (*displace)(const WarpField&, const float* points, const int32_t* frames, int64_t count,
                   float* out, int threads);
  void (*posed_mask)(const Volume&, const Brick* bits, const WarpField& forward, int frames,
                     Brick* mask, Buffer& scratch, int threads);
  // counts (R,); pieces of kRaysOfPiece rays each
  void (*march)(const MarchInput&, MarchPiece* pieces, int32_t* counts, Buffer& scratch,
                int threads);
  void (*composite)(const CompositeInput&, const CompositeOutput&, Buffer& scratch, int threads);
  void (*composite_backward)(const CompositeInput&, const CompositeGradient&, Buffer& scratch,
                             int threads);
  void (*render_rays)(const MarchInput&, const FieldInput&, const RenderOutput&, Buffer& scratch,
                      int threads);
};

}  // namespace avatar3d
