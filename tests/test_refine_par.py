"""PAR and PAMR against the published numbers and against a plain version with explicit loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from hintseg.errors import ShapeError
from hintseg.refine import ParAffinity, _par_numba, pamr, par
from hintseg.refine.par import affinity, propagate, reach
from published import reference


def random_photos(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def random_scores(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def plain(scores: torch.Tensor, rgb: torch.Tensor, dilations: tuple[int, ...], iterations: int, *, form: str) -> Tensor:
    """Refine one photo pixel by pixel in float64, written from methods.md 1.3."""
    photo = rgb.double().numpy() / 255
    maps = scores.double().numpy()
    _, height, width = photo.shape
    shifts = [(dy * d, dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    distances = np.array([math.hypot(*shift) for shift in shifts])
    position = np.exp(-((distances / np.std(distances, ddof=1) / 0.3) ** 2))
    affinities = {}
    for y in range(height):
        for x in range(width):
            places = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in shifts]
            logits = np.zeros(len(shifts))
            for channel in photo:
                near = np.array([channel[place] for place in places])
                gap = np.abs(near - channel[y, x])
                if form == "par":
                    logits -= (gap / (near.std(ddof=1) + 1e-8) / 0.3) ** 2 / 3
                else:
                    window = np.concatenate([near, np.full(len(dilations), channel[y, x])])
                    logits -= gap / (window.std(ddof=1) + 1e-8) / 0.1 / 3
            weight = np.exp(logits - logits.max())
            weight /= weight.sum()
            if form == "par":
                weight += 0.01 * position / position.sum()
            affinities[y, x] = list(zip(places, weight, strict=True))
    for _ in range(iterations):
        after = np.zeros_like(maps)
        for (y, x), terms in affinities.items():
            after[:, y, x] = sum(weight * maps[:, v, u] for (v, u), weight in terms)
        maps = after
    return torch.from_numpy(maps)


@pytest.mark.parametrize("iterations", [1, 10])
def test_par_equals_published_numbers(iterations: int) -> None:
    vectors = reference("par_afa")
    out = par(vectors["mask"], vectors["img"] * 255, iterations=iterations)
    # Every fourth pixel; each hears of all others.
    torch.testing.assert_close(out[..., ::4, ::4], vectors[f"out{iterations}"], rtol=1e-4, atol=1e-7)


def test_pamr_equals_published_numbers() -> None:
    vectors = reference("pamr_1stage")
    out = pamr(vectors["mask"], vectors["img"] * 255)
    torch.testing.assert_close(out[..., ::4, ::4], vectors["out"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("refiner", "form"), [(par, "par"), (pamr, "pamr")])
def test_refiners_equal_explicit_loops(refiner: Callable[..., Any], form: str) -> None:
    rgb, scores = random_photos(1, 3, 7, 9), random_scores(1, 2, 7, 9)
    out = refiner(scores, rgb, dilations=(1, 3), iterations=3)
    expected = plain(scores[0], rgb[0], (1, 3), 3, form=form)
    torch.testing.assert_close(out[0].double(), expected, rtol=1e-4, atol=1e-6)


def test_affinities_sum_to_a_known_constant() -> None:
    rgb, ones = random_photos(1, 3, 13, 11), torch.ones(1, 1, 13, 11)
    torch.testing.assert_close(par(ones, rgb), torch.full_like(ones, 1.01**10), rtol=1e-5, atol=0)
    torch.testing.assert_close(pamr(ones, rgb), ones, rtol=1e-5, atol=0)


@pytest.mark.parametrize("refiner", [par, pamr])
def test_scores_spread_within_a_colour_and_stop_at_its_edge(refiner: Callable[..., Any]) -> None:
    rgb = random_photos(1, 3, 12, 30) // 16
    rgb[..., 15:] += 200
    scores = (random_scores(1, 1, 12, 30) > 0.5).float()
    scores[..., 15:] = 0
    out = refiner(scores, rgb, iterations=10)
    assert out[..., :15].min() > 2 * out[..., 15:].max()
    assert out[..., :15].std() < 0.2 * scores[..., :15].std()


def test_low_resolution_scores_are_resized_with_aligned_corners() -> None:
    rgb = random_photos(1, 3, 5, 9)
    scores = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    y, x = torch.meshgrid(torch.linspace(0, 1, 5), torch.linspace(0, 1, 9), indexing="ij")
    torch.testing.assert_close(par(scores, rgb, iterations=0)[0, 0], 2 * y + x)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("size", [(17, 33), (1, 1), (1, 9), (5, 1)])
@pytest.mark.parametrize("variant", ["par", "pamr"])
def test_torch_and_numba_versions_agree(variant: Literal["par", "pamr"], size: tuple[int, int], flat: bool) -> None:
    photo, maps = random_photos(2, 3, *size) / 255, random_scores(2, 3, *size)
    if flat:
        photo = torch.full_like(photo, 0.3)
    shifts = ParAffinity(photo, variant=variant).shifts
    position = torch.linspace(0, 0.01, len(shifts))
    setting: dict[str, Any] = {"centres": 0, "squared": True, "scale": 0.3}
    if variant == "pamr":
        setting = {"centres": 6, "squared": False, "scale": 0.1}
    weight = affinity(photo, shifts, position, **setting)
    torch.testing.assert_close(_par_numba.affinity(photo, shifts, position, **setting), weight, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(_par_numba.propagate(weight, shifts, maps, 4), propagate(weight, shifts, maps, 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (3, 4)])
@pytest.mark.parametrize(("refiner", "form"), [(par, "par"), (pamr, "pamr")])
def test_photos_smaller_than_the_reach_equal_explicit_loops(
    refiner: Callable[..., Any], form: str, size: tuple[int, int]
) -> None:
    rgb, scores = random_photos(1, 3, *size), random_scores(1, 1, *size)
    out = refiner(scores, rgb, iterations=2)
    expected = plain(scores[0], rgb[0], (1, 2, 4, 8, 12, 24), 2, form=form)
    torch.testing.assert_close(out[0].double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["par", "pamr"])
def test_torch_version_does_not_depend_on_batch_or_channels(variant: Literal["par", "pamr"]) -> None:
    photo, maps = random_photos(3, 3, 9, 14) / 255, random_scores(3, 4, 9, 14)
    shifts = ParAffinity(photo, variant=variant).shifts
    setting: dict[str, Any] = {"centres": 0, "squared": True, "scale": 0.3}
    position = torch.zeros(len(shifts))
    weight = affinity(photo, shifts, position, **setting)
    together = propagate(weight, shifts, maps, 3)
    for b in range(3):
        own = affinity(photo[b : b + 1], shifts, position, **setting)
        assert torch.equal(own[0], weight[b])
        for c in range(4):
            assert torch.equal(propagate(own, shifts, maps[b : b + 1, c : c + 1], 3)[0, 0], together[b, c])


@pytest.mark.parametrize("refiner", [par, pamr])
def test_result_depends_on_neither_batch_nor_threads(
    refiner: Callable[..., Any], threads: Callable[[int], None]
) -> None:
    rgb, scores = random_photos(3, 3, 21, 35), random_scores(3, 5, 11, 17)
    threads(1)
    alone = torch.cat([refiner(scores[b : b + 1, c : c + 1], rgb[b : b + 1]) for b in range(3) for c in range(5)])
    threads(3)
    together = refiner(scores, rgb)
    assert torch.equal(alone.view_as(together), together)


def test_affinity_is_reusable() -> None:
    rgb, first, second = random_photos(2, 3, 8, 12), random_scores(2, 3, 4, 6), random_scores(2, 1, 8, 12, seed=2)
    kept = ParAffinity(rgb)
    for scores in (first, second, first):
        assert torch.equal(kept.propagate(scores, 4), par(scores, rgb, iterations=4))


@pytest.mark.parametrize("refiner", [par, pamr])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (3, 50)])
def test_flat_and_tiny_photos_give_means(refiner: Callable[..., Any], size: tuple[int, int]) -> None:
    rgb = torch.full((1, 3, *size), 77, dtype=torch.uint8)
    out = refiner(torch.full((1, 2, *size), 0.25), rgb, iterations=1)
    torch.testing.assert_close(out, torch.full_like(out, 0.25 * (1.01 if refiner is par else 1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept_and_photo_dtype_does_not_matter(dtype: torch.dtype) -> None:
    rgb, scores = random_photos(1, 3, 9, 9), random_scores(1, 2, 9, 9)
    out = par(scores.to(dtype), rgb)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), par(scores.to(dtype).float(), rgb.double()), rtol=1e-2, atol=1e-3)
    assert torch.equal(par(scores, rgb), par(scores, rgb.float()))


def test_no_photo_gives_no_map_and_scores_with_gradient_are_taken() -> None:
    assert par(torch.rand(0, 2, 3, 4), torch.rand(0, 3, 6, 8)).shape == (0, 2, 6, 8)
    assert not par(torch.rand(1, 1, 3, 4, requires_grad=True), torch.rand(1, 3, 6, 8)).requires_grad


@pytest.mark.parametrize(
    ("scores", "rgb", "settings", "message"),
    [
        ((1, 2, 4, 4), (3, 4, 4), {}, r"rgb has shape \(3, 4, 4\); photos \(B, 3, H, W\)"),
        ((1, 2, 4, 4), (1, 3, 0, 4), {}, "H, W >= 1"),
        ((2, 4, 4), (1, 3, 4, 4), {}, r"scores are torch.float32 of shape \(2, 4, 4\)"),
        ((1, 0, 4, 4), (1, 3, 4, 4), {}, "C, h, w >= 1"),
        ((2, 1, 4, 4), (1, 3, 4, 4), {}, "scores hold 2 photos and rgb holds 1"),
        ((1, 1, 4, 4), (1, 3, 4, 4), {"dilations": ()}, "at least one"),
        ((1, 1, 4, 4), (1, 3, 4, 4), {"dilations": (0, 2)}, "each 1 pixel or more"),
        ((1, 1, 4, 4), (1, 3, 4, 4), {"iterations": -1}, "iterations is -1"),
    ],
)
def test_errors_say_what_is_needed(
    scores: tuple[int, ...],
    rgb: tuple[int, ...],
    settings: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ShapeError, match=message):
        par(torch.zeros(scores), torch.zeros(rgb), **settings)


@pytest.mark.parametrize(
    ("rgb", "message"),
    [
        (torch.full((1, 3, 2, 2), 256.0), "outside 0..255"),
        (torch.full((1, 3, 2, 2), math.nan), "outside 0..255"),
        (torch.full((1, 3, 2, 2), -1.0), "not normalised"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.int32), "rgb is torch.int32; give uint8"),
    ],
)
def test_normalised_or_integer_photos_are_refused(rgb: torch.Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        par(torch.zeros(1, 1, 2, 2), rgb)


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(ShapeError, match="variant 'PAR' is unknown; give 'par' or 'pamr'"):
        ParAffinity(torch.zeros(1, 3, 2, 2), variant="PAR")  # type: ignore[arg-type]


def test_reach_is_a_share_of_the_side_and_never_beyond_the_published_one() -> None:
    for side in (2, 48, 64, 112, 256, 700):
        share = min(side, 256) / 256
        wanted = {max(1, round(share * d)) for d in (1, 2, 4, 8, 12, 24)}
        assert reach(side) == tuple(sorted(wanted)), side


def test_auto_takes_the_reach_of_the_shorter_side() -> None:
    scores, rgb = random_scores(1, 2, 40, 70), random_photos(1, 3, 40, 70)
    expected = par(scores, rgb, dilations=reach(40), iterations=3)
    torch.testing.assert_close(par(scores, rgb, dilations="auto", iterations=3), expected)
    assert not torch.allclose(par(scores, rgb, iterations=3), expected)
