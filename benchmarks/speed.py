"""How fast, as data: `hintseg bench` and `hintseg bench --startup` measured, kept and written into the docs.

Times are medians of versions that take turns in one process, so what counts are the ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import results
from benchmarks.results import Result
from hintseg.bench import OPERATIONS, measure, rates
from hintseg.bench.startup import starts

BENCH, STARTUP = "bench", "startup"
"""Names of the two tables."""

_COLUMNS = {
    "seconds": ("seconds", "seconds"),
    "plain_seconds": ("plain, seconds", "seconds"),
    "ratio": ("plain / ours", "ratio"),
    "library_ratio": ("C++ library / ours", "ratio"),
    "peak": ("peak", "bytes"),
    "plain_peak": ("plain, peak", "bytes"),
    "difference": ("differ by", "difference"),
}
"""Fields of a row of `hintseg bench`, their columns and metrics."""


def run_bench(threads: Sequence[int], *, tiny: bool = False, folder: Path = results.FOLDER) -> list[Result]:
    """Measure every operation with each number of threads, and keep each at once: minutes each, the slow ones.

    What this version of the code has measured is not measured again; what others have is dropped.

    Args:
        threads: CPU threads.
        tiny: Small sizes, to try it.
        folder: Folder of the results.
    """
    version = results.version()
    found = [one for one in results.read(BENCH, folder) if one.version == version]
    device = torch.device("cpu")
    for count in threads:
        counted = f"{count} thread{'s' * (count > 1)}"
        done = {one.row.split(",")[0] for one in found if one.data == counted}
        missing = [operation for name, operation in OPERATIONS.items() if name not in done]
        if not missing:
            continue
        reach = rates(device, count, tiny=tiny)
        for operation in missing:
            row = measure(operation, device, reach, tiny=tiny)
            for name, (column, metric) in _COLUMNS.items():
                if (value := getattr(row, name)) is not None:
                    command = f"hintseg bench '{row.name}' --threads {count}"
                    label = f"{row.name}, {row.shape}"
                    one = results.measured(BENCH, label, column, value, data=counted, metric=metric, command=command)
                    found.append(one)
            results.write(BENCH, found, folder)
    return found


def run_startup(*, folder: Path = results.FOLDER) -> list[Result]:
    """Measure what each command costs to start; what was there is replaced."""
    found = []
    for row in starts(()):
        for column, value in (("CPU seconds", row.cpu), ("seconds", row.seconds)):
            command = f"hintseg bench --startup {row.command}"
            one = results.measured(STARTUP, row.command, column, value, data="", metric="seconds", command=command)
            found.append(one)
    results.write(STARTUP, found, folder)
    return found


def markdown(name: str, found: Sequence[Result]) -> str:
    """Return one of the two tables, and what it was measured with."""
    if not found:
        return "Not measured."
    table = _bench(found) if name == BENCH else _startup(found)
    return f"{table}\n\n{results.source(found)} Again: `python -m benchmarks {name}`."


def _bench(found: Sequence[Result]) -> str:
    counts = list(dict.fromkeys(sorted(one.data for one in found)))
    values = {(one.row, one.data, one.column): one.value for one in found}
    heads = ["operation"]
    for count in counts:
        heads += [f"ours, {count}", "plain / ours"]
    heads += [f"C++ library / ours, {' and '.join(counts)}", "memory, MiB: ours, plain", "differ by", "GPU"]
    rows = []
    for row in dict.fromkeys(one.row for one in found):
        cells = [row]
        for count in counts:
            ratio = values.get((row, count, "plain / ours"))
            cells += [f"{1000 * values[row, count, 'seconds']:.1f} ms", "" if ratio is None else f"{ratio:.1f}"]
        beside = [values[key] for count in counts if (key := (row, count, "C++ library / ours")) in values]
        peaks = [values[key] / 2**20 for kind in ("peak", "plain, peak") if (key := (row, counts[0], kind)) in values]
        apart = values.get((row, counts[0], "differ by"))
        cells += [", ".join(f"{ratio:.1f}" for ratio in beside), ", ".join(f"{peak:.0f}" for peak in peaks)]
        cells += ["" if apart is None else f"{apart:.0e}", "not measured"]
        rows.append(cells)
    return results.grid(heads, rows)


def _startup(found: Sequence[Result]) -> str:
    values = {(one.row, one.column): one.value for one in found}
    heads = ["command", "CPU seconds", "seconds"]
    names = dict.fromkeys(one.row for one in found)
    return results.grid(heads, ([f"`{row}`", *(f"{values[row, title]:.1f}" for title in heads[1:])] for row in names))
