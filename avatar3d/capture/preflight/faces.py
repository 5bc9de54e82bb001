"""What one picture tells about the faces in it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.identity import FaceIdentity, load_identity
from avatar3d.capture.landmarks import LandmarkDetector, choose_detector, face_boxes, warmed_up
from avatar3d.head.landmarks import (
    EYE_LEFT,
    EYE_RIGHT,
    FACE_OVAL,
    LIPS,
    LIPS_INNER,
    LIPS_OUTER,
    eye_aperture,
    inter_ocular,
    lip_gap,
    lip_width,
)

__all__ = ["FaceLook", "FaceLooker"]

_MOST_FACES = 3
_CROP, _TIGHT_CROP = 2.0, 1.3
"""Side of the square given to the landmark model, in heights of the face's box; the second where
the first shows another face."""
_CROP_PIXELS = 384
_CHEEKS = (50, 280, 101, 330, 205, 425)
_CHIN = (199, 200, 83, 313, 18, 164, 167, 393, 175)
_IRIS_DIAMETERS = ((469, 471), (470, 472), (474, 476), (475, 477))
_FACE_PIXELS = 160
_HAND_CROP = 3.2
_HAND_REACH = 0.12
"""A fingertip's landmark is inside the finger: how far around it the hand still covers, in
distances between the eyes."""


@dataclass(frozen=True)
class FaceLook:
    """One face in one picture. Lengths in pixels of the picture that was looked at.

    Attributes:
        box: (4,) left, top, right, bottom of the landmarks, or of the finder where there are none.
        seen: whether the landmark model found the face too.
        eyes_apart: between the iris centres, corrected for the turn of the head.
        yaw, pitch, roll: degrees; yaw to the person's left, pitch up.
        lip_gap, lip_width: in distances between the eyes.
        eye_aperture: mean of both eyes, lid distance over eye width.
        iris: iris diameter over the distance between the eyes; 0.19 in people of all ages.
        blur: 0 sharp to 1 blurred (Crete et al. 2007).
        light: 5th, 50th and 95th percentile of the brightness of the skin, 0 to 255.
        lopsided: difference of brightness between the cheeks over their sum.
        lip_contrast: how much redder the lips are than the skin around them, in units of Lab a.
        chin_tint: distance in Lab a, b between the skin around the mouth and the cheeks.
        mouth_detail: fine contrast of the lips over that of the eyes.
        flatness: share of the face's pixels without any gradient or noise.
        hand_on_mouth: whether a hand lies over the lips; None where nobody looked.
        descriptor: (128,) who it is, or None.
    """

    box: np.ndarray
    seen: bool = False
    eyes_apart: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    lip_gap: float = 0.0
    lip_width: float = 0.0
    eye_aperture: float = 0.0
    iris: float = 0.0
    blur: float = 0.0
    light: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lopsided: float = 0.0
    lip_contrast: float = 0.0
    chin_tint: float = 0.0
    mouth_detail: float = 0.0
    flatness: float = 0.0
    hand_on_mouth: bool | None = None
    descriptor: np.ndarray | None = None

    def scaled(self, factor: float) -> "FaceLook":
        """The same in other pixels."""
        return replace(self, box=self.box * factor, eyes_apart=self.eyes_apart * factor)

    @property
    def height(self) -> float:
        return float(self.box[3] - self.box[1])

    @property
    def center(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2


class FaceLooker:
    """Models for one thread; `look` is a pure function of the picture."""

    def __init__(self, config: CaptureConfig) -> None:
        self._find = face_boxes()
        self._detector: LandmarkDetector = warmed_up(choose_detector(config).make(1))
        self._hands = _HandFinder() if _has_hands() else None
        self._identity: FaceIdentity | None = load_identity()
        if self._hands is not None:
            self._hands(np.zeros((64, 64, 3), np.uint8))

    def close(self) -> None:
        """Give back the models' memory."""
        self._find.close()
        self._detector.close()
        if self._hands is not None:
            self._hands.close()

    @property
    def knows_people(self) -> bool:
        return self._identity is not None

    @property
    def knows_hands(self) -> bool:
        return self._hands is not None

    def look(self, image: np.ndarray, hands: bool, identity: bool) -> list[FaceLook]:
        """Faces of a picture (H, W, 3) uint8, largest first; hands and identity cost extra."""
        looks = []
        for box in self._find(image)[:_MOST_FACES]:
            points = self._landmarks(image, box)
            if points is None:
                looks.append(FaceLook(box))
                continue
            descriptor, hand = None, None
            if identity and self._identity:
                descriptor = self._identity(image, points)
            if hands and self._hands and not looks:
                hand = self._hand_on_mouth(image, points)
            looks.append(measured(image, points, hand, descriptor))
        return _distinct(looks)

    def follow(self, image: np.ndarray, box: np.ndarray) -> FaceLook | None:
        """The face that was at `box` (4,) a moment ago, without what its colours tell; much faster
        than `look`."""
        points = self._landmarks(image, box)
        return None if points is None else shaped_look(points)

    def _landmarks(self, image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        """(478, 3) of the face in a box; beside it the crop may show another, which is not it."""
        for factor in (_CROP, _TIGHT_CROP):
            points = self._landmarks_around(image, box, factor)
            if points is None:
                return None
            middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
            if (box[:2] < middle).all() and (middle < box[2:]).all():
                return points
        return None

    def _landmarks_around(
        self, image: np.ndarray, box: np.ndarray, factor: float
    ) -> np.ndarray | None:
        import cv2

        crop, origin = _square(image, box, factor)
        if min(crop.shape[:2]) < 16:
            return None
        scale = _CROP_PIXELS / max(crop.shape[:2])
        if scale < 1:
            crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        faces = self._detector.detect(np.ascontiguousarray(crop))
        if not faces:
            return None
        points = faces[0].points.copy()
        points /= min(scale, 1.0)
        points[:, :2] += origin
        return points

    def _hand_on_mouth(self, image: np.ndarray, points: np.ndarray) -> bool:
        """Whether the lips are inside the outline of a hand."""
        import cv2

        assert self._hands is not None
        box = np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])
        crop, origin = _square(image, box, _HAND_CROP)
        reach = _HAND_REACH * float(inter_ocular(points[:, :2]))
        lips = points[list(LIPS), :2] - origin
        low, high = box[:2] - origin, box[2:] - origin
        for hand in self._hands(crop):
            if ((hand > low) & (hand < high)).all():
                continue  # an arm comes from outside; the model at times takes a face for a hand
            outline = cv2.convexHull(hand.astype(np.float32))
            inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in lips]
            if np.mean(np.array(inside) > -reach) > 0.25:
                return True
        return False


def shaped_look(points: np.ndarray) -> FaceLook:
    """What landmarks (478, 3) alone tell."""
    xy = points[:, :2]
    yaw, pitch, roll = head_angles(points)
    flat = max(float(inter_ocular(xy)), 1e-6)
    apart = max(float(np.linalg.norm(points[468] - points[473])), flat)
    irises = [np.linalg.norm(xy[a] - xy[b]) for a, b in _IRIS_DIAMETERS]
    return FaceLook(
        box=np.concatenate([xy.min(0), xy.max(0)]),
        seen=True,
        eyes_apart=apart,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        lip_gap=float(lip_gap(xy)) / flat,
        lip_width=float(lip_width(xy)) / flat,
        eye_aperture=float(eye_aperture(xy).mean()),
        iris=float(max(np.mean(irises[1::2]), np.mean(irises[::2]))) / apart,
    )


def measured(
    image: np.ndarray, points: np.ndarray, hand: bool | None, descriptor: np.ndarray | None
) -> FaceLook:
    """Everything that landmarks (478, 3) and the picture around them tell."""
    import cv2

    look = shaped_look(points)
    face, local = _face_patch(image, points[:, :2], look.box)
    gray = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    lab = cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    skin = _skin_mask(local, gray.shape)
    bright = gray[skin] if skin.any() else gray.ravel()
    lips, around, cheeks = _mouth_colors(lab, local)
    left, right = (float(_patch_mean(gray, local[list(side)])) for side in ((280, 330), (50, 101)))
    return replace(
        look,
        blur=blur_effect(gray),
        light=tuple(float(q) for q in np.percentile(bright, (5, 50, 95))),  # type: ignore[arg-type]
        lopsided=(left - right) / max(left + right, 1.0),
        lip_contrast=float(lips[1] - around[1]),
        chin_tint=float(np.linalg.norm(around[1:] - cheeks[1:])),
        mouth_detail=_mouth_detail(gray, local),
        flatness=_flatness(gray, skin),
        hand_on_mouth=hand,
        descriptor=descriptor,
    )


def head_angles(points: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees from landmarks (478, 3) with depth, no head model needed.

    Axes of the face: across from the outer eye corners and mouth corners, up from chin to
    forehead. Mediapipe's depth makes this good to a few degrees.
    """
    across = (points[263] - points[33]) + (points[454] - points[234])
    up = points[10] - points[152]
    across = across / max(float(np.linalg.norm(across)), 1e-9)
    up = up - across * float(up @ across)
    up = up / max(float(np.linalg.norm(up)), 1e-9)
    out = np.cross(across, up)  # image axes: x right, y down, z away; out points to the camera
    yaw = np.degrees(np.arctan2(out[0], -out[2]))
    pitch = np.degrees(np.arcsin(np.clip(-out[1], -1, 1)))
    roll = np.degrees(np.arctan2(across[1], across[0]))
    return float(yaw), float(pitch), float(roll)


def blur_effect(gray: np.ndarray) -> float:
    """No-reference blur of a picture (H, W), 0 sharp to 1 blurred.

    Crete et al., "The blur effect: perception and estimation with a new no-reference perceptual
    blur metric" (2007): a sharp picture loses more of its neighbour differences when blurred.
    """
    import cv2

    image = gray.astype(np.float32)
    values = []
    for axis in (0, 1):
        size = (1, 9) if axis == 0 else (9, 1)
        smooth = cv2.blur(image, size, borderType=cv2.BORDER_REFLECT)
        before = np.abs(np.diff(image, axis=axis))
        lost = np.maximum(before - np.abs(np.diff(smooth, axis=axis)), 0)
        values.append(1 - float(lost.sum()) / max(float(before.sum()), 1e-6))
    return max(values)


def _face_patch(
    image: np.ndarray, xy: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The face's box, shrunk to a standard size where larger, and the landmarks in it."""
    import cv2

    height, width = image.shape[:2]
    low = np.clip(np.floor(box[:2]), 0, (width - 2, height - 2)).astype(int)
    high = np.clip(np.ceil(box[2:]), low + 2, (width, height)).astype(int)
    face, local = image[low[1] : high[1], low[0] : high[0]], xy - low
    scale = _FACE_PIXELS / max(face.shape[:2])
    if scale < 1:
        face = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        local = local * scale
    return np.ascontiguousarray(face), local


def _skin_mask(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: inside the face oval, outside eyes and lips."""
    import cv2

    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points[list(FACE_OVAL)].astype(np.int32)), 1)
    for hole in (EYE_LEFT, EYE_RIGHT, LIPS_OUTER):
        cv2.fillConvexPoly(mask, cv2.convexHull(points[list(hole)].astype(np.int32)), 0)
    return cv2.erode(mask, np.ones((5, 5), np.uint8)) > 0


def _mouth_colors(lab: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median Lab of the lips, of the skin around the mouth and of the cheeks."""
    import cv2

    lips = np.zeros(lab.shape[:2], np.uint8)
    cv2.fillPoly(lips, [points[list(LIPS_OUTER)].astype(np.int32)], 1)
    cv2.fillPoly(lips, [points[list(LIPS_INNER)].astype(np.int32)], 0)
    whole = lab.reshape(-1, 3)
    of_lips = np.median(lab[lips > 0] if lips.any() else whole, axis=0)
    around = np.array([_patch_mean(lab, points[[i]]) for i in _CHIN])
    cheeks = np.array([_patch_mean(lab, points[[i]]) for i in _CHEEKS])
    return of_lips, np.median(around, axis=0), np.median(cheeks, axis=0)


def _mouth_detail(gray: np.ndarray, points: np.ndarray) -> float:
    import cv2

    image = gray.astype(np.float32)
    fine = np.abs(image - cv2.GaussianBlur(image, (0, 0), 4.0))

    def of(*regions: tuple[int, ...]) -> float:
        mask = np.zeros(gray.shape, np.uint8)
        for region in regions:
            cv2.fillConvexPoly(mask, cv2.convexHull(points[list(region)].astype(np.int32)), 1)
        return float(fine[mask > 0].mean()) if mask.any() else 0.0

    return of(LIPS_OUTER) / max(of(EYE_LEFT, EYE_RIGHT), 1.0)


def _patch_mean(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean of 5x5 pixels around each of the points (n, 2)."""
    height, width = image.shape[:2]
    patches = []
    for x, y in points.astype(int):
        x, y = int(np.clip(x, 2, max(width - 3, 2))), int(np.clip(y, 2, max(height - 3, 2)))
        patches.append(image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, *image.shape[2:]).mean(0))
    return np.mean(patches, axis=0)


def _flatness(gray: np.ndarray, skin: np.ndarray) -> float:
    inner = gray[1:-1, 1:-1].astype(int)
    flat = np.ones(inner.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        flat &= gray[dy : dy + inner.shape[0], dx : dx + inner.shape[1]] == inner
    return float(flat[skin[1:-1, 1:-1]].mean()) if skin[1:-1, 1:-1].any() else 0.0


def _square(image: np.ndarray, box: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """A square of `factor` box heights around a box, cut at the picture's edges; its origin."""
    center, side = (box[:2] + box[2:]) / 2, factor * max(float(box[3] - box[1]), 8.0)
    low = np.maximum(np.round(center - side / 2), 0).astype(int)
    high = np.round(center + side / 2).astype(int)
    return np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]), low


def _distinct(looks: list[FaceLook]) -> list[FaceLook]:
    """Largest first, without finds of the same face twice."""
    kept: list[FaceLook] = []
    for look in sorted(looks, key=lambda look: (not look.seen, -look.height)):
        if all(np.abs(look.center - other.center).max() > 0.5 * other.height for other in kept):
            kept.append(look)
    return sorted(kept, key=lambda look: -look.height)


def _has_hands() -> bool:
    import mediapipe

    return hasattr(mediapipe, "solutions")


class _HandFinder:
    """Picture to hands (21, 2) in pixels, by the models inside the mediapipe 0.10.21 wheel."""

    def __init__(self) -> None:
        import mediapipe

        self._model: Any = mediapipe.solutions.hands.Hands(
            static_image_mode=True,
            max_num_hands=2,
            model_complexity=0,
            min_detection_confidence=0.5,
        )

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        found = self._model.process(image).multi_hand_landmarks or []
        size = np.array([image.shape[1], image.shape[0]], np.float32)
        return [np.array([(p.x, p.y) for p in hand.landmark], np.float32) * size for hand in found]

    def close(self) -> None:
        self._model.close()
