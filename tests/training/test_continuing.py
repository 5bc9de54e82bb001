"""Adding a second clip of the same person to an avatar."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar3d.avatar import load
from avatar3d.avatar.gamut import Gamut
from avatar3d.avatar.opponent import to_opponent
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.subject import Subject
from avatar3d.training import TrainingConfig, continuing, train
from avatar3d.training.continuing import Rehearsal, moved_onto

SMALL = TrainingConfig(
    gaussians=400, basis=4, warmup_iterations=20, iterations=60, refine_steps=2, refine_scale=1.0
)


@pytest.fixture
def first(tiny_subject: Subject, tmp_path: Path, monkeypatch) -> Path:
    """An avatar of a few iterations; nobody compares faces, which the tiny head has not."""
    monkeypatch.setattr(continuing, "load_identity", lambda: None)
    path = tmp_path / "first.a3d"
    train(tiny_subject, path, replace(SMALL, iterations=10, train_fraction=0.6))
    return path


def _error(subject: Subject, path: Path) -> float:
    avatar = load(path)
    images = avatar.render_motion(subject.tracking.motion(subject.fps))
    return float(np.mean([np.abs(image - subject.frame(i).astype(float)).mean()
                          for i, image in enumerate(images)]))  # fmt: skip


def test_a_second_clip_improves_the_avatar(tiny_subject: Subject, first: Path, tmp_path: Path):
    second = tmp_path / "second.a3d"
    train(tiny_subject, second, SMALL, continue_from=first)
    assert _error(tiny_subject, second) < 0.85 * _error(tiny_subject, first)
    before, after = load(first), load(second)
    assert len(before.state) == len(after.state)
    assert np.array_equal(before.state.vertices, after.state.vertices)
    assert np.all(after.state.signal_max >= before.state.signal_max)
    assert after.info["earlier"] == [
        {name: before.info[name] for name in ("name", "source_sha256", "consent")}
    ]


def test_what_a_colour_may_become_is_remembered(tiny_subject: Subject, first: Path, tmp_path: Path):
    """Limits to greens, which the clip does not show, hold for the second training too."""
    avatar = load(first)
    assert avatar.gamut is not None
    count = len(avatar.state)
    low, high = np.tile([-1.0, 0.5, -1.0], (count, 1)), np.tile([-0.4, 1.0, -0.4], (count, 1))
    steady = np.arange(count) < len(avatar.state.basis)
    replace(avatar, gamut=Gamut(low, high, steady)).save(first)
    train(tiny_subject, tmp_path / "second.a3d", SMALL, continue_from=first)
    after = load(tmp_path / "second.a3d")
    tint = to_opponent(after.state.color)
    assert tint[:, 0].max() < -0.38
    assert tint[:, 1].min() > 0.48
    assert np.abs(after.state.basis[:, 7:]).max() == 0


def test_poses_move_to_the_head_that_the_avatar_has(
    tiny_subject: Subject, tiny_head_file: Path, first: Path
):
    """A head a tenth larger and elsewhere in its frame gives the same picture from further away."""
    model, avatar = HeadModel.load(tiny_head_file), load(first)
    larger, shifted = 0.1 * model.template, np.full_like(model.template, 0.01)
    still = np.zeros((2, 2, 3))
    model = replace(model, identity=np.stack([larger, shifted]), eye_centers_identity=still)
    avatar.info["identity"] = [1.0, 1.0]
    tracking = replace(tiny_subject.tracking, identity=np.zeros(2))
    moved = moved_onto(tracking, model, avatar)
    own, kept = (model.shaped(np.array(row)).vertices for row in ([0, 0], [1, 1]))

    def seen(T_camera_head: np.ndarray, points: np.ndarray) -> np.ndarray:
        return tracking.camera.project(points @ T_camera_head[:3, :3].T + T_camera_head[:3, 3])

    for before, after in zip(tracking.T_camera_head, moved.T_camera_head, strict=True):
        assert seen(after, kept) == pytest.approx(seen(before, own), abs=0.01)
        assert np.linalg.norm(seen(before, kept) - seen(before, own), axis=-1).mean() > 1
    rotation = moved.T_camera_head[:, :3, :3]
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-6)


def test_the_rehearsal_shows_the_avatar_as_it_was(first: Path):
    avatar = load(first)
    rehearsal = Rehearsal(avatar, "cpu")
    background = np.full((*reversed(avatar.state.size.tolist()), 3), 255, np.uint8)
    shown = list(avatar.render_motion(avatar.idle_motion, background=background))
    assert len(rehearsal) == len(shown)
    sample = rehearsal.sample(3, torch.ones(3))
    assert np.abs(sample.image.numpy() * 255 - shown[3]).max() < 1


def test_another_person_is_refused(tiny_subject: Subject, first: Path, tmp_path: Path, monkeypatch):
    def faces(image: np.ndarray, points: np.ndarray) -> np.ndarray:
        recorded = any(
            np.array_equal(image, tiny_subject.frame(i)) for i in range(len(tiny_subject))
        )
        return np.full(128, 0.1 * recorded)

    monkeypatch.setattr(continuing, "load_identity", lambda: faces)
    with pytest.raises(UserError, match="another person than the avatar"):
        train(tiny_subject, tmp_path / "second.a3d", SMALL, continue_from=first)
    assert not (tmp_path / "second.a3d").exists()


def test_an_avatar_of_an_older_version_is_one_sentence(
    tiny_subject: Subject, tiny_head_file: Path, first: Path
):
    avatar = load(first)
    del avatar.info["identity"]
    with pytest.raises(UserError, match="cannot take another clip"):
        moved_onto(tiny_subject.tracking, HeadModel.load(tiny_head_file), avatar)
