"""Segmenters: shapes, missing labels, tiny features, and that they learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hintseg.config.settings import BackboneConfig, FitConfig
from hintseg.errors import ConfigError
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.methods.deeplab import (
    DeepLabV2,
    DeepLabV2Config,
    SegFormerHead,
    SegFormerHeadConfig,
    multi_scale_logits,
)
from hintseg.nn.decoders import AtrousPyramid, MlpHead
from hintseg.nn.scale import FeatureScale
from hintseg.types import Batch, Progress
from made import dark_halves, given, of, with_targets

PROGRESS = Progress(0, 10)
Segmenter = DeepLabV2 | SegFormerHead


def make(kind: str, classes: int = 2, background: bool = True, **settings: object) -> Segmenter:
    torch.manual_seed(0)
    backbone = BackboneConfig(name="resnet10t", weights="random", freeze="none")
    if kind == "deeplabv2":
        return DeepLabV2(DeepLabV2Config.model_validate({"backbone": backbone} | settings), classes, background)
    return SegFormerHead(
        SegFormerHeadConfig.model_validate({"backbone": backbone, "width": 32} | settings), classes, background
    )


def total_loss(method: Segmenter, batch: Batch) -> Tensor:
    return torch.stack(list(method.losses(batch, PROGRESS).values())).sum()


KINDS = pytest.mark.parametrize("kind", ["deeplabv2", "segformer_head"])


@KINDS
@pytest.mark.parametrize("size", [(64, 64), (65, 47), (33, 90)])
def test_any_photo_size_and_one_class(kind: str, size: tuple[int, int]) -> None:
    method = make(kind, classes=1).eval()
    logits = method.segment(torch.rand(1, 3, *size))
    stride = 16 if kind == "deeplabv2" else 4
    assert logits.shape == (1, 2, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    assert torch.isfinite(total_loss(method, dark_halves(size, values=(0, 1))))


@KINDS
def test_without_background_channel_zero_never_wins(kind: str) -> None:
    method = make(kind, classes=3, background=False).eval()
    logits = method.segment(torch.rand(2, 3, 64, 64))
    assert logits.shape[1] == 4
    assert 0 not in logits.argmax(dim=1)
    assert total_loss(method, dark_halves()).item() < 100
    half = logits.half()
    assert torch.isfinite(half).all()


@KINDS
def test_nothing_labelled_gives_a_loss_of_zero_and_finite_gradients(kind: str) -> None:
    method = make(kind).train()
    loss = total_loss(method, dark_halves(values=(255, 255)))
    loss.backward()
    assert loss.item() == 0
    assert all(torch.isfinite(value.grad).all() for value in method.parameters() if value.grad is not None)


@KINDS
def test_it_overfits_one_photo(kind: str) -> None:
    method = make(kind)
    batch = dark_halves()
    method.eval()
    method.prepare([batch])
    method.train()
    rows = [{"params": group.parameters, "lr": 1e-3 * group.lr_factor} for group in method.parameter_groups()]
    optimizer = torch.optim.AdamW(rows)
    first = 0.0
    for _ in range(15):
        loss = total_loss(method, batch)
        first = first or float(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 2


@KINDS
def test_every_parameter_has_one_group(kind: str) -> None:
    method = make(kind)
    groups = method.parameter_groups()
    assert sorted(id(value) for group in groups for value in group.parameters) == sorted(map(id, method.parameters()))
    if kind == "deeplabv2":
        assert [(g.head, g.lr_factor, g.weight_decay) for g in groups] == [
            (False, 1, None),
            (True, 1, None),
            (True, 2, 0),
        ]
    else:
        assert [(g.head, g.lr_factor, g.weight_decay) for g in groups] == [(False, 1, None), (True, 1, None)]


@KINDS
def test_masks_are_needed(kind: str) -> None:
    batch = dark_halves()
    batch = with_targets(batch, pixels=None)
    with pytest.raises(ConfigError, match="learns from masks"):
        make(kind).losses(batch, PROGRESS)


@KINDS
def test_features_a_hundred_times_smaller_change_nothing(kind: str) -> None:
    """The pretrained ResNet v2 ends at a mean of 0.01; the head must not see that."""

    class Small(nn.Module):
        def __init__(self, backbone: nn.Module, factor: float) -> None:
            super().__init__()
            self.backbone, self.factor = backbone, factor

        def forward(self, images: Tensor) -> list[Tensor]:
            return [level * self.factor for level in self.backbone(images)]

    logits = []
    for factor in (1.0, 0.01):
        method = make(kind).eval()
        method.backbone = Small(method.backbone, factor)  # type: ignore[assignment]
        method.prepare([dark_halves(), dark_halves()])
        logits.append(method.segment(dark_halves().images))
    assert logits[0].std() > 1e-3
    assert torch.allclose(logits[0], logits[1], atol=1e-4)


def test_the_scale_is_measured_saved_and_survives_dead_features() -> None:
    scale = FeatureScale()
    scale.measure([torch.zeros(1, 2, 2, 2)])
    assert scale.factor == 1
    torch.manual_seed(0)
    features = [torch.randn(2, 4, 5, 5) * 0.02, torch.randn(2, 4, 5, 5) * 0.04]
    scale.measure(iter(features))
    assert torch.cat([scale(values) for values in features]).square().mean().sqrt().item() == pytest.approx(1, rel=1e-5)
    other = FeatureScale()
    other.load_state_dict(scale.state_dict())
    assert other.factor == scale.factor
    assert scale(features[0].bfloat16()).dtype == torch.bfloat16


def test_rates_reach_equally_far_at_every_stride() -> None:
    for stride, rates in ((8, [6, 12, 18, 24]), (16, [3, 6, 9, 12]), (32, [2, 3, 4, 6])):
        backbone = BackboneConfig.model_validate({"name": "resnet10t", "weights": "random", "output_stride": stride})
        method = DeepLabV2(DeepLabV2Config(backbone=backbone), 2, True)
        assert [of(nn.Conv2d, branch).dilation[0] for branch in of(AtrousPyramid, method.head).branches] == rates


def test_rates_stay_within_small_crops() -> None:
    backbone = BackboneConfig(name="resnet10t", weights="random", output_stride=16)
    for crop, rates in ((321, [3, 6, 9, 12]), (512, [3, 6, 9, 12]), (160, [1, 3, 4, 6]), (32, [1, 1, 1, 1])):
        method = DeepLabV2(DeepLabV2Config(backbone=backbone, fit=FitConfig(crop=crop)), 2, True)
        assert [of(nn.Conv2d, branch).dilation[0] for branch in of(AtrousPyramid, method.head).branches] == rates


def test_the_pyramid_is_the_sum_of_its_branches_and_starts_small() -> None:
    torch.manual_seed(0)
    head = AtrousPyramid(64, 3, (1, 2), init_std=0.01)
    features = torch.randn(1, 64, 7, 9)
    branches = [of(nn.Conv2d, branch) for branch in head.branches]
    parts = [nn.functional.conv2d(features, b.weight, b.bias, padding=(d := b.dilation), dilation=d) for b in branches]
    assert torch.allclose(head(features), torch.stack(parts).sum(dim=0), atol=1e-6)
    weights = torch.cat([branch.weight.flatten() for branch in branches])
    assert weights.std().item() == pytest.approx(0.01, rel=0.05)
    assert all((given(branch.bias) == 0).all() for branch in branches)


def test_training_at_three_scales_adds_their_maximum() -> None:
    one, three = make("deeplabv2").eval(), make("deeplabv2", scales=(1.0, 0.75, 0.5)).eval()
    batch = dark_halves()
    assert batch.targets.pixels is not None
    images, masks = batch.images, batch.targets.pixels

    def at(scale: float) -> Tensor:
        side = round(64 * scale)
        resized = nn.functional.interpolate(images, size=(side, side), mode="bilinear")
        return nn.functional.interpolate(one.segment(resized), size=(64, 64), mode="bilinear")

    logits = [at(1.0), at(0.75), at(0.5)]
    best = torch.maximum(torch.maximum(logits[0], logits[1]), logits[2])
    expected = sum(nn.functional.cross_entropy(values, masks.long()) for values in (*logits, best))
    assert torch.allclose(total_loss(three, batch), torch.as_tensor(expected), rtol=1e-4)


def test_the_head_fuses_every_level() -> None:
    torch.manual_seed(0)
    head = MlpHead([4, 8], 3, width=16, dropout=0.1).eval()
    levels = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    logits = head(levels)
    assert logits.shape == (1, 3, 8, 8)
    for i in range(2):
        changed = [level + (n == i) for n, level in enumerate(levels)]
        assert not torch.allclose(head(changed), logits)


def test_levels_finer_than_asked_are_left_out() -> None:
    method = make("segformer_head", finest=8)
    assert isinstance(method, SegFormerHead)
    assert min(method.backbone.strides[i] for i in method.levels) == 8
    with pytest.raises(ConfigError, match="give finest <= 16"):
        make("segformer_head", finest=64)


def test_cross_entropy_counts_labelled_pixels_only() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5)
    masks = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[torch.randint(4, (2, 4, 5))]
    log_probability = logits.log_softmax(dim=1)
    values = [
        -log_probability[b, int(masks[b, y, x]), y, x].item()
        for b in range(2)
        for y in range(4)
        for x in range(5)
        if masks[b, y, x] != 255
    ]
    assert pixel_cross_entropy(logits, masks).item() == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_scales_and_flips_are_merged_as_said() -> None:
    torch.manual_seed(0)
    photos = torch.rand(2, 3, 24, 30)
    conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)

    def at(scale: float, flip: bool) -> Tensor:
        size = (round(24 * scale), round(30 * scale))
        resized = nn.functional.interpolate(photos, size=size, mode="bilinear", align_corners=False)
        logits = conv(resized.flip(-1)).flip(-1) if flip else conv(resized)
        return nn.functional.interpolate(logits, size=(24, 30), mode="bilinear", align_corners=False)

    pairs = [(at(scale, False) + at(scale, True)) / 2 for scale in (1.0, 0.5)]
    largest = multi_scale_logits(conv, photos, scales=(1.0, 0.5), flip=True)
    mean = multi_scale_logits(conv, photos, scales=(1.0, 0.5), flip=True, merge="mean")
    assert torch.allclose(largest, torch.maximum(*pairs), atol=1e-5)
    assert torch.allclose(mean, torch.stack(pairs).mean(dim=0), atol=1e-5)
    assert torch.allclose(multi_scale_logits(conv, photos), at(1.0, False), atol=1e-6)
    with pytest.raises(ConfigError, match="at least one factor"):
        multi_scale_logits(conv, photos, scales=())
