"""BMP, where it is not as in the paper: balance, floor and rise of the losses, all scales teach, prior and start."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from hintseg.losses.mutual import C2s, S2c, s2c_loss
from hintseg.methods.bmp import Bmp, BmpConfig
from hintseg.types import Prediction, Progress
from made import batch_of, given, rand
from one_stage import TINY, batch, bmp, grow, labels_seen, plain_stretch


def test_balanced_c2s_is_the_mean_of_two_means() -> None:
    logits, labels = rand(1, 3, 2, 3) * 4 - 2, torch.tensor([[[0, 1, 255], [2, 0, 0]]], dtype=torch.uint8)
    for form in ("soft_margin", "cross_entropy"):
        loss = C2s.model_validate({"form": form})
        each: dict[int, list[float]] = {}
        for y in range(2):
            for x in range(3):
                alone = torch.full_like(labels, 255)
                alone[0, y, x] = labels[0, y, x]
                each.setdefault(min(int(labels[0, y, x]), 1), []).append(float(loss.of(logits, alone, None)))
        expected = (sum(each[0]) / 3 + sum(each[1]) / 2) / 2  # the unlabelled pixel is among the latter, and costs 0
        found = C2s.model_validate({"form": form, "balance": True}).of(logits, labels, None)
        assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("least", [0.0, 3.0, 30.0])
def test_balanced_s2c_is_a_mean_over_classes_with_a_floor(least: float) -> None:
    maps = rand(1, 4, 2, 3) * 3
    y_s = torch.tensor([[[1, 255, 1], [3, 1, 1]]], dtype=torch.uint8)
    sums: dict[int, list[float]] = {1: [], 3: []}
    for y in range(2):
        for x in range(3):
            label = int(y_s[0, y, x])
            if label != 255:
                p = [float(v) for v in maps[0, :, y, x]]
                sums[label].append(math.log(sum(map(math.exp, p))) - p[label - 1])
    expected = sum(sum(own) / max(len(own), least / 2) for own in sums.values()) / 2
    assert s2c_loss(maps, y_s, balance=True, least=least).item() == pytest.approx(expected, rel=1e-5)
    total, count = sum(map(sum, sums.values())), sum(map(len, sums.values()))
    assert s2c_loss(maps, y_s, least=least).item() == pytest.approx(total / max(count, least), rel=1e-5)


def test_floor_is_a_share_of_the_pixels_of_photos() -> None:
    maps, labels = rand(2, 3, 4, 4), torch.full((2, 8, 8), 255, dtype=torch.uint8)
    labels[0, 3, 3] = 2
    windows = torch.tensor([[0, 0, 8, 8], [2, 2, 6, 8]])
    photo = batch_of(rand(2, 3, 8, 8), torch.ones(2, 3), labels, windows=windows)
    said = Prediction(None, own={"maps": maps})
    whole, part = (S2c(floor=f)(said, photo.targets, photo.images, Progress(0, 1))["loss_s2c"] for f in (0.0, 0.5))
    torch.testing.assert_close(part, whole / (0.5 * (64 + 24)))


def test_stretched_prior_leaves_a_part_of_every_feature() -> None:
    method, images = bmp(object_prior="stretched").eval(), rand(2, 3, 64, 64)
    method.prior.offset.copy_(torch.tensor([1.0, -2.0, 0.5]))
    with torch.no_grad():
        levels = method.backbone(images)
        maps = grow(method.classifier(levels[-1]), (64, 64)) + method.prior.offset[:, None, None]
        strongest = maps.max(dim=1, keepdim=True).values
        prior = torch.stack([0.3 + 0.7 * plain_stretch(one) for one in strongest])
        scaled = [level * grow(prior, level.shape[2:]) for level in levels]
        torch.testing.assert_close(method.segment(images), method.decoder(scaled))
        bare = Bmp(BmpConfig.model_validate({"backbone": TINY, "width": 16}), 3, False).eval()
        expected = bare.decoder(bare.backbone(images))
        torch.testing.assert_close(bare.segment(images)[:, 1:], expected)  # no background: off


def test_feedback_may_train_the_classifier_alone() -> None:
    found = {}
    for reaches in ("encoder", "classifier"):
        method = bmp(sigma_s=0.0, s2c_reaches=reaches)
        loss = method.losses(batch(), Progress(50, 100))["loss_s2c"]
        loss.backward()
        found[reaches] = loss.detach(), given(method.classifier.weight.grad)
        reached = method.get_parameter("backbone.block4.0.mlp.fc1.weight").grad
        assert (reached is not None and bool(reached.any())) is (reaches == "encoder")
        assert all(p.grad is None for p in method.decoder.parameters())
    torch.testing.assert_close(found["encoder"], found["classifier"])  # the same loss, another reach
    assert found["classifier"][1].any()


def test_feedback_comes_from_all_scales_and_rises() -> None:
    method, data = bmp(teacher="scales", confidence="logit", sigma_s=-9.0).eval(), batch()
    with torch.no_grad():
        given(method.decoder.classify.bias)[0] -= 5  # untrained, it takes all for background
    total = torch.zeros(2, 4, 64, 64)
    with torch.no_grad():
        for size in (64, 32, 96):
            scaled = F.interpolate(data.images, size=(size, size), mode="bilinear") if size != 64 else data.images
            own, twin = (grow(method.segment(x), (64, 64)) for x in (scaled, scaled.flip(3)))
            total += (own + twin.flip(3)) / 2 / 3
    y_s = method.taught(data.images, data.targets, 0.5)["y_s"]
    assert (y_s == method.feedback(total, data.targets)).float().mean() > 0.999
    assert y_s.unique().numel() > 1
    full = method.losses(data, Progress(30, 100))
    method.config = method.config.model_copy(update={"s2c_ramp": 0.4})
    rising = method.losses(data, Progress(30, 100))
    assert full["loss_s2c"] > 0
    torch.testing.assert_close(rising["loss_s2c"], full["loss_s2c"] / 4)  # a quarter of the way from 20 to 60 %


def test_labels_that_are_measured_are_those_that_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = labels_seen(monkeypatch)
    for step, names in ((5, set()), (15, {"y_c"}), (50, {"y_c", "y_s"})):
        method, data = bmp(sigma_c=0.1), batch()
        seen.clear()
        taught = method.taught(data.images, data.targets, step / 100)
        method.losses(data, Progress(step, 100))
        assert set(taught) == names
        if "y_c" in names:
            # Untrained branches are near ties, where the last bit decides.
            assert (taught["y_c"] == seen[0]).float().mean() > 0.98
