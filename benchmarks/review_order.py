"""How good the review lists of runs are, where their truth is known: `python -m benchmarks.review_order NAME RUN...`.

Puts into the results, under NAME and the seed of the run: the rank correlation of `doubt` with the true error of each
photo (1 - its mIoU), the area under the sparsification curve (0: as random, 1: as the oracle), and how many points of
mIoU mending the first 5 % and 10 % of the photos brings: by the list, at random, by the oracle of true photo IoU (worst
first), and by the oracle of true worth, which sorts by the same rule as the list, on the truth. All of it for the list
without the network, and then with it: the run's segmenter is asked again.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import results
from benchmarks.results import Result
from hintseg.evaluation.confusion import Confusion, jaccard, mean
from hintseg.pipeline.ask_again import ask_again
from hintseg.quality.measures import worth
from hintseg.quality.review_list import review_list
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.training.watch import Watch

Floats = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]

NAME, WITHOUT, WITH = "review_order", "without", "with"
SHARES = (0.05, 0.1)
ORDERS = ("list", "random", "oracle by mIoU", "oracle by worth")
RANDOM = 50
"""Random orders whose mean gain is taken."""


class Measured(NamedTuple):
    """How good an order is.

    Attributes:
        photos: How many have truth.
        doubt_correlation: Spearman's, of `doubt` with the true error.
        sparsification: Of `doubt`, 0: as random, 1: as the oracle.
        gains: For each share the points of mIoU by the list, random, the oracle of IoU and the oracle of worth.
    """

    photos: int
    doubt_correlation: float
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
    order_by_doubt = sparsification(errors, _by(doubt)) if np.ptp(doubt) else math.nan  # it orders nothing
    return Measured(len(rows), spearman(doubt, errors), order_by_doubt, gains)


def _by(values: Floats) -> Order:
    return np.argsort(-values, kind="stable")


def keep(name: str, run: RunFolder, seed: int, row: str, folder: Path = results.FOLDER) -> list[Result]:
    """Measure the list of a run, and put that into the results in place of what there was of the same.

    Args:
        name: What the run is called in the table.
        run: A run with truth.
        seed: The run's.
        row: `WITH` where the segmenter was asked again, or `WITHOUT`.
        folder: Folder of the results.
    """
    found = measure(run)
    values = {"photos": ("count", float(found.photos)), "sparsification": ("share", found.sparsification)}
    values["rank correlation"] = ("share", found.doubt_correlation)
    for share, gains in found.gains.items():
        values |= {f"{share:.0%}, {title}": ("points", one) for title, one in zip(ORDERS, gains, strict=True)}
    command = f"python -m benchmarks.review_order '{name}' RUN"
    made = [
        results.measured(NAME, row, title, value, data=name, seed=seed, split="train", metric=metric, command=command)
        for title, (metric, value) in values.items()
        if not math.isnan(value)
    ]
    key = (name, row, seed)
    others = [one for one in results.read(NAME, folder) if (one.data, one.row, one.seed) != key]
    results.write(NAME, [*others, *made], folder)
    return made


def markdown(found: Sequence[Result]) -> str:
    """Return the table of all lists, and what it was measured with."""
    if not found:
        return "Not measured."
    heads = ["run", "photos", "runs", "network", "rank correlation", "sparsification"]
    for share in SHARES:
        heads += [*(f"{share:.0%}, {title}" for title in ORDERS), f"{share:.0%}, share of the oracle"]
    rows = []
    for data, row in dict.fromkeys((one.data, one.row) for one in found):
        cells: dict[str, dict[int, float]] = {}
        for one in found:
            if (one.data, one.row) == (data, row):
                cells.setdefault(one.column, {})[one.seed] = one.value
        photos = statistics.mean(cells["photos"].values())
        said = [data, f"{photos:.0f}", str(len(cells["photos"])), row]
        for title in ("rank correlation", "sparsification"):
            values = cells.get(title, {}).values()
            said.append(f"{statistics.mean(values):.2f}" if values else "-")
        for share in SHARES:
            gains = [cells[f"{share:.0%}, {title}"] for title in ORDERS]
            said += [results.spread(list(one.values())) for one in gains]
            said.append(f"{results.spread([100 * gains[0][seed] / gains[-1][seed] for seed in gains[0]])} %")
        rows.append(said)
    commands = results.commands(one.command for one in found)
    return "\n\n".join([results.grid(heads, rows), results.source(found), commands])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the review lists of runs, and keep and print what was found."""
    parser = argparse.ArgumentParser(description="How good the review lists of runs are, against their truth.")
    parser.add_argument("name", help="what the runs are called in the table; their seeds tell them apart")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="folder of the results")
    given = parser.parse_args(arguments)
    for path in given.runs:
        run = RunFolder.open(path)
        rows = [WITH] if (path / "review" / "network").is_dir() else [WITHOUT, WITH]
        for row in rows:
            if row == WITH:
                ask_again(run, Watch())
            for one in keep(given.name, run, run.config.seed, row, given.results):
                print(f"{path}, {row} network, {one.column}: {one.value:.3f}", flush=True)


if __name__ == "__main__":
    main()
