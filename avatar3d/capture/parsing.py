"""Label images of the face and what is around it, from landmarks, mesh, matte and colour.

Inside the face the landmark outlines decide. Around it every pixel of the person is skin, hair or
clothes by the colours of the clip and by where it lies relative to the face, judged together with
the frames just before and after; the fitted mesh tells ears from other skin.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from avatar3d.capture.clip_colors import (
    CLOTHES,
    HAIR,
    SKIN,
    ClipColors,
    Look,
    averaged,
    kinds,
    look_at,
    steadied,
)  # fmt: skip
from avatar3d.capture.outlines import (
    BROWS,
    EYES,
    LIPS,
    MOUTH,
    NOSE,
    face_axis,
    filled,
    filled_exactly,
    luma,
    place,
)  # fmt: skip
from avatar3d.capture.parsing_networks import Opinion
from avatar3d.head.landmarks import FACE_OVAL
from avatar3d.subject import PARSING_LABELS

__all__ = ["Observed", "parse_frame", "parse_frames"]

LABEL = {name: index for index, name in enumerate(PARSING_LABELS)}
_SLOW = ("skin", "brows", "nose", "hair", "ears", "neck", "clothes")  # not what blinks and speaks
_REACH = 2
"""Frames before and after that a frame is judged together with."""
_STILL = 5
"""Grey levels of change below which a pixel shows what it did."""
_STEADY = np.zeros(256, np.uint8)
_STEADY[[LABEL[name] for name in _SLOW]] = 255
_JAW = 0.33
"""Down in face heights: skin outside the outline of the face is neck from here on."""
_RIM = 0.88
"""Share of the face's outline within which nothing but the face is expected."""
_EAR = 0.1
"""Face heights by which real ears may stand out farther than those of the fitted head."""
_FAINT_BROW = 15.0
"""Grey levels between brow and skin below which colour does not tell them apart."""
_LID = 0.45
"""Difference from the skin around an eye, by that of the eye itself, below which a pixel along its
outline is lid."""
_GAP = 0.5
"""Brightness beside that of the lips below which a pixel along their inner edge is the gap."""
_SHUT = 0.006
"""Mean height of the mouth's inside, in face heights, below which the lips touch."""


@dataclass(frozen=True)
class Observed:
    """What is known of one frame before its labels.

    Attributes:
        image: (H, W, 3) uint8; matte: (H, W) uint8 alpha of the person.
        points: (478, 2) landmarks in pixels.
        ears: (h, w) bool of any size, where the fitted mesh shows an ear; None without one.
        shot: number of the shot; frames of different ones are not judged together.
        opinion: of a network, instead of the colours'.
    """

    image: np.ndarray
    matte: np.ndarray
    points: np.ndarray
    ears: np.ndarray | None = None
    shot: int = 0
    opinion: Opinion | None = None


def parse_frame(frame: Observed, colors: ClipColors) -> np.ndarray:
    """(H, W) uint8 labels of one frame by itself, indices into `PARSING_LABELS`."""
    (labels,) = parse_frames(lambda _: frame, range(1), 1, colors)
    assert labels is not None
    return labels


def parse_frames(
    observe: Callable[[int], Observed | None], wanted: range, count: int, colors: ClipColors
) -> Iterator[np.ndarray | None]:
    """Labels (H, W) uint8 of the wanted frames of a clip, one after the other.

    Args:
        observe: gives any frame by its number, None where there is no face; asked once for each
            wanted frame and a few on either side.
        wanted: consecutive numbers.
        count: of all frames.
        colors: of the clip.
    """
    seen: dict[int, tuple[Observed, Look, np.ndarray] | None] = {}
    alone: dict[int, np.ndarray | None] = {}

    def within(index: int, reach: int) -> range:
        return range(max(0, index - reach), min(count, index + reach + 1))

    for index in wanted:
        for number in within(index, _REACH + 1):
            if number not in seen:
                seen[number] = _seen(observe(number), colors)
        for number in within(index, 1):
            if number not in alone:
                alone[number] = _judged([seen[i] for i in within(number, _REACH)], seen[number])
        seen = {number: seen[number] for number in within(index, _REACH + 1)}
        alone = {number: alone[number] for number in within(index, 1)}
        yield _voted(index, seen, alone)


def _voted(
    index: int,
    seen: dict[int, tuple[Observed, Look, np.ndarray] | None],
    alone: dict[int, np.ndarray | None],
) -> np.ndarray | None:
    """Labels of a frame, where it stands alone between two that agree and look like it: theirs."""
    import cv2

    own, labels = seen[index], alone[index]
    before, after = alone.get(index - 1), alone.get(index + 1)
    if own is None or labels is None or before is None or after is None:
        return labels
    odd = cv2.compare(before, after, cv2.CMP_EQ) & cv2.compare(before, labels, cv2.CMP_NE)
    odd &= cv2.LUT(before, _STEADY) & cv2.LUT(labels, _STEADY)
    for number in (index - 1, index + 1):
        other = seen[number]
        if other is None or other[0].shot != own[0].shot:
            return labels
        change = cv2.blur(cv2.absdiff(own[1].grey, other[1].grey), (3, 3))
        still = cv2.compare(change, _STILL, cv2.CMP_LT)
        odd &= cv2.resize(still, labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.copyTo(before, odd, labels.copy())


def _judged(
    around: list[tuple[Observed, Look, np.ndarray] | None],
    own: tuple[Observed, Look, np.ndarray] | None,
) -> np.ndarray | None:
    """Labels of one frame by the colours of those around it too."""
    if own is None:
        return None
    frame, look, scores = own
    others = [other for other in around if other is not None and other is not own]
    same = [(its, theirs) for other, its, theirs in others if other.shot == frame.shot]
    return _labels(frame, look, averaged(look, scores, same))


def _seen(frame: Observed | None, colors: ClipColors) -> tuple[Observed, Look, np.ndarray] | None:
    if frame is None:
        return None
    look = look_at(frame.image, frame.matte, frame.points)
    opinion = frame.opinion
    if opinion is not None and opinion.known.all():
        return frame, look, _sized(opinion.scores, look)
    scores = steadied(look, colors.tables)
    if opinion is not None:
        known = _sized(opinion.known[None].astype(np.float32), look)[0] > 0.99
        scores[:, known] = _sized(opinion.scores, look)[:, known]
    return frame, look, scores


def _sized(layers: np.ndarray, look: Look) -> np.ndarray:
    """Layers (N, h, w) at the size of a look."""
    import cv2

    size = look.alpha.shape[::-1]
    if layers.shape[:0:-1] == size:
        return layers
    return np.stack([cv2.resize(layer, size, interpolation=cv2.INTER_LINEAR) for layer in layers])


def _labels(frame: Observed, look: Look, scores: np.ndarray) -> np.ndarray:
    import cv2

    shape = frame.matte.shape
    kind = kinds(look, scores)
    neck = kind == SKIN
    neck &= place(look.points, kind.shape)[1] > _JAW
    labels = np.full(shape, LABEL["skin"], np.uint8)
    # No two of them cover more than half a pixel, and all their numbers are above that of skin.
    for mask, name in (
        (neck, "neck"),
        (_ears(frame, look, kind), "ears"),
        (kind == HAIR, "hair"),
        (kind == CLOTHES, "clothes"),
    ):
        whole = cv2.resize(mask.view(np.uint8) * 255, shape[::-1], interpolation=cv2.INTER_LINEAR)
        _, whole = cv2.threshold(whole, 127, LABEL[name], cv2.THRESH_BINARY)
        cv2.max(labels, whole, dst=labels)
    _paint_face(labels, frame)
    labels[frame.matte <= 127] = LABEL["background"]
    return labels


def _ears(frame: Observed, look: Look, kind: np.ndarray) -> np.ndarray:
    """(h, w) bool: what the mesh shows of ears, and the skin farther out beside it."""
    import cv2

    if frame.opinion is not None and frame.opinion.ears is not None:
        seen = _sized(frame.opinion.ears[None].astype(np.float32), look)[0] > 0.5
        return seen & (kind == SKIN)
    if frame.ears is None or not frame.ears.any():
        return np.zeros(kind.shape, bool)
    size = kind.shape[::-1]
    mesh = cv2.resize(frame.ears.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    across, _ = place(look.points, kind.shape)
    reach = 2 * max(1, round(_EAR * face_axis(look.points)[2])) + 1
    beside = cv2.dilate(mesh.astype(np.uint8), np.ones((3, reach), np.uint8)) > 0
    middle = [
        float(np.median(np.abs(across[side]))) if side.any() else np.inf
        for side in (mesh & (across < 0), mesh & (across >= 0))
    ]
    beside &= np.abs(across) > np.where(across < 0, middle[0], middle[1])
    return (mesh | beside) & (kind == SKIN)


def _paint_face(labels: np.ndarray, frame: Observed) -> None:
    """Paint what the landmarks outline; hair and ears may cover the rim of the face."""
    points, shape, image = frame.points, labels.shape, frame.image
    inside = filled(shape, points, FACE_OVAL)
    covered = (labels == LABEL["hair"]) | (labels == LABEL["ears"])
    covered &= ~filled(shape, points, FACE_OVAL, shrink=_RIM)
    covered[max(0, int(points[list(LIPS), 1].min())) :] = False  # beards count as skin
    labels[inside & ~covered] = LABEL["skin"]
    for brow in BROWS:
        box, inside = filled_exactly(shape, points, brow)
        labels[box][inside & _brow_like(image[box], inside)] = LABEL["brows"]
    box, inside = filled_exactly(shape, points, NOSE)
    labels[box][inside] = LABEL["nose"]
    for eye, name in zip(EYES, ("left_eye", "right_eye"), strict=True):
        box, inside = filled_exactly(shape, points, eye)
        labels[box][_without_lids(image[box], inside)] = LABEL[name]
    box, inside = filled_exactly(shape, points, LIPS)
    labels[box][inside] = LABEL["lips"]
    _paint_mouth(labels, frame)


def _paint_mouth(labels: np.ndarray, frame: Observed) -> None:
    """Paint the inside of the mouth, whose border the colours know better than the landmarks."""
    import cv2

    box, inside = filled_exactly(labels.shape, frame.points, MOUTH)
    if _is_shut(inside, frame.points):
        return
    grey, teeth = luma(frame.image[box]), _tooth_like(frame.image[box], inside)
    cross, mask = np.ones((3, 3), np.uint8), inside.astype(np.uint8)
    lips = labels[box] == LABEL["lips"]
    wide = lips & (cv2.dilate(mask, cross) > 0)
    core = cv2.erode(mask, cross) > 0
    of_lips = float(np.median(grey[lips & ~wide])) if (lips & ~wide).any() else 255.0
    labels[box][core | (wide & (grey < _GAP * of_lips))] = LABEL["mouth_interior"]
    labels[box][wide & teeth] = LABEL["teeth"]


def _without_lids(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(h, w) bool: the inside of an eye's outline less what looks like skin along its border."""
    import cv2

    cross, mask = np.ones((3, 3), np.uint8), inside.astype(np.uint8)
    core, skin = cv2.erode(mask, cross) > 0, cv2.dilate(mask, cross) == 0
    if not core.any() or not skin.any():
        return inside
    away = np.abs(image.astype(np.float32) - np.median(image[skin], axis=0)).max(-1)
    eye = core | (inside & (away >= _LID * np.median(away[core])))
    return core | (cv2.medianBlur(eye.astype(np.uint8), 3) > 0)


def _is_shut(inside: np.ndarray, points: np.ndarray) -> bool:
    """Whether the lips of a mouth with this inside touch, all but for the noise of landmarks."""
    height = inside.sum() / max(1, inside.any(0).sum())
    return bool(height < _SHUT * face_axis(points)[2])


def _brow_like(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(h, w) bool: nearer to the darkest of a brow's outline than to the skin around it."""
    grey = luma(image)
    if not inside.any() or inside.all():
        return inside
    skin, dark = float(np.median(grey[~inside])), float(np.percentile(grey[inside], 15))
    if skin - dark < _FAINT_BROW:
        return inside
    return grey < (skin + dark) / 2


def _tooth_like(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(h, w) bool: bright and not red, judged against the rest of the mouth."""
    if not inside.any():
        return inside
    grey, color = luma(image), image.astype(np.float32)
    redness = (color[..., 0] - color[..., 1]) / (grey + 1)
    return (grey > max(70.0, 0.6 * np.percentile(grey[inside], 90))) & (redness < 0.35)
