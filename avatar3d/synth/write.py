"""Put a synthetic clip on disk: as a video, or as the Subject that a perfect capture would make."""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from avatar3d.audio import features
from avatar3d.audio.files import save_wav
from avatar3d.io.arrays import write_arrays
from avatar3d.io.atomic import atomic_folder, atomic_write
from avatar3d.io.images import write_image
from avatar3d.io.video import write_video as encode
from avatar3d.subject import Subject, SubjectInfo, Tracking
from avatar3d.synth.clip import SyntheticClip, to_bytes

__all__ = ["write_subject", "write_truth", "write_video"]

_DEPTH_UNIT = 1e-4
"""Metres of one step of the depth pictures."""


def write_video(clip: SyntheticClip, path: str | Path) -> None:
    """H.264 with the clip's sound."""
    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
        sound = Path(folder) / "sound.wav"
        save_wav(sound, clip.samples, clip.rate)
        encode(path, clip.frames(), clip.fps, sound)


def write_subject(clip: SyntheticClip, folder: str | Path) -> Subject:
    """A complete Subject folder straight from the ground truth."""
    folder = Path(folder)
    for name in ("frames", "mattes", "parsing"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(len(clip)):
        picture = clip.picture(index)
        write_image(folder / "frames" / f"{index:06d}.jpg", to_bytes(picture.image))
        write_image(folder / "mattes" / f"{index:06d}.png", to_bytes(picture.alpha))
        write_image(folder / "parsing" / f"{index:06d}.png", picture.label)
    write_image(folder / "background.png", clip.background)
    tracking(clip).save(folder / "tracking.npz")
    save_wav(folder / "audio.wav", clip.samples, clip.rate)
    arrays = features(clip.samples, clip.fps, len(clip))
    write_arrays(folder / "audio_features.npz", arrays)
    _write_info(clip, folder)
    return Subject(folder)


def write_truth(clip: SyntheticClip, folder: str | Path) -> None:
    """Everything that is known exactly: a Subject folder with two additions, in one step.

    `depth/000000.png` has 16-bit tenths of a millimetre along the camera's axis, 0 on the
    background; `phonemes.json` lists [IPA, start, end] in seconds.
    """
    with atomic_folder(folder) as temporary:
        write_subject(clip, temporary)
        (temporary / "depth").mkdir()
        for index in range(len(clip)):
            depth = (clip.depth(index) / _DEPTH_UNIT + 0.5).astype(np.uint16)
            write_image(temporary / "depth" / f"{index:06d}.png", depth)
        text = json.dumps([list(phoneme) for phoneme in clip.phonemes], ensure_ascii=False)
        atomic_write(temporary / "phonemes.json", text + "\n")


def tracking(clip: SyntheticClip) -> Tracking:
    """The exact tracking of a clip."""
    frames = len(clip)
    return Tracking(
        head_model=clip.head.name,
        head_model_fingerprint=clip.head.fingerprint,
        K=clip.camera.K,
        size=np.array([clip.camera.width, clip.camera.height]),
        identity=clip.identity,
        landmark_offsets=np.zeros((478, 3), np.float32),
        T_camera_rest=clip.T_camera_rest,
        T_camera_head=clip.T_camera_head,
        T_camera_torso=clip.T_camera_torso,
        expression=clip.expression,
        residual=np.zeros((frames, clip.head.residual_count), np.float32),
        gaze=clip.gaze,
        landmarks=clip.landmarks,
        landmarks_fit=clip.landmarks,
        confidence=np.ones(frames, np.float32),
        valid=np.ones(frames, bool),
    )


def _write_info(clip: SyntheticClip, folder: Path) -> None:
    digest = hashlib.sha256(clip.samples.tobytes())
    digest.update(clip.expression.tobytes() + clip.identity.tobytes())
    info = SubjectInfo(
        source_name="synthetic",
        source_sha256=digest.hexdigest(),
        fps=clip.fps,
        frames=len(clip),
        width=clip.camera.width,
        height=clip.camera.height,
        has_audio=True,
        head_model=clip.head.name,
        consent="a synthetic person",
    )
    atomic_write(folder / "subject.json", info.model_dump_json(indent=2) + "\n")
