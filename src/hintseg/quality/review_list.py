"""The review list of a run: its photos, what is doubtful about each, and which to look at first.

    photo's `doubt`   how far the mask is from what else labels the photo: mean over the voices of 1 - mIoU, 0..1
    photo's `worth`   its share of all doubt in the run, classes weighed equally: the list's order (`measures.worth`)

Voices are the other stages, the second best label of the class maps where those are there, and the finished segmenter
where it was asked again (`hintseg.pipeline.ask_again`). What was measured of the rule is in ``docs/review.md``.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.data.photos import read_photo
from hintseg.errors import PhotoError, RunError
from hintseg.evaluation.confusion import joint_counts, mean
from hintseg.quality.measures import (
    Part,
    against_tags,
    disagreement,
    off_edges,
    parts_in_doubt,
    runner_up,
    unsteady,
    unusual_area,
    worth,
)
from hintseg.quality.voices import Voice, answers_of, judged, judged_rows, judged_split, scores_of, voices
from hintseg.run.folder import MadeMasks, RunFolder
from hintseg.run.schema import Facts, PhotoRow, Share, Split, Stage
from hintseg.store.masks import read_label_png

logger = logging.getLogger("hintseg")

Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]

RUNNER_UP = "runner-up"
"""The voice of the second best label of the class maps."""

STRONG = 3.0
"""How many times the usual the area of a class may be away from the middle before that is a reason to look."""


class ObjectRow(Facts):
    """A connected part of a class in a mask.

    Attributes:
        name: Its class.
        box: x0, y0, x1, y1, pixels, right and bottom exclusive.
        area: Share of the photo.
        doubt: Share of voices that say something else, mean over its pixels.
    """

    name: str
    box: tuple[int, int, int, int]
    area: Share
    doubt: Share


class DoubtRow(Facts):
    """What is doubtful about one photo's mask.

    Attributes:
        id: The photo.
        worth: Its share of all doubt of the run, 0..1: mending it first brings most.
        doubt: How far the mask is from what else labels the photo, 0..1.
        why: What stands out, in words.
        margin: How close the second best class comes to the best, mean over the photo; None without class maps.
        unsteady: How far the segmenter's answers differ when the photo is mirrored or resized, a share of its pixels;
            None where it was not asked.
        voices: Doubt by each voice, 0..1.
        off_edges: How far its outlines keep away from the photo's edges, 0..1; None without outlines, or a photo.
        missing: Classes that are tagged and not in the mask.
        untagged: Classes that are seen and not tagged, and the share of the photo.
        area: Of each class in the mask, how unusual its area is (`measures.unusual_area`).
        classes: Doubt of each class that the mask or a voice shows.
        objects: Its objects, the most doubtful first.
    """

    id: str
    worth: Share
    doubt: Share
    why: tuple[str, ...]
    margin: Share | None
    unsteady: Share | None
    voices: dict[str, Share]
    off_edges: Share | None
    missing: tuple[str, ...]
    untagged: dict[str, Share]
    area: dict[str, float]
    classes: dict[str, Share]
    objects: tuple[ObjectRow, ...]


class ReviewList(Facts):
    """What of a run to look at first.

    Attributes:
        stage: The stage whose masks are judged.
        split: The split of their photos.
        voices: What they are compared with.
        classes: Doubt of each class over all photos; None where no voice shows it.
        photos: The photos, the first to mend first.
    """

    stage: Stage
    split: Split
    voices: tuple[str, ...]
    classes: dict[str, Share | None]
    photos: tuple[DoubtRow, ...]

    @property
    def summary(self) -> str:
        """What the order is worth, in a sentence without its full stop."""
        if not self.voices:
            return (
                f"nothing in the run labels these {len(self.photos)} photos a second time, so the order says nothing; "
                "a stage that refines them, or a segmenter, would"
            )
        first = self.photos[: -(-len(self.photos) // 10)]
        share = sum(row.worth for row in first)
        return f"the first {len(first)} of {len(self.photos)} photos hold {share:.0%} of the doubt"

    def as_csv(self) -> str:
        """Return the list as CSV, a row a photo, without its objects."""
        file = io.StringIO()
        table = csv.writer(file, lineterminator="\n")
        said = [f"doubt: {name}" for name in self.voices]
        measured = ["worth", "doubt", "margin", "unsteady", "off_edges"]
        table.writerow(["photo", *measured, *said, "missing", "untagged", "why"])
        for row in self.photos:
            values = [row.worth, row.doubt, row.margin, row.unsteady, row.off_edges]
            values += map(row.voices.get, self.voices)
            shown = ["" if value is None else f"{value:.5f}" for value in values]
            table.writerow([row.id, *shown, " ".join(row.missing), " ".join(row.untagged), "; ".join(row.why)])
        return file.getvalue()


class _Looked(NamedTuple):
    """What was found out about one photo."""

    row: PhotoRow
    pairs: dict[str, Counts]
    margin: float | None
    unsteady: float | None
    off_edges: float | None
    shown: npt.NDArray[np.int64]
    parts: list[Part]


def review_list(run: RunFolder, advance: Callable[[], None] = lambda: None) -> ReviewList:
    """Look through the masks of a run, without truth.

    Args:
        run: The run.
        advance: Called after each photo.

    Raises:
        RunError: The run has no masks, or a file in it is broken.

    Cost:
        30 ms a photo of 320 x 213 pixels and two voices, on one thread.
    """
    made, split = judged(run), judged_split(run)
    found = voices(run, made)
    read_scores, read_answers = scores_of(run, made), answers_of(run)
    rows = judged_rows(run)
    if not rows:
        raise RunError(f"{made.folder} holds no mask of the run's photos; make the stage again (--resume)")

    def look(row: PhotoRow) -> _Looked:
        return _look(row, run, made, found, read_scores(row.id), read_answers(row.id))

    looked = []
    with ThreadPoolExecutor(2) as pool:
        for one in pool.map(look, rows):
            looked.append(one)
            advance()
    return _listed(run, made.stage, split, [*(voice.name for voice in found), RUNNER_UP], looked)


def _look(
    row: PhotoRow,
    run: RunFolder,
    made: MadeMasks,
    found: Sequence[Voice],
    scores: tuple[list[int], npt.NDArray[np.float32]] | None,
    answers: npt.NDArray[np.uint8] | None,
) -> _Looked:
    mask = read_label_png(run.mask_path(made.stage, row.id))
    size = len(run.classes) + 1
    pairs: dict[str, Counts] = {}
    shown = [np.bincount(mask.ravel(), minlength=256)[:size]]
    against, asked = np.zeros(mask.shape, np.float32), 0
    for voice in found:
        said = voice.read(row.id, mask)
        if said is None:
            continue
        pairs[voice.name] = joint_counts(said, mask)[:size, :size]
        shown.append(np.bincount(said.ravel(), minlength=256)[:size])
        against += (said != mask) & (said != 255)
        asked += 1
    margin = None
    if scores is not None:
        pairs[RUNNER_UP], margin = runner_up(*scores, size - 1, mask.size)
    edges = None
    try:
        rgb = read_photo(row.path)
        if rgb.shape[:2] != mask.shape:
            (height, width), (own_height, own_width) = mask.shape, rgb.shape[:2]
            raise RunError(
                f"{run.mask_path(made.stage, row.id)} has {width} x {height} pixels and its photo {own_width} x "
                f"{own_height}: one of them was changed since; bring it back, or start the run afresh"
            )
        edges = off_edges(rgb, mask)
    except PhotoError:
        logger.debug("%s: no photo, so its edges are not looked at", row.path)
    parts = parts_in_doubt(mask, against / max(asked, 1))
    differ = None if answers is None else unsteady(answers)
    return _Looked(row, pairs, margin, differ, edges, np.stack(shown), parts)


def _listed(run: RunFolder, stage: Stage, split: Split, names: Sequence[str], looked: Sequence[_Looked]) -> ReviewList:
    size, labels = len(run.classes) + 1, ("background", *run.classes)
    empty = np.zeros((size, size))
    by_voice = {
        name: np.stack([one.pairs.get(name, empty) for one in looked]).astype(np.float64)
        for name in names
        if any(name in one.pairs for one in looked)
    }
    worths = worth(by_voice, background=run.background) if by_voice else np.zeros(len(looked))
    areas: dict[int, list[float]] = defaultdict(list)
    for one in looked:
        for label, share in _areas(one):
            areas[label].append(share)
    rows = []
    for one, value in zip(looked, worths.tolist(), strict=True):
        hard = {name: disagreement(pairs, background=run.background) for name, pairs in one.pairs.items()}
        doubts = {name: mean(found) for name, found in hard.items() if name != RUNNER_UP and not np.isnan(found).all()}
        of_class = _mean_rows([found for name, found in hard.items() if name != RUNNER_UP])
        tags = against_tags(one.shown, one.row.tags)
        unusual = {labels[label]: unusual_area(share, areas[label]) for label, share in _areas(one)}
        missing = tuple(labels[label] for label in tags.missing)
        untagged = {labels[label]: share for label, share in tags.untagged.items()}
        in_classes = {labels[at]: float(value) for at, value in enumerate(of_class) if not np.isnan(value)}
        doubt = mean(np.array(list(doubts.values()))) if doubts else one.margin or 0.0
        rows.append(
            DoubtRow(
                id=one.row.id,
                worth=min(1.0, value),
                doubt=doubt,
                why=tuple(_why(doubts, missing, untagged, unusual, in_classes)),
                margin=one.margin,
                unsteady=one.unsteady,
                voices=doubts,
                off_edges=one.off_edges,
                missing=missing,
                untagged=untagged,
                area=unusual,
                classes=in_classes,
                objects=tuple(
                    ObjectRow(name=labels[part.label], box=part.box, area=part.area, doubt=part.doubt)
                    for part in one.parts
                ),
            )
        )
    rows.sort(key=lambda row: (-row.worth, -row.doubt, row.id))
    totals = [disagreement(pairs.sum(axis=0)) for name, pairs in by_voice.items() if name != RUNNER_UP]
    over_all = _mean_rows(totals) if totals else np.full(size, np.nan)
    classes = {labels[at]: None if np.isnan(over_all[at]) else float(over_all[at]) for at in range(1, size)}
    return ReviewList(stage=stage, split=split, voices=tuple(by_voice), classes=classes, photos=tuple(rows))


def _areas(one: _Looked) -> Iterator[tuple[int, float]]:
    """Yield the classes of a mask, background left out, and their share of the photo."""
    counts = one.shown[0]
    for label in np.flatnonzero(counts[1:]) + 1:
        yield int(label), float(counts[label] / counts.sum())


def _mean_rows(rows: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return the mean of each column over the rows that are not NaN there; NaN where all are."""
    if not rows:
        return np.zeros(0)
    stacked = np.stack(rows)
    known = ~np.isnan(stacked)
    total, count = np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))


def _why(
    doubts: dict[str, float],
    missing: Iterable[str],
    untagged: dict[str, float],
    unusual: dict[str, float],
    classes: dict[str, float],
) -> Iterator[str]:
    """Yield what stands out about a photo, in words."""
    for name in missing:
        yield f"{name} is tagged and not in the mask"
    for name, share in untagged.items():
        yield f"{name} covers {share:.0%} and is not tagged"
    for name, times in unusual.items():
        if times >= STRONG:
            yield f"the area of {name} is unusual"
    name = max(doubts, key=lambda name: doubts[name], default="")
    if name and doubts[name] >= 0.5:
        yield f"the {name} says something else"
    name = max(classes, key=lambda name: classes[name], default="")
    if name and classes[name] > 0:
        yield f"{name} is most doubtful ({classes[name]:.2f})"
