"""Strokes: lines drawn with a pen of some width."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def near_line(line: npt.NDArray[np.float64], radius: float, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centre is near a line.

    Args:
        line: Its vertices, (n, 2) points (x, y), pixels; n >= 1.
        radius: The largest distance of a pixel's centre, pixels. From 0.5 on no part of the line is missed.
        size: (height, width), pixels.

    Returns:
        (H, W) bool.

    Cost:
        Time O(n * H * W), as each segment is compared with the pixels around it.

    Example:
        >>> near_line(np.array([[0.5, 0.5], [3.5, 0.5]]), 0.5, (2, 4)).astype(int).tolist()
        [[1, 1, 1, 1], [0, 0, 0, 0]]
    """
    height, width = size
    near = np.zeros(size, dtype=np.bool_)
    most = (width, height)
    for begin, end in zip(line, line[1:] if len(line) > 1 else line, strict=False):
        left, top = np.clip(np.floor(np.minimum(begin, end) - radius), 0, most).astype(int)
        right, bottom = np.clip(np.ceil(np.maximum(begin, end) + radius), (left, top), most).astype(int)
        x, y = np.arange(left, right) + 0.5 - begin[0], (np.arange(top, bottom) + 0.5 - begin[1])[:, None]
        along = end - begin
        length = float(along @ along)
        place = np.clip((x * along[0] + y * along[1]) / length, 0, 1) if length else np.zeros(())
        apart = (x - place * along[0]) ** 2 + (y - place * along[1]) ** 2
        near[top:bottom, left:right] |= apart <= radius**2
    return near
