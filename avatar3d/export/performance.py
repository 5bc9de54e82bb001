"""A captured performance, or any motion, for animation programs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from avatar3d.errors import UserError
from avatar3d.export.glb import HeadMesh, write_animation
from avatar3d.head import load_head
from avatar3d.motion.json_file import write_json
from avatar3d.motion.livelink import write_livelink
from avatar3d.motion.motion import Motion

if TYPE_CHECKING:
    from avatar3d.subject import Subject

__all__ = ["export_motion", "export_tracking"]


def export_tracking(
    subject: "Subject", output: str | os.PathLike[str], format: str | None = None
) -> Path:
    """Write what capture measured.

    Args:
        subject: a captured person.
        output: the file to write.
        format: default by the suffix of `output`. "glb": the person's head model as it moved, with
            the camera, for Blender and game engines; "csv": as recorded by Live Link Face; "json":
            for web pages; "npz": a motion file.

    Raises:
        UserError: unknown format, or the head model of the tracking is not at hand.
    """
    tracking = subject.tracking
    motion = tracking.motion(subject.fps)
    if (format or Path(output).suffix.lstrip(".").lower()) != "glb":
        return export_motion(motion, output, format)
    head = load_head(tracking.head_model)
    if head.fingerprint != tracking.head_model_fingerprint:
        raise UserError(
            f"{subject.folder} was tracked with another version of the head model "
            f"{tracking.head_model!r}; run `avatar3d capture` again."
        )
    shaped = head.shaped(tracking.identity, tracking.landmark_offsets)
    write_animation(
        HeadMesh.of_head(shaped), motion, output, tracking.camera, tracking.T_camera_rest
    )
    return Path(output)


def export_motion(
    motion: Motion, output: str | os.PathLike[str], format: str | None = None
) -> Path:
    """Write a motion as "csv" (Live Link Face), "json" (for web pages) or "npz".

    The default is the suffix of `output`.

    Raises:
        UserError: another format.
    """
    path = Path(output)
    name = format or path.suffix.lstrip(".").lower()
    if name == "csv":
        write_livelink(motion, path)
    elif name == "json":
        write_json(motion, path)
    elif name == "npz":
        motion.save(path)
    else:
        raise UserError(
            f"A motion by itself cannot be exported as {name or 'a file without a suffix'!r}; "
            "choose csv, json or npz, or name an avatar or a subject to have a glb."
        )
    return path
