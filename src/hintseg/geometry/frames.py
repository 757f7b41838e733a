"""From the picture that shapes were drawn on to the photo as it is: made smaller meanwhile, or turned by EXIF."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hintseg.errors import LabelError
from hintseg.geometry import runs
from hintseg.types import Box, Click, Region, Rle, Shape, Stroke

T = TypeVar("T", bound=np.generic)


def turned(pixels: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """Turn the pixels of a photo as it is stored, (H, W, ...), as EXIF's orientation 1..8 asks for.

    Example:
        >>> turned(np.array([[1, 2], [3, 4]]), 6).tolist()
        [[3, 1], [4, 2]]
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where pixels of one picture lie in another: scaled first, then turned.

    Attributes:
        size: (height, width) of the picture that shapes were drawn on, pixels; (1, 1) for shares.
        stored: (height, width) of the photo as it is stored, pixels.
        orientation: EXIF's number of how the stored photo is to be turned and mirrored, 1..8; 1: not at all.

    Source:
        EXIF 2.3, tag 0x0112.

    Example:
        >>> Frame((2, 4), (2, 4), 6).moved(Box(0, 0, 1, 2))  # a quarter turn clockwise: the left edge comes on top
        Box(x0=0.0, y0=0.0, x1=2.0, y1=1.0)
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) of the photo as it is shown, pixels."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point (x, y) lies in the upright photo."""
        height, width = self.stored
        x, y = x * width / self.size[1], y * height / self.size[0]
        if self.orientation >= 5:  # mirrored at the main diagonal
            x, y, height, width = y, x, width, height
        across = self.orientation in (2, 3, 6, 7)
        down = self.orientation in (3, 4, 7, 8)
        return (width - x if across else x), (height - y if down else y)

    def moved(self, shape: Shape) -> Shape:
        """Return a shape of the picture in the upright photo.

        Raises:
            LabelError: Its run lengths are those of another picture, or its coordinates are not in pairs.
        """
        if isinstance(shape, Box):
            (x0, y0), (x1, y1) = self.point(shape.x0, shape.y0), self.point(shape.x1, shape.y1)
            swapped = shape.x1 < shape.x0 or shape.y1 < shape.y0  # left as it is: whoever checks boxes says so
            if self.orientation == 1 or swapped:
                return Box(x0, y0, x1, y1)
            return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        if isinstance(shape, Click):
            return Click(*self.point(shape.x, shape.y))
        if isinstance(shape, Stroke):
            scale = (self.stored[0] / self.size[0] * self.stored[1] / self.size[1]) ** 0.5
            return Stroke(self._ring(shape.points), max(1.0, shape.width * scale))
        if shape.rle is not None:
            return replace(shape, rle=self._runs(shape.rle))
        return Region(tuple(self._ring(ring) for ring in shape.polygons))

    def _ring(self, flat: tuple[float, ...]) -> tuple[float, ...]:
        if len(flat) % 2:
            raise LabelError(f"an outline has {len(flat)} numbers; points (x, y) are needed")
        pairs = zip(flat[0::2], flat[1::2], strict=True)
        return tuple(value for x, y in pairs for value in self.point(x, y))

    def _runs(self, rle: Rle) -> Rle:
        if (rle.height, rle.width) == self.upright:
            return rle
        if (rle.height, rle.width) != self.size:
            given, needed = f"{rle.width} x {rle.height}", f"{self.size[1]} x {self.size[0]}"
            raise LabelError(f"the run-length mask is {given}, but its picture is {needed}")
        height, width = self.stored
        mask = runs.decode(rle)
        rows = ((np.arange(height) + 0.5) * rle.height / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * rle.width / width).astype(np.int64)
        mask = mask[rows][:, columns]
        return runs.encode(turned(mask, self.orientation))
