"""Tight boxes: the object reaches all four sides of its box, and no probability falls."""

from __future__ import annotations

import numpy as np
import pytest

from hintseg.errors import ShapeError
from hintseg.refine import lift_to_sides


def disc(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Probabilities that fall from the middle of the box (10, 8, 70, 52) outwards, uneven, with a little noise."""
    y, x = np.mgrid[:height, :width]
    away = ((y - 29.5) / 30) ** 2 + ((x - 41.5) / 40) ** 2
    noise = np.random.default_rng(seed).uniform(0, 0.05, (height, width))
    found: np.ndarray = np.clip(0.95 - 0.6 * away + noise, 0, 1).astype(np.float32)
    return found


BOX = (10, 8, 70, 52)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_above_half_reaches_all_sides_and_no_further_than_needed(seed: int) -> None:
    before = np.maximum(disc(seed=seed) - np.float32(0.25), 0)
    inside = before[8:52, 10:70]
    # Plain version: the highest cut at which every side, one pixel and 5 % of the box deep, holds an object pixel.
    reached = min(inside[:3].max(), inside[-3:].max(), inside[:, :4].max(), inside[:, -4:].max())
    assert 0.2 < reached < 0.5
    after = lift_to_sides(before, BOX)
    object_ = after[8:52, 10:70] > 0.5
    assert np.array_equal(object_, inside >= reached)
    assert object_[:3].any()
    assert object_[-3:].any()
    assert object_[:, :4].any()
    assert object_[:, -4:].any()
    assert after.dtype == np.float32
    assert after.max() <= 1
    assert (after >= before).all()


def test_an_object_that_reaches_its_sides_stays_as_it_is() -> None:
    probability = np.zeros((20, 20), np.float32)
    probability[4:16, 3:17] = 0.8
    assert np.array_equal(lift_to_sides(probability, (3, 4, 17, 16)), probability)


def test_a_side_that_nothing_reaches_lowers_the_cut_no_further_than_asked() -> None:
    probability = np.zeros((20, 20), np.float32)
    probability[4:16, 3:10] = 0.8
    probability[6:8, 10:14] = 0.15
    box = (3, 4, 17, 16)  # its right side is empty
    assert ((lift_to_sides(probability, box) > 0.5) == (probability > 0.2)).all()
    assert ((lift_to_sides(probability, box, least=0.1) > 0.5) == (probability > 0.1)).all()


def test_an_object_may_miss_a_side_by_the_slack() -> None:
    probability = np.full((40, 40), 0.3, np.float32)
    probability[2:38, 2:38] = 0.9  # two pixels short of every side of a box of 40: 5 %
    box = (0, 0, 40, 40)
    assert np.array_equal(lift_to_sides(probability, box), probability)
    assert (lift_to_sides(probability, box, slack=0.02) > 0.5).all()


def test_only_the_box_decides_and_boxes_may_reach_outside() -> None:
    probability = np.full((10, 12), 0.3, np.float32)
    probability[:, 6:] = 0.9  # a neighbour
    assert (lift_to_sides(probability, (-3, -2, 6, 40))[:, :6] > 0.5).all()
    one = lift_to_sides(probability, (2, 2, 3, 3))
    assert one[2, 2] > 0.5
    with pytest.raises(ShapeError, match="outside"):
        lift_to_sides(probability, (30, 2, 40, 5))
