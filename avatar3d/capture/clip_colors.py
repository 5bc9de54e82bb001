"""What the skin, the hair and the clothes of one clip look like, and where each is to be expected.

Colour tables are learnt from places where the answer is sure, then once more from everything that
they, together with the expected places, explain. All of it at half the frames' size: colours alone
cannot place an edge any better.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from avatar3d.capture.outlines import (
    BROWS,
    EYES,
    LIPS,
    face_axis,
    filled,
    place,
)  # fmt: skip
from avatar3d.head.landmarks import FACE_OVAL

__all__ = [
    "CLOTHES", "HAIR", "SKIN", "ClipColors", "Look", "averaged", "kinds", "learn_colors", "look_at",
    "steadied",
]  # fmt: skip

SKIN, HAIR, CLOTHES = range(3)
_BITS = 5  # per colour channel of the tables
_FLOOR = 1e-6
_STEADY = 0.02
"""Side of the squares that colours are judged over, as a share of the picture."""
_SHADES = (0.5, 0.65, 0.8, 1.0, 1.2)
"""Brightness of skin turned away from or into the light, by that of the face."""
_EDGE = 16
"""Grey levels within three pixels that end bare skin."""
_BARE = 0.4
"""Share of what looks like skin near the lower border, from which on the shoulders are bare."""
_WORN = 0.1
"""Beside bare shoulders less than this, by their size, is no piece of clothing."""
_NOT_SKIN, _SKIN_LIKE = 1e-4, 5e-4
"""Shares of the skin's pixels below which a colour is none of it, and above which it may be."""
_HAIR_LIKE = 0.5
"""How much likelier a colour may be on hair before it says nothing about clothes."""
_FOUND = 0.5
"""What a pixel counts that was found to be hair, beside one that is sure to be."""
_CELLS = 48
"""Resolution of the expected places, per height of the face; they reach 3 of these each way."""
_ALIKE = np.clip(2 - np.arange(256) / 3, 0, 1).astype(np.float32)
"""How much a pixel tells about one that is so many grey levels brighter or darker."""


@dataclass(frozen=True)
class ClipColors:
    """Logarithm of how likely each colour is on skin, hair and clothes: (3, 2^15) float32."""

    tables: np.ndarray


@dataclass(frozen=True)
class Look:
    """One frame at half its size, without what the clip's colours say about it.

    Attributes:
        image: (h, w, 3) uint8; grey, alpha: (h, w) uint8.
        points: (478, 2) in its pixels.
    """

    image: np.ndarray
    grey: np.ndarray
    alpha: np.ndarray
    points: np.ndarray


def look_at(image: np.ndarray, matte: np.ndarray, points: np.ndarray) -> Look:
    """The look of a frame (H, W, 3) with its matte (H, W) and landmarks (478, 2)."""
    import cv2

    half = (max(1, matte.shape[1] // 2), max(1, matte.shape[0] // 2))
    small = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(matte, half, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return Look(small, grey, alpha, points * (np.array(half) / matte.shape[::-1]))


def learn_colors(samples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> ClipColors:
    """Colours of one clip.

    Args:
        samples: some frames as (image (H, W, 3), matte (H, W), points (478, 2)).
    """
    looks = [look_at(*sample) for sample in samples]
    counts, central = _seed_counts(looks)
    # In the middle of the lower border there is a shirt in one clip and a neck in another.
    counts[CLOTHES] += np.where(_smooth_share(counts[SKIN]) < _NOT_SKIN, central, 0)
    colors = ClipColors(_tables(counts))
    # Long hair shows more colours farther down than on the crown.
    for look in looks:
        hair = kinds(look, steadied(look, colors.tables)) == HAIR
        counts[HAIR] += _FOUND * _histogram(_color_index(look.image)[hair & (look.alpha > 250)])
    return ClipColors(_tables(counts))


def steadied(look: Look, tables: np.ndarray) -> np.ndarray:
    """(3, h, w) log-likelihoods averaged with their neighbours', of wholly covered pixels only.

    Single odd pixels, and mixtures with the background along the outline, say nothing themselves.
    """
    import cv2

    index = _color_index(look.image)
    solid = cv2.erode((look.alpha > 250).astype(np.float32), np.ones((3, 3)), borderValue=1)
    weight = 1e-3 + solid
    side = max(3, round(_STEADY * max(solid.shape))) | 1
    near, far = (side, side), (4 * side + 1, 4 * side + 1)
    # Far ones count only where there is nothing solid nearby.
    gain = 1 / (cv2.blur(weight, near) + 0.02 * cv2.blur(weight, far))
    scores = np.empty((3, *index.shape), np.float32)
    for table, score in zip(tables, scores, strict=True):
        own = table[index] * weight
        np.multiply(cv2.blur(own, near) + 0.02 * cv2.blur(own, far), gain, out=score)
    return scores


def averaged(
    look: Look, scores: np.ndarray, around: Sequence[tuple[Look, np.ndarray]]
) -> np.ndarray:
    """Scores (3, h, w) of a frame together with those of frames around it, where these look alike.

    A window that reaches as far ahead as back lags behind nothing, and what moves is left alone.
    """
    import cv2

    sums, total = scores.copy(), np.ones(scores.shape[1:], np.float32)
    for other, theirs in around:
        change = cv2.blur(cv2.absdiff(look.grey, other.grey), (3, 3))
        same = cv2.LUT(change, _ALIKE)
        sums += theirs * same
        total += same
    sums *= 1 / total
    return sums


def kinds(look: Look, scores: np.ndarray) -> np.ndarray:
    """(h, w) uint8 SKIN, HAIR or CLOTHES: colour plus where each is to be expected."""
    import cv2

    height, width = look.alpha.shape
    prior = cv2.warpAffine(
        _expected(), _to_face(look.points), (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    skin, hair, clothes = scores + np.stack(cv2.split(prior))
    kind = (hair > skin).astype(np.uint8)
    kind[clothes > np.maximum(skin, hair)] = CLOTHES
    person = look.alpha > 60
    # Hair hangs together with that of the crown; dark patches elsewhere are something else.
    count, parts = cv2.connectedComponents(((kind == HAIR) & person).astype(np.uint8))
    if count > 2:
        crown = np.bincount(parts[_crown(look.points, parts.shape)], minlength=count)
        stray = (parts != 1 + int(crown[1:].argmax())) & (kind == HAIR)
        kind[stray] = np.where(clothes[stray] > skin[stray], CLOTHES, SKIN)
    # Clothes hang together with what leaves the picture below; patches on shoulders are shadows.
    count, parts = cv2.connectedComponents(((kind == CLOTHES) & person).astype(np.uint8))
    if count > 2:
        worn = np.zeros(count, bool)
        worn[parts[-2:]] = True
        kind[~worn[parts] & (kind == CLOTHES) & person] = SKIN
    return kind


@lru_cache(maxsize=1)
def _expected() -> np.ndarray:
    """(6 C, 6 C, 3) float32 log-odds of each kind by place, for `_to_face`."""
    grid = (np.arange(6 * _CELLS) + 0.5) / _CELLS - 3
    far, down = np.abs(grid)[None], grid[:, None]
    skin = -6 * np.clip(-0.55 - down, 0, 0.5) - 2 * np.clip(far - 1.0, 0, 1)
    skin = skin + 2 * ((far < 0.35) & (down > 0.45) & (down < 0.7))
    skin = skin - 2 * ((far > 0.38) & (down > 0.5) & (down < 0.75))
    hair = -2.5 * np.clip(down - 0.5, 0, 1.5) + 0 * far
    hair = hair - 4 * ((far < 0.3) & (down > 0.5)) - 2 * (down > 0.9)
    clothes = -20 * np.clip(0.6 - down, 0, 1) + 0 * far
    return np.stack([skin, hair, clothes], -1).astype(np.float32)


def _to_face(points: np.ndarray) -> np.ndarray:
    """(2, 3) affine map from pixels to cells of `_expected`.

    Places are in heights of the face from its middle, across and down along the line from the
    hairline, near down = -0.5, to the chin at +0.5.
    """
    middle, (ax, ay), height = face_axis(points)
    turn = np.array([[ay, -ax], [ax, ay]]) * (_CELLS / height)
    shift = 3 * _CELLS - 0.5 + turn @ (0.5 - middle)
    return np.column_stack([turn, shift])


def _crown(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    across, down = place(points, shape)
    return (down < -0.4) & (np.abs(across) < 0.7)


def _seed_counts(looks: list[Look]) -> tuple[np.ndarray, np.ndarray]:
    """Histograms (3, N) of sure skin, hair and clothes, and (N,) of the lower border's middle."""
    counts = np.zeros((3, 1 << (3 * _BITS)))
    central = np.zeros_like(counts[0])
    places = [place(look.points, look.alpha.shape) for look in looks]
    for look, (across, down) in zip(looks, places, strict=True):
        index, person = _color_index(look.image), look.alpha > 200
        counts[SKIN] += _histogram(index[_face(look)])
        counts[HAIR] += _histogram(index[person & (down < -0.62) & (np.abs(across) < 0.6)])
    skin_like = _smooth_share(_shaded(counts[SKIN])) > _SKIN_LIKE
    hair_like = _smooth_share(counts[HAIR]) > _SKIN_LIKE
    bare = [_bare(look, skin_like) for look in looks]
    reached = [0, 0]
    for look, (across, down), reach in zip(looks, places, bare, strict=True):
        lower = (look.alpha > 200) & _low(down, 0.85) & (np.abs(across) > 0.3)
        lower &= skin_like[_color_index(look.image)]
        reached[0] += int((reach & lower).sum())
        reached[1] += int(lower.sum())
    shoulders_bare = reached[0] > _BARE * reached[1]
    for look, (across, down), reach in zip(looks, places, bare, strict=True):
        index, person = _color_index(look.image), look.alpha > 200
        neck = person & (down > 0.51) & (down < 0.58) & (np.abs(across) < 0.12)
        neck &= look.image[..., 0] > look.image[..., 2] + 15.0  # not a white collar
        bottom = person & _low(down, 0.93)
        if shoulders_bare:
            reach = reach | (bottom & skin_like[index])
            bottom &= ~hair_like[index]  # it hangs down there sooner than clothes begin
        bottom &= ~reach
        beside = np.abs(across) > 0.4
        clothes = (person & (down > 1.05) & ~reach) | (bottom & beside)
        counts[SKIN] += _histogram(index[reach | neck])
        counts[CLOTHES] += _histogram(index[clothes])
        central += _histogram(index[bottom & ~beside & ~clothes])
    if shoulders_bare and counts[CLOTHES].sum() < _WORN * reached[1]:
        counts[CLOTHES] = 0  # shadows and jewellery
    return counts, central


def _low(down: np.ndarray, share: float) -> np.ndarray:
    """(h, w) bool: below the face, and below that share of the picture."""
    return (down > 0.62) & (np.arange(len(down))[:, None] >= share * len(down))


def _face(look: Look) -> np.ndarray:
    """(h, w) bool: the skin of the face."""
    shape = look.alpha.shape
    face = filled(shape, look.points, FACE_OVAL, shrink=0.85)
    for inner in (*BROWS, *EYES, LIPS):
        face &= ~filled(shape, look.points, inner)
    return face


def _bare(look: Look, skin_like: np.ndarray) -> np.ndarray:
    """(h, w) bool: the neck and what of the shoulders goes on from there without an edge.

    Args:
        skin_like: (N,) bool, the colours of the face under any light.
    """
    import cv2

    across, down = place(look.points, look.alpha.shape)
    below = (look.alpha > 200) & (down > 0.45) & skin_like[_color_index(look.image)]
    smooth = cv2.GaussianBlur(look.image, (0, 0), 0.8)
    ends = cv2.morphologyEx(smooth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).max(2) > _EDGE
    count, parts = cv2.connectedComponents((below & ~ends).astype(np.uint8), connectivity=4)
    reached = np.zeros(count, bool)
    reached[parts[(down > 0.51) & (down < 0.58) & (np.abs(across) < 0.12)]] = True
    reached[0] = False
    return below & (cv2.dilate(reached[parts].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def _tables(counts: np.ndarray) -> np.ndarray:
    """Log-likelihood tables (3, N); what the clothes' place shows of skin or hair is removed."""
    share = np.stack([_smooth_share(count) for count in counts])
    foreign = (share[SKIN] > 0.4 * share[CLOTHES]) | (share[HAIR] > _HAIR_LIKE * share[CLOTHES])
    share[CLOTHES] = np.where(foreign, 0.05 * share[CLOTHES], share[CLOTHES])
    return np.log(share + _FLOOR).astype(np.float32)


def _shaded(count: np.ndarray) -> np.ndarray:
    """Histogram (N,) of the same colours under more and less light."""
    side = 1 << _BITS
    cells = np.flatnonzero(count)
    color = np.stack(np.unravel_index(cells, (side, side, side)), -1) + 0.5
    result = np.zeros(len(count))
    for gain in _SHADES:
        moved = np.minimum((color * gain).astype(int), side - 1)
        np.add.at(result, np.ravel_multi_index(tuple(moved.T), (side,) * 3), count[cells])
    return result


def _smooth_share(count: np.ndarray) -> np.ndarray:
    """Share of each colour (N,), spread a little over similar colours."""
    from scipy.ndimage import gaussian_filter

    side = 1 << _BITS
    smooth = gaussian_filter(count.reshape(side, side, side), 1.0, mode="nearest").ravel()
    return smooth / max(smooth.sum(), 1e-9)


def _color_index(image: np.ndarray) -> np.ndarray:
    """(H, W) uint16 cell of the colour tables."""
    import cv2

    red, green, blue = (channel >> (8 - _BITS) for channel in cv2.split(image))
    return (red.astype(np.uint16) << (2 * _BITS)) | (green.astype(np.uint16) << _BITS) | blue


def _histogram(index: np.ndarray) -> np.ndarray:
    return np.bincount(index, minlength=1 << (3 * _BITS))
