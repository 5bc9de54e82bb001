"""Another system's pictures, brought to the frames of a subject; what was done to them is said."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.images import read_image
from avatar3d.io.video import Wanted, probe, read_frames, scan_frames
from avatar3d.subject import Subject

__all__ = ["ForeignFrames"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_SPARE = 8  # pictures that may be missing at the end, as programs with a window drop them
_ASPECT = 0.01
_LOOKED_AT = 4
_SWAPPED = 0.5  # of the error, with red and blue exchanged: they are
_DARK = 8  # 8-bit steps; no picture of a face is as dark throughout


@dataclass
class ForeignFrames:
    """Pictures (H, W, 3) uint8 of the subject's size, one for each of `frames`; an iterable.

    Attributes:
        source: video or folder; subject: the recording.
        frames: of the subject that there are pictures of.
        skip: pictures before the first of them.
        statements: how they were matched, in sentences for the report.
    """

    source: Path
    subject: Subject
    frames: range
    skip: int
    statements: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls, source: Path, subject: Subject, frames: range, first_frame: int = -1
    ) -> "ForeignFrames":
        """Match pictures with the subject's frames.

        Args:
            source: a video, or a folder of pictures in the order of their names.
            subject: the recording; frames: those to compare.
            first_frame: of the subject, that the first picture shows; -1 decides by their number:
                as many as `frames`, up to eight fewer, or as many as the whole clip.

        Raises:
            UserError: the numbers, sizes or colours do not fit.
        """
        found = cls(source, subject, frames, 0)
        if source.is_dir():
            count = len(_files(source))
        else:
            rate = probe(source).fps
            count = sum(
                frame.count for frame in scan_frames(source, subject.fps, wanted=Wanted(every=0))
            )
            if abs(rate - subject.fps) > 0.01:
                found.statements.append(
                    f"{source.name}: {rate:g} pictures a second, taken at {subject.fps:g}."
                )
        found._align(count, first_frame)
        found._check()
        return found

    def __iter__(self) -> Iterator[np.ndarray]:
        pictures = _pictures(self.source, self.subject.fps)
        for number, image in enumerate(pictures):
            if number >= self.skip + len(self.frames):
                return
            if number >= self.skip:
                yield self._fitted(image)

    def _align(self, count: int, first_frame: int) -> None:
        total, wanted = len(self.subject), len(self.frames)
        name, clip = self.source.name, self.subject.info.source_name
        if first_frame >= 0:
            start, stop = first_frame, min(first_frame + count, total)
            chosen = range(max(start, self.frames.start), min(stop, self.frames.stop))
            if not len(chosen):
                raise UserError(
                    f"{self.source} shows frames {start} to {stop - 1} of {clip}, of which none is "
                    f"among the test frames {self.frames.start} to {self.frames.stop - 1}; correct "
                    "first_frame."
                )
            self.skip = chosen.start - start
            self.frames = chosen
            how = f"its first picture is taken for frame {first_frame}, as told"
        elif wanted - _SPARE <= count <= wanted:
            self.frames = range(self.frames.start, self.frames.start + count)
            how = f"its first picture is taken for the first test frame, {self.frames.start}"
        elif total - _SPARE <= count <= total + _SPARE:
            self.frames = range(self.frames.start, min(self.frames.stop, count))
            self.skip = self.frames.start
            how = "it is taken for the whole clip, of which the test frames are compared"
        else:
            raise UserError(
                f"{self.source} has {count} pictures, but there are {wanted} test frames and "
                f"{total} in the whole of {clip}; say with first_frame=N which frame its first "
                "picture shows."
            )
        missing = wanted - len(self.frames)
        end = f"; the last {missing} test frames have no picture and are left out" * (missing > 0)
        self.statements.append(f"{name}: {count} pictures; {how}{end}.")

    def _check(self) -> None:
        """Sizes and colours of the first pictures."""
        info = self.subject.info
        looked = [image for image, _ in zip(self, range(_LOOKED_AT), strict=False)]
        if not looked:
            raise UserError(f"{self.source} has no pictures to compare; give a video or a folder.")
        if max(int(image.max()) for image in looked) <= _DARK:
            raise UserError(
                f"The pictures of {self.source} are black; write colours as 0 to 255, not 0 to 1."
            )
        truths = [self.subject.frame(index) for index in self.frames[:_LOOKED_AT]]
        plain, swapped = (
            np.mean([np.square(np.subtract(image[..., ::step], truth, dtype=np.float32)).mean()
                     for image, truth in zip(looked, truths, strict=True)])
            for step in (1, -1)
        )  # fmt: skip
        if swapped < _SWAPPED * plain:
            raise UserError(
                f"Red and blue are exchanged in {self.source}; write its pictures as RGB, which "
                "OpenCV's imwrite takes as BGR."
            )
        first = next(_pictures(self.source, self.subject.fps))
        if first.shape[:2] != (info.height, info.width):
            self.statements.append(
                f"Its pictures were resized from {first.shape[1]}x{first.shape[0]} to "
                f"{info.width}x{info.height} pixels (Lanczos), which costs it sharpness."
            )
        if first.dtype == np.uint16:
            self.statements.append("Its 16-bit colours were rounded to 8 bits.")
        if first.ndim == 3 and first.shape[2] == 4:
            self.statements.append("Its alpha was left out of account.")

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        from PIL import Image

        width, height = self.subject.info.width, self.subject.info.height
        if image.dtype == np.uint16:
            image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise UserError(
                f"{self.source} holds pictures that are not RGB of 8 or 16 bits; convert them."
            )
        image = image[..., :3]
        if image.shape[:2] == (height, width):
            return image
        if abs(image.shape[1] / image.shape[0] / (width / height) - 1) > _ASPECT:
            raise UserError(
                f"The pictures of {self.source} are {image.shape[1]}x{image.shape[0]}, which is "
                f"another shape than the subject's {width}x{height}; crop them as capture did."
            )
        small = Image.fromarray(np.ascontiguousarray(image))
        return np.array(small.resize((width, height), Image.Resampling.LANCZOS))


def _pictures(source: Path, fps: float) -> Iterator[np.ndarray]:
    if source.is_dir():
        yield from map(read_image, _files(source))
    else:
        yield from read_frames(source, fps)


def _files(folder: Path) -> list[Path]:
    """By number where names end in one (7.png before 10.png), else by name."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES]

    def order(path: Path) -> tuple[int, str]:
        digits = path.stem[len(path.stem.rstrip("0123456789")) :]
        return (int(digits) if digits else -1, path.name)

    return sorted(found, key=order)
