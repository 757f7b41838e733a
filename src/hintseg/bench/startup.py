"""What commands cost to start: each on the smallest job there is, in a fresh process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hintseg.data.shapes import write_shapes
from hintseg.errors import ConfigError, RunError, did_you_mean
from hintseg.training.watch import Watch

REPEATS = 5
"""Counted runs of each command."""

QUICK = (
    *("backbone.name=resnet10t", "backbone.weights=random", "propose.method=grabcut", "segment.method=segformer_head"),
    *("segment.fit.epochs=1", "segment.fit.crop=32", "segment.fit.batch_size=2", "test.scales=[1.0]"),
    *("trainer.workers=0", "trainer.precision=32-true"),
)
"""Settings with which a run of few photos takes seconds."""


@dataclass(frozen=True)
class Start:
    """What a command took.

    Attributes:
        command: Its name.
        cpu: Median of the CPU seconds, its own and the system's, of the process and all its threads.
        seconds: Median of the seconds that passed.
        runs: How often it was measured.
    """

    command: str
    cpu: float
    seconds: float
    runs: int


def starts(names: Sequence[str] = (), *, repeats: int = REPEATS, watch: Watch | None = None) -> Iterator[Start]:
    """Measure commands, one after the other.

    A run of each that is not counted comes first: it fills the caches of files and of compiled kernels.

    Args:
        names: Commands; all that are measured if empty.
        repeats: Counted runs of each.
        watch: Told about the progress.

    Raises:
        ConfigError: A command that is not measured.
        RunError: A command fails, or the system does not tell what a process cost (Windows).
    """
    if not hasattr(os, "wait4"):
        raise RunError("this system does not tell what a process cost; use --startup on Linux or macOS")
    with TemporaryDirectory(prefix="hintseg-startup-") as place:
        folder = Path(place)
        jobs = _jobs(folder)
        for name in names:
            if name not in jobs:
                raise ConfigError(f"no command '{name}'{did_you_mean(name, list(jobs))} (there are {', '.join(jobs)})")
        write_shapes(folder / "photos", train=4, val=2, size=32)
        _run(jobs["train"], folder)
        chosen = list(names or jobs)
        for name in (watch or Watch()).each("starting commands", chosen, len(chosen)):
            _run(jobs[name], folder)
            found = [_run(jobs[name], folder) for _ in range(repeats)]
            cpu, seconds = (statistics.median(values) for values in zip(*found, strict=True))
            yield Start(name, cpu, seconds, repeats)


def _jobs(folder: Path) -> dict[str, list[str]]:
    photos, run = folder / "photos", folder / "run"
    photo = photos / "JPEGImages" / "train_0000.png"

    def words(*given: str | Path) -> list[str]:
        return [str(word) for word in given]

    return {
        "list": words("list", "methods"),
        "check": words("check", photos),
        "evaluate": words("evaluate", run / "segment" / "masks", photos / "SegmentationClass"),
        "report": words("report", run),
        "masks": words("masks", run, "--out", folder / "masks", "--overwrite"),
        "predict": words("predict", run, photo, "--out", folder / "predicted", "--overwrite"),
        "export": words("export", run, "--out", folder / "model.onnx", "--size", "32", "32", "--overwrite"),
        "train": words("train", photos, "--recipe", "boxes", "--out", run, "--overwrite", *QUICK),
    }


def _run(words: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return its CPU seconds and the seconds that passed."""
    began = time.monotonic()
    with (folder / "said.txt").open("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen([sys.executable, "-m", "hintseg", *words], stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        if process.returncode != 0:
            said.seek(0)
            raise RunError(f"hintseg {words[0]} ended with {process.returncode}: {said.read()[-2000:]}")
    return used.ru_utime + used.ru_stime, seconds
