"""Reports on disk and comparisons, read back by programs that are not ours."""

import csv
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from avatar3d.config import compose, options, presets
from avatar3d.errors import UserError
from avatar3d.evaluation import EvaluationConfig, evaluate_files, evaluate_frames
from avatar3d.evaluation.comparison import compare, paired
from avatar3d.evaluation.split import frames_to_test, last_frames


class Page(HTMLParser):
    """Addresses that a page asks for, its elements and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def frames(subject, folder, change):
    folder.mkdir()
    for index in range(10, 22):
        Image.fromarray(change(subject.frame(index))).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def reports(subject, tmp_path):
    """Two systems, 10 and 5 steps off in all pixels."""
    result = []
    for name, error in (("first", 10), ("second", 5)):
        folder = frames(subject, tmp_path / name, lambda image, e=error: image + np.uint8(e))
        out = tmp_path / "out" / name
        config = EvaluationConfig(video=False)
        result.append(evaluate_frames(folder, subject, out, None, config, range(10, 22)))
    return result


def test_a_report_is_one_page_that_asks_for_nothing(reports, tmp_path):
    folder = tmp_path / "out" / "first"
    page = Page((folder / "report.html").read_text("utf-8"))
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert {"svg", "table", "img"} <= set(page.tags)
    for said in ("whole frame PSNR, dB", "28.13", "Not measured", "processor", "noise.mp4"):
        assert said in page.text
    assert json.loads((folder / "evaluation.json").read_text()) == reports[0]
    with open(folder / "evaluation.csv", newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(rows["psnr"]["first value"]) == pytest.approx(20 * np.log10(25.5), abs=1e-4)
    assert rows["psnr"]["better"] == "higher"
    assert {"torch", "python", "numpy"} <= set(reports[0]["machine"]["versions"])


def test_names_from_outside_are_escaped(subject, tmp_path):
    folder = frames(subject, tmp_path / "a<b>&", lambda image: image + np.uint8(3))
    evaluate_frames(folder, subject, tmp_path / "out", frames=range(10, 22))
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "a<b>" not in text
    page = Page(text)
    assert "a<b>&" in page.text
    assert "video" in page.tags
    assert all(address.startswith("data:") for address in page.addresses)


def test_differences_are_paired_frame_by_frame(reports, tmp_path):
    result = compare(reports, tmp_path / "out")
    value, low, high = result["differences"][0]["figures"]["psnr"]
    assert value == pytest.approx(20 * np.log10(2), abs=1e-4)
    assert high - low < 1e-3, "the same in every frame, however different the frames are"
    page = Page((tmp_path / "out" / "comparison.html").read_text("utf-8"))
    assert all(address.startswith("data:") for address in page.addresses)
    assert "second − first" in page.text  # noqa: RUF001
    with open(tmp_path / "out" / "comparison.csv", newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(rows["psnr"]["second minus first"]) == pytest.approx(value)


def test_only_common_frames_are_compared(reports):
    early, late = ({**report, "per_frame": {}} for report in reports)
    early["per_frame"] = {"psnr": [30.0] * 12}
    late["frames"] = [14, 25]
    late["per_frame"] = {"psnr": [31.0] * 8 + [None] * 4}
    assert paired(early, late)["psnr"] == pytest.approx((1, 1, 1))
    late["frames"] = [40, 51]
    with pytest.raises(UserError, match="no test frames in common"):
        paired(early, late)


def test_every_protocol_has_a_preset_and_every_setting_a_description():
    assert set(presets("evaluation")) == {
        "default", "audio", "insta", "reenactment", "speech", "cameras", "nersemble",
    }  # fmt: skip
    for name in presets("evaluation"):
        compose("evaluation", EvaluationConfig, [f"evaluation={name}"])
    insta = compose("evaluation", EvaluationConfig, ["evaluation=insta"])
    assert (insta.last_frames, insta.background) == (350, "black")
    assert all(option.doc for option in options(EvaluationConfig))
    with pytest.raises(UserError, match=r"evaluation\.mouth must be one of"):
        EvaluationConfig(mouth="both")


def test_frames_that_training_saw_are_no_test(subject):
    assert last_frames(subject, 5, 17) == range(17, 22)
    assert last_frames(subject, 5, None) == range(17, 22)
    with pytest.raises(UserError, match=r"(?s)on 3 of the last 5 .*train_fraction=0\.772727"):
        last_frames(subject, 5, 20)
    with pytest.raises(UserError, match="has 22 frames"):
        last_frames(subject, 22, 0)
    frames, said = frames_to_test(subject, 350, 18)
    assert (frames, frames_to_test(subject, 5, 17)) == (range(18, 22), (range(17, 22), []))
    assert "the 4 that training did not see" in said[0]


def test_what_is_missing_is_said(subject, tmp_path):
    with pytest.raises(UserError, match="Name an avatar file"):
        evaluate_files([], subject.folder, tmp_path / "out")
    with pytest.raises(UserError, match="--subject"):
        evaluate_files([tmp_path / "x.a3d"], None, tmp_path / "out")
    with pytest.raises(UserError, match="has no recording to compare"):
        evaluate_files(
            [], subject.folder, tmp_path / "out", EvaluationConfig(kind="speech"), [tmp_path]
        )
