"""A folder for a web page of one's own: the avatar, a JavaScript module and a page that uses it."""

import html
import json
import os
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from avatar3d.export.html import LIBRARY, jpeg, script, sound_bytes, web_header
from avatar3d.export.payload import VERSION, Payload
from avatar3d.head.arkit import ARKIT_52
from avatar3d.io.atomic import atomic_folder
from avatar3d.motion.motion import TRACKS, Motion
from avatar3d.provenance import declare, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["write_web"]

_SHAPES = {
    "expression": "52", "head_pose": "4 x 4", "torso_pose": "4 x 4", "gaze": "2 x 2",
}  # fmt: skip


def write_web(
    avatar: "SplatAvatar",
    path: str | os.PathLike[str],
    motion: Motion | None = None,
    audio: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> None:
    """Write a folder to be served with a web page.

    `index.html` shows how to embed the avatar, `avatar3d.js` is the module to import, with its
    types in `avatar3d.d.ts`; `avatar.json`, `avatar.bin` and the rest are the avatar.

    Args:
        avatar: any splat avatar.
        path: the folder; an existing one is replaced.
        motion: what `play()` plays; default the avatar's own captured motion.
        audio: sound file that goes with `motion`.
        title: name of the avatar; default the name of the folder.

    Raises:
        UserError: the sound cannot be read or the folder cannot be written.
    """
    payload, plate, name = Payload(), avatar.background, title or Path(path).stem
    header = web_header(avatar, payload, motion, name)
    blobs: dict[str, bytes] = {"avatar.bin": payload.compressed()}
    header["files"] = {"plate": None, "sound": None}
    if plate is not None:
        header["files"]["plate"] = "plate.jpg"
        blobs["plate.jpg"] = jpeg(plate)
    if audio is not None:
        kind, data = sound_bytes(Path(audio))
        header["files"]["sound"] = f"sound.{kind.split('/')[1]}"
        blobs[header["files"]["sound"]] = data
    facts = facts_of(avatar.info)
    header["statement"] = slot(facts)
    web = files("avatar3d.viewer.web")
    texts = {
        "avatar.json": json.dumps(header, separators=(",", ":")),
        "avatar3d.js": script((*LIBRARY, "module.js")),
        "avatar3d.d.ts": web.joinpath("module.d.ts").read_text("utf-8") + _types(),
        "index.html": web.joinpath("embed.html")
        .read_text("utf-8")
        .replace("{{title}}", html.escape(name)),
    }
    with atomic_folder(path) as folder:
        for file, data in blobs.items() | {f: t.encode() for f, t in texts.items()}.items():
            (folder / file).write_bytes(data)
        declare(folder / "avatar.json", facts, path)


def _types() -> str:
    """Types of what goes from Python to the page, written from our own definitions."""
    names = " |\n  ".join(f'"{name}"' for name in ARKIT_52)
    tracks = "\n".join(
        f"  /** Frames of {_SHAPES[f.name]} numbers; see avatar3d.motion.Motion. */\n"
        f"  {f.name}?: {'number[][]' if f.name == 'expression' else 'number[][][]'};"
        for f in fields(Motion)
        if f.name in _SHAPES and f.name in TRACKS
    )
    return (
        f"\nexport type Expression =\n  {names};\n\nexport interface MotionData {{\n"
        f'  format?: "avatar3d.motion";\n  version?: 1;\n  fps: number;\n{tracks}\n}}\n'
        "\n/** Version of the folders that this module loads. */\n"
        f"export const version: {VERSION};\n"
    )
