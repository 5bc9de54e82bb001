"""Contact sheets: the recording, the render and five times their difference, side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar3d.avatar import Avatar
from avatar3d.evaluation.metrics import Box, eyes_box, mouth_box
from avatar3d.io.images import write_image
from avatar3d.provenance import declared_path

__all__ = [
    "Panel", "contact_sheet", "mouth_strip", "save_poses", "save_sheets", "side_by_side",
]  # fmt: skip

_GAIN = 5
_PACKING = 1  # a third of the time, a fifth larger
_HEADER = 18
_GAP = 4


@dataclass(frozen=True)
class Panel:
    """One compared frame: truth and render (H, W, 3) uint8, landmarks (478, 2) in pixels."""

    index: int
    truth: np.ndarray
    render: np.ndarray
    landmarks: np.ndarray


def save_sheets(panels: Sequence[Panel], folder: str | Path) -> dict[str, np.ndarray]:
    """Write `frames.png`, `mouth.png` and `eyes.png` to `folder`; return them by name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    views: dict[str, tuple[Callable[..., Box] | None, int]] = {
        "frames": (None, 384),
        "mouth": (mouth_box, 256),
        "eyes": (eyes_box, 384),
    }
    sheets = {}
    for name, (box, width) in views.items():
        sheets[name] = contact_sheet(panels, box, width)
        with declared_path(folder / f"{name}.png") as temporary:
            write_image(temporary, sheets[name], packing=_PACKING)
    return sheets


def save_poses(avatar: Avatar, folder: str | Path) -> Path:
    """Write `poses.png`: the avatar as it was never filmed, for eyes to judge; return its path.

    The head turned by -35, -20, 0, 20 and 35 degrees; below, the mouth open and wide open, the eyes
    half and fully closed, and a smile.
    """
    turned = [avatar.render(yaw=np.deg2rad(degrees)) for degrees in (-35, -20, 0, 20, 35)]
    lids, smile = ("eyeBlinkLeft", "eyeBlinkRight"), ("mouthSmileLeft", "mouthSmileRight")
    faces = [
        avatar.render(expression)
        for expression in (
            {"jawOpen": 0.4},
            {"jawOpen": 1.0},
            dict.fromkeys(lids, 0.5),
            dict.fromkeys(lids, 1.0),
            dict.fromkeys(smile, 1.0),
        )
    ]
    rows = [np.concatenate([_resized(image, 384) for image in row], 1) for row in (turned, faces)]
    path = Path(folder) / "poses.png"
    with declared_path(path) as temporary:
        write_image(temporary, np.concatenate(rows), packing=_PACKING)
    return path


def contact_sheet(
    panels: Sequence[Panel], box: Callable[..., Box] | None = None, width: int = 384
) -> np.ndarray:
    """One row a panel: recording | render | 5 x absolute difference, (H, W, 3) uint8.

    Args:
        box: (landmarks, width, height) -> Box to cut out; None shows whole frames.
        width: pixels of each column.
    """
    rows = [_row(panel, box, width) for panel in panels]
    widest = max(row.shape[1] for row in rows)
    header = _header(["recording", "render", f"difference x{_GAIN}"], width, widest)
    return np.concatenate([header, *rows])


def mouth_strip(panels: Sequence[Panel], width: int = 96) -> np.ndarray:
    """Mouths over time, (2 * W + gap, N * W, 3) uint8: the recording above, the render below."""
    rows = []
    for pick in ("truth", "render"):
        mouths = []
        for panel in panels:
            image = getattr(panel, pick)
            area = mouth_box(panel.landmarks, image.shape[1], image.shape[0])
            mouths.append(_resized(area.crop(image), width, width))
        rows.append(np.concatenate(mouths, 1))
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([rows[0], gap, rows[1]])


def side_by_side(truth: np.ndarray, render: np.ndarray, width: int = 384) -> np.ndarray:
    """A frame of a video, (H, 2 * W, 3) uint8: the recording, then the render."""
    return np.concatenate([_resized(image, width) for image in (truth, render)], 1)


def _row(panel: Panel, box: Callable[..., Box] | None, width: int) -> np.ndarray:
    truth, render = panel.truth, panel.render
    if box is not None:
        area = box(panel.landmarks, truth.shape[1], truth.shape[0])
        truth, render = area.crop(truth), area.crop(render)
    difference = np.abs(truth.astype(np.int16) - render) * _GAIN
    columns = [truth, render, difference.clip(0, 255).astype(np.uint8)]
    gap = None
    parts = []
    for column in columns:
        resized = _resized(column, width)
        gap = np.full((resized.shape[0], _GAP, 3), 255, np.uint8)
        parts += [resized, gap]
    row = np.concatenate(parts[:-1], 1)
    line = np.full((_GAP, row.shape[1], 3), 255, np.uint8)
    return np.concatenate([_labelled(row, f"frame {panel.index}"), line])


def _resized(image: np.ndarray, width: int, height: int = 0) -> np.ndarray:
    from PIL import Image

    height = height or max(1, round(image.shape[0] * width / image.shape[1]))
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _labelled(row: np.ndarray, text: str) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.fromarray(row)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 8 + 6 * len(text), 13), fill=(255, 255, 255))
    draw.text((3, 1), text, fill=(0, 0, 0))
    return np.array(image)


def _header(titles: Sequence[str], width: int, total: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (total, _HEADER), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for column, title in enumerate(titles):
        draw.text((column * (width + _GAP) + 3, 3), title, fill=(0, 0, 0))
    return np.array(image)
