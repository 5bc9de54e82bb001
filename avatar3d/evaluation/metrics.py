"""Image and mouth metrics in numpy; images are (H, W, 3) floats in [0, 1], landmarks pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avatar3d.evaluation.window import SSIM_RADIUS, windowed
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.landmarks import (
    BROWS,
    EYE_LEFT,
    EYE_RIGHT,
    LIPS,
    inter_ocular,
    lip_gap,
)

__all__ = [
    "SSIM_RADIUS",
    "Box",
    "averaged",
    "correlation",
    "eyes_box",
    "face_box",
    "inner_mean",
    "jitter_ratio",
    "landmark_distance",
    "level_and_opening",
    "lip_gap_correlation",
    "mouth_box",
    "mouth_opening",
    "psnr",
    "psnr_of",
    "region_error",
    "sharpness_ratio",
    "sound_agreement",
    "ssim",
    "ssim_map",
    "ssim_parts",
]

_SIDES = ("Left", "Right")
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class Box:
    """Half-open pixel rectangle: columns left..right-1, rows top..bottom-1."""

    left: int
    top: int
    right: int
    bottom: int

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The part of (H, W, ...) inside the box."""
        return image[self.top : self.bottom, self.left : self.right]

    @classmethod
    def around(cls, low: np.ndarray, high: np.ndarray, width: int, height: int) -> "Box":
        """Smallest box of whole pixels that holds (x, y) low..high, cut to the image."""
        left, top = np.clip(np.floor(low), 0, [width - 1, height - 1]).astype(int)
        right, bottom = np.clip(np.ceil(high), 1, [width, height]).astype(int)
        return cls(
            int(left), int(top), max(int(right), int(left) + 1), max(int(bottom), int(top) + 1)
        )


def face_box(landmarks: np.ndarray, width: int, height: int) -> Box:
    """Bounding box of the 468 face landmarks of (478, 2), grown by 5 % of its size a side."""
    low, high = landmarks[:468].min(0), landmarks[:468].max(0)
    margin = (high - low) * 0.05
    return Box.around(low - margin, high + margin, width, height)


def mouth_box(landmarks: np.ndarray, width: int, height: int) -> Box:
    """Square around the lips, 1.3 times as wide as they are, at least 40 pixels."""
    points = landmarks[list(LIPS)]
    low, high = points.min(0), points.max(0)
    half = max(20.0, 0.65 * float(high[0] - low[0]))
    centre = (low + high) / 2
    return Box.around(centre - half, centre + half, width, height)


def eyes_box(landmarks: np.ndarray, width: int, height: int) -> Box:
    """Box around both eyes and the brows."""
    points = landmarks[[*EYE_LEFT, *EYE_RIGHT, *BROWS]]
    low, high = points.min(0), points.max(0)
    margin = 0.12 * float(high[0] - low[0])
    return Box.around(low - margin, high + margin, width, height)


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / MSE); infinite for equal images."""
    return psnr_of(float(((np.asarray(image, np.float64) - target) ** 2).mean()))


def psnr_of(error: float) -> float:
    """`psnr` of a mean squared error."""
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim_map(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(H, W) structural similarity averaged over channels (Wang et al. 2004).

    11x11 Gaussian window of sigma 1.5, population covariance, edges mirrored.
    """
    luminance, structure = ssim_parts(image, target)
    return (luminance * structure).mean(-1)


def ssim_parts(image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two factors of SSIM, each (H, W, C): luminance; contrast and structure."""
    luminance, structure = np.empty(image.shape), np.empty(image.shape)
    for channel in range(image.shape[2]):
        x, y = (picture[..., channel].astype(np.float64) for picture in (image, target))
        mean_x, mean_y = windowed(x), windowed(y)
        both, power = mean_x * mean_y, mean_x**2 + mean_y**2
        luminance[..., channel] = (2 * both + _C1) / (power + _C1)
        covariance, variances = windowed(x * y) - both, windowed(x * x + y * y) - power
        structure[..., channel] = (2 * covariance + _C2) / (variances + _C2)
    return luminance, structure


def ssim(image: np.ndarray, target: np.ndarray) -> float:
    """Mean of `ssim_map` over the pixels whose window lies inside the image."""
    return inner_mean(ssim_map(image, target))


def inner_mean(similarity: np.ndarray) -> float:
    """Mean of a `ssim_map` over the pixels whose window lies inside the image."""
    inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
    return float(similarity[inner, inner].mean())


def sharpness_ratio(image: np.ndarray, target: np.ndarray) -> float:
    """Gradient energy of `image` over that of `target`: below 1 is blurred, above 1 is noisy."""

    def energy(picture: np.ndarray) -> float:
        grey = np.einsum("hwc->hw", picture, dtype=np.float64) / picture.shape[-1]
        return float((np.diff(grey, axis=0) ** 2).mean() + (np.diff(grey, axis=1) ** 2).mean())

    return energy(image) / max(energy(target), 1e-12)


def region_error(image: np.ndarray, target: np.ndarray, region: np.ndarray) -> float:
    """Mean absolute error inside a region (H, W) bool, in 8-bit steps; NaN for an empty one."""
    if not region.any():
        return float("nan")
    return float(np.abs(np.asarray(image, np.float64) - target)[region].mean() * 255)


def landmark_distance(landmarks: np.ndarray, target: np.ndarray) -> float:
    """LMD: mean distance in pixels of the lip landmarks (T, 478, 2), each set centred on its mean.

    As in the audio-driven literature (there with the 20 mouth points of the 68-point scheme). It
    grows with the size of the face in the picture.
    """
    lips, target_lips = (points[:, list(LIPS), :2] for points in (landmarks, target))
    centred = lips - lips.mean(1, keepdims=True)
    target_centred = target_lips - target_lips.mean(1, keepdims=True)
    return float(np.linalg.norm(centred - target_centred, axis=-1).mean())


def lip_gap_correlation(landmarks: np.ndarray, target: np.ndarray) -> float:
    """Correlation over time of the lip gap, in eye distances, of two (T, 478, 2) sequences."""
    return correlation(
        lip_gap(landmarks) / inter_ocular(landmarks), lip_gap(target) / inter_ocular(target)
    )


def jitter_ratio(landmarks: np.ndarray, target: np.ndarray) -> float:
    """Energy of the second difference over time of (T, 478, 2) over the target's.

    1 is as steady as the target, landmark detector and all.
    """

    def shake(points: np.ndarray) -> float:
        return float((np.diff(np.asarray(points[..., :2], np.float64), 2, axis=0) ** 2).sum())

    return shake(landmarks) / max(shake(target), 1e-9)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two series (T,); 0 when either does not vary."""
    a, b = np.asarray(a, np.float64) - np.mean(a), np.asarray(b, np.float64) - np.mean(b)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0


def mouth_opening(expression: np.ndarray) -> np.ndarray:
    """(T,) how far ARKit weights (T, 52) part the lips: 1 is a jaw fully dropped."""

    def weight(name: str) -> np.ndarray:
        return expression[:, ARKIT_INDEX[name]]

    lips = sum(weight(f"mouth{name}{side}") for name in ("LowerDown", "UpperUp") for side in _SIDES)
    return np.maximum(weight("jawOpen") - weight("mouthClose"), 0) + 0.1 * lips


def sound_agreement(
    opening: np.ndarray, fps: float, samples: np.ndarray, rate: int
) -> dict[str, float]:
    """Whether a mouth moves with its sound and rests in silence.

    Args:
        opening: (T,) mouth opening of any unit, one value a frame.
        fps: frames per second.
        samples: (N,) mono sound in [-1, 1]; rate: samples per second.

    Returns:
        correlation: of the opening with the level of the sound in dB, both averaged over 0.2 s.
        speech, silence: mean opening while the level is within 20 dB of the loudest and while it
        is more than 35 dB below it; NaN where there is no such frame.
    """
    level, opening = level_and_opening(opening, fps, samples, rate)
    loud, quiet = level > level.max() - 20, level < level.max() - 35
    return {
        "correlation": correlation(*averaged([level, opening], fps)),
        "speech": float(opening[loud].mean()),
        "silence": float(opening[quiet].mean()) if quiet.any() else float("nan"),
    }


def level_and_opening(
    opening: np.ndarray, fps: float, samples: np.ndarray, rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Level of the sound in dB and mouth opening, both (T,), of the frames that have both.

    Arguments as `sound_agreement`.
    """
    window = max(1, round(rate / fps))
    count = min(len(opening), int(len(samples) * fps / rate))
    if count < 3:
        raise ValueError(f"{count} frames of sound and motion are too few to compare")
    starts = (np.arange(count) * rate / fps).astype(int)
    power = np.array(
        [np.mean(np.square(samples[s : s + window], dtype=np.float64)) for s in starts]
    )
    return 10 * np.log10(np.maximum(power, 1e-10)), np.asarray(opening[:count], np.float64)


def averaged(series: Sequence[np.ndarray], fps: float) -> list[np.ndarray]:
    """Series (T,) as means over 0.2 s, without the ends where there is less."""
    kernel = np.ones(max(1, round(0.2 * fps)))
    return [np.convolve(values, kernel / len(kernel), mode="valid") for values in series]
