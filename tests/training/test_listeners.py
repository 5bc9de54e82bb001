"""What a training tells the person: the run folder's pictures and page, and the live view."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from avatar3d.head import HeadModel
from avatar3d.io.video import probe
from avatar3d.subject import Subject
from avatar3d.training import TrainingConfig, train
from avatar3d.training.events import Event, Step
from avatar3d.training.listeners import tensorboard_log
from avatar3d.training.loop import SplatTraining

QUICK = TrainingConfig(
    gaussians=200, basis=2, warmup_iterations=10, iterations=20, refine_steps=1, refine_scale=1.0
)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_run_folder_shows_what_happened(tiny_subject: Subject, tmp_path: Path):
    train(tiny_subject, tmp_path / "me.a3d", replace(QUICK, seed=77))
    run = tmp_path / "me.run"
    assert (run / "preview.jpg").is_file()
    assert list((run / "tensorboard").iterdir())
    clip = probe(run / "preview.mp4")
    size = tiny_subject.info.width, tiny_subject.info.height // 2
    assert (clip.width, clip.height) == size
    page = _Page((run / "report.html").read_text())
    assert len(page.sources) == 5
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "Synthetic media" in page.text
    assert re.search(r"Photometric tracking \d+ ms a frame, final training \d+ iter", page.text)
    assert "seed: 77" in page.text
    assert tiny_subject.info.source_sha256 in page.text


def test_training_does_without_tensorboard(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    tensorboard_log(tmp_path)(Step("final", 10, 1.0, {"picture": 1.0}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["matte_weight", "temporal_weight"])
def test_an_optional_loss_is_a_term_of_its_own(
    tiny_subject: Subject, tiny_head_file: Path, tmp_path: Path, name: str
):
    config = replace(QUICK, refine_steps=0, random_background=0.0, **{name: 0.5})
    training = SplatTraining(tiny_subject, HeadModel.load(tiny_head_file), config, tmp_path)
    steps = [event for event in training.events() if isinstance(event, Step)]
    values = [step.terms.get(name.removesuffix("_weight")) for step in steps]
    assert np.isfinite([value for value in values if value is not None]).all()
    missing = sum(value is None for value in values)
    assert missing == 0 if name == "matte_weight" else missing < len(values) / 4


def test_a_training_can_be_watched(tiny_subject: Subject, tmp_path: Path, monkeypatch):
    pytest.importorskip("viser")
    from avatar3d.viewer import training as watching

    monkeypatch.setattr(watching, "_SECONDS_BETWEEN", 0.0)
    viewer = watching.TrainingViewer(port=18180)
    panels = []

    def listen(event: Event) -> None:
        viewer(event)
        if viewer._viewer is not None and viewer._viewer._panel is not None:
            panels.append(np.asarray(viewer._viewer._panel.image).mean())

    try:
        avatar = train(tiny_subject, tmp_path / "me.a3d", QUICK, [listen])
        assert viewer._viewer is not None
        assert viewer._viewer.avatar is avatar
    finally:
        viewer.stop()
    assert len(set(panels)) > 10


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_full_disk_is_told_once_and_without_a_traceback(tmp_path: Path):
    pytest.importorskip("tensorboard")
    program = """
import resource, signal, sys, time
from pathlib import Path
from avatar3d.training.events import Step
from avatar3d.training.listeners import tensorboard_log
log = tensorboard_log(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    for number in range(1000):
        log(Step("final", 10 * number, 1.0, {}))
        time.sleep(0.01)
except OSError as error:
    print("told:", error.strerror)
"""
    run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert run.stdout.startswith("told:")
    assert "Traceback" not in run.stderr
