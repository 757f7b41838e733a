"""What training again changed: results of both runs, and how much their masks differ."""

from __future__ import annotations

from collections.abc import Iterator

from hintseg.errors import ShapeError
from hintseg.evaluation.confusion import joint_counts
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png

COMPARED = 500
"""Photos whose masks are compared, at most, evenly spread."""


def differences(before: RunFolder, after: RunFolder) -> Iterator[str]:
    """Say what is different in a run from the one it began with, one sentence each."""
    old = {(row.kind, row.split): row.miou for row in before.metrics if not row.oracle}
    for row in after.metrics:
        was = old.get((row.kind, row.split))
        if not row.oracle and row.miou is not None and was is not None:
            change = 100 * (row.miou - was)
            yield f"{row.kind} ({row.split}): mIoU {100 * was:.1f} before, {100 * row.miou:.1f} now ({change:+.1f})"
    made, now = before.masks_of_photos(), after.masks_of_photos()
    if made is None or now is None:
        return
    ids = [row.id for row in after.photos if row.split == "train"]
    paths = [(made.folder / f"{id}.png", now.folder / f"{id}.png") for id in ids[:: max(1, len(ids) // COMPARED)]]
    changed = pixels = photos = 0
    for one, other in paths:
        if not (one.is_file() and other.is_file()):
            continue
        try:
            counts = joint_counts(read_label_png(one), read_label_png(other))
        except ShapeError:  # the photo is another one now
            continue
        off = int(counts.sum() - counts.trace())
        changed, pixels, photos = changed + off, pixels + int(counts.sum()), photos + (off > 0)
    if pixels:
        yield f"masks of {photos} of {len(paths)} photos changed, {changed / pixels:.1%} of all pixels"
