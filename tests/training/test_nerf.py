"""The training of a NeRF avatar on a tiny subject."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar3d.avatar import NerfAvatar, load
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.kernels import Occupancy
from avatar3d.motion.sliders import columns_named
from avatar3d.subject import Subject
from avatar3d.training import NerfConfig, TrainingConfig, train, training_config
from avatar3d.training.events import Done, Event, FrameRefined, Preview, Step
from avatar3d.training.nerf.loop import NerfTraining
from avatar3d.training.nerf.occupied import Occupied
from avatar3d.training.nerf.pixels import PixelChoice

TINY = NerfConfig(
    gaussians=400, warmup_iterations=6, coarse_iterations=2, refine_steps=1, iterations=10,
    resolution=48, rays=128, frames_together=2, levels=4, log2_size=10, finest=32, hidden=16,
    code=4, attention=8, cells=16, step=0.01, warp_spacing=0.04, face_spacing=0.03,
    patches_from=0.3, sides=0.2, preview_iterations=1000, device="cpu",
)  # fmt: skip


def run(subject: Subject, folder: Path, config: NerfConfig, stop_at: int = 0) -> list[Event]:
    """The events of a training, stopped after so many steps of the field."""
    model = HeadModel.load(subject.info.head_model)
    folder.mkdir(exist_ok=True)
    training = NerfTraining(subject, model, config, folder)
    events = []
    for event in training.events():
        events.append(event)
        if isinstance(event, Step) and event.phase == "final" and event.iteration == stop_at:
            training.stopping = True
    return events


def arrays(events: list[Event]) -> dict[str, np.ndarray]:
    done = events[-1]
    assert isinstance(done, Done)
    assert isinstance(done.avatar, NerfAvatar)
    return {f.name: getattr(done.avatar.state, f.name) for f in fields(done.avatar.state)}


def test_trains_tells_and_resumes_exactly(tiny_subject: Subject, tmp_path: Path) -> None:
    """One run, and one that is stopped in both of its phases, end with the same bits."""
    whole = run(tiny_subject, tmp_path / "whole", TINY)
    steps = [event for event in whole if isinstance(event, Step)]
    assert [event.phase for event in steps] == ["warmup"] * 6 + ["final"] * 10
    assert sum(isinstance(event, FrameRefined) for event in whole) == 16
    assert any(isinstance(event, Preview) for event in whole)
    assert all({"picture", "distortion"} <= set(event.terms) for event in steps[6:])
    pieces = tmp_path / "pieces"
    assert not isinstance(run(tiny_subject, pieces, TINY, stop_at=4)[-1], Done)
    assert not isinstance(run(tiny_subject, pieces, TINY, stop_at=7)[-1], Done)
    resumed, once = arrays(run(tiny_subject, pieces, TINY)), arrays(whole)
    for name, value in once.items():
        assert np.array_equal(resumed[name], value), name


def test_learns(tiny_subject: Subject, tmp_path: Path) -> None:
    config = replace(
        TINY,
        iterations=120,
        refine_steps=0,
        patches=0.0,
        sides=0.0,
        random_background=0.0,
        table_rate=0.05,
    )
    steps = [e for e in run(tiny_subject, tmp_path / "run", config) if isinstance(e, Step)]
    losses = [event.terms["picture"] for event in steps if event.phase == "final"]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_writes_an_avatar_that_plays(tiny_subject: Subject, tmp_path: Path) -> None:
    config = replace(TINY, iterations=3, refine_steps=0)
    avatar = train(tiny_subject, tmp_path / "a.a3d", config)
    again = load(tmp_path / "a.a3d")
    assert isinstance(avatar, NerfAvatar)
    assert isinstance(again, NerfAvatar)
    assert again.info["train_frames"] == 16
    assert next(iter(again.render_motion(again.idle_motion))).shape == (80, 96, 3)
    assert (tmp_path / "a.run" / "tracking.npz").is_file()
    with pytest.raises(UserError, match="of splats"):
        train(tiny_subject, tmp_path / "b.a3d", TrainingConfig(), (), tmp_path / "a.a3d")


def test_mattes_without_a_person_are_a_sentence(tiny_subject: Subject, tmp_path: Path) -> None:
    import imageio.v3 as iio

    for path in (tiny_subject.folder / "mattes").iterdir():
        iio.imwrite(path, np.zeros((80, 96), np.uint8))
    with pytest.raises(UserError, match="mattes"):
        run(tiny_subject, tmp_path / "run", TINY)


def test_an_empty_volume_is_a_sentence() -> None:
    box = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    empty = Occupancy.full(box, 8)
    empty.update(torch.zeros(512))
    with pytest.raises(UserError, match="nothing for the field"):
        Occupied(empty)
    occupied = Occupied(Occupancy.full(box, 8))
    rng = np.random.default_rng(0)

    def until_nothing_is_left() -> None:
        for iteration in range(0, 10_000, 16):
            occupied.update(iteration, lambda points: torch.zeros(len(points)), rng)

    with pytest.raises(UserError, match="become empty"):
        until_nothing_is_left()


def test_what_was_seen_does_not_keep_what_it_was_computed_from() -> None:
    """Or every iteration's samples stay in memory until it is full."""
    occupied = Occupied(Occupancy.full(torch.tensor([[0.0, 0, 0], [1, 1, 1]]), 8))
    weights = torch.ones(2, requires_grad=True) * 1.0
    occupied.see(torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]]), weights)
    assert float(occupied.shown.max()) == 1.0
    assert not occupied.shown.requires_grad


def test_looks_where_it_errs() -> None:
    choice, rng = PixelChoice(64, 64), np.random.default_rng(0)
    matte, weight = torch.ones(64, 64), torch.ones(64, 64)
    everywhere = torch.arange(64 * 64)
    wrong = (everywhere % 64 < 32).float()
    for _ in range(200):
        choice.learn(everywhere, wrong)
    pixels = choice.pixels(choice.chances(matte, weight), 1000, rng)
    share = float((pixels % 64 < 32).float().mean())
    assert 0.8 < share < 1, "the wrong half, without forgetting the other"
    square = choice.square(choice.chances(matte, weight), 16, rng)
    rows, columns = square // 64, square % 64
    assert len(square) == 256 == len(set(square.tolist()))
    assert int(rows.max() - rows.min()) == 15 == int(columns.max() - columns.min())


def test_settings_by_kind() -> None:
    field = training_config(["avatar=nerf", "training=fast", "training.rays=512", "seed=3"])
    assert isinstance(field, NerfConfig)
    assert (field.rays, field.seed) == (512, 3)
    assert field.iterations < NerfConfig().iterations
    assert training_config(["avatar=nerf"]) == NerfConfig()
    assert isinstance(training_config(["training=fast"]), TrainingConfig)
    with pytest.raises(UserError, match="splat, nerf"):
        training_config(["avatar=mesh"])
    with pytest.raises(UserError, match="did you mean"):
        training_config(["avatar=nerf", "iteration=3"])


def test_looks_at_closed_eyes_more_often(tiny_subject: Subject, tmp_path: Path) -> None:
    """The one blink of a clip makes up a fifth of what is looked at."""
    model = HeadModel.load(tiny_subject.info.head_model)
    training = NerfTraining(tiny_subject, model, TINY, tmp_path)
    expression = training.tracking.expression.copy()
    expression[:, columns_named("eyeBlink")] = 0.1
    training.tracking = replace(training.tracking, expression=expression)
    assert sorted(training._seen_together()) == sorted(training.frames)
    blink = int(training.frames[3])
    expression[blink, columns_named("eyeBlink")] = 0.9
    seen = list(training._seen_together())
    assert seen.count(blink) == round(0.2 * len(training.frames)) > 1
    assert len(seen) - seen.count(blink) == len(training.frames) - 1
