"""Who is in the clip: faces linked over time, one main person, and a state for every frame.

The main person is the one whose face is largest and longest in view: the greatest sum of face
heights over the looks. Frames of anybody else, of another camera's view or with a second person
beside are marked, so that nothing later mixes people.
"""

from dataclasses import dataclass, field

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.framing import Crop, choose_crop, inside
from avatar3d.capture.preflight.faces import FaceLook
from avatar3d.capture.preflight.scan import THUMB, Sample, Scan
from avatar3d.subject import FRAME_REASONS

__all__ = ["People", "find_people", "hidden_mouth"]

USABLE, NO_FACE, OTHER_PERSON, SECOND_FACE, OTHER_VIEW, HIDDEN_MOUTH = (
    FRAME_REASONS.index(name)
    for name in ("", "no face", "other person", "second face", "other view", "hidden mouth")
)
BESIDE = 0.4
"""A face counts as a second person from this share of the main face's height on."""
_REACH = 1.0
"""A face in the next look is the same one within this many of its heights."""
_LOST = 1.5
"""Seconds without a look after which a face has to be found again."""
_SAME_PERSON = 0.55
"""Mean descriptors of one person's tracks are nearer than this; single ones, than 0.6."""
_MIXED = 0.75
"""Descriptors further apart than this on both sides of a moment are two people."""
_VIEW_DIFFERENCE, _VIEW_SHARE, _VIEW_LEAST = 30, 0.5, 0.08


@dataclass
class FaceTrack:
    """One face through successive looks of one shot: pairs of sample number and face."""

    shot: int
    items: list[tuple[int, FaceLook]] = field(default_factory=list)

    @property
    def weight(self) -> float:
        return sum(face.height for _, face in self.items)

    @property
    def descriptor(self) -> np.ndarray | None:
        known = [face.descriptor for _, face in self.items if face.descriptor is not None]
        return np.mean(known, axis=0) if known else None


@dataclass
class People:
    """What is known about every captured frame.

    Attributes:
        segments: (T,) int32, number of the shot.
        reasons: (T,) uint8, index into `FRAME_REASONS`; 0 is usable.
        boxes: (T, 4) float32 main face, source pixels; interpolated, zero where unknown.
        crop: the part of the picture to keep.
        samples: the looks that show the main person, in order, and their faces.
        others: the other faces of all looks, as (index of the frame, face).
        count: number of people who were told apart; most: most faces at once.
        unsure: whether shots were left out because nobody could say who is in them.
    """

    segments: np.ndarray
    reasons: np.ndarray
    boxes: np.ndarray
    crop: Crop
    samples: list[tuple[Sample, FaceLook]]
    others: list[tuple[int, FaceLook]]
    count: int
    most: int
    unsure: bool


def find_people(scan: Scan, config: CaptureConfig) -> People:
    """Link faces, choose the main person and the crop, and judge every frame."""
    looks = [sample for sample in scan.samples if not sample.dense]
    segments = np.zeros(scan.frames, np.int32)
    segments[[cut for cut in scan.cuts if cut < scan.frames]] = 1
    segments = np.cumsum(segments, dtype=np.int32)
    tracks = [part for track in _linked(looks, segments, scan.fps) for part in _unmixed(track)]
    groups, unsure = _grouped(tracks)
    main = _main_group(groups)
    mine = {sample: face for track in main for sample, face in track.items}
    crop = _crop(looks, mine, scan, config)
    states, others = [], []
    views = _views(looks, mine, segments, crop)
    covered = _covered(mine, len(looks))
    for number, sample in enumerate(looks):
        face = mine.get(number)
        rest = [f for f in sample.faces if f is not face]
        others += [(sample.index, f) for f in rest]
        rest = [f for f in rest if inside(crop, f.box)]
        same_view = views.get(int(segments[sample.index]), True)
        states.append(_state(face, rest, same_view, bool(covered[number])))
    boxes = [mine[n].box if n in mine else None for n in range(len(looks))]
    reasons, by_frame = _per_frame([s.index for s in looks], states, boxes, segments)
    chosen = [(sample, mine[n]) for n, sample in enumerate(looks) if n in mine]
    most = max((sum(f.seen for f in s.faces) for s in looks), default=0)
    count = sum(sum(f.seen for track in g for _, f in track.items) >= 2 for g in groups)
    return People(
        segments, reasons, by_frame, crop, chosen, others, max(count, int(bool(main))), most, unsure
    )


def hidden_mouth(face: FaceLook) -> bool:
    """Whether the lips cannot be seen: a hand, or something smooth or of another colour."""
    smooth = face.mouth_detail < 0.2 and face.lip_contrast < 2.5
    tinted = face.chin_tint > 12 and face.lip_contrast < 1.5
    return bool(face.hand_on_mouth) or (face.seen and (smooth or tinted))


def _linked(looks: list[Sample], segments: np.ndarray, fps: float) -> list[FaceTrack]:
    """Each face goes to the nearest face of the last looks in the same shot."""
    done: list[FaceTrack] = []
    active: list[FaceTrack] = []
    for number, sample in enumerate(looks):
        shot = int(segments[sample.index])
        still: list[FaceTrack] = []
        for track in active:
            last = looks[track.items[-1][0]]
            lost = sample.index - last.index > _LOST * fps
            (done if lost or track.shot != shot else still).append(track)
        active, free = still, set(range(len(still)))
        for face in sample.faces:
            near = [(_distance(active[k].items[-1][1], face), k) for k in free]
            best = min(near, default=(np.inf, -1))
            if best[0] < _REACH:
                active[best[1]].items.append((number, face))
                free.discard(best[1])
            else:
                active.append(FaceTrack(shot, [(number, face)]))
    return done + active


def _distance(before: FaceLook, now: FaceLook) -> float:
    """Motion plus change of size, in heights of the face."""
    height = max(before.height, 1.0)
    size = abs(np.log(max(now.height, 1.0) / height))
    return float(np.linalg.norm(now.center - before.center) / height + size)


def _unmixed(track: FaceTrack) -> list[FaceTrack]:
    """The track, cut where its descriptors change for good (a dissolve, a cut nobody saw)."""
    known = [k for k, (_, face) in enumerate(track.items) if face.descriptor is not None]
    if len(known) < 4:
        return [track]
    d = np.stack([track.items[k][1].descriptor for k in known])  # type: ignore[misc]
    splits = range(2, len(d) - 1)
    gaps = [float(np.linalg.norm(d[:k].mean(0) - d[k:].mean(0))) for k in splits]
    best = int(np.argmax(gaps))
    if gaps[best] < _MIXED:
        return [track]
    place = known[splits[best]]
    first = FaceTrack(track.shot, track.items[:place])
    second = FaceTrack(track.shot, track.items[place:])
    return _unmixed(first) + _unmixed(second)


def _grouped(tracks: list[FaceTrack]) -> tuple[list[list[FaceTrack]], bool]:
    """Tracks by person, and whether some could not be assigned for want of a descriptor.

    Heaviest first, each joins the person whose mean descriptor is nearest and near enough. Without
    descriptors only tracks of one shot at one place are one person.
    """
    groups: list[list[FaceTrack]] = []
    unsure = False
    for track in sorted(tracks, key=lambda track: -track.weight):
        own = track.descriptor
        best, where = _SAME_PERSON, None
        for group in groups:
            if _together(group, track):
                continue
            if own is None:
                near = any(t.shot == track.shot and _close(t, track) for t in group)
                distance = 0.0 if near else np.inf
            else:
                known = [t.descriptor for t in group if t.descriptor is not None]
                mean = np.mean(known, axis=0) if known else None
                distance = float(np.linalg.norm(own - mean)) if mean is not None else np.inf
            if distance < best:
                best, where = distance, group
        if where is not None:
            where.append(track)
        else:
            unsure |= own is None and bool(groups) and len(track.items) > 2
            groups.append([track])
    return groups, unsure


def _together(group: list[FaceTrack], track: FaceTrack) -> bool:
    """Nobody is in one picture twice."""
    own = {sample for sample, _ in track.items}
    return any(own & {sample for sample, _ in other.items} for other in group)


def _close(first: FaceTrack, second: FaceTrack) -> bool:
    ends = [first.items[0][1], first.items[-1][1]]
    return any(_distance(end, face) < 1.5 * _REACH for end in ends for _, face in second.items)


def _main_group(groups: list[list[FaceTrack]]) -> list[FaceTrack]:
    def weight(group: list[FaceTrack]) -> float:
        return sum(f.height for track in group for _, f in track.items if f.seen)

    best = max(groups, key=weight, default=[])
    return best if best and weight(best) > 0 else []


def _crop(
    looks: list[Sample], mine: dict[int, FaceLook], scan: Scan, config: CaptureConfig
) -> Crop:
    boxes = [face.box for face in mine.values()]
    others = [
        other.box
        for number, face in mine.items()
        for other in looks[number].faces
        if other is not face and _disturbs(other, face)
    ]
    shape = np.zeros((0, 4))
    return choose_crop(
        np.array(boxes or shape), np.array(others or shape), scan.width, scan.height, config
    )


def _disturbs(other: FaceLook, face: FaceLook) -> bool:
    return other.seen and other.height > BESIDE * face.height


def _covered(mine: dict[int, FaceLook], count: int) -> np.ndarray:
    """(count,) bool: looks with a hidden mouth; a hand also covers the looks beside, unasked."""
    hidden, unasked = np.zeros(count + 2, bool), np.zeros(count + 2, bool)
    for number, face in mine.items():
        hidden[number + 1], unasked[number + 1] = hidden_mouth(face), face.hand_on_mouth is None
    beside = unasked[1:-1] & (hidden[:-2] | hidden[2:])
    return hidden[1:-1] | beside


def _state(face: FaceLook | None, rest: list[FaceLook], same_view: bool, covered: bool) -> int:
    if face is None:
        return OTHER_PERSON if any(f.seen for f in rest) else NO_FACE
    if not same_view:
        return OTHER_VIEW
    if any(_disturbs(other, face) for other in rest):
        return SECOND_FACE
    if not face.seen:
        return NO_FACE
    return HIDDEN_MOUTH if covered else USABLE


def _views(
    looks: list[Sample], mine: dict[int, FaceLook], segments: np.ndarray, crop: Crop
) -> dict[int, bool]:
    """For every shot with the main person: whether its background is that of the longest view."""
    plates: dict[int, tuple[np.ndarray, int]] = {}
    for shot in sorted({int(segments[looks[n].index]) for n in mine}):
        numbers = [n for n in mine if segments[looks[n].index] == shot]
        picked = [numbers[k] for k in np.unique(np.linspace(0, len(numbers) - 1, 9).astype(int))]
        plates[shot] = _plate([(looks[n], mine[n]) for n in picked], crop), len(numbers)
    views: list[list[int]] = []
    for shot in sorted(plates, key=lambda shot: -plates[shot][1]):
        alike = (v for v in views if _same_view(plates[v[0]][0], plates[shot][0]))
        view = next(alike, None)
        if view is None:
            views.append([shot])
        else:
            view.append(shot)
    longest = max(views, key=lambda v: sum(plates[s][1] for s in v), default=[])
    return {shot: shot in longest for shot in plates}


def _plate(samples: list[tuple[Sample, FaceLook]], crop: Crop) -> np.ndarray:
    """(64, 64, 3) float32 median thumbnail; NaN outside the crop and where the person is."""
    thumbs = []
    for sample, face in samples:
        thumb = sample.thumb.astype(np.float32)
        thumb[~background_region(face.box, sample.size, crop)] = np.nan
        thumbs.append(thumb)
    stack = np.stack(thumbs)
    plate = np.full(stack.shape[1:], np.nan, np.float32)
    seen = np.isfinite(stack).any(0)
    plate[seen] = np.nanmedian(stack[:, seen], axis=0)
    return plate


def background_region(box: np.ndarray, size: tuple[int, int], crop: Crop) -> np.ndarray:
    """(64, 64) bool: in the crop, and not where head, hair and shoulders are likely to be."""
    scale = THUMB / np.array([size[0], size[1]] * 2, np.float64)
    left, top, right, bottom = box * scale
    width, height = right - left, bottom - top
    y, x = np.mgrid[:THUMB, :THUMB] + 0.5
    head = (np.abs(x - (left + right) / 2) < 0.95 * width) & (y > top - 0.5 * height)
    head &= y < bottom + 0.3 * height
    shoulders = (np.abs(x - (left + right) / 2) < 1.9 * width) & (y > bottom)
    low, high = np.array(crop[:2]) * scale[:2], np.add(crop[:2], crop[2:]) * scale[:2]
    kept = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    return kept & ~head & ~shoulders


def _same_view(first: np.ndarray, second: np.ndarray) -> bool:
    both = np.isfinite(first).all(-1) & np.isfinite(second).all(-1)
    if both.mean() < _VIEW_LEAST:
        return True
    different = np.abs(first - second).max(-1)[both] > _VIEW_DIFFERENCE
    return bool(different.mean() < _VIEW_SHARE)


def _per_frame(
    indices: list[int],
    states: list[int],
    boxes: list[np.ndarray | None],
    segments: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Every frame takes the state of the nearest look of its shot; boxes are interpolated."""
    frames = len(segments)
    reasons, result = np.full(frames, NO_FACE, np.uint8), np.zeros((frames, 4), np.float32)
    places, known = np.array(indices), np.array(states, np.uint8)
    boxed = np.array([box is not None for box in boxes])
    for shot in np.unique(segments):
        own = np.flatnonzero(segments == shot)
        inside = np.flatnonzero(np.isin(segments[places], [shot])) if len(places) else places
        if not len(inside):
            continue
        middles = (places[inside][1:] + places[inside][:-1]) / 2
        reasons[own] = known[inside][np.searchsorted(middles, own)]
        faces = inside[boxed[inside]]
        if len(faces):
            track = np.stack([boxes[k] for k in faces])
            for axis in range(4):
                result[own, axis] = np.interp(own, places[faces], track[:, axis])
    return reasons, result
