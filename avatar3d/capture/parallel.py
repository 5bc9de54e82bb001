"""Ordered map over threads with a bounded queue."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["PerThread", "parallel_map"]

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


class PerThread(Generic[B]):
    """One instance per thread of something that is not thread-safe, e.g. a detector."""

    def __init__(self, make: Callable[[], B]) -> None:
        self._make, self._local, self._lock = make, threading.local(), threading.Lock()

    def get(self) -> B:
        if not hasattr(self._local, "value"):
            with self._lock:  # mediapipe's graphs must not be built at the same time
                self._local.value = self._make()
        return self._local.value
