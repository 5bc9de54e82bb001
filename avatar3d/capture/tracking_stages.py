"""Stages that find the geometry: landmarks, the fitted head and the shoulders."""

from dataclasses import replace

import numpy as np

from avatar3d.capture.check_stage import frame_checks, good_frames
from avatar3d.capture.fit import FaceFit, FaceShape, LandmarkModel, fit_frames, fit_shape
from avatar3d.capture.framing import MIN_FRAMES, no_face
from avatar3d.capture.landmarks import choose_detector, is_near, warmed_up
from avatar3d.capture.mirroring import detect_both_ways
from avatar3d.capture.parallel import Spares, parallel_map, silenced
from avatar3d.capture.pose import mean_pose, poses_from_landmarks
from avatar3d.capture.slide import load_slide
from avatar3d.capture.torso import (
    TorsoTracker,
    measure_all,
    pivot_pixel,
    smooth_motion,
    torso_poses,
    torso_region,
)
from avatar3d.capture.workspace import RejectedClip, Workspace, spread
from avatar3d.progress import track
from avatar3d.subject import FRAME_REASONS, PARSING_LABELS, Tracking

__all__ = ["OVERLAP", "chunk_length", "fit", "joined", "landmarks", "torso"]

_LANDMARK_CHUNK = 512
OVERLAP = 16
_REASON = {name: number for number, name in enumerate(FRAME_REASONS)}


def landmarks(workspace: Workspace) -> None:
    """.capture/landmarks.npz: points (T, 478, 3), found (T,), scores (T, 52) or empty."""
    choice = choose_detector(workspace.config)
    several = 3 if workspace.state.facts["faces"] > 1 else 1
    with silenced():
        detectors = Spares(lambda: warmed_up(choice.make(several)), workspace.workers)
    frames, checks = workspace.frames, frame_checks(workspace)
    starts = range(0, frames, _LANDMARK_CHUNK)

    def detect(index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        expected = checks.boxes[index]
        if not checks.shows_person[index] or not expected.any():  # a box of zeros: nowhere
            return None, None
        image = workspace.frame(index)
        with detectors.borrow() as detector:
            face = detect_both_ways(detector, image, expected)
        if face is None or (checks.exact and not is_near(face, expected)):
            return None, None
        return face.points, face.scores

    todo = [s for s in starts if not workspace.has_arrays(f"landmarks/{s:06d}")]
    indices = [i for s in todo for i in range(s, min(s + _LANDMARK_CHUNK, frames))]
    results = iter(
        track(parallel_map(detect, indices, workspace.workers), "Finding the face", len(indices))
    )
    for start in todo:
        rows = [next(results) for _ in range(start, min(start + _LANDMARK_CHUNK, frames))]
        workspace.save_arrays(f"landmarks/{start:06d}", **_landmark_arrays(rows))
    for _ in results:  # lets the progress line end
        pass
    detectors.close()
    parts = [workspace.load_arrays(f"landmarks/{start:06d}") for start in starts]
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    usable = int(merged["found"].sum())
    if usable == 0:
        raise RejectedClip(no_face(workspace.source))
    if usable < MIN_FRAMES:
        raise RejectedClip(
            f"A face was found in only {usable} of {frames} frames of {workspace.source}; capture "
            f"needs at least {MIN_FRAMES}: use a clip that shows one person's face throughout."
        )
    if usable < 0.9 * frames:
        workspace.warn("landmarks", f"The face was found in only {usable} of {frames} frames.")
    workspace.save_arrays("landmarks", **merged)


def _landmark_arrays(
    rows: list[tuple[np.ndarray | None, np.ndarray | None]],
) -> dict[str, np.ndarray]:
    count = len(rows)
    points = np.zeros((count, 478, 3), np.float32)
    scores = np.full((count, 52), -1, np.float32)
    found = np.zeros(count, bool)
    for index, (face, score) in enumerate(rows):
        if face is not None:
            points[index], found[index] = face, True
        if score is not None:
            scores[index] = score
    return {"points": points, "scores": scores, "found": found}


def fit(workspace: Workspace) -> None:
    """.capture/fit.npz: the face shape, and pose, expression and gaze of every frame."""
    import torch

    config, frames, head = workspace.config, workspace.frames, workspace.head
    chunk = chunk_length(frames, config.chunk)
    data = workspace.load_arrays("landmarks")
    points, found = data["points"][..., :2], data["found"]
    slide = load_slide(choose_detector(config).name, head.name)
    model = LandmarkModel(head, workspace.K, slide)
    threads = torch.get_num_threads()
    segments = frame_checks(workspace).segments
    try:
        if not workspace.has_arrays("fit/shape"):
            usable = good_frames(workspace, found)
            chosen = usable[spread(len(usable), config.identity_frames)]
            poses = poses_from_landmarks(head, points[chosen], found[chosen], workspace.K)
            shape = fit_shape(model, points[chosen], poses, config.iterations)
            workspace.save_arrays("fit/shape", identity=shape.identity, offsets=shape.offsets)
        shape = FaceShape(**workspace.load_arrays("fit/shape"))
        person = head.shaped(shape.identity, shape.offsets)
        model = LandmarkModel(replace(head, expression=person.expression), workspace.K, slide)
        poses = poses_from_landmarks(
            head, points, found, workspace.K, model.face(shape), workspace.workers
        )
        torch.set_num_threads(1)  # the frames are fitted on several threads of our own instead

        def work(start: int) -> None:
            low = max(0, start - OVERLAP)
            high = min(frames, start + chunk + OVERLAP)
            part = slice(low, high)
            if not found[part].any():
                result = _resting(poses[part], model)
            else:
                result = fit_frames(
                    model, shape, points[part], found[part], poses[part], config.iterations,
                    segments[part],
                )  # fmt: skip
            workspace.save_arrays(f"fit/{start:06d}", **result.__dict__)

        starts = list(range(0, frames, chunk))
        todo = [start for start in starts if not workspace.has_arrays(f"fit/{start:06d}")]
        for _ in track(parallel_map(work, todo, workspace.workers), "Fitting the head", len(todo)):
            pass
    finally:
        torch.set_num_threads(threads)
    parts = [FaceFit(**workspace.load_arrays(f"fit/{start:06d}")) for start in starts]
    merged = joined(parts, starts, chunk, frames)
    workspace.save_arrays("fit", **shape.__dict__, **merged.__dict__)


def _resting(poses: np.ndarray, model: LandmarkModel) -> FaceFit:
    count, rows = len(poses), len(model.head.expression)
    return FaceFit(
        poses,
        np.zeros((count, rows), np.float32),
        np.zeros((count, 2, 2), np.float32),
        np.zeros((count, 478, 2), np.float32),
    )


def chunk_length(frames: int, most: int) -> int:
    """Length of equal chunks of at most `most` frames, of an even number unless all are few.

    Fitted side by side, they keep two or more threads busy to the end. The number of threads has
    no say, so that results do not depend on it.
    """
    count = -(-frames // most)
    if frames >= 8 * OVERLAP:
        count += count % 2
    return -(-frames // max(count, 1))


def joined(parts: list[FaceFit], starts: list[int], chunk: int, frames: int) -> FaceFit:
    """Chunks cross-faded over their overlap, so that no seam shows in time."""
    tracks = {}
    for name in ("poses", "weights", "gaze", "points"):
        first = getattr(parts[0], name)
        total = np.zeros((frames, *first.shape[1:]), np.float64)
        amount = np.zeros(frames)
        for part, start in zip(parts, starts, strict=True):
            value = getattr(part, name)
            low = max(0, start - OVERLAP)
            index = np.arange(low, low + len(value))
            rise = (index - low + 0.5) / (2 * OVERLAP) if start else np.ones(len(index))
            last = start + chunk + OVERLAP
            fall = (last - index - 0.5) / (2 * OVERLAP) if last < frames + OVERLAP else 1.0
            weight = np.clip(np.minimum(rise, fall), 1e-3, 1)
            total[index] += weight.reshape(-1, *[1] * (value.ndim - 1)) * value
            amount[index] += weight
        tracks[name] = total / amount.reshape(-1, *[1] * (total.ndim - 1))
    u, _, vt = np.linalg.svd(tracks["poses"][:, :3, :3])
    tracks["poses"][:, :3, :3] = u @ vt
    for name in ("weights", "gaze", "points"):
        tracks[name] = tracks[name].astype(np.float32)
    return FaceFit(**tracks)


def torso(workspace: Workspace) -> None:
    """tracking.npz: everything known about the geometry, the shoulders included."""
    data, fitted = workspace.load_arrays("landmarks"), workspace.load_arrays("refine")
    found, points = data["found"], data["points"][..., :2]
    confidence = _confidence(points, fitted["points"], found)
    checks = frame_checks(workspace)
    reasons = np.where(found & (confidence <= 0), _REASON["poor fit"], checks.reasons)
    reasons = np.where(found | (reasons > 0), reasons, _REASON["no face"]).astype(np.uint8)
    valid = found & (reasons == 0)
    rest = mean_pose(fitted["poses"][valid] if valid.any() else fitted["poses"])
    nearest = np.where(
        valid, np.linalg.norm(fitted["poses"][:, :3] - rest[:3], axis=(1, 2)), np.inf
    )
    reference = int(nearest.argmin())
    alpha = workspace.matte(reference)
    clothes = workspace.parsing(reference) == PARSING_LABELS.index("clothes")
    tracker = TorsoTracker(
        workspace.gray_frame(reference),
        alpha,
        torso_region(alpha, points[reference], clothes),
        pivot_pixel(rest, workspace.K),
    )
    pyramids = parallel_map(
        lambda index: tracker.pyramid(workspace.gray_frame(index), workspace.matte(index)),
        range(workspace.frames),
        workspace.workers,
    )
    pyramids = track(pyramids, "Following the shoulders", workspace.frames)
    motion = measure_all(tracker, pyramids, checks.segments)
    head = fitted["poses"][:, :3, 3]
    pixels = head[:, :2] / head[:, 2:] * workspace.K[0, 0]
    smooth, share = smooth_motion(
        motion, pixels - pixels[valid].mean(0), workspace.fps, tracker.unit, checks.segments
    )
    if share.mean() < 0.5:
        workspace.warn(
            "torso",
            "The shoulders show too little to follow; where unsure, they move a little with the "
            "head.",
        )
    rows = fitted["weights"]
    Tracking(
        head_model=workspace.head.name,
        head_model_fingerprint=workspace.head.fingerprint,
        K=workspace.K,
        size=np.array([workspace.width, workspace.height]),
        identity=fitted["identity"],
        landmark_offsets=fitted["offsets"],
        T_camera_rest=rest,
        T_camera_head=fitted["poses"],
        T_camera_torso=torso_poses(smooth, rest, workspace.K),
        expression=rows[:, :52],
        residual=rows[:, 52:],
        gaze=fitted["gaze"],
        landmarks=points,
        landmarks_fit=fitted["points"],
        confidence=confidence,
        valid=valid,
        segments=checks.segments,
        reasons=reasons,
    ).save(workspace.path("tracking.npz"))
    workspace.save_arrays("torso", confidence=share, values=smooth.values, raw=motion.values)


def _confidence(points: np.ndarray, fitted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(T,) 1 at the clip's usual fit error, 0 where it is four times as large or no face."""
    error = np.linalg.norm(points - fitted, axis=-1).mean(1)
    usual = np.median(error[found])
    result = np.clip((4 * usual - error) / (2 * usual + 1e-9), 0, 1)
    return np.where(found, result, 0.0).astype(np.float32)
