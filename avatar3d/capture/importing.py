"""Subjects from folders that were prepared for other programs."""

import shutil
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.framing import MIN_FRAMES, no_face
from avatar3d.capture.landmarks import face_boxes
from avatar3d.capture.matte import refine_matte
from avatar3d.capture.parallel import parallel_map, silenced
from avatar3d.capture.picture_stages import matte
from avatar3d.capture.pipeline import build_subject
from avatar3d.capture.recordings import Recording, read_recording
from avatar3d.capture.stages import STAGES, store_sound
from avatar3d.capture.workspace import RejectedClip, Stage, Workspace, spread
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.io.arrays import write_arrays
from avatar3d.io.images import read_image, write_image
from avatar3d.progress import say, track
from avatar3d.subject import Subject

__all__ = ["import_folder"]

_LOOKS = 12
_MOST_FEATURES = 16384
_PLAUSIBLE_FOCAL = (0.8, 8.0)  # times the longer side


def import_folder(
    folder: str | Path,
    output: str | Path,
    config: CaptureConfig | None = None,
    head: HeadModel | None = None,
    fps: float = 25.0,
) -> Subject:
    """Turn a folder prepared for another program into a Subject.

    Its frames are taken over as they are where they are not larger than `config.size`, so are its
    masks, sound and sound features, focal length and split. Landmarks, head, labels and shoulders
    are found by our own stages, because the layouts hold parameters of head models that need a
    registration.

    Args:
        folder: prepared for RAD-NeRF, ER-NeRF or TalkingGaussian, INSTA, FlashAvatar, VHAP and
            GaussianAvatars, or a person of NeRSemble's benchmark; see `read_recording`.
        output: folder to make.
        config: options; `crop`, `max_fps`, `start` and `duration` do not apply. A focal length
            other than the default wins over that of the folder.
        head: head model to fit instead of `load_head(config.head_model)`.
        fps: frames per second, which none of the layouts tells.

    Raises:
        UserError: an unknown layout, missing files, no face or too few frames.
    """
    config = config or CaptureConfig()
    recording = read_recording(folder, fps)
    if len(recording.frames) < MIN_FRAMES:
        raise UserError(
            f"{folder} has only {len(recording.frames)} frames; at least {MIN_FRAMES} are needed."
        )
    height, width = next(recording.pictures()).shape[:2]
    share = (recording.focal or 0) / max(height, width)
    if config.focal == CaptureConfig().focal and recording.focal is not None:
        if _PLAUSIBLE_FOCAL[0] <= share <= _PLAUSIBLE_FOCAL[1]:
            config = replace(config, focal=share)
        else:
            say(f"The focal length of {folder} ({recording.focal:g} pixels) is not believed.")
    say(
        f"{folder} was prepared for {recording.kind}: {len(recording.frames)} frames, "
        f"{'masks' if recording.masks else 'no masks'}, "
        f"{'sound' if recording.audio else 'no sound'}."
    )
    subject = build_subject(
        Path(folder), recording.fingerprint(), _stages(recording), output, config, head,
        recording.kind, recording.split,
    )  # fmt: skip
    _tell_split(recording)
    return subject


def _tell_split(recording: Recording) -> None:
    """How to train on the frames that the folder sets aside for it."""
    train, count = recording.split.get("train", ()), len(recording.frames)
    if train == tuple(range(len(train))) and 0 < len(train) < count:
        share = np.ceil(1e6 * len(train) / count) / 1e6
        say(f"Train with train_fraction={share:.6f} to keep the folder's split.")


def _stages(recording: Recording) -> tuple[Stage, ...]:
    """Those of a video, with pictures, masks and sound taken from the folder."""
    own = {
        "decode": replace(
            _stage("decode"), run=partial(_take_frames, recording), needs=(), options=("size",)
        ),
        "audio": replace(_stage("audio"), run=partial(_take_sound, recording)),
    }
    if recording.masks:
        own["matte"] = replace(_stage("matte"), run=partial(_take_masks, recording))
    return tuple(own.get(stage.name, stage) for stage in STAGES if stage.name != "check")


def _stage(name: str) -> Stage:
    return next(stage for stage in STAGES if stage.name == name)


def _take_frames(recording: Recording, workspace: Workspace) -> None:
    """frames/: the files themselves where nothing has to change."""
    first = next(recording.pictures())
    height, width = first.shape[:2]
    scale = min(1.0, workspace.config.size / max(height, width))
    size = round(width * scale), round(height * scale)
    suffixes = {path.suffix.lower() for path in recording.frames}
    videos = recording.in_videos
    facts = workspace.state.facts
    facts["frame_format"] = "png" if suffixes == {".png"} else "jpg"
    facts |= {
        "fps": recording.fps, "frames": len(recording.frames), "width": size[0],
        "height": size[1], "crop": (0, 0, width, height),
    }  # fmt: skip
    workspace.path("frames").mkdir(parents=True, exist_ok=True)
    keep = not videos and scale == 1 and len({s.replace("jpeg", "jpg") for s in suffixes}) == 1

    def store(item: tuple[int, np.ndarray | None]) -> None:
        index, picture = item
        source, target = recording.frames[index], workspace.frame_path(index)
        if picture is None:
            picture = read_image(source)
        if picture.shape[:2] != (height, width):
            raise UserError(
                f"{source} has {picture.shape[1]}x{picture.shape[0]} pixels, the first frame "
                f"{width}x{height}; all frames must have one size."
            )
        if keep and picture.ndim == 3 and picture.shape[2] == 3:
            temporary = target.with_name(f".partial-{target.name}")
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        else:
            write_image(target, _resized(_on_white(picture), size))

    count = len(recording.frames)
    items = enumerate(recording.pictures() if videos else repeat(None, count))
    stored = parallel_map(store, items, workspace.workers)
    for _ in track(stored, "Taking the frames", count):
        pass
    _find_face(workspace)


def _find_face(workspace: Workspace) -> None:
    """Where the main face is, and whether there are others; the stages after this want to know."""
    with silenced():
        detect = face_boxes()
    found = [
        boxes for i in spread(workspace.frames, _LOOKS) if (boxes := detect(workspace.frame(i)))
    ]
    if not found:
        raise RejectedClip(no_face(workspace.source))
    face = np.median([boxes[0] for boxes in found], axis=0)
    workspace.state.facts |= {
        "face": tuple(face.tolist()), "faces": max(len(boxes) for boxes in found)
    }  # fmt: skip


def _take_masks(recording: Recording, workspace: Workspace) -> None:
    """mattes/: the masks of the folder, with their borders put on the edges of the picture."""
    workspace.path("mattes").mkdir(parents=True, exist_ok=True)
    size = workspace.width, workspace.height

    def work(item: tuple[int, np.ndarray | None]) -> None:
        index, mask = item
        path = workspace.matte_path(index)
        if not path.is_file():
            alpha = recording.alpha(read_image(recording.masks[index]) if mask is None else mask)
            write_image(path, refine_matte(workspace.frame(index), _resized(alpha, size)))

    videos = recording.in_videos
    items = enumerate(recording.pictures(masks=True) if videos else repeat(None, workspace.frames))
    done = parallel_map(work, items, workspace.workers)
    for _ in track(done, "Taking the masks", workspace.frames):
        pass
    sample = [workspace.matte(i) for i in spread(workspace.frames, _LOOKS)]
    if not 0.02 < float(np.mean(sample)) / 255 < 0.98:
        workspace.warn("matte", "The masks of the folder show nobody; they were made anew.")
        shutil.rmtree(workspace.path("mattes"))
        matte(workspace)


def _take_sound(recording: Recording, workspace: Workspace) -> None:
    """audio.wav and audio_features.npz."""
    numbers = np.array(recording.numbers)
    if recording.audio is not None and (np.diff(numbers) != 1).any():
        workspace.warn(
            "audio",
            "Frames are missing between those of the folder, so its sound does not fit them and "
            "was left out.",
        )
        store_sound(workspace, None, 0.0)
    else:
        store_sound(workspace, recording.audio, float(numbers[0]) / recording.fps)
    given = {
        name: rows
        for name, path in recording.features.items()
        if (rows := _take_features(path, numbers, workspace)) is not None
    }
    target = workspace.path("audio_features.npz")
    if given and target.is_file():
        with np.load(target, allow_pickle=False) as ours:
            given |= {name: ours[name] for name in ours.files}
    if given:
        write_arrays(target, given)


def _take_features(path: Path, numbers: np.ndarray, workspace: Workspace) -> np.ndarray | None:
    """(T, C) float32 rows of a .npy file for frame numbers (T,), the last one for those beyond."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        if table.ndim not in (2, 3) or table.dtype.kind not in "fiu" or not table.size:
            raise ValueError(f"{table.dtype} {table.shape}")
        if table[0].size > _MOST_FEATURES:
            raise ValueError(f"{table[0].size} values a frame")
        rows = table[np.minimum(numbers, len(table) - 1)].reshape(len(numbers), -1)
        if not np.isfinite(rows).all():
            raise ValueError("values that are no numbers")
    except (OSError, ValueError, EOFError) as error:
        workspace.warn("audio", f"The sound features {path.name} were left out ({error}).")
        return None
    return rows.astype(np.float32)


def _on_white(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of any picture."""
    if picture.ndim == 2:
        return np.repeat(picture[..., None], 3, axis=2)
    if picture.shape[2] == 4:
        alpha = picture[..., 3:].astype(np.float32) / 255
        return (picture[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
    return picture


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    if picture.shape[1::-1] == size:
        return np.ascontiguousarray(picture)
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
