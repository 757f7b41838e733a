"""Masks of n photos over r processes with fixed work for each.

python benchmarks/scale.py [--photos 48] [--size 192] [--processes 1 2] [--rounds 3]

Trains a small segmenter for an epoch on `shapes`, then runs `hintseg predict` through torchrun on `photos` x r photos
with r processes of one thread each. Efficiency is the time of one process over that of r: 1 where nothing is shared.
Start-up (imports, finding each other) is measured on one photo per process and taken off.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import hintseg
from hintseg.data.shapes import write_shapes

QUICK = [
    "backbone.name=resnet10t",
    "backbone.weights=random",
    *(f"{stage}.fit.{key}" for stage in ("localize", "refine", "segment") for key in ("epochs=1", "crop=96")),
    "trainer.workers=0",
    "trainer.pictures=0",
]


def predict(run: Path, photos: Path, out: Path, processes: int) -> float:
    """Return the seconds that `processes` take for the masks of a folder of photos."""
    shutil.rmtree(out, ignore_errors=True)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    words = ["hintseg", "predict", str(run), str(photos), "--out", str(out), "--no-overlays"]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", *launcher, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = time.perf_counter() - began
    assert len(list((out / "png").glob("*.png"))) == len(list(photos.iterdir()))
    return seconds


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=48, help="photos per process")
    parser.add_argument("--size", type=int, default=192, help="side of a photo, pixels")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_shapes(folder / "data", train=16, val=args.photos, size=args.size)
        run = hintseg.train(folder / "data", folder / "run", settings=QUICK).path
        ids = (folder / "data" / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
        taken: dict[tuple[int, int], list[float]] = {}
        for _ in range(args.rounds):
            for processes in args.processes:
                for count in (1, args.photos):
                    photos = folder / f"photos-{processes}-{count}"
                    if not photos.is_dir():
                        photos.mkdir()
                        for copy in range(processes):
                            for id in ids[:count]:
                                os.link(folder / "data" / "JPEGImages" / f"{id}.png", photos / f"{copy}-{id}.png")
                    seconds = predict(run, photos, folder / "out", processes)
                    taken.setdefault((processes, count), []).append(seconds)
        print(
            "| processes | photos | start-up, s | work, s | photos a second | efficiency |\n|---|---|---|---|---|---|"
        )
        first = None
        for processes in args.processes:
            start, whole = (statistics.median(taken[processes, count]) for count in (1, args.photos))
            work = whole - start
            first = work if first is None else first
            rate = processes * (args.photos - 1) / work
            row = (processes, processes * args.photos, f"{start:.1f}", f"{work:.1f}", f"{rate:.2f}")
            print("| " + " | ".join(map(str, row)) + f" | {first / work:.2f} |")


if __name__ == "__main__":
    main()
