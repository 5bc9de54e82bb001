"""A tiny Subject: the small head, coloured at random, rendered by the reference of the kernels."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from avatar3d.avatar import SplatAvatar, SplatState
from avatar3d.head import ARKIT_52, HeadModel
from avatar3d.motion import Motion
from avatar3d.subject import PARSING_LABELS, Subject, SubjectInfo, Tracking

FRAMES = 16


@pytest.fixture(scope="session")
def tiny_head_file(small_head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "sphere.npz"
    small_head.save(path)
    return path


@pytest.fixture
def tiny_subject(small_state: SplatState, tiny_head_file: Path, tmp_path: Path) -> Subject:
    """16 frames of 96 x 80 pixels of a head that turns and opens its first expressions."""
    model = HeadModel.load(tiny_head_file)
    width, height = (int(side) for side in small_state.size)
    time = np.arange(FRAMES) / FRAMES * 2 * np.pi
    expression = np.zeros((FRAMES, len(ARKIT_52)), np.float32)
    expression[:, 17] = 0.5 + 0.5 * np.sin(time)
    head_pose = np.tile(np.eye(4), (FRAMES, 1, 1))
    head_pose[:, 0, 3] = 0.01 * np.sin(time)
    torso_pose = np.tile(np.eye(4), (FRAMES, 1, 1))
    background = np.full((height, width, 3), 90, np.uint8)
    motion = Motion(25, expression=expression, head_pose=head_pose, torso_pose=torso_pose)
    small_state.basis[:] = 0
    small_state.log_scale += 1.2
    avatar = SplatAvatar(small_state, background, motion, driver=None)
    folder = tmp_path / "subject"
    for kind in ("frames", "mattes", "parsing"):
        (folder / kind).mkdir(parents=True)
    for index, frame in enumerate(avatar.render_motion(motion)):
        iio.imwrite(folder / f"frames/{index:06d}.jpg", frame, quality=95)
        matte = (np.abs(frame.astype(int) - 90).max(-1) > 4).astype(np.uint8) * 255
        iio.imwrite(folder / f"mattes/{index:06d}.png", matte)
        labels = np.minimum(matte, PARSING_LABELS.index("hair"))
        iio.imwrite(folder / f"parsing/{index:06d}.png", labels)
    iio.imwrite(folder / "background.png", background)
    landmarks = _landmarks(avatar, model, expression, head_pose)
    rest = np.asarray(small_state.T_camera_rest)
    Tracking(
        head_model=str(tiny_head_file),
        head_model_fingerprint=model.fingerprint,
        K=np.asarray(small_state.K_matrix),
        size=np.asarray(small_state.size),
        identity=np.zeros(4),
        landmark_offsets=np.zeros((478, 3)),
        T_camera_rest=rest,
        T_camera_head=rest @ head_pose,
        T_camera_torso=rest @ torso_pose,
        expression=expression,
        residual=np.zeros((FRAMES, 2)),
        gaze=np.zeros((FRAMES, 2, 2)),
        landmarks=landmarks,
        landmarks_fit=landmarks,
        confidence=np.ones(FRAMES),
        valid=np.ones(FRAMES, bool),
    ).save(folder / "tracking.npz")
    info = SubjectInfo(
        source_name="tiny",
        source_sha256="0" * 64,
        fps=25,
        frames=FRAMES,
        width=width,
        height=height,
        head_model=str(tiny_head_file),
    )
    (folder / "subject.json").write_text(info.model_dump_json())
    return Subject(folder)


def _landmarks(avatar, model, expression, head_pose) -> np.ndarray:
    shaped = model.shaped(np.zeros(4))
    rows = []
    for weights, pose in zip(expression, head_pose, strict=True):
        points = model.landmarks_of(shaped.posed(weights))
        transform = np.asarray(avatar.state.T_camera_rest) @ pose
        rows.append(avatar.camera.project(points @ transform[:3, :3].T + transform[:3, 3]))
    return np.stack(rows)
