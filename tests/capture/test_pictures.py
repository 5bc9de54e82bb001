"""Mattes, plates and labels, judged against made-up people whose parts are known."""

from dataclasses import replace

import numpy as np
import pytest

from avatar3d.capture.clip_colors import ClipColors, learn_colors
from avatar3d.capture.matte import Segmenter, refine_matte
from avatar3d.capture.parsing import Observed, parse_frame, parse_frames
from avatar3d.capture.plate import background_plate
from avatar3d.head.landmarks import FACE_OVAL
from avatar3d.subject import PARSING_LABELS
from avatar3d.synth.clip import to_bytes

LABEL = {name: index for index, name in enumerate(PARSING_LABELS)}


@pytest.fixture(scope="module")
def samples(person) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    frames = []
    for index in range(0, len(person), 8):
        drawn = person.picture(index)
        frames.append((to_bytes(drawn.image), to_bytes(drawn.alpha), person.landmarks[index]))
    return frames


@pytest.fixture(scope="module")
def colors(samples) -> ClipColors:
    return learn_colors(samples)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max((first | second).sum(), 1))


def test_labels_agree_with_the_truth(person, samples, colors):
    image, matte, points = samples[2]
    truth = person.picture(16).label
    labels = parse_frame(Observed(image, matte, points), colors)
    face = [LABEL[n] for n in ("skin", "nose", "lips", "brows", "mouth_interior", "teeth")]
    eyes = [LABEL["left_eye"], LABEL["right_eye"]]
    for name, wanted, least in (
        ("background", [LABEL["background"]], 0.97),
        ("face", [*face, *eyes], 0.75),
        ("hair", [LABEL["hair"]], 0.7),
        ("clothes", [LABEL["clothes"]], 0.7),
    ):
        share = overlap(np.isin(labels, wanted), np.isin(truth, wanted))
        assert share > least, f"{name} overlaps only {share:.2f}"


def test_every_label_is_near_the_truth(person, samples, colors):
    """Intersection over union over the frames, of labels that are more than a few pixels."""
    from avatar3d.capture.picture_stages import EarFinder

    count = len(LABEL)
    find_ears = EarFinder(person.head.shaped(person.identity), person.camera.K, 320, 320)
    confusion = np.zeros((count, count))
    for number, (image, matte, points) in enumerate(samples):
        ears = find_ears(person.T_camera_head[8 * number])
        own = parse_frame(Observed(image, matte, points, ears), colors)
        pairs = person.picture(8 * number).label.astype(int) * count + own
        confusion += np.bincount(pairs.ravel(), minlength=count**2).reshape(count, count)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    each = confusion.diagonal() / np.maximum(union, 1)
    shown = confusion.sum(1) > 20 * len(samples)
    named = dict(zip(PARSING_LABELS, each.round(3), strict=True))
    assert each[shown].mean() > 0.88, named
    assert each[shown].min() > 0.65, named


def test_hair_over_the_rim_of_the_face_stays_hair(person, samples, colors):
    """A fringe within the outline of the landmarks, in the hair's own colour."""
    import cv2

    image, matte, points = samples[0]
    image = image.copy()
    oval = points[list(FACE_OVAL)]
    middle = oval.mean(0)
    face, inner = (np.zeros(matte.shape, np.uint8) for _ in range(2))
    cv2.fillPoly(face, [oval.round().astype(np.int32)], 1)
    cv2.fillPoly(inner, [(middle + 0.9 * (oval - middle)).round().astype(np.int32)], 1)
    fringe = (inner == 0) & (matte > 250) & (np.arange(matte.shape[0])[:, None] < points[33, 1])
    image[fringe] = np.median(image[person.picture(0).label == LABEL["hair"]], axis=0)
    labels = parse_frame(Observed(image, matte, points), colors)
    assert (labels[fringe & (face > 0)] == LABEL["hair"]).mean() > 0.6


def test_still_regions_do_not_flicker(samples, colors):
    """The same picture under new noise: labels change less when judged with their neighbours."""
    rng = np.random.default_rng(0)
    image, matte, points = samples[0]
    noisy = [
        Observed(
            (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8), matte, points
        )
        for _ in range(7)
    ]
    alone = np.stack([parse_frame(frame, colors) for frame in noisy])
    together = np.stack(list(parse_frames(lambda i: noisy[i], range(7), 7, colors)))
    changes = [(np.diff(labels.astype(int), axis=0) != 0).mean() for labels in (alone, together)]
    assert changes[1] < 0.7 * changes[0]


def test_neighbours_do_not_smear_what_moves(samples, colors):
    """Frames that look otherwise, or are of another shot, change nothing in the labels."""
    image, matte, points = samples[0]
    frame = Observed(image, matte, points)
    alone = parse_frame(frame, colors)
    other = np.where(image < 128, image + 100, image - 100).astype(np.uint8)
    moved = Observed(other, np.roll(matte, 60, 1), points + 60)
    cut = Observed(np.roll(image, 3, 0), matte, points, shot=1)
    for other in (moved, cut):
        frames = [other, other, frame, other, other]
        labels = list(parse_frames(lambda i: frames[i], range(5), 5, colors))[2]  # noqa: B023
        assert (labels != alone).mean() < 1e-3


def test_a_jump_of_one_frame_is_mended_but_lips_move(samples, colors):
    from avatar3d.head.landmarks import LIPS

    image, matte, points = samples[0]
    jumped = points.copy()
    jumped[list(FACE_OVAL)] += [0, 2]
    jumped[list(LIPS)] += [0, 2]
    calm, jump = Observed(image, matte, points), Observed(image, matte, jumped)
    frames = [calm, calm, calm, jump, calm, calm, calm]
    labels = list(parse_frames(lambda i: frames[i], range(7), 7, colors))[3]
    alone = parse_frame(jump, colors)
    wanted = parse_frame(calm, colors)
    slow = [LABEL["skin"], LABEL["neck"]]
    jaw = np.isin(labels, slow) & np.isin(alone, slow) & np.isin(wanted, slow)
    assert (alone != wanted)[jaw].sum() > 50
    assert (labels != wanted)[jaw].sum() < 0.1 * (alone != wanted)[jaw].sum()
    assert ((labels == LABEL["lips"]) == (alone == LABEL["lips"])).all()


def test_pieces_of_a_clip_are_labelled_as_the_whole(samples, colors):
    def observe(index: int) -> Observed | None:
        return None if index == 2 else Observed(*samples[index])

    whole = list(parse_frames(observe, range(5), 5, colors))
    assert whole[2] is None
    assert (next(parse_frames(observe, range(3, 4), 5, colors)) == whole[3]).all()


def test_bare_shoulders_are_no_clothes(person, samples):
    """The same people without their shirts: skin of another brightness than the face's."""
    bare = []
    for index, (image, matte, points) in enumerate(samples):
        label = person.picture(8 * index).label
        skin = np.median(image[label == LABEL["neck"]], axis=0)
        light = np.linspace(0.6, 1.2, image.shape[1])[None, :, None]
        shirt = (label == LABEL["clothes"])[..., None]
        bare.append(
            (np.where(shirt, skin * light, image).clip(0, 255).astype(np.uint8), matte, points)
        )
    labels = parse_frame(Observed(*bare[2]), learn_colors(bare))
    worn = person.picture(16).label == LABEL["clothes"]
    assert (labels[worn] == LABEL["clothes"]).mean() < 0.1


def test_touching_lips_have_no_gap(samples, colors):
    from avatar3d.head.landmarks import LIPS_INNER

    image, matte, points = samples[0]
    points = points.copy()
    lower = len(LIPS_INNER) // 2 + 1
    points[list(LIPS_INNER[1 : lower - 1])] = points[list(LIPS_INNER[lower:])] + [0, 0.8]
    labels = parse_frame(Observed(image, matte, points), colors)
    assert not np.isin(labels, [LABEL["mouth_interior"], LABEL["teeth"]]).any()


def test_left_and_right_are_the_persons_own(samples, colors):
    image, matte, points = samples[0]
    labels = parse_frame(Observed(image, matte, points), colors)
    left, right = (np.nonzero(labels == LABEL[n])[1].mean() for n in ("left_eye", "right_eye"))
    assert left > right, "a person facing the camera has their left eye on the picture's right"


def test_everything_outside_the_matte_is_background(samples, colors):
    image, matte, points = samples[1]
    labels = parse_frame(Observed(image, matte, points), colors)
    assert (labels[matte < 100] == LABEL["background"]).all()
    assert (labels[matte > 150] != LABEL["background"]).all()


def test_plate_is_the_background_wherever_it_was_seen():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    frames, mattes = [], []
    for number in range(9):  # a person of 30 columns walks through, never leaving the middle
        matte = np.zeros((60, 80), np.uint8)
        matte[20:, 20 + number : 50 + number] = 255
        noise = rng.normal(0, 2, truth.shape)
        frame = np.where(matte[..., None] > 0, 128, truth + noise).clip(0, 255).astype(np.uint8)
        frames.append(frame)
        mattes.append(matte)
    found = background_plate(zip(frames, mattes, strict=True))
    plate, seen = found.image, found.seen
    never = np.zeros((60, 80), bool)
    never[20:, 28:50] = True
    assert not seen[never].any()
    assert seen[:10].all()
    difference = np.abs(plate.astype(int) - truth)[seen]
    assert difference.mean() < 2.5


def test_hole_of_a_smooth_background_is_filled_smoothly():
    rows, columns = np.mgrid[:96, :128]
    truth = np.stack([rows + 50, columns + 40, 0 * rows + 90], -1).astype(np.uint8)
    matte = np.zeros((96, 128), np.uint8)
    matte[30:, 40:90] = 255
    frame = np.where(matte[..., None] > 0, 0, truth).astype(np.uint8)
    found = background_plate([(frame, matte)] * 10)
    plate, seen = found.image, found.seen
    assert (~seen).any()
    assert np.abs(plate.astype(int) - truth)[~seen].mean() < 12


def test_a_person_who_fills_every_frame_leaves_a_grey_plate():
    frame = np.full((20, 20, 3), 200, np.uint8)
    found = background_plate([(frame, np.full((20, 20), 255, np.uint8))] * 4)
    assert not found.seen.any()
    assert (found.image == found.image[0, 0]).all()


def test_strands_and_shadows_leave_no_outline_on_the_plate():
    """Dark strands stand out of the matte by a few pixels in every frame."""
    truth = np.full((200, 200, 3), (150, 160, 170), np.uint8)
    truth[:, :40] = (90, 160, 60)
    frame, matte = truth.copy(), np.zeros((200, 200), np.uint8)
    frame[60:, 66:134] = 0.75 * truth[60:, 66:134] + 0.25 * np.array([30, 20, 20])
    frame[60:, 73:127] = (30, 20, 20)
    matte[60:, 73:127] = 255
    found = background_plate([(frame, matte)] * 5)
    error = np.abs(found.image.astype(int) - truth).max(-1)
    assert error.max() < 10
    assert np.abs(frame.astype(int) - truth).max(-1)[found.seen].max() > 25, "there was something"


def test_a_moving_background_is_told():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    matte = np.zeros(truth.shape[:2], np.uint8)
    matte[40:, 50:110] = 255
    still = [(truth, matte)] * 12
    partly = [(np.vstack([np.roll(truth[:60], 9 * n, 1), truth[60:]]), matte) for n in range(12)]
    assert background_plate(still).moving == 0
    assert 0.3 < background_plate(partly).moving < 0.85


def test_edges_of_the_matte_move_onto_those_of_the_picture():
    """A blurred, displaced mask over a sharp edge: the result is steeper and nearer to it."""
    image = np.full((200, 200, 3), 60, np.uint8)
    image[:, 100:] = 200
    x = np.arange(200)[None].repeat(200, 0)
    blurred = 1 / (1 + np.exp(-(x - 97) / 6.0)).astype(np.float32)
    refined = refine_matte(image, blurred).astype(float) / 255
    truth = (x >= 100).astype(float)
    assert np.abs(refined - truth).mean() < 0.4 * np.abs(blurred - truth).mean()


def test_segmentation_finds_the_made_up_person(person, models):
    import cv2

    drawn = person.picture(0)
    image = to_bytes(drawn.image)
    matte = refine_matte(image, Segmenter()(image))
    assert overlap(matte > 127, drawn.alpha > 0.5) > 0.985
    edge = cv2.dilate(drawn.alpha, np.ones((9, 9))) - cv2.erode(drawn.alpha, np.ones((9, 9))) > 0.02
    assert np.abs(matte / 255 - drawn.alpha)[edge].mean() < 0.015, "the edge is too soft"


def test_gaze_rays_point_where_the_eyes_look(person):
    """A look to the person's left goes to the picture's right, from in front of each eye."""
    from avatar3d.capture.preview import _gaze_rays
    from avatar3d.synth.write import tracking

    gaze = np.zeros_like(person.gaze)
    gaze[1, :, 0] = 0.4
    clip = replace(tracking(person), gaze=gaze)
    shaped = person.head.shaped(person.identity)
    ahead, aside = (_gaze_rays(shaped, clip, index) for index in (0, 1))
    length = (aside - ahead)[:, 1, 0]
    assert (length > 8).all()
    irises = person.landmarks[0][[473, 468]]
    assert np.abs(ahead[:, 0].mean(0) - irises.mean(0)).max() < 6


def test_preview_shows_every_frame_beside_what_was_made_of_it(person, tmp_path):
    from avatar3d.capture.preview import preview_video
    from avatar3d.io.video import read_frames
    from avatar3d.synth import make_synthetic, write_subject

    clip = make_synthetic(seed=1, seconds=0.2, fps=25, size=128, head=person.head)
    subject = write_subject(clip, tmp_path / "s")
    preview_video(subject, person.head, tmp_path / "s.mp4")
    frames = list(read_frames(tmp_path / "s.mp4", 25))
    assert len(frames) == len(clip)
    assert frames[0].shape == (128, 4 * 128, 3)
    assert np.abs(frames[2][:, :128].astype(float) - subject.frame(2)).mean() < 8
    assert np.abs(frames[2][:, 128:256].astype(float) - subject.frame(2)).mean() > 4


def test_a_small_part_is_not_drawn_larger_than_it_is():
    """A sliver of an eye, 30 pixels wide and 2.4 high, covers what its polygon does."""
    from avatar3d.capture.outlines import filled_exactly

    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    polygon = np.stack([50.3 + 15 * np.cos(angle), 40.6 + 1.2 * np.sin(angle)], 1)
    box, inside = filled_exactly((80, 100), polygon, tuple(range(40)), 0.55)
    labels = np.zeros((80, 100), bool)
    labels[box] = inside
    assert labels.sum() == pytest.approx(np.pi * 15 * 1.2, rel=0.15)
    rows, columns = np.nonzero(labels)
    assert columns.mean() + 0.5 == pytest.approx(50.3, abs=0.5)
    assert rows.mean() + 0.5 == pytest.approx(40.6, abs=0.4)
