"""A synthetic talking head with exact ground truth."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from avatar3d.audio import SAMPLE_RATE
from avatar3d.audio.tts import Phoneme
from avatar3d.geometry import Camera
from avatar3d.head import HeadModel, ShapedHead, load_head
from avatar3d.kernels import rasterize_mesh
from avatar3d.synth.appearance import Appearance, Palette, hair_offset
from avatar3d.synth.performance import Performance, perform
from avatar3d.synth.renderer import LIGHT, Picture, draw
from avatar3d.synth.sound import speak
from avatar3d.synth.spoken import say_sentences

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
        samples, rate: the sound; phonemes: with their times in seconds, where words are spoken.
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
    phonemes: tuple[Phoneme, ...] = ()
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

    def picture_from(self, index: int, yaw: float) -> Picture:
        """Frame `index` as seen by another camera, over the same plate.

        Args:
            yaw: radians by which the camera goes around the head's rest position, so that a
                positive one shows what a head turned by `yaw` to its left would.
        """
        move = self.orbit(yaw)
        points = self.vertices(index, hair=True) @ move[:3, :3].T + move[:3, 3]
        plate = self.background.astype(np.float32) / 255
        return draw(points, self._appearance, self.camera, plate, move[:3, :3] @ LIGHT)

    def orbit(self, yaw: float) -> np.ndarray:
        """(4, 4) from the frame of the clip's camera to that of the one of `picture_from`."""
        move, centre = np.eye(4), self.T_camera_rest[:3, 3]
        move[0, [0, 2]] = np.cos(yaw), -np.sin(yaw)
        move[2, [0, 2]] = np.sin(yaw), np.cos(yaw)
        move[:3, 3] = centre - move[:3, :3] @ centre
        return move

    def depth(self, index: int) -> np.ndarray:
        """(H, W) float32 metres along the camera's axis at the pixels' centres; 0 on the plate."""
        points = self.vertices(index, hair=True)
        screen = np.column_stack([self.camera.project(points), points[:, 2]]).astype(np.float32)
        size = self.camera.width, self.camera.height
        depth = rasterize_mesh(screen, self.head.faces, *size)[2]
        return np.where(np.isfinite(depth), depth, np.float32(0))

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
    language: str | None = None,
) -> SyntheticClip:
    """A person who does not exist, talking.

    Args:
        seed: another person and another speech for every number.
        seconds: length of the clip.
        fps: frame rate.
        size: pixels of a side, or (width, height).
        head: the head model; the default one unless given.
        language: of the sentences that eSpeak NG says, such as "en"; None babbles vowels, the same
            in every detail each time.

    Raises:
        UserError: no sentences in that language, or eSpeak NG is not installed.
    """
    rng = np.random.default_rng(seed)
    head = head or load_head()
    width, height = (size, size) if isinstance(size, int) else size
    frames = max(2, round(seconds * fps))
    identity = rng.normal(0, _IDENTITY_SIGMA, len(head.identity)).astype(np.float32)
    palette = Palette.random(rng)
    background = _plate(rng, width, height)
    spoken = say_sentences(rng, frames, fps, language) if language else None
    performance = perform(rng, frames, fps, spoken)
    if spoken is None:
        samples, rate = speak(rng, performance.loudness, performance.vowel, fps)
    else:
        samples, rate = spoken.samples, SAMPLE_RATE
    camera = Camera.from_focal(_FOCAL * width, width, height)
    return SyntheticClip(
        head, identity, fps, camera, _REST.copy(), performance, palette, background, samples, rate,
        spoken.phonemes if spoken else (),
    )  # fmt: skip


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
