"""Boxes are tight: an object touches all four sides of its own box.

Lempitsky et al., "Image Segmentation with a Bounding Box Prior", ICCV 2009, has this as a constraint of the cut. Here a
network has said already how probable each pixel is, so it is enough to cut where the object reaches the sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hintseg.geometry.boxes import pixel_window


def lift_to_sides(
    probability: NDArray[np.float32], box: Sequence[float], *, least: float = 0.2, slack: float = 0.05
) -> NDArray[np.float32]:
    """Raise the probabilities of a box until what is above 0.5 touches all four of its sides.

    Networks are unsure at the rim of an object, so a cut at 0.5 tends to be too small. The box says how far the object
    goes: the cut is lowered to the smallest of the four largest probabilities along the sides. It is never raised.

    Args:
        probability: Of foreground, (H, W), 0..1.
        box: (x0, y0, x1, y1), pixels of `probability`, right and bottom exclusive.
        least: The cut is not lowered below this probability: a box that is not tight would be filled.
        slack: Share of the box by which an object may miss a side, beside one pixel: people draw boxes by hand.

    Returns:
        The probabilities plus one number >= 0, at most 1, (H, W).

    Raises:
        ShapeError: The box is not finite, swapped or outside.

    Source:
        Ours; the numbers were looked up on part of two real sets (docs/notebook.md, "Tight boxes").

    Example:
        >>> probability = np.zeros((6, 8), np.float32)
        >>> probability[1:5, 1:7], probability[2:4, 2:6] = 0.3, 0.9
        >>> lifted = lift_to_sides(probability, (1, 1, 7, 5))
        >>> int((probability > 0.5).sum()), int((lifted > 0.5).sum())
        (8, 24)
    """
    x0, y0, x1, y1 = pixel_window(box, (probability.shape[0], probability.shape[1]))
    inside = probability[y0:y1, x0:x1]
    rows, columns = (1 + int(slack * side) for side in inside.shape)
    sides = (inside[:rows], inside[-rows:], inside[:, :columns], inside[:, -columns:])
    reached = min(float(side.max()) for side in sides)
    if reached > 0.5:
        return probability
    above = 1e-6  # the weakest side itself shall be more than 0.5
    lifted: NDArray[np.float32] = np.minimum(probability + np.float32(0.5 + above - max(least, reached)), np.float32(1))
    return lifted
