"""Losses that say how unlabelled pixels go with others, against slow plain versions of their equations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.errors import ShapeError
from hintseg.losses.dense_crf_loss import DenseCrfLoss, crf_energy
from hintseg.losses.gated_crf import GatedCrf, gated_energy
from hintseg.losses.image_level import ImageLevel
from hintseg.losses.pairwise import Pairwise, lab
from hintseg.losses.projection import Projection, projection_loss
from hintseg.losses.tree_energy import DEVIATION, TreeEnergy
from hintseg.refine.bilateral import bilateral_filter
from hintseg.refine.tree_filter import tree_filter
from hintseg.types import Prediction, Progress, Targets
from made import rand

HALF = Progress(50, 100)


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """Two smooth halves, RGB in 0..1, (3, h, w)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    found = torch.stack([0.2 + 0.2 * x, 0.3 + 0.1 * y, 0.4 - 0.1 * x])
    found[:, :, width // 2 :] += 0.4
    return (found + 0.01 * rand(3, height, width, seed=seed)).clamp(0, 1)


def targets_of(pixels: Tensor, windows: Tensor | None = None, boxes: tuple[Tensor, ...] | None = None) -> Targets:
    tags = torch.zeros(len(pixels), 2)
    if windows is None:
        windows = torch.tensor([[0, 0, pixels.shape[2], pixels.shape[1]]] * len(pixels))
    return Targets(tags, tags > 0, windows, pixels, boxes=boxes)


def judged(objective: Objective, logits: Tensor, targets: Targets, images: Tensor) -> Tensor:
    (found,) = objective(Prediction(logits), targets, images, HALF).values()
    return found


def gaussian(rgb: Tensor, sigma_px: float, sigma_rgb: float) -> Tensor:
    """The dense kernel of all pairs, (N, N)."""
    y, x = torch.meshgrid(*(torch.arange(side).double() for side in rgb.shape[1:]), indexing="ij")
    features = torch.cat([torch.stack([y, x]) / sigma_px, rgb.double() / sigma_rgb]).flatten(1).t()
    return torch.exp(-torch.cdist(features, features).square() / 2)


# --- bilateral filter, dense CRF loss -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_the_bilateral_filter_is_near_the_dense_kernel(count: int) -> None:
    rgb, values = photo(18, 24) * 255, rand(count, 18, 24, seed=1)
    kernel = gaussian(rgb, 6.0, 20.0)
    root = kernel.sum(dim=1).rsqrt()
    expected = (root[:, None] * kernel * root) @ values.double().flatten(1).t()
    found = bilateral_filter(values, rgb, sigma_px=6.0, sigma_rgb=20.0)
    assert found.shape == values.shape
    assert (found.flatten(1).t() - expected).abs().mean() < 0.03 * expected.mean()
    with pytest.raises(ShapeError, match=r"\(C, H, W\), \(3, H, W\) needed"):
        bilateral_filter(values, rgb[:, :4], sigma_px=6.0, sigma_rgb=20.0)


def test_the_dense_crf_loss_is_its_equation_and_its_gradient_that_of_the_paper() -> None:
    rgb, cells = photo(8, 10) * 255, 80
    probabilities = rand(3, 8, 10, seed=2).softmax(dim=0).requires_grad_()
    basis = torch.eye(cells).view(cells, 8, 10)
    kernel = bilateral_filter(basis, rgb, sigma_px=5.0, sigma_rgb=30.0).flatten(1).t()  # W, column by column
    rows = probabilities.flatten(1)
    expected = torch.stack([rows[k] @ kernel @ (1 - rows[k]) for k in range(3)]).sum() / cells
    found = crf_energy(probabilities, rgb, sigma_px=5.0, sigma_rgb=30.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(found, probabilities)
    torch.testing.assert_close(gradient.flatten(1), -2 * rows.detach() @ kernel.t() / cells, rtol=1e-4, atol=1e-6)
    logits = rand(3, 8, 10, seed=3).requires_grad_()
    ours = torch.autograd.grad(crf_energy(logits.softmax(dim=0), rgb, sigma_px=5.0, sigma_rgb=30.0), logits)[0]
    rows = logits.softmax(dim=0).flatten(1)
    energy = torch.stack([rows[k] @ kernel @ (1 - rows[k]) for k in range(3)]).sum() / cells
    plain = torch.autograd.grad(energy, logits)[0]
    agree = torch.cosine_similarity(ours.flatten(), plain.flatten(), dim=0)
    assert agree > 0.99, "W 1 changes nothing, and the lattice is nearly symmetric"


def test_labels_that_follow_the_colours_have_less_energy() -> None:
    images, pixels = photo(32, 48)[None], torch.full((1, 32, 48), 255, dtype=torch.uint8)
    pixels[0, 4, 4] = 1
    across, along = torch.zeros(1, 2, 32, 48), torch.zeros(1, 2, 32, 48)
    across[:, 1, :16], along[:, 1, :, 24:] = 9, 9
    across[:, 0], along[:, 0] = 4.5, 4.5
    for objective in (DenseCrfLoss(), GatedCrf(), TreeEnergy()):
        low, high = (judged(objective, logits, targets_of(pixels), images) for logits in (along, across))
        assert low < 0.5 * high


# --- gated CRF ------------------------------------------------------------------------------------------------------


def test_the_gated_energy_is_its_equation() -> None:
    probabilities, colours, gates = rand(3, 6, 7).softmax(dim=0), photo(6, 7), (rand(6, 7, seed=4) > 0.4).float()
    expected = 0.0
    for y in range(6):
        for x in range(7):
            for v in range(max(0, y - 2), min(6, y + 3)):
                for u in range(max(0, x - 2), min(7, x + 3)):
                    if (y, x) != (v, u):
                        apart = float((colours[:, y, x] - colours[:, v, u]).square().sum())
                        near = math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * 1.5**2) - apart / (2 * 0.2**2))
                        unlike = 1 - float(probabilities[:, y, x] @ probabilities[:, v, u])
                        expected += float(gates[y, x]) * near * unlike
    found = gated_energy(probabilities, colours, gates, radius=2, sigma_px=1.5, sigma_rgb=0.2)
    assert float(found) == pytest.approx(expected / 42, rel=1e-5)


def test_labelled_cells_are_told_nothing() -> None:
    images, logits = photo(8, 8)[None], rand(1, 3, 8, 8).requires_grad_()
    pixels = torch.ones(1, 8, 8, dtype=torch.uint8)
    assert judged(GatedCrf(cell=1), logits, targets_of(pixels), images) == 0
    assert judged(GatedCrf(cell=1, gate=False), logits, targets_of(pixels), images) > 0


# --- tree energy ----------------------------------------------------------------------------------------------------


def plain_tree_filter(
    values: npt.NDArray[np.float64], features: npt.NDArray[np.float64], sigma: float
) -> npt.NDArray[np.float64]:
    """Prim's tree, and ways on it by trying all intermediate cells (Floyd and Warshall)."""
    height, width = values.shape[1:]
    count = height * width
    flat = features.reshape(len(features), count)
    near = {
        (a, b): float(((flat[:, a] - flat[:, b]) ** 2).sum())
        for a in range(count)
        for b in (a - 1, a + 1, a - width, a + width)
        if 0 <= b < count and abs(a % width - b % width) <= 1
    }
    reached, ways = {0}, np.full((count, count), np.inf)
    np.fill_diagonal(ways, 0)
    while len(reached) < count:
        a, b = min(((a, b) for a, b in near if a in reached and b not in reached), key=near.__getitem__)
        ways[a, b] = ways[b, a] = near[a, b]
        reached.add(b)
    for k in range(count):
        ways = np.minimum(ways, ways[:, k : k + 1] + ways[k])
    weight = np.exp(-ways / sigma)
    mean: npt.NDArray[np.float64] = weight @ values.reshape(len(values), count).T / weight.sum(axis=1, keepdims=True)
    return mean.T.reshape(values.shape)


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (4, 1), (1, 1)])
def test_the_tree_filter_equals_a_plain_one(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values, features = rng.random((3, *size)), rng.random((2, *size))
    for sigma in (0.05, 0.7):
        expected = plain_tree_filter(values, features, sigma)
        np.testing.assert_allclose(tree_filter(values, features, sigma=sigma), expected, rtol=1e-9)
    with pytest.raises(ShapeError, match="sigma above 0"):
        tree_filter(values, features, sigma=0.0)


def test_tree_energy_is_the_mean_distance_of_unlabelled_cells_from_their_soft_labels() -> None:
    images, logits = photo(6, 8)[None], rand(1, 3, 6, 8).requires_grad_()
    pixels = torch.full((1, 6, 8), 255, dtype=torch.uint8)
    pixels[0, 2, 1:4] = 1
    shown = logits.softmax(dim=1)[0]
    soft = plain_tree_filter(shown.detach().double().numpy(), images[0].double().numpy() / DEVIATION, 0.02)
    apart = (shown - torch.from_numpy(soft).float()).abs().sum(dim=0)
    found = judged(TreeEnergy(cell=1), logits, targets_of(pixels), images)
    torch.testing.assert_close(found, apart[pixels[0] == 255].mean(), rtol=1e-4, atol=1e-6)
    assert not torch.autograd.grad(found, logits)[0][0, :, 2, 1:4].any()
    level = rand(1, 4, 6, 8, seed=5)
    seen = Prediction(logits, [level])
    deep = TreeEnergy(cell=1, features=True)(seen, targets_of(pixels), images, HALF)["tree_energy"]
    soft = plain_tree_filter(soft, level[0].double().numpy(), 1.0)
    apart = (shown - torch.from_numpy(soft).float()).abs().sum(dim=0)
    torch.testing.assert_close(deep, apart[pixels[0] == 255].mean(), rtol=1e-4, atol=1e-6)


# --- what all regularisers keep -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [DenseCrfLoss(), GatedCrf(), TreeEnergy()])
def test_padding_and_other_photos_change_nothing(objective: Objective) -> None:
    images = torch.stack([photo(32, 32), photo(32, 32, seed=9)])
    logits, pixels = rand(2, 3, 32, 32), torch.full((2, 32, 32), 255, dtype=torch.uint8)
    pixels[:, 10, 10] = 1
    windows = torch.tensor([[0, 0, 20, 24], [0, 0, 32, 32]])
    both = judged(objective, logits, targets_of(pixels, windows), images)
    changed, moved = images.clone(), logits.clone()
    changed[0, :, 24:], changed[0, :, :, 20:], moved[0, :, 26:], moved[0, :, :, 22:] = 0, 1, 5, -5
    torch.testing.assert_close(judged(objective, moved, targets_of(pixels, windows), changed), both)
    alone = [
        judged(objective, logits[i : i + 1], targets_of(pixels[i : i + 1], windows[i : i + 1]), images[i : i + 1])
        for i in range(2)
    ]
    torch.testing.assert_close(both, sum(alone) / 2)


# --- BoxInst --------------------------------------------------------------------------------------------------------


def test_projection_is_the_dice_of_both_projections() -> None:
    probability = rand(5, 6)
    inside = torch.zeros(5, 6, dtype=torch.bool)
    inside[1:4, 2:5] = True
    expected = 0.0
    for axis in (0, 1):
        m, t = probability.numpy().max(axis=axis), inside.numpy().max(axis=axis).astype(float)
        expected += 1 - 2 * (m * t).sum() / ((m**2).sum() + (t**2).sum())
    assert float(projection_loss(probability, inside)) == pytest.approx(expected, rel=1e-5)


def test_projection_wants_a_class_to_fill_its_boxes_and_nothing_beyond() -> None:
    boxes = (torch.tensor([[1.0, 4, 4, 12, 16], [1.0, 20, 8, 28, 28]]), torch.zeros(0, 5))
    targets = targets_of(torch.full((2, 32, 32), 255, dtype=torch.uint8), boxes=boxes)
    logits = torch.zeros(2, 3, 32, 32)
    logits[:, 0] = 12
    filled = logits.clone()
    filled[0, 1, 4:16, 4:12], filled[0, 1, 8:28, 20:28] = 24, 24
    beyond = filled.clone()
    beyond[0, 1, 20:30] = 24
    images = rand(2, 3, 32, 32)
    right, nothing, more = (judged(Projection(), one, targets, images) for one in (filled, logits, beyond))
    assert right < 0.01
    assert nothing > 1.9
    assert 0.05 < more < nothing


def test_pairwise_is_the_mean_over_pairs_that_are_surely_alike() -> None:
    images, logits = photo(6, 8)[None], rand(1, 3, 6, 8).requires_grad_()
    boxes = (torch.tensor([[2.0, 1, 1, 4, 5]]),)
    targets = targets_of(torch.full((1, 6, 8), 255, dtype=torch.uint8), boxes=boxes)
    p, colours = logits.softmax(dim=1)[0], lab(images)[0]
    inside = np.zeros((6, 8), bool)
    inside[1:5, 1:4] = True
    costs = []
    for y in range(6):
        for x in range(8):
            for v in (y - 2, y, y + 2):
                for u in (x - 2, x, x + 2):
                    if (v, u) <= (y, x) or not (0 <= v < 6 and 0 <= u < 8) or not (inside[y, x] or inside[v, u]):
                        continue
                    if math.exp(-float((colours[:, y, x] - colours[:, v, u]).norm()) / 9) >= 0.3:
                        costs.append(-torch.log(p[:, y, x] @ p[:, v, u]))
    assert 10 < len(costs) < 80, "some are alike, and some are not"
    torch.testing.assert_close(judged(Pairwise(cell=1, theta=9.0), logits, targets, images), torch.stack(costs).mean())
    early = Pairwise(cell=1)(Prediction(logits), targets, images, Progress(0, 100))["pairwise"]
    assert early == 0, "it rises from 0"


def test_lab_agrees_with_opencv() -> None:
    import cv2

    images = rand(2, 3, 4, 5)
    expected = np.stack([cv2.cvtColor(one.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB) for one in images])
    np.testing.assert_allclose(lab(images).permute(0, 2, 3, 1), expected, atol=0.3)  # its own is rounded


# --- What's the Point -----------------------------------------------------------------------------------------------


def test_image_level_is_its_equation() -> None:
    logits = rand(2, 4, 5, 6).requires_grad_()
    tags = torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    known = torch.tensor([[True, True, False], [False, False, False]])
    targets = Targets(tags, known, torch.tensor([[0, 0, 6, 5]] * 2))
    highest = logits.softmax(dim=1)[0].flatten(1).amax(dim=1)
    found = judged(ImageLevel(), logits, targets, rand(2, 3, 5, 6))
    torch.testing.assert_close(found, -highest[1].log() - (1 - highest[2]).log())
    both = replace(targets, tags=torch.ones(2, 3), tags_known=torch.ones(2, 3, dtype=torch.bool))
    shown = logits.softmax(dim=1).flatten(2).amax(dim=2)[:, 1:]
    torch.testing.assert_close(judged(ImageLevel(), logits, both, rand(2, 3, 5, 6)), -shown.log().mean())


@pytest.mark.parametrize("objective", [ImageLevel(), Projection()])
def test_what_is_said_not_to_see_images_sees_their_size_alone(objective: Objective) -> None:
    """So a frozen encoder's kept features may stand in for them."""
    tags, known = torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool)
    boxes = (torch.tensor([[1.0, 1, 2, 20, 24]]),)
    targets = Targets(tags, known, torch.tensor([[0, 0, 32, 32]]), boxes=boxes)
    logits, seen = rand(1, 3, 8, 8), photo(32, 32)[None]
    assert not objective.sees_images
    found = judged(objective, logits, targets, seen)
    assert found > 0
    assert torch.equal(judged(objective, logits, targets, torch.zeros_like(seen)), found)
