"""What a person did to the masks of a run, on disk: every change whole or not at all.

RUN/review/photos/ID.json      the steps of one photo, written last
RUN/review/masks/ID/N.png      the mask that change N made; 0.png is the run's mask as it was first looked at
RUN/review/list.json           the review list (`hintseg.quality.kept`)

hintseg never deletes what a person did: the folder is in no list of a run's own files, so `--overwrite` leaves it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.data.photos import photo_size, read_photo
from hintseg.errors import HintsegError, PhotoError, RunError
from hintseg.files.atomic import remove_quietly, whole_file
from hintseg.quality.voices import judged, judged_rows
from hintseg.reviewing.edit import changed
from hintseg.reviewing.schema import Action, Document, State, Step
from hintseg.run.folder import RunFolder
from hintseg.run.schema import PhotoRow, read_checked
from hintseg.store.masks import read_label_png, write_mask

Bytes = npt.NDArray[np.uint8]

REVIEW = "review"

KEPT_STEPS = 50
"""Changes of a photo that can be undone."""


class StaleError(HintsegError):
    """Somebody else, such as another tab, changed the photo since it was looked at."""


class Standing(NamedTuple):
    """How far a photo is reviewed.

    Attributes:
        state: What was decided.
        mended: Whether its mask was changed.
        marks: Hints drawn on it.
        revision: Of its document.
    """

    state: State = "open"
    mended: bool = False
    marks: int = 0
    revision: int = 0


class Review:
    """The review of one run.

    Attributes:
        run: The run.
        stage: The stage whose masks are looked at.
        photos: The photos that have one, by id.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.stage = judged(run).stage
        self.classes, self.background = run.classes, run.background
        self.photos: dict[str, PhotoRow] = {row.id: row for row in judged_rows(run)}
        self.folder = run.path / REVIEW
        self._lock = RLock()
        self._decoded: tuple[str, Bytes] | None = None

    def document(self, id: str) -> Document:
        """Return what was done to a photo so far.

        Raises:
            PhotoError: The photo is gone, or another one than was looked at.
            RunError: There is no such photo in the run, or its file in the review is damaged.
        """
        row = self._row(id)
        path = self._path(id)
        digest = _digest(row.path)
        if path.is_file():
            found = read_checked(path, Document)
            if found.photo != digest:
                raise PhotoError(
                    f"{row.path} changed since it was reviewed; what was drawn is kept in {path}: bring the photo "
                    "back, or move that file away to begin anew"
                )
            return found
        mask = self.base(id)
        if (size := photo_size(row.path)) != mask.shape:
            raise PhotoError(
                f"{row.path} is {size[1]} x {size[0]} pixels and its mask {mask.shape[1]} x {mask.shape[0]}: it "
                "changed since the run; bring it back, or train again"
            )
        return Document(photo=digest, size=size)

    def standings(self) -> dict[str, Standing]:
        """Return how far each photo is reviewed; those nobody touched are left out.

        Raises:
            RunError: A file is damaged.
        """
        return {id: standing(read_checked(self._path(id), Document)) for id in self.photos if self._path(id).is_file()}

    def base(self, id: str) -> Bytes:
        """Return the run's mask of a photo, as it was first looked at."""
        kept = self._mask_path(id, 0)
        return read_label_png(kept if kept.is_file() else self.run.mask_path(self.stage, self._row(id).id))

    def mask(self, id: str, step: Step) -> Bytes:
        """Return the mask of a step, (H, W) uint8."""
        return read_label_png(self._mask_path(id, step.mask)) if step.mask else self.base(id)

    def rgb(self, id: str, digest: str) -> Bytes:
        """Return the photo of a digest, (H, W, 3) uint8; the last one is kept decoded.

        Raises:
            PhotoError: It cannot be read.
        """
        kept = self._decoded
        if kept is None or kept[0] != digest:
            kept = self._decoded = digest, read_photo(self._row(id).path)
        return kept[1]

    def act(self, id: str, revision: int, action: Action) -> Document:
        """Do something to a photo; it is on disk when this returns.

        Args:
            id: The photo.
            revision: The revision that the person looked at.
            action: What to do.

        Raises:
            StaleError: The photo has another revision by now.
            PhotoError: The photo is gone, or another one than was looked at.
            RunError: The disk is full; all is as it was before.
            ShapeError: The action does not fit the photo or the classes.
        """
        with self._lock:
            before = self.document(id)
            if before.revision != revision:
                raise StaleError(f"photo {id} was changed elsewhere meanwhile; this is how it stands now")
            after = self._after(id, before, action)
            if after is before:
                return before
            self._keep(id, before, after)
            return after

    def accept(self, masks: Mapping[str, Bytes]) -> tuple[int, int]:
        """Take masks that were mended elsewhere, and accept them; each can be undone.

        Args:
            masks: By photo, (H, W) uint8 of the photo's size.

        Returns:
            How many are other ones than before, and how many are the same.
        """
        mended = 0
        with self._lock:
            for id, mask in masks.items():
                before = self.document(id)
                now = self.mask(id, before.now)
                mended += not np.array_equal(mask, now)
                step = before.now.model_copy(update={"state": "accepted"})
                step = self._with_mask(id, step, before, mask, self.base(id), now)
                if step != before.now:
                    self._keep(id, before, _followed(before, step))
        return mended, len(masks) - mended

    def _keep(self, id: str, before: Document, after: Document) -> None:
        """Write a document, the masks it names being there, and delete the masks it names no more."""
        base = self._mask_path(id, 0)
        if not base.is_file():
            content = self.run.mask_path(self.stage, id).read_bytes()
            with whole_file(base) as file:
                file.write(content)
        with whole_file(self._path(id)) as file:
            file.write(json.dumps(after.model_dump(mode="json")).encode())
        used = {step.mask for step in after.steps}
        for number in {step.mask for step in before.steps} - used - {0}:
            remove_quietly(self._mask_path(id, number))

    def _with_mask(self, id: str, step: Step, before: Document, mask: Bytes, base: Bytes, now: Bytes) -> Step:
        """Return a step with a mask, which is written if it is neither the run's nor the one that stands now."""
        if np.array_equal(mask, base):
            return step.model_copy(update={"mask": 0})
        if np.array_equal(mask, now):
            return step
        write_mask(self._mask_path(id, before.revision + 1), mask)
        return step.model_copy(update={"mask": before.revision + 1})

    def _after(self, id: str, before: Document, action: Action) -> Document:
        """Return the document after an action; the same one where that changes nothing."""
        if action.kind in ("undo", "redo"):
            at = before.at + (1 if action.kind == "redo" else -1)
            if not 0 <= at < len(before.steps):
                return before
            return before.model_copy(update={"revision": before.revision + 1, "at": at})
        base = self.base(id)
        mask = self.mask(id, before.now) if before.now.mask else base
        step, painted = changed(
            before.now,
            action,
            mask,
            base,
            lambda: self.rgb(id, before.photo),
            classes=len(self.classes),
            background=self.background,
        )
        if painted is not mask:
            step = self._with_mask(id, step, before, painted, base, mask)
        return before if step == before.now else _followed(before, step)

    def reviewed(self) -> Iterator[tuple[PhotoRow, Document]]:
        """Yield the photos somebody touched, and what was done to them."""
        for id, row in self.photos.items():
            if self._path(id).is_file():
                yield row, read_checked(self._path(id), Document)

    def _row(self, id: str) -> PhotoRow:
        if id not in self.photos:
            raise RunError(f"the run has no mask of a photo '{id}'")
        return self.photos[id]

    def _path(self, id: str) -> Path:
        return self.folder / "photos" / f"{id}.json"

    def _mask_path(self, id: str, number: int) -> Path:
        return self.folder / "masks" / id / f"{number}.png"


def _followed(before: Document, step: Step) -> Document:
    """Return a document with one more step; what was undone is given up."""
    steps = (*before.steps[: before.at + 1], step)[-KEPT_STEPS:]
    return before.model_copy(update={"revision": before.revision + 1, "at": len(steps) - 1, "steps": steps})


def standing(document: Document) -> Standing:
    """Return how far a photo is reviewed."""
    now = document.now
    return Standing(now.state, now.mask > 0, len(now.marks), document.revision)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise PhotoError(
            f"{path} cannot be opened ({error.strerror or error}); bring the photo back to where the run found it"
        ) from error
