"""Other systems' pictures: matched with the right frames, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avatar3d.errors import UserError
from avatar3d.evaluation import EvaluationConfig, evaluate_frames
from avatar3d.evaluation.foreign import ForeignFrames
from avatar3d.io.video import write_video

TEST = range(20, 22)


def write(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(folder / name)
    return folder


def recorded(subject, frames, change=lambda image: image) -> dict[str, np.ndarray]:
    """Named 1.png, 2.png ... 10.png, so that the order of letters is wrong."""
    return {f"{n + 1}.png": change(subject.frame(i)) for n, i in enumerate(frames)}


def shown(found: ForeignFrames) -> list[np.ndarray]:
    return list(found)


@pytest.mark.parametrize("frames", [TEST, range(22)], ids=["the test frames", "the whole clip"])
def test_pictures_are_matched_by_their_number(subject, tmp_path, frames):
    folder = write(tmp_path / "theirs", recorded(subject, frames))
    found = ForeignFrames.open(folder, subject, TEST)
    assert found.frames == TEST
    for image, index in zip(shown(found), TEST, strict=True):
        np.testing.assert_array_equal(image, subject.frame(index))
    assert f"{len(frames)} pictures" in found.statements[0]


def test_missing_last_pictures_are_stated(subject, tmp_path):
    folder = write(tmp_path / "theirs", recorded(subject, range(10, 19)))
    found = ForeignFrames.open(folder, subject, range(10, 22))
    assert found.frames == range(10, 19)
    assert "the last 3 test frames have no picture" in found.statements[0]


def test_the_first_frame_can_be_told(subject, tmp_path):
    folder = write(tmp_path / "theirs", recorded(subject, range(5, 21)))
    found = ForeignFrames.open(folder, subject, TEST, first_frame=5)
    assert found.frames == range(20, 21)
    np.testing.assert_array_equal(shown(found)[0], subject.frame(20))
    with pytest.raises(UserError, match="none is among the test frames 20 to 21"):
        ForeignFrames.open(folder, subject, TEST, first_frame=0)


def test_a_length_that_fits_nothing_is_refused(subject, tmp_path):
    folder = write(tmp_path / "theirs", recorded(subject, range(9)))
    with pytest.raises(UserError, match=r"9 pictures, but there are 2 test frames and 22"):
        ForeignFrames.open(folder, subject, TEST)
    with pytest.raises(UserError, match="has no pictures to compare"):
        ForeignFrames.open(write(tmp_path / "none", {}), subject, TEST)


def test_other_sizes_are_resized_and_said_and_other_shapes_refused(subject, tmp_path):
    def larger(image: np.ndarray) -> np.ndarray:
        return image.repeat(2, 0).repeat(2, 1)

    folder = write(tmp_path / "large", recorded(subject, TEST, larger))
    found = ForeignFrames.open(folder, subject, TEST)
    assert "resized from 192x160 to 96x80" in found.statements[1]
    assert shown(found)[0].shape == (80, 96, 3)
    assert np.abs(shown(found)[0].astype(int) - subject.frame(20)).mean() < 12
    square = write(tmp_path / "square", recorded(subject, TEST, lambda image: image[:, :80]))
    with pytest.raises(UserError, match="80x80, which is another shape than the subject's 96x80"):
        ForeignFrames.open(square, subject, TEST)


def test_wrong_colours_are_refused(subject, tmp_path):
    swapped = write(tmp_path / "bgr", recorded(subject, TEST, lambda image: image[..., ::-1]))
    with pytest.raises(UserError, match="Red and blue are exchanged"):
        ForeignFrames.open(swapped, subject, TEST)
    dark = write(tmp_path / "dark", recorded(subject, TEST, lambda image: image // 255))
    with pytest.raises(UserError, match="write colours as 0 to 255"):
        ForeignFrames.open(dark, subject, TEST)
    grey = write(tmp_path / "grey", recorded(subject, TEST, lambda image: image[..., 0]))
    with pytest.raises(UserError, match="not RGB of 8 or 16 bits"):
        ForeignFrames.open(grey, subject, TEST)


def test_a_video_is_scored_like_a_folder(subject, tmp_path):
    path = tmp_path / "theirs.mp4"
    write_video(path, (subject.frame(i) for i in range(22)), subject.fps, synthetic=False)
    report = evaluate_frames(path, subject, tmp_path / "out")
    assert report["name"] == "theirs"
    assert report["frames"] == [20, 21]
    assert 20 < report["means"]["psnr"] < 60  # noise, compressed


def test_known_errors_have_their_analytic_scores(subject, tmp_path):
    folder = write(tmp_path / "theirs", recorded(subject, TEST, lambda i: i + np.uint8(10)))
    report = evaluate_frames(
        folder, subject, tmp_path / "out", config=EvaluationConfig(video=False)
    )
    assert report["means"]["psnr"] == pytest.approx(20 * np.log10(25.5), abs=1e-4)
    assert report["means"]["flicker"] == 0
    assert any("FID" in text for text in report["skipped"])
    assert any("no sound" in text or "has none" in text for text in report["skipped"])
