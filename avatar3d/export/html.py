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
from avatar3d.head.arkit import ARKIT_52
from avatar3d.motion.motion import Motion
from avatar3d.provenance import declared_write, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["write_html"]

SCRIPTS = (
    "data.js", "geometry.js", "head.js", "shaders.js", "gl.js", "deformer.js", "splats.js",
    "performer.js", "camera.js", "ui.js", "viewer.js",
)  # fmt: skip
"""In the order in which they are joined into one script."""

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
    state, payload = avatar.state, Payload()
    motion = motion if motion is not None else avatar.idle_motion
    plate = avatar.background
    header = {
        "format": "avatar3d.web",
        "version": VERSION,
        "expression_names": list(ARKIT_52),
        "plain": [0.5] * 3 if plate is None else (plate.mean((0, 1)) / 255).round(3).tolist(),
        **encode_state(state, payload),
        "motion": None if motion is None else encode_motion(motion, state, payload),
        "arrays": payload.arrays,
    }
    blobs = [_blob("avatar-data", "application/gzip", payload.compressed())]
    if plate is not None:
        blobs.append(_blob("avatar-plate", "image/jpeg", _jpeg(plate)))
    if audio is not None:
        blobs.append(_blob("avatar-sound", *_sound(Path(audio))))
    facts = facts_of(avatar.info)
    declared_write(path, _page(header, blobs, title or Path(path).stem, slot(facts)), facts)


def _page(header: dict[str, Any], blobs: list[str], title: str, statement: str) -> str:
    """The template with everything in its place."""
    web = files("avatar3d.viewer.web")
    sources = [web.joinpath(name).read_text("utf-8") for name in SCRIPTS]
    script = '(() => {\n"use strict";\n' + "\n".join(sources) + "})();"
    style = web.joinpath("viewer.css").read_text("utf-8")
    values = {
        "policy": _policy(script, style),
        "statement": statement,
        "title": html.escape(title),
        "notice": html.escape(NOTICE),
        "style": style,
        # "<" may only appear escaped, or a name in the data could end the element.
        "header": json.dumps(header, separators=(",", ":")).replace("<", "\\u003c"),
        "blobs": "\n".join(blobs),
        "script": script,
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


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=93, subsampling=0, optimize=True)
    return buffer.getvalue()


def _sound(path: Path) -> tuple[str, bytes]:
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
