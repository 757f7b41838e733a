"""How good the review list of a run is, where its truth is known: `python -m benchmarks.review_order RUN`.

Prints the rank correlation of `doubt` and of the list's order with the true error of each photo (1 - its mIoU), the
area under the sparsification curve (0: as random, 1: as the oracle), and how many points of mIoU mending the first 5 %
and 10 % of the photos brings: by the list, at random, by the oracle of true photo IoU (worst first), and by the oracle
of true worth, which sorts by the same rule as the list, on the truth. The run's segmenter is asked again first, where
it was not yet; `--no-network` leaves that out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.evaluation.confusion import Confusion, jaccard, mean
from hintseg.pipeline.ask_again import ask_again
from hintseg.quality.measures import worth
from hintseg.quality.review_list import review_list
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.training.watch import Watch

Floats = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]

SHARES = (0.05, 0.1)
RANDOM = 50
"""Random orders whose mean gain is taken."""


class Measured(NamedTuple):
    """How good an order is.

    Attributes:
        doubt_correlation: Spearman's, of `doubt` with the true error.
        order_correlation: Of `worth`.
        sparsification: Of `doubt`, 0: as random, 1: as the oracle.
        gains: For each share the points of mIoU by the list, random, the oracle of IoU and the oracle of worth.
    """

    doubt_correlation: float
    order_correlation: float
    sparsification: float
    gains: dict[float, tuple[float, float, float, float]]


def ranks(values: Floats) -> Floats:
    """Return the rank of each value, equal ones sharing theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def spearman(one: Floats, other: Floats) -> float:
    """Return Spearman's rank correlation; NaN where one of them says nothing."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def sparsification(errors: Floats, order: Order) -> float:
    """Return how far removing photos in an order lowers the mean error of the rest: 0 as random, 1 as the oracle."""

    def area(first: Order) -> float:
        left = errors[first]
        return float(np.mean([left[at:].mean() for at in range(len(left))]))

    by_chance, best = float(errors.mean()), area(np.argsort(-errors, kind="stable"))
    return (by_chance - area(order)) / (by_chance - best) if by_chance > best else 1.0


def gain(counts: npt.NDArray[np.int64], order: Order, share: float, background: bool) -> float:
    """Return the points of mIoU that mending the first photos of an order brings.

    Args:
        counts: Of each photo, (n, C, C), rows truth.
        order: Photos, the first first.
        share: How many of them, 0..1.
        background: Whether label 0 is a class.
    """
    first = order[: math.ceil(share * len(order))]
    total, after = Confusion(counts.shape[1] - 1, background=background), Confusion(counts.shape[1] - 1)
    after.background = background
    total.matrix = counts.sum(axis=0)
    after.matrix = total.matrix - counts[first].sum(axis=0) + np.diag(counts[first].sum(axis=(0, 2)))
    return 100 * (after.miou() - total.miou())


def measure(run: RunFolder) -> Measured:
    """Measure the review list of a run with truth."""
    listed = review_list(run)
    size = len(run.classes) + 1
    rows, pairs = [], []
    for row in listed.photos:
        path = run.truth_path(row.id)
        if path.is_file():
            confusion = Confusion(size - 1, background=run.background)
            confusion.add(read_label_png(path), read_label_png(run.mask_path(listed.stage, row.id)))
            rows.append(row)
            pairs.append(confusion.matrix)
    counts = np.stack(pairs)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    iou = jaccard(hits, counts.sum(axis=2), counts.sum(axis=1), run.background)
    errors = np.array([1 - mean(one) for one in iou])
    doubt = np.array([row.doubt for row in rows])
    value = np.array([row.worth for row in rows])
    orders = [_by(value), _by(errors), _by(worth({"truth": counts.astype(np.float64)}, background=run.background))]
    random = [np.random.default_rng(seed).permutation(len(rows)) for seed in range(RANDOM)]
    gains = {}
    for share in SHARES:
        ours, worst, best = (gain(counts, order, share, run.background) for order in orders)
        by_chance = float(np.mean([gain(counts, order, share, run.background) for order in random]))
        gains[share] = (ours, by_chance, worst, best)
    return Measured(spearman(doubt, errors), spearman(value, errors), sparsification(errors, _by(doubt)), gains)


def _by(values: Floats) -> Order:
    return np.argsort(-values, kind="stable")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the review lists of runs and print them."""
    parser = argparse.ArgumentParser(description="How good the review list of a run is, against its truth.")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--no-network", action="store_true", help="without asking the segmenter again")
    given = parser.parse_args(arguments)
    for path in given.runs:
        run = RunFolder.open(path)
        if not given.no_network:
            ask_again(run, Watch())
        found = measure(run)
        print(
            f"{path}: rank correlation with the true error: doubt {found.doubt_correlation:.2f}, order "
            f"{found.order_correlation:.2f}; sparsification {found.sparsification:.2f}"
        )
        for share, (ours, chance, worst, best) in found.gains.items():
            print(
                f"  first {share:.0%} mended: {ours:+.2f} points of mIoU; random {chance:+.2f}; oracle by IoU "
                f"{worst:+.2f} ({ours / worst:.0%} of it), by worth {best:+.2f} ({ours / best:.0%})"
            )


if __name__ == "__main__":
    main()
