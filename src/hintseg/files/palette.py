"""The colours of mask files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def voc_palette() -> npt.NDArray[np.uint8]:
    """Return Pascal VOC's colour of each of the 256 labels, (256, 3) uint8 RGB.

    The label's bits are dealt out in turn to red, green and blue, the first three to the highest bit of each colour.

    Source:
        Everingham et al., The Pascal VOC development kit, function VOClabelcolormap.

    Example:
        >>> voc_palette()[[0, 1, 15, 255]].tolist()
        [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= (((labels >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    return palette
