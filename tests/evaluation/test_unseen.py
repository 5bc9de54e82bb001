"""Protocols without a recording of the moment: what they ask of an avatar, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.evaluation import EvaluationConfig
from avatar3d.evaluation.cameras import DEGREES
from avatar3d.evaluation.unseen import evaluate_unseen
from avatar3d.motion import Motion
from avatar3d.subject import Subject
from avatar3d.synth import SyntheticClip, make_synthetic
from avatar3d.synth.clip import to_bytes
from avatar3d.synth.write import write_subject


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_synthetic(seed=2, seconds=1.2, fps=10, size=96)


@pytest.fixture(scope="module")
def subject(clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder: Path = tmp_path_factory.mktemp("person") / "subject"
    return write_subject(clip, folder)


class Knowing:
    """The truth, ten steps off; from any camera, or performing the captured motion."""

    def __init__(self, clip: SyntheticClip) -> None:
        self.clip, self.driver = clip, None
        self.info: dict = {}
        self.angles = iter(DEGREES)
        self.motions: list[Motion] = []
        self.idle_motion = Motion(
            fps=clip.fps,
            expression=clip.expression,
            head_pose=np.linalg.inv(clip.T_camera_rest) @ clip.T_camera_head,
        )

    def render_motion(self, motion, camera=None, background=None):
        self.motions.append(motion)
        angle = 0.0 if camera is None else next(self.angles)
        frames = np.linspace(0, len(self.clip) - 1, len(motion)).astype(int)
        for index in frames:
            image = to_bytes(self.clip.picture_from(int(index), np.deg2rad(angle)).image)
            yield np.where(image < 128, image + 10, image - 10).astype(np.uint8)

    def confidence(self, motion):
        return np.full(len(motion), 0.75)


def test_cameras_beside_a_synthetic_person(clip, subject, tmp_path):
    config = EvaluationConfig(kind="cameras", person=2)
    report = evaluate_unseen(Knowing(clip), subject, tmp_path / "out", config)
    for name in ("cameras_20", "cameras_40"):
        assert report["means"][name] == pytest.approx(20 * np.log10(25.5), abs=1e-6)
    assert len(report["parts"]) == len(DEGREES)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == report
    with pytest.raises(UserError, match="not the exact truth of synthetic person 3"):
        evaluate_unseen(
            Knowing(clip), subject, tmp_path, EvaluationConfig(kind="cameras", person=3)
        )


def test_speech_in_other_languages(clip, subject, tmp_path):
    avatar = Knowing(clip)
    config = EvaluationConfig(kind="speech", languages=("de",))
    report = evaluate_unseen(avatar, subject, tmp_path / "out", config)
    (motion,) = avatar.motions
    assert (tmp_path / "out" / "de.mp4").is_file()
    assert report["means"]["confidence"] == 0.75
    table = (tmp_path / "out" / "evaluation.csv").read_text().splitlines()[0]
    assert table == "figure,avatar value,recording,better,meaning", "no columns without intervals"
    assert "In brackets" not in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert any("WER of de" in text for text in report["skipped"])
    assert 0 <= report["means"]["bilabials_met"] <= 1
    assert set(report["parts"]) == {"de"}
    assert 2 * clip.fps < len(motion)
    with pytest.raises(UserError, match="no text in 'xx'"):
        evaluate_unseen(
            avatar, subject, tmp_path, EvaluationConfig(kind="speech", languages=("xx",))
        )


def test_another_performer(clip, subject, tmp_path):
    avatar = Knowing(clip)
    config = EvaluationConfig(kind="reenactment", performer=str(subject.folder), seconds=0.8)
    report = evaluate_unseen(avatar, subject, tmp_path / "out", config)
    assert len(avatar.motions[0]) == 8
    assert "8 frames" in report["statements"][0]
    with pytest.raises(UserError, match="performer=CLIP"):
        evaluate_unseen(avatar, subject, tmp_path, EvaluationConfig(kind="reenactment"))
    with pytest.raises(UserError, match="--subject"):
        evaluate_unseen(avatar, None, tmp_path, EvaluationConfig(kind="speech"))
