"""One photo and two marks to a mask: how good, how fast, with nothing trained and nothing else known.

Photos with one object of one class get a mark on it and one on the background, drawn out of their mask.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import results
from benchmarks.results import Result
from hintseg.data.photos import read_photo
from hintseg.hints import read_hints
from hintseg.hints.masks import read_full
from hintseg.hints.simulate import Drawing, click, parts, stroke_line
from hintseg.labellers.strokes import Strokes
from hintseg.types import BACKGROUND, IGNORE, Click, Hints, Mark, Stroke

Bools = npt.NDArray[np.bool_]

NAME = "one_photo"
COMMAND = f"python -m benchmarks {NAME} --data DATA"

ROWS = {"two strokes": 1.0, "two strokes, a third as long": 1 / 3, "two clicks": 0.0}
"""Share of a stroke's length that is kept, by row; 0: a click."""

DATA = {"voc12-animals": ("SegmentationClass",), "coco-things": ()}
"""Label files of each set; none: those that are found."""


def run_one_photo(*, data: Path, seeds: Sequence[int], most: int = 0, folder: Path = results.FOLDER) -> list[Result]:
    """Label each photo by itself, and keep the mean IoU of the objects and the median seconds of a photo.

    Args:
        data: Folder of the data sets.
        seeds: Of the drawing.
        most: Photos of a set at most, to try it; 0: all.
        folder: Folder of the results.
    """
    found = []
    for name, labels in DATA.items():
        for seed in seeds:
            ious, took = {row: list[float]() for row in ROWS}, {row: list[float]() for row in ROWS}
            for number, (path, thing, background, label) in enumerate(_photos(data / name, labels)):
                if most and number == most:
                    break
                rgb = read_photo(path)
                for row, share in ROWS.items():
                    rng, drawing = np.random.default_rng([seed, number]), Drawing(share=share)
                    marks = (_mark(thing == label, label, rng, drawing), _mark(background, BACKGROUND, rng, drawing))
                    began = time.perf_counter()
                    made = Strokes().label(rgb, Hints(marks=marks)).pixels
                    took[row].append(time.perf_counter() - began)
                    known = thing != IGNORE
                    mine, true = (made == label)[known], (thing == label)[known]
                    ious[row].append(float((mine & true).sum() / (mine | true).sum()))
            for row in ROWS:
                values = {"IoU of the object": ("iou", statistics.mean(ious[row]))}
                values |= {"photos": ("photos", len(ious[row])), "seconds": ("seconds", statistics.median(took[row]))}
                for column, (metric, value) in values.items():
                    one = results.measured(
                        NAME, row, column, value, data=name, seed=seed, metric=metric, command=COMMAND
                    )
                    found.append(one)
    results.write(NAME, found, folder)
    return found


def _photos(folder: Path, labels: Sequence[str]) -> Iterator[tuple[Path, npt.NDArray[np.uint8], Bools, int]]:
    """Yield the photos that show one object: file, mask, largest part of the background, class."""
    hints = read_hints(folder, [folder / label for label in labels] or None)
    for photo in hints.photos:
        full = photo.truth if photo.truth is not None else photo.hints.mask
        if full is None:
            continue
        mask = read_full(full, photo, None, len(hints.classes), hints.background)
        shown = [int(label) for label in np.unique(mask) if label not in (BACKGROUND, IGNORE)]
        around = [*parts(mask == BACKGROUND)]
        if len(shown) == 1 and around and len([*parts(mask == shown[0])]) == 1:
            yield photo.path, mask, max(around, key=np.count_nonzero), shown[0]


def _mark(pixels: Bools, label: int, rng: np.random.Generator, drawing: Drawing) -> Mark[Stroke] | Mark[Click]:
    if not drawing.share:
        return Mark(label, Click(*click(pixels, rng, drawing)))
    line, radius = stroke_line(pixels, rng, drawing)
    return Mark(label, Stroke(tuple(line.ravel().tolist()), max(1.0, 2 * radius)))


def markdown(found: Sequence[Result]) -> str:
    """Return the table, and what it was measured with."""
    if not found:
        return "Not measured."
    rows = []
    for data in DATA:
        for row in ROWS:
            of_row = [one for one in found if (one.data, one.row) == (data, row)]
            ious = [100 * one.value for one in of_row if one.metric == "iou"]
            if not ious:
                continue
            seconds = statistics.median(one.value for one in of_row if one.metric == "seconds")
            photos = max(one.value for one in of_row if one.metric == "photos")
            rows.append([data, row, f"{photos:.0f}", str(len(ious)), results.spread(ious), f"{seconds:.2f}"])
    heads = ["data", "marks", "photos", "runs", "IoU of the object", "seconds a photo"]
    return f"{results.grid(heads, rows)}\n\n{results.source(found)} Again: `{COMMAND}`."
