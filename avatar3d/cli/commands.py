"""The commands and their options. Heavy modules are imported inside the command that needs them."""

import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avatar3d.cli.assets import assets_app
from avatar3d.cli.batch import make_batch
from avatar3d.cli.motion import motion_app
from avatar3d.cli.sources import (
    AvatarFile,
    ConsentFile,
    Head,
    NoProvenance,
    Overrides,
    default_output,
    local_source,
)
from avatar3d.cli.storage import storage_app
from avatar3d.cli.trust import forget_subject, verify_file
from avatar3d.progress import say

if TYPE_CHECKING:
    from avatar3d.capture import CaptureConfig
    from avatar3d.training.events import Event

__all__ = ["app"]

app = typer.Typer(
    help="From a video of one person to their talking 3D avatar.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(assets_app, name="assets")
app.add_typer(motion_app, name="motion")
app.add_typer(storage_app, name="storage")
app.command("batch")(make_batch)
app.command("verify")(verify_file)
app.command("forget")(forget_subject)

_MARKS = {"good": "ok", "note": "--", "limit": " !", "fail": "NO"}


class Group(StrEnum):
    """Stages that have settings."""

    capture = "capture"
    training = "training"
    nerf = "nerf"
    conversion = "conversion"
    motion = "motion"
    evaluation = "evaluation"


@app.command()
def check(
    video: Annotated[Path, typer.Argument(help="A clip of one person, in any common format.")],
    overrides: Overrides = None,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures here.")] = None,
) -> None:
    """Say what will come of a clip before any long work; exit code 1 where it will fail."""
    from avatar3d.capture import CaptureConfig
    from avatar3d.capture import check as run
    from avatar3d.config import compose
    from avatar3d.io.atomic import atomic_write

    report = run(video, compose("capture", CaptureConfig, overrides or ()), html)
    if json is not None:
        atomic_write(json, report.model_dump_json(indent=1) + "\n")
    print(report.summary)
    for finding in report.findings:
        where = f" (first at {finding.first:.1f} s)" if finding.first is not None else ""
        print(f"{_MARKS[finding.state]}  {finding.title:<20} {finding.text}{where}")
        if finding.remedy:
            print(f"{'':26}{finding.remedy}")
    raise typer.Exit(1 if report.verdict == "fail" else 0)


@app.command()
def capture(
    video: Annotated[Path, typer.Argument(help="A clip of one person, in any common format.")],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Subject folder [VIDEO.subject].")
    ] = None,
    head: Head = None,
    consent: ConsentFile = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write an overlay video, SUBJECT.preview.mp4.")
    ] = False,
) -> None:
    """Understand a clip: frames, mattes, head geometry per frame, sound."""
    from avatar3d.capture import capture as run

    config = _capture_config(overrides, head, consent)
    output = output or Path(f"{video.stem}.subject")
    subject = run(video, output, config)
    if preview:
        from avatar3d.capture.preview import preview_video
        from avatar3d.head import load_head

        path = output.with_name(f"{output.name.removesuffix('.subject')}.preview.mp4")
        preview_video(subject, load_head(config.head_model), path)
        print(path)
    print(output)


@app.command("import")
def import_folder(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Prepared for RAD-NeRF, ER-NeRF, TalkingGaussian, INSTA, FlashAvatar, VHAP or "
            "GaussianAvatars, or a person of NeRSemble's benchmark."
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Subject folder [FOLDER.subject].")
    ] = None,
    fps: Annotated[float, typer.Option(min=1, max=1000, help="Frames per second.")] = 25.0,
    head: Head = None,
    consent: ConsentFile = None,
) -> None:
    """Take over a folder of frames, masks and sound that was prepared for another program."""
    from avatar3d.capture import import_folder as run

    config = _capture_config(overrides, head, consent)
    output = output or Path(f"{folder.resolve().name}.subject")
    run(folder, output, config, fps=fps)
    print(output)


@app.command()
def synth(
    output: Annotated[Path, typer.Option("-o", "--output", help="Video to write, .mp4.")],
    seconds: Annotated[float, typer.Option(min=0.2, max=600, help="Length.")] = 12.0,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Width and height.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Another number is another person.")] = 0,
    language: Annotated[str, typer.Option(help="What is spoken: en, de, fr, cmn, ja ...")] = "en",
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write the exact pose, expression, landmarks, masks, depth and phonemes "
            "to."
        ),
    ] = None,
    no_provenance: NoProvenance = False,
) -> None:
    """Make a video of a synthetic, speaking person: nobody's face, for trying things out."""
    from avatar3d.errors import UserError
    from avatar3d.synth import make_synthetic, write_truth, write_video

    if truth is not None and truth.exists():
        raise UserError(f"{truth} exists already; give another name for the truth.")
    with _provenance(no_provenance), _timed("Made"):
        clip = make_synthetic(seed, seconds, 25, size, language=language)
        write_video(clip, output)
        if truth is not None:
            write_truth(clip, truth)
    print(output)


@app.command("head")
def show_head(
    model: Annotated[
        str,
        typer.Argument(
            help="anny, ict, or a path: ICT-FaceKit's folder FaceXModel, GNM's gnm_head.npz, "
            "FLAME's generic_model.pkl."
        ),
    ] = "anny",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Picture of all expressions, .png.")
    ] = None,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Pixels of one face.")] = 220,
) -> None:
    """Get a head model ready, describe it, and draw all its expressions."""
    from avatar3d.capture import CaptureConfig
    from avatar3d.capture.embedding import detected_embedding
    from avatar3d.head import gallery, load_head
    from avatar3d.io.images import write_image

    head = load_head(model, detected_embedding(CaptureConfig()))
    print(
        f"{head.name}: {len(head.template)} vertices, {len(head.faces)} triangles, "
        f"{len(head.identity)} identity modes, 52 ARKit rows and {head.residual_count} more"
    )
    if output is not None:
        write_image(output, gallery(head, size))
        print(output)


@app.command()
def train(
    subject: Annotated[
        Path,
        typer.Argument(
            help="Subject folder that capture wrote, or URL; with -m subject=FOLDER,FOLDER...",
            parser=local_source,
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Avatar file [SUBJECT.a3d]; with -m a folder [.]."),
    ] = None,
    view: Annotated[
        bool, typer.Option("--view", help="Show the avatar in the browser as it grows.")
    ] = False,
    port: Annotated[int, typer.Option(help="First port to try with --view.")] = 8080,
    continue_from: Annotated[
        Path | None,
        typer.Option(help="Add this clip to an avatar file of the same person.", exists=True),
    ] = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Train every combination of settings.")
    ] = False,
    no_provenance: NoProvenance = False,
) -> None:
    """Train an avatar; run it again to continue where it was stopped.

    With avatar=nerf it is a radiance field instead of splats (`avatar3d config nerf`). With -m
    settings may have several values, in Hydra's grammar, and hydra/launcher=NAME says what runs the
    trainings; exit code 3 where some failed.
    """
    if multirun:
        from avatar3d.cli.sweep import train_sweep
        from avatar3d.errors import UserError

        if view or continue_from:
            raise UserError("--view and --continue-from are for one training; leave out -m.")
        extra = ["--no-provenance"] if no_provenance else []
        code = train_sweep([str(subject), *(overrides or ())], output or Path(), extra)
        raise typer.Exit(code)
    from avatar3d.training import train as run
    from avatar3d.training import training_config

    config = training_config(overrides or ())
    output = output or Path(f"{subject.name.removesuffix('.subject')}.a3d")
    with ExitStack() as stack:
        stack.enter_context(_provenance(no_provenance))
        watchers: list[Callable[[Event], None]] = []
        if view:
            from avatar3d.viewer.training import TrainingViewer

            watcher = TrainingViewer(port)
            stack.callback(watcher.stop)
            watchers.append(watcher)
        stack.enter_context(_timed("Trained"))
        run(subject, output, config, watchers, continue_from)
    print(output)


@app.command()
def render(
    avatar: AvatarFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Video to write, .mp4.")],
    overrides: Overrides = None,
    audio: Annotated[Path | None, typer.Option(help="Speech to perform, any sound file.")] = None,
    text: Annotated[str | None, typer.Option(help="Text to speak.")] = None,
    language: Annotated[str, typer.Option(help="Of the text: en, de, fr, cmn, ja ...")] = "en",
    voice: Annotated[
        str | None,
        typer.Option(
            help="Voice of the text: one of eSpeak NG's such as f2, `natural`, or a Piper voice "
            "file (.onnx)."
        ),
    ] = None,
    speed: Annotated[float, typer.Option(help="Of the text's speech, 0.5 to 2.5.")] = 1.0,
    motion: Annotated[
        str | None,
        typer.Option(help="Motion to perform: .npz, .csv, .yaml, a subject, or `captured`."),
    ] = None,
    performance: Annotated[
        Path | None,
        typer.Option(
            help="Another person's clip, picture or subject, whose performance to take over."
        ),
    ] = None,
    keyframes: Annotated[
        Path | None, typer.Option(help="Keyframes (.yaml), alone or on top of anything else.")
    ] = None,
    pose: Annotated[
        str | None,
        typer.Option(help="Head motion: captured, idle, orbit, nod, shake or still."),
    ] = None,
    heard: Annotated[bool, typer.Option("--heard", help="A NeRF's field hears the sound.")] = False,
    label: Annotated[
        bool, typer.Option("--label", help="Add a visible mark to the video.")
    ] = False,
    watermark: Annotated[
        bool, typer.Option("--watermark", help="Add an invisible mark that `verify` finds.")
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Another avatar file, shown beside it in the same performance.",
            parser=local_source,
        ),
    ] = None,
    show: Annotated[
        str,
        typer.Option(
            help="picture, or of a NeRF: depth, normals, or attention, which is what hears of the "
            "mouth in red, of the eyes in green and of the rest of the face in blue."
        ),
    ] = "picture",
    no_provenance: NoProvenance = False,
) -> None:
    """Make a video of the avatar: speaking a sound or a text, or performing a motion."""
    from avatar3d.avatar import load
    from avatar3d.cli.performance import Wish
    from avatar3d.cli.performance import performance as performed
    from avatar3d.config import compose
    from avatar3d.motion.config import MotionConfig
    from avatar3d.rendering import render as run

    chosen = [f"pose={pose}"] if pose else []
    config = compose("motion", MotionConfig, [*(overrides or ()), *chosen])
    wish = Wish(audio, text, motion, performance, keyframes, language, voice, speed)
    person = load(avatar)
    other = load(compare) if compare is not None else None
    with (
        _provenance(no_provenance),
        performed(person, config, wish, pose) as (what, sound),
        _timed(f"Rendered {len(what)} frames"),
    ):
        run(
            person, what, output, audio=sound, compare=other, label=label, watermark=watermark,
            heard=heard, show=show,
        )  # fmt: skip
    print(output)


@app.command()
def convert(
    avatar: Annotated[
        Path,
        typer.Argument(
            help="Avatar file of a NeRF (`train avatar=nerf`), or URL.", parser=local_source
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Avatar file [AVATAR.splat.a3d].")
    ] = None,
    no_provenance: NoProvenance = False,
) -> None:
    """Make splats of a NeRF avatar, which go where a NeRF cannot: web viewer and splat files."""
    from avatar3d.avatar import NerfAvatar, load
    from avatar3d.config import compose
    from avatar3d.errors import UserError
    from avatar3d.training.distill import DistillConfig, to_splats

    person = load(avatar)
    if not isinstance(person, NerfAvatar):
        raise UserError(f"{avatar} is made of splats already; `avatar3d export` takes it as it is.")
    config = compose("conversion", DistillConfig, overrides or ())
    output = output or default_output(avatar, ".splat.a3d")
    if output.suffix != ".a3d":
        raise UserError(f"The avatar file must be named NAME.a3d, got {output}.")
    with _provenance(no_provenance), _timed("Converted"):
        to_splats(person, config).save(output)
    print(output)


@app.command()
def view(
    avatar: AvatarFile,
    port: Annotated[int, typer.Option(help="First port to try.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Show the avatar in the browser, drawn by this machine, with sliders for everything."""
    from avatar3d.avatar import load
    from avatar3d.viewer import view as run

    run(load(avatar), port=port, host=host)


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="Avatar file, subject folder or motion file (.npz, .csv), or URL.",
            parser=local_source,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of an avatar html, web (a folder to embed), glb, ply, spz, splat, sog, "
            "splat-glb, lam (zip), gaussian-avatars (on FLAME), ply-sequence, png, mov or webm "
            "(transparent); of a subject glb, "
            "csv (Live Link Face), json or npz; of a motion csv, json or npz. Default by suffix.",
        ),
    ] = None,
    motion: Annotated[
        str | None,
        typer.Option(
            help="For formats of an avatar that move: a motion file, a subject or `captured`."
        ),
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Speech to perform; html and web play it, too.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Text to speak instead.")] = None,
    language: Annotated[str, typer.Option(help="Of the text: en, de, fr, cmn, ja ...")] = "en",
    no_provenance: NoProvenance = False,
) -> None:
    """Write an avatar, a captured performance or a motion for other programs."""
    from avatar3d.cli.performance import Wish, performance
    from avatar3d.config import compose
    from avatar3d.export import export as run
    from avatar3d.export import export_motion, export_tracking

    with _provenance(no_provenance), _timed("Exported"):
        if source.is_dir():
            from avatar3d.subject import Subject

            export_tracking(Subject(source), output, format)
        elif source.suffix.lower() in (".npz", ".csv"):
            from avatar3d.motion import Motion

            export_motion(Motion.load(source), output, format)
        else:
            from avatar3d.avatar import load
            from avatar3d.motion.config import MotionConfig

            avatar = load(source)
            if not (motion or audio or text is not None):
                run(avatar, output, format=format)
            else:
                wish = Wish(audio, text, motion, language=language)
                config = compose("motion", MotionConfig, [])
                with performance(avatar, config, wish, None) as (what, sound):
                    heard = (format or output.suffix.lstrip(".").lower()) in ("html", "web")
                    options = {"audio": sound} if heard and sound is not None else {}
                    run(avatar, output, format=format, motion=what, **options)
    print(output)


@app.command()
def evaluate(
    avatars: Annotated[
        list[str] | None,
        typer.Argument(
            help="Avatar files, several to compare them; and settings as key=value, which "
            "`avatar3d config evaluation` lists.",
            show_default=False,
        ),
    ] = None,
    subject: Annotated[
        Path | None,
        typer.Option(
            "--subject",
            "-s",
            help="Its subject, or another clip of its person.",
            parser=local_source,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            "-p",
            help="default (tracked), audio, insta, reenactment, speech, cameras or nersemble.",
        ),
    ] = "default",
    frames: Annotated[
        list[Path] | None,
        typer.Option(help="Another system's pictures to score alike: a folder or a video."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Report folder [AVATAR.evaluation].")
    ] = None,
    no_provenance: NoProvenance = False,
) -> None:
    """Measure avatars, or other systems' pictures, by a protocol; write JSON, CSV and a page."""
    from avatar3d.config import compose
    from avatar3d.evaluation import EvaluationConfig, evaluate_files

    settings = [text for text in avatars or () if "=" in text and "://" not in text]
    files = [local_source(text) for text in avatars or () if text not in settings]
    chosen = [f"evaluation={protocol}", *settings]
    config = compose("evaluation", EvaluationConfig, chosen)
    named = [*files, *(frames or ())]
    output = output or (default_output(named[0], ".evaluation") if named else Path("evaluation"))
    with _provenance(no_provenance), _timed("Evaluated"):
        evaluate_files(files, subject, output, config, frames or ())
    print(output)


@app.command("config")
def show_config(
    group: Annotated[Group, typer.Argument(help="Stage.", show_default=False)],
) -> None:
    """List the settings of a stage, with their defaults and what they do."""
    from avatar3d.config import options, presets

    for option in options(_schema(group)):
        print(f"{option.key}={option.default}  ({option.type})")
        print(textwrap.indent(textwrap.fill(" ".join(option.doc.split()), 90), "    "))
    print(f"Presets ({group.value}=NAME): {', '.join(presets(group.value)) or 'none'}")


@app.command()
def doctor() -> None:
    """Check this machine and say how to put right what does not work."""
    from avatar3d.cli.doctor import checks

    marks = {"good": "ok", "limited": "--", "broken": "NO"}
    broken = False
    for check in checks():
        broken |= check.state == "broken"
        print(f"{marks[check.state]}  {check.name:<15} {check.detail}")
        if check.remedy:
            print(f"{'':20}to do: {check.remedy}")
    if broken:
        raise typer.Exit(1)


def _provenance(off: bool) -> AbstractContextManager[None]:
    from avatar3d.provenance import without_provenance

    return without_provenance() if off else nullcontext()


@contextmanager
def _timed(verb: str) -> Iterator[None]:
    """Say how long the body took and, where the system tells, the most memory it held."""
    start = time.monotonic()
    yield
    say(f"{verb} in {time.monotonic() - start:.1f} s{_peak_memory()}.")


def _peak_memory() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f", peak memory {peak / 1e9:.2f} GB"


def _capture_config(
    overrides: list[str] | None, head: str | None, consent: Path | None
) -> "CaptureConfig":
    from dataclasses import replace

    from avatar3d.capture import CaptureConfig
    from avatar3d.config import compose

    config = compose("capture", CaptureConfig, overrides or ())
    if consent is not None:
        config = replace(config, consent=str(consent))
    return replace(config, head_model=head) if head else config


def _schema(group: Group) -> type[Any]:
    if group is Group.capture:
        from avatar3d.capture import CaptureConfig

        return CaptureConfig
    if group is Group.motion:
        from avatar3d.motion.config import MotionConfig

        return MotionConfig
    if group is Group.evaluation:
        from avatar3d.evaluation import EvaluationConfig

        return EvaluationConfig
    if group is Group.conversion:
        from avatar3d.training.distill import DistillConfig

        return DistillConfig
    from avatar3d.training.kinds import KINDS

    kinds = dict(KINDS.values())
    return kinds[group.value]
