"""Kill runs at random moments, resume them, and compare every file with those of a run that was left alone.

python benchmarks/kills.py [--recipe vwe] [--kills 20] [--seed 0] [--per-run 3] [--signal KILL] [--out FOLDER]
    [KEY=VALUE ...]

Each run is killed `per-run` times at moments drawn evenly from the time that the unbroken one took, then resumed until
it ends. Prints the kills tried, how many runs are equal, and every file that differs; exits 1 if any does.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hintseg.data.shapes import write_shapes

LEFT_OUT = {"report.html", "history.csv", ".hintseg"}
"""Files that tell of time, and the list of what was written, in its order."""

SMALL = ["backbone.name=resnet10t", "backbone.weights=random", "backbone.output_stride=16", "backbone.levels=null"]
SMALL += ["trainer.workers=0", "trainer.accelerator=cpu", "trainer.checkpoint_minutes=0.002", "test.scales=[1.0]"]
SEGMENT = ["segment.fit.epochs=2", "segment.fit.crop=48", "segment.fit.batch_size=4"]
QUICK = {
    "vwe": [
        *SMALL,
        *SEGMENT,
        "maps.scales=[1.0]",
        *(f"{stage}.fit.{key}" for stage in ("localize", "refine") for key in ("epochs=2", "crop=48", "batch_size=4")),
    ],
    "bmp": [*SMALL, *SEGMENT, "maps.scales=[1.0]"],
    "boxes": [*SMALL, *SEGMENT, "propose.size=64", "propose.fit.epochs=2", "propose.fit.batch_size=8"],
}
QUICK["demo"] = QUICK["vwe"]
"""Settings by recipe with which a run takes seconds."""


def command(recipe: str, photos: Path, out: Path, settings: Sequence[str] = ()) -> list[str]:
    """Return the command of a small run."""
    verb = ["demo"] if recipe == "demo" else ["train", str(photos), "--recipe", recipe]
    return [sys.executable, "-m", "hintseg", *verb, "--out", str(out), *QUICK[recipe], *settings]


def run(words: Sequence[str], *, after: float | None = None, number: int = signal.SIGKILL) -> tuple[int, str]:
    """Run a command; send it a signal after some seconds, if it still runs. Return its exit code and stderr."""
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have it ignored
    )
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, said = process.communicate()
    return process.returncode, said


def contents(folder: Path) -> dict[str, bytes]:
    """Return what every file of a run holds."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in LEFT_OUT)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def differing(one: Path, other: Path) -> list[str]:
    """Return the names of files that are not equal, or in one of two runs only."""
    first, second = contents(one), contents(other)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(QUICK), default="vwe")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-run", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    words = parser.parse_args()
    chance, number = random.Random(words.seed), signal.Signals[f"SIG{words.signal}"]
    with TemporaryDirectory() as temporary:
        folder = words.out or Path(temporary)
        out, photos = folder / "run", folder / "run-photos"  # where `demo` has its photos
        write_shapes(photos, train=14, val=4, size=64)
        began = time.monotonic()
        code, said = run(command(words.recipe, photos, out, words.settings))
        assert code == 0, said
        seconds = time.monotonic() - began
        whole = out.rename(folder / "whole")
        kills = equal = runs = 0
        while kills < words.kills:
            runs += 1
            moments = []
            again: list[str] = []
            for _ in range(words.per_run):
                moments.append(chance.uniform(0.1, seconds))
                begin = command(words.recipe, photos, out, words.settings)
                code, said = run([*begin, *again], after=moments[-1], number=number)
                kills += 1
                if code not in (0, -number, 128 + number) or "Traceback" in said:
                    print(f"run {runs}: code {code} after {moments[-1]:.2f} s: {said}", flush=True)
                again = ["--resume"] if out.exists() else []
            code, said = run([*command(words.recipe, photos, out, words.settings), *again])
            wrong = differing(whole, out) if code == 0 else [f"code {code}: {said}"]
            equal += not wrong
            shown = ", ".join(f"{moment:.2f}" for moment in moments)
            print(f"run {runs}: killed at {shown} s: {wrong or 'equal'}", flush=True)
            if out.exists():
                out.rename(folder / f"killed-{runs}")
    print(f"{words.recipe}, {seconds:.1f} s a run: {kills} kills (SIG{words.signal}), {equal} of {runs} runs equal")
    return int(equal < runs)


if __name__ == "__main__":
    sys.exit(main())
