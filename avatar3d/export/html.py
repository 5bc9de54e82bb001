"""One HTML page with the avatar, its viewer and a motion inside: no server, no network."""

import base64
import hashlib
import html
import io
import json
import os
import re
import wave
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.export.payload import VERSION, Payload, encode_motion, encode_state
from avatar3d.export.speech import speech_arrays
from avatar3d.head.arkit import ARKIT_52
from avatar3d.motion.motion import Motion
from avatar3d.provenance import declared_write, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["LIBRARY", "NOTICE", "jpeg", "script", "sound_bytes", "web_header", "write_html"]

LIBRARY = (
    "data.js", "geometry.js", "head.js", "shaders.js", "gl.js", "deformer.js", "splats.js",
    "performer.js", "camera.js", "speech.js", "sound.js", "player.js",
)  # fmt: skip
"""In the order in which they are joined; `Player` is what they are for."""

NOTICE = "A computer-generated likeness, not a recording of the person."
MAX_SOUND_BYTES = 4_000_000
_SOUND_TYPES = {
    ".wav": "audio/wav", ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".ogg": "audio/ogg",
    ".opus": "audio/ogg", ".flac": "audio/flac",
}  # fmt: skip


def write_html(
    avatar: "SplatAvatar",
    path: str | os.PathLike[str],
    motion: Motion | None = None,
    audio: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> None:
    """Write a page that shows and animates the avatar in any current browser.

    Args:
        avatar: any splat avatar.
        path: the .html file.
        motion: what the Play button plays; default the avatar's own captured motion.
        audio: sound file that goes with `motion`.
        title: heading of the page; default the name of the file.

    Raises:
        UserError: the sound cannot be read or the page cannot be written.
    """
    payload, plate = Payload(), avatar.background
    header = web_header(avatar, payload, motion, title or Path(path).stem)
    blobs = [_blob("avatar-data", "application/gzip", payload.compressed())]
    if plate is not None:
        blobs.append(_blob("avatar-plate", "image/jpeg", jpeg(plate)))
    if audio is not None:
        blobs.append(_blob("avatar-sound", *sound_bytes(Path(audio))))
    facts = facts_of(avatar.info)
    declared_write(path, _page(header, blobs, slot(facts)), facts)


def web_header(
    avatar: "SplatAvatar", payload: Payload, motion: Motion | None, name: str
) -> dict[str, Any]:
    """Put the avatar, its speech network and a motion into `payload`; return the header."""
    plate = avatar.background
    motion = motion if motion is not None else avatar.idle_motion
    header = {
        "format": "avatar3d.web",
        "version": VERSION,
        "name": name,
        "notice": NOTICE,
        "expression_names": list(ARKIT_52),
        "plain": [0.5] * 3 if plate is None else (plate.mean((0, 1)) / 255).round(3).tolist(),
        **encode_state(avatar.state, payload),
        "motion": None if motion is None else encode_motion(motion, avatar.state, payload),
    }
    for key, array in speech_arrays().items():
        payload.add(f"speech_{key}", array)
    return {**header, "arrays": payload.arrays}


def script(names: tuple[str, ...]) -> str:
    """Sources of the viewer joined into one script."""
    web = files("avatar3d.viewer.web")
    return "\n".join(web.joinpath(name).read_text("utf-8") for name in names)


def _page(header: dict[str, Any], blobs: list[str], statement: str) -> str:
    """The template with everything in its place."""
    web = files("avatar3d.viewer.web")
    code = '(() => {\n"use strict";\n' + script((*LIBRARY, "ui.js", "viewer.js")) + "})();"
    style = web.joinpath("viewer.css").read_text("utf-8")
    values = {
        "policy": _policy(code, style),
        "statement": statement,
        "title": html.escape(header["name"]),
        "notice": html.escape(NOTICE),
        "style": style,
        # "<" may only appear escaped, or a name in the data could end the element.
        "header": json.dumps(header, separators=(",", ":")).replace("<", "\\u003c"),
        "blobs": "\n".join(blobs),
        "script": code,
    }
    template = web.joinpath("viewer.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _policy(script: str, style: str) -> str:
    """Content security policy: only this very script runs and nothing is fetched from anywhere."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; "
        f"style-src 'sha256-{digest(style)}'; img-src data: blob:; media-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _blob(name: str, kind: str, data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return f'<script type="application/octet-stream" id="{name}" data-type="{kind}">{text}</script>'


def jpeg(image: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as JPEG of high quality."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=93, subsampling=0, optimize=True)
    return buffer.getvalue()


def sound_bytes(path: Path) -> tuple[str, bytes]:
    """(type, bytes) of a sound file, made small enough for a page."""
    kind = _SOUND_TYPES.get(path.suffix.lower())
    try:
        if kind and path.stat().st_size <= MAX_SOUND_BYTES:
            return kind, path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read the sound {path}: {error.strerror or error}; check the path."
        ) from error
    from avatar3d.audio import load_audio

    samples, rate = load_audio(path)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return "audio/wav", buffer.getvalue()
