"""Evidence of photos on disk: masks, which are judged and complete, apart from what may be learned from.

STAGE/masks/ID.png       a label in every pixel; a photo of which nothing is known has none
STAGE/evidence/ID.png    where that is not all known: the labels with 255
STAGE/trust/ID.png       grey, 255 = wholly; only with `segment.trust`, and of marks where tags are placed too: those
                         count where marks are unsure
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from hintseg.config.run import RunConfig
from hintseg.data.photos import photo_size
from hintseg.errors import PhotoError
from hintseg.files.owned import mended, stays
from hintseg.hints.marks import Marked, read_marks
from hintseg.labellers.labeller import Evidence
from hintseg.methods.segmenter import SegmenterConfig
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Stage
from hintseg.store.instances import read_instances
from hintseg.store.masks import MaskStore, write_mask
from hintseg.store.trust import read_fitting, read_trust, write_trust
from hintseg.training.watch import Watch
from hintseg.types import IGNORE, Photo

Bytes = npt.NDArray[np.uint8]

SHOWN = 5
"""Photos without a mask that are named."""


def teaches_trust(config: RunConfig) -> bool:
    """Return whether the segmenter weighs labels by how far they are trusted."""
    return isinstance(config.segment, SegmenterConfig) and config.segment.trust


def keeps_trust(config: RunConfig) -> bool:
    """Return whether trust in what marks made is kept: labels are weighed by it, or tags are asked where it is low."""
    return teaches_trust(config) or config.localize is not None


def marks_of(photo: Photo, run: RunFolder, config: RunConfig) -> Marked | None:
    """Return what the strokes and clicks of a photo say of its pixels; None where it has none, or cannot be read."""
    try:
        size = photo_size(photo.path)
    except PhotoError:
        return None  # reported where it is read
    classes, click_px = len(run.classes), config.data.click_px
    return read_marks(photo.hints, size, click_px=click_px, n_classes=classes, background=run.background)


class EvidenceStore:
    """What a stage says of photos, below ``RUN/STAGE``.

    Args:
        run: The run folder.
        stage: The stage.
        trust: Whether trust is kept.
        masks: Folder of the masks.
    """

    def __init__(self, run: RunFolder, stage: Stage, *, trust: bool, masks: str = "masks") -> None:
        self.run, self.stage, self.trust = run, stage, trust
        self.folder = run.stage(stage)
        self.masks = MaskStore(self.folder / masks, run.classes, run.background)

    def done(self, photo: Photo) -> bool:
        """Return whether the photo has its mask, which is written last."""
        return photo.id in self.masks

    def write(self, photo: Photo, evidence: Evidence, *, quality: bool = False) -> None:
        """Write what is known of a photo; with `quality` the mean trust as the quality of its mask.

        A mask that was mended by hand while the run was stopped stays.
        """
        if stays(self.masks.path(photo.id)):
            return
        mask = evidence.complete(self.run.background)
        if mask is not evidence.pixels:
            write_mask(self.folder / "evidence" / f"{photo.id}.png", evidence.pixels)
        if mask is None:
            return
        if self.trust and evidence.trust is not None:
            write_trust(self.folder / "trust" / f"{photo.id}.png", evidence.trust)
        mean = None
        if quality and evidence.trust is not None:
            mean = float(torch.from_numpy(evidence.trust).mean().clamp(0, 1))
        self.masks.write(photo.id, mask, quality=mean)

    def read(self, photo: Photo) -> Evidence | None:
        """Return what is known of a photo; None: nothing is.

        Where somebody mended the mask by hand, its labels are known, and all of it is trusted wholly.

        Raises:
            LabelError: A file is broken, or of another size than the mask.
            RunError: The objects cannot be read.
        """
        if photo.id not in self.masks:
            return None
        pixels, trust, objects = self.masks.read(photo.id), None, None
        path = self.folder / "instances" / f"{photo.id}.npz"
        if path.is_file():
            objects = read_instances(path)
        path = self.folder / "evidence" / f"{photo.id}.png"
        if path.is_file():
            said = read_fitting(path, pixels)
            complete = Evidence(said, None, objects).complete(self.run.background)
            if complete is not None:
                pixels = np.where((said == IGNORE) & (pixels == complete), np.uint8(IGNORE), pixels)
        if self.trust and not mended(self.masks.path(photo.id)):
            trust = read_trust(self.folder / "trust" / f"{photo.id}.png", pixels)
        return Evidence(pixels, trust, objects)

    def finish(self, photos: Sequence[Photo], watch: Watch) -> None:
        """Write the manifest of the masks, in the first process, and say of which of `photos` nothing is known."""
        self.masks.finish()
        said = [photo.id for photo in photos if (self.folder / "evidence" / f"{photo.id}.png").is_file()]
        without = [id for id in said if id not in self.masks]
        if without:
            more = f" and {len(without) - SHOWN} more" if len(without) > SHOWN else ""
            watch.line(
                f"{self.stage}: {len(without)} photos get no mask and are not judged, as nothing is known of their "
                f"pixels: {', '.join(without[:SHOWN])}{more}"
            )
