#!/usr/bin/env python3
"""How the invisible mark survives, and whether the detector sees it where it is not.

    python tools/watermark_report.py AVATAR... [--clean SUBJECT... --frames 1000]

Each avatar's captured motion is rendered with the mark and re-encoded with H.264; the detector
then looks at single frames. Frames of the subjects, which were filmed, must give no detection.
"""

import argparse
import io
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

_CASES = (
    ("crf 18", 18, 1.0, 0), ("crf 28", 28, 1.0, 0), ("crf 28, x 0.75", 28, 0.75, 0),
    ("crf 28, x 0.5", 28, 0.5, 0), ("crf 28, cropped by 20 %", 28, 1.0, 10),
)  # fmt: skip
_LENGTH, _EVERY = 100, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("avatars", type=Path, nargs="+")
    parser.add_argument("--clean", type=Path, nargs="*", default=[], help="subject folders")
    parser.add_argument("--frames", type=int, default=1000, help="of all subjects together")
    options = parser.parse_args()
    worst = 1.0
    for path in options.avatars:
        for name, found, count in survival(path):
            worst = min(worst, found / count)
            print(f"{path.name:<24} {name:<24} found in {found} of {count}", flush=True)
    wrong = false_alarms(options.clean, options.frames) if options.clean else 0
    return 1 if wrong or worst < 0.95 else 0


def survival(path: Path) -> list[tuple[str, int, int]]:
    """(case, frames with a detection, frames looked at)."""
    from avatar3d.avatar import load
    from avatar3d.provenance.watermark import detect, watermarked

    avatar = load(path)
    motion = avatar.idle_motion.slice(0, _LENGTH)
    frames = [watermarked(frame) for frame in avatar.render_motion(motion)]
    rows = []
    for name, crf, scale, percent in _CASES:
        seen = [cropped(frame, percent) for frame in encoded(frames, crf, scale)[::_EVERY]]
        rows.append((name, sum(detect(frame)[0] for frame in seen), len(seen)))
    return rows


def false_alarms(subjects: list[Path], count: int) -> int:
    from avatar3d.provenance.watermark import THRESHOLD, detect
    from avatar3d.subject import Subject

    each = -(-count // len(subjects))
    scores: list[float] = []
    for folder in subjects:
        subject = Subject(folder)
        places = np.unique(np.linspace(0, len(subject) - 1, each).round().astype(int))
        scores += [detect(subject.frame(int(place)))[1] for place in places]
        print(f"{folder.name}: {len(scores)} clean, highest peak {max(scores):.2f}", flush=True)
    wrong = sum(score > THRESHOLD for score in scores)
    print(f"{wrong} false alarms in {len(scores)} clean frames (threshold {THRESHOLD})")
    return wrong


def cropped(frame: np.ndarray, percent: int) -> np.ndarray:
    rows, columns = (side * percent // 100 for side in frame.shape[:2])
    return frame[rows : frame.shape[0] - rows, columns : frame.shape[1] - columns]


def encoded(frames: list[np.ndarray], crf: int, scale: float) -> list[np.ndarray]:
    """Scaled, through H.264 and back."""
    import av
    from PIL import Image

    buffer = io.BytesIO()
    height, width = (round(side * scale / 2) * 2 for side in frames[0].shape[:2])
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in enumerate(frames):
            small = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
            picture = av.VideoFrame.from_ndarray(np.asarray(small), "rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


if __name__ == "__main__":
    sys.exit(main())
