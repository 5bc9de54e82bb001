"""The check before capture: what it measures, what it refuses and what it masks."""

import html.parser
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avatar3d.capture import CaptureConfig, capture, check
from avatar3d.capture.identity import load_identity
from avatar3d.capture.preflight import CheckReport, check_clip
from avatar3d.capture.preflight.cuts import CutFinder
from avatar3d.capture.preflight.faces import FaceLooker, _square, blur_effect
from avatar3d.capture.preflight.sound import SILENT, Sound, estimate_offset, hear
from avatar3d.errors import UserError
from avatar3d.head.landmarks import inter_ocular, lip_gap
from avatar3d.io.video import read_frames, write_video
from avatar3d.subject import FRAME_REASONS
from avatar3d.synth import make_synthetic
from avatar3d.synth.clip import to_bytes

CONFIG = CaptureConfig(size=256, iterations=60, identity_frames=20, chunk=32, detector="solutions")
pytestmark = pytest.mark.usefixtures("models")
MUTANTS = int(os.environ.get("AVATAR3D_MUTANTS", "6"))


@pytest.fixture(scope="module")
def stranger(anny) -> list[np.ndarray]:
    """30 frames of somebody else."""
    return list(make_synthetic(seed=4, seconds=1.2, fps=25, size=320, head=anny).frames())


def written(folder: Path, frames: list[np.ndarray], name: str = "clip.mp4") -> Path:
    write_video(folder / name, frames, 25)
    return folder / name


def states(report: CheckReport) -> dict[str, str]:
    return {finding.name: finding.state for finding in report.findings}


def test_figures_of_a_made_up_person_are_the_true_ones(person, clip):
    checked = check_clip(clip, CONFIG)
    report = checked.report
    assert report.verdict == "limits"  # it lasts 1.6 s
    assert (report.frames, report.width, report.height) == (len(person), 320, 320)
    assert report.usable == 1
    assert not report.cuts
    bad = {name for name, state in states(report).items() if state in ("limit", "fail")}
    assert bad <= {"length", "speech", "pose"}
    places = [sample.index for sample, _ in checked.measures.looks]
    yaw = np.array([face.yaw for _, face in checked.measures.looks])
    truth = person.T_camera_head[places]
    true_yaw = np.degrees(np.arctan2(truth[:, 0, 2], -truth[:, 2, 2]))
    assert np.abs(yaw - yaw.mean() - true_yaw + true_yaw.mean()).max() < 4
    apart = inter_ocular(person.landmarks)
    assert checked.measures.eyes_apart == pytest.approx(np.median(apart), rel=0.08)


@pytest.mark.parametrize("delay", [-0.2, 0.0, 0.28])
def test_offset_of_the_sound_is_found(anny, delay):
    """The sound of a made-up speaker is moved; its lips are those that were drawn."""
    talk = make_synthetic(seed=2, seconds=8, fps=25, size=64, head=anny)
    moved = round(delay * talk.rate)
    samples = np.roll(talk.samples, moved)
    gap = lip_gap(talk.landmarks) / inter_ocular(talk.landmarks)
    speech = np.ones(len(talk), bool)
    sound = Sound(None, "", samples.astype(np.float32), speech, level=0.1)
    found = estimate_offset(sound, [(0, gap)], talk.fps)
    if found is None:
        pytest.skip("no speech embedding here")
    assert found.seconds == pytest.approx(delay, abs=0.05)
    assert found.confidence > 0.5


def test_lips_that_belong_to_another_speech_are_not_trusted(anny):
    """No offset makes one person's lips fit another's words well."""
    talk, other = (make_synthetic(s, 8, 25, 64, anny) for s in (6, 7))
    gap = lip_gap(talk.landmarks) / inter_ocular(talk.landmarks)
    sound = Sound(None, "", other.samples, np.ones(len(talk), bool), level=0.1)
    found = estimate_offset(sound, [(0, gap)], talk.fps)
    if found is None:
        pytest.skip("no speech embedding here")
    assert found.confidence < 0.35 or found.correlation < 0.3


def test_cuts_are_told_from_motion_flashes_and_still_pictures():
    y, x = np.mgrid[:64, :64, :3][:2]
    here = [100 + 40 * np.sin((x + k) / 9) for k in range(60)]
    here[30] = np.full((64, 64, 3), 250)
    there = [150 + 30 * np.sin((y + x - k) / 7) for k in range(30)]
    finder = CutFinder()
    for index, thumb in enumerate(here + there):
        finder.add(thumb.astype(np.uint8), index, 1)
    assert finder.finish() == [60]
    still = CutFinder()
    assert sum(still.add(np.full((64, 64, 3), 90, np.uint8), k, 1) for k in range(20)) == 19
    assert still.finish() == []


def test_blur_grows_with_blur(person):
    import cv2

    face = to_bytes(person.picture(0).image)[60:220, 80:240].mean(-1).astype(np.uint8)
    blurs = [blur_effect(cv2.GaussianBlur(face, (0, 0), s) if s else face) for s in (0, 1, 2, 4)]
    assert blurs == sorted(blurs)
    assert blurs[-1] > 0.7


def test_somebody_else_after_a_cut_is_masked(person, stranger, tmp_path):
    if load_identity() is None:
        pytest.skip("the model that tells people apart cannot be had here")
    path = written(tmp_path, [*person.frames(), *stranger[:20]])
    strange = {"other person", "other view"}
    report = check(path, CONFIG)
    assert report.cuts == [pytest.approx(len(person) / 25)]
    assert {s.reason for s in report.unused} <= strange
    assert report.usable == pytest.approx(len(person) / (len(person) + 20), abs=1e-3)
    subject = capture(path, tmp_path / "subject", CONFIG)
    tracking = subject.tracking
    assert not tracking.valid[len(person) :].any()
    assert tracking.valid[: len(person)].mean() > 0.9
    assert (tracking.segments == [0] * len(person) + [1] * 20).all()
    assert {FRAME_REASONS[r] for r in tracking.reasons[len(person) :]} <= strange
    assert (subject.folder / "check.html").is_file()


def test_the_larger_face_is_followed_and_the_other_cropped_away(person, stranger, tmp_path):
    import cv2

    small = [cv2.resize(f, (240, 240), interpolation=cv2.INTER_AREA) for f in stranger]
    beside = [np.pad(f, ((80, 0), (0, 0), (0, 0)), constant_values=90) for f in small]
    frames = [np.hstack([a, b]) for a, b in zip(person.frames(), beside, strict=False)]
    checked = check_clip(written(tmp_path, frames), CONFIG)
    assert checked.people.most == 2
    assert (checked.people.boxes[:, 0] < 320).all()
    assert sum(checked.people.crop[::2]) < 430, "the crop ends before the other face"


@pytest.mark.parametrize("always", [False, True])
def test_a_face_on_the_wall_is_never_taken_for_the_main_one(always):
    """A landmark model that is shown both, and chooses the wrong one where it sees it."""
    wrong, right = (np.zeros((478, 3), np.float32) + [x, 450, 0] for x in (310, 450))

    def detect(crop: np.ndarray) -> list[SimpleNamespace]:
        side = crop.shape[0]
        chosen = wrong if always or side > 300 else right
        return [SimpleNamespace(points=chosen - [450 - side // 2, 450 - side // 2, 0])]

    looker = FaceLooker.__new__(FaceLooker)
    looker._detector = SimpleNamespace(detect=detect)
    found = looker._landmarks(np.zeros((900, 900, 3), np.uint8), np.array([380, 370, 520, 530]))
    if always:
        assert found is None
    else:
        np.testing.assert_allclose(found, right)


def test_face_in_a_part_of_the_frames(person, tmp_path):
    frames = list(person.frames())
    report = check(written(tmp_path, frames[:25] + [np.full_like(frames[0], 90)] * 25), CONFIG)
    assert report.usable == pytest.approx(0.5, abs=0.04)
    assert [s.reason for s in report.unused] == ["no face"]
    assert report.unused[0].start == pytest.approx(1.0, abs=0.13)
    assert states(report)["presence"] == "limit"
    assert states(report)["timing"] == "good", "nobody repeats a frame where nobody is"
    cuts = next(finding for finding in report.findings if finding.name == "cuts")
    assert "in 1 of 2 shots" in cuts.text


def covered(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The lower half of the face under a cloth."""
    import cv2

    outline = [93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288]
    polygon = points[[*outline, 361, 323, 330, 5, 101]].astype(np.int32)
    return cv2.fillPoly(image.copy(), [polygon], (110, 160, 205))


@pytest.mark.parametrize(("reach", "covers"), [(0.0, False), (1.2, True), (-3.0, False)])
def test_a_hand_comes_from_outside_the_face(person, reach, covers):
    """21 points over the lips; the wrist `reach` faces below the middle of the mouth, or above."""
    points = np.column_stack([person.landmarks[0], np.zeros(478)]).astype(np.float32)
    mouth, height = points[13, :2], float(np.ptp(points[:, 1]))
    spread = np.random.default_rng(0).uniform(-0.12, 0.12, (21, 2)) * height
    hand = mouth + spread
    hand[0] = mouth + [0, reach * height]
    if reach < 0:  # a hand above the head does not reach the lips
        hand += [0, reach * height]
    looker = FaceLooker.__new__(FaceLooker)
    image = to_bytes(person.picture(0).image)
    origin = _square(image, np.concatenate([points.min(0)[:2], points.max(0)[:2]]), 3.2)[1]
    looker._hands = lambda crop: [(hand - origin).astype(np.float32)]
    assert looker._hand_on_mouth(image, points) is covers


def turned(person, degrees: float) -> list[np.ndarray]:
    angle, turn = np.radians(degrees), np.eye(4)
    turn[0, 0] = turn[2, 2] = np.cos(angle)
    turn[0, 2], turn[2, 0] = np.sin(angle), -np.sin(angle)
    side = replace(person, T_camera_rest=person.T_camera_rest @ turn, _drawn={})
    return [to_bytes(side.picture(k).image) for k in range(0, len(person), 3)]


def bad_clip(kind: str, person, folder: Path) -> Path:
    frames = list(person.frames())
    if kind == "nobody":
        return written(folder, [np.full_like(frames[0], 40 + k) for k in range(30)])
    if kind == "mask":
        pairs = zip(frames, person.landmarks, strict=True)
        return written(folder, [covered(image, points) for image, points in pairs])
    if kind == "side":
        return written(folder, turned(person, 55))
    if kind == "cartoon":
        return written(folder, [f // 64 * 64 + 32 for f in frames])
    return written(folder, frames[:4])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nobody", "No face"),
        ("mask", "mouth is covered"),
        ("side", "from the side"),
        ("cartoon", "looks drawn"),
        ("short", "only 4 frames"),
    ],
)
def test_hopeless_clips_are_refused_before_the_head_model_is_needed(
    person, tmp_path, monkeypatch, kind, words
):
    def no_head(*_: object) -> None:
        raise AssertionError("the head model was asked for")

    monkeypatch.setattr("avatar3d.capture.pipeline.load_head", no_head)
    path = bad_clip(kind, person, tmp_path)
    assert check(path, CONFIG).verdict == "fail"
    with pytest.raises(UserError, match=words) as caught:
        capture(path, tmp_path / "subject", CONFIG)
    assert str(path) in str(caught.value)
    assert str(caught.value).count(". ") == 0, "more than one sentence"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_told_so_capture_tries_anyway(person, tmp_path, monkeypatch):
    def head_is_asked_for(*_: object) -> None:
        raise KeyError("head")

    monkeypatch.setattr("avatar3d.capture.pipeline.load_head", head_is_asked_for)
    path = bad_clip("cartoon", person, tmp_path)
    with pytest.raises(KeyError, match="head"):
        capture(path, tmp_path / "subject", replace(CONFIG, strict=False))
    work = tmp_path / ".subject.capture"
    state = json.loads((work / ".capture/state.json").read_text())
    assert any("drawn" in warning for warning in state["warnings"]["check"])
    assert CheckReport.model_validate_json((work / "check.json").read_bytes()).verdict == "fail"


class Links(html.parser.HTMLParser):
    """Collects what a page would fetch, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attributes:
            if name in ("src", "href") and not (value or "").startswith("data:image/jpeg;base64,"):
                self.fetched.append(str(value))


def test_page_and_json_stand_alone(clip, tmp_path):
    """Nothing is loaded from elsewhere, and a file's name cannot smuggle a script in."""
    evil = tmp_path / "<script>alert(1)<" / "script>.mp4"
    evil.parent.mkdir()
    evil.write_bytes(clip.read_bytes())
    evil = evil.rename(tmp_path / "<img src=x onerror=alert(1)>.mp4")
    report = check(evil, CONFIG, html=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    links = Links()
    links.feed(text)
    assert not links.fetched
    assert not links.scripts
    assert "url(" not in text
    assert text.count("data:image/jpeg") >= 7
    assert "<polyline" in text
    assert CheckReport.model_validate_json(report.model_dump_json()) == report


def test_sounds_of_all_kinds(clip, tmp_path):
    import av

    from avatar3d.audio import load_audio

    voice, _ = load_audio(clip)

    def encoded(name: str, rate: int, layout: str, samples: np.ndarray) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
            channels = len(av.AudioLayout(layout).channels)
            data = np.repeat((samples * 32000).astype(np.int16), channels)[None]
            frame = av.AudioFrame.from_ndarray(data, "s16", layout)
            frame.rate = rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    telephone = hear(encoded("8k.mov", 8000, "mono", voice[::2]), 25, 40, 0)
    assert telephone.track.rate == 8000
    assert telephone.band < 4200
    surround = hear(encoded("51.mov", 16000, "5.1", voice), 25, 40, 0)
    assert surround.track.channels == 6
    assert surround.speech.any()
    silent = hear(encoded("0.mov", 16000, "mono", 0 * voice), 25, 40, 0)
    assert silent.level < SILENT
    assert not silent.audible
    text = tmp_path / "a.txt"
    text.write_text("x")
    assert "Cannot read sound" in hear(text, 25, 40, 0).problem


@pytest.mark.slow
def test_damaged_files_give_a_verdict_or_one_sentence(clip, tmp_path):
    """Whole and damaged copies in six containers; AVATAR3D_MUTANTS=200 for the long version."""
    tool = Path(__file__).parents[2] / "tools/mutate_clips.py"
    command = [sys.executable, tool, clip, "--count", MUTANTS, "--keep", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "limits" in done.stdout
    assert "FILE" in done.stdout, "some are refused"


def test_real_clips_pass(real_clip):
    for name in ("office_6s", "longhair_15s"):
        report = check(real_clip.with_name(f"{name}.mp4"), CaptureConfig(duration=2.5))
        assert report.verdict != "fail", report.summary
        assert report.usable > 0.95
        assert not report.cuts


def test_a_real_stranger_is_masked_and_the_person_goes_on(real_clip, tmp_path):
    """Two people cut together, then the first again: both halves of the first are one person."""
    if load_identity() is None:
        pytest.skip("the model that tells people apart cannot be had here")
    news = list(read_frames(real_clip, duration=3))
    other = list(read_frames(real_clip.with_name("address_en_8s.mp4"), duration=1))
    report = check(written(tmp_path, [*news[:40], *other, *news[40:]]), CaptureConfig())
    assert report.cuts == [1.6, 2.6]
    assert [(s.start, s.stop, s.reason) for s in report.unused] == [(1.6, 2.6, "other person")]
    assert report.first_bad == 1.6


@pytest.mark.parametrize(
    ("setting", "found", "moved"),
    [("0", 0.1, 0.0), ("0.2", None, 0.2), ("-0.2", None, -0.2), ("auto", 0.1, 0.1)],
)
def test_sound_is_brought_forward_on_request(clip, tmp_path, setting, found, moved):
    """A late sound starts later in the file: what is kept begins that much further on."""
    from avatar3d.audio import load_audio
    from avatar3d.capture.stages import audio

    workspace = SimpleNamespace(
        source=clip, config=replace(CONFIG, sound_offset=setting), frames=40, fps=25.0,
        state=SimpleNamespace(facts={"sound_offset": found}), path=tmp_path.__truediv__,
    )  # fmt: skip
    audio(workspace)
    original, kept = load_audio(clip)[0], load_audio(tmp_path / "audio.wav")[0]
    match = np.correlate(np.pad(original, (5000, 5000)), kept[6000:16000], "valid")
    assert (int(match.argmax()) - 11000) / 16000 == pytest.approx(moved, abs=1e-3)
