"""Run compiled kernels on as many threads as torch uses.

Plain threads rather than numba's own parallel loops: those share OpenMP with torch and reset its thread count, spin
at every loop's end (milliseconds each on a busy machine), and may not be used from a forked process or two threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import torch


class Job(NamedTuple):
    """A kernel and what it works on."""

    kernel: Callable[..., None]
    """Called with (begin, end, *arguments); it releases the interpreter lock. What it writes for an item must not
    depend on the range the item came in: then results do not depend on the number of threads."""
    size: int
    """Number of items."""
    arguments: tuple[Any, ...]
    """Passed on."""
    grain: int = 1
    """Smallest range worth a thread."""


def run(kernel: Callable[..., None], size: int, *arguments: Any, grain: int = 1) -> None:
    """Run one job: call `kernel(begin, end, *arguments)` for ranges that cover range(size)."""
    run_all([Job(kernel, size, arguments, grain)])


def run_all(jobs: Sequence[Job]) -> None:
    """Run jobs that do not wait for each other, in ranges that cover the items of each."""
    threads = torch.get_num_threads()
    # Four ranges a thread even out unequal work; many jobs are as good as many ranges.
    most = max(2, 4 * threads // len(jobs)) if threads > 1 else 1
    waiting = deque(
        (job, job.size * i // ranges, job.size * (i + 1) // ranges)
        for job in jobs
        for ranges in [max(1, min(most, job.size // job.grain))]
        for i in range(ranges)
    )

    def work() -> None:
        while True:
            try:
                job, begin, end = waiting.popleft()
            except IndexError:
                return
            job.kernel(begin, end, *job.arguments)

    helpers = [_pool(os.getpid()).submit(work) for _ in range(min(threads, len(waiting)) - 1)]
    work()
    for helper in helpers:
        # On a busy machine a helper may not have started when all is done.
        if not helper.cancel():
            helper.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    # A forked process has none of its parent's threads: each process id has a pool of its own.
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix=f"hintseg-refine-{process}")
