"""The masks of a run's training photos for people: what its stages made, put together, every pixel with a label."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from hintseg.errors import RunError
from hintseg.files.owned import mended
from hintseg.labellers.labeller import Evidence
from hintseg.pipeline.plan import PLACED, combine
from hintseg.reviewing.lessons import FILE, read_lessons
from hintseg.run.folder import RunFolder
from hintseg.run.schema import PhotoRow, Stage
from hintseg.store.instances import Instances, read_instances
from hintseg.store.masks import MaskStore, read_label_png
from hintseg.store.trust import read_trust
from hintseg.types import IGNORE

Bytes = npt.NDArray[np.uint8]

logger = logging.getLogger("hintseg")


class PhotoMasks:
    """The mask of each training photo, by the best that a run knows of it.

    In this order: what somebody mended by hand, what the segmenter said in its last round, a mask that was given, and
    what was made of marks and tags, under the strokes, clicks and changes of a person.

    Args:
        run: The run folder.

    Attributes:
        photos: The photos that have one, by id.

    Raises:
        RunError: No stage has made masks yet.
    """

    def __init__(self, run: RunFolder) -> None:
        made, review = run.masks_of_photos(), run.seen.data.review
        if made is None:
            raise RunError(f"{run.path} has no masks yet; `hintseg train ... --out {run.path} --resume` makes them")
        of_tags: tuple[Stage, ...] = ("refine", "localize", *(("segment",) if run.one_stage else ()))
        found = [run.masks_of(stages) for stages in (("propose",), of_tags)]
        self.run = run
        self.by_marks, self.by_tags = (None if one is None else self._store(one.stage) for one in found)
        self.last = self._store("segment") if run.labels_learned and not run.one_stage else None
        self.judged = {row.id for row in run.photos if row.split == "val"}  # theirs in `last` knows no tags
        if review is not None and not (review / FILE).is_file():
            logger.warning("%s is gone: what a person painted is in masks that were labelled in rounds alone", review)
            review = None
        self.reviewed = frozenset[str]() if review is None else frozenset(read_lessons(review).photos)
        rows = (row for row in run.photos if row.split == "train")  # a photo may be in both splits
        self.photos: dict[str, PhotoRow] = {row.id: row for row in rows if self._known(row)}

    def boxed(self, id: str) -> bool:
        """Return whether a mask was made of the boxes, strokes or clicks of a photo."""
        return self.by_marks is not None and id in self.by_marks

    def read(self, id: str) -> Bytes | None:
        """Return the mask of a photo, (H, W) uint8 0..K; None where nothing is known of any pixel."""
        row, stores = self.photos[id], (self.last, self.by_marks, self.by_tags)
        by_hand = [store is not None and id in store and mended(store.path(id)) for store in stores]
        if self.last is not None and self._in_last(id) and (by_hand[0] or not any(by_hand)):
            return self.last.read(id)
        if self._given(row):
            return Evidence(read_label_png(self.run.label_path(id))).complete(self.run.background)
        mask = self._made(row)
        return mask if mask is None or any(by_hand) else self._under_marks(row, mask)

    def _store(self, stage: Stage) -> MaskStore:
        return MaskStore(self.run.path / stage / "masks", self.run.classes, self.run.background)

    def _known(self, row: PhotoRow) -> bool:
        stores = (self.by_marks, self.by_tags)
        made = any(store is not None and row.id in store for store in stores)
        return made or self._in_last(row.id) or self._given(row)

    def _in_last(self, id: str) -> bool:
        return self.last is not None and id in self.last and id not in self.judged

    def _given(self, row: PhotoRow) -> bool:
        return "masks" in row.by and self.run.label_path(row.id).is_file()

    def _made(self, row: PhotoRow) -> Bytes | None:
        """Return what was made of a photo's marks and tags, put together."""
        stores = (self.by_marks, self.by_tags)
        marks, tags = (None if s is None or row.id not in s else s.read(row.id) for s in stores)
        path = self.run.path / "propose" / "instances" / f"{row.id}.npz"
        known: Instances | None = read_instances(path) if marks is not None and path.is_file() else None
        trust = None  # where marks are unsure the tags' labels stand, as in what the segmenter learns from
        if marks is not None and self.by_marks is not None and not mended(self.by_marks.path(row.id)):
            trust = read_trust(self.run.path / "propose" / "trust" / f"{row.id}.png", marks)
        by_marks = None if marks is None else Evidence(marks, trust, known)
        # Without masks of tags a class that was not marked has no place: the masks of marks stand alone.
        by_tags, background = None if tags is None else Evidence(tags), self.run.background
        found = by_marks if by_tags is None else combine(row.tags, by_marks, by_tags, background=background)
        return None if found is None else found.complete(background)  # a person may have mended in some 255

    def _under_marks(self, row: PhotoRow, mask: Bytes) -> Bytes:
        """Return a mask in which what the segmenter learned from wins, where a person said single pixels of that."""
        path = self.run.label_path(row.id)
        if not (PLACED & {*row.by} or row.id in self.reviewed) or not path.is_file():
            return mask
        said = read_label_png(path)
        return np.where(said == IGNORE, mask, said)
