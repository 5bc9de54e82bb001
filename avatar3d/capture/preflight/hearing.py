"""Sentences on the sound of a clip."""

from avatar3d.capture.preflight.measures import Measures
from avatar3d.capture.preflight.report import Finding

__all__ = ["offset", "speech"]

_SURE = 0.35
_SHIFTED, _LATE = 0.06, 0.1
"""Seconds of offset worth a note, and those that people notice (ITU-R BT.1359)."""


def speech(m: Measures) -> Finding:
    """Whether there is speech and how clean it is."""
    sound = m.sound
    finding = Finding(name="speech", title="Speech", state="limit", text="")
    if sound.track is None or not len(sound.samples):
        finding.text = sound.problem or "The clip has no sound."
        finding.remedy = "Text and sound still move the mouth, but not in this person's own way."
        return finding
    seconds = float(sound.speech.sum()) / m.fps
    noise = sound.level / max(sound.noise, 1e-6)
    finding.values = {
        "seconds": round(seconds, 2), "share": round(float(sound.speech.mean()), 4),
        "level": round(sound.level, 4), "above_noise": round(noise, 1),
        "clipped_share": round(sound.clipped, 5), "band_hz": round(sound.band),
        "rate_hz": float(sound.track.rate), "channels": float(sound.track.channels),
    }  # fmt: skip
    if not sound.audible:
        finding.text = "The sound track is silent."
        finding.remedy = (
            "Check the microphone; without speech no personal way of speaking is learnt."
        )
    elif seconds < 4:
        finding.text = f"Only {seconds:.1f} s of speech were heard."
        finding.remedy = "Speak for 20 seconds or more."
    elif sound.clipped > 0.002:
        finding.text = "The sound is distorted by too high a level."
        finding.remedy = "Turn the microphone down."
    elif sound.band < 4200:
        finding.text = f"The sound is muffled, nothing lies above {sound.band / 1e3:.1f} kHz."
        finding.remedy = "Record with 16 kHz or more, not over a telephone."
    elif noise < 4 and sound.speech.mean() < 0.95:
        finding.text = "The background is loud beside the voice."
        finding.remedy = "Record in a quiet room, near the microphone."
    else:
        finding.state = "good"
        finding.text = f"{seconds:.0f} s of speech, {100 * sound.speech.mean():.0f} % of the clip."
        if sound.track.channels > 2:
            finding.state = "note"
            finding.text += f" The {sound.track.channels} channels are mixed into one."
    return finding


def offset(m: Measures) -> Finding:
    """Whether lips and sound belong to the same moment."""
    finding = Finding(
        name="offset", title="Lips and sound", state="note", text="Whether the sound fits the "
        "lips cannot be told from so little speech.",
    )  # fmt: skip
    found = m.offset
    if found is None:
        return finding
    finding.values = {
        "seconds": round(found.seconds, 3), "confidence": round(found.confidence, 3),
        "correlation": round(found.correlation, 3),
    }  # fmt: skip
    if found.correlation < 0.15:
        finding.text = "The lips do not move with the sound: another voice, or music."
        finding.remedy = "Use a clip in which the person seen is the one heard."
        finding.state = "limit"
    elif found.confidence < _SURE:
        finding.text = "Whether the sound fits the lips cannot be told for sure."
    elif abs(found.seconds) < _SHIFTED:
        finding.state, finding.text = "good", "Lips and sound are together."
    else:
        order = "after" if found.seconds > 0 else "before"
        amount = f"{abs(found.seconds) * 1e3:.0f} ms"
        finding.state = "limit" if abs(found.seconds) >= _LATE else "note"
        finding.text = f"The sound comes {amount} {order} the lips."
        finding.remedy = "Capture with `sound_offset=auto` to put it right."
    return finding
