"""What each kind of hint gave: how many photos it labels, how much of them, what of that stays, and how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.evaluation.confusion import Confusion
from hintseg.run.folder import RunFolder
from hintseg.run.schema import PhotoRow, Stage
from hintseg.store.masks import read_label_png
from hintseg.types import IGNORE

Bytes = npt.NDArray[np.uint8]

READ = 300
"""Photos of each kind that are looked at, at most."""


class KindRow(NamedTuple):
    """What one kind of hint gave. A photo that several kinds label counts for each.

    Attributes:
        kind: The kind of hint.
        photos: Training photos that it labels.
        labelled: Share of their pixels that the segmenter was given a label of, 0..1; None where it was given none.
        kept: Share of those labels that the final masks have too, 0..1; None where no masks of these photos were made.
        miou: Of the final masks, over the photos whose truth is known and did not teach, 0..1; None without any.
    """

    kind: str
    photos: int
    labelled: float | None
    kept: float | None
    miou: float | None


def kinds_of_hints(run: RunFolder) -> list[KindRow]:
    """Return a row for each kind of hint that labels training photos, the commonest first.

    The final mask of a photo is the segmenter's, where that made any in one stage or after its rounds, else that of the
    last stage that made one.

    Cost:
        Reads up to three masks of a photo, about 5 ms each.
    """
    train = [photo for photo in run.photos if photo.split == "train"]
    counts = {kind: [photo for photo in train if kind in photo.by] for photo in train for kind in photo.by}
    return [_row(run, kind, counts[kind]) for kind in sorted(counts, key=lambda kind: (-len(counts[kind]), kind))]


def _row(run: RunFolder, kind: str, photos: Sequence[PhotoRow]) -> KindRow:
    pixels = known = compared = kept = 0
    confusion = Confusion(len(run.classes), background=run.background, undecided="background")
    for photo in photos[:: -(-len(photos) // READ)]:
        label, final = (_read(path) for path in (run.label_path(photo.id), _final(run, photo)))
        if label is not None:
            said = label != IGNORE
            pixels, known = pixels + said.size, known + int(said.sum())
            if final is not None:
                compared, kept = compared + int(said.sum()), kept + int((label == final)[said].sum())
        truth = run.truth_path(photo.id)
        if final is not None and truth.is_file() and "masks" not in photo.by:
            confusion.add(read_label_png(truth), final)
    miou = confusion.miou()
    return KindRow(
        kind,
        len(photos),
        known / pixels if pixels else None,
        kept / compared if compared else None,
        None if np.isnan(miou) else miou,
    )


def _final(run: RunFolder, photo: PhotoRow) -> Path | None:
    own: tuple[Stage, ...] = ("segment",) if run.labels_learned else ("propose",)
    made = [run.masks_of(own), run.masks_of_photos()]
    paths = [one.folder / f"{photo.id}.png" for one in made if one is not None]
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path | None) -> Bytes | None:
    return read_label_png(path) if path is not None and path.is_file() else None
