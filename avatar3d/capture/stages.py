"""The stages of capture, in order. Each reads and writes files of the workspace only."""

import json
from pathlib import Path

import numpy as np

from avatar3d.capture.check_stage import CHECK_OUTPUTS, check, sound_offset
from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.landmarks import choose_detector
from avatar3d.capture.parsing_networks import choose_parser
from avatar3d.capture.picture_stages import decode, matte, parsing, plate
from avatar3d.capture.preview import contact_sheet
from avatar3d.capture.refine_stage import refine
from avatar3d.capture.report import advice, quality_numbers, quality_page
from avatar3d.capture.tracking_stages import fit, landmarks, torso
from avatar3d.capture.workspace import CACHE, Stage, Workspace, spread
from avatar3d.io.arrays import write_arrays
from avatar3d.io.atomic import atomic_write
from avatar3d.io.images import read_image
from avatar3d.subject import Tracking

__all__ = ["STAGES", "models_in_use", "store_sound"]


def models_in_use(config: CaptureConfig) -> dict[str, str]:
    """Names of the models that the stages depend on, by stage.

    Raises:
        UserError: a model that was asked for is missing.
    """
    landmarks = choose_detector(config).name
    return {"check": landmarks, "landmarks": landmarks, "parsing": choose_parser(config).name}


def audio(workspace: Workspace) -> None:
    """audio.wav and audio_features.npz, where the clip has sound."""
    start = workspace.config.start + sound_offset(workspace)
    store_sound(workspace, workspace.source, start)


def store_sound(workspace: Workspace, source: Path | None, start_seconds: float) -> None:
    """audio.wav and audio_features.npz, from the sound of a file from `start_seconds` on."""
    from avatar3d.audio import extract_audio, features, load_audio
    from avatar3d.audio.files import save_wav
    from avatar3d.audio.transformer import transformer_features

    wav = workspace.path("audio.wav")
    has_audio = source is not None and extract_audio(source, wav)
    workspace.state.facts["has_audio"] = has_audio
    if not has_audio:
        workspace.warn(
            "audio",
            "The clip has no sound, so no audio driver can be trained; the avatar follows pose and "
            "expression, and text or sound through the general mouth shapes.",
        )
        return
    samples, rate = load_audio(wav)
    start = round(start_seconds * rate)
    length = round(workspace.frames / workspace.fps * rate)
    if start < 0:
        samples = np.concatenate([np.zeros(-start, np.float32), samples])
    samples = samples[max(start, 0) : max(start, 0) + length]
    if not len(samples):
        samples = np.zeros(length, np.float32)
    save_wav(wav, samples)
    arrays = features(samples, workspace.fps, workspace.frames)
    if folder := workspace.config.speech_model:
        arrays["transformer"] = transformer_features(
            samples, workspace.fps, workspace.frames, folder
        )
    write_arrays(workspace.path("audio_features.npz"), arrays)


def report(workspace: Workspace) -> None:
    """quality.json and quality.html."""
    tracking = Tracking.load(workspace.path("tracking.npz"))
    facts, torso_share = workspace.state.facts, workspace.load_arrays("torso")["confidence"]
    numbers = quality_numbers(tracking, workspace.fps)
    numbers["shoulders_measured"] = round(float(torso_share.mean()), 3)
    numbers["background_seen"] = round(facts["background_seen"], 3)
    numbers["background_moving"] = round(facts["background_moving"], 3)
    numbers["refined_gain_db"] = facts["refined_gain_db"]
    for sentence in advice(numbers):
        workspace.warn("report", sentence)
    sentences = [text for texts in workspace.state.warnings.values() for text in texts]
    usable = np.flatnonzero(tracking.valid)
    chosen = usable[spread(len(usable), 5)][1:-1] if len(usable) > 4 else usable
    sheet = contact_sheet(
        workspace.head, tracking, workspace.frame, workspace.matte,
        workspace.parsing,
        read_image(workspace.path("background.png")), chosen,
    )  # fmt: skip
    atomic_write(workspace.path("quality.json"), json.dumps(numbers, indent=2) + "\n")
    page = quality_page(numbers, sentences, sheet, f"Capture of {workspace.source.name}")
    atomic_write(workspace.path("quality.html"), page)


STAGES: tuple[Stage, ...] = (
    Stage(
        "check", check, (), ("size", "crop", "max_fps", "start", "duration"), CHECK_OUTPUTS,
        version=2,
    ),
    Stage("decode", decode, ("check",), (), ("frames",), version=2),
    Stage(
        "landmarks", landmarks, ("decode",), (),
        (f"{CACHE}/landmarks", f"{CACHE}/landmarks.npz"),
        version=2,
    ),
    Stage("matte", matte, ("decode",), (), ("mattes",), version=2),
    Stage(
        "fit", fit, ("landmarks",),
        ("focal", "identity_frames", "iterations", "chunk"),
        (f"{CACHE}/fit", f"{CACHE}/fit.npz"),
        version=9,
    ),
    Stage(
        "refine", refine, ("fit",), ("refine",), (f"{CACHE}/refine", f"{CACHE}/refine.npz"),
    ),
    Stage("parsing", parsing, ("refine", "matte"), (), ("parsing",), version=9),
    Stage(
        "torso", torso, ("refine", "matte", "parsing"), (), ("tracking.npz", f"{CACHE}/torso.npz"),
        version=2,
    ),
    Stage("plate", plate, ("matte",), (), ("background.png",), version=3),
    Stage(
        "audio", audio, ("decode",), ("sound_offset", "speech_model"),
        ("audio.wav", "audio_features.npz"),
    ),
    Stage(
        "report", report, ("torso", "parsing", "plate", "audio"), (),
        ("quality.json", "quality.html"),
    ),
)  # fmt: skip
