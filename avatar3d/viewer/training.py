"""A training watched in the browser: frame beside render, and the avatar with its sliders."""

import time

from avatar3d.progress import say
from avatar3d.training.events import Done, Event, Started
from avatar3d.viewer.live import LiveViewer

__all__ = ["TrainingViewer"]

_SECONDS_BETWEEN = 2.0


class TrainingViewer:
    """A listener of training events that serves the avatar as it is now.

    Args:
        port: first port to try.
        host: address to listen on.

    Raises:
        UserError: viser is not installed.
    """

    def __init__(self, port: int = 8080, host: str = "127.0.0.1") -> None:
        self._address = host, port
        self._viewer: LiveViewer | None = None
        self._started: Started | None = None
        self._next = 0.0
        self._turn = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._started = event
            host, port = self._address
            self._viewer = LiveViewer(event.avatar(), port, host)
            say(f"Watch the training at http://{host}:{self._viewer.port}.")
        if self._viewer is None or self._started is None:
            return
        if isinstance(event, Done):
            self._viewer.show(event.avatar)
        elif time.monotonic() >= self._next:
            # Walk through the clip, in strides that do not meet the same frames again soon.
            frames = self._started.frames
            self._turn += len(frames) // 7 + 1
            frame = int(frames[self._turn % len(frames)])
            self._viewer.show(self._started.avatar(), self._started.preview(frame).image)
            self._next = time.monotonic() + _SECONDS_BETWEEN

    def stop(self) -> None:
        """Shut the server down."""
        if self._viewer is not None:
            self._viewer.stop()
