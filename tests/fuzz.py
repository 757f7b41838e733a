"""Fuzz every reader for as long as asked: `python tests/fuzz.py --minutes 60`."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import given, seed

from fuzzing import TARGETS, Target, common, survives


class Found(NamedTuple):
    """Inputs by target, the first of each kind of failure, and the most seconds an input took."""

    done: dict[str, int]
    failures: dict[str, str]
    slowest: list[float]

    def fuzz(self, name: str, target: Target, number: int, end: float) -> None:
        @seed(number)
        @common(max(1, 40 // target.cost), repeatable=False)
        @given(target.examples)
        def one(example: Any) -> None:
            if time.monotonic() > end:
                return
            self.done[name] = self.done.get(name, 0) + 1
            began = time.process_time()
            try:
                survives(target, example)
            except Exception as error:
                trace = traceback.extract_tb(error.__traceback__)
                key = f"{name}: {type(error).__name__} at {Path(trace[-1].filename).name}:{trace[-1].lineno}"
                if key not in self.failures:
                    self.failures[key] = f"{str(error)[:300]}\n  input: {example!r:.600}\n"
                    sys.stdout.write(
                        f"FAILED {key}: {self.failures[key]}{''.join(traceback.format_list(trace[-5:]))}\n"
                    )
                    sys.stdout.flush()
            self.slowest[0] = max(self.slowest[0], (time.process_time() - began) / target.cost)

        one()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz every reader; exit 1 where one fails.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", default="", help="part of the names of the targets")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable()
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes
    found = Found({}, {}, [0.0])
    with tempfile.TemporaryDirectory() as place:
        targets: dict[str, Target] = {}
        for number, make in enumerate(TARGETS):
            folder = Path(place, str(number))
            folder.mkdir()
            targets |= make(folder)
        targets = {name: target for name, target in targets.items() if arguments.only in name}
        seeds = arguments.seed
        while time.monotonic() < end:
            seeds += 1
            for name, target in targets.items():
                found.fuzz(name, target, seeds, end)
    for name, count in sorted(found.done.items()):
        sys.stdout.write(f"{count:8d} {name}\n")
    total, kinds = sum(found.done.values()), len(found.failures)
    sys.stdout.write(f"{total} inputs, {kinds} different failures, slowest {found.slowest[0]:.1f} s\n")
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
