"""What a review teaches: a folder that does not change any more, and the hints in it.

RUN/review/learned/DIGEST/review.json    what was said of each photo
RUN/review/learned/DIGEST/accepted/ID.png   whole masks that a person accepted
RUN/review/learned/DIGEST/mended/ID.png     pixels that a person changed in a mask not accepted, 255 elsewhere

A person may go on reviewing while a run learns, so that reads a copy. Equal reviews make one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hintseg.errors import LabelError, RunError
from hintseg.files.atomic import whole_file
from hintseg.formats.photos import photo_size
from hintseg.geometry import runs
from hintseg.hints.implied import implied_tags
from hintseg.reviewing.schema import PERSON, Document, DrawnMark, State
from hintseg.reviewing.storage import Review
from hintseg.run.schema import Facts, read_checked
from hintseg.store.masks import read_label_png, write_mask
from hintseg.types import IGNORE, HintSet, Mark, MaskFile, Photo, Region, Rle, Shape, Tags

FILE = "review.json"

logger = logging.getLogger("hintseg")


class LessonRow(Facts):
    """What was said of one photo.

    Attributes:
        state: What was decided of its mask.
        marks: The hints drawn on it.
        mended: Whether pixels of it were changed.
    """

    state: State
    marks: tuple[DrawnMark, ...]
    mended: bool


class Lessons(Facts):
    """``review.json``.

    Attributes:
        run: The run that was reviewed.
        classes: Its classes.
        background: Whether pixels may belong to no class.
        photos: What was said, by photo.
    """

    run: Path
    classes: tuple[str, ...]
    background: bool
    photos: dict[str, LessonRow]


def write_lessons(review: Review) -> Path:
    """Write what a review teaches into a folder of its own, and return that.

    What the run itself had learned from an earlier review goes on teaching, but for the photos of this one.

    Raises:
        RunError: Nothing was reviewed yet, or the folder cannot be written.
    """
    said = {row.id: document for row, document in review.reviewed() if _says(document)}
    if not said:
        raise RunError(
            f"nothing of {review.run.path} was reviewed yet; accept, mend or mark some masks first, on the page that "
            f"`hintseg review {review.run.path}` opens"
        )
    photos = {id: LessonRow(state=d.now.state, marks=d.now.marks, mended=d.now.mask > 0) for id, d in said.items()}
    before, earlier = _earlier(review)
    kept = {id: row for id, row in earlier.items() if id not in said}
    photos |= kept
    lessons = Lessons(run=review.run.path, classes=review.classes, background=review.background, photos=photos)
    content = json.dumps(lessons.model_dump(mode="json"), sort_keys=True).encode()
    masks = {id: (review.base(id), review.mask(id, document.now)) for id, document in said.items()}
    digest = hashlib.blake2b(content, digest_size=8)
    for id, (base, mask) in sorted(masks.items()):
        digest.update(id.encode() + base.tobytes() + mask.tobytes())
    digest.update(before.name.encode() if before is not None and kept else b"")  # the name tells what is in it
    folder = review.folder / "learned" / digest.hexdigest()
    if (folder / FILE).is_file():
        return folder
    for id, (base, mask) in masks.items():
        if photos[id].state == "accepted":
            write_mask(folder / "accepted" / f"{id}.png", mask)
        elif photos[id].mended:
            write_mask(folder / "mended" / f"{id}.png", np.where(mask == base, np.uint8(IGNORE), mask))
    for id, row in kept.items():
        name = f"{'accepted' if row.state == 'accepted' else 'mended'}/{id}.png"
        if before is not None and (before / name).is_file():
            write_mask(folder / name, read_label_png(before / name))
    with whole_file(folder / FILE) as file:  # last: a folder with it is whole
        file.write(content)
    return folder


def _earlier(review: Review) -> tuple[Path | None, dict[str, LessonRow]]:
    """Return the lessons that the reviewed run had learned from, their folder and what they say of each photo."""
    folder = review.run.seen.data.review
    if folder is None:
        return None, {}
    if not (folder / FILE).is_file():
        logger.warning("%s is gone: what was said in that review is not taught any more", folder)
        return None, {}
    lessons = read_lessons(folder)
    same = (lessons.classes, lessons.background) == (review.classes, review.background)
    return folder, lessons.photos if same else {}


def _says(document: Document) -> bool:
    now = document.now
    return now.state in ("accepted", "rejected") or bool(now.marks) or now.mask > 0


def read_lessons(folder: Path) -> Lessons:
    """Read `review.json` of a folder that `write_lessons` made.

    Raises:
        RunError: It is missing or damaged.
    """
    return read_checked(folder / FILE, Lessons)


def with_lessons(hint_set: HintSet, folder: Path) -> HintSet:
    """Add what a person said to the hints of a data set; where the two differ, the person is right.

    An accepted mask teaches as a whole. Of one that was mended or marked and not accepted, the changed pixels and the
    marks teach. A rejected one teaches nothing but its marks: none of its other pixels is learned from.

    Raises:
        LabelError: The data set has other classes, or a photo is not there.
        RunError: The folder is damaged.
    """
    lessons = read_lessons(folder)
    if lessons.classes != hint_set.classes or lessons.background != hint_set.background:
        raise LabelError(
            f"{folder} was reviewed with the classes {', '.join(lessons.classes)}, but the data has "
            f"{', '.join(hint_set.classes)}; train with the labels of {lessons.run}, or leave data.review out"
        )
    photos = {photo.id: photo for photo in hint_set.photos}
    if gone := sorted(set(lessons.photos) - set(photos)):
        raise LabelError(
            f"{folder} speaks of photo '{gone[0]}', which is not in the data"
            + (f", and of {len(gone) - 1} more" if len(gone) > 1 else "")
            + "; bring the photos back"
        )
    for id, row in lessons.photos.items():
        photos[id] = _taught(photos[id], row, folder, hint_set)
    return replace(
        hint_set, photos=tuple(photos.values()), notes=(*hint_set.notes, *(f"review: {s}" for s in sentences(lessons)))
    )


def sentences(lessons: Lessons) -> Iterator[str]:
    """Say what a review changes, in words."""
    counts: Counter[str] = Counter()
    for row in lessons.photos.values():
        counts["accepted and mended" if row.state == "accepted" and row.mended else row.state] += row.state != "open"
        counts["mended"] += row.mended and row.state not in ("accepted", "rejected")
        counts["marks"] += len(row.marks)
    for name, what in (
        ("accepted", "masks accepted as they were: they teach as a whole"),
        ("accepted and mended", "masks mended and accepted: they teach as a whole"),
        ("mended", "masks mended: the changed pixels teach"),
        ("rejected", "masks rejected: they teach nothing but what was marked in them"),
        ("marks", "marks drawn"),
    ):
        if counts[name]:
            yield f"{counts[name]} {what}"


def _taught(photo: Photo, row: LessonRow, folder: Path, hint_set: HintSet) -> Photo:
    marks: list[Mark[Shape]] = []
    mask = photo.hints.mask
    if row.state == "accepted":
        path = folder / "accepted" / f"{photo.id}.png"
        shows = frozenset(int(label) for label in np.unique(read_label_png(path)))
        tags: Tags | None = Tags.complete(shows - {0}, len(hint_set.classes))
        mask = MaskFile(path, shows=shows)
    else:
        if row.state == "rejected":
            marks.append(Mark(IGNORE, _whole(photo_size(photo.path)), source=PERSON))
        elif row.mended:
            marks += _regions(folder / "mended" / f"{photo.id}.png")
        marks += [drawn.mark() for drawn in row.marks]
        tags = implied_tags(replace(photo.hints, marks=tuple(marks)), len(hint_set.classes), closed=False)
    return replace(photo, hints=replace(photo.hints, tags=tags, marks=(*photo.hints.marks, *marks), mask=mask))


def _whole(size: tuple[int, int]) -> Region:
    return Region(rle=Rle(*size, (0, size[0] * size[1])))


def _regions(path: Path) -> Iterator[Mark[Shape]]:
    mask = read_label_png(path)
    for label in np.unique(mask[mask != IGNORE]).tolist():
        yield Mark(label, Region(rle=runs.encode(mask == label)), source=PERSON)
