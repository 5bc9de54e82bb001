"""`avatar3d motion`: look at motions, convert them, and make new ones of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from avatar3d.motion import Motion

__all__ = ["motion_app"]

motion_app = typer.Typer(
    help="Motions: show, convert, compose, retarget.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_KINDS = "a motion (.npz), Live Link Face recording (.csv), keyframes (.yaml), subject or avatar"
_PATHS = ("orbit", "nod", "shake", "still")

Output = Annotated[
    Path, typer.Option("-o", "--output", help="Motion file (.npz) or Live Link Face (.csv).")
]


@motion_app.command()
def show(
    motion: Annotated[str, typer.Argument(help=f"What to look at: {_KINDS}.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Picture of the curves, .png.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Sound to draw above; a subject brings its own.")
    ] = None,
    width: Annotated[int, typer.Option(min=400, max=8000, help="Pixels.")] = 1400,
) -> None:
    """Say what a motion holds, and draw its curves."""
    from avatar3d.cli.performance import motion_named
    from avatar3d.evaluation.curves import describe, draw_curves
    from avatar3d.io.images import write_image

    what = motion_named(None, motion)
    print(describe(what))
    if output is None:
        return
    samples = None
    if audio is None and Path(motion).is_dir():
        from avatar3d.subject import Subject

        audio = Subject(motion).audio_path
    if audio is not None:
        from avatar3d.audio import load_audio

        samples, _ = load_audio(audio)
    write_image(output, draw_curves(what, samples, width=width))
    print(output)


@motion_app.command()
def convert(
    motion: Annotated[str, typer.Argument(help=f"What to change: {_KINDS}.")],
    output: Output,
    start: Annotated[float, typer.Option(min=0, help="Seconds to leave out.")] = 0.0,
    end: Annotated[float | None, typer.Option(min=0, help="Seconds at which to stop.")] = None,
    speed: Annotated[float, typer.Option(help="2 is twice as fast.")] = 1.0,
    fps: Annotated[float | None, typer.Option(min=1, max=1000, help="Frames a second.")] = None,
    smooth: Annotated[
        float, typer.Option(help="Window in seconds of a filter without lag; 0.04 is mild.")
    ] = 0.0,
    emotion: Annotated[str, typer.Option(help="neutral, smile, serious or surprised.")] = "neutral",
    intensity: Annotated[float, typer.Option(help="Of the emotion, 0 to 2.")] = 1.0,
    loop: Annotated[
        float | None, typer.Option(help="Repeat without a seam for so many seconds; 0 once.")
    ] = None,
) -> None:
    """Convert between formats; on the way cut, speed up, calm, colour and loop."""
    from avatar3d.cli.performance import motion_named
    from avatar3d.errors import UserError
    from avatar3d.motion.composition import looped, with_speed
    from avatar3d.motion.emotions import with_emotion
    from avatar3d.motion.filters import smoothed

    what = motion_named(None, motion)
    first = round(start * what.fps)
    last = len(what) if end is None else min(round(end * what.fps), len(what))
    if first >= last:
        raise UserError(
            f"{motion} lasts {what.duration:.2f} s; nothing of it is left between {start:g} s and "
            f"{what.duration if end is None else end:g} s."
        )
    what = smoothed(what.slice(first, last), smooth)
    what = with_speed(what, speed) if speed != 1 else what
    what = what.resampled(fps) if fps else what
    what = with_emotion(what, emotion, intensity)
    if loop is not None:
        what = looped(what, seconds=loop or None)
    _write(what, output)


@motion_app.command()
def compose(
    output: Output,
    mouth: Annotated[str | None, typer.Option(help=f"Mouth of {_KINDS}.")] = None,
    pose: Annotated[
        str | None, typer.Option(help=f"Head and shoulders, likewise, or {', '.join(_PATHS)}.")
    ] = None,
    eyes: Annotated[str | None, typer.Option(help="Blinks, brows and gaze, likewise.")] = None,
    fill: Annotated[
        str, typer.Option(help="How a shorter one is repeated: turn, loop or hold.")
    ] = "turn",
    then: Annotated[
        list[str] | None, typer.Option(help="Motion to go on with; may be given again.")
    ] = None,
    fade: Annotated[float, typer.Option(help="Seconds of the cross-fades before those.")] = 0.4,
) -> None:
    """Make one motion of the parts of several, and of several in a row."""
    from avatar3d.cli.performance import motion_named
    from avatar3d.motion import paths
    from avatar3d.motion.composition import compose as composed
    from avatar3d.motion.composition import crossfaded

    parts = {
        name: motion_named(None, given)
        for name, given in (("mouth", mouth), ("eyes", eyes))
        if given is not None
    }
    if pose in _PATHS:
        lead = next(iter(parts.values()), None)
        seconds, fps = (lead.duration, lead.fps) if lead else (8.0, 25.0)
        parts["pose"] = getattr(paths, pose)(seconds, fps)
    elif pose is not None:
        parts["pose"] = motion_named(None, pose)
    whole = composed(**parts, fill=fill)
    _write(crossfaded([whole, *(motion_named(None, name) for name in then or ())], fade), output)


@motion_app.command()
def retarget(
    actor: Annotated[
        str, typer.Argument(help="Who performs: a clip, a picture, a subject or a motion.")
    ],
    output: Output,
    avatar: Annotated[
        Path | None,
        typer.Option(help="Avatar to do it; without one, plain ARKit weights for other programs."),
    ] = None,
    match: Annotated[
        float, typer.Option(min=0, max=1, help="How far ranges of movement are matched.")
    ] = 0.5,
) -> None:
    """Take over somebody's performance: their own resting face and range stay with them."""
    from avatar3d.avatar import load
    from avatar3d.cli.performance import acted_motion

    target = load(avatar).idle_motion if avatar else None
    _write(acted_motion(actor, target, match), output)


def _write(motion: "Motion", output: Path) -> None:
    from avatar3d.export import export_motion

    print(export_motion(motion, output))
