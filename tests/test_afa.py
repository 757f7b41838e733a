"""AFA: networks, labels and losses against published numbers and plain loops; the recipe end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import hintseg
from hintseg.cam import merge_twins, stretch
from hintseg.config.settings import BackboneConfig, FitConfig
from hintseg.errors import ConfigError, ShapeError
from hintseg.losses.balanced_cross_entropy import BalancedCrossEntropy, balanced_cross_entropy
from hintseg.losses.window_affinity import window_affinity_loss
from hintseg.methods import afa as module
from hintseg.methods import one_stage as one_stage_module
from hintseg.methods.afa import Afa, AfaConfig
from hintseg.methods.method import frozen
from hintseg.nn.affinity import window
from hintseg.refine import par
from hintseg.refine.pseudo_labels import CropPar, Reach, affinity_labels, inside, par_labels, present
from hintseg.run.folder import RunFolder
from hintseg.training.optim import build_optimizer, learning_rate_factor
from hintseg.types import ParameterGroup, Progress
from made import given, rand
from one_stage import TINY, batch, load_published, normalised, windows_of
from published import reference
from small_runs import ONE_STAGE, write_squares


def afa(classes: int = 3, **settings: object) -> Afa:
    torch.manual_seed(0)
    return Afa(AfaConfig.model_validate({"backbone": TINY, "width": 16} | settings), classes, True)


# --- network --------------------------------------------------------------------------------------------------------


def test_network_equals_the_published_one() -> None:
    method, data = load_published(afa(5, width=32, prior=False)), reference("afa_net")
    with torch.no_grad():
        seen = method.branches(normalised(method, data["x"][:1]), decode=True)
        torch.testing.assert_close(seen.scores, data["cls"], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(seen.logits, data["seg"], rtol=1e-3, atol=1e-5)
        affinity = given(method.affinity_head)(seen.attention, (4, 4))
        near = window(4, 4, 8, affinity.device)
        expected = data["attn_pred"].gather(1, near.cells[None]) * near.inside
        torch.testing.assert_close(affinity * near.inside, expected, rtol=1e-3, atol=1e-5)
        wide = method.branches(normalised(method, data["x2"]), decode=False)
        torch.testing.assert_close(wide.maps, data["cam2"], rtol=1e-3, atol=1e-5)


def test_multi_scale_maps_equal_the_published_ones() -> None:
    data, size = reference("afa_mscam"), (64, 96)
    merged = torch.zeros(2, 5, *size)
    for scale in (1, 0.5, 1.5):
        x = F.interpolate(data["x"], size=[round(s * scale) for s in size], mode="bilinear", align_corners=False)
        maps = F.conv2d(torch.cat([x, x.flip(3)]), data["w"], data["b"], stride=16)
        merged += torch.relu(merge_twins(maps, size, "max"))
    # The file holds every third pixel of one photo.
    torch.testing.assert_close(stretch(merged)[:1, :, ::3, ::3], data["cam"], rtol=1e-4, atol=1e-5)


def test_look_sums_scales_and_takes_the_larger_twin() -> None:
    method, images = afa(scales=(1.0, 0.5)).eval(), rand(2, 3, 64, 64)
    total = torch.zeros(2, 3, 64, 64)
    with torch.no_grad():
        for size in (64, 32):
            scaled = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
            pair = [method.branches(x, decode=False).maps for x in (scaled, scaled.flip(3))]
            a, b = (F.interpolate(m, size=(64, 64), mode="bilinear", align_corners=False) for m in pair)
            total += torch.maximum(a, b.flip(3)).relu()
    for one, found in zip(total.flatten(0, 1), method.look(images).maps.flatten(0, 1), strict=True):
        low = one.min()
        torch.testing.assert_close(found, (one - low) / ((one - low).max() + 1e-5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mit_tiny", "resnet10t"])
def test_looking_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = afa(backbone=BackboneConfig(name=name, weights="random")).train()
    method.backbone.eval()  # a frozen part must stay so
    before = {key: value.clone() for key, value in method.state_dict().items()}
    modes = {key: part.training for key, part in method.named_modules()}
    monkeypatch.setattr(method.decoder, "forward", lambda levels: pytest.fail("the decoder ran"))
    method.look(rand(2, 3, 64, 64), affinity=True)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert modes == {key: part.training for key, part in method.named_modules()}
    assert modes["decoder"]
    assert not modes["backbone"]


def test_modes_come_back_after_an_error() -> None:
    method = afa().train()
    with pytest.raises(ZeroDivisionError), frozen(method):
        _ = 1 / method.decoder.training  # evaluation mode: 0
    assert method.decoder.training


def test_without_background_every_pixel_has_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    method, data = Afa(AfaConfig(backbone=TINY, width=16), 3, False), batch()
    data.targets.tags[1] = 0
    seen: list[Tensor] = []

    def of(self: BalancedCrossEntropy, logits: Tensor, labels: Tensor, trust: Tensor | None) -> Tensor:
        seen.append(labels)
        return logits.sum() * 0

    monkeypatch.setattr(BalancedCrossEntropy, "of", of)
    for step in (20, 50):  # labels of PAR, labels of the affinity
        assert all(loss.isfinite() for loss in method.losses(data, Progress(step, 100)).values())
    assert all(set(labels[0].unique().tolist()) <= {1, 3} for labels in seen)
    assert all(labels[1].unique().tolist() == [255] for labels in seen)  # no tags: nothing is known
    assert method.segment(data.images).argmax(dim=1).min() > 0


def test_timm_networks_have_no_affinity_head_and_few_levels_are_enough() -> None:
    method = afa(backbone=BackboneConfig(name="resnet10t", weights="random"))
    assert method.affinity_head is None
    assert [method.backbone.strides[i] for i in method.levels] == [4, 8, 16, 16]
    cut = afa(backbone=BackboneConfig(name="resnet10t", weights="random", levels=4))
    assert [cut.backbone.strides[i] for i in cut.levels] == [4, 8, 16]
    assert cut.segment(rand(1, 3, 64, 64)).shape == (1, 4, 16, 16)


def test_every_parameter_is_in_one_group() -> None:
    method = afa()
    held = [id(p) for group in method.parameter_groups() for p in group.parameters]
    assert sorted(held) == sorted(id(p) for p in method.parameters())
    assert [group.head for group in method.parameter_groups()] == [False, True]


def test_prepare_measures_timm_features_only() -> None:
    data = batch()
    free = afa(backbone=BackboneConfig(name="resnet10t", weights="random"))
    free.prepare([data])
    data.targets.tags[1, 0] = 1
    mixed = afa()
    mixed.prepare([data])
    assert all(scale.factor != 1 for scale in free.feature_scales)
    assert all(scale.factor == 1 for scale in mixed.feature_scales)
    assert mixed.prior.offset.any()


# --- labels ---------------------------------------------------------------------------------------------------------


def test_par_labels_equal_the_published_ones() -> None:
    data = reference("afa_labels")
    whole = torch.tensor([[0, 0, 112, 96]] * 2)  # the published labels let PAR see the padding
    spread = CropPar(data["img"] / 255, whole, reach_of="fixed")
    found = par_labels(spread, data["cam"], data["cls"], whole, high=0.55, low=0.35)
    found = found.masked_fill(~inside(windows_of(data["box"]), (96, 112)), 255)
    assert torch.equal(found.long(), data["refined"].long())


def test_spreading_in_crops_equals_the_published_maps() -> None:
    data = reference("afa_labels")
    spread = CropPar(data["img"] / 255, windows_of(data["box"]), reach_of="fixed")
    found = present(data["cls"])
    # The file holds every fourth pixel.
    packed = spread(found.pack(torch.full((2, 1, 96, 112), 0.35), data["cam"]))[..., ::4, ::4]
    for photo in range(2):
        for channel, key in enumerate(found.labels[photo].tolist()):
            if found.valid[photo, channel]:
                expected = data["refined_cams"][photo, key]
                window_ = inside(windows_of(data["box"]), (96, 112))[photo, ::4, ::4]
                torch.testing.assert_close(packed[photo, channel][window_], expected[window_], rtol=1e-4, atol=1e-5)


def plain_labels(maps: Tensor, image: Tensor, keys: list[int], reach: tuple[int, ...]) -> Tensor:
    """Label one uncropped photo with the published steps, one background score after the other."""
    high, low = 0.55, 0.35
    halves = [side // 2 for side in image.shape[1:]]
    winners = []
    for level in (high, low):
        stack = torch.cat([torch.full_like(maps[:1], level), maps[[k - 1 for k in keys]]])[None]
        small = F.interpolate(stack, size=halves, mode="bilinear", align_corners=False).softmax(dim=1)
        rgb = F.interpolate(image[None], size=halves, mode="bilinear", align_corners=False) * 255
        large = F.interpolate(
            par(small, rgb, dilations=reach), size=image.shape[1:], mode="bilinear", align_corners=False
        )[0]
        winners.append(torch.tensor([0, *keys])[large.argmax(dim=0)])
    labels = torch.full_like(winners[0], 255)
    labels[winners[0] > 0] = winners[0][winners[0] > 0]
    labels[(winners[0] == 0) & (winners[1] == 0)] = 0
    return labels


@pytest.mark.parametrize(
    ("reach_of", "reach"),
    [
        ("fixed", (1, 2, 4, 8, 12, 24)),
        ("crop", (1, 2)),  # half of the crop has 16 pixels: 24 becomes 24 * 16 / 256 = 1.5
    ],
)
def test_par_labels_of_mixed_photos_equal_each_photo_alone(reach_of: Reach, reach: tuple[int, ...]) -> None:
    images, maps = rand(3, 3, 32, 40), rand(3, 4, 32, 40, seed=1)
    tags = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    windows = torch.tensor([[0, 0, 40, 32], [6, 4, 30, 28], [0, 0, 40, 32]])
    spread = CropPar(images, windows, reach_of=reach_of)
    found = par_labels(spread, maps, tags, windows, high=0.55, low=0.35)
    for i, (x0, y0, x1, y1) in enumerate(windows.tolist()):
        keys = (tags[i].nonzero()[:, 0] + 1).tolist()
        alone = plain_labels(maps[i, :, y0:y1, x0:x1], images[i, :, y0:y1, x0:x1], keys, reach)
        assert torch.equal(found[i, y0:y1, x0:x1].long(), alone)
        outside = found[i].clone()
        outside[y0:y1, x0:x1] = 255
        assert (outside == 255).all()
    assert not found[2].any()  # a photo without any of the classes is background


def test_affinity_labels_spread_before_they_cut() -> None:
    images, tags = rand(1, 3, 32, 32), torch.tensor([[1.0, 1.0]])
    windows = torch.tensor([[0, 0, 32, 32]])
    maps = torch.zeros(1, 2, 4, 4)
    maps[:, 0], maps[:, 1] = 1.0, 0.2
    cut = {"high": 0.55, "low": 0.35}
    kept = affinity_labels(CropPar(images, windows), maps, tags, windows, lambda scores: scores, **cut)
    swapped = affinity_labels(CropPar(images, windows), maps, tags, windows, lambda s: s[:, [0, 2, 1, 3, 5, 4]], **cut)
    assert kept.unique().tolist() == [1]
    assert swapped.unique().tolist() == [2]


def test_colour_is_read_once_for_all_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = CropPar.__init__

    def counted(self: CropPar, *args: Any, **settings: Any) -> None:
        made.append(1)
        original(self, *args, **settings)

    monkeypatch.setattr(CropPar, "__init__", counted)
    afa().losses(batch(), Progress(90, 100))
    assert made == [1]


def test_windows_outside_of_crops_are_refused() -> None:
    with pytest.raises(ShapeError, match="must be at least 2 x 2 pixels and lie in its crop"):
        CropPar(rand(1, 3, 16, 16), torch.tensor([[0, 0, 17, 16]]))


# --- losses ---------------------------------------------------------------------------------------------------------


def test_affinity_loss_equals_the_published_one() -> None:
    data = reference("afa_affinity")
    near = window(8, 10, 3, torch.device("cpu"))
    labels = F.interpolate(data["label"][:, None].float(), size=(8, 10), mode="nearest")[:, 0]
    like = data["aff_label"].gather(1, near.cells.expand(2, -1, -1)).masked_fill(~near.inside, 255)
    assert ((like == 1).sum(), (like == 0).sum()) == ((data["aff_label"] == 1).sum(), (data["aff_label"] == 0).sum())
    affinity = data["pred"].gather(1, near.cells.expand(2, -1, -1))
    loss = window_affinity_loss(affinity, labels.to(torch.uint8), 3)
    torch.testing.assert_close(loss, data["aff_loss"], rtol=1e-4, atol=1e-6)
    found = balanced_cross_entropy(data["seg"], data["seg_label"])
    torch.testing.assert_close(found, data["seg_loss"], rtol=1e-4, atol=1e-6)


def test_affinity_loss_equals_a_loop_over_pairs() -> None:
    labels = torch.tensor([[[0, 0, 1, 255], [0, 1, 1, 2], [2, 2, 255, 2]]], dtype=torch.uint8)
    affinity = rand(1, 25, 12, seed=2)
    near = window(3, 4, 2, labels.device)
    pulled, pushed, like, unlike = 0.0, 0.0, 0, 0
    flat = labels[0].flatten().tolist()
    for j in range(12):
        for s in range(25):
            i = int(near.cells[s, j])
            if near.inside[s, j] and flat[i] != 255 and flat[j] != 255:
                a = float(affinity[0, s, j])
                if flat[i] == flat[j]:
                    pulled, like = pulled + 1 - a, like + 1
                else:
                    pushed, unlike = pushed + a, unlike + 1
    expected = 0.5 * (pulled / (like + 1) + pushed / (unlike + 1))
    torch.testing.assert_close(window_affinity_loss(affinity, labels, 2), torch.tensor(expected))


def test_losses_of_unknown_pixels_are_zero_with_zero_gradient() -> None:
    unknown = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    affinity = rand(1, 9, 16).requires_grad_()
    logits = rand(1, 3, 4, 4).requires_grad_()
    total = window_affinity_loss(affinity, unknown, 1) + balanced_cross_entropy(logits, unknown)
    total.backward()
    assert total == 0
    assert not given(affinity.grad).any()
    assert not given(logits.grad).any()


def test_background_and_foreground_weigh_the_same() -> None:
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 1] = 2.0
    masks = torch.tensor([[[0, 1, 1, 1]]], dtype=torch.uint8)
    each = F.cross_entropy(logits, masks.long(), reduction="none")[0, 0]
    torch.testing.assert_close(balanced_cross_entropy(logits, masks), (each[0] + each[1]) / 2)


def test_phases_use_only_their_own_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **settings: Any) -> Any:
            calls.append(name)
            return function(*args, **settings)

        return noted

    for name, where in (("par_labels", one_stage_module), ("affinity_labels", module)):
        monkeypatch.setattr(where, name, noting(name, getattr(where, name)))
    method, data = afa(), batch()
    for step, names, made in (
        (9, {"loss_cls"}, []),
        (10, {"loss_cls", "loss_seg", "loss_aff"}, ["par_labels"]),
        (29, {"loss_cls", "loss_seg", "loss_aff"}, ["par_labels"]),
        (30, {"loss_cls", "loss_seg", "loss_aff"}, ["par_labels", "affinity_labels"]),
    ):
        calls.clear()
        assert set(method.losses(data, Progress(step, 100))) == names
        assert calls == made


def test_without_attention_labels_are_those_of_par_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hintseg.methods.afa.affinity_labels", lambda *a, **k: pytest.fail("affinity labels made"))
    method = afa(backbone=BackboneConfig(name="resnet10t", weights="random"))
    assert set(method.losses(batch(), Progress(90, 100))) == {"loss_cls", "loss_seg"}


def test_gradients_reach_every_part() -> None:
    method = afa()
    torch.stack(list(method.losses(batch(), Progress(50, 100)).values())).sum().backward()
    for name in ("backbone.block4", "classifier", "decoder", "affinity_head"):
        part = method.get_submodule(name)
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


# --- schedule -------------------------------------------------------------------------------------------------------


def test_schedule_and_steps_equal_the_published_ones() -> None:
    data = reference("optim")
    rates, weights = data["adamw_lr"].flatten(), data["adamw_w"]
    fit = FitConfig(
        optimizer="adamw", lr=6e-5, head_lr=1.0, weight_decay=0.01, schedule="poly_jump", power=1.0, warmup=15 / 60
    )
    found = torch.tensor([6e-5 * learning_rate_factor(step, 60, fit) for step in range(60)], dtype=torch.float64)
    torch.testing.assert_close(found, rates.double(), rtol=1e-5, atol=0)
    value = torch.nn.Parameter(weights[0].clone()[:, None])  # two axes: biases and norms are not decayed here
    optimizer = build_optimizer([ParameterGroup([value])], fit)
    for step in range(1, 60):
        optimizer.param_groups[0]["lr"] = float(rates[step])
        optimizer.zero_grad()
        value.square().sum().backward()
        optimizer.step()
        torch.testing.assert_close(value.detach()[:, 0], weights[step], rtol=1e-5, atol=0)


def test_schedule_jumps_from_the_warm_up_to_the_curve() -> None:
    fit = FitConfig(schedule="poly_jump", power=1.0, warmup=0.1)
    factors = [learning_rate_factor(step, 100, fit) for step in range(100)]
    assert factors[0] == 1e-6
    assert factors[9] == pytest.approx(0.9, abs=1e-5)
    assert factors[10:] == pytest.approx([1 - step / 100 for step in range(10, 100)])


# --- the whole way --------------------------------------------------------------------------------------------------


def test_recipe_end_to_end(squares: Path, tmp_path: Path) -> None:
    run = hintseg.train(squares, tmp_path / "run", recipe="afa", settings=[*ONE_STAGE, "segment.fit.epochs=1"])
    kinds = {(row["kind"], row["split"]) for row in run.metrics}
    assert kinds == {
        ("seed", "train"),
        ("Branch-C", "train"),
        ("Branch-C", "val"),
        ("pseudo mask", "train"),
        ("segmentation", "val"),
    }
    assert not (run.path / "segment" / "background").exists()  # AFA's background is a constant
    assert len(list((run.masks(tmp_path / "masks") / "png").glob("*.png"))) == 8


def test_masks_that_may_teach_teach_branch_s_beside_the_tags(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data")
    (tmp_path / "masks.txt").write_text("photo 0\nphoto 1\n")
    own = [f"data.learn_masks={tmp_path / 'masks.txt'}", "segment.objectives=[{name: cross_entropy}]"]
    settings = [*ONE_STAGE, "segment.fit.epochs=2", *own]
    run = hintseg.train(data, tmp_path / "run", recipe="afa", settings=settings)
    columns = RunFolder.open(run.path).table("segment")
    assert max(columns["segmentation"]) > 0
    assert "loss_cls" in columns
    assert "used for evaluation only" not in (run.path / "report.html").read_text()
    with pytest.raises(ConfigError, match="objective 'cross_entropy' learns from masks, but the batch has none"):
        hintseg.train(data, tmp_path / "none", recipe="afa", settings=[*ONE_STAGE, "segment.fit.epochs=1", own[1]])
