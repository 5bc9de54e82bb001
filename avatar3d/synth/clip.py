"""A synthetic talking head with exact ground truth."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from avatar3d.geometry import Camera
from avatar3d.head import HeadModel, ShapedHead, load_head
from avatar3d.synth.appearance import Appearance, Palette, hair_offset
from avatar3d.synth.performance import Performance, perform
from avatar3d.synth.renderer import Picture, draw
from avatar3d.synth.sound import speak

__all__ = ["SyntheticClip", "make_synthetic"]

_FOCAL = 2.2  # of the image width
_REST = np.array([[1, 0, 0, 0], [0, -1, 0, -0.01], [0, 0, -1, 0.85], [0, 0, 0, 1.0]])
_IDENTITY_SIGMA = 0.6
_CACHE_BYTES = 256 << 20


@dataclass
class SyntheticClip:
    """T frames of a made-up person, and everything that capture would have to find out.

    Attributes:
        head: the head model; identity: (I,) coefficients.
        fps: frames per second; camera: the view.
        T_camera_rest: (4, 4) rest pose; performance: what the person does.
        palette: colours; background: (H, W, 3) uint8, the empty plate.
        samples, rate: the sound.
    """

    head: HeadModel
    identity: np.ndarray
    fps: float
    camera: Camera
    T_camera_rest: np.ndarray
    performance: Performance
    palette: Palette
    background: np.ndarray
    samples: np.ndarray
    rate: int
    _drawn: dict[int, Picture] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.performance.expression)

    @property
    def expression(self) -> np.ndarray:
        """(T, 52) ARKit weights."""
        return self.performance.expression

    @property
    def gaze(self) -> np.ndarray:
        """(T, 2, 2) radians."""
        return self.performance.gaze

    @property
    def T_camera_head(self) -> np.ndarray:
        """(T, 4, 4)."""
        return self.T_camera_rest @ self.performance.head

    @property
    def T_camera_torso(self) -> np.ndarray:
        """(T, 4, 4)."""
        return self.T_camera_rest @ self.performance.torso

    @cached_property
    def landmarks(self) -> np.ndarray:
        """(T, 478, 2) pixels, exact."""
        model = self.head
        points = [
            self.camera.project(model.landmarks_of(self.vertices(i))) for i in range(len(self))
        ]
        return np.stack(points).astype(np.float32)

    @cached_property
    def shaped(self) -> ShapedHead:
        return self.head.shaped(self.identity)

    def vertices(self, index: int, hair: bool = False) -> np.ndarray:
        """(V, 3) of the head model in the camera frame; with `hair`, the hair's outside instead."""
        posed = self.shaped.posed(self.expression[index], self.gaze[index])
        if hair:
            posed = posed + self._hair
        by_head, by_torso = (
            posed @ pose[:3, :3].T + pose[:3, 3]
            for pose in (self.T_camera_head[index], self.T_camera_torso[index])
        )
        weight = self.head.torso_weight[:, None]
        return (1 - weight) * by_head + weight * by_torso

    def picture(self, index: int) -> Picture:
        """Frame `index` with its alpha and labels."""
        if index in self._drawn:
            return self._drawn[index]
        plate = self.background.astype(np.float32) / 255
        picture = draw(self.vertices(index, hair=True), self._appearance, self.camera, plate)
        if len(self) * self.camera.width * self.camera.height * 17 <= _CACHE_BYTES:
            self._drawn[index] = picture
        return picture

    def frames(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB, one after the other."""
        return (to_bytes(self.picture(index).image) for index in range(len(self)))

    @cached_property
    def _appearance(self) -> Appearance:
        return Appearance(self.head, self.palette)

    @cached_property
    def _hair(self) -> np.ndarray:
        return hair_offset(self.head)


def make_synthetic(
    seed: int = 0,
    seconds: float = 4.0,
    fps: float = 25.0,
    size: int | tuple[int, int] = 256,
    head: HeadModel | None = None,
) -> SyntheticClip:
    """A person who does not exist, talking.

    Args:
        seed: another person and another speech for every number.
        seconds: length of the clip.
        fps: frame rate.
        size: pixels of a side, or (width, height).
        head: the head model; the default one unless given.
    """
    rng = np.random.default_rng(seed)
    head = head or load_head()
    width, height = (size, size) if isinstance(size, int) else size
    frames = max(2, round(seconds * fps))
    identity = rng.normal(0, _IDENTITY_SIGMA, len(head.identity)).astype(np.float32)
    palette = Palette.random(rng)
    background = _plate(rng, width, height)
    performance = perform(rng, frames, fps)
    samples, rate = speak(rng, performance.loudness, performance.vowel, fps)
    camera = Camera.from_focal(_FOCAL * width, width, height)
    return SyntheticClip(
        head, identity, fps, camera, _REST.copy(), performance, palette, background, samples, rate
    )


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] floats to uint8."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _plate(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A wall with a gradient of light, a picture and a shelf, so that pixels can be told apart."""
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    wall = rng.uniform(0.35, 0.75, 3)
    plate = wall * (0.75 + 0.35 * (0.6 * x + 0.4 * (1 - y)))[..., None]
    for _ in range(5):
        left, top = rng.uniform(0, 0.85), rng.uniform(0, 0.7)
        inside = (np.abs(x - left - 0.08) < rng.uniform(0.04, 0.1)) & (
            np.abs(y - top - 0.08) < rng.uniform(0.04, 0.12)
        )
        plate[inside] = 0.5 * plate[inside] + 0.5 * rng.uniform(0.1, 0.9, 3)
    grain = rng.normal(0, 0.01, (height, width, 1))
    return to_bytes(plate + grain)
