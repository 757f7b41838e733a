"""A simulated person who reviews a run with truth, and what it brings.

    python -m benchmarks.person NAME RUN --out DIR

The person takes the first photos of the review list, or photos at random. On each the largest wrong part of the mask,
one connected part of one true class, is painted over with the brush of the page: a stroke along its middle, about as
wide as the part. That is repeated until next to nothing is wrong, or `--strokes` were drawn. A mask that is right then
is accepted; of the others the painted pixels teach. All of it goes through the review of a copy of the run, as the page
writes it, and `train_again` learns from it. A share of 0 trains again from nothing new: what going on alone brings.

A stroke takes 10.9 seconds (Bearman et al., ECCV 2016; `hintseg.pipeline.study.SECONDS`); looking takes none here.
Every photo's masks are on disk, so a run that was stopped goes on. What came of it is kept under NAME in the results.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import shlex
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import results
from benchmarks.results import Result
from hintseg import api
from hintseg.config.loader import changed_config
from hintseg.evaluation.confusion import Confusion
from hintseg.hints.simulate import Drawing, stroke_line
from hintseg.pipeline.recipe import run_recipe
from hintseg.pipeline.study import SECONDS
from hintseg.reviewing.schema import Action
from hintseg.reviewing.storage import Review
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.types import IGNORE

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

NAME, AGAIN = "person", "none, trained again"

MASKS = ("masks before", "mended", "of the new run")
MODEL = ("model before", "new model")
"""Columns of `Reviewed.masks` and `Reviewed.model`."""

RIGHT = 0.02
"""Share of a photo's pixels that may be wrong in a mask that a person calls right."""

SMALLEST = 0.001
"""Share of a photo below which a person sees no wrong part."""


@dataclass(frozen=True)
class Reviewed:
    """What a review took, and what it brought; mIoU is in 0..1.

    Attributes:
        share: Of the photos that were reviewed.
        order: How they were chosen.
        seed: Of the random order and of the strokes.
        photos: How many were reviewed.
        accepted: How many masks were right in the end.
        strokes: How many strokes were drawn.
        minutes: What they take a person.
        masks: mIoU of the masks of the training photos before, with the mended ones, and in the new run.
        model: mIoU of the segmenter on the validation photos before, and in the new run.
    """

    share: float
    order: str
    seed: int
    photos: int
    accepted: int
    strokes: int
    minutes: float
    masks: tuple[float, float, float | None]
    model: tuple[float | None, float | None]


def wrong_part(mask: Bytes, true: Bytes) -> tuple[int, Bools] | None:
    """Return the largest connected part that should have another class, and that class; None where a person sees none.

    Args:
        mask: Labels, (H, W) uint8.
        true: True labels, (H, W) uint8, 255 where nothing is known.
    """
    wrong = (mask != true) & (true != IGNORE)
    best, found = SMALLEST * mask.size, None
    for label in np.unique(true[wrong]).tolist():
        _, numbers, stats, _ = cv2.connectedComponentsWithStats((wrong & (true == label)).astype(np.uint8))
        areas = stats[1:, cv2.CC_STAT_AREA]
        if areas.max(initial=0) >= best:
            best = areas.max()
            found = label, numbers == 1 + int(areas.argmax())
    return found


def brush(part: Bools, rng: np.random.Generator) -> tuple[tuple[float, ...], float]:
    """Return a stroke along the middle of a part, ``(x, y, x, y, ...)``, and its width, pixels: it stays inside."""
    deepest = float(cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max())
    line, radius = stroke_line(part, rng, Drawing(width=max(1.0, deepest)))
    return tuple(line.ravel().tolist()), max(1.0, 2 * radius)


def mend(review: Review, id: str, true: Bytes, most: int, rng: np.random.Generator) -> tuple[int, bool]:
    """Paint what is wrong in a photo's mask; return how many strokes that took, and whether the mask was accepted."""
    drawn = 0
    while True:
        document = review.document(id)
        mask = review.mask(id, document.now)
        wrong = ((mask != true) & (true != IGNORE)).mean()
        part = None if wrong <= RIGHT or drawn == most else wrong_part(mask, true)
        if part is None:
            break
        points, width = brush(part[1], rng)
        review.act(id, document.revision, Action(kind="paint", label=part[0], points=points, width=width))
        drawn += 1
    if wrong <= RIGHT:
        review.act(id, document.revision, Action(kind="accept"))
    return drawn, bool(wrong <= RIGHT)


def score(review: Review) -> float:
    """Return the mIoU, 0..1, of the masks as they stand in a review, over the photos with truth."""
    confusion = Confusion(len(review.classes), background=review.background)
    for id in review.photos:
        path = review.run.truth_path(id)
        if path.is_file():
            confusion.add(read_label_png(path), review.mask(id, review.document(id).now))
    return confusion.miou()


def simulate(
    run: Path,
    out: Path,
    *,
    share: float,
    order: str,
    seed: int,
    strokes: int = 5,
    settings: Sequence[str] = (),
    train: bool = True,
) -> Reviewed:
    """Review a copy of a run as a person would, and train again from that.

    Args:
        run: A finished run with truth; it stays as it is.
        out: Folder for the copy and the new run.
        share: Of the photos that are reviewed, 0..1.
        order: `list` or `random`.
        seed: Of the random order and of the strokes.
        strokes: The most for one photo.
        settings: Dotted settings of the new run that are others than in the old one.
        train: Whether that is learned from.
    """
    name = f"{share:g}-{order}-{seed}" if share else "0"
    copy, new = out / f"reviewed-{name}", out / f"again-{name}"
    if not (copy / "config.yaml").is_file():
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".hintseg.lock"))
    folder = RunFolder.open(copy)
    for name in ("photos", "masks"):  # what a person did before
        shutil.rmtree(copy / "review" / name, ignore_errors=True)
    review = Review(folder)
    before = score(review)
    listed = [row.id for row in api.review_list(copy).photos if folder.truth_path(row.id).is_file()]
    if order == "random":
        listed = [listed[at] for at in np.random.default_rng(seed).permutation(len(listed))]
    chosen = listed[: math.ceil(share * len(listed))]
    drawn = accepted = 0
    for number, id in enumerate(chosen):
        true, rng = read_label_png(folder.truth_path(id)), np.random.default_rng([seed, number])
        count, right = mend(review, id, true, strokes, rng)
        drawn, accepted = drawn + count, accepted + right
    mended = score(review)
    if train and chosen:
        api.train_again(copy, new, settings=list(settings), resume=new.exists())
    elif train:
        own = [f"start={json.dumps(str(copy.resolve()))}", *settings]
        run_recipe(changed_config(folder.config, own), new, resume=new.exists())
    minutes = drawn * SECONDS["scribbles"] / 60
    after = RunFolder.open(new) if train else None
    masks = (before, mended, None if after is None else _miou(after, "train"))
    model = (_miou(folder, "val"), None if after is None else _miou(after, "val"))
    return Reviewed(share, order, seed, len(chosen), accepted, drawn, minutes, masks, model)


def _miou(run: RunFolder, split: str) -> float | None:
    """Return the mIoU of the last stage that was judged on a split, 0..1."""
    found = [row.miou for row in run.metrics if row.split == split and not row.oracle]
    return found[-1] if found else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate reviews and print what they bring."""
    parser = argparse.ArgumentParser(description="What a person's review brings, simulated on a run with truth.")
    parser.add_argument("name", help="what the run is called in the table")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for copies of the run and the new runs")
    parser.add_argument("--share", type=float, nargs="+", default=[0, 0.02, 0.05, 0.1])
    parser.add_argument("--order", choices=("list", "random"), nargs="+", default=["list", "random"])
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--strokes", type=int, default=5, help="the most for one photo")
    parser.add_argument("--masks-only", action="store_true", help="train nothing")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the new run")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="folder of the results")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    for share in given.share:
        for order in given.order if share else given.order[:1]:
            for seed in given.seed if share else given.seed[:1]:
                found = simulate(
                    given.run,
                    given.out,
                    share=share,
                    order=order,
                    seed=seed,
                    strokes=given.strokes,
                    settings=given.set,
                    train=not given.masks_only,
                )
                own = ["--share", f"{share:g}", "--order", order, "--seed", str(seed), "--strokes", str(given.strokes)]
                own += ["--masks-only"] * given.masks_only + (["--set", *given.set] if given.set else [])
                words = ["python", "-m", "benchmarks.person", given.name, "RUN", "--out", "DIR", *own]
                keep(given.name, found, shlex.join(words), given.results)
                print(said(found), flush=True)


def keep(name: str, found: Reviewed, command: str, folder: Path = results.FOLDER) -> None:
    """Put what a review took and brought into the results, in place of what the same one brought before."""
    row = f"{found.share:.0%}, {found.order}" if found.share else AGAIN
    values = {"photos": found.photos, "accepted": found.accepted, "strokes": found.strokes}
    columns: dict[str, tuple[str, float | None]] = {title: ("count", value) for title, value in values.items()}
    columns["minutes"] = ("minutes", found.minutes)
    columns |= {title: ("miou", value) for title, value in zip(MASKS, found.masks, strict=True)}
    columns |= {title: ("miou", value) for title, value in zip(MODEL, found.model, strict=True)}
    made = [
        results.measured(
            NAME,
            row,
            column,
            value,
            data=name,
            seed=found.seed,
            split="val" if column in MODEL else "train",
            metric=metric,
            command=command,
        )
        for column, (metric, value) in columns.items()
        if value is not None
    ]
    places = {(one.data, one.row, one.seed, one.column) for one in made}
    others = [one for one in results.read(NAME, folder) if (one.data, one.row, one.seed, one.column) not in places]
    results.write(NAME, [*others, *made], folder)


def markdown(found: Sequence[Result]) -> str:
    """Return the table of all reviews, and what it was measured with."""
    if not found:
        return "Not measured."
    rows = []
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for one in found:
        cells.setdefault((one.data, one.row), {}).setdefault(one.column, []).append(one.value)
    for (data, row), values in sorted(cells.items(), key=lambda item: (item[0][0], _place(item[0][1]))):
        said = [data, f"{row}: {values['photos'][0]:.0f}" if values["photos"][0] else row, str(len(values["photos"]))]
        said += [f"{statistics.mean(values[title]):.0f}" for title in ("strokes", "minutes")]
        said += [results.spread([100 * value for value in values.get(title, [])]) for title in (*MASKS, *MODEL)]
        rows.append(said)
    heads = ["run", "photos mended", "reviews", "strokes", "minutes", *MASKS, *MODEL]
    commands = results.commands(re.sub(r"--(share|order|seed) \S+", _any, one.command) for one in found)
    return "\n\n".join([results.grid(heads, rows), results.source(found), commands])


def _any(word: re.Match[str]) -> str:
    """Return an option with its name in place of its value: the rows of the table say which there were."""
    return f"--{word[1]} {word[1].upper()}"


def _place(row: str) -> tuple[float, str]:
    share, _, order = row.partition("%")
    return (float(share), order) if order else (0.0, row)


def said(found: Reviewed) -> str:
    """Return a line on what a review took and brought."""
    before, mended, new = ("-" if value is None else f"{100 * value:.1f}" for value in found.masks)
    old, now = ("-" if value is None else f"{100 * value:.1f}" for value in found.model)
    took = f"{found.photos} photos, {found.strokes} strokes ({found.minutes:.0f} min), {found.accepted} accepted"
    what = f"masks {before} -> {mended}, new run {new}; model {old} -> {now}"
    return f"{found.share:.0%} {found.order} {found.seed}: {took}; {what}"


if __name__ == "__main__":
    main()
