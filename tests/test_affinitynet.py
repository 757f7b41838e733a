"""AffinityNet: affinities, pairs and walk against the published numbers and plain loops; labels and training."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, elu

import hintseg
from hintseg.config.auto import Facts, resolve_fit
from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, ShapeError
from hintseg.losses.affinity import affinity_loss, pair_ends, pair_labels
from hintseg.methods.affinitynet import (
    AffinityNet,
    AffinityNetConfig,
    affinity_labels,
    feature_transition,
    pair_affinity,
)
from hintseg.methods.refiner import Refiner
from hintseg.nn.scale import FeatureScale
from hintseg.refine.random_walk import pair_transition, random_walk
from hintseg.training.weights import load_weights, save_weights
from hintseg.types import Progress
from made import blob_photo, noise_with, of, offsets_of, two_halves, with_targets
from published import psa_weights, reference

PROGRESS = Progress(0, 10)


def make(background: bool = True, **settings: object) -> AffinityNet:
    torch.manual_seed(0)
    backbone = BackboneConfig(name="resnet10t", weights="random", output_stride=8, levels=4)
    return AffinityNet(AffinityNetConfig.model_validate({"backbone": backbone} | settings), 2, background)


# --- the published numbers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return reference("psa")


@pytest.fixture(scope="module")
def published_features(published: dict[str, Tensor]) -> Tensor:
    """The published head on its three levels, through the layers of ours."""
    net = make(cell=1)
    net.reduce = torch.nn.ModuleList(
        torch.nn.Conv2d(width, out, 1, bias=False) for width, out in ((512, 64), (1024, 128), (4096, 256))
    )
    for layer, weight in zip([*net.reduce, net.mix], psa_weights().values(), strict=True):
        layer.weight.data = weight
    levels = [published[name] for name in ("c4", "c5", "c6")]
    net.backbone.forward = lambda images, known=None: levels  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        return net.features(torch.zeros(1, 3, 12, 15))


def test_affinity_equals_the_published_one(published: dict[str, Tensor], published_features: Tensor) -> None:
    # The file lists its 34 offsets row by row.
    affinity = pair_affinity(published_features, sorted(offsets_of(5)))
    torch.testing.assert_close(affinity, published["aff"], rtol=1e-3, atol=1e-6)


def test_pair_labels_equal_the_published_ones(published: dict[str, Tensor]) -> None:
    pairs = pair_labels(published["label"][None], sorted(offsets_of(5)))
    for name, found in zip(("bg", "fg", "neg"), pairs, strict=True):
        assert torch.equal(found[0], published[name])


@pytest.mark.parametrize("power", [6, 8])
def test_walk_equals_the_published_one(published: dict[str, Tensor], published_features: Tensor, power: int) -> None:
    offsets = offsets_of(5)
    affinity = torch.zeros(len(offsets), 12, 15)
    affinity[:, :8, 4:11] = pair_affinity(published_features, offsets)[0].view(-1, 8, 7)
    transition = pair_transition(affinity**8, radius=5)  # the published code knows only pairs away from the border
    walked = random_walk(published["cam"].view(21, 12, 15), transition, steps=2**power)
    torch.testing.assert_close(walked.flatten(1), published[f"rw_b8_t{power}"], rtol=1e-3, atol=1e-6)


# --- plain versions -------------------------------------------------------------------------------------------------


def slow_affinity(features: Tensor, one: tuple[int, int], two: tuple[int, int]) -> float:
    a, b = features[:, one[0], one[1]].tolist(), features[:, two[0], two[1]].tolist()
    return exp(-sum(abs(p - q) for p, q in zip(a, b, strict=True)) / len(a))


def test_affinity_and_loss_equal_plain_loops() -> None:
    torch.manual_seed(0)
    features, radius = torch.randn(2, 5, 6, 9), 3.5
    labels = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[torch.randint(4, (2, 6, 9))]
    kinds: dict[str, list[float]] = {"bg": [], "fg": [], "neg": []}
    for b in range(2):
        for y in range(3):
            for x in range(3, 6):
                for dy in range(4):
                    for dx in range(-3, 4):
                        if (dy, dx) <= (0, 0) or dy * dy + dx * dx >= radius**2:
                            continue
                        one, two = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                        affinity = slow_affinity(features[b], (y, x), (y + dy, x + dx))
                        if 255 in (one, two):
                            continue
                        if one != two:
                            kinds["neg"].append(-log(1 + 1e-5 - affinity))
                        else:
                            kinds["fg" if one else "bg"].append(-log(affinity + 1e-5))
    mean = {name: float(np.mean(values)) for name, values in kinds.items()}
    offsets = offsets_of(radius)
    positive, negative = affinity_loss(pair_affinity(features, offsets), pair_labels(labels, offsets))
    expected = mean["bg"] / 4 + mean["fg"] / 4 + mean["neg"] / 2
    assert (positive / 2 + negative / 2).item() == pytest.approx(expected, rel=1e-4)


def test_losses_weigh_background_foreground_and_parted_pairs() -> None:
    net, masks = make().eval(), two_halves(96, (0, 2))
    batch = noise_with(masks)
    with torch.no_grad():
        losses = net.losses(batch, PROGRESS)
    labels = masks[:, 4::8, 4::8]
    offsets = offsets_of(min(5, 12 / 3))
    affinity = pair_affinity(net.features(batch.images), offsets).detach()
    background, foreground, parted = (kind.float() for kind in pair_labels(labels, offsets))

    def mean(values: Tensor, chosen: Tensor) -> float:
        return float((values * chosen).sum() / chosen.sum())

    joined = -torch.log(affinity + 1e-5)
    expected = mean(joined, background) / 4 + mean(joined, foreground) / 4
    assert losses["affinity_positive"].item() == pytest.approx(expected, rel=1e-3)
    expected = mean(-torch.log(1 + 1e-5 - affinity), parted) / 2
    assert losses["affinity_negative"].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("size", "radius", "beta"), [((5, 7), 3, 8), ((3, 2), 5, 2.5), ((1, 6), 2.5, 1)])
def test_walk_equals_dense_matrix_powers(size: tuple[int, int], radius: float, beta: float) -> None:
    torch.manual_seed(0)
    features, scores = torch.randn(4, *size), torch.rand(2, *size)
    cells = [(y, x) for y in range(size[0]) for x in range(size[1])]
    dense = np.zeros((len(cells), len(cells)))
    for i, one in enumerate(cells):
        for j, two in enumerate(cells):
            if (one[0] - two[0]) ** 2 + (one[1] - two[1]) ** 2 < radius**2:
                dense[i, j] = slow_affinity(features, one, two) ** beta
    dense /= dense.sum(axis=0)  # columns, as published
    transition = feature_transition(features, radius=radius, beta=beta)
    np.testing.assert_allclose(transition.to_dense().numpy(), dense.T, rtol=1e-4, atol=1e-7)
    expected = scores.double().flatten(1).numpy() @ np.linalg.matrix_power(dense, 16)
    np.testing.assert_allclose(random_walk(scores, transition, steps=16).flatten(1).numpy(), expected, rtol=1e-4)


def test_affinity_has_the_gradient_of_the_plain_version() -> None:
    torch.manual_seed(0)
    offsets = offsets_of(3)
    features = torch.randn(2, 4, 6, 8, requires_grad=True)
    pattern = torch.rand(2, len(offsets), 4 * 4)
    source, partner = pair_ends(features, offsets)
    plain = torch.exp(-(source - partner).abs().mean(dim=1))
    found = pair_affinity(features, offsets)
    torch.testing.assert_close(found, plain)
    gradients = [torch.autograd.grad((values * pattern).sum(), features)[0] for values in (found, plain)]
    torch.testing.assert_close(*gradients)


def test_pairs_need_one_plane_per_neighbour() -> None:
    with pytest.raises(ShapeError, match="N = 34 neighbours"):
        pair_transition(torch.ones(33, 4, 4), radius=5)


# --- labels ---------------------------------------------------------------------------------------------------------


def test_labels_know_the_middle_and_the_far_background_only() -> None:
    rgb, maps = blob_photo()
    found = affinity_labels(maps, torch.tensor([7]), rgb)
    assert found.dtype == torch.uint8
    assert found[20, 20] == 7
    assert found[0, 0] == 0
    assert set(found.unique().tolist()) <= {0, 7, 255}


def test_a_low_power_shrinks_the_foreground_and_a_high_one_the_background() -> None:
    torch.manual_seed(0)
    rgb = torch.randint(0, 255, (3, 40, 40), dtype=torch.uint8)  # colours that tell nothing
    _, maps = blob_photo()
    sizes = {}
    for low, high in ((4, 32), (1, 32), (4, 200)):
        found = affinity_labels(maps, torch.tensor([1]), rgb, low_power=low, high_power=high)
        sizes[low, high] = ((found == 1).sum().item(), (found == 0).sum().item())
    assert sizes[1, 32][0] < sizes[4, 32][0]
    assert sizes[4, 200][1] < sizes[4, 32][1]
    assert sizes[1, 32][1] == sizes[4, 32][1]


def test_labels_without_background_leave_weak_places_open() -> None:
    rgb, maps = blob_photo()
    found = affinity_labels(maps, torch.tensor([7]), rgb, background=False)
    assert found[20, 20] == 7
    assert found[0, 0] == 255
    assert 0 not in found


def test_photos_without_tags_are_background_or_unknown() -> None:
    rgb, maps = blob_photo()
    nothing = torch.zeros(0, dtype=torch.uint8)
    assert affinity_labels(maps[:0], nothing, rgb).unique().tolist() == [0]
    assert affinity_labels(maps[:0], nothing, rgb, background=False).unique().tolist() == [255]


def test_auto_powers_lie_around_the_threshold() -> None:
    for threshold, wins, loses in ((0.05, 0.1, 0.025), (0.15, 0.3, 0.075), (0.4, 0.7, 0.2)):
        low, high = AffinityNetConfig().powers(threshold)
        # A class wins from s on, where s = (1 - s) ** power.
        assert (1 - wins) ** low == pytest.approx(wins, rel=0.01)
        assert (1 - loses) ** high == pytest.approx(loses, rel=0.02)
    assert AffinityNetConfig().powers(None) == AffinityNetConfig().powers(0.15)
    assert all(power > 0 for edge in (0.0, 1.0) for power in AffinityNetConfig().powers(edge))


def test_settings_make_the_labels() -> None:
    rgb, maps = blob_photo()
    keys = torch.tensor([3])
    config = AffinityNetConfig()
    low, high = config.powers(0.3)
    expected = affinity_labels(maps, keys, rgb, low_power=low, high_power=high)
    assert torch.equal(config.labels(maps, keys, rgb, threshold=0.3), expected)
    assert 0 not in config.labels(maps, keys, rgb, threshold=None)


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (33, 90), (8, 9)])
@pytest.mark.parametrize("cell", [4, 8])
def test_any_photo_size_gives_scores_on_its_cells(size: tuple[int, int], cell: int) -> None:
    net = make(cell=cell).eval()
    cells = tuple(-(-side // cell) for side in size)
    scores = net.refine(torch.rand(1, 3, *size), torch.rand(3, 20, 30))
    assert scores.shape == (3, *cells)
    assert scores.isfinite().all()
    assert scores.max() == 1
    assert net.refine(torch.rand(1, 3, *size), torch.rand(0, 20, 30)).shape == (0, *cells)


def test_features_are_those_of_the_three_last_levels() -> None:
    net, images = make(cell=8).eval(), torch.rand(2, 3, 64, 96)
    levels = net.backbone(images)[-3:]
    reduced = []
    for level, layer in zip(levels, net.reduce, strict=True):
        values = elu(conv2d(level, layer.get_parameter("weight")))
        if values.shape[-2:] != (8, 12):
            values = torch.nn.functional.interpolate(values, (8, 12), mode="bilinear")
        reduced.append(values)
    expected = elu(conv2d(torch.cat(reduced, dim=1), net.mix.weight))
    assert expected.shape == (2, 448, 8, 12)
    torch.testing.assert_close(net.features(images), expected)


def test_features_are_brought_to_one_scale() -> None:
    net, batch = make(), noise_with(two_halves())
    net.prepare([])
    assert [of(FeatureScale, scale).factor.item() for scale in net.scales] == [1, 1, 1]
    net.prepare([batch])
    for scale, level in zip(net.scales, net.train().backbone(batch.images)[-3:], strict=True):
        assert (level * scale.factor).square().mean().sqrt().item() == pytest.approx(1, rel=0.05)


def test_it_learns_the_two_sides_of_a_photo() -> None:
    net = make(cell=4)
    batch = noise_with(torch.cat([two_halves(values=(0, 2)), two_halves(values=(2, 0))]))
    batch.images[0, :, :, 32:] *= 0.3
    batch.images[1, :, :, :32] *= 0.3
    net.prepare([batch])
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.001)
    history = []
    for _ in range(25):
        total = torch.stack(list(net.losses(batch, PROGRESS).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < history[0] / 2
    maps = torch.zeros(1, 16, 16)
    maps[0, 6:10, 10:14] = 1
    scores = net.eval().refine(batch.images[:1], maps)[0]
    assert scores[:, 10:].mean() > 2 * scores[:, :6].mean()


def test_every_part_learns_and_is_in_one_group() -> None:
    net = make().train()
    torch.stack(list(net.losses(noise_with(two_halves(96)), PROGRESS).values())).sum().backward()
    backbone, head = net.parameter_groups()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters)
    held = [id(p) for group in (backbone, head) for p in group.parameters]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    assert (backbone.head, head.head) == (False, True)


@pytest.mark.parametrize("background", [True, False])
def test_unlabelled_photos_and_small_crops_are_finite(background: bool) -> None:
    net = make(background).train()
    for size, values in ((32, (1, 2)), (64, (255, 255)), (64, (1, 255)), (64, (1, 1))):
        losses = net.losses(noise_with(two_halves(size, values)), PROGRESS)
        assert all(value.isfinite() for value in losses.values())
        torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_bfloat16_autocast_is_finite() -> None:
    net = make().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = net.losses(noise_with(two_halves()), PROGRESS)
        scores = net.eval().refine(torch.rand(1, 3, 40, 56), torch.rand(2, 10, 14))
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
    assert scores.isfinite().all()


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ConfigError, match="needs three feature levels, 'resnet10t'"):
        make(backbone=BackboneConfig(name="resnet10t", weights="random", levels=2))
    batch = noise_with(two_halves())
    batch = with_targets(batch, pixels=None)
    with pytest.raises(ConfigError, match="run a localizer first"):
        make().losses(batch, PROGRESS)


def test_trained_weights_are_built_again(tmp_path: Path) -> None:
    net = make().eval()
    net.prepare([noise_with(two_halves())])
    save_weights(net.eval(), tmp_path / "model.safetensors", classes=("a", "b"), background=True)
    again, _, _ = load_weights(tmp_path / "model.safetensors")
    assert isinstance(again, Refiner)
    photo, maps = torch.rand(1, 3, 48, 64), torch.rand(2, 12, 16)
    torch.testing.assert_close(again.refine(photo, maps), net.refine(photo, maps))


def test_auto_trains_its_backbone_gently() -> None:
    facts = Facts(photos=355, side=213, pretrained=True, gpu=False)
    fit = resolve_fit(AffinityNetConfig(), facts)
    assert (fit.lr, fit.head_lr) == (0.0001, 10.0)


# --- the stage ------------------------------------------------------------------------------------------------------


def test_affinitynet_refines_what_a_classifier_found(shapes: Path, tmp_path: Path) -> None:
    settings = [
        "backbone={name: resnet10t, weights: random, output_stride: 8, levels: 4}",
        "trainer.workers=0",
        "trainer.precision=32-true",
        "maps.scales=[1.0]",
        "refine={method: affinitynet, cell: 4, steps: 9}",
        "segment=null",
        *(f"{stage}.fit.{key}" for stage in ("localize", "refine") for key in ("epochs=1", "batch_size=4", "crop=64")),
    ]
    run = hintseg.train(shapes, tmp_path / "run", recipe="cam", settings=settings)
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["stages"]["refine"]["steps"] == 2
    row = next(row for row in run.metrics if row["kind"] == "pseudo mask" and not row["oracle"])
    assert "affinitynet" in row["protocol"]
