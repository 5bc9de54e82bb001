// Compiled once per instruction set with A3D_SIMD = 512, 256 or 0 and the matching flags.
// Everything it includes is in unnamed namespaces or `static`, and it uses no std:: templates, so
// the linker cannot hand one build's code to another.
#include <math.h>  // sqrtf for include/, which brings no standard header itself

#include "adam.h"
#include "bind.h"
#include "composite_rays.h"
#include "detail.h"
#include "guided_filter.h"
#include "hash_grid_backward.h"
#include "march.h"
#include "mesh.h"
#include "mlp_backward.h"
#include "normal_equations.h"
#include "peak.h"
#include "pixels.h"
#include "raster_backward.h"
#include "render_rays.h"
#include "sparse_adam.h"
#include "ssim_loss.h"
#include "warp_field.h"

namespace avatar3d {

#if A3D_SIMD == 512
#define A3D_TABLE kernels_avx512
#define A3D_NAME "avx512"
#elif A3D_SIMD == 256
#define A3D_TABLE kernels_avx2
#define A3D_NAME "avx2"
#else
#define A3D_TABLE kernels_plain
#define A3D_NAME "plain"
#endif

const Kernels* A3D_TABLE() {
  static const RayKernels rays = {warp_nodes, invert_warp, displace,          posed_mask,
                                  march,      composite,   composite_backward, render_rays};
  static const Kernels table = {A3D_NAME,      rasterize,        rasterize_backward,
                                l1_ssim,       detail,           rasterize_mesh,
                                bind,          bind_backward,    outer_adamw,
                                decode_pixels, encode_pixels,    normal_equations,
                                factor_blocks, solve_blocks,     multiply_blocks,
                                guided_filter, hash_encode,      hash_encode_backward,
                                mlp_forward,   mlp_backward,     sparse_adam,
                                rays,          spin_fma};
  return &table;
}

}  // namespace avatar3d
