"""478 face landmarks per frame, from either of mediapipe's two programming interfaces."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.errors import UserError
from avatar3d.head import ARKIT_INDEX
from avatar3d.head.landmarks import LANDMARK_COUNT

__all__ = [
    "DetectorChoice", "Face", "LandmarkDetector", "choose_detector", "choose_face", "face_boxes",
    "is_near", "warmed_up",
]  # fmt: skip

ENVIRONMENT = "AVATAR3D_FACE_LANDMARKER"


@dataclass(frozen=True)
class Face:
    """One detected face.

    Attributes:
        points: (478, 3) float32; x, y in pixels, z in pixels relative to the head's middle.
        scores: (52,) mediapipe's own expression scores in ARKit order, or None.
    """

    points: np.ndarray
    scores: np.ndarray | None = None

    @property
    def box(self) -> np.ndarray:
        """(4,) left, top, right, bottom."""
        xy = self.points[:, :2]
        return np.concatenate([xy.min(0), xy.max(0)])


class LandmarkDetector(Protocol):
    """Finds faces in single pictures: no memory of earlier ones, hence no lag."""

    def detect(self, image: np.ndarray) -> list[Face]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class DetectorChoice:
    """Which models to use; `make(faces)` builds a detector for up to that many faces."""

    name: str
    make: Callable[[int], LandmarkDetector]


def choose_detector(config: CaptureConfig) -> DetectorChoice:
    """The configured models, or the best that are at hand without a download.

    Raises:
        UserError: mediapipe or the models are missing; says what to install.
    """
    mediapipe = _mediapipe()
    bundle = None if config.detector == "solutions" else _bundle(config)
    if bundle is not None:
        name = f"tasks {bundle.stat().st_size}"
        return DetectorChoice(name, lambda faces: _TasksDetector(bundle, faces))
    if config.detector == "tasks" or not hasattr(mediapipe, "solutions"):
        raise UserError(
            "The face landmark bundle is missing; run `avatar3d assets fetch face-landmarker` or "
            "set capture.face_landmarker to a face_landmarker.task file."
        )
    return DetectorChoice(f"solutions {mediapipe.__version__}", _SolutionsDetector)


def choose_face(faces: list[Face], expected: np.ndarray | None) -> Face | None:
    """The face nearest to the expected box (left, top, right, bottom), or else the largest."""
    if not faces:
        return None
    if expected is None:
        return max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
    center, size = (expected[:2] + expected[2:]) / 2, np.linalg.norm(expected[2:] - expected[:2])

    def distance(face: Face) -> float:
        box = face.box
        moved = np.linalg.norm((box[:2] + box[2:]) / 2 - center) / size
        scaled = abs(np.log(max(float(np.linalg.norm(box[2:] - box[:2])), 1.0) / size))
        return float(moved + scaled)

    return min(faces, key=distance)


def is_near(face: Face, expected: np.ndarray) -> bool:
    """Whether a face is where, and as large as, it was expected: a box (4,), zero for nowhere."""
    size = float(np.linalg.norm(expected[2:] - expected[:2]))
    if size < 1:
        return False
    box = face.box
    moved = float(np.linalg.norm((box[:2] + box[2:] - expected[:2] - expected[2:]) / 2)) / size
    scaled = abs(np.log(max(float(np.linalg.norm(box[2:] - box[:2])), 1.0) / size))
    return moved < 0.5 and scaled < 0.5


def warmed_up(detector: LandmarkDetector) -> LandmarkDetector:
    """The detector after a first use, which is the slow one and the one that talks.

    Mediapipe writes to the terminal when it first finds a face, so it is shown the drawing of one.
    """
    detector.detect(_drawn_face())
    return detector


def _drawn_face() -> np.ndarray:
    """A simple face, (240, 200, 3) uint8, that the models take for one."""
    import cv2

    image = np.full((240, 200, 3), (180, 220, 250), np.uint8)

    def ellipse(x: int, y: int, width: int, height: int, color: tuple[int, int, int]) -> None:
        cv2.ellipse(image, (x, y), (width, height), 0, 0, 360, color, -1, cv2.LINE_AA)

    ellipse(100, 120, 60, 77, (255, 214, 170))
    cv2.ellipse(image, (100, 73), (63, 47), 0, 180, 360, (90, 50, 20), -1, cv2.LINE_AA)
    for x in (75, 125):
        ellipse(x, 113, 16, 20, (255, 255, 255))
        ellipse(x, 113, 10, 10, (60, 100, 30))
        ellipse(x, 113, 5, 5, (0, 0, 0))
        cv2.ellipse(image, (x, 88), (17, 5), 0, 180, 360, (70, 40, 20), 3, cv2.LINE_AA)
    cv2.line(image, (100, 123), (95, 143), (200, 150, 110), 2, cv2.LINE_AA)
    ellipse(100, 161, 20, 6, (180, 60, 60))
    return image


class _TasksDetector:
    """FaceLandmarker in IMAGE mode: its VIDEO mode filters causally and delays the lips."""

    def __init__(self, bundle: Path, faces: int) -> None:
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision

        options = vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(bundle)),
            running_mode=vision.RunningMode.IMAGE,
            output_face_blendshapes=True,
            num_faces=faces,
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{bundle} is not a usable face landmark bundle; fetch it again with "
                "`avatar3d assets fetch face-landmarker`."
            ) from error

    def detect(self, image: np.ndarray) -> list[Face]:
        import mediapipe as mp

        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        result = self._landmarker.detect(picture)
        height, width = image.shape[:2]
        faces = []
        for index, landmarks in enumerate(result.face_landmarks):
            scores = np.zeros(52, np.float32)
            for category in result.face_blendshapes[index]:
                if category.category_name in ARKIT_INDEX:
                    scores[ARKIT_INDEX[category.category_name]] = category.score
            faces.append(Face(_points(landmarks, width, height), scores))
        return faces

    def close(self) -> None:
        self._landmarker.close()


class _SolutionsDetector:
    """The older face mesh with attention, whose models are inside the wheel."""

    def __init__(self, faces: int) -> None:
        import mediapipe as mp

        self._mesh = mp.solutions.face_mesh.FaceMesh(
            static_image_mode=True, max_num_faces=faces, refine_landmarks=True
        )

    def detect(self, image: np.ndarray) -> list[Face]:
        found = self._mesh.process(image).multi_face_landmarks or []
        height, width = image.shape[:2]
        return [Face(_points(face.landmark, width, height)) for face in found]

    def close(self) -> None:
        self._mesh.close()


def _points(landmarks: Any, width: int, height: int) -> np.ndarray:
    points = np.array([(p.x, p.y, p.z) for p in landmarks], np.float32)
    if len(points) != LANDMARK_COUNT:
        raise UserError(
            f"The landmark model gives {len(points)} points instead of {LANDMARK_COUNT}; use the "
            "face_landmarker bundle with iris."
        )
    return points * np.array([width, height, width], np.float32)


def _bundle(config: CaptureConfig) -> Path | None:
    given = config.face_landmarker or os.environ.get(ENVIRONMENT)
    if given:
        path = Path(given)
        if not path.is_file():
            raise UserError(f"There is no face landmark bundle {path}; correct the path.")
        return path
    from avatar3d import assets

    name = "face-landmarker"
    cached = any(a.name == name and a.state == "ready" for a in assets.list_assets())
    return assets.get(name) if cached or config.detector == "tasks" else None


def _mediapipe() -> Any:
    # Its C++ side logs to the terminal from start-up on unless told not to before the import.
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import mediapipe
    except ImportError as error:
        raise UserError(
            "Capture needs mediapipe; install it with `pip install 'avatar3d[capture]'`."
        ) from error
    return mediapipe


class FaceFinder:
    """A quick finder: picture to face boxes (left, top, right, bottom) in pixels, largest first.

    Uses the detectors inside the mediapipe wheel where there are any (they also see small faces),
    else the landmark model itself.
    """

    def __init__(self) -> None:
        mediapipe = _mediapipe()
        self._models: list[Any] = []
        self._detector: LandmarkDetector | None = None
        if not hasattr(mediapipe, "solutions"):
            self._detector = choose_detector(CaptureConfig()).make(3)
            return
        for selection in (0, 1):  # near, far
            model = mediapipe.solutions.face_detection.FaceDetection(model_selection=selection)
            model.process(np.zeros((64, 64, 3), np.uint8))  # the slow and talkative first use
            self._models.append(model)

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        if self._detector is not None:
            return _largest_first([face.box for face in self._detector.detect(image)])
        height, width = image.shape[:2]
        boxes: list[np.ndarray] = []
        for model in self._models:
            for detection in model.process(image).detections or ():
                box = detection.location_data.relative_bounding_box
                left, top = box.xmin * width, box.ymin * height
                right, bottom = left + box.width * width, top + box.height * height
                boxes.append(np.array([left, top, right, bottom]))
        return _without_doubles(_largest_first(boxes))

    def close(self) -> None:
        """Give back the memory, which mediapipe does not do by itself."""
        for model in self._models:
            model.close()
        if self._detector is not None:
            self._detector.close()


def face_boxes() -> FaceFinder:
    """A `FaceFinder`, ready for use."""
    return FaceFinder()


def _without_doubles(boxes: list[np.ndarray]) -> list[np.ndarray]:
    """Boxes, largest first, less those whose middle lies in one already kept."""
    kept: list[np.ndarray] = []
    for box in boxes:
        center = (box[:2] + box[2:]) / 2
        if not any((other[:2] < center).all() and (center < other[2:]).all() for other in kept):
            kept.append(box)
    return kept


def _largest_first(boxes: list[np.ndarray]) -> list[np.ndarray]:
    return sorted(boxes, key=lambda box: -float(np.prod(box[2:] - box[:2])))
