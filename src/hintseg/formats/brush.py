"""Label Studio's run lengths of brush strokes: the four channels of a picture, packed into bits.

The stream is: 32 bits, the number of values; 5 bits, the bits of a value less one; four times 4 bits, the widths of
counts less one; then blocks of 1 bit (whether one value is repeated), 2 bits (which width), a count less one, and the
one value or as many values as counted. A mask lies in the fourth channel, alpha, row by row.

Source:
    Format `rle-pack` of thi.ng/umbrella, as Label Studio uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hintseg.errors import LabelError
from hintseg.geometry import runs
from hintseg.types import Rle

CHANNELS = 4
WIDTHS = (3, 4, 8, 16)
"""The widths of counts, bits, that Label Studio itself writes."""

_HEAD = 32 + 5 + 4 * 4
_BYTE = 8


def decode_brush(data: Sequence[int], size: tuple[int, int]) -> Rle:
    """Return the mask of a brush stroke: where alpha is not 0.

    Args:
        data: The bytes of the stream, as the JSON lists them.
        size: (height, width) of the picture, pixels.

    Raises:
        LabelError: The stream is cut off, or of another picture.

    Example:
        >>> mask = np.array([[True, False, False], [True, True, False]])
        >>> decode_brush(encode_brush(runs.encode(mask)), (2, 3)) == runs.encode(mask)
        True
    """
    height, width = size
    runs.check_runs(Rle(height, width, (height * width,)))
    inside = np.concatenate([*_alphas(_bytes(data), height * width)])
    return runs.encode(inside.reshape(height, width))


def _bytes(data: Sequence[int]) -> bytes:
    try:
        return bytes(data)
    except (TypeError, ValueError) as error:
        raise LabelError("the run lengths of the brush are no list of bytes, 0 to 255") from error


def _alphas(data: bytes, pixels: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield whether alpha is not 0, for the pixels that end in each block."""
    at = 0

    def read(bits: int) -> int:
        nonlocal at
        end = at + bits
        if end > _BYTE * len(data):
            raise LabelError("the run lengths of the brush are cut off")
        found = int.from_bytes(data[at // _BYTE : -(-end // _BYTE)]) >> (-end % _BYTE) & ((1 << bits) - 1)
        at = end
        return found

    total, word = read(32), read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    if total != CHANNELS * pixels or word != _BYTE:
        raise LabelError(
            f"the run lengths of the brush hold {total} values of {word} bits; the picture needs {CHANNELS * pixels} "
            f"of {_BYTE}"
        )
    done = 0
    while done < total:
        repeated = read(1)
        count = min(read(widths[read(2)]) + 1, total - done)
        if repeated:
            yield np.full((done + count) // CHANNELS - done // CHANNELS, read(_BYTE) > 0)
        else:
            first, last = at // _BYTE, -(-(at + _BYTE * count) // _BYTE)
            if last > len(data):
                raise LabelError("the run lengths of the brush are cut off")
            bits = np.unpackbits(np.frombuffer(data[first:last], np.uint8))[at % _BYTE :]
            values = np.packbits(bits[: _BYTE * count])
            yield values[(CHANNELS - 1 - done) % CHANNELS :: CHANNELS] > 0
            at += _BYTE * count
        done += count


def encode_brush(rle: Rle) -> list[int]:
    """Return the stream of a mask, all four channels 255 inside and 0 outside; see `decode_brush`."""
    flat = runs.decode(rle).ravel()
    edges = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    bits = [f"{CHANNELS * flat.size:032b}{_BYTE - 1:05b}", *(f"{width - 1:04b}" for width in WIDTHS)]
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        value, left = f"{255 if flat[start] else 0:08b}", CHANNELS * (end - start)
        while left:
            count = min(left, 1 << WIDTHS[-1])
            place = next(n for n, width in enumerate(WIDTHS) if count <= 1 << width)
            bits.append(f"1{place:02b}{count - 1:0{WIDTHS[place]}b}{value}")
            left -= count
    text = "".join(bits)
    return list(int(text.ljust(-(-len(text) // _BYTE) * _BYTE, "0"), 2).to_bytes(-(-len(text) // _BYTE)))
