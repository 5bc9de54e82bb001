"""A made-up head model: landmark i is vertex i, expression rows move points at random."""

from collections.abc import Callable

import numpy as np
import pytest

from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.head.landmarks import LANDMARK_COUNT, LIPS, LOWER_LIP_MID, UPPER_LIP_MID
from avatar3d.head.model import HeadModel
from avatar3d.subject.tracking import Tracking


@pytest.fixture(scope="session")
def toy_head() -> HeadModel:
    """Lips 0.5 mm apart; jawOpen = 1 lowers the lower lip by 30 mm, mouthClose raises it again."""
    rng = np.random.default_rng(0)
    count = LANDMARK_COUNT
    template = rng.normal(0, 0.05, (count, 3))
    template[UPPER_LIP_MID], template[LOWER_LIP_MID] = (0, -0.05, 0.09), (0, -0.0505, 0.09)
    names = (*ARKIT_52, "extra0", "extra1")
    expression = np.zeros((len(names), count, 3))
    for index, name in enumerate(names):
        if name.startswith(("mouth", "tongue", "cheek", "extra")):
            expression[index, list(LIPS)] = rng.normal(0, 0.002, (len(LIPS), 3))
            expression[index, [UPPER_LIP_MID, LOWER_LIP_MID]] = 0
    lower = [i for i in LIPS if template[i, 1] < np.median(template[list(LIPS), 1])]
    lower = sorted({LOWER_LIP_MID, *lower} - {UPPER_LIP_MID})
    expression[ARKIT_INDEX["jawOpen"], lower, 1] = -0.03
    expression[ARKIT_INDEX["mouthClose"], lower, 1] = 0.03
    faces = (np.arange(count)[:, None] + np.arange(3)) % count
    zeros = np.zeros
    return HeadModel(
        name="toy", template=template, faces=faces.astype(np.int32),
        identity=zeros((1, count, 3)), expression=expression, expression_names=names,
        part=zeros(count, np.uint8), torso_weight=zeros(count), eye_centers=zeros((2, 3)),
        eye_centers_identity=zeros((1, 2, 3)), uv=zeros((3, 2)),
        uv_faces=zeros((count, 3), np.int32), landmark_faces=np.arange(count, dtype=np.int32),
        landmark_bary=np.tile([1.0, 0.0, 0.0], (count, 1)), landmark_sigma=zeros(count),
    )  # fmt: skip


@pytest.fixture(scope="session")
def track(toy_head: HeadModel) -> Callable[[np.ndarray], Tracking]:
    """Makes the tracking of frames that only differ in expression (T, 52)."""
    return lambda expression: tracking_of(toy_head, expression)


def tracking_of(head: HeadModel, expression: np.ndarray) -> Tracking:
    frames = len(expression)
    still = np.tile(np.eye(4), (frames, 1, 1))
    return Tracking(
        head_model=head.name, head_model_fingerprint=head.fingerprint, K=np.eye(3),
        size=np.array([64, 64]), identity=np.zeros(1),
        landmark_offsets=np.zeros((LANDMARK_COUNT, 3)), T_camera_rest=np.eye(4),
        T_camera_head=still, T_camera_torso=still, expression=expression,
        residual=np.zeros((frames, head.residual_count)), gaze=np.zeros((frames, 2, 2)),
        landmarks=np.zeros((frames, LANDMARK_COUNT, 2)),
        landmarks_fit=np.zeros((frames, LANDMARK_COUNT, 2)), confidence=np.ones(frames),
        valid=np.ones(frames, bool),
    )  # fmt: skip
