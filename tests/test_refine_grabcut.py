"""GrabCut: the published masks, simple scenes with a known answer, and every degenerate box and trimap."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hintseg.errors import ShapeError
from hintseg.refine import grabcut

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")


def scene(height: int = 40, width: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a noisy photo with a bright disc, and the disc."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disc = (y - 20) ** 2 + (x - 22) ** 2 < 100
    noise = torch.randint(0, 30, (3, height, width), generator=torch.Generator().manual_seed(0))
    return (noise + 40 + disc * torch.tensor([150, 20, 100]).view(3, 1, 1)).byte(), disc


def filled(box: tuple[int, int, int, int], height: int = 40, width: int = 50) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


@needs_shared
@pytest.mark.parametrize("iterations", [1, 5])
def test_masks_equal_published_ones(iterations: int) -> None:
    with np.load(SHARED / "reference" / "grabcut.npz") as file:
        vectors = dict(file)
    rgb = torch.from_numpy(vectors["img"]).permute(2, 0, 1)
    y0, x0, y1, x1 = vectors["box"].tolist()
    by_box = grabcut(rgb, (x0, y0, x1, y1), iterations=iterations)
    # OpenCV's random state is its version's own: nearly all pixels, not all.
    assert (by_box.numpy() == (vectors[f"rect{iterations}"] % 2 == 1)).mean() > 0.98
    trimap = np.where(vectors["prob"] > 0.6, 1, np.where(vectors["prob"] < 0.4, 0, 3))
    by_trimap = grabcut(rgb, trimap=torch.from_numpy(trimap), iterations=iterations)
    assert (by_trimap.numpy() == (vectors[f"tri{iterations}"] % 2 == 1)).mean() > 0.98


def test_box_and_trimap_find_the_object() -> None:
    rgb, disc = scene()
    mask = grabcut(rgb, (8, 6, 38, 36))
    assert mask.dtype == torch.bool
    assert (mask & disc).sum() / (mask | disc).sum() > 0.95
    trimap = torch.full((40, 50), 3)
    trimap[18:22, 20:24] = 1
    trimap[:4] = 0
    mask = grabcut(rgb, trimap=trimap)
    assert (mask & disc).sum() / (mask | disc).sum() > 0.95


def test_trimap_is_cut_to_the_box_and_sure_pixels_stay() -> None:
    rgb, _ = scene()
    trimap = torch.full((40, 50), 3, dtype=torch.uint8)
    trimap[20, 22:26] = 0
    trimap[20, 15:18] = 1
    mask = grabcut(rgb, (8, 6, 24, 36), trimap)
    assert not mask[:, 24:].any()
    assert not mask[20, 22:26].any()
    assert mask[20, 15:18].all()
    assert trimap[0, 0] == 3, "the caller's trimap is left as it was"


def test_results_repeat_and_photo_dtype_does_not_matter() -> None:
    rgb, _ = scene()
    first = grabcut(rgb, (5, 5, 40, 35))
    assert torch.equal(grabcut(rgb, (5, 5, 40, 35)), first)
    assert torch.equal(grabcut(rgb.double(), torch.tensor([5.0, 5.0, 40.0, 35.0])), first)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((0, 0, 50, 40), (0, 0, 50, 40)),  # the whole photo: no background to learn from
        ((-10, -3, 70, 80), (0, 0, 50, 40)),
        ((7, 9, 8, 10), (7, 9, 8, 10)),  # one pixel
        ((7.2, 9.3, 7.4, 9.4), (7, 9, 8, 10)),  # less than one
        ((49.7, 39.8, 60, 60), (49, 39, 50, 40)),
        ((-3, -3, 0.3, 0.2), (0, 0, 1, 1)),
        ((10, 10, 12, 12), (10, 10, 12, 12)),  # four pixels for five colour components
        ((0, 0, 50, 39.9), (0, 0, 50, 40)),
    ],
)
def test_degenerate_boxes_give_the_filled_box(box, pixels) -> None:
    assert torch.equal(grabcut(scene()[0], box), filled(pixels))


@pytest.mark.parametrize("box", [(0, 0, 25, 20), (30, 25, 50, 40), (0, 0, 50, 39), (10, 10, 13, 12), (0, 0, 1, 40)])
def test_boxes_at_the_border_and_small_ones_stay_inside(box) -> None:
    mask = grabcut(scene()[0], box)
    assert mask.any()
    assert not (mask & ~filled(box)).any()


def test_flat_and_tiny_photos() -> None:
    flat = torch.full((3, 40, 50), 128, dtype=torch.uint8)
    mask = grabcut(flat, (10, 10, 30, 30))
    assert mask.any()
    assert not (mask & ~filled((10, 10, 30, 30))).any()
    assert grabcut(flat[:, :1, :1], (0, 0, 1, 1)).tolist() == [[True]]


def test_trimaps_with_one_side_only() -> None:
    rgb, _ = scene()
    full = torch.ones(40, 50, dtype=torch.int64)
    assert not grabcut(rgb, trimap=0 * full).any()
    assert not grabcut(rgb, trimap=2 * full).any()
    assert grabcut(rgb, trimap=full).all()
    assert grabcut(rgb, trimap=3 * full).all()
    sure = 3 * full
    sure[:5, :5] = 1
    assert torch.equal(grabcut(rgb, trimap=sure), filled((0, 0, 5, 5)))


def test_empty_cut_gives_the_filled_box_or_the_sure_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.grabCut", lambda photo, codes, *rest: codes.fill(0))
    assert torch.equal(grabcut(scene()[0], (5, 6, 30, 20)), filled((5, 6, 30, 20)))
    trimap = torch.full((40, 50), 3)
    trimap[0] = 0
    trimap[30:, 40:] = 1
    assert torch.equal(grabcut(scene()[0], trimap=trimap), filled((40, 30, 50, 40)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither a box nor a trimap"),
        ({"box": (1, 2, 3)}, "four finite numbers"),
        ({"box": (1, 2, math.nan, 4)}, "four finite numbers"),
        ({"box": (5, 2, 5, 4)}, "needs x0 < x1 and y0 < y1"),
        ({"box": (5, 9, 8, 4)}, "is empty"),
        ({"box": (50, 0, 60, 10)}, "outside the photo of 50 x 40 pixels"),
        ({"box": (0, -9, 10, 0)}, "outside the photo"),
        (
            {"trimap": torch.zeros(40, 49, dtype=torch.uint8)},
            r"shape \(40, 49\); integers of the photo's size \(40, 50\)",
        ),
        ({"trimap": torch.zeros(40, 50)}, r"trimap is torch\.float32"),
        ({"trimap": torch.full((40, 50), 255, dtype=torch.uint8)}, "trimap runs from 255 to 255; give 0 background"),
        ({"box": (1, 1, 9, 9), "iterations": 0}, "iterations is 0"),
    ],
)
def test_wrong_boxes_and_trimaps_are_refused(arguments, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        grabcut(scene()[0], **arguments)
