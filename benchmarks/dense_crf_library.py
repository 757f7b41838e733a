"""Compare our DenseCRF with the C++ library on real photos and on noise.

    OMP_NUM_THREADS=2 python benchmarks/dense_crf_library.py FOLDER

FOLDER holds JPEG photos; needs `pip install 'hintseg[bench]'`. `NUMBA_CPU_NAME=haswell` keeps ours to AVX2.
Both take turns; one line per case: smallest and median times, and the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hintseg.bench import libraries
from hintseg.bench.operations import noise, scores
from hintseg.refine import dense_crf

SIZE = (321, 481)


def main() -> None:
    """Time both on the photos of a folder and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    files = sorted(given.folder.glob("*.jpg"))
    cases = {"noise": noise(1, *SIZE)}
    for file in files[:: max(1, len(files) // given.photos)][: given.photos]:
        picture = Image.open(file).convert("RGB").resize(SIZE[::-1], Image.Resampling.BICUBIC)
        cases[file.stem] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].contiguous()
    for classes in (3, 21):
        probabilities = scores(1, classes, *SIZE)
        for threads in given.threads:
            torch.set_num_threads(threads)
            for name, rgb in cases.items():
                off = (dense_crf(probabilities, rgb) - libraries.dense_crf(probabilities, rgb, 10)).abs().mean()
                times: list[list[float]] = [[], []]
                for _ in range(given.repeats):
                    for taken, function in zip(times, (dense_crf, libraries.dense_crf), strict=True):
                        began = time.perf_counter()
                        function(probabilities, rgb, iterations=10)
                        taken.append(time.perf_counter() - began)
                least = [1000 * min(taken) for taken in times]
                ratio = statistics.median(theirs / ours for ours, theirs in zip(*times, strict=True))
                print(
                    f"{classes} classes, {threads} threads, {name}: ours {least[0]:.0f} ms, library {least[1]:.0f} ms, "
                    f"ratio {least[1] / least[0]:.2f} (of the smallest), {ratio:.2f} (median); differ by {off:.0e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
