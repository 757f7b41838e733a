"""``history.csv``: when a run began, was gone on with and ended its stages, on which machine, at what cost.

It stands apart from the manifest, which is the same for equal runs.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from hintseg.errors import RunError
from hintseg.files.atomic import whole_file


class Event(NamedTuple):
    """One row.

    Attributes:
        when: UTC, ISO 8601.
        what: `began`, `resumed`, or a stage that ended.
        seconds: What the stage took, from its start or from the resume that ended it.
        peak_memory_mb: Largest resident memory meanwhile, MiB.
        machine: Processor kind and cores.
        command: The command line.
    """

    when: str
    what: str
    seconds: float | None = None
    peak_memory_mb: int | None = None
    machine: str = ""
    command: str = ""


def add_event(path: Path, what: str, *, seconds: float | None = None, peak_memory_mb: int | None = None) -> None:
    """Add a row to a run's history; it is written whole or not at all."""
    event = Event(
        datetime.now(UTC).isoformat(timespec="seconds"),
        what,
        None if seconds is None else round(seconds, 1),
        peak_memory_mb,
        f"{platform.machine()}, {os.cpu_count()} cores",
        shlex.join(["hintseg", *sys.argv[1:]]),
    )
    rows = [*read_history(path), event]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Event._fields, *rows])
    with whole_file(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def read_history(path: Path) -> list[Event]:
    """Return the rows of a history, oldest first; none where there is no file.

    Raises:
        RunError: The file cannot be read.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [row for row in csv.reader(file) if row]
        return [
            Event(when, what, float(took) if took else None, int(peak) if peak else None, machine, command)
            for when, what, took, peak, machine, command in rows[1:]
        ]
    except (OSError, csv.Error, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete it: the run does not need it") from error
