"""GrabCut: the published masks, simple scenes with a known answer, and every degenerate box and trimap."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hintseg.errors import ShapeError
from hintseg.geometry.boxes import expand_box, pixel_window
from hintseg.refine import box_proposal, grabcut, refine_proposal
from published import reference


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


@pytest.mark.parametrize("iterations", [1, 5])
def test_masks_equal_published_ones(iterations: int) -> None:
    vectors = reference("grabcut")
    rgb = vectors["img"].permute(2, 0, 1)
    y0, x0, y1, x1 = vectors["box"].tolist()
    by_box = grabcut(rgb, (x0, y0, x1, y1), iterations=iterations)
    # OpenCV's random state is its version's own: nearly all pixels, not all.
    assert (by_box == (vectors[f"rect{iterations}"] % 2 == 1)).float().mean() > 0.98
    by_trimap = grabcut(rgb, trimap=vectors["trimap"], iterations=iterations)
    assert (by_trimap == (vectors[f"tri{iterations}"] % 2 == 1)).float().mean() > 0.98


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
def test_degenerate_boxes_give_the_filled_box(box: tuple[float, ...], pixels: tuple[int, int, int, int]) -> None:
    assert torch.equal(grabcut(scene()[0], box), filled(pixels))


@pytest.mark.parametrize("box", [(0, 0, 25, 20), (30, 25, 50, 40), (0, 0, 50, 39), (10, 10, 13, 12), (0, 0, 1, 40)])
def test_boxes_at_the_border_and_small_ones_stay_inside(box: tuple[int, int, int, int]) -> None:
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
def test_wrong_boxes_and_trimaps_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        grabcut(scene()[0], **arguments)


# --- proposals ------------------------------------------------------------------------------------------------------


def picture(height: int = 40, width: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rgb, disc = scene(height, width)
    return rgb.permute(1, 2, 0).contiguous().numpy(), disc.numpy()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def grown(picture: np.ndarray, times: int = 4) -> np.ndarray:
    return picture.repeat(times, 0).repeat(times, 1)


def test_box_proposal_is_grabcut_of_the_expanded_box() -> None:
    rgb, disc = picture()
    box = (10, 8, 35, 32)
    found = box_proposal(rgb, box)
    x0, y0, x1, y1 = expand_box(box, (40, 50))
    crop = torch.from_numpy(rgb[y0:y1, x0:x1]).permute(2, 0, 1)
    plain = grabcut(crop, (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0)).numpy()
    assert (found == plain[8 - y0 : 32 - y0, 10 - x0 : 35 - x0]).all()
    assert iou(found, disc[8:32, 10:35]) > 0.95


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 50, 40),
        (-10, -3, 70, 80),
        (7, 9, 8, 10),
        (7.2, 9.3, 7.4, 9.4),
        (7.2, 9.3, 7.2, 9.3),
        (49.7, 39.8, 60, 60),
        (0, 0, 0, 0),
        (50, 40, 50, 40),
        (10, 12, 12, 14),
        (0, 0, 50, 39.9),
        (12, 3, 13, 39),
    ],
)
def test_degenerate_boxes_propose_the_filled_box(box: tuple[float, ...]) -> None:
    x0, y0, x1, y1 = pixel_window(box, (40, 50))
    found = box_proposal(picture()[0], box, smallest=0.0)
    assert found.shape == (y1 - y0, x1 - x0)
    assert found.all()


@pytest.mark.parametrize("box", [(-8, 10, 30, 36), (3, 5, 40, 6), (30, 25, 58, 44), (12, -4, 33, 30), (0, 0, 25, 39)])
def test_boxes_at_the_border_keep_their_window(box: tuple[float, ...]) -> None:
    rgb, _ = picture()
    x0, y0, x1, y1 = pixel_window(box, (40, 50))
    found = box_proposal(rgb, box)
    assert found.shape == (y1 - y0, x1 - x0)
    assert found.any()


@pytest.mark.parametrize("covered", [0, 0.05, 0.2])
def test_next_to_nothing_gives_way_to_the_filled_box(monkeypatch: pytest.MonkeyPatch, covered: float) -> None:
    def cut(photo: np.ndarray, codes: np.ndarray, *rest: object) -> None:
        possible = np.argwhere(codes == 3)
        codes[:] = 0
        for row, column in possible[: round(covered * len(possible))]:
            codes[row, column] = 3

    monkeypatch.setattr("cv2.grabCut", cut)
    assert box_proposal(picture()[0], (10, 10, 30, 30)).mean() == pytest.approx(1.0 if covered < 0.1 else 0.2)
    assert box_proposal(picture()[0], (10, 10, 30, 30), smallest=0).mean() == pytest.approx(covered or 1.0)


def test_proposals_depend_on_neither_order_nor_threads() -> None:
    rgb, _ = picture()
    boxes = [(x, y, x + 17, y + 15) for x in range(0, 30, 7) for y in range(0, 24, 6)]
    one_by_one = [box_proposal(rgb, box) for box in boxes]
    with ThreadPoolExecutor(4) as pool:
        backwards = list(pool.map(lambda box: box_proposal(rgb, box), boxes[::-1]))[::-1]
    assert all((a == b).all() for a, b in zip(one_by_one, backwards, strict=True))


def test_large_boxes_are_cut_at_a_smaller_size() -> None:
    rgb, disc = (grown(part) for part in picture())
    box = (32, 24, 152, 136)
    small, full = box_proposal(rgb, box, longest=60), box_proposal(rgb, box, longest=None)
    truth = disc[24:136, 32:152]
    assert small.shape == full.shape == truth.shape
    assert iou(full, truth) > 0.95
    assert iou(small, truth) > 0.9
    assert (box_proposal(rgb, box, longest=180) == full).all(), "not larger than that"


def test_refinement_equals_grabcut_of_the_trimap() -> None:
    rgb, disc = picture()
    probability = 0.5 + 0.3 * (2.0 * disc - 1) + 0.3 * (np.random.default_rng(0).random((40, 50)) - 0.5)
    box = (10, 8, 35, 32)
    trimap = torch.tensor([[1 if p > 0.6 else 0 if p < 0.4 else 3 for p in row] for row in probability.tolist()])
    plain = grabcut(torch.from_numpy(rgb).permute(2, 0, 1), box, trimap).numpy()[8:32, 10:35]
    found = refine_proposal(rgb, probability.astype(np.float32), box)
    assert (found == plain).all()
    assert iou(found, disc[8:32, 10:35]) > 0.95


def test_refinement_keeps_sure_pixels_and_moves_unsure_ones_to_the_edge() -> None:
    for times, longest in ((1, None), (4, 80)):
        rgb, disc = (grown(part, times) for part in picture())
        inner, outer = (grown(filled(b).numpy(), times) for b in ((18, 16, 27, 25), (11, 9, 34, 32)))
        probability = np.where(inner, 0.9, np.where(outer, 0.5, 0.1)).astype(np.float32)
        x0, y0, x1, y1 = box = tuple(times * v for v in (8, 6, 38, 36))
        found = refine_proposal(rgb, probability, box, longest=longest)
        part = slice(y0, y1), slice(x0, x1)
        assert found[inner[part]].all()
        assert not found[~outer[part]].any()
        assert iou(found, disc[part]) > (0.95 if longest is None else 0.85)


def test_refinement_without_a_cut_thresholds_and_never_is_empty() -> None:
    rgb, _ = picture()
    whole = (0, 0, 50, 40)
    some = np.full((40, 50), 0.45, np.float32)
    some[10:20, 10:30] = 0.55
    assert (refine_proposal(rgb, some, whole) == (some > 0.5)).all(), "no background: GrabCut cannot run"
    nothing = np.zeros((40, 50), np.float32)
    assert refine_proposal(rgb, nothing, (10, 8, 35, 32)).all(), "a box holds an object"
    assert refine_proposal(rgb, nothing + 1, (10, 8, 35, 32)).all()
    assert refine_proposal(rgb, nothing, (7, 9, 7, 9)).tolist() == [[True]]
    assert refine_proposal(rgb[:1, :1], nothing[:1, :1], (0, 0, 1, 1)).tolist() == [[True]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb": np.zeros((3, 40, 50), np.uint8)}, r"rgb is uint8 of shape \(3, 40, 50\); a photo \(H, W, 3\)"),
        ({"rgb": np.zeros((40, 50, 3))}, "rgb is float64"),
        ({"box": (5, 2, 4, 4)}, "x0 < x1"),
        ({"box": (60, 2, 70, 4)}, "outside the photo"),
        ({"iterations": 0}, "iterations is 0"),
        ({"probability": np.zeros((40, 49), np.float32)}, r"probability is of shape \(40, 49\)"),
        ({"probability": np.full((40, 50), 1.5, np.float32)}, "values from 1.5 to 1.5"),
        ({"probability": np.full((40, 50), np.nan, np.float32)}, "one value in 0..1"),
    ],
)
def test_wrong_proposals_are_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "rgb": picture()[0],
        "box": (5, 5, 20, 20),
        "probability": np.zeros((40, 50), np.float32),
    } | change
    with pytest.raises(ShapeError, match=message):
        refine_proposal(given.pop("rgb"), given.pop("probability"), given.pop("box"), **given)
    if "probability" not in change:
        given = {"rgb": picture()[0], "box": (5, 5, 20, 20), **change}
        with pytest.raises(ShapeError, match=message):
            box_proposal(given.pop("rgb"), given.pop("box"), **given)


def test_neighbours_of_the_class_are_not_background() -> None:
    """A disc among like discs: with those taken for background, its colours are the background's."""
    random = np.random.default_rng(0)
    rgb = random.integers(60, 72, (77, 77, 3), dtype=np.uint8)
    y, x = np.mgrid[:77, :77]
    middles = [(12 + 26 * row, 12 + 26 * column) for row in range(3) for column in range(3)]
    for row, column in middles:
        disc = (y - row) ** 2 + (x - column) ** 2 < 150
        rgb[disc] = random.integers(120, 200, (int(disc.sum()), 3), dtype=np.uint8)
    boxes = [(column - 12, row - 12, column + 13, row + 13) for row, column in middles]
    centre, others = boxes.pop(4), boxes
    truth = ((y - 38) ** 2 + (x - 38) ** 2 < 150)[26:51, 26:51]

    def iou(mask: npt.NDArray[np.bool_]) -> float:
        return float((mask & truth).sum() / (mask | truth).sum())

    alone, spared = box_proposal(rgb, centre), box_proposal(rgb, centre, others)
    assert iou(spared) > 0.95 > iou(alone)
    unsure = np.full(rgb.shape[:2], 0.5, np.float32)
    assert iou(refine_proposal(rgb, unsure, centre, others)) > 0.95 > iou(refine_proposal(rgb, unsure, centre))
    outside = [(-30, -30, -10, 80), (200, 200, 300, 300)]
    np.testing.assert_array_equal(box_proposal(rgb, centre, outside), alone)
