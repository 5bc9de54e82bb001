"""NeRSemble's layout and what is submitted, on a folder made of a synthetic person."""

import json
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from avatar3d.capture.nersemble import (
    HOLD_OUT_CAMERAS,
    TEST_SEQUENCES,
    TRAIN_CAMERA,
    FlameTrack,
    read_participant,
)
from avatar3d.capture.recordings import read_recording
from avatar3d.errors import UserError
from avatar3d.evaluation import EvaluationConfig
from avatar3d.evaluation.benchmark import evaluate_benchmark, missing_videos
from avatar3d.evaluation.flame import FlameConversion
from avatar3d.io.video import write_video
from avatar3d.subject import Subject
from avatar3d.synth import SyntheticClip, make_synthetic
from avatar3d.synth.write import write_subject

PARTS = {"EXP-1-head": range(60), "SEN-01-cramp": range(60, 100)}
SECRET = range(100, 108)
SCALE = 0.8  # of our metres in one of the world's


def pose(vector: tuple[float, ...], place: tuple[float, ...]) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_rotvec(vector).as_matrix(), place
    return result


CAMERAS = {
    name: pose((0.1, turn, 0), (0.1 * turn, 0.02, 1.0))
    for name, turn in zip((TRAIN_CAMERA, *HOLD_OUT_CAMERAS), (0.0, -0.6, 0.2, 0.6), strict=True)
}
T_MODEL_HEAD = pose((0.2, 0.1, -0.3), (0.01, -0.02, 0.03))  # the world's metres


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_synthetic(seed=2, seconds=10.8, fps=10, size=64)


def flame(clip: SyntheticClip) -> dict[str, np.ndarray]:
    """FLAME parameters that say exactly what the person does, in other words."""
    rng = np.random.default_rng(0)
    heads = clip.T_camera_head.copy()
    heads[:, :3, 3] /= SCALE
    model = np.linalg.inv(CAMERAS[TRAIN_CAMERA]) @ heads @ np.linalg.inv(T_MODEL_HEAD)
    return {
        "shape": np.zeros((1, 300)), "scale": np.ones((1, 1)),
        "expression": clip.expression @ rng.normal(0, 1, (52, 100)),
        "jaw": rng.normal(0, 1e-3, (len(clip), 3)), "neck": np.zeros((len(clip), 3)),
        "eyes": clip.gaze.reshape(-1, 4) @ rng.normal(0, 1, (4, 6)),
        "rotation": Rotation.from_matrix(model[:, :3, :3]).as_rotvec(),
        "rotation_matrices": model[:, :3, :3], "translation": model[:, :3, 3],
        "frames": np.arange(len(clip)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person as `nersemble-benchmark-download` lays one out."""
    root: Path = tmp_path_factory.mktemp("mono_flame_avatar") / "461"
    (root / "calibration").mkdir(parents=True)
    K = [[700.0, 0, 256], [0, 700, 256], [0, 0, 1]]
    (root / "calibration" / "camera_params.json").write_text(
        json.dumps(
            {
                "world_2_cam": {name: matrix.tolist() for name, matrix in CAMERAS.items()},
                "intrinsics": dict.fromkeys(CAMERAS, K),
            }
        )
    )
    parameters = flame(clip)
    sizes = {"shape", "scale"}
    for name, some in {**PARTS, TEST_SEQUENCES[2]: SECRET}.items():
        sequence = root / "sequences" / name
        (sequence / "tracking").mkdir(parents=True)
        np.savez(
            sequence / "tracking" / "flame2023_tracking_v2.npz",
            **{k: v if k in sizes else v[some.start : some.stop] for k, v in parameters.items()},
        )
        if name in PARTS:
            for kind, level in (("images", 60), ("alpha_maps", 200)):
                (sequence / kind).mkdir()
                pictures = (np.full((64, 64, 3), level + i % 50, np.uint8) for i in some)
                path = sequence / kind / f"cam_{TRAIN_CAMERA}.mp4"
                write_video(path, pictures, 24.3, synthetic=False)
    return root


@pytest.fixture(scope="module")
def subject(clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    whole = write_subject(clip, tmp_path_factory.mktemp("person") / "subject")
    info = whole.info.model_copy(update={"frames": 100})
    (whole.folder / "subject.json").write_text(info.model_dump_json())
    kept = {
        name: value[:100]
        for name, value in vars(whole.tracking).items()
        if getattr(value, "shape", ())[:1] == (108,)
    }
    replace(whole.tracking, **kept).save(whole.folder / "tracking.npz")
    return Subject(whole.folder)


class Actor:
    """Remembers what it is asked for; grey pictures."""

    def __init__(self) -> None:
        self.info = {"train_frames": 100}
        self.asked: list[tuple] = []

    def render_motion(self, motion, camera=None, background=None):
        self.asked.append((motion, camera))
        assert (background == 255).all()
        for _ in range(len(motion)):
            yield np.full((camera.height, camera.width, 3), 90, np.uint8)


def test_the_recorded_sequences_follow_each_other(folder):
    found = read_recording(folder)
    assert (found.kind, found.fps, found.focal) == ("NeRSemble", 24.3, 700.0)
    assert len(found.frames) == 100
    levels = [picture.mean() for picture in found.pictures()]
    np.testing.assert_allclose(levels, [60 + i % 50 for i in range(100)], atol=1.5)
    alphas = [found.alpha(mask).mean() for mask in found.pictures(masks=True)]
    np.testing.assert_allclose(alphas, [(200 + i % 50) / 255 for i in range(100)], atol=0.01)
    assert len(found.fingerprint()) == 64


def test_flame_becomes_the_motion_that_it_was_made_of(folder, clip, subject):
    """On frames that the conversion was not fitted to, to a tenth of a degree and millimetre."""
    person = read_participant(folder)
    tracks = [person.flame(name) for name in person.recorded]
    both = FlameTrack(*(np.concatenate([getattr(t, name) for t in tracks])
                        for name in ("values", "T_world_model")))  # fmt: skip
    conversion = FlameConversion.fit(both, subject.tracking, np.arange(100), CAMERAS[TRAIN_CAMERA])
    assert conversion.scale == pytest.approx(SCALE, rel=1e-6)
    found = conversion.apply(person.flame(TEST_SEQUENCES[2]), subject.tracking)
    assert len(found.valid) == len(SECRET)
    truth = clip.T_camera_head[SECRET.start : SECRET.stop]
    np.testing.assert_allclose(found.T_camera_head[:, :3, 3], truth[:, :3, 3], atol=1e-4)
    np.testing.assert_allclose(found.T_camera_head[:, :3, :3], truth[:, :3, :3], atol=2e-3)
    wrong = found.expression - clip.expression[SECRET.start : SECRET.stop]
    assert np.abs(wrong).mean() < 0.02
    beside = conversion.seen_from(found, CAMERAS[HOLD_OUT_CAMERAS[0]])
    world = np.linalg.inv(CAMERAS[TRAIN_CAMERA])
    heads = truth.copy()
    heads[:, :3, 3] /= SCALE
    expected = CAMERAS[HOLD_OUT_CAMERAS[0]] @ world @ heads
    expected[:, :3, 3] *= SCALE
    np.testing.assert_allclose(beside.T_camera_head, expected, atol=3e-3)


def test_the_submission_is_what_the_benchmark_reads(folder, subject, tmp_path):
    """Names as in its README, 512x512, one frame a time step; others' videos are kept."""
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        archive.writestr("393/FREE/cam_222200037.mp4", b"of another person")
    actor = Actor()
    config = EvaluationConfig(kind="nersemble", benchmark=str(folder), background="white")
    report = evaluate_benchmark(actor, subject, tmp_path, config)
    assert len(actor.asked) == 4
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.read("393/FREE/cam_222200037.mp4") == b"of another person"
        for camera in ("222200037", "222200046", "220700191", "222200039"):
            content = archive.read(f"461/SEN-09-frown_events_bad/cam_{camera}.mp4")
            facts = iio.improps(BytesIO(content), plugin="pyav")
            assert facts.shape == (len(SECRET), 512, 512, 3)
            assert iio.immeta(BytesIO(content), plugin="pyav")["fps"] == pytest.approx(24.3)
    assert len(missing_videos(tmp_path / "submission.zip")) == 5 * 4 * 4 - 5
    assert any("none is left to score" in text for text in report["statements"])


def test_what_is_no_such_folder_is_refused(folder, subject, tmp_path):
    with pytest.raises(UserError, match="not a person of NeRSemble's benchmark"):
        read_participant(tmp_path)
    other = tmp_path / "7"
    (other / "sequences").mkdir(parents=True)
    (other / "calibration").mkdir()
    (other / "calibration" / "camera_params.json").write_text('{"intrinsics": []}')
    with pytest.raises(UserError, match="Cannot read"):
        read_participant(other)
    with pytest.raises(UserError, match="FLAME tracking of version 2"):
        read_participant(folder).flame("FREE")
    (other / "calibration" / "camera_params.json").write_bytes(
        (folder / "calibration" / "camera_params.json").read_bytes()
    )
    config = EvaluationConfig(kind="nersemble", benchmark=str(other))
    with pytest.raises(UserError, match="of 0 recorded frames"):
        evaluate_benchmark(Actor(), subject, tmp_path, config)
