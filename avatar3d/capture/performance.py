"""Somebody's performance, to be done by another person's avatar: from a clip or a picture."""

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.embedding import detected_embedding
from avatar3d.capture.fit import LandmarkModel, fit_frames, fit_shape
from avatar3d.capture.landmarks import choose_detector, choose_face, warmed_up
from avatar3d.capture.mirroring import detect_both_ways
from avatar3d.capture.parallel import silenced, single_threaded
from avatar3d.capture.pose import mean_pose, poses_from_landmarks
from avatar3d.capture.slide import load_slide
from avatar3d.capture.stages import STAGES, models_in_use
from avatar3d.capture.workspace import Workspace, run_stages, stage_keys
from avatar3d.errors import UserError
from avatar3d.head import HeadModel, load_head
from avatar3d.io.images import PLAIN_FORMATS
from avatar3d.io.video import probe
from avatar3d.motion.motion import Motion
from avatar3d.motion.retargeting import landmark_effects
from avatar3d.subject import Subject

__all__ = ["PICTURES", "Performance", "track_performance"]

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Suffixes of files that are taken for a single picture."""

_STAGES = ("check", "decode", "landmarks", "fit", "refine")
_MARGIN = 2.4  # side of the picture's crop in larger sides of the face's box
_SIDE = 512
_FRONTAL = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Performance:
    """What somebody does, in the rows of a head model fitted to them.

    Attributes:
        motion: expression, residual rows, gaze, and the head relative to its mean pose; a
            picture's relative to facing the camera.
        effects: of that person's rows, for `avatar3d.motion.retargeting`.
    """

    motion: Motion
    effects: np.ndarray


def track_performance(
    source: str | Path, config: CaptureConfig | None = None, head: HeadModel | None = None
) -> Performance:
    """Follow a face, without all else that making an avatar of it would take.

    Args:
        source: a video, a picture (one frame then) or a Subject folder (already followed).
        config: of capture; that the clip would make a bad avatar does not matter here.
        head: model to fit; default the config's.

    Raises:
        UserError: unreadable, or nobody in it.
    """
    path = Path(source)
    config = replace(config or CaptureConfig(), strict=False)
    if path.is_dir():
        return _of_subject(Subject(path))
    if path.suffix.lower() in PICTURES:
        with single_threaded(torch_too=False):
            return _of_picture(path, config, head or _head(config))
    probe(path)
    return _of_video(path, config, head or _head(config))


def _head(config: CaptureConfig) -> HeadModel:
    return load_head(config.head_model, detected_embedding(config))


def _of_subject(subject: Subject) -> Performance:
    tracking = subject.tracking
    head = load_head(tracking.head_model)
    if head.fingerprint != tracking.head_model_fingerprint:
        raise UserError(
            f"{subject.folder} was tracked with another version of the head model "
            f"{tracking.head_model!r}; run `avatar3d capture` again."
        )
    effects = landmark_effects(head.shaped(tracking.identity, tracking.landmark_offsets))
    motion = replace(tracking.motion(subject.fps), source=subject.folder.name)
    return Performance(motion, effects)


def _of_video(path: Path, config: CaptureConfig, head: HeadModel) -> Performance:
    stages = tuple(stage for stage in STAGES if stage.name in _STAGES)
    sha256 = hashlib.sha256(str(path).encode()).hexdigest()  # nothing is kept to be found again
    models = models_in_use(config)
    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
        workspace = Workspace(Path(folder) / "performance", path, sha256, config, head)
        keys = stage_keys(stages, sha256, config, head, models)
        with single_threaded(torch_too=False):
            run_stages(workspace, stages, keys)
        fitted = workspace.load_arrays("refine")
        found, fps = workspace.load_arrays("landmarks")["found"], workspace.fps
    poses, rows = fitted["poses"], fitted["weights"]
    motion = Motion(
        fps=fps,
        expression=rows[:, :52],
        residual=rows[:, 52:],
        head_pose=np.linalg.inv(mean_pose(poses[found])) @ poses,
        gaze=fitted["gaze"],
        source=path.name,
    )
    return Performance(motion, landmark_effects(head.shaped(fitted["identity"], fitted["offsets"])))


def _of_picture(path: Path, config: CaptureConfig, head: HeadModel) -> Performance:
    choice = choose_detector(config)
    with silenced():
        detector = warmed_up(choice.make(1))
    try:
        image = _read(path)
        face = choose_face(detector.detect(image), None)
        if face is None:
            raise UserError(f"No face was found in {path}; use a picture that shows one clearly.")
        image = _cropped(image, face.box)
        face = detect_both_ways(detector, image, None)
    finally:
        detector.close()
    if face is None:
        raise UserError(f"The face in {path} is too small or too unclear; use a closer picture.")
    points, found = face.points[None, :, :2], np.ones(1, bool)
    focal = config.focal * _SIDE
    K = np.array([[focal, 0, _SIDE / 2], [0, focal, _SIDE / 2], [0, 0, 1]])
    slide = load_slide(choice.name, head.name)
    model = LandmarkModel(head, K, slide)
    poses = poses_from_landmarks(head, points, found, K)
    shape = fit_shape(model, points, poses, config.iterations)
    person = head.shaped(shape.identity, shape.offsets)
    model = LandmarkModel(replace(head, expression=person.expression), K, slide)
    poses = poses_from_landmarks(head, points, found, K, model.face(shape))
    fitted = fit_frames(model, shape, points, found, poses, config.iterations)
    rest = fitted.poses[0].copy()
    rest[:3, :3] = _FRONTAL
    motion = Motion(
        fps=25,
        expression=fitted.weights[:, :52],
        residual=fitted.weights[:, 52:],
        head_pose=np.linalg.inv(rest) @ fitted.poses,
        gaze=fitted.gaze,
        source=path.name,
    )
    return Performance(motion, landmark_effects(person))


def _read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, the right way up."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=PLAIN_FORMATS) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((2048, 2048))
            return np.array(upright)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"Cannot read the picture {path} ({error}).") from error


def _cropped(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(512, 512, 3) around a face's box, black beyond the picture."""
    from PIL import Image

    middle, half = (box[:2] + box[2:]) / 2, _MARGIN / 2 * (box[2:] - box[:2]).max()
    corners = (*(middle - half), *(middle + half))
    crop = Image.fromarray(image).crop([round(float(c)) for c in corners])  # type: ignore[arg-type]
    return np.array(crop.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
