"""Run compiled kernels on as many threads as torch uses.

Plain threads rather than numba's own parallel loops: those share OpenMP with torch and reset its thread count, spin
at every loop's end (milliseconds each on a busy machine), and may not be used from a forked process or two threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch


def run(kernel: Callable[..., None], size: int, *arguments: Any, grain: int = 1) -> None:
    """Call `kernel(begin, end, *arguments)` for ranges that cover range(size).

    Args:
        kernel: A function that releases the interpreter lock. What it writes for an item must not depend on the
            range the item came in: then results do not depend on the number of threads.
        size: Number of items.
        arguments: Passed on.
        grain: Smallest range worth a thread.
    """
    threads = torch.get_num_threads()
    # Four ranges a thread even out unequal work.
    ranges = max(1, min(4 * threads, size // grain)) if threads > 1 else 1
    waiting = deque((size * i // ranges, size * (i + 1) // ranges) for i in range(ranges))

    def work() -> None:
        while True:
            try:
                begin, end = waiting.popleft()
            except IndexError:
                return
            kernel(begin, end, *arguments)

    helpers = [_pool(os.getpid()).submit(work) for _ in range(min(threads, ranges) - 1)]
    work()
    for helper in helpers:
        # On a busy machine a helper may not have started when all is done.
        if not helper.cancel():
            helper.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    # A forked process has none of its parent's threads: each process id has a pool of its own.
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix=f"hintseg-refine-{process}")
