"""Shapes and their pixels: equal to slow plain versions, on shapes nobody would draw."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hintseg.errors import LabelError
from hintseg.geometry.clipping import clip_line, clip_ring
from hintseg.geometry.polygons import join, outlines
from hintseg.geometry.rasterise import rasterise
from hintseg.geometry.runs import bounds, decode, encode, encode_part, parse_counts, write_counts
from hintseg.types import Box, Click, Region, Rle, Stroke

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
PLACES = st.floats(-5, 17, allow_nan=False, width=16)
LINES = st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=7)
Line = list[tuple[float, float]]


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(SIZES)
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(bits, dtype=bool).reshape(height, width)


def flat(points: list[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(value for point in points for value in point)


def inside(ring: list[tuple[float, float]], x: float, y: float) -> bool:
    """Even-odd: whether a ray to the left crosses an odd number of edges."""
    crossed = False
    for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
        if min(y0, y1) <= y < max(y0, y1) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            crossed = not crossed
    return crossed


def far(line: Line, x: float, y: float) -> float:
    """The squared distance of a point to the nearest segment."""
    nearest = np.inf
    for (x0, y0), (x1, y1) in zip(line, line[1:] or line, strict=False):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        place = min(max(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0), 1) if length else 0
        nearest = min(nearest, (x0 + place * (x1 - x0) - x) ** 2 + (y0 + place * (y1 - y0) - y) ** 2)
    return nearest


@settings(deadline=None)
@given(st.lists(LINES.filter(lambda ring: len(ring) > 2), min_size=1, max_size=3), SIZES)
def test_polygons_are_what_the_plain_version_says(rings: list[Line], size: tuple[int, int]) -> None:
    plain = [[any(inside(ring, x + 0.5, y + 0.5) for ring in rings) for x in range(size[1])] for y in range(size[0])]
    np.testing.assert_array_equal(rasterise(Region(tuple(map(flat, rings))), size), plain)


@settings(deadline=None)
@given(LINES, st.sampled_from([1.0, 2.5, 4.0]), SIZES)
def test_strokes_are_the_pixels_near_their_line(line: Line, width: float, size: tuple[int, int]) -> None:
    drawn = rasterise(Stroke(flat(line), width), size)
    apart = np.array([[far(line, x + 0.5, y + 0.5) for x in range(size[1])] for y in range(size[0])])
    clear, plain = (
        abs(apart - (width / 2) ** 2) > 1e-9,
        apart <= (width / 2) ** 2,
    )  # on the edge itself rounding decides
    if not (plain & clear).any() and not (drawn & ~clear).any():
        for x, y in line:
            if 0 <= x < size[1] and 0 <= y < size[0]:
                plain[int(y), int(x)] = True
    np.testing.assert_array_equal(drawn[clear], plain[clear])


@given(st.tuples(st.floats(0, 10, exclude_max=True), st.floats(0, 7, exclude_max=True)))
def test_a_click_is_one_pixel_and_a_stroke_misses_no_column(place: tuple[float, float]) -> None:
    assert np.argwhere(rasterise(Click(*place), (7, 10))).tolist() == [[int(place[1]), int(place[0])]]
    assert np.any(rasterise(Stroke((0.0, 0.0, *place)), (7, 10))[:, : int(place[0])], axis=0).all()


def test_a_box_has_every_pixel_it_touches() -> None:
    drawn = rasterise(Box(1.5, -3, 3.2, 1), (3, 5))
    assert np.argwhere(drawn).tolist() == [[0, 1], [0, 2], [0, 3]]
    assert not rasterise(Box(9, 9, 12, 12), (3, 5)).any(), "outside of the photo"


def test_run_lengths_of_another_photo() -> None:
    with pytest.raises(LabelError, match="run lengths are for 2 x 3 pixels, but the photo has 5 x 3"):
        rasterise(Region(rle=Rle(3, 2, (6,))), (3, 5))


@given(masks())
def test_run_lengths_give_the_mask_back(mask: np.ndarray) -> None:
    runs = encode(mask)
    assert parse_counts(write_counts(runs.counts)) == runs.counts
    np.testing.assert_array_equal(decode(runs), mask)
    np.testing.assert_array_equal(rasterise(Region(rle=runs), mask.shape), mask)
    rows, columns = np.nonzero(mask)
    around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if mask.any() else None
    assert bounds(runs) == around


@given(masks(), st.integers(0, 3), st.integers(0, 3))
def test_run_lengths_of_a_window_are_those_of_the_whole(mask: np.ndarray, x: int, y: int) -> None:
    whole = np.pad(mask, ((y, 1), (x, 2)))
    np.testing.assert_array_equal(decode(encode_part(mask, (x, y), whole.shape)), whole)


@settings(deadline=None)
@given(masks().filter(lambda mask: mask.any()))
def test_outlines_fill_to_the_mask_and_its_holes(mask: np.ndarray) -> None:
    rings = outlines(mask)
    drawn = rasterise(Region(tuple(tuple(ring.ravel()) for ring in rings)), mask.shape)
    assert (drawn >= mask).all(), "nothing of it is lost"
    np.testing.assert_array_equal(rasterise(Region((tuple(join(rings).ravel()),)), mask.shape), drawn)


@settings(deadline=None)
@given(LINES.filter(lambda ring: len(ring) > 2), SIZES)
def test_a_clipped_ring_has_the_pixels_of_the_whole(ring: Line, size: tuple[int, int]) -> None:
    cut = clip_ring(flat(ring), size)
    assert all(0 <= x <= size[1] for x in cut[0::2])
    assert all(0 <= y <= size[0] for y in cut[1::2])
    clear = [[far([*ring, ring[0]], x + 0.5, y + 0.5) > 1e-9 for x in range(size[1])] for y in range(size[0])]
    whole, part = (rasterise(Region((one,) if one else ()), size) for one in (flat(ring), cut))
    np.testing.assert_array_equal(part & clear, whole & clear)  # on an edge itself rounding decides


@settings(deadline=None)
@given(LINES.filter(lambda line: len(line) > 1), SIZES, st.integers(0, 100))
def test_clipped_lines_are_what_of_the_line_lies_inside(line: Line, size: tuple[int, int], place: int) -> None:
    lines = [list(zip(one[0::2], one[1::2], strict=True)) for one in clip_line(flat(line), size)]
    for x, y in (point for one in lines for point in one):
        assert -1e-9 <= x <= size[1] + 1e-9
        assert -1e-9 <= y <= size[0] + 1e-9
        assert far(line, x, y) < 1e-9
    for (x0, y0), (x1, y1) in pairwise(line):
        x, y = x0 + place / 100 * (x1 - x0), y0 + place / 100 * (y1 - y0)
        if 0 < x < size[1] and 0 < y < size[0]:
            assert min(far(one, x, y) for one in lines) < 1e-9


def test_a_line_that_comes_back_is_two_and_what_only_passes_by_is_none() -> None:
    assert clip_line((0, 0, 200, 100), (100, 100)) == [(0, 0, 100, 50)]
    assert clip_line((1, 1, 3, 1, 9, 1, 9, 3, 1, 3), (5, 5)) == [(1, 1, 3, 1, 5, 1), (5, 3, 1, 3)]
    assert clip_line((4, -3, 9, 2), (5, 5)) == []
    assert clip_ring((4, -3, 9, 2, 9, -3), (5, 5)) == ()
