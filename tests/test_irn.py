"""IRN: losses and affinities against the published numbers and plain loops; labels, walk and training."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, ShapeError
from hintseg.losses.affinity import PairLabels, affinity_loss, displacement_loss, labels_on_grid, pair_ends, pair_labels
from hintseg.methods.irn import Irn, IrnConfig, ir_labels, masks, path_affinity, spread
from hintseg.refine.random_walk import path_offsets
from hintseg.types import Progress
from made import blob_photo, noise_with, offsets_of, two_halves, with_targets
from published import reference

PROGRESS = Progress(0, 10)


def make_irn(classes: int = 2, background: bool = True, **backbone: object) -> Irn:
    torch.manual_seed(0)
    settings = BackboneConfig.model_validate({"name": "resnet10t", "weights": "random"} | backbone)
    return Irn(IrnConfig(backbone=settings), classes, background)


# Pairs and their losses


def test_pair_labels_and_losses_equal_the_published_ones() -> None:
    data = reference("irn_aff_label")
    offsets = offsets_of(10)
    pairs = pair_labels(data["label"][None], offsets)
    for name, found in zip(("bg", "fg", "neg"), pairs, strict=True):
        assert torch.equal(found[0], data[name])
    affinity = path_affinity(data["edge"][:, 0], path_offsets(10))
    # The file holds every seventh cell.
    np.testing.assert_allclose(affinity[:, :, ::7], data["aff"], rtol=1e-4, atol=1e-6)
    positive, negative = affinity_loss(affinity, pairs)
    displacement = displacement_loss(data["dp"], pairs, offsets)
    np.testing.assert_allclose(positive.item(), data["pos"], rtol=1e-4)
    np.testing.assert_allclose(negative.item(), data["negl"], rtol=1e-4)
    np.testing.assert_allclose(displacement.item(), (data["dfg"] + data["dbg"]) / 2, rtol=1e-4)
    np.testing.assert_allclose((positive / 2 + negative / 2 + displacement).item(), data["total"], rtol=1e-4)


def test_displacement_pairs_equal_the_published_ones() -> None:
    data = reference("irn_aff_label")
    source, partner = pair_ends(data["dp"], offsets_of(10))
    difference = (source - partner).numpy()
    # The file holds every eighth destination and every seventh cell.
    np.testing.assert_allclose(difference[:, :, ::8, ::7], data["pair_disp"], rtol=1e-4, atol=1e-6)


def slow_losses(edge: Tensor, displacement: Tensor, labels: Tensor, radius: float) -> tuple[float, float, float]:
    """Eqs. 2 to 5 by plain loops over cells, partners and path cells."""
    kinds: dict[str, list[float]] = {"bg": [], "fg": [], "neg": [], "dfg": [], "dbg": []}
    reach = int(np.ceil(radius)) - 1
    batch, height, width = edge.shape
    for b in range(batch):
        for y in range(height - reach):
            for x in range(reach, width - reach):
                for dy in range(reach + 1):
                    for dx in range(-reach, reach + 1):
                        if (dy, dx) <= (0, 0) or dy * dy + dx * dx >= radius * radius:
                            continue
                        one, two = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                        if 255 in (one, two):
                            continue
                        length = (dy * dy + dx * dx) ** 0.5
                        on_path = [
                            edge[b, y + py, x + px].item()
                            for py in range(dy + 1)
                            for px in range(min(dx, 0), max(dx, 0) + 1)
                            if abs(py * dx - px * dy) / length < 1
                        ]
                        affinity = 1 - max(on_path)
                        moved = displacement[b, :, y, x] - displacement[b, :, y + dy, x + dx]
                        if one != two:
                            kinds["neg"].append(-log(1 + 1e-5 - affinity))
                        elif one == 0:
                            kinds["bg"].append(-log(affinity + 1e-5))
                            kinds["dbg"].append(moved.abs().mean().item())
                        else:
                            kinds["fg"].append(-log(affinity + 1e-5))
                            kinds["dfg"].append((moved - torch.tensor([dy, dx])).abs().mean().item())
    mean = {name: float(np.mean(values)) for name, values in kinds.items()}
    return (mean["bg"] + mean["fg"]) / 2, mean["neg"], (mean["dfg"] + mean["dbg"]) / 2


def test_losses_equal_plain_loops() -> None:
    torch.manual_seed(0)
    edge, displacement = torch.rand(2, 9, 11), torch.randn(2, 2, 9, 11)
    labels = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[torch.randint(4, (2, 9, 11))]
    offsets = offsets_of(3.5)
    pairs = pair_labels(labels, offsets)
    positive, negative = affinity_loss(path_affinity(edge, path_offsets(3.5)), pairs)
    found = (positive.item(), negative.item(), displacement_loss(displacement, pairs, offsets).item())
    np.testing.assert_allclose(found, slow_losses(edge, displacement, labels, 3.5), rtol=1e-4)


def test_no_edge_joins_all_and_the_gradient_reaches_only_the_largest_edge() -> None:
    paths = path_offsets(3)
    assert torch.equal(path_affinity(torch.zeros(1, 6, 8), paths), torch.ones(1, len(paths), 4 * 4))
    edge = torch.zeros(1, 6, 8)
    edge[0, 2, 4] = 0.75
    edge.requires_grad_()
    affinity = path_affinity(edge, paths)
    assert affinity.min().item() == 0.25
    affinity[affinity == 0.25].sum().backward()
    assert edge.grad is not None
    assert edge.grad.nonzero().tolist() == [[0, 2, 4]]


def test_objects_that_point_to_their_centre_have_no_displacement_loss() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    to_centre = torch.stack([3 - y, 5 - x])[None]
    offsets = offsets_of(3)
    pairs = pair_labels(torch.ones(1, 8, 12, dtype=torch.uint8), offsets)
    assert displacement_loss(to_centre, pairs, offsets, background=False).item() == pytest.approx(0, abs=1e-6)
    assert displacement_loss(torch.zeros(1, 2, 8, 12), pairs, offsets, background=False).item() > 0.5


def test_without_background_foreground_pairs_weigh_one() -> None:
    pairs = pair_labels(torch.ones(1, 4, 5, dtype=torch.uint8), [(0, 1), (1, 0)])
    affinity = torch.full((1, 2, 9), 0.5)
    with_background, _ = affinity_loss(affinity, pairs)
    without, _ = affinity_loss(affinity, pairs, background=False)
    assert without.item() == pytest.approx(log(2), rel=1e-4)
    assert with_background.item() == pytest.approx(log(2) / 2, rel=1e-4)


def test_nothing_labelled_gives_zero_and_a_finite_gradient() -> None:
    edge = torch.rand(1, 6, 8, requires_grad=True)
    offsets = offsets_of(3)
    pairs = pair_labels(torch.full((1, 6, 8), 255, dtype=torch.uint8), offsets)
    total = torch.stack(affinity_loss(path_affinity(edge, path_offsets(3)), pairs)).sum()
    total.backward()
    assert total.item() == 0
    assert edge.grad is not None
    assert torch.equal(edge.grad, torch.zeros_like(edge))


def test_labels_take_the_pixel_under_the_cell_centre() -> None:
    mask = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    assert labels_on_grid(mask, (2, 2)).tolist() == [[[18, 22], [50, 54]]]
    assert labels_on_grid(mask, (8, 8)).equal(mask)


def test_small_grids_are_refused_with_the_size_needed() -> None:
    with pytest.raises(ShapeError, match="at least 10 x 19 cells"):
        pair_ends(torch.zeros(1, 9, 40), offsets_of(10))
    with pytest.raises(ShapeError, match="3 x 3 cells"):
        path_affinity(torch.zeros(1, 3, 3), path_offsets(5))


# Labels from class maps


def test_ir_labels_equal_the_published_ones() -> None:
    data = reference("irn_cam")
    rgb = data["img"].permute(2, 0, 1)
    found = ir_labels(data["high_res"], data["keys"] + 1, rgb)
    assert found.dtype == torch.uint8
    assert (found == data["ir_label"]).float().mean() >= 0.99


def test_ir_labels_know_the_middle_and_the_far_background_only() -> None:
    rgb, maps = blob_photo()
    found = ir_labels(maps, torch.tensor([7]), rgb)
    assert found[20, 20] == 7
    assert found[0, 0] == 0
    assert set(found.unique().tolist()) <= {0, 7, 255}


def test_ir_labels_without_background_leave_weak_places_open() -> None:
    rgb, maps = blob_photo()
    found = ir_labels(maps, torch.tensor([7]), rgb, background=False)
    assert found[20, 20] == 7
    assert found[0, 0] == 255
    two = ir_labels(torch.cat([maps, 0.6 * (1 - maps)]), torch.tensor([7, 3]), rgb, background=False)
    assert two[20, 20] == 7
    assert two[0, 0] == 3
    assert 0 not in two


def test_photos_without_tags_are_background_or_unknown() -> None:
    rgb, maps = blob_photo()
    nothing = torch.zeros(0, dtype=torch.uint8)
    assert ir_labels(maps[:0], nothing, rgb).unique().tolist() == [0]
    assert ir_labels(maps[:0], nothing, rgb, background=False).unique().tolist() == [255]
    assert masks(torch.zeros(0, 3, 3), nothing, (10, 11)).unique().tolist() == [0]
    assert masks(torch.zeros(0, 3, 3), nothing, (10, 11), threshold=None).unique().tolist() == [255]


def test_ir_labels_resize_small_maps() -> None:
    rgb, maps = blob_photo()
    small = torch.nn.functional.interpolate(maps[None], scale_factor=0.25, mode="bilinear")[0]
    full, quarter = (ir_labels(values, torch.tensor([1]), rgb) for values in (maps, small.half()))
    assert (full == quarter).float().mean() > 0.9


# The walk


def test_masks_equal_the_published_ones() -> None:
    data = reference("irn_cam")
    scores = spread(data["edge"][0], data["cam"])
    found = masks(scores, data["keys"] + 1, (data["sem_seg"].shape[0], data["sem_seg"].shape[1]))
    assert (found == data["sem_seg"]).float().mean() >= 0.99


def test_spread_stops_at_a_wall() -> None:
    edge = torch.zeros(8, 16)
    edge[:, 8] = 1
    maps = torch.zeros(2, 8, 16)
    maps[0, 4, 2] = maps[1, 4, 13] = 1
    scores = spread(edge, maps)
    found = masks(scores, torch.tensor([1, 2]), (32, 64), threshold=None)
    assert found[:, :30].unique().tolist() == [1]
    assert found[:, 38:].unique().tolist() == [2]
    assert scores.max() == 1


def test_spread_keeps_a_constant_map() -> None:
    torch.manual_seed(0)
    edge = torch.rand(6, 9) * 0.5
    # Without the factor 1 - edge a constant is a fixed point; here it holds for constant edges.
    assert torch.allclose(spread(torch.full_like(edge, 0.3), torch.ones(2, 6, 9)), torch.ones(2, 6, 9), atol=1e-5)
    assert spread(edge, torch.ones(1, 3, 3), steps=3).shape == (1, 6, 9)


# The network


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (33, 90)])
def test_any_photo_size_gives_a_quarter_of_it(size: tuple[int, int]) -> None:
    irn = make_irn().eval()
    quarter = ((size[0] + 3) // 4, (size[1] + 3) // 4)
    photo = torch.rand(1, 3, *size)
    edge = irn.edges(photo)
    assert edge.shape == (1, 1, *quarter)
    assert 0 <= edge.min() <= edge.max() <= 1
    scores = irn.refine(photo, torch.rand(3, 5, 7))
    assert scores.shape == (3, *quarter)
    assert scores.max() == 1
    assert irn.displacements(photo).shape == (1, 2, *quarter)
    assert irn.refine(photo, torch.rand(0, 5, 7)).shape == (0, *quarter)


def test_a_mirrored_photo_has_mirrored_edges() -> None:
    irn = make_irn().eval()
    photo = torch.rand(1, 3, 64, 96)
    assert torch.allclose(irn.edges(photo.flip(-1)), irn.edges(photo).flip(-1), atol=1e-5)


def test_only_the_branches_learn() -> None:
    irn = make_irn().train()
    before = {name: value.clone() for name, value in irn.backbone.state_dict().items()}
    losses = irn.losses(noise_with(two_halves()), PROGRESS)
    assert set(losses) == {"affinity_positive", "affinity_negative", "displacement"}
    torch.stack(list(losses.values())).sum().backward()
    assert not irn.backbone.training
    assert all(value.grad is None for value in irn.backbone.parameters())
    assert irn.displacement is not None
    learners = [*irn.edge.parameters(), *irn.displacement.parameters()]
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in learners)
    assert all(torch.equal(value, before[name]) for name, value in irn.backbone.state_dict().items())
    groups = irn.parameter_groups()
    assert sorted(map(id, learners)) == sorted(id(value) for group in groups for value in group.parameters)
    assert [group.head for group in groups] == [False, True]


def test_it_learns_the_boundary_of_one_photo() -> None:
    irn = make_irn().train()
    batch = noise_with(torch.cat([two_halves(), two_halves(values=(2, 1))]))
    batch.images[0, :, :, 32:] *= 0.2
    batch.images[1] = batch.images[0].flip(-1)  # the walk looks at both
    optimizer = torch.optim.AdamW([value for value in irn.parameters() if value.requires_grad], lr=0.005)
    history = []
    for _ in range(60):
        total = torch.stack(list(irn.losses(batch, PROGRESS).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < history[0] / 2
    edge = irn.eval().edges(batch.images[:1])[0, 0]
    assert edge[:, 7:9].amax(dim=1).mean() > edge[:, [2, 3, 4, 11, 12, 13]].mean() + 0.3


@pytest.mark.parametrize("background", [True, False])
def test_one_class_and_unlabelled_photos_are_finite(background: bool) -> None:
    irn = make_irn(classes=1, background=background).train()
    for values in ((1, 1), (255, 255), (1, 255)):
        losses = irn.losses(noise_with(two_halves(values=values)), PROGRESS)
        assert all(torch.isfinite(value) for value in losses.values())
        assert losses["affinity_negative"].item() == 0


def test_bfloat16_autocast_is_finite() -> None:
    irn = make_irn().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = irn.losses(noise_with(two_halves()), PROGRESS)
        scores = irn.eval().refine(torch.rand(1, 3, 40, 56), torch.rand(2, 5, 7))
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in losses.values())
    assert torch.isfinite(scores).all()


def test_finish_removes_the_mean_displacement() -> None:
    irn = make_irn().eval()
    batches = [noise_with(two_halves()) for _ in range(2)]
    assert irn.displacements(batches[0].images).mean(dim=(0, 2, 3)).abs().max() > 1e-4
    irn.finish(batches)
    assert irn.displacements(batches[0].images).mean(dim=(0, 2, 3)).abs().max() < 1e-5
    other = make_irn()
    other.load_state_dict(irn.state_dict())
    assert torch.equal(other.mean_displacement, irn.mean_displacement)


def test_without_displacements_the_edges_are_the_same() -> None:
    torch.manual_seed(0)
    backbone = BackboneConfig(name="resnet10t", weights="random")
    plain = Irn(IrnConfig(backbone=backbone, displacement=False), 2, True).train()
    batch = noise_with(two_halves())
    alone, both = plain.losses(batch, PROGRESS), make_irn().train().losses(batch, PROGRESS)
    assert {name: value for name, value in both.items() if name != "displacement"} == alone
    assert len(plain.parameter_groups()) == 1
    plain.finish([batch])
    with pytest.raises(ConfigError, match="displacement=true"):
        plain.displacements(batch.images)


def test_two_levels_are_enough_and_masks_are_needed() -> None:
    irn = make_irn(levels=2).train()
    batch = noise_with(two_halves())
    assert all(torch.isfinite(value) for value in irn.losses(batch, PROGRESS).values())
    batch = with_targets(batch, pixels=None)
    with pytest.raises(ConfigError, match="run a localizer first"):
        irn.losses(batch, PROGRESS)


def test_pair_labels_leave_out_unlabelled_ends() -> None:
    labels = torch.tensor([[[0, 1, 1], [255, 0, 2]]], dtype=torch.uint8)
    pairs = pair_labels(labels, [(1, -1), (1, 0), (1, 1)])
    assert PairLabels(*(kind[0, :, 0] for kind in pairs)).negative.tolist() == [False, True, True]
    assert not pairs.background.any()
    assert not pairs.foreground.any()
