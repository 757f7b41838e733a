"""Pooling, class maps, seeds and the CAM classifier, against slow plain versions and published numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.cam import (
    constant_background,
    merge_scales,
    multi_scale,
    normalise,
    power_background,
    seeds,
)
from hintseg.config.settings import BackboneConfig
from hintseg.errors import ShapeError
from hintseg.losses.classification import multi_label_soft_margin
from hintseg.methods.cam import Cam, CamConfig
from hintseg.nn.pooling import POOLED_NORM, Pooling, gap, gmp, hspp, pool
from hintseg.types import Batch, Progress
from made import batch_of, rand
from published import reference


def network(classes: int = 3, **settings: str) -> Cam:
    torch.manual_seed(0)
    backbone = BackboneConfig(name="test_resnet", weights="random", freeze="norm")
    return Cam(CamConfig.model_validate({"backbone": backbone} | settings), classes, True).eval()


# --- pooling --------------------------------------------------------------------------------------------------------


def slow_hspp(features: Tensor, gamma: float, edges: Callable[..., Any]) -> float:
    """Eqs. 5-7 for one channel (h, w), bin by bin; `edges(length, r)` lists the bins (start, end) of one side."""
    h, w = features.shape
    f_gap = sum(float(features[y, x]) for y in range(h) for x in range(w)) / (h * w)  # Eq. 6
    total = gamma * f_gap
    for r in (1, 2, 4):
        maxima = [
            max(float(features[y, x]) for y in range(y0, y1) for x in range(x0, x1))
            for y0, y1 in edges(h, r)
            for x0, x1 in edges(w, r)
        ]
        total += sum(maxima) / len(maxima)  # Eq. 5
    return total / (gamma + 3)  # Eq. 7


def adaptive(length: int, r: int) -> list[tuple[int, int]]:
    return [(i * length // r, -(-(i + 1) * length // r)) for i in range(r)]


def floor(length: int, r: int) -> list[tuple[int, int]]:
    cell = max(length // r, 1)
    return [(i * cell, (i + 1) * cell) for i in range(length // cell)]


@pytest.mark.parametrize(("bins", "edges"), [("adaptive", adaptive), ("floor", floor)])
@pytest.mark.parametrize("size", [(8, 8), (11, 13), (3, 2)])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_hspp_equals_the_equations(
    bins: Literal["adaptive", "floor"], edges: Callable[..., Any], size: tuple[int, int], gamma: float
) -> None:
    features = rand(2, 3, *size)
    expected = [[slow_hspp(channel, gamma, edges) for channel in photo] for photo in features]
    torch.testing.assert_close(hspp(features, gamma=gamma, bins=bins), torch.tensor(expected))


@pytest.mark.parametrize("case", "abc")
def test_hspp_equals_the_published_numbers(case: str) -> None:
    vwe = reference("vwe")
    expected = vwe[f"hspp_{case}"].flatten(1)
    torch.testing.assert_close(hspp(vwe[f"x_{case}"], bins="floor"), expected, rtol=1e-4, atol=1e-6)
    if case == "a":  # 32 x 32: both ways to lay the grid are the same
        torch.testing.assert_close(hspp(vwe["x_a"]), expected, rtol=1e-4, atol=1e-6)


def test_hspp_lies_between_average_and_maximum() -> None:
    features = rand(2, 5, 14, 14)
    assert (gap(features) < hspp(features)).all()
    assert (hspp(features) < gmp(features)).all()
    torch.testing.assert_close(hspp(features, gamma=1e6), gap(features), rtol=1e-4, atol=1e-4)


def test_pool_chooses_by_name() -> None:
    features = rand(2, 5, 6, 6)
    named: dict[Pooling, Tensor] = {"gap": gap(features), "gmp": gmp(features), "hspp": hspp(features, gamma=5)}
    for name, expected in named.items():
        torch.testing.assert_close(pool(features, name, gamma=5), expected)


# --- loss -----------------------------------------------------------------------------------------------------------


def test_multi_label_loss_equals_the_equation() -> None:
    logits, targets = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)) * 3, (rand(4, 5) > 0.5).float()
    total = 0.0
    for p, y in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        yes, no = np.exp(p) / (1 + np.exp(p)), 1 / (1 + np.exp(p))
        total -= y * np.log(yes) + (1 - y) * np.log(no)  # Eq. 8 with its missing sign
    torch.testing.assert_close(multi_label_soft_margin(logits, targets), torch.tensor(float(total / 20)))


def test_multi_label_loss_of_sure_answers_is_finite() -> None:
    logits, targets = torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]])
    assert multi_label_soft_margin(logits, targets) == 1e4


# --- class maps -----------------------------------------------------------------------------------------------------


def test_normalise_divides_by_the_maximum_of_photo_and_class() -> None:
    maps, tags = (
        rand(2, 3, 4, 5) * torch.tensor([1.0, 10.0, 1000.0]).view(3, 1, 1),
        torch.tensor([[1, 0, 1], [0, 1, 0]]),
    )
    result = normalise(maps, tags)
    torch.testing.assert_close(result.amax(dim=(2, 3)), tags.float(), rtol=1e-4, atol=1e-4)
    one = maps[0, 2] / (maps[0, 2].max() + 1e-5)
    torch.testing.assert_close(result[0, 2], one)


def test_without_background_the_present_classes_of_a_photo_share_one_maximum() -> None:
    maps = rand(2, 3, 4, 5) * torch.tensor([1.0, 10.0, 1000.0]).view(3, 1, 1)
    tags = torch.tensor([[1, 1, 0], [1, 0, 1]])
    result = normalise(maps, tags, own_maximum=False)
    for photo, largest in ((0, maps[0, :2].max()), (1, maps[1, ::2].max())):  # the absent third is the strongest
        expected = maps[photo] * tags[photo].view(3, 1, 1) / (largest + 1e-5)
        torch.testing.assert_close(result[photo], expected)
    own = normalise(maps, tags)
    assert not torch.equal(result.argmax(dim=1), own.argmax(dim=1)), "the classifier's own scale decides"
    assert (normalise(torch.zeros(1, 2, 3, 3), torch.ones(1, 2), own_maximum=False) == 0).all()


def test_normalise_keeps_an_empty_map_empty() -> None:
    assert (normalise(torch.zeros(1, 1, 3, 3), torch.ones(1, 1)) == 0).all()


def test_merged_scales_equal_the_published_numbers() -> None:
    irn = reference("irn_cam")
    maps = [irn[f"map{i}"][None] for i in range(4)]
    tags = irn["label"][None]
    height, width = irn["img"].shape[:2]
    quarter = normalise(merge_scales(maps, (-(-height // 4), -(-width // 4))), tags)[0, irn["keys"]]
    torch.testing.assert_close(quarter, irn["cam"], rtol=1e-4, atol=1e-6)
    padded = merge_scales(maps, (-(-height // 16) * 16, -(-width // 16) * 16))[..., :height, :width]
    torch.testing.assert_close(normalise(padded, tags)[0, irn["keys"]], irn["high_res"], rtol=1e-4, atol=1e-6)


def lopsided_maps(images: Tensor) -> Tensor:
    """Class maps of two classes on a grid of stride 4 that are not mirror-symmetric."""
    weight = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4) / 96
    return torch.relu(torch.conv2d(images, weight, stride=4))


@pytest.mark.parametrize("flip", ["max", "sum", "none"])
def test_multi_scale_equals_one_scale_and_flip_at_a_time(flip: Literal["max", "sum", "none"]) -> None:
    images, scales = rand(2, 3, 20, 28), (1.0, 0.5, 1.5)
    expected = torch.zeros(2, 2, 5, 7)
    for scale in scales:
        size = (round(20 * scale), round(28 * scale))
        scaled = interpolate(images, size=size, mode="bilinear", align_corners=False)
        maps, twin = lopsided_maps(scaled), lopsided_maps(scaled.flip(3)).flip(3)
        merged = {"max": torch.maximum(maps, twin), "sum": maps + twin, "none": maps}[flip]
        expected += interpolate(merged, size=(5, 7), mode="bilinear", align_corners=False)
    torch.testing.assert_close(multi_scale(lopsided_maps, images, scales=scales, flip=flip, size=(5, 7)), expected)


@pytest.mark.parametrize("flip", ["max", "sum"])
def test_flip_merging_makes_maps_mirror_with_the_photo(flip: Literal["max", "sum", "none"]) -> None:
    images = rand(1, 3, 16, 16)
    maps = multi_scale(lopsided_maps, images, scales=(1.0, 2.0), flip=flip)
    mirrored = multi_scale(lopsided_maps, images.flip(3), scales=(1.0, 2.0), flip=flip)
    assert maps.shape == (1, 2, 16, 16)
    torch.testing.assert_close(mirrored, maps.flip(3))
    assert not torch.allclose(maps, maps.flip(3))


# --- background and seeds -------------------------------------------------------------------------------------------


def test_backgrounds() -> None:
    maps = torch.tensor([[[0.2, 0.9]], [[0.6, 0.1]]])
    torch.testing.assert_close(constant_background(maps, 0.3), torch.tensor([[[0.3, 0.3]]]))
    assert constant_background(maps[:0], 0.3).shape == (1, 1, 2)
    torch.testing.assert_close(power_background(maps, 4), torch.tensor([[[0.4**4, 0.1**4]]]))


def test_seeds_are_the_class_of_the_largest_score() -> None:
    maps, keys = rand(3, 6, 7), torch.tensor([2, 9, 200])
    for threshold in (None, 0.0, 0.5, 1.0):
        result = seeds(maps, keys, threshold)
        assert result.dtype == torch.uint8
        for y in range(6):
            for x in range(7):
                score, key = max((float(maps[i, y, x]), int(keys[i])) for i in range(3))
                background = threshold is not None and score <= threshold
                assert result[y, x] == (0 if background else key)


def test_photo_without_classes_is_background_or_unknown() -> None:
    nothing = torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.int64)
    assert (seeds(*nothing, 0.3) == 0).all()
    assert (seeds(*nothing, None) == 255).all()
    assert seeds(*nothing, None).shape == (2, 3)


def test_seeds_refuse_keys_of_other_maps() -> None:
    with pytest.raises(ShapeError, match=r"got \(2, 3, 3\) and \(1,\)"):
        seeds(torch.zeros(2, 3, 3), torch.tensor([1]), 0.3)


# --- the method -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["gap", "gmp", "hspp"])
@pytest.mark.parametrize("classes", [1, 3])
def test_loss_and_maps_come_from_one_classifier(pooling: Pooling, classes: int) -> None:
    method, images = network(classes, pooling=pooling), rand(2, 3, 64, 64)
    tags = torch.ones(2, classes)
    features = method.backbone(images)[-1]
    weight = method.classifier.weight.flatten(1)
    logits = pool(features, pooling) @ weight.T
    losses = method.losses(batch_of(images, tags), Progress(0, 1))
    torch.testing.assert_close(losses, {"loss_img": multi_label_soft_margin(logits, tags)})
    maps = torch.einsum("bdhw,kd->bkhw", features, weight).clamp_min(0)
    assert maps.shape == (2, classes, 4, 4)
    torch.testing.assert_close(method.class_maps(images), maps)


def test_parameter_groups_hold_every_parameter_once() -> None:
    method = network()
    groups = method.parameter_groups()
    assert sorted(id(p) for g in groups for p in g.parameters) == sorted(id(p) for p in method.parameters())
    assert [(g.head, len(g.parameters) > 1) for g in groups] == [(False, True), (True, False)]


def colours(n: int) -> Batch:
    """Photos that are reddish (class 1) or greenish (class 2)."""
    tags = torch.eye(2)[torch.arange(n) % 2]
    images = rand(n, 3, 32, 32) * 0.5 + torch.cat([tags, torch.zeros(n, 1)], dim=1)[:, :, None, None] * 0.5
    return batch_of(images, tags)


def trained_loss(method: Cam, data: Batch, steps: int = 20) -> float:
    """Train the classifier alone; the backbone stands for frozen features."""
    optimizer = torch.optim.SGD(method.classifier.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        loss = method.losses(data, Progress(step, steps))["loss_img"]
        loss.backward()
        optimizer.step()
    return loss.item()


def test_measured_scale_makes_tiny_features_learnable() -> None:
    data, results = colours(4), {}
    for strength in (1.0, 1e-4):
        for prepared in (True, False):
            method = network(2)
            method.backbone.register_forward_hook(lambda m, i, levels, s=strength: [level * s for level in levels])
            if prepared:
                method.prepare([data])
            results[strength, prepared] = trained_loss(method, data)
    assert results[1e-4, False] > 0.69  # stays at the prior
    assert results[1e-4, True] < 0.2
    assert results[1e-4, True] == pytest.approx(results[1.0, True], rel=0.01)


@pytest.mark.parametrize("pooling", ["gap", "hspp"])
def test_measured_scale_gives_the_standard_norm_and_leaves_maps_alone(pooling: Pooling) -> None:
    method, data = network(2, pooling=pooling), colours(4)
    before = normalise(method.class_maps(data.images), data.targets.tags)
    method.prepare([data])
    pooled = pool(method.backbone(data.images)[-1] * method.feature_scale.factor, pooling)
    assert pooled.square().sum(dim=1).mean().sqrt().item() == pytest.approx(POOLED_NORM, rel=1e-3)
    assert not method.training
    after = normalise(method.class_maps(data.images), data.targets.tags)
    torch.testing.assert_close(after, before, rtol=0, atol=0.02)  # the 1e-5 below the fraction is felt by tiny maps
    again = network(2, pooling=pooling)
    again.load_state_dict(method.state_dict())
    assert again.feature_scale.factor == method.feature_scale.factor != 1
