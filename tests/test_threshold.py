"""The background threshold that is chosen without ground truth."""

from __future__ import annotations

import pytest
import torch

from hintseg.cam import choose_threshold, seeds
from hintseg.errors import ShapeError


@pytest.mark.parametrize("area", [0.2, 0.4, 0.7])
@pytest.mark.parametrize("power", [1, 3])
def test_seeds_cover_the_share_asked_for(area: float, power: int) -> None:
    torch.manual_seed(0)
    maps = [torch.rand(2, 40, 50) ** power for _ in range(5)]
    threshold = choose_threshold(maps, area=area)
    covered = torch.stack([(seeds(m, torch.tensor([1, 2]), threshold) > 0).float().mean() for m in maps]).mean()
    if 0.01 < threshold < 0.59:
        assert covered.item() == pytest.approx(area, abs=0.02)
    else:
        assert (threshold == 0.59) == (covered.item() > area)


def test_large_photos_count_like_small_ones() -> None:
    flat = torch.full((1, 4, 4), 0.2)
    high, low = torch.full((1, 100, 100), 0.5), torch.full((1, 100, 100), 0.1)
    assert choose_threshold([flat, flat, high]) == choose_threshold([flat, flat, torch.full((1, 2, 2), 0.5)])
    assert choose_threshold([flat, flat, low], area=0.5) >= 0.2 - 1e-3


def test_it_stays_within_the_sweep_and_needs_maps() -> None:
    assert choose_threshold([torch.ones(1, 3, 3)]) == 0.59
    assert choose_threshold([torch.zeros(1, 3, 3)]) == 0.01
    with pytest.raises(ShapeError, match="at least one photo with a tag"):
        choose_threshold([])
