"""Folders that other programs have prepared, understood: which frames, masks, sound and camera.

Known layouts, from the public code of RAD-NeRF (ER-NeRF, TalkingGaussian and others share it),
INSTA, FlashAvatar and VHAP (GaussianAvatars), and that of NeRSemble's benchmark. Only pictures,
videos, sound, JSON and plain arrays of sound features are read. Their face parameters belong to
models that need a registration, the action units of au.csv say less than our own landmarks, and
pickled files are never opened.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.capture import nersemble
from avatar3d.errors import UserError
from avatar3d.io.images import read_image
from avatar3d.io.video import probe, read_frames

__all__ = ["Recording", "read_recording"]

_VIDEO = ".mp4"
_PICTURES = (".png", ".jpg", ".jpeg")
_INSTA_TEST, _FLASH_TEST = 350, 500  # frames at the end, as in their published protocols
_MAX_JSON = 512 << 20


@dataclass(frozen=True)
class Recording:
    """T frames in order of time.

    Attributes:
        kind: the program whose layout it is.
        folder: where it lies.
        frames: T pictures; an alpha channel is put on white. A video stands for as many
            successive frames as it is named for, which is all that it has.
        masks: T pictures of the person, or empty; likewise.
        alpha: what of a mask picture is the person: (H, W[, C]) uint8 to (H, W) in [0, 1].
        numbers: T frame numbers of the source; the sound of number n begins at n / fps.
        fps: frames per second.
        audio: sound file, or None.
        focal: pixels of the frames, or None where it is not told.
        split: "train" and "test", indices into `frames`; empty where nothing is told.
        features: sound features by name, .npy files with one entry per frame number.
    """

    kind: str
    folder: Path
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    alpha: Callable[[np.ndarray], np.ndarray]
    numbers: tuple[int, ...]
    fps: float
    audio: Path | None
    focal: float | None
    split: dict[str, tuple[int, ...]]
    features: dict[str, Path] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """sha256 over every file that is read."""
        digest = hashlib.sha256(f"{self.kind} {self.fps} {self.focal} {self.split}".encode())
        sounds = [*([self.audio] if self.audio else []), *self.features.values()]
        for path in dict.fromkeys((*self.frames, *self.masks, *sounds)):
            digest.update(path.name.encode())
            with open(path, "rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    @property
    def in_videos(self) -> bool:
        """Whether pictures can only be had one after the other."""
        return self.frames[0].suffix == _VIDEO

    def pictures(self, masks: bool = False) -> Iterator[np.ndarray]:
        """All frames, or masks, in their order."""
        for path, same in groupby(self.masks if masks else self.frames):
            if path.suffix == _VIDEO:
                yield from islice(read_frames(path, probe(path).fps), len(list(same)))
            else:
                yield from (read_image(path) for _ in same)


def read_recording(folder: str | Path, fps: float = 25.0) -> Recording:
    """Find out which program prepared the folder, and what is in it.

    Args:
        folder: of RAD-NeRF (`ori_imgs`), INSTA (`transforms.json`, `images` or `matted`),
            FlashAvatar (`imgs`, `alpha`), VHAP / GaussianAvatars (`transforms_*.json` with
            `timestep_index`), or a person of NeRSemble's benchmark (`calibration`, `sequences`).
        fps: frames per second; none of the layouts tells, but NeRSemble's is 24.3.

    Raises:
        UserError: no such folder, none of these layouts, or files are missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; check the name.")
    if (folder / "calibration").is_dir() and (folder / "sequences").is_dir():
        return _nersemble(folder)
    if (folder / "ori_imgs").is_dir():
        return _rad_nerf(folder, fps)
    if (folder / "imgs").is_dir() and (folder / "alpha").is_dir():
        return _flash_avatar(folder, fps)
    found = _transforms(folder)
    if any("timestep_index" in frame for _, frame in found):
        return _vhap(folder, fps, found)
    if (folder / "images").is_dir() or (folder / "matted").is_dir():
        return _insta(folder, fps, found)
    raise UserError(
        f"{folder} is not a folder prepared for RAD-NeRF, ER-NeRF, TalkingGaussian, INSTA, "
        "FlashAvatar, VHAP, GaussianAvatars or NeRSemble's benchmark; for a video run "
        "`avatar3d capture VIDEO`."
    )


def _nersemble(folder: Path) -> Recording:
    """The training camera's sequences, one after the other in the order of their names."""
    person = nersemble.read_participant(folder)
    frames: list[Path] = []
    masks: list[Path] = []
    for name in person.recorded:
        video, mask = person.video(name), person.video(name, "alpha_maps")
        count = probe(video).frames
        if mask.is_file() and probe(mask).frames != count:
            raise UserError(f"{mask} has other frames than {video}; download both again.")
        frames += [video] * count
        masks += [mask] * count
    K = person.K[nersemble.TRAIN_CAMERA]
    return _checked(
        "NeRSemble", folder, frames, masks, _grey, list(range(len(frames))), nersemble.FPS,
        float(K[0, 0]), {},
    )  # fmt: skip


def _rad_nerf(folder: Path, fps: float) -> Recording:
    """ori_imgs/N.jpg, parsing/N.png, transforms_{train,val}.json, aud.wav, aud*.npy."""
    pictures = {
        int(p.stem): p for p in _pictures(folder / "ori_imgs") if re.fullmatch(r"\d+", p.stem)
    }
    parts = {name: _json(folder / f"transforms_{name}.json") for name in ("train", "val")}
    wanted = {
        name: [int(frame["img_id"]) for frame in part.get("frames", []) if "img_id" in frame]
        for name, part in parts.items()
    }
    numbers = sorted(({*wanted["train"], *wanted["val"]} or set(pictures)) & set(pictures))
    frames = tuple(pictures[n] for n in numbers)
    masks = [folder / "parsing" / f"{n}.png" for n in numbers]
    focal = next((part["focal_len"] for part in parts.values() if "focal_len" in part), None)
    place = {n: i for i, n in enumerate(numbers)}
    split = {
        new: tuple(sorted(place[n] for n in wanted[old] if n in place))
        for old, new in (("train", "train"), ("val", "test"))
    }
    found = _checked(
        "RAD-NeRF", folder, frames, masks, _not_white, numbers, fps, _focal(focal), split
    )
    return replace(found, features={p.stem: p for p in sorted(folder.glob("aud*.npy"))})


def _flash_avatar(folder: Path, fps: float) -> Recording:
    """imgs/00001.jpg, alpha/00001.jpg; the last 500 frames test."""
    frames = _numbered(_pictures(folder / "imgs"))
    by_stem = {p.stem: p for p in _pictures(folder / "alpha")}
    masks = [by_stem.get(p.stem, folder / "alpha" / p.name) for p in frames]
    numbers = [_number(p) - _number(frames[0]) for p in frames]
    return _checked(
        "FlashAvatar", folder, frames, masks, _grey, numbers, fps, None,
        _last(len(frames), _FLASH_TEST),
    )  # fmt: skip


def _insta(folder: Path, fps: float, found: list[tuple[str, dict[str, Any]]]) -> Recording:
    """background/ID (the untouched frames), matted/ID.png or images/ID.png with alpha."""
    cut = next((p for name in ("matted", "images") if (p := _pictures(folder / name))), [])
    whole = {p.stem: p for p in _pictures(folder / "background")}
    cut = _numbered(cut)
    complete = bool(cut) and all(p.stem in whole for p in cut)
    frames = tuple(whole[p.stem] for p in cut) if complete else tuple(cut)
    numbers = [_number(p) - _number(cut[0]) for p in cut]
    place = {p.stem: i for i, p in enumerate(cut)}
    split: dict[str, tuple[int, ...]] = {}
    for old in ("train", "test"):
        stems = [Path(f.get("file_path", "")).stem for name, f in found if name == old]
        split[old] = tuple(sorted(place[stem] for stem in stems if stem in place))
    if not split["test"]:
        split = _last(len(frames), _INSTA_TEST)
    focal = next(
        (f["fl_x"] for name in ("", "train") if "fl_x" in (f := _head(folder, name))), None
    )
    return _checked("INSTA", folder, frames, cut, _last_channel, numbers, fps, _focal(focal), split)


def _vhap(folder: Path, fps: float, found: list[tuple[str, dict[str, Any]]]) -> Recording:
    """transforms_{train,val,test}.json: images/T_C.png, fg_masks/T_C.png of one or more cameras.

    Of several cameras the one most in front of the face is taken.
    """
    by_camera: dict[int, dict[int, tuple[str, dict[str, Any]]]] = {}
    for name, frame in found:
        camera, time = int(frame.get("camera_index", 0)), int(frame.get("timestep_index", -1))
        by_camera.setdefault(camera, {})[time] = (name, frame)
    longest = max(len(times) for times in by_camera.values())
    cameras = [c for c, times in by_camera.items() if len(times) >= 0.5 * longest]
    best = max(cameras, key=lambda c: _frontality([f for _, f in by_camera[c].values()]))
    times = dict(sorted(by_camera[best].items()))
    entries = [frame for _, frame in times.values()]
    frames = tuple(_inside(folder, entry.get("file_path", "")) for entry in entries)
    masks = [_inside(folder, entry["fg_mask_path"]) for entry in entries if "fg_mask_path" in entry]
    several = len(by_camera) > 1
    split = {
        # Of several cameras, val is a camera of its own at training times.
        "train": tuple(
            i for i, (name, _) in enumerate(times.values())
            if name == "train" or (name == "val" and several)
        ),
        "test": tuple(i for i, (name, _) in enumerate(times.values()) if name == "test"),
    }  # fmt: skip
    focal = entries[0].get("fl_x") or _head(folder, "train").get("fl_x")
    first = next(iter(times))
    numbers = [time - first for time in times]
    return _checked("VHAP", folder, frames, masks, _grey, numbers, fps, _focal(focal), split)


def _frontality(frames: list[dict[str, Any]]) -> float:
    """How far in front of the face (+z of the world) the camera stands, as a cosine."""
    try:
        place = np.array(frames[0]["transform_matrix"], float).reshape(4, 4)[:3, 3]
    except (KeyError, ValueError):
        return 0.0
    return float(place[2] / (np.linalg.norm(place) + 1e-9))


def _checked(
    kind: str, folder: Path, frames: tuple[Path, ...] | list[Path], masks: list[Path],
    alpha: Callable[[np.ndarray], np.ndarray], numbers: list[int], fps: float,
    focal: float | None, split: dict[str, tuple[int, ...]],
) -> Recording:  # fmt: skip
    if not frames:
        raise UserError(f"{folder} looks prepared for {kind}, but has no frames; export it again.")
    missing = next((p for p in dict.fromkeys(frames) if not p.is_file()), None)
    if missing is not None:
        raise UserError(f"{folder} is incomplete: {missing} does not exist; export it again.")
    whole = len(masks) == len(frames) and all(p.is_file() for p in dict.fromkeys(masks))
    if whole and alpha is _last_channel and read_image(masks[0]).shape[2:] != (4,):
        whole = False  # not cut out after all
    sounds = sorted(folder.glob("*.wav"))
    audio = next((p for p in sounds if p.stem in ("aud", "audio")), sounds[0] if sounds else None)
    return Recording(
        kind, folder, tuple(frames), tuple(masks) if whole else (), alpha, tuple(numbers),
        float(fps), audio, focal, {name: rows for name, rows in split.items() if rows},
    )  # fmt: skip


def _not_white(picture: np.ndarray) -> np.ndarray:
    """The colour code of RAD-NeRF's parsing: white is background."""
    return (picture[..., :3] != 255).any(-1).astype(np.float32)


def _grey(picture: np.ndarray) -> np.ndarray:
    grey = picture if picture.ndim == 2 else picture[..., 0]
    return (grey / np.float32(255)).astype(np.float32)


def _last_channel(picture: np.ndarray) -> np.ndarray:
    return (picture[..., -1] / np.float32(255)).astype(np.float32)


def _last(count: int, test: int) -> dict[str, tuple[int, ...]]:
    """The published split: the last `test` frames, where at least as many are left to train on."""
    if count < 2 * test:
        return {}
    return {"train": tuple(range(count - test)), "test": tuple(range(count - test, count))}


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [p for p in folder.iterdir() if p.suffix.lower() in _PICTURES and p.is_file()]


def _numbered(paths: list[Path]) -> list[Path]:
    """In the order of the number in their names."""
    return sorted((p for p in paths if re.search(r"\d", p.stem)), key=_number)


def _number(path: Path) -> int:
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else 0


def _transforms(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(train, val, test or "", frame) of every frame in the transforms files, the parts first."""
    found = []
    for name in ("train", "val", "test"):
        for frame in _head(folder, name).get("frames", []):
            found.append((name, frame))
    if not found:
        found = [("", frame) for frame in _head(folder, "").get("frames", [])]
    return found


def _head(folder: Path, name: str) -> dict[str, Any]:
    return _json(folder / (f"transforms_{name}.json" if name else "transforms.json"))


def _json(path: Path) -> dict[str, Any]:
    """Content of a transforms file, {} where there is none."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or not all(
            isinstance(frame, dict) for frame in content.get("frames", [])
        ):
            raise ValueError("not a list of frames")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"Cannot read {path} ({error}); export the folder again.") from error
    return content


def _inside(folder: Path, name: str) -> Path:
    """A file named by a transforms file; it must lie in the folder."""
    path = folder / name
    if not path.suffix:
        path = path.with_suffix(".png")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} names a file outside itself ({name}); it was not imported.")
    return path


def _focal(value: Any) -> float | None:
    try:
        focal = float(value)
    except (TypeError, ValueError):
        return None
    return focal if np.isfinite(focal) and focal > 0 else None
