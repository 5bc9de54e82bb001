"""Label images of the face and what is around it, from landmarks, mesh, matte and colour.

Inside the face the landmark outlines decide. Around it every pixel of the person is skin, hair or
clothes by colour tables learnt from places of this clip where the answer is sure, and by where it
lies relative to the face; the fitted mesh tells ears from other skin.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, FACE_OVAL, LIPS_INNER, LIPS_OUTER
from avatar3d.subject import PARSING_LABELS

__all__ = ["ClipColors", "learn_colors", "parse_frame"]

LABEL = {name: index for index, name in enumerate(PARSING_LABELS)}
BROW_LEFT = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
BROW_RIGHT = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
NOSE = (
    168, 193, 122, 174, 198, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 420, 399, 351, 417,
)  # fmt: skip
CHIN, BROW_MID = 152, 10
_BITS = 5  # per colour channel of the tables
_FLOOR = 1e-6
_FINER = 4  # subdivision of pixels for outlines of small parts
_FAINT_BROW = 15.0  # grey levels between brow and skin below which colour does not tell them apart
_JAW = 0.33
"""Down in face heights: skin outside the outline of the face is neck from here on."""
_STEADY = 0.02
"""Side of the squares that colours are judged over, as a share of the picture."""
_RIM = 0.88
"""Share of the face's outline within which nothing but the face is expected."""
_NOT_SKIN = 1e-4
"""Share of the face's pixels below which a colour is not one of its skin."""


@dataclass(frozen=True)
class ClipColors:
    """Logarithm of how likely each colour is on skin, hair and clothes: (3, 2^15) float32."""

    tables: np.ndarray

    def scores(self, image: np.ndarray) -> np.ndarray:
        """(3, H, W) log-likelihoods of skin, hair, clothes."""
        return self.tables[:, _color_index(image)]


def learn_colors(samples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> ClipColors:
    """Colour tables of one clip.

    Args:
        samples: some frames as (image (H, W, 3), matte (H, W), points (478, 2)).
    """
    counts = np.zeros((3, 1 << (3 * _BITS)))
    central = np.zeros_like(counts[0])
    for image, matte, points in samples:
        across, down = _place(points, matte.shape)
        person = matte > 200
        index = _color_index(image)
        face = _filled(matte.shape, points, FACE_OVAL, shrink=0.85)
        for inner in (BROW_LEFT, BROW_RIGHT, _ring(EYE_LEFT), _ring(EYE_RIGHT), _ring(LIPS_OUTER)):
            face &= ~_filled(matte.shape, points, inner)
        neck = person & (down > 0.51) & (down < 0.58) & (np.abs(across) < 0.12)
        face |= neck & (image[..., 0] > image[..., 2] + 15.0)  # skin in shadow, not a white collar
        hair = person & (down < -0.62) & (np.abs(across) < 0.6)
        bottom = person & _bottom(matte.shape) & (down > 0.62)
        beside = np.abs(across) > 0.4
        clothes = (person & (down > 1.05)) | (bottom & beside)
        for row, seed in enumerate((face, hair, clothes)):
            counts[row] += _histogram(index[seed])
        central += _histogram(index[bottom & ~beside & ~clothes])
    # In the middle of the lower border there is a shirt in one clip and a neck in another.
    counts[2] += np.where(_smooth_share(counts[0]) < _NOT_SKIN, central, 0)
    return ClipColors(_tables(counts))


def parse_frame(
    image: np.ndarray,
    matte: np.ndarray,
    points: np.ndarray,
    colors: ClipColors,
    ears: np.ndarray | None = None,
) -> np.ndarray:
    """(H, W) uint8 labels, indices into `PARSING_LABELS`.

    Args:
        image: (H, W, 3) uint8.
        matte: (H, W) uint8 alpha of the person.
        points: (478, 2) landmarks in pixels.
        colors: of the clip.
        ears: (H, W) bool, where the fitted mesh shows an ear.
    """
    import cv2

    person = matte > 127
    # Around the face half the resolution does; colours alone cannot place an edge any better.
    half = (max(1, matte.shape[1] // 2), max(1, matte.shape[0] // 2))
    small = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    scale = np.array(half) / matte.shape[::-1]
    across, down = _place(points * scale, small.shape)
    alpha = cv2.resize(matte, half, interpolation=cv2.INTER_AREA)
    kind = _kind(_steadied(colors.scores(small), alpha), across, down, alpha > 60)
    around = np.array([LABEL["skin"], LABEL["hair"], LABEL["clothes"]], np.uint8)[kind]
    around[(kind == 0) & (down > _JAW)] = LABEL["neck"]
    labels = cv2.resize(around, matte.shape[::-1], interpolation=cv2.INTER_NEAREST)
    if ears is not None:
        labels[ears & (labels != LABEL["hair"])] = LABEL["ears"]
    _paint_face(labels, points, image)
    inside = labels == LABEL["mouth_interior"]
    labels[inside & _tooth_like(image, inside)] = LABEL["teeth"]
    labels[~person] = LABEL["background"]
    return labels


def _paint_face(labels: np.ndarray, points: np.ndarray, image: np.ndarray) -> None:
    """Paint what the landmarks outline; hair and ears may cover the rim of the face."""
    inside = _filled(labels.shape, points, FACE_OVAL)
    covered = (labels == LABEL["hair"]) | (labels == LABEL["ears"])
    covered &= ~_filled(labels.shape, points, FACE_OVAL, shrink=_RIM)
    covered[max(0, int(points[list(LIPS_OUTER), 1].min())) :] = False  # beards count as skin
    labels[inside & ~covered] = LABEL["skin"]
    for outline, name in (
        (BROW_LEFT, "brows"),
        (BROW_RIGHT, "brows"),
        (NOSE, "nose"),
        (_ring(EYE_LEFT), "left_eye"),
        (_ring(EYE_RIGHT), "right_eye"),
        (_ring(LIPS_OUTER), "lips"),
        (_ring(LIPS_INNER), "mouth_interior"),
    ):
        box, inside = _filled_exactly(labels.shape, points, outline)
        if name == "brows":
            inside &= _brow_like(image[box], inside)
        labels[box][inside] = LABEL[name]


def _brow_like(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(h, w) bool: nearer to the darkest of a brow's outline than to the skin around it."""
    luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    if not inside.any() or inside.all():
        return inside
    skin, dark = float(np.median(luma[~inside])), float(np.percentile(luma[inside], 15))
    if skin - dark < _FAINT_BROW:
        return inside
    return luma < (skin + dark) / 2


def _steadied(scores: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Scores (3, h, w) averaged with their neighbours', of the wholly covered ones only.

    Single odd pixels, and mixtures with the background along the outline, say nothing themselves.
    """
    import cv2

    solid = cv2.erode((alpha > 250).astype(np.float32), np.ones((3, 3)), borderValue=1)
    weight = 0.02 + solid
    side = max(3, round(_STEADY * max(alpha.shape))) | 1
    total = cv2.blur(weight, (side, side))
    return np.stack([cv2.blur(score * weight, (side, side)) / total for score in scores])


def _kind(
    scores: np.ndarray, across: np.ndarray, down: np.ndarray, person: np.ndarray
) -> np.ndarray:
    """(H, W) 0 skin, 1 hair, 2 clothes: colour plus where each is to be expected."""
    import cv2

    far = np.abs(across)
    skin = scores[0] - 6 * np.clip(-0.55 - down, 0, 0.5) - 2 * np.clip(far - 1.0, 0, 1)
    skin = skin + 2 * ((far < 0.35) & (down > 0.45) & (down < 0.7))
    hair = scores[1] - 2.5 * np.clip(down - 0.5, 0, 1.5)
    hair = hair - 4 * ((far < 0.3) & (down > 0.5)) - 2 * (down > 0.9)
    clothes = scores[2] - 20 * np.clip(0.6 - down, 0, 1)
    kind = np.stack([skin, hair, clothes]).argmax(0)
    # Hair hangs together with that of the crown; dark patches elsewhere are something else.
    count, parts = cv2.connectedComponents(((kind == 1) & person).astype(np.uint8))
    if count > 2:
        crown = np.bincount(parts[(down < -0.4) & (far < 0.7)], minlength=count)
        stray = (parts != 1 + int(crown[1:].argmax())) & (kind == 1)
        kind = np.where(stray, np.where(clothes > skin, 2, 0), kind)
    return kind


def _place(points: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel in face coordinates: across and down from the face's middle, in face heights.

    The face's top (hairline) is near down = -0.5, the chin at +0.5.
    """
    top, chin = points[BROW_MID], points[CHIN]
    axis = chin - top
    height = max(float(np.linalg.norm(axis)), 8.0)
    axis = axis / height
    middle = (top + chin) / 2
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x, y = columns + 0.5 - middle[0], rows + 0.5 - middle[1]
    return (x * axis[1] - y * axis[0]) / height, (x * axis[0] + y * axis[1]) / height


def _filled(
    shape: tuple[int, ...], points: np.ndarray, outline: tuple[int, ...], shrink: float = 1.0
) -> np.ndarray:
    """(H, W) bool: inside the polygon, optionally shrunk towards its middle."""
    import cv2

    polygon = points[list(outline)]
    polygon = polygon.mean(0) + shrink * (polygon - polygon.mean(0))
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16 - 8).astype(np.int32)], 1, shift=4)
    return mask > 0


def _filled_exactly(
    shape: tuple[int, ...], points: np.ndarray, outline: tuple[int, ...]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """A polygon's box in the picture, and (h, w) bool: the box's pixels mostly inside the polygon.

    OpenCV counts every pixel that the outline touches, which doubles a nearly shut eye.
    """
    import cv2

    polygon = points[list(outline)]
    low = np.clip(np.floor(polygon.min(0)).astype(int) - 2, 0, np.array(shape[1::-1]) - 1)
    high = np.clip(np.ceil(polygon.max(0)).astype(int) + 2, low + 1, shape[1::-1])
    width, height = high - low
    fine = np.zeros((height * _FINER, width * _FINER), np.uint8)
    corners = np.round(((polygon - low) * _FINER - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [corners], 255, shift=4)
    share = cv2.resize(fine, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    return (slice(low[1], high[1]), slice(low[0], high[0])), share > 140


def _ring(outline: tuple[int, ...]) -> tuple[int, ...]:
    """A closed outline from the lists of eyes and lips: the lower edge, then the upper one back."""
    lower = len(outline) // 2 + 1
    return (*outline[:lower], *reversed(outline[lower:]))


def _bottom(shape: tuple[int, ...]) -> np.ndarray:
    rows = np.arange(shape[0])[:, None] >= 0.93 * shape[0]
    return np.broadcast_to(rows, shape)


def _color_index(image: np.ndarray) -> np.ndarray:
    """(H, W) int32 cell of the colour tables."""
    cells = (image >> (8 - _BITS)).astype(np.int32)
    return (cells[..., 0] << (2 * _BITS)) | (cells[..., 1] << _BITS) | cells[..., 2]


def _histogram(index: np.ndarray) -> np.ndarray:
    return np.bincount(index, minlength=1 << (3 * _BITS))


def _smooth_share(count: np.ndarray) -> np.ndarray:
    """Share of each colour (N,), spread a little over similar colours."""
    from scipy.ndimage import gaussian_filter

    side = 1 << _BITS
    smooth = gaussian_filter(count.reshape(side, side, side), 1.0, mode="nearest").ravel()
    return smooth / max(smooth.sum(), 1e-9)


def _tables(counts: np.ndarray) -> np.ndarray:
    """Log-likelihood tables (3, N); what the clothes' place shows of skin or hair is removed."""
    share = np.stack([_smooth_share(count) for count in counts])
    foreign = (share[0] > 0.4 * share[2]) | (share[1] > 2.0 * share[2])
    share[2] = np.where(foreign, 0.05 * share[2], share[2])
    return np.log(share + _FLOOR).astype(np.float32)


def _tooth_like(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(H, W) bool: bright and not red, judged against the rest of the mouth."""
    if not inside.any():
        return inside
    color = image.astype(np.float32)
    luma = color @ np.array([0.299, 0.587, 0.114], np.float32)
    redness = (color[..., 0] - color[..., 1]) / (luma + 1)
    return (luma > 70) & (redness < 0.35) & (luma > 0.6 * np.percentile(luma[inside], 90))
