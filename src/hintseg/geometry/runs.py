"""COCO run-length masks: runs down the columns, the first of zeros; and their compressed text form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hintseg.errors import LabelError, shown
from hintseg.types import Rle

# The text form writes each run (from the fourth on: its difference to the run two before) as little-endian groups of
# five bits. Bit 5 says that another group follows; the top bit of the last group is the sign. 48 makes it printable.
_OFFSET = 48
_MORE = 0x20
_SIGN = 0x10

MOST_PIXELS = 178_956_970
"""The most pixels of a mask: those of the largest photo that Pillow opens."""


def parse_counts(text: str) -> tuple[int, ...]:
    """Return the run lengths of a compressed text.

    Raises:
        LabelError: The text is cut off or holds characters that do not occur in such texts.

    Example:
        >>> parse_counts("52203")
        (5, 2, 2, 2, 5)
    """
    codes = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - _OFFSET
    if codes.size == 0:
        return ()
    if codes.min() < 0 or codes.max() > 63:
        raise LabelError("the compressed run lengths hold characters that do not occur in COCO's text form")
    last = (codes & _MORE) == 0
    if not last[-1]:
        raise LabelError("the compressed run lengths are cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise LabelError("the compressed run lengths hold a number of more than 60 bits")
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    values -= np.where(codes[ends] & _SIGN, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return tuple(values.tolist())


def write_counts(counts: Sequence[int]) -> str:
    """Return the compressed text of run lengths.

    Example:
        >>> write_counts((5, 2, 2, 2, 5))
        '52203'
    """
    text = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            group = value & 0x1F
            value >>= 5
            done = value == (-1 if group & _SIGN else 0)
            text.append(chr(_OFFSET + group + (0 if done else _MORE)))
            if done:
                break
    return "".join(text)


def encode(mask: npt.NDArray[np.bool_]) -> Rle:
    """Return the run lengths of a mask.

    Args:
        mask: (H, W) bool.
    """
    height, width = mask.shape
    flat = np.concatenate(([False], mask.ravel(order="F")))  # the first run is of zeros, of length 0 where mask[0, 0]
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate(([0], starts, [height * width])))
    return Rle(height, width, tuple(counts.tolist()))


def encode_part(mask: npt.NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> Rle:
    """Return the run lengths of a mask that is known in a window only.

    Args:
        mask: (h, w) bool, the window.
        corner: (x, y) of the window's upper left pixel.
        size: (height, width) of the whole, which is empty elsewhere.

    Example:
        >>> encode_part(np.ones((2, 1), bool), (1, 0), (3, 3)).counts
        (3, 2, 4)
    """
    height, width = size
    columns, rows = np.nonzero(mask.T)
    index = (columns + corner[0]) * height + rows + corner[1]  # rising
    first = np.diff(index, prepend=-2) != 1
    last = np.roll(first, -1)
    edges = np.stack([index[first], index[last] + 1], axis=1).ravel()
    counts = np.diff(np.concatenate(([0], edges, [height * width])))
    full = bool(edges.size) and edges[-1] == height * width  # no run of zeros at the end
    return Rle(height, width, tuple(counts[:-1].tolist() if full else counts.tolist()))


def decode(rle: Rle) -> npt.NDArray[np.bool_]:
    """Return the mask of run lengths, (H, W) bool.

    Raises:
        LabelError: The runs do not fill the mask.
    """
    check_runs(rle)  # before memory is taken
    flat = np.zeros(rle.height * rle.width, dtype=np.bool_)
    flat[positions(rle)] = True
    return flat.reshape((rle.height, rle.width), order="F")


def positions(rle: Rle) -> npt.NDArray[np.int64]:
    """Return where a mask is set: the indices ``x * height + y``, rising.

    Raises:
        LabelError: The runs do not fill the mask.
    """
    check_runs(rle)
    counts = np.asarray(rle.counts, dtype=np.int64)
    ends = np.cumsum(counts)[1::2]
    lengths = counts[1::2]
    # Each run counts on from its start: the running index, shifted by what the runs of zeros skip.
    return np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)


def check_runs(rle: Rle) -> None:
    """Check that run lengths are not negative and fill their mask, and that it is not larger than any photo.

    Raises:
        LabelError: They do not.
    """
    total = rle.height * rle.width
    if min(rle.height, rle.width) < 1 or total > MOST_PIXELS:
        raise LabelError(
            f"a mask of {shown(rle.height)} x {shown(rle.width)} pixels; both must be at least 1, and their product at "
            f"most {MOST_PIXELS:,}"
        )
    if any(count < 0 for count in rle.counts) or sum(rle.counts) != total:
        given = sum(rle.counts)
        raise LabelError(
            f"the run lengths sum to {given}, but the mask has {rle.height} x {rle.width} = {total} pixels"
        )


def bounds(rle: Rle) -> tuple[int, int, int, int] | None:
    """Return the box (x0, y0, x1, y1) around a mask, right and bottom exclusive; None where it is empty.

    Raises:
        LabelError: The runs do not fill the mask.
    """
    check_runs(rle)
    ends = np.cumsum(np.asarray(rle.counts, dtype=np.int64))[1::2]
    starts = ends - np.asarray(rle.counts[1::2], dtype=np.int64)
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if last.size == 0:
        return None
    (x0, y0), (x1, y1) = np.divmod(starts, rle.height), np.divmod(last, rle.height)
    whole = x1 > x0  # a run that goes on in the next column touches the bottom and the top
    top = 0 if whole.any() else int(y0.min())
    bottom = rle.height if whole.any() else int(y1.max()) + 1
    return int(x0[0]), top, int(x1[-1]) + 1, bottom
