"""Time, memory and reach of an operation, and what the machine could do at best."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hintseg.bench import libraries
from hintseg.bench.operations import OPERATIONS, Operation
from hintseg.pipeline.memory import reset_peak_memory

REPEATS = 5
"""Timed runs of each version."""

PATIENCE = 10.0
"""A plain version that takes longer than these seconds is run once."""

PLAIN = Path(__file__).resolve().parents[3] / "benchmarks" / "plain.py"
"""The plain versions: part of the source tree, not of the installed package."""


@dataclass(frozen=True)
class Rates:
    """The best this machine does with as many threads.

    Attributes:
        threads: CPU threads.
        copy: Bytes a second, read and written, when a large array is copied.
        multiply: Additions and multiplications a second in a large float32 matrix product.
    """

    threads: int
    copy: float
    multiply: float


@dataclass(frozen=True)
class Row:
    """What was measured of one operation; `plain` fields are None where the plain version was not run.

    Attributes:
        name: The operation.
        shape: Its sizes.
        device: `cpu` or `cuda`.
        threads: CPU threads.
        photos: Photos in one run.
        seconds: Median of ours.
        runs: Timed runs of ours.
        peak: Largest memory of ours beside its arguments, bytes.
        bytes: Bytes that ours moves.
        operations: Additions and multiplications of ours.
        copy_share: `bytes` a second over the machine's copy rate.
        multiply_share: `operations` a second over the machine's multiply rate.
        plain_seconds: Median of the plain version.
        plain_runs: Its timed runs; 1 if it took longer than `PATIENCE`.
        plain_peak: Its largest memory beside the arguments, bytes.
        ratio: `plain_seconds` / `seconds`.
        difference: Largest absolute difference of the results.
        library_seconds: Median of the library beside ours; None where there is none or it is not installed.
        library_ratio: `library_seconds` / `seconds`.
        library_difference: Mean absolute difference of its result from ours.
    """

    name: str
    shape: str
    device: str
    threads: int
    photos: int
    seconds: float
    runs: int
    peak: int
    bytes: int
    operations: int
    copy_share: float
    multiply_share: float
    plain_seconds: float | None = None
    plain_runs: int = 0
    plain_peak: int | None = None
    ratio: float | None = None
    difference: float | None = None
    library_seconds: float | None = None
    library_ratio: float | None = None
    library_difference: float | None = None


def measure(
    operation: Operation,
    device: torch.device,
    rates: Rates,
    *,
    slow: bool = False,
    tiny: bool = False,
    repeats: int = REPEATS,
) -> Row:
    """Measure one operation with as many threads as `rates` were measured with.

    Ours, the plain version and the library take turns in this process, after a run of each that is not counted.
    Memory is measured in a fresh process each: the high-water mark of the resident set during one run, less what was
    resident before it (arguments, libraries); on an accelerator the allocator's own peak.

    Args:
        operation: The row.
        device: Where it runs.
        rates: What the machine does at best.
        slow: Whether to run plain versions that take minutes.
        tiny: Small sizes, to try the command.
        repeats: Timed runs of each.
    """
    torch.set_num_threads(rates.threads)
    case = operation.make(device, tiny)
    plain = getattr(load_plain(), operation.plain) if PLAIN.is_file() and (slow or not operation.slow) else None

    def seconds(function: Callable[..., Any]) -> tuple[float, Any]:
        _synchronise(device)
        began = time.perf_counter()
        result = function(**case.arguments)
        _synchronise(device)
        return time.perf_counter() - began, result

    _, result = seconds(operation.ours)
    ours: list[float] = []
    theirs: list[float] = []
    difference = None
    if plain is not None:
        first, expected = seconds(plain)
        difference = largest_difference(result, expected)
        del expected
        if first > PATIENCE:
            theirs = [first]
    library = None if device.type != "cpu" or libraries.missing() else operation.library
    other: list[float] = []
    apart = None if library is None else mean_difference(result, library(**case.arguments))
    del result
    again = plain is not None and not theirs
    for _ in range(repeats):
        ours.append(seconds(operation.ours)[0])
        if again and plain is not None:
            theirs.append(seconds(plain)[0])
        if library is not None:
            other.append(seconds(library)[0])
    median = statistics.median(ours)
    plain_median = statistics.median(theirs) if theirs else None
    library_median = statistics.median(other) if other else None
    return Row(
        name=operation.name,
        shape=case.shape,
        device=device.type,
        threads=rates.threads,
        photos=case.photos,
        seconds=median,
        runs=len(ours),
        peak=peak_memory(operation.name, device, rates.threads, plain=False, tiny=tiny),
        bytes=case.bytes,
        operations=case.operations,
        copy_share=case.bytes / median / rates.copy,
        multiply_share=case.operations / median / rates.multiply,
        plain_seconds=plain_median,
        plain_runs=len(theirs),
        plain_peak=None if plain is None else peak_memory(operation.name, device, rates.threads, plain=True, tiny=tiny),
        ratio=None if plain_median is None else plain_median / median,
        difference=difference,
        library_seconds=library_median,
        library_ratio=None if library_median is None else library_median / median,
        library_difference=apart,
    )


def load_plain() -> ModuleType:
    """Import `benchmarks/plain.py` of the source tree."""
    spec = importlib.util.spec_from_file_location("hintseg_plain", PLAIN)
    if spec is None or spec.loader is None:
        raise ImportError(f"{PLAIN} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def largest_difference(ours: Any, plain: Any) -> float:
    """Return the largest absolute difference of two results: tensors, arrays, or lists of them.

    Example:
        >>> largest_difference([torch.ones(2)], [np.array([1.0, 0.5])])
        0.5
    """
    if isinstance(ours, list):
        return max(largest_difference(a, b) for a, b in zip(ours, plain, strict=True))
    first, second = (
        (value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)).astype(np.float64)
        for value in (ours, plain)
    )
    return float(np.abs(first - second).max())


def mean_difference(ours: Tensor, other: Tensor) -> float:
    """Return the mean absolute difference.

    Another library may round a pixel on the border of two simplices to the other one: that moves the largest
    difference, and hardly the mean.
    """
    return float((ours.double() - other.double()).abs().mean())


def peak_memory(name: str, device: torch.device, threads: int, *, plain: bool, tiny: bool) -> int:
    """Return how far one run raises the memory of a fresh process, bytes; 0 where the system does not tell."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, name, str(device), threads, plain, tiny).result()


def _peak(name: str, device_name: str, threads: int, plain: bool, tiny: bool) -> int:
    torch.set_num_threads(threads)
    operation, device = OPERATIONS[name], torch.device(device_name)
    function = getattr(load_plain(), operation.plain) if plain else operation.ours
    # Libraries and compiled kernels are no part of it: a small run loads them.
    function(**operation.make(device, True).arguments)
    case = operation.make(device, tiny)
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc gives back what the small run freed; elsewhere it may count less
        ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function(**case.arguments)
        return int(torch.cuda.max_memory_allocated(device) - before)
    reset_peak_memory()
    before = _resident("VmRSS")
    result = function(**case.arguments)
    peak = _resident("VmHWM")
    del result  # its memory counts
    return max(0, peak - before)


def _resident(line: str) -> int:
    """Return a line of Linux's account of this process, bytes; 0 elsewhere."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((1024 * int(row.split()[1]) for row in status.splitlines() if row.startswith(f"{line}:")), 0)


def rates(device: torch.device, threads: int, *, tiny: bool = False) -> Rates:
    """Measure how fast the machine copies and multiplies: medians of large arrays."""
    torch.set_num_threads(threads)
    values = torch.ones((1 << 20) if tiny else (1 << 26), device=device)
    target = torch.empty_like(values)
    side = 256 if tiny else 2048
    matrix = torch.ones(side, side, device=device)
    product = torch.empty_like(matrix)

    def median(function: Callable[[], Any]) -> float:
        taken = []
        for _ in range(REPEATS + 1):
            _synchronise(device)
            began = time.perf_counter()
            function()
            _synchronise(device)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])

    copied = median(lambda: target.copy_(values))
    multiplied = median(lambda: torch.mm(matrix, matrix, out=product))
    return Rates(threads, 2 * values.nbytes / copied, 2 * side**3 / multiplied)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return what the figures were measured on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # only Linux on x86 keeps such a file
    libraries = {library: version(library) for library in ("hintseg", "torch", "numba", "numpy")}
    facts = {"processor": name, "cores": os.cpu_count(), "python": platform.python_version(), **libraries}
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
