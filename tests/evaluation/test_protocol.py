"""The held-out protocol on a made-up clip, with avatars whose error is known."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avatar3d.errors import UserError
from avatar3d.evaluation import EvaluationConfig, evaluate
from avatar3d.evaluation.metrics import mouth_box
from avatar3d.evaluation.split import held_out
from avatar3d.motion import Motion
from avatar3d.subject import Subject

FRAMES, WIDTH, HEIGHT, NECK_FROM = 22, 96, 80, 60


def scored(avatar: "Impostor", subject: Subject, folder: Path) -> dict[str, Any]:
    """Without the video, which takes most of the time; `test_report.py` looks at one."""
    return evaluate(avatar, subject, folder, config=EvaluationConfig(video=False))


class Impostor:
    """Renders the recording itself, changed by a known amount."""

    def __init__(self, subject: Subject, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.subject, self.change = subject, change
        self.motions: list[Motion] = []
        self.info = {"train_frames": 20}

    def render_motion(self, motion: Motion, camera: object = None) -> Iterator[np.ndarray]:
        self.motions.append(motion)
        for row in motion.expression:
            known = np.abs(self.subject.tracking.expression - row).max(1)
            yield self.change(self.subject.frame(int(known.argmin())))

    def render(
        self,
        expression: dict[str, float] | None = None,
        yaw: float = 0,
        transparent: bool = False,
    ) -> np.ndarray:
        """A grey that tells the pose: degrees of yaw, and 20 a unit of expression, above 100."""
        grey = 100 + np.rad2deg(yaw) + 20 * sum((expression or {}).values())
        picture = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
        picture[..., :3] = round(grey)
        return picture if transparent else picture[..., :3]


def test_a_perfect_avatar(subject, tmp_path):
    means = scored(Impostor(subject, lambda frame: frame), subject, tmp_path / "out")["means"]
    assert means["ssim"] == pytest.approx(1)
    assert means["seam_error"] == 0
    assert means["face_sharpness"] == pytest.approx(1)
    assert means["psnr"] is None  # infinite in every frame


def test_a_constant_error_has_its_analytic_scores(subject, tmp_path, capsys):
    avatar = Impostor(subject, lambda frame: frame + np.uint8(10))
    report = scored(avatar, subject, tmp_path / "out")
    expected = 20 * np.log10(255 / 10)
    for name in ("psnr", "face_psnr", "mouth_psnr"):
        assert report["means"][name] == pytest.approx(expected, abs=1e-4)
    # Where only the 88 of 96 columns and 60 of 80 rows of the head are rendered, the rest is exact.
    pasted = expected + 10 * np.log10(96 / 88 * HEIGHT / NECK_FROM)
    assert report["means"]["pasted_psnr"] == pytest.approx(pasted, abs=1e-4)
    assert report["means"]["seam_error"] == pytest.approx(10, abs=1e-4)
    assert report["means"]["person_error"] == pytest.approx(10, abs=1e-4)
    assert report["means"]["seam_ratio"] == pytest.approx(1, abs=1e-4)
    assert report["means"]["train_face_psnr"] == pytest.approx(expected, abs=1e-4)
    assert report["means"]["gap"] == pytest.approx(0, abs=1e-4)
    assert re.search(rf"{expected:.3f} .*whole frame PSNR, dB", capsys.readouterr().err)


def test_only_frames_after_training_are_compared(subject, tmp_path):
    avatar = Impostor(subject, lambda frame: frame)
    report = scored(avatar, subject, tmp_path / "out")
    assert report["frames"] == [20, 21]
    compared, *others = (motion.expression for motion in avatar.motions)
    np.testing.assert_array_equal(compared, subject.tracking.expression[20:])
    # The others are for the gap.
    np.testing.assert_array_equal(np.concatenate(others), subject.tracking.expression[:20])
    assert held_out(subject, None) == range(20, 22)
    with pytest.raises(UserError, match="train_fraction"):
        held_out(subject, FRAMES)


def test_another_clip_is_compared_as_a_whole(subject, tmp_path):
    avatar = Impostor(subject, lambda frame: frame)
    avatar.info["source_sha256"] = "of another clip"
    assert scored(avatar, subject, tmp_path / "out")["frames"] == [0, FRAMES - 1]
    avatar.info["source_sha256"] = subject.info.source_sha256
    assert scored(avatar, subject, tmp_path / "out")["frames"] == [20, FRAMES - 1]


def test_a_stranger_is_told_and_silence_cannot_drive(subject, tmp_path):
    avatar = Impostor(subject, lambda frame: 255 - frame)
    avatar.info["source_sha256"] = "of another clip"
    said = scored(avatar, subject, tmp_path / "out")["statements"]
    assert any("is this the same person?" in sentence for sentence in said)
    avatar.change = lambda frame: frame + np.uint8(5)
    said = scored(avatar, subject, tmp_path / "out")["statements"]
    assert not any("is this the same person?" in sentence for sentence in said)
    with pytest.raises(UserError, match="has no sound to drive the mouth"):
        evaluate(avatar, subject, tmp_path, config=EvaluationConfig(mouth="audio"))


def test_over_a_flat_background_only_the_person_counts(subject, tmp_path):
    """The wall of the recording, eight columns of it, is replaced as the protocol says."""

    class Flat(Impostor):
        def render_motion(self, motion, camera=None, background=None):
            for image in super().render_motion(motion, camera):
                matte = self.subject.matte(0)[..., None] / 255
                yield (image * matte + background * (1 - matte)).astype(np.uint8)

    config = EvaluationConfig(background="white", last_frames=2, video=False)
    avatar = Flat(subject, lambda frame: frame)
    means = evaluate(avatar, subject, tmp_path / "out", config=config)["means"]
    assert means["psnr"] is None  # infinite in every frame
    assert means["ssim"] == pytest.approx(1)


def test_an_error_at_the_mouth_is_seen_there(subject, tmp_path):
    box = mouth_box(subject.tracking.landmarks_fit[0], WIDTH, HEIGHT)

    def smear(frame: np.ndarray) -> np.ndarray:
        result = frame.copy()
        box.crop(result)[:] = 128
        return result

    means = scored(Impostor(subject, smear), subject, tmp_path / "out")["means"]
    assert means["mouth_psnr"] < means["face_psnr"] <= means["psnr"]
    assert means["mouth_sharpness"] == 0


def test_a_seam_is_told_from_an_error_everywhere(subject, tmp_path):
    def split(frame: np.ndarray) -> np.ndarray:
        result = frame + np.uint8(10)
        result[NECK_FROM - 6 : NECK_FROM + 6] += 20
        return result

    means = scored(Impostor(subject, split), subject, tmp_path / "out")["means"]
    assert means["seam_error"] == pytest.approx(30, abs=0.5)
    assert means["seam_ratio"] == pytest.approx(3, abs=0.05)


def test_better_frames_of_the_training_are_a_gap(subject, tmp_path):
    """Ten steps off on frames of the training, twenty on the others: 6.02 dB."""
    avatar = Impostor(subject, lambda frame: frame + np.uint8(20))
    seen = {subject.frame(index).tobytes() for index in range(20)}
    avatar.change = lambda frame: frame + np.uint8(10 if frame.tobytes() in seen else 20)
    means = scored(avatar, subject, tmp_path / "out")["means"]
    assert means["gap"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert means["face_gap"] == pytest.approx(20 * np.log10(2), abs=1e-3)


def test_the_report_is_on_disk(subject, tmp_path):
    report = scored(Impostor(subject, lambda f: f // 2), subject, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == report
    assert len(report["per_frame"]["psnr"]) == 2
    for name in ("frames", "mouth", "eyes"):
        sheet = np.array(Image.open(tmp_path / "out" / f"{name}.png"))
        assert sheet.ndim == 3
        assert sheet.std() > 10


def test_unfilmed_poses_are_shown_in_order(subject, tmp_path):
    scored(Impostor(subject, lambda f: f), subject, tmp_path / "out")
    sheet = np.array(Image.open(tmp_path / "out" / "poses.png"))
    rows = sheet.reshape(2, sheet.shape[0] // 2, 5, sheet.shape[1] // 5, 3)
    assert (rows == rows[:, :1, :, :1, :1]).all()
    assert rows[0, 0, :, 0, 0].tolist() == [65, 80, 100, 120, 135]  # yaw
    assert rows[1, 0, :, 0, 0].tolist() == [108, 120, 120, 140, 140]  # jaw, jaw, lids, lids, smile
