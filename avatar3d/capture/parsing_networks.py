"""Optional networks that tell skin, hair, clothes and ears apart better than colours do.

Both are downloads of the user's through the asset manifest:

- multiclass: MediaPipe's selfie_multiclass_256x256 (.tflite or a .task bundle), six classes over
  the whole picture.
- bisenet: a BiSeNet for faces as ONNX, input (1, 3, 512, 512) float32 RGB normalised with
  ImageNet's mean and deviation, first output (1, 19, h, w) logits of the CelebAMask-HQ classes,
  over a square around the head; colours judge what is outside it.

Eyes, brows, nose, lips and mouth stay with the landmarks, which are finer and steadier than either.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.outlines import face_axis
from avatar3d.errors import UserError

__all__ = ["BiSeNet", "Multiclass", "Opinion", "ParserChoice", "ParsingNetwork", "choose_parser"]

ASSETS = {"multiclass": "selfie-multiclass", "bisenet": "face-parsing"}
_FLOOR = 1e-4  # least probability that a network is believed to give
# Rows: skin, hair, clothes, ear. What a person wears on the head moves with it, so hats are hair.
_MULTICLASS = ((2, 3), (1,), (4,), ())
_BISENET = ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), (17, 18), (16,), (7, 8, 9))
_MULTICLASS_COUNT, _BISENET_COUNT = 6, 19
_SIDE = 512
_AROUND = 2.0
"""Side of the square around the head in heights of the face, about as in CelebAMask-HQ."""
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Opinion:
    """What a network says about one picture, at any size (h, w).

    Attributes:
        scores: (3, h, w) float32 log-probabilities of skin, hair and clothes.
        known: (h, w) bool, where it has seen the picture.
        ears: (h, w) bool, or None where it does not know of ears.
    """

    scores: np.ndarray
    known: np.ndarray
    ears: np.ndarray | None


class ParsingNetwork(Protocol):
    """Picture (H, W, 3) uint8 and landmarks (478, 2) to an `Opinion`; one for each thread."""

    def __call__(self, image: np.ndarray, points: np.ndarray) -> Opinion: ...


@dataclass(frozen=True)
class ParserChoice:
    """Which network to use besides colours, "" for none; `make()` builds one."""

    name: str
    make: Callable[[], ParsingNetwork] | None = None


def choose_parser(config: CaptureConfig) -> ParserChoice:
    """The configured network, or with `auto` the best that is at hand without a download.

    Raises:
        UserError: it is missing and cannot be fetched, or is something else.
    """
    if config.parsing == "default":
        return ParserChoice("")
    from avatar3d import assets

    kind, given = config.parsing, config.parsing_model
    if kind == "auto":
        ready = {asset.name for asset in assets.list_assets() if asset.state == "ready"}
        kind = next((name for name in ("bisenet", "multiclass") if ASSETS[name] in ready), "")
        if not kind:
            return ParserChoice("")
    if given is not None and not Path(given).is_file():
        raise UserError(f"There is no parsing network {given}; correct capture.parsing_model.")
    path = Path(given) if given is not None else assets.get(ASSETS[kind])
    with open(path, "rb") as handle:
        name = f"{kind} {hashlib.file_digest(handle, 'sha256').hexdigest()[:16]}"
    return ParserChoice(name, lambda: open_network(kind, path))


def open_network(kind: str, path: Path) -> ParsingNetwork:
    """Load a network of a kind, "multiclass" or "bisenet", from its file.

    Raises:
        UserError: the file is not such a network, or the package that runs it is missing.
    """
    return BiSeNet(_onnx_session(path), path) if kind == "bisenet" else _multiclass(path)


class Multiclass:
    """MediaPipe's six classes: background, hair, body skin, face skin, clothes, others.

    Args:
        segment: picture (H, W, 3) uint8 to probabilities (6, h, w).
        path: its file, for errors.
    """

    def __init__(self, segment: Callable[[np.ndarray], np.ndarray], path: Path) -> None:
        self._segment, self._path = segment, path

    def __call__(self, image: np.ndarray, points: np.ndarray) -> Opinion:
        probability = self._segment(image)
        if probability.ndim != 3 or len(probability) != _MULTICLASS_COUNT:
            raise UserError(
                f"{self._path} gives {len(probability)} classes instead of {_MULTICLASS_COUNT}; "
                "it must be MediaPipe's selfie_multiclass_256x256."
            )
        scores, _ = _scores(probability, _MULTICLASS)
        return Opinion(scores, np.ones(scores.shape[1:], bool), None)


class BiSeNet:
    """A network over the 19 classes of CelebAMask-HQ.

    Args:
        session: an ONNX Runtime session, or anything with its three methods used here.
        path: its file, for errors.

    Raises:
        UserError: it reads or gives something else.
    """

    def __init__(self, session: Any, path: Path) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        right = (
            len(inputs) == 1
            and inputs[0].type == "tensor(float)"
            and _fits(inputs[0].shape, (1, 3, _SIDE, _SIDE))
            and len(outputs) >= 1
            and _fits(outputs[0].shape, (1, _BISENET_COUNT, None, None))
        )
        if not right:
            raise UserError(
                f"{path} maps {_shapes(inputs)} to {_shapes(outputs)}, but a face parsing network "
                f"maps 1x3x{_SIDE}x{_SIDE} float to 1x{_BISENET_COUNT}xHxW; give another file."
            )
        self._session, self._path = session, path
        self._input, self._output = inputs[0].name, outputs[0].name

    def __call__(self, image: np.ndarray, points: np.ndarray) -> Opinion:
        import cv2

        height, width = image.shape[:2]
        half = (max(1, width // 2), max(1, height // 2))
        to_square = _square(points)
        crop = cv2.warpAffine(
            image, _of_pixels(to_square), (_SIDE, _SIDE), borderMode=cv2.BORDER_REPLICATE
        )
        logits = self._run(((crop / np.float32(255) - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None])
        probability = np.exp(logits - logits.max(0))
        probability /= probability.sum(0)
        scores, ears = _scores(probability, _BISENET)
        rows, columns = ears.shape
        to_picture = np.diag([width / half[0], height / half[1], 1.0])
        to_cells = np.diag([columns / _SIDE, rows / _SIDE, 1.0]) @ to_square @ to_picture

        def back(layer: np.ndarray) -> np.ndarray:
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(layer, _of_pixels(to_cells), half, flags=flags)

        known = back(np.ones_like(ears)) > 0.99
        return Opinion(np.stack([back(score) for score in scores]), known, back(ears) > 0.5)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """(19, h, w) logits."""
        try:
            logits = np.asarray(self._session.run([self._output], {self._input: batch})[0])
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise UserError(f"{self._path} cannot be run ({error}); give another file.") from error
        if logits.ndim != 4 or logits.shape[:2] != (1, _BISENET_COUNT):
            shape = "x".join(map(str, logits.shape))
            raise UserError(
                f"{self._path} gives {shape} instead of 1x{_BISENET_COUNT}xHxW; give another file."
            )
        return logits[0].astype(np.float32)


def _scores(
    probability: np.ndarray, rows: tuple[tuple[int, ...], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (3, h, w) of skin, hair, clothes, and the probability (h, w) of ears."""
    sums = [probability[list(row)].sum(0) for row in rows]
    return np.log(np.stack(sums[:3]) + _FLOOR).astype(np.float32), sums[3].astype(np.float32)


def _square(points: np.ndarray) -> np.ndarray:
    """(3, 3) map from places in the picture to those in the upright square around the head."""
    middle, _, height = face_axis(points)
    # The face lies a little below the middle, because there is more hair above than neck below.
    left, top = middle - _AROUND * height * np.array([0.5, 0.53])
    scale = _SIDE / (_AROUND * height)
    return np.array([[scale, 0, -scale * left], [0, scale, -scale * top], [0, 0, 1.0]])


def _of_pixels(places: np.ndarray) -> np.ndarray:
    """(2, 3) map between pixel numbers, of a map (3, 3) between places: centres lie at a half."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    return (np.linalg.inv(shift) @ places @ shift)[:2]


def _fits(shape: Any, wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape, whose free dimensions are names or None, can be the wanted one."""
    if len(shape) != len(wanted):
        return False
    pairs = zip(shape, wanted, strict=True)
    return all(not isinstance(has, int) or want is None or has == want for has, want in pairs)


def _shapes(tensors: Any) -> str:
    return ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors) or "nothing"


def _onnx_session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "capture.parsing=bisenet needs onnxruntime; run `pip install onnxruntime`."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # frames are worked on in parallel
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise UserError(f"{path} is not a readable ONNX network; give another file.") from error


def _multiclass(path: Path) -> Multiclass:
    os.environ.setdefault("GLOG_minloglevel", "3")
    try:
        import mediapipe as mp
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision
    except ImportError as error:
        raise UserError(
            "capture.parsing=multiclass needs mediapipe; `pip install 'avatar3d[capture]'`."
        ) from error
    options = vision.ImageSegmenterOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(path)),
        running_mode=vision.RunningMode.IMAGE,
        output_confidence_masks=True,
        output_category_mask=False,
    )
    try:
        segmenter = vision.ImageSegmenter.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} is not a segmentation network of MediaPipe; give selfie_multiclass_256x256."
        ) from error

    def segment(image: np.ndarray) -> np.ndarray:
        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        masks = segmenter.segment(picture).confidence_masks or ()
        return np.array([np.squeeze(mask.numpy_view()) for mask in masks], np.float32)

    return Multiclass(segment, path)
