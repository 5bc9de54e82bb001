"""Ordered map over threads with a bounded queue, and what threads share."""

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

__all__ = ["Spares", "parallel_map", "silenced", "single_threaded"]

A = TypeVar("A")
B = TypeVar("B")


def parallel_map(work: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`map` over threads, in order, with at most 2 x workers items in flight.

    The libraries called here (codecs, OpenCV, mediapipe) release the interpreter lock.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Spares(Generic[B]):
    """Ready-made instances of something that serves one thread at a time, e.g. a detector."""

    def __init__(self, make: Callable[[], B], count: int) -> None:
        self._spares: SimpleQueue[B] = SimpleQueue()
        for _ in range(count):
            self._spares.put(make())

    def close(self) -> None:
        """Close those that can be closed; mediapipe keeps the memory of its models otherwise."""
        while not self._spares.empty():
            close = getattr(self._spares.get(), "close", None)
            if close is not None:
                close()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[B]:
        spare = self._spares.get()
        try:
            yield spare
        finally:
            self._spares.put(spare)


@contextlib.contextmanager
def single_threaded(torch_too: bool = True) -> Iterator[None]:
    """Frames are worked on in parallel; the threads of OpenCV, of numpy's linear algebra and of
    torch would only get in the way: they wait for each other by spinning."""
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    if torch_too:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        cv2.setNumThreads(before[0])
        if torch_too:
            torch.set_num_threads(before[1])


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what native libraries write straight to the error stream from the person's terminal.

    Some (mediapipe) log there while they start, whatever they are told. Python's own messages of
    this moment are lost too, so nothing else should be going on.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # there is no error stream, e.g. under pythonw
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
