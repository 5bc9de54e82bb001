import json

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head import load_head
from avatar3d.head.landmarks import eye_aperture, lip_gap
from avatar3d.io.images import read_image
from avatar3d.subject import PARSING_LABELS, Subject
from avatar3d.synth import (
    SyntheticClip,
    make_synthetic,
    write_subject,
    write_truth,
    write_video,
)
from avatar3d.synth.clip import to_bytes

LABEL = {name: index for index, name in enumerate(PARSING_LABELS)}


@pytest.fixture(scope="session")
def clip() -> SyntheticClip:
    try:
        head = load_head()
    except UserError as error:
        pytest.skip(f"the default head model cannot be had here: {error}")
    return make_synthetic(seed=1, seconds=2.0, fps=25, size=160, head=head)


def test_the_same_seed_makes_the_same_person_and_another_seed_another(clip):
    again = make_synthetic(1, 2.0, 25, 160, clip.head)
    other = make_synthetic(2, 2.0, 25, 160, clip.head)
    assert np.array_equal(again.picture(7).image, clip.picture(7).image)
    assert np.array_equal(again.samples, clip.samples)
    assert np.abs(other.picture(7).image - clip.picture(7).image).mean() > 0.02


def test_background_shows_exactly_where_the_matte_is_empty(clip):
    picture = clip.picture(10)
    empty = picture.alpha == 0
    assert 0.2 < empty.mean() < 0.8
    assert np.array_equal(to_bytes(picture.image)[empty], clip.background[empty])
    assert ((picture.label == LABEL["background"]) <= (picture.alpha < 1)).all()


def test_landmarks_lie_on_what_they_are_named_after(clip):
    for index in (0, 12, 30):
        label = clip.picture(index).label
        column, row = np.floor(clip.landmarks[index]).astype(int).T
        under = label[row.clip(0, 159), column.clip(0, 159)]
        settled = clip.head.landmark_sigma < 0.003
        assert (under[settled] != LABEL["background"]).all()
        assert under[4] == LABEL["nose"]
        mouth = {LABEL["lips"], LABEL["mouth_interior"], LABEL["teeth"]}
        assert set(under[[11, 12, 15, 16]]) <= mouth
        if eye_aperture(clip.landmarks[index]).min() > 0.2:
            assert under[468] == LABEL["right_eye"]
            assert under[473] == LABEL["left_eye"]


def test_every_label_of_a_talking_head_occurs(clip):
    seen = set().union(*(np.unique(clip.picture(i).label) for i in range(0, 50, 5)))
    assert seen == set(LABEL.values())


def test_mouth_and_sound_go_together(clip):
    per_frame = len(clip.samples) // len(clip)
    blocks = clip.samples[: per_frame * len(clip)].reshape(len(clip), per_frame)
    loud = np.sqrt((blocks**2).mean(1))
    gap = lip_gap(clip.landmarks)
    assert np.corrcoef(loud, gap)[0, 1] > 0.6
    assert gap[loud < 0.05 * loud.max()].mean() < 0.35 * gap.max()


def test_there_is_a_blink_and_the_pose_moves(clip):
    aperture = eye_aperture(clip.landmarks).mean(1)
    assert aperture.min() < 0.4 * np.median(aperture)
    assert np.ptp(clip.T_camera_head[:, :3, :3], axis=0).max() > 0.05
    rotation = clip.T_camera_head[:, :3, :3]
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-6)


def test_motion_is_smooth(clip):
    steps = np.linalg.norm(np.diff(clip.landmarks[:, 4], axis=0), axis=1)
    assert steps.max() < 0.04 * 160


def test_subject_folder_reads_back_and_projects_to_its_landmarks(clip, tmp_path):
    write_subject(clip, tmp_path / "subject")
    subject = Subject(tmp_path / "subject")
    tracking, camera = subject.tracking, subject.tracking.camera
    assert len(subject) == len(clip)
    head = clip.head.shaped(tracking.identity, tracking.landmark_offsets)
    for index in (0, 20, 49):
        posed = head.posed(tracking.weights[index], tracking.gaze[index])
        points = clip.head.landmarks_of(posed) @ tracking.T_camera_head[index, :3, :3].T
        pixels = camera.project(points + tracking.T_camera_head[index, :3, 3])
        assert np.abs(pixels - tracking.landmarks[index]).max() < 0.01
        error = subject.frame(index).astype(int) - to_bytes(clip.picture(index).image)
        assert np.abs(error).mean() < 3  # JPEG
        assert np.array_equal(subject.matte(index), to_bytes(clip.picture(index).alpha))
        assert np.array_equal(subject.parsing(index), clip.picture(index).label)
    assert np.array_equal(subject.background, clip.background)
    assert subject.audio_path is not None
    assert all(len(table) == len(clip) for table in subject.audio_features.values())
    assert subject.audio_features


def test_video_has_the_picture_and_the_sound(clip, tmp_path):
    from avatar3d.io.video import probe, read_frames

    path = tmp_path / "clip.mp4"
    write_video(clip, path)
    info = probe(path)
    assert (info.width, info.height, info.frames, info.has_audio) == (160, 160, 50, True)
    assert info.fps == pytest.approx(25)
    first = next(iter(read_frames(path))).astype(int)
    assert np.abs(first - to_bytes(clip.picture(0).image)).mean() < 6


def test_works_for_any_size_and_head(small_head):
    clip = make_synthetic(0, 0.2, 30, (96, 64), small_head)
    assert [frame.shape for frame in clip.frames()] == [(64, 96, 3)] * 6
    assert clip.landmarks.shape == (6, 478, 2)


def test_a_detector_trained_on_people_finds_the_face(clip):
    mediapipe = pytest.importorskip("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        pytest.skip("this mediapipe carries no models")
    large = make_synthetic(1, 1.0, 25, 320, clip.head)
    options = {"static_image_mode": True, "refine_landmarks": True}
    with mediapipe.solutions.face_mesh.FaceMesh(**options) as detector:
        for index in (0, 12, 24):
            found = detector.process(to_bytes(large.picture(index).image)).multi_face_landmarks
            assert found
            points = np.array([[mark.x, mark.y] for mark in found[0].landmark]) * 320
            error = np.linalg.norm(points - large.landmarks[index], axis=1)
            eyes = np.linalg.norm(large.landmarks[index, 468] - large.landmarks[index, 473])
            assert np.median(error) < 0.06 * eyes


@pytest.fixture(scope="module")
def spoken(clip) -> SyntheticClip:
    pytest.importorskip("espeakng_loader")
    return make_synthetic(seed=3, seconds=3.0, fps=25, size=96, head=clip.head, language="en")


def test_spoken_words_close_the_lips_where_they_should(spoken):
    """p, b and m are said with closed lips, open vowels are not; nothing is heard in between."""
    assert len(spoken.samples) == 3 * spoken.rate
    assert len(spoken.phonemes) > 12
    gap = lip_gap(spoken.landmarks)
    time = np.arange(len(spoken)) / spoken.fps

    def gaps(sounds: str) -> np.ndarray:
        inside = [
            (time >= p.start - 0.02) & (time < p.end)
            for p in spoken.phonemes
            if p.ipa.strip("ˈˌː")[:1] in sounds
        ]
        return gap[np.any(inside, axis=0)]

    assert np.median(gaps("pbm")) < 0.5 * np.median(gaps("aæɒɐ"))
    silent = np.ones(len(spoken.samples), bool)
    for phoneme in spoken.phonemes:
        first, last = (round(t * spoken.rate) for t in (phoneme.start - 0.02, phoneme.end + 0.1))
        silent[max(first, 0) : last] = False
    assert silent.sum() > 0.1 * spoken.rate
    loud = np.sqrt(np.mean(spoken.samples**2))
    assert np.sqrt(np.mean(spoken.samples[silent] ** 2)) < 0.1 * loud


def test_another_language_is_other_sounds_and_an_unknown_one_is_refused(clip, spoken):
    german = make_synthetic(3, 3.0, 25, 96, clip.head, language="de")
    assert {p.ipa for p in german.phonemes} != {p.ipa for p in spoken.phonemes}
    with pytest.raises(UserError, match="'tlh'"):
        make_synthetic(3, 1.0, 25, 96, clip.head, language="tlh")


def test_depth_is_that_of_the_vertices(clip):
    """Of the visible landmarks, by their own vertices; background is 0."""
    depth, picture = clip.depth(12), clip.picture(12)
    assert (depth[picture.alpha == 1] > 0).all()
    assert (depth[picture.alpha == 0] == 0).all()
    inner = [4, 10, 152, 50, 280, 168]
    points = clip.head.landmarks_of(clip.vertices(12))[inner]
    column, row = np.floor(clip.camera.project(points)).astype(int).T
    np.testing.assert_allclose(depth[row, column], points[:, 2], atol=2e-3)


def test_the_truth_on_disk(clip, spoken, tmp_path):
    write_truth(spoken, tmp_path / "truth")
    subject = Subject(tmp_path / "truth")
    np.testing.assert_allclose(subject.tracking.landmarks, spoken.landmarks, atol=1e-3)
    stored = read_image(tmp_path / "truth/depth/000031.png")
    np.testing.assert_allclose(stored * 1e-4, spoken.depth(31), atol=6e-5)
    told = json.loads((tmp_path / "truth/phonemes.json").read_text())
    assert [tuple(entry) for entry in told] == [tuple(p) for p in spoken.phonemes]
