"""Training a tiny avatar: it learns, it resumes exactly, it survives kill -9."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avatar3d.avatar import load
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.subject import Subject
from avatar3d.training import TrainingConfig, checkpoint, train
from avatar3d.training.data import select_frames
from avatar3d.training.events import Done, Event, Started, Step
from avatar3d.training.loop import SplatTraining

SMALL = TrainingConfig(
    gaussians=400,
    basis=4,
    warmup_iterations=20,
    iterations=30,
    refine_steps=2,
    refine_scale=1.0,
    checkpoint_seconds=1e9,
    preview_iterations=10**9,
)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _run(subject: Subject, head: HeadModel, run: Path, stop_after: int | None = None):
    """Train until the end or until `stop_after` events; the training and the events."""
    run.mkdir(exist_ok=True)
    training = SplatTraining(subject, head, SMALL, run)
    events: list[Event] = []
    for event in training.events():
        if isinstance(event, Started):
            continue
        events.append(event)
        if stop_after is not None and len(events) == stop_after:
            training.stopping = True
    return training, events


def test_training_lowers_the_loss(tiny_subject: Subject, tiny_head_file: Path, tmp_path: Path):
    _, events = _run(tiny_subject, HeadModel.load(tiny_head_file), tmp_path / "run")
    losses = [event.terms["picture"] for event in events if isinstance(event, Step)]
    assert np.median(losses[-10:]) < 0.7 * np.median(losses[:10])  # a few are on flat colours
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize("stop_after", [7, 25, 45])  # in warm-up, photometric tracking, final
def test_resumed_training_is_bit_identical(
    one_thread, tiny_subject: Subject, tiny_head_file: Path, tmp_path: Path, stop_after: int
):
    head = HeadModel.load(tiny_head_file)
    whole, _ = _run(tiny_subject, head, tmp_path / "whole")
    _run(tiny_subject, head, tmp_path / "parts", stop_after)
    resumed, events = _run(tiny_subject, head, tmp_path / "parts")
    assert isinstance(events[-1], Done)
    for name, value in whole.parameters.named_parameters():
        assert torch.equal(value, dict(resumed.parameters.named_parameters())[name]), name
    files = [sorted((tmp_path / part).glob("checkpoint-*"))[-1] for part in ("whole", "parts")]
    first, second = (load_file(path) for path in files)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny_subject: Subject, tiny_head_file: Path, tmp_path: Path
):
    run = tmp_path / "run"
    _run(tiny_subject, HeadModel.load(tiny_head_file), run, stop_after=5)
    good = sorted(run.glob("checkpoint-*"))[-1]
    (run / "checkpoint-999999999.safetensors").write_bytes(good.read_bytes()[:-100])
    found = checkpoint.latest(run)
    assert found is not None
    assert found[0]["step"] == 5


def test_the_last_two_checkpoints_and_the_best_are_kept(tmp_path: Path):
    values = torch.nn.Parameter(torch.zeros(3))
    optimizer, rng = torch.optim.Adam([values]), np.random.default_rng(0)
    for step, score in enumerate((None, 0.5, 0.2, 0.4, 0.3)):
        tensors = {"values": torch.full((3,), float(step))}
        checkpoint.save(tmp_path, step, tensors, optimizer, rng, {}, score)
    names = [f"checkpoint-{step:09d}.safetensors" for step in (3, 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", *names]
    newest = tmp_path / names[1]
    newest.write_bytes(newest.read_bytes()[:-1])
    for expected, gone in ((3, names[0]), (2, "best.safetensors")):
        header, found = checkpoint.latest(tmp_path) or ({}, {})
        assert (header["step"], float(found["values"][0])) == (expected, expected)
        (tmp_path / gone).unlink()
    assert checkpoint.latest(tmp_path) is None


def test_train_after_kill_minus_nine_continues(
    tiny_subject: Subject, tiny_head_file: Path, tmp_path: Path
):
    output = tmp_path / "me.a3d"
    script = (
        "import sys; from avatar3d.training import train, TrainingConfig;"
        "train(sys.argv[1], sys.argv[2], TrainingConfig(gaussians=400, basis=4,"
        "warmup_iterations=20, iterations=int(sys.argv[3]), refine_steps=1, refine_scale=1.0,"
        "checkpoint_seconds=0.2))"
    )
    many = "100000"
    command = [sys.executable, "-c", script, str(tiny_subject.folder), str(output), many]
    run = output.with_suffix(".run")
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(run.glob("checkpoint-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    before = checkpoint.latest(run)
    assert before is not None
    assert before[0]["step"] > 0
    assert not output.exists()

    second = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    step = 0
    while step <= before[0]["step"] and time.monotonic() < deadline:
        time.sleep(0.2)
        found = checkpoint.latest(run)
        step = found[0]["step"] if found else 0
    os.kill(second.pid, signal.SIGTERM)
    _, errors = second.communicate(timeout=20)
    assert step > before[0]["step"]
    assert b"run the same command again" in errors
    assert b"Reading frames" in errors


def test_train_writes_an_avatar_that_looks_like_the_subject(tiny_subject: Subject, tmp_path: Path):
    output = tmp_path / "me.a3d"
    config = replace(SMALL, iterations=150, warmup_iterations=60, train_fraction=0.8)
    train(tiny_subject, output, config)
    avatar = load(output)
    assert avatar.info["train_frames"] == 12
    motion = tiny_subject.tracking.motion(tiny_subject.fps)
    rendered = list(avatar.render_motion(motion.slice(12, 16)))
    error = [
        np.mean((image.astype(float) - tiny_subject.frame(12 + i)) ** 2)
        for i, image in enumerate(rendered)
    ]
    blank = [
        np.mean((tiny_subject.background.astype(float) - tiny_subject.frame(12 + i)) ** 2)
        for i in range(4)
    ]
    assert np.mean(error) < 0.15 * np.mean(blank)


def test_frames_are_chosen_from_the_training_part_only(tiny_subject: Subject):
    tracking = tiny_subject.tracking
    chosen = select_frames(tracking, 10 / 11, limit=10)
    assert chosen.max() < int(16 * 10 / 11)
    assert len(chosen) == 10
    assert len(set(chosen.tolist())) == 10


def test_too_few_tracked_frames_is_one_sentence(tiny_subject: Subject):
    tracking = replace(tiny_subject.tracking, valid=np.arange(16) < 3)
    with pytest.raises(UserError, match="Only 3 of the first 16 frames"):
        select_frames(tracking, 1.0, limit=100)
