"""Listeners of a training run: TensorBoard curves, preview pictures and a preview video."""

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from avatar3d.io.video import write_video
from avatar3d.progress import say
from avatar3d.provenance import declared_path, slot
from avatar3d.training.events import Event, HeldBack, Preview, PreviewClip, Said, Step

__all__ = ["PreviewWriter", "sayer", "tensorboard_log"]


def tensorboard_log(run: Path) -> Callable[[Event], None]:
    """Writes every tenth step's losses to `RUN/tensorboard`; nothing where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda event: None
    _let_its_thread_die_quietly()
    writer = SummaryWriter(str(run / "tensorboard"))

    def log(event: Event) -> None:
        if isinstance(event, Step) and event.iteration % 10 == 0:
            writer.add_scalar(f"loss/{event.phase}", event.loss, event.iteration)
            for name, value in event.terms.items():
                writer.add_scalar(f"{name}/{event.phase}", value, event.iteration)
        elif isinstance(event, HeldBack):
            writer.add_scalar("loss/held back", event.loss, event.iteration)
        elif isinstance(event, Preview):
            name = f"preview/frame {event.frame}"
            half = event.image[::2, ::2]  # it writes PNG, which takes its time
            writer.add_image(name, half, event.iteration, dataformats="HWC")
            writer.flush()

    return log


@cache
def _let_its_thread_die_quietly() -> None:
    """No traceback when TensorBoard's thread cannot write: its next call raises the same error."""
    otherwise = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        theirs = type(args.thread).__module__.startswith("tensorboard.")
        if not (theirs and isinstance(args.exc_value, OSError)):
            otherwise(args)

    threading.excepthook = hook


class PreviewWriter:
    """Keeps the newest previews in the run folder.

    `preview.jpg` is frame, render and five-fold difference, `preview.mp4` frame beside render.
    """

    def __init__(self, run: Path) -> None:
        self._run = run

    def __call__(self, event: Event) -> None:
        if isinstance(event, Preview):
            from PIL import Image

            with declared_path(self._run / "preview.jpg") as temporary:
                picture = Image.fromarray(event.image)
                picture.save(temporary, quality=92, xmp=slot().encode())
        elif isinstance(event, PreviewClip):
            write_video(self._run / "preview.mp4", event.pictures(), event.fps)


def sayer(event: Event) -> None:
    """Tells the person what they may want to know."""
    if isinstance(event, Said):
        say(event.message)
