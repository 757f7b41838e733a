"""Results as data: one JSON file a table, one entry a number."""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

import hintseg

FOLDER = Path(__file__).parent / "results"


class Result(BaseModel):
    """One number of a table.

    Attributes:
        table: Name of the table.
        row: Its row.
        data: The data set.
        seed: The run's seed.
        column: Title of the column.
        split: Split it was measured on; empty for what is of no split, such as seconds.
        metric: `miou`, `boundary_iou`, `seconds`, `peak_mib`, or what else was counted.
        value: IoU 0..1, seconds, MiB.
        protocol: How it was measured: scales, CRF, whether tags were used, where the threshold is from.
        command: The command that makes it again.
        version: Version of the package and a hash of its code.
        machine: Processor and cores.
        date: Day it was measured, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    row: str
    data: str
    seed: int
    column: str
    split: str
    metric: str
    value: float
    protocol: str
    command: str
    version: str
    machine: str
    date: str


def measured(
    table: str,
    row: str,
    column: str,
    value: float,
    *,
    data: str,
    metric: str,
    command: str,
    seed: int = 0,
    split: str = "",
    protocol: str = "",
) -> Result:
    """Return what was measured now, with this code on this machine; see `Result`."""
    return Result(
        table=table,
        row=row,
        data=data,
        seed=seed,
        column=column,
        split=split,
        metric=metric,
        value=value,
        protocol=protocol,
        command=command,
        version=version(),
        machine=machine(),
        date=datetime.now(UTC).date().isoformat(),
    )


def spread(values: Sequence[float]) -> str:
    """Return the mean and, of several, the standard deviation; one decimal.

    Example:
        >>> spread([1.0, 3.0]), spread([2.0]), spread([])
        ('2.0 ± 1.4', '2.0', '')
    """
    if not values:
        return ""
    apart = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{apart}"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def source(found: Sequence[Result]) -> str:
    """Return what results were measured with: versions, machines and the first and the last day."""
    versions, machines, dates = (
        sorted({getattr(one, name) for one in found}) for name in ("version", "machine", "date")
    )
    span = " to ".join(sorted({dates[0], dates[-1]}))
    return f"Version {', '.join(versions)}; {'; '.join(machines)}; {span}."


def commands(words: Iterable[str]) -> str:
    """Return commands as a block, each once."""
    return "\n".join(["```sh", *dict.fromkeys(words), "```"])


_Results = TypeAdapter(list[Result])


def read(table: str, folder: Path = FOLDER) -> list[Result]:
    """Return the results of a table; none where it was not run."""
    file = folder / f"{table}.json"
    return _Results.validate_json(file.read_bytes()) if file.is_file() else []


def write(table: str, results: list[Result], folder: Path = FOLDER) -> None:
    """Write the results of a table, whole or not at all, in an order of their own."""
    folder.mkdir(exist_ok=True)
    beside = folder / f".{table}.part"
    ordered = sorted(results, key=lambda one: (one.data, one.row, one.seed, one.column))
    beside.write_bytes(_Results.dump_json(ordered, indent=1) + b"\n")
    beside.replace(folder / f"{table}.json")


def version() -> str:
    """Return the package's version and a hash of its code."""
    digest = hashlib.sha256()
    root = Path(hintseg.__file__).parent
    for file in sorted([*root.rglob("*.py"), *root.rglob("*.yaml")]):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{hintseg.__version__} {digest.hexdigest()[:10]}"


def machine() -> str:
    """Return the processor and its cores, in words."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        facts = dict(line.split(":", 1) for line in cpu.read_text().split("\n\n")[0].splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        flags = facts.get("flags", "").split()
        kinds = [words for flag, words in _FLAGS.items() if flag in flags]
        name = ", ".join([facts.get("model name", name), *kinds[:1]])
    return f"{name}, {os.cpu_count()} cores"


_FLAGS = {"avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}
