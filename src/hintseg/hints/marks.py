"""Clicks, strokes and regions of a photo as labels of pixels: what a person said, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hintseg.config.settings import CLICK_PX
from hintseg.formats.index_image import read_checked
from hintseg.formats.layout import MAX_CLASSES
from hintseg.geometry.rasterise import pixels
from hintseg.types import BACKGROUND, IGNORE, Box, Click, Hints, Shape, Stroke

Labels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

SIDE = 500
"""Longer side, pixels, of the photos that pens and clicks are measured on: larger photos have larger ones."""


@dataclass(frozen=True, eq=False, slots=True)
class Marked:
    """What the marks of a photo say of its pixels.

    Attributes:
        pixels: (H, W) uint8: 0 background, 1..K, 255 where nothing is said, or different things are.
        trust: How far to believe each of them, (H, W) float32 in 0..1; None: wholly.
        ignored: (H, W) bool, where a mark says that nothing can be learned, and no other says what is there.
    """

    pixels: Labels
    trust: Floats | None
    ignored: Bools

    @property
    def classes(self) -> frozenset[int]:
        """Class ids 1..K that are marked."""
        return frozenset(label for label in np.unique(self.pixels).tolist() if BACKGROUND < label < IGNORE)


def read_marks(
    hints: Hints,
    size: tuple[int, int],
    *,
    click_px: float = CLICK_PX,
    n_classes: int = MAX_CLASSES,
    background: bool = True,
) -> Marked | None:
    """Paint all marks of a photo that say what single pixels are; boxes do not.

    A click is a disc around it, and a stroke is as wide as its pen; both are no smaller than `click_px` (the pen: one
    pixel) on a photo of 500 pixels and grow with the photo, so that none is lost where the photo is reduced. Where
    marks of different labels overlap nothing is said. What is to be ignored lies below all other marks.

    Args:
        hints: The photo's hints.
        size: (height, width) of the photo, pixels.
        click_px: Radius of a click's disc, in pixels of a photo whose longer side is 500; 0: the pixel it lies in.
        n_classes: K; larger ids in images of strokes are refused.
        background: Whether pixels may belong to no class; if not, marks of background say nothing.

    Returns:
        The labels; None where there is no such mark.

    Raises:
        LabelError: The image of strokes cannot be read, or does not fit.

    Example:
        >>> from hintseg.types import Mark
        >>> marks = (Mark(1, Click(1.5, 0.5)), Mark(2, Stroke((3.5, 0.5, 5.5, 0.5))), Mark(0, Click(5.5, 0.5)))
        >>> read_marks(Hints(marks=marks), (1, 8)).pixels.tolist()
        [[255, 1, 255, 2, 2, 255, 255, 255]]
    """
    marks = [mark for mark in hints.marks if not isinstance(mark.shape, Box)]
    if not marks and hints.scribbles is None:
        return None
    said = np.full(size, IGNORE, np.uint8)
    trust, contested, ignored = np.zeros(size, np.float32), np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    if hints.scribbles is not None:
        said[:] = read_checked(hints.scribbles, size, n_classes)
        trust[said != IGNORE] = 1
    for mark in hints.marks:
        if mark.label == IGNORE:
            ignored[pixels(mark.shape, size)] = True
    for mark in marks:
        if mark.label == IGNORE:
            continue
        place = pixels(_visible(mark.shape, size, click_px), size)
        contested[place] |= (said[place] != IGNORE) & (said[place] != mark.label)
        said[place] = mark.label
        trust[place] = np.maximum(trust[place], mark.trust)
    said[contested] = IGNORE
    if not background:
        said[said == BACKGROUND] = IGNORE
    known = said != IGNORE
    wholly = bool((trust[known] == 1).all())
    return Marked(said, None if wholly else np.where(known, trust, np.float32(1)), ignored & ~known)


def _visible(shape: Shape, size: tuple[int, int], click_px: float) -> Shape:
    """Return a shape that is seen in a photo of any size: a click as a disc, a stroke with a pen of some width."""
    scale = max(size) / SIDE
    if isinstance(shape, Click) and click_px * scale > 0.5:
        return Stroke((shape.x, shape.y), 2 * click_px * scale)
    return replace(shape, width=max(shape.width, scale)) if isinstance(shape, Stroke) else shape
