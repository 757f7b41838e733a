"""Files encoded and written on threads, beside the work that makes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

WAITING = 16
"""Writes that may wait; more make the caller wait, so that a slow disk does not fill the memory."""


@contextmanager
def write_pool(workers: int = 2, waiting: int = WAITING) -> Iterator[Callable[..., None]]:
    """Yield `write_behind(function, *arguments, **settings)`, which runs the call on a thread.

    All calls are done when the block ends. The error of a call is raised by a later one or at the end of the block;
    after an error in the block itself, calls that have not begun are dropped.

    Args:
        workers: Threads. Encoders of PNG, JPEG and zlib, and OpenCV, release the interpreter lock.
        waiting: Calls that may wait; fewer where each holds much memory.

    Example:
        >>> found = []
        >>> with write_pool() as write_behind:
        ...     for number in range(3):
        ...         write_behind(found.append, number)
        >>> sorted(found)
        [0, 1, 2]
    """
    queue: deque[Future[Any]] = deque()

    def write_behind(function: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
        while queue and (queue[0].done() or len(queue) >= waiting):
            queue.popleft().result()
        queue.append(pool.submit(function, *arguments, **settings))

    with ThreadPoolExecutor(workers, thread_name_prefix="hintseg-write") as pool:
        try:
            yield write_behind
            while queue:
                queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()
