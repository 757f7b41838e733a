"""GrabCut: cut one object out of a photo, from its box or from a rough trimap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hintseg.errors import ShapeError
from hintseg.refine._checks import as_photos

_COMPONENTS = 5  # of OpenCV's colour mixtures; each side needs as many pixels to start them


@torch.no_grad()
def grabcut(
    rgb: Tensor,
    box: Sequence[float] | Tensor | None = None,
    trimap: Tensor | None = None,
    *,
    iterations: int = 5,
) -> Tensor:
    """Cut the object in a box or trimap out of a photo.

    Where there is nothing to cut (fewer than 5 pixels may be foreground, or fewer than 5 background: a box that is
    the whole photo or a single pixel), or the cut comes out empty, the sure foreground of the trimap is returned,
    and without one all that may be foreground: the filled box.

    Args:
        rgb: One photo, (3, H, W), uint8, or float in 0..255.
        box: (x0, y0, x1, y1) in pixels, right and bottom exclusive; rounded to pixels (to at least one) and clipped
            to the photo. All outside is background.
        trimap: OpenCV's codes, (H, W), integers: 0 background, 1 foreground, 2 probably background, 3 probably
            foreground. Without it, all inside the box is 3.
        iterations: Number of cuts, >= 1.

    Returns:
        True on the object, (H, W), bool.

    Raises:
        ShapeError: Neither `box` nor `trimap` is given, `box` is empty, not finite or outside the photo, `trimap`
            does not fit the photo or holds other codes, or `rgb` is no photo.

    Cost:
        0.25 s for a box and 1 s for a trimap of the whole photo at 321 x 481, on one CPU thread.

    Source:
        Rother, Kolmogorov and Blake, SIGGRAPH 2004, through OpenCV, whose random numbers are seeded at every call:
        results repeat, though they may differ between versions of OpenCV.

    Example:
        >>> rgb = torch.zeros(3, 20, 20, dtype=torch.uint8)
        >>> rgb[:, 5:10, 5:12] = 255
        >>> int(grabcut(rgb, box=(3, 3, 15, 13)).sum())
        35
    """
    photo = as_photos(rgb[None])[0].round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    if iterations < 1:
        raise ShapeError(f"iterations is {iterations}; give 1 or more, such as 5")
    codes = _codes(photo.shape[0], photo.shape[1], box, trimap)
    possible = codes % 2 == 1
    fallback = codes == 1 if (codes == 1).any() else possible
    mask = fallback
    if min(np.count_nonzero(possible), np.count_nonzero(~possible)) >= _COMPONENTS:
        import cv2  # here: importing it takes a tenth of a second

        cv2.setRNGSeed(0)
        cv2.grabCut(photo, codes, None, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)
        cut = codes % 2 == 1
        mask = cut if cut.any() else fallback
    return torch.from_numpy(mask).to(rgb.device)


def _codes(height: int, width: int, box: Sequence[float] | Tensor | None, trimap: Tensor | None) -> NDArray[np.uint8]:
    if trimap is None:
        if box is None:
            raise ShapeError("grabcut got neither a box nor a trimap; give one of them")
        codes = np.full((height, width), 3, np.uint8)
    else:
        if tuple(trimap.shape) != (height, width) or trimap.is_floating_point():
            raise ShapeError(
                f"trimap is {trimap.dtype} of shape {tuple(trimap.shape)}; integers of the photo's size "
                f"{(height, width)} are needed"
            )
        if int(trimap.min()) < 0 or int(trimap.max()) > 3:
            raise ShapeError(
                f"trimap runs from {int(trimap.min())} to {int(trimap.max())}; give 0 background, 1 foreground, "
                "2 probably background, 3 probably foreground"
            )
        codes = trimap.byte().cpu().numpy().copy()
    if box is not None:
        x0, y0, x1, y1 = _pixels(box, height, width)
        inside = np.zeros((height, width), np.bool_)
        inside[y0:y1, x0:x1] = True
        codes[~inside] = 0
    return codes


def _pixels(box: Sequence[float] | Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    edges = [float(edge) for edge in box]
    if len(edges) != 4 or not all(math.isfinite(edge) for edge in edges):
        raise ShapeError(f"box is {edges}; four finite numbers (x0, y0, x1, y1) in pixels are needed")
    x0, y0, x1, y1 = edges
    if x1 <= x0 or y1 <= y0:
        raise ShapeError(f"box {edges} is empty; (x0, y0, x1, y1) needs x0 < x1 and y0 < y1")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ShapeError(f"box {edges} lies outside the photo of {width} x {height} pixels")
    left, right = _span(x0, x1, width)
    top, bottom = _span(y0, y1, height)
    return left, top, right, bottom


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    begin, end = max(round(low), 0), min(round(high), size)
    if begin < end:
        return begin, end
    # Narrower than a pixel: the pixel that holds its middle.
    pixel = min(max(math.floor((low + high) / 2), 0), size - 1)
    return pixel, pixel + 1
