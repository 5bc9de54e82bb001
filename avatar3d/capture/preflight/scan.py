"""One pass over the video: faces in some frames, cuts and stillness in all of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.parallel import Spares, parallel_map, silenced
from avatar3d.capture.preflight.cuts import CutFinder
from avatar3d.capture.preflight.faces import FaceLook, FaceLooker
from avatar3d.io.video import ShownFrame, VideoInfo, Wanted, scan_frames
from avatar3d.progress import track

__all__ = ["THUMB", "Sample", "Scan", "frame_rate", "scan"]

THUMB = 64
"""Side of the square thumbnails, whatever the shape of the picture."""
_LOOKS_PER_SECOND = 4
_HANDS_EVERY, _IDENTITY_EVERY = 2, 4
_MOST_LOOKS = 4800
_LARGEST = 1280
"""Longest side in pixels at which faces are looked for."""
_PICTURE_SIDE, _MOST_PICTURES = 320, 400


@dataclass(frozen=True)
class Sample:
    """A frame that was looked at.

    Attributes:
        index: number of the frame at the captured rate.
        size: width and height of the source.
        faces: largest first; lengths in pixels of the source.
        dense: one of a stretch looked at frame by frame, for its main face only.
        thumb: (64, 64, 3) uint8; empty for dense ones.
        picture: JPEG of at most 320 pixels, or empty.
    """

    index: int
    size: tuple[int, int]
    faces: list[FaceLook]
    dense: bool
    thumb: np.ndarray
    picture: bytes = b""


@dataclass
class Scan:
    """What one pass found.

    Attributes:
        fps, frames: constant rate of the captured frames, and their number.
        width, height: of the source picture as shown.
        samples: by index. cuts: numbers of the frames that begin a new shot.
        frozen: numbers of the frames identical to the one before.
        gaps: 5th, 50th, 95th and 100th percentile of the time between frames, seconds.
        knows_people, knows_hands: whether the models for these were at hand.
    """

    fps: float
    frames: int = 0
    width: int = 0
    height: int = 0
    samples: list[Sample] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    frozen: list[int] = field(default_factory=list)
    gaps: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    knows_people: bool = True
    knows_hands: bool = True


@dataclass(frozen=True)
class _Job:
    """Frames for one thread: the first one is searched, the others follow its main face."""

    indices: list[int]
    images: list[np.ndarray]
    size: tuple[int, int]
    scale: float
    look: int
    thumb: np.ndarray
    pictured: bool


def frame_rate(info: VideoInfo, config: CaptureConfig) -> float:
    """The constant rate of the captured frames: a whole fraction of the file's mean rate."""
    return float(info.fps / np.ceil(info.fps / config.max_fps - 1e-3))


def scan(
    path: Path, info: VideoInfo, config: CaptureConfig, dense: list[tuple[int, int]], workers: int
) -> Scan:
    """Decode the clip once.

    Args:
        path: the video; info: what `probe` said.
        config: detector, start, duration and rate.
        dense: ranges of frames (first, past the last) to look at one by one.
        workers: threads.

    Raises:
        UserError: the file cannot be read to its end.
    """
    fps = frame_rate(info, config)
    result = Scan(fps)
    with silenced():
        lookers = Spares(lambda: FaceLooker(config), workers)
        with lookers.borrow() as looker:
            result.knows_people, result.knows_hands = looker.knows_people, looker.knows_hands

    def work(job: _Job) -> list[Sample]:
        with lookers.borrow() as looker:
            return _samples(job, looker)

    expected = config.duration or max(info.duration - config.start, 0)
    every = max(1, round(fps / _LOOKS_PER_SECOND), round(expected * fps / _MOST_LOOKS))
    wanted = Wanted(every, tuple(dense), _LARGEST, THUMB)
    jobs = _jobs(scan_frames(path, fps, config.start, config.duration, wanted), result, every)
    total = max(1, round(expected * fps / every))
    try:
        for samples in track(parallel_map(work, jobs, workers), "Looking at the clip", total):
            result.samples += samples
    finally:
        lookers.close()
    return result


def _jobs(shown: Iterator[ShownFrame], result: Scan, every: int) -> Iterator[_Job]:
    """Jobs in order; fills in everything of `result` that needs no look at faces."""
    finder = CutFinder()
    times: list[float] = []
    job: _Job | None = None
    looks = 0
    for frame in shown:
        thumb = frame.thumb
        end = frame.index + frame.count
        result.frozen += range(end - finder.add(thumb, frame.index, frame.count), end)
        result.frames = end
        times.append(frame.time)
        due = job is None or frame.index + frame.count > looks * every
        if not frame.image.size:
            continue
        image, scale = frame.image, max(1.0, max(frame.size) / _LARGEST)
        if not due and job is not None:
            job.indices.append(frame.index)
            job.images.append(image)
            continue
        if job is None:
            result.width, result.height = frame.size
        else:
            yield job
        pictured = looks < _MOST_PICTURES or looks % (looks // _MOST_PICTURES + 1) == 0
        job = _Job([frame.index], [image], frame.size, scale, looks, thumb, pictured)
        looks = (frame.index + frame.count - 1) // every + 1
    if job is not None:
        yield job
    result.cuts = finder.finish()
    gaps = np.diff(times)
    if len(gaps):
        result.gaps = tuple(float(g) for g in np.percentile(gaps, (5, 50, 95, 100)))  # type: ignore[assignment]


def _samples(job: _Job, looker: FaceLooker) -> list[Sample]:
    hands, identity = job.look % _HANDS_EVERY == 0, job.look % _IDENTITY_EVERY == 0
    faces = looker.look(job.images[0], hands, identity)
    picture = _jpeg(job.images[0]) if job.pictured else b""
    found = [face.scaled(job.scale) for face in faces]
    samples = [Sample(job.indices[0], job.size, found, False, job.thumb, picture)]
    nothing = np.empty((0, 0, 3), np.uint8)
    box = faces[0].box if faces else None
    for index, image in zip(job.indices[1:], job.images[1:], strict=True):
        face = looker.follow(image, box) if box is not None else None
        box = face.box if face is not None else box
        rest = [face.scaled(job.scale)] if face is not None else []
        samples.append(Sample(index, job.size, rest, True, nothing))
    return samples


def _jpeg(image: np.ndarray) -> bytes:
    import cv2

    scale = min(1.0, _PICTURE_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])
