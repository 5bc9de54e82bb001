"""Listeners of a training run: TensorBoard curves and preview pictures."""

from pathlib import Path

from avatar3d.io.atomic import atomic_path
from avatar3d.training.events import Event, Preview, Step

__all__ = ["PreviewWriter", "TensorBoardLog"]


class TensorBoardLog:
    """Writes the loss of every tenth step to `RUN/tensorboard`."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step) and event.iteration % 10 == 0:
            self._writer.add_scalar(f"loss/{event.phase}", event.loss, event.iteration)
        elif isinstance(event, Preview):
            self._writer.add_image("preview", event.image, event.iteration, dataformats="HWC")
            self._writer.flush()


class PreviewWriter:
    """Keeps the newest preview as `RUN/preview.jpg`: frame, render, five-fold difference."""

    def __init__(self, run: Path) -> None:
        self._path = run / "preview.jpg"

    def __call__(self, event: Event) -> None:
        import imageio.v3 as iio

        if isinstance(event, Preview):
            with atomic_path(self._path) as temporary:
                iio.imwrite(temporary, event.image, quality=92)
