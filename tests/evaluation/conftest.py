"""A made-up clip that evaluations can be tried on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avatar3d.head import HeadModel
from avatar3d.subject import PARSING_LABELS, Subject, SubjectInfo, Tracking

FRAMES, WIDTH, HEIGHT, NECK_FROM = 22, 96, 80, 60


@pytest.fixture
def subject(small_head: HeadModel, tmp_path: Path) -> Subject:
    """Noise pictures: the person's face, a neck below it, and background at both sides."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "subject"
    matte = np.full((HEIGHT, WIDTH), 255, np.uint8)
    matte[:, :4] = matte[:, -4:] = 0
    labels = np.where(matte > 0, PARSING_LABELS.index("skin"), 0).astype(np.uint8)
    labels[NECK_FROM:, matte[0] > 0] = PARSING_LABELS.index("neck")
    for kind, suffix in (("frames", "jpg"), ("mattes", "png"), ("parsing", "png")):
        (folder / kind).mkdir(parents=True)
        for index in range(FRAMES):
            image = {
                "frames": rng.integers(60, 190, (HEIGHT, WIDTH, 3), np.uint8),
                "mattes": matte,
                "parsing": labels,
            }[kind]
            Image.fromarray(image).save(folder / kind / f"{index:06d}.{suffix}", quality=95)
    small_head.save(tmp_path / "head.npz")
    rest = np.diag([1.0, -1.0, -1.0, 1.0])
    rest[2, 3] = 0.6
    landmarks = np.stack([rng.uniform([30, 20], [66, 60], (478, 2))] * FRAMES)
    Tracking(
        head_model=str(tmp_path / "head.npz"),
        head_model_fingerprint=small_head.fingerprint,
        K=np.array([[200.0, 0, 48], [0, 200, 40], [0, 0, 1]]),
        size=np.array([WIDTH, HEIGHT]),
        identity=np.zeros(4),
        landmark_offsets=np.zeros((478, 3)),
        T_camera_rest=rest,
        T_camera_head=np.tile(rest, (FRAMES, 1, 1)),
        T_camera_torso=np.tile(rest, (FRAMES, 1, 1)),
        expression=rng.random((FRAMES, 52)).astype(np.float32),
        residual=np.zeros((FRAMES, 2)),
        gaze=np.zeros((FRAMES, 2, 2)),
        landmarks=landmarks,
        landmarks_fit=landmarks,
        confidence=np.ones(FRAMES),
        valid=np.ones(FRAMES, bool),
    ).save(folder / "tracking.npz")
    info = SubjectInfo(
        source_name="noise.mp4", source_sha256="0" * 64, fps=25, frames=FRAMES, width=WIDTH,
        height=HEIGHT, head_model=str(tmp_path / "head.npz"),
    )  # fmt: skip
    (folder / "subject.json").write_text(info.model_dump_json())
    return Subject(folder)
