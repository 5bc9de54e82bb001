"""Rasterisers and image losses: native on the CPU, with slow torch twins as oracle and fallback.

Every operation takes `backend`: "auto" (native when it is built, otherwise the reference after one
warning), "native" or "reference".
"""

from avatar3d.kernels._backend import (
    backend_info,
    get_num_threads,
    set_num_threads,
    torch_on_one_thread,
)
from avatar3d.kernels.adam import OuterGradient, outer_adamw_, sparse_adam_
from avatar3d.kernels.binding import (
    Attributes,
    Binding,
    BoundGaussians,
    bind_gaussians,
)
from avatar3d.kernels.blocks import (
    factor_blocks,
    multiply_blocks,
    normal_equations,
    solve_blocks,
)
from avatar3d.kernels.composite import Composited, composite
from avatar3d.kernels.detail import detail_difference
from avatar3d.kernels.faces import FaceGradients, Poses, draw_faces, face_gradients
from avatar3d.kernels.fitting import FaceLoss, Wanted, face_loss
from avatar3d.kernels.guided import guided_filter
from avatar3d.kernels.hashgrid import HashGrid, hash_encode
from avatar3d.kernels.implementation import Implementation
from avatar3d.kernels.mesh import rasterize_mesh
from avatar3d.kernels.mlp import conditioned_mlp
from avatar3d.kernels.occupancy import Occupancy, posed_mask
from avatar3d.kernels.pixels import decode_pixels, encode_pixels
from avatar3d.kernels.pull import Goals, attribute_pull
from avatar3d.kernels.rasterizer import RasterStats, rasterize, rasterize_with_depth
from avatar3d.kernels.raymarch import Samples, march, near_far
from avatar3d.kernels.render_rays import FieldWeights, Rendered, render_rays
from avatar3d.kernels.ssim import l1_ssim_loss, ssim
from avatar3d.kernels.warp import NodeWeights, WarpGrid, WarpLattice, unwarp, warp_nodes

__all__ = [
    "Attributes",
    "Binding",
    "BoundGaussians",
    "Composited",
    "FaceGradients",
    "FaceLoss",
    "FieldWeights",
    "Goals",
    "HashGrid",
    "Implementation",
    "NodeWeights",
    "Occupancy",
    "OuterGradient",
    "Poses",
    "RasterStats",
    "Rendered",
    "Samples",
    "Wanted",
    "WarpGrid",
    "WarpLattice",
    "attribute_pull",
    "backend_info",
    "bind_gaussians",
    "composite",
    "conditioned_mlp",
    "decode_pixels",
    "detail_difference",
    "draw_faces",
    "encode_pixels",
    "face_gradients",
    "face_loss",
    "factor_blocks",
    "get_num_threads",
    "guided_filter",
    "hash_encode",
    "l1_ssim_loss",
    "march",
    "multiply_blocks",
    "near_far",
    "normal_equations",
    "outer_adamw_",
    "posed_mask",
    "rasterize",
    "rasterize_mesh",
    "rasterize_with_depth",
    "render_rays",
    "set_num_threads",
    "solve_blocks",
    "sparse_adam_",
    "ssim",
    "torch_on_one_thread",
    "unwarp",
    "warp_nodes",
]
