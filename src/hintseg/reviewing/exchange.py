"""Masks to mend with other tools, and back: the first of the review list out as pre-annotations, the mended ones in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.errors import HintsegError, LabelError, RunError, list_problems, shown
from hintseg.files.owned import owned
from hintseg.formats.codec import Written
from hintseg.formats.photos import photo_size
from hintseg.hints import read_hints
from hintseg.hints.convert import write, writer
from hintseg.hints.masks import read_full
from hintseg.quality.review_list import ReviewList
from hintseg.reviewing.storage import Review
from hintseg.store.masks import write_mask
from hintseg.types import BACKGROUND, IGNORE, FullMask, Hints, HintSet, MaskFile, Photo


class Taken(NamedTuple):
    """What came back.

    Attributes:
        mended: Photos whose mask is another one now.
        equal: Photos whose mask came back as it was.
    """

    mended: int
    equal: int


def send(review: Review, found: ReviewList, to: str, out: Path, *, most: int) -> Written:
    """Write the masks of the first photos of the list as labels that another tool opens.

    Args:
        review: The review; masks that were mended go out as they are now.
        found: The review list.
        to: A format that is written and holds masks, such as `cvat`, `label_studio`, `labelme`.
        out: Folder to make.
        most: How many photos.

    Raises:
        ConfigError: The format is not written.
        RunError: `out` holds something, or a mask cannot be read.
    """
    writer(to)
    with owned(out, "labels", alone=True) as folder:
        if folder.hashes:
            raise RunError(f"{out} holds labels that were written before; choose another --out")
        photos = []
        for row in found.photos[:most]:
            mask = review.mask(row.id, review.document(row.id).now)
            path = out / "masks" / f"{row.id}.png"
            write_mask(path, mask)
            labels = frozenset(int(label) for label in np.unique(mask))
            full = MaskFile(path, shows=labels)
            photos.append(Photo(row.id, review.photos[row.id].path, Hints(mask=full)))
        hint_set = HintSet(
            review.run.data.name,
            review.classes,
            tuple(sorted(photos, key=lambda photo: photo.id)),
            background=review.background,
        )
        return write(hint_set, to, out / to)


def take(review: Review, labels: Path) -> Taken:
    """Read masks that another tool mended, and accept them: all of them, or none where one does not fit.

    Args:
        review: The review.
        labels: The label file or folder.

    Raises:
        LabelError: It cannot be read, or masks are of another size, of other classes, or of photos without a mask in
            the run; all problems at once.
    """
    data = Path(review.run.data.path)
    hint_set = read_hints(data, labels, background=review.background, missing="error")
    known = {name: number for number, name in enumerate(review.classes, start=1)}
    used = _classes_used(hint_set)
    problems = [
        f"class '{shown(name)}' is none of the run's: {', '.join(review.classes)}"
        for name in hint_set.classes
        if name not in known and name in used
    ]
    ids = [BACKGROUND, *(known.get(name, IGNORE) for name in hint_set.classes)]
    table = np.full(256, IGNORE, np.uint8)
    table[: len(ids)] = ids
    masks: dict[str, npt.NDArray[np.uint8]] = {}
    for photo in hint_set.photos:
        full = _full(photo)
        if full is None:
            continue
        if photo.id not in review.photos:
            problems.append(f"photo '{shown(photo.id)}' has no mask in the run")
            continue
        try:
            mask = read_full(full, photo, photo_size(photo.path), len(hint_set.classes), True)
            before = review.mask(photo.id, review.document(photo.id).now)
        except HintsegError as error:
            problems.append(f"photo '{shown(photo.id)}': {error}")
            continue
        moved = table[mask]
        unsaid = (moved == IGNORE) | ((moved == BACKGROUND) & (not review.background))
        masks[photo.id] = np.where(unsaid, before, moved)
    if problems:
        raise LabelError(list_problems(str(labels), problems))
    if not masks:
        raise LabelError(f"{labels} has no full masks; export masks or polygons from your tool")
    return Taken(*review.accept(masks))


def _full(photo: Photo) -> FullMask | None:
    """Return the mask of a photo: as it is read, or its outlines."""
    return photo.truth if photo.truth is not None else photo.hints.mask


def _classes_used(hint_set: HintSet) -> set[str]:
    """Return the names of the classes that masks show."""
    labels: set[int] = set()
    for photo in hint_set.photos:
        full = _full(photo)
        if isinstance(full, MaskFile):
            labels |= set(range(1, len(hint_set.classes) + 1)) if full.shows is None else full.shows
        else:
            labels |= {mark.label for mark in full or ()}
    return {hint_set.classes[label - 1] for label in labels if BACKGROUND < label < IGNORE}
