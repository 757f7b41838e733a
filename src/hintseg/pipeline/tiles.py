"""Masks of photos of any size in bounded memory: overlapping tiles, probabilities that grow a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hintseg.nn.resize import grow

Bytes = npt.NDArray[np.uint8]

ALIGN = 32
"""Tiles begin at multiples of this, pixels: their feature cells are those of the whole photo."""

OVERLAP = 4
"""Neighbouring tiles share one part in so many of their side."""

ROWS = 256
"""Rows of a mask that are worked out at once."""

Reader = Callable[[Tensor], Tensor]
"""From pixels (1, 3, h, w) uint8 to probabilities (1, C, h, w)."""


def tiled(read: Reader, pixels: Tensor, size: Sequence[int], *, tile: int) -> tuple[Bytes, float]:
    """Return the most probable class of every pixel of a large photo, and the mean of its probability.

    Tiles are read one after the other and blended where they overlap, each the less the nearer its own border is: no
    seam shows. Away from the tiles' borders the mask is that of the whole photo, for networks that look less far than
    that; a transformer looks at all of its tile. Where the photo was reduced, each pixel takes the nearest one's class.

    Args:
        read: What a segmenter says of a part of the photo.
        pixels: The photo as the network sees it, (3, h, w) uint8.
        size: (H, W) of the mask: the photo's own.
        tile: Side of the tiles, pixels of the photo as the network sees it, a multiple of `ALIGN`.

    Returns:
        (H, W) uint8, 0..C-1; 0..1.

    Cost:
        The probabilities of a band of the photo as wide as it is and a tile high.

    Example:
        >>> bright = lambda part: torch.stack([part[:, 0] < 9, part[:, 0] >= 9], dim=1).float()
        >>> photo = torch.zeros(3, 64, 300, dtype=torch.uint8)
        >>> photo[:, :, 250:] = 9
        >>> mask, sure = tiled(bright, photo, (64, 300), tile=128)
        >>> mask.shape, int(mask.sum()) == 64 * 50, sure
        ((64, 300), True, 1.0)
    """
    height, width = pixels.shape[1:]
    mask, total = np.empty((height, width), np.uint8), 0.0
    for top, band in _bands(read, pixels, tile):
        best, found = band.max(dim=0)
        mask[top : top + len(found)] = found.to(torch.uint8).cpu().numpy()
        total += float(best.double().sum())
    if (height, width) != tuple(size):
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, (height, width), strict=True)
        )
        mask = mask[np.ix_(rows, columns)]
    return mask, min(1.0, total / (height * width))


def strongest_grown(probabilities: Tensor, size: Sequence[int]) -> tuple[Bytes, float]:
    """Grow probabilities (C, h, w) to `size`, (H, W), bilinearly, and return what `tiled` returns.

    All rows at once would need C x H x W numbers: a gigabyte for a phone's photo and 21 classes.
    """
    height, width = size
    lines = grow(probabilities[None], (probabilities.shape[1], width))[0]
    last = lines.shape[1] - 1
    mask, total = np.empty((height, width), np.uint8), 0.0
    for top in range(0, height, ROWS):
        rows = torch.arange(top, min(top + ROWS, height), device=lines.device)
        place = ((rows + 0.5) * ((last + 1) / height) - 0.5).clamp(min=0, max=last)
        above = place.long().clamp(max=max(0, last - 1))
        band = torch.lerp(lines[:, above], lines[:, (above + 1).clamp(max=last)], (place - above)[None, :, None])
        best, found = band.max(dim=0)
        mask[top : top + len(rows)] = found.to(torch.uint8).cpu().numpy()
        total += float(best.double().sum())
    return mask, min(1.0, total / (height * width))


def _bands(read: Reader, pixels: Tensor, tile: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row and the blended probabilities of bands of the photo, from top to bottom."""
    height, width = pixels.shape[1:]
    tops, lefts = (_starts(side, tile) for side in (height, width))
    held: Tensor | None = None
    for top, end in zip(tops, [*tops[1:], height], strict=True):
        rows = slice(top, height if top == tops[-1] else top + tile)
        size = rows.stop - rows.start
        for left in lefts:
            columns = slice(left, width if left == lefts[-1] else left + tile)
            part = read(pixels[None, :, rows, columns])[0].float()
            down, across = (_ramp(side, tile).to(part.device) for side in part.shape[1:])
            weight = down[:, None] * across
            if held is None:
                held = part.new_zeros(len(part) + 1, tile + ALIGN, width)  # the last one holds the weights
            held[:-1, :size, columns] += part * weight
            held[-1, :size, columns] += weight
        if held is not None:
            done = end - top
            yield top, held[:-1, :done] / held[-1, :done]
            held = torch.cat([held[:, done:], held.new_zeros(len(held), done, width)], dim=1)


def _starts(side: int, tile: int) -> list[int]:
    """Return where tiles begin so that they cover `side` pixels and overlap; the last reaches at most `ALIGN` further.

    Example:
        >>> _starts(1000, 512), _starts(300, 512)
        ([0, 384, 480], [0])
    """
    if side <= tile:
        return [0]
    step = max(ALIGN, (tile - tile // OVERLAP) // ALIGN * ALIGN)
    last = (side - tile) // ALIGN * ALIGN
    return [*range(0, last, step), last]


def _ramp(side: int, tile: int) -> Tensor:
    """Return the weights of a tile along one side, which rise from its borders over the width of an overlap.

    In the first quarter of that, where a network sees padding in place of the photo, they are almost nothing; at the
    photo's own border there is no other tile, so almost nothing is enough.
    """
    near, overlap = torch.arange(side, dtype=torch.float32) + 0.5, tile / OVERLAP
    return (torch.minimum(near, side - near) - overlap / 4).clamp(min=1e-4, max=overlap / 2)
