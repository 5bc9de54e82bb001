"""The stage that refines the fit by optical flow, where that helps."""

from dataclasses import replace

import numpy as np

from avatar3d.capture.check_stage import frame_checks, good_frames
from avatar3d.capture.dense import (
    FaceView,
    MeanTexture,
    dense_targets,
    flow_targets,
    rerendering_psnr,
)
from avatar3d.capture.fit import FaceFit, FaceShape, LandmarkModel, refit_frames
from avatar3d.capture.landmarks import choose_detector
from avatar3d.capture.parallel import parallel_map
from avatar3d.capture.pose import mean_pose
from avatar3d.capture.slide import load_slide
from avatar3d.capture.tracking_stages import OVERLAP, chunk_length, joined
from avatar3d.capture.workspace import Workspace, spread
from avatar3d.progress import track

__all__ = ["refine"]

_TEXTURE_FRAMES, _HELD_OUT = 80, 20
_GAIN = 0.1
"""Decibels of held-out re-rendering that the refinement has to bring."""


def refine(workspace: Workspace) -> None:
    """.capture/refine.npz: the fit, refined by the flow between the mean texture and each frame.

    Left as it was where the mean texture of some frames does not come to show others any better.
    """
    fitted = workspace.load_arrays("fit")
    shape = FaceShape(fitted["identity"], fitted["offsets"])
    fit = FaceFit(**{name: fitted[name] for name in ("poses", "weights", "gaze", "points")})
    data = workspace.load_arrays("landmarks")
    usable = good_frames(workspace, data["found"])
    facts = workspace.state.facts
    facts["refined_gain_db"] = 0.0
    if workspace.config.refine and len(usable) > 2 * _HELD_OUT:
        chosen = usable[spread(len(usable), _TEXTURE_FRAMES + _HELD_OUT)]
        held_out = chosen[2::5]
        known = np.setdiff1d(chosen, held_out)
        view = FaceView(
            workspace.head.shaped(shape.identity, shape.offsets), mean_pose(fit.poses[usable])
        )
        refined = _refined(workspace, shape, fit, view, known, data)
        before, after = (
            rerendering_psnr(
                view, f, workspace.K, workspace.frame, known, held_out, workspace.workers
            )
            for f in (fit, refined)
        )
        facts["refined_gain_db"] = round(after - before, 3)
        fit = refined if after - before > _GAIN else fit
    workspace.save_arrays("refine", **shape.__dict__, **fit.__dict__)


def _refined(
    workspace: Workspace,
    shape: FaceShape,
    fit: FaceFit,
    view: FaceView,
    known: np.ndarray,
    data: dict[str, np.ndarray],
) -> FaceFit:
    import torch

    frames, K = workspace.frames, workspace.K
    chunk = chunk_length(frames, workspace.config.chunk)
    points, found = data["points"][..., :2], data["found"]
    segments = frame_checks(workspace).segments
    person = workspace.head.shaped(shape.identity, shape.offsets)
    head = replace(workspace.head, expression=person.expression)
    slide = load_slide(choose_detector(workspace.config).name, head.name)
    model = LandmarkModel(head, K, slide)

    def seen(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places, facing = view.look(fit.weights[index], fit.poses[index], K)
        return workspace.gray_frame(index), places, facing

    texture = MeanTexture.of(view, parallel_map(seen, known.tolist(), workspace.workers))
    count = len(view.grid)
    unseen = np.zeros((count, 2), np.float32), np.zeros(count, np.float32)

    def target(index: int) -> tuple[np.ndarray, np.ndarray]:
        if not found[index]:
            return unseen
        return flow_targets(view, texture, *seen(index))

    def work(start: int) -> None:
        part = slice(max(0, start - OVERLAP), min(frames, start + chunk + OVERLAP))
        own = FaceFit(**{name: track_[part] for name, track_ in fit.__dict__.items()})
        if found[part].any():
            dense = dense_targets(view, [target(i) for i in range(part.start, part.stop)])
            own = refit_frames(
                model, shape, points[part], found[part], own, dense, segments=segments[part]
            )
        workspace.save_arrays(f"refine/{start:06d}", **own.__dict__)

    starts = list(range(0, frames, chunk))
    todo = [start for start in starts if not workspace.has_arrays(f"refine/{start:06d}")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the chunks are worked on by several threads of our own instead
    try:
        for _ in track(parallel_map(work, todo, workspace.workers), "Refining", len(todo)):
            pass
    finally:
        torch.set_num_threads(threads)
    parts = [FaceFit(**workspace.load_arrays(f"refine/{start:06d}")) for start in starts]
    return joined(parts, starts, chunk, frames)
