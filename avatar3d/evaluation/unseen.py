"""Protocols without a recording of the same moment: other sounds, other performers, other cameras.

What can be measured then is how the avatar holds together and follows what drives it: lips against
sound and against phonemes, stillness, blinks, sharpness; on a synthetic person also the truth.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.audio.files import SAMPLE_RATE, load_audio, save_wav
from avatar3d.audio.tts import Phoneme, speak
from avatar3d.avatar import Avatar
from avatar3d.errors import UserError
from avatar3d.evaluation import faces, metrics
from avatar3d.evaluation.cameras import held_out_cameras
from avatar3d.evaluation.config import EvaluationConfig
from avatar3d.evaluation.judges import NO_IDENTITY, cosine, identity_network
from avatar3d.evaluation.landmarks import Detect
from avatar3d.evaluation.quality import cpbd
from avatar3d.evaluation.report import Pictures, described, print_table, write_report
from avatar3d.evaluation.speech import BILABIAL_TEXTS, Mouth, closures, offset, silence
from avatar3d.evaluation.words import recogniser, word_error_rate
from avatar3d.head.landmarks import inter_ocular, lip_gap, lip_width
from avatar3d.io.video import probe, read_frames, write_video
from avatar3d.motion import Motion, MotionConfig, retarget
from avatar3d.motion.speech import motion_for_audio, mouth_for_audio
from avatar3d.progress import track
from avatar3d.provenance import facts_of
from avatar3d.subject import Subject
from avatar3d.synth import SyntheticClip, make_synthetic

__all__ = ["evaluate_unseen"]

_SHOWN = 8  # pictures of each part
_EVERY = 5  # frame's sharpness is looked at
_ASKED = 20, 40  # degrees of the cameras that are averaged
_SAME = 1e-4


@dataclass
class _Findings:
    """What a protocol found."""

    statements: list[str]
    skipped: list[str] = field(default_factory=list)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    recorded: dict[str, float] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)


def evaluate_unseen(
    avatar: Avatar,
    subject: Subject | None,
    output: str | Path,
    config: EvaluationConfig,
    detect: Detect | None = None,
    name: str = "avatar",
) -> dict[str, Any]:
    """Evaluate an avatar by a protocol of another kind than "reconstruction".

    Args:
        avatar, detect, name: as `evaluate`.
        subject: the avatar's own recording, which says what its mouth and blinks are like.
        output: folder of the report, and of a video of each part.
        config: the protocol.

    Returns:
        The report, as `evaluate` does; its "parts" has the figures of each sound.

    Raises:
        UserError: the subject, the performer or a sound is missing or unusable.
    """
    if subject is None:
        raise UserError(
            f"The protocol {config.kind} needs the avatar's own recording; add --subject FOLDER."
        )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    protocol = {"speech": _speech, "reenactment": _reenactment, "cameras": _cameras}[config.kind]
    found = protocol(avatar, subject, output, config, detect)
    names = {key for some in found.parts.values() for key in some}
    means = {
        key: float(np.nanmean([some.get(key, math.nan) for some in found.parts.values()]))
        for key in names
        if any(math.isfinite(some.get(key, math.nan)) for some in found.parts.values())
    }
    facts = facts_of(avatar.info)
    report = described(
        name=name, subject=subject, config=asdict(config), statements=found.statements,
        skipped=found.skipped, means=means | found.figures, intervals={}, recorded=found.recorded,
        per_frame={}, frames=[], timings={"everything": time.perf_counter() - begun},
        parts=found.parts,
    )  # fmt: skip
    write_report(report, output, Pictures(more=found.rows), facts)
    print_table(report)
    return report


def _speech(
    avatar: Avatar, subject: Subject, output: Path, config: EvaluationConfig, detect: Detect | None
) -> _Findings:
    driver, fps = getattr(avatar, "driver", None), subject.fps
    mouth = Mouth.of(subject)

    def predict(samples: np.ndarray) -> Motion:
        return mouth_for_audio(driver, samples, fps, MotionConfig())

    found = _Findings([
        "Sounds that were never recorded; there is no truth, so lips are judged by the sound, by "
        "its phonemes and by silence, and the pictures by themselves.",
        "Head, eyes and brows: the captured performance, forth and back.",
    ], [] if detect else ["lips and blinks of the pictures: no face detector here"])  # fmt: skip
    still = silence(mouth, predict)
    found.figures = {
        "opening_in_silence": still["digital"],
        "opening_in_noise": still["noise"],
        "opening_in_pause": still["pause"],
    }
    judge = _same_person(subject, config, found, detect)
    deaf: list[str] = []
    for label, samples, phonemes, said in _sounds(config):
        motion = motion_for_audio(driver, samples, fps, avatar.idle_motion, None, phonemes)
        figures = _followed(avatar, motion, samples, found, label, output, detect, judge)
        if said is not None:
            hear = recogniser(label, config.recogniser if label == config.languages[0] else "")
            if hear is None:
                deaf.append(label)
            else:
                figures["wer"] = word_error_rate(said, hear(samples))
        if phonemes:
            met = closures(mouth.opening(motion), fps, phonemes)
            figures["bilabials_met"] = met.met / max(met.bilabials, 1)
            figures["vowels_shut"] = met.shut / max(met.open_vowels, 1)
        found.parts[label] = figures
    if deaf:
        found.skipped.append(
            f"WER of {', '.join(deaf)}: no recogniser; `pip install pocketsphinx` (English), or "
            "`pip install vosk` and recogniser=FOLDER"
        )
    found.recorded = _recorded(subject)
    return found


def _sounds(
    config: EvaluationConfig,
) -> Iterator[tuple[str, np.ndarray, list[Phoneme] | None, str | None]]:
    """Label, sound at 16 kHz, its phonemes and its words, where they are known."""
    for language in config.languages:
        text = BILABIAL_TEXTS.get(language)
        if text is None:
            raise UserError(
                f"There is no text in {language!r} to speak; take some of "
                f"{', '.join(BILABIAL_TEXTS)}."
            )
        said = speak(text, language)
        yield language, said.at_16k(), said.phonemes, text
    if config.sound:
        samples, _ = load_audio(config.sound)
        yield Path(config.sound).name, samples[: round(config.seconds * SAMPLE_RATE)], None, None


def _reenactment(
    avatar: Avatar, subject: Subject, output: Path, config: EvaluationConfig, detect: Detect | None
) -> _Findings:
    if not config.performer:
        raise UserError("Say whose performance to take over: performer=CLIP (or a subject).")
    from avatar3d.capture.performance import track_performance

    path = Path(config.performer)
    performance = track_performance(path)
    motion = retarget(performance.motion, avatar.idle_motion, performance.effects)
    motion = motion.slice(0, round(config.seconds * motion.fps))
    found = _Findings([
        f"The performance of {path.name}, retargeted ({len(motion)} frames); there is no truth, so "
        "lips are compared with the performer's over time, and the pictures judged by themselves.",
    ])  # fmt: skip
    judge = _same_person(subject, config, found, detect)
    figures = _followed(avatar, motion, None, found, path.stem, output, detect, judge)
    acted = _performer_landmarks(path, len(motion), motion.fps, detect)
    shown = found.rows.pop("landmarks", None)
    if acted is not None and shown is not None and len(acted) == len(shown):
        known = np.isfinite(shown).all((1, 2)) & np.isfinite(acted).all((1, 2))
        for key, measure in (
            ("lip_gap_correlation", lip_gap),
            ("lip_width_correlation", lip_width),
        ):
            ours, theirs = (measure(p[known]) / inter_ocular(p[known]) for p in (shown, acted))
            figures[key] = metrics.correlation(ours, theirs)
        found.recorded = {"shaking": faces.shaking(acted[known])}
        closure = faces.lid_closure_seen(acted[known], None)
        found.recorded |= faces.blink_figures(closure, motion.fps)
        found.statements.append("In the column of the recording: the performer's own figures.")
    found.parts[path.stem] = figures
    return found


def _performer_landmarks(
    path: Path, count: int, fps: float, detect: Detect | None
) -> np.ndarray | None:
    """(T, 478, 2) of the performer's clip, NaN where no face was found; None without pictures."""
    if path.is_dir():
        return Subject(path).tracking.landmarks[:count].astype(np.float64)
    if detect is None or path.suffix.lower() not in (".mp4", ".mov", ".mkv", ".webm", ".avi"):
        return None
    probe(path)
    return _points(islice(read_frames(path, fps), count), detect)


def _points(images: Iterator[np.ndarray], detect: Detect) -> np.ndarray:
    rows = []
    for image in images:
        face = detect(image)
        rows.append(np.full((478, 2), np.nan) if face is None else face.points[:, :2])
    return np.stack(rows).astype(np.float64)


def _followed(
    avatar: Avatar,
    motion: Motion,
    samples: np.ndarray | None,
    found: _Findings,
    label: str,
    output: Path,
    detect: Detect | None,
    judge: Callable[[np.ndarray], float] | None,
) -> dict[str, float]:
    """Render a motion to a video, and judge its pictures by themselves."""
    rows: list[np.ndarray] = []
    shown: list[np.ndarray] = []
    sharp: list[float] = []
    alike: list[float] = []
    keep = set(np.linspace(0, len(motion) - 1, min(_SHOWN, len(motion))).astype(int).tolist())

    def pictures() -> Iterator[np.ndarray]:
        images = avatar.render_motion(motion)
        for index, image in enumerate(track(images, f"Rendering {label}", len(motion))):
            if index in keep:
                rows.append(image[:: max(1, len(image) // 192), :: max(1, len(image) // 192)])
            if index % _EVERY == 0:
                sharp.append(cpbd(image / np.float32(255)))
                if judge is not None:
                    alike.append(judge(image))
            if detect is not None:
                shown.append(_points(iter([image]), detect)[0])
            yield image

    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
        sound = None
        if samples is not None:
            sound = Path(folder) / "sound.wav"
            save_wav(sound, samples, SAMPLE_RATE)
        write_video(output / f"{label}.mp4", pictures(), motion.fps, sound, facts_of(avatar.info))
    found.rows[f"{label}, evenly spread"] = np.concatenate(rows, 1)
    figures = {"cpbd": float(np.mean(sharp)), "confidence": float(avatar.confidence(motion).mean())}
    if np.isfinite(alike).any():
        figures["csim"] = float(np.nanmean(alike))
    if not shown:
        return figures
    landmarks = np.stack(shown)
    found.rows["landmarks"] = landmarks
    if samples is not None:
        found.rows.pop("landmarks")
    if (lost := int((~np.isfinite(landmarks).all((1, 2))).sum())) > 0:
        found.skipped.append(f"{lost} frames of {label}, in which no face was found")
    landmarks = landmarks[np.isfinite(landmarks).all((1, 2))]
    if len(landmarks) < 3:
        return figures
    figures["shaking"] = faces.shaking(landmarks)
    figures |= faces.blink_figures(faces.lid_closure_seen(landmarks, None), motion.fps)
    if samples is not None and not lost and len(samples) >= SAMPLE_RATE:
        opening = lip_gap(landmarks) / inter_ocular(landmarks)
        agreement = metrics.sound_agreement(opening, motion.fps, samples, SAMPLE_RATE)
        figures["sound_correlation"] = agreement["correlation"]
        figures["av_offset"] = offset(opening, samples, motion.fps).value
    return figures


def _same_person(
    subject: Subject, config: EvaluationConfig, found: _Findings, detect: Detect | None
) -> Callable[[np.ndarray], float] | None:
    """From a picture to its likeness to the recorded person, the mean of some frames."""
    network = identity_network(config) if detect is not None else None
    if network is None or detect is None:
        found.skipped.append(NO_IDENTITY)
        return None
    usable = np.flatnonzero(subject.tracking.valid)
    some = usable[np.linspace(0, len(usable) - 1, _SHOWN).astype(int)]
    recorded = np.stack(
        [network(subject.frame(int(i)), subject.tracking.landmarks[i]) for i in some]
    )
    recorded /= np.linalg.norm(recorded, axis=1, keepdims=True)
    usual = recorded.mean(0)

    def judge(image: np.ndarray) -> float:
        face = detect(image)
        return math.nan if face is None else cosine(network(image, face.points), usual)

    return judge


def _recorded(subject: Subject) -> dict[str, float]:
    """The same of the true clip: what its own lips score against its own sound."""
    landmarks = subject.tracking.landmarks[subject.tracking.valid].astype(np.float64)
    figures = {"shaking": faces.shaking(landmarks)}
    figures |= faces.blink_figures(faces.lid_closure_seen(landmarks, None), subject.fps)
    if subject.audio_path is not None:
        samples, _ = load_audio(subject.audio_path)
        points = subject.tracking.landmarks.astype(np.float64)
        opening = lip_gap(points) / inter_ocular(points)
        agreement = metrics.sound_agreement(opening, subject.fps, samples, SAMPLE_RATE)
        figures["sound_correlation"] = agreement["correlation"]
        figures["av_offset"] = offset(opening, samples, subject.fps).value
    some = np.linspace(0, len(subject) - 1, 10).astype(int)
    figures["cpbd"] = float(np.mean([cpbd(subject.frame(i) / np.float32(255)) for i in some]))
    return figures


def _cameras(
    avatar: Avatar, subject: Subject, output: Path, config: EvaluationConfig, detect: Detect | None
) -> _Findings:
    clip = _synthetic(subject, config.person)
    scores, pairs = held_out_cameras(avatar, clip)
    found = _Findings([
        f"Synthetic person {config.person}: the exact motion, from cameras that never filmed it; "
        "only the head and eight pixels around it count.",
    ])  # fmt: skip
    found.parts = {f"{angle:+g} degrees": {"psnr": score} for angle, score in scores.items()}
    for turn in _ASKED:
        both = [score for angle, score in scores.items() if abs(angle) == turn]
        found.figures[f"cameras_{turn}"] = float(np.mean(both))
    columns = [np.concatenate(pair) for pair in pairs]
    found.rows["Truth above, render below, from each camera"] = np.concatenate(columns, 1)
    return found


def _synthetic(subject: Subject, person: int) -> SyntheticClip:
    """The clip whose exact truth a subject is.

    Raises:
        UserError: it is not that person's truth.
    """
    info = subject.info
    for language in (None, "en"):
        clip = make_synthetic(
            person, len(subject) / info.fps, info.fps, (info.width, info.height), language=language
        )
        ours, theirs = clip.T_camera_head, subject.tracking.T_camera_head
        same = ours.shape == theirs.shape and np.abs(ours - theirs).max() < _SAME
        if same and np.abs(clip.expression - subject.tracking.expression).max() < _SAME:
            return clip
    raise UserError(
        f"{subject.folder} is not the exact truth of synthetic person {person}; make that with "
        f"`avatar3d synth --seed {person} --truth FOLDER -o CLIP.mp4`, train on FOLDER, and set "
        "person to the seed."
    )
