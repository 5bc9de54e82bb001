"""A subject that cannot be trained on, or a disk that is full, is one sentence and no damage."""

import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from avatar3d.avatar import load
from avatar3d.errors import UserError
from avatar3d.subject import Subject
from avatar3d.training import TrainingConfig, checkpoint, train
from avatar3d.training.events import Checkpointed, Event, Step

TINY = TrainingConfig(
    gaussians=200, basis=2, warmup_iterations=4, iterations=8, refine_steps=1, refine_scale=1.0
)


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder / "mattes")
    (folder / "mattes").mkdir()


def _with_nan(folder: Path) -> None:
    with np.load(folder / "tracking.npz") as data:
        arrays = dict(data)
    arrays["T_camera_head"][3, 0, 3] = np.nan
    np.savez(folder / "tracking.npz", **arrays)


def _masked(folder: Path) -> None:
    """Nobody in any matte."""
    for path in (folder / "mattes").iterdir():
        iio.imwrite(path, np.zeros_like(iio.imread(path)))


def _of_another_size(folder: Path) -> None:
    image = iio.imread(folder / "frames/000004.jpg")
    iio.imwrite(folder / "frames/000004.jpg", image[::2, ::2])


def _tracked_at_another_size(folder: Path) -> None:
    tracking = Subject(folder).tracking
    replace(tracking, size=tracking.size * 2).save(folder / "tracking.npz")


def _not_valid(folder: Path) -> None:
    tracking = Subject(folder).tracking
    replace(tracking, valid=np.zeros(len(tracking), bool)).save(folder / "tracking.npz")


def _shorter_sound(folder: Path) -> None:
    np.savez(folder / "audio_features.npz", mel=np.zeros((3, 8), np.float32))
    (folder / "audio.wav").write_bytes(b"RIFF")
    info = Subject(folder).info
    info.has_audio = True
    (folder / "subject.json").write_text(info.model_dump_json())


def _damaged_sound(folder: Path) -> None:
    _shorter_sound(folder)
    (folder / "audio_features.npz").write_bytes(b"PK\3\4 and then nothing")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_without("tracking.npz"), "tracking"),
        (_without("background.png"), "background.png"),
        (_without("frames/000005.jpg"), "000005.jpg"),
        (_without("parsing/000000.png"), "000000.png"),
        (_emptied, "mattes"),
        (_with_nan, "T_camera_head has non-finite"),
        (_masked, "matte"),
        (_of_another_size, "000004.jpg is"),
        (_tracked_at_another_size, "192x160"),
        (_not_valid, "Only 0 of the first 16"),
        (_shorter_sound, "3 rows"),
        (_damaged_sound, "audio_features.npz"),
    ],
)
def test_a_damaged_subject_is_one_sentence(
    tiny_subject: Subject, tmp_path: Path, harm: Callable[[Path], None], words: str
):
    harm(tiny_subject.folder)
    steps: list[Event] = []
    with pytest.raises(UserError) as caught:
        train(tiny_subject.folder, tmp_path / "me.a3d", TINY, [steps.append])
    message = str(caught.value)
    assert "\n" not in message
    assert words in message
    assert not any(isinstance(event, Step) for event in steps)  # said before any long work
    assert not (tmp_path / "me.a3d").exists()


@pytest.mark.parametrize("bytes_left", [0, 20_000, 100_000])
def test_a_full_disk_leaves_the_last_checkpoint(
    tiny_subject: Subject, tmp_path: Path, bytes_left: int
):
    """From the second checkpoint on no file may grow beyond a few bytes."""
    config = replace(TINY, iterations=40, checkpoint_seconds=0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    seen: list[Path] = []

    def fill(event: Event) -> None:
        if isinstance(event, Checkpointed):
            seen.append(event.path)
            if len(seen) == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))

    output = tmp_path / "me.a3d"
    try:
        with pytest.raises(UserError, match="Cannot write") as caught:
            train(tiny_subject, output, config, [fill])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    found = checkpoint.latest(output.with_suffix(".run"))
    assert found is not None
    assert f"{found[0]['step']:09d}" in seen[1].name
    assert not list(output.with_suffix(".run").glob(".partial-*"))
    train(tiny_subject, output, config)
    assert len(load(output).state)
