"""Segmenters that learn from (pseudo) masks: DeepLabv2 and a light all-MLP head, on any backbone.

DeepLabv2 (Chen et al., TPAMI 2018): a stride-8 network and a pyramid of four atrous convolutions on its last level,
summed. Most papers here that end in a segmenter end in this one; their numbers come from its PyTorch port.
SegFormer's head (Xie et al., NeurIPS 2021): every level mapped to one width, resized to the finest and mixed per cell;
it sees fine levels, so it draws sharper borders than a stride-16 pyramid, at a small cost.

Settings of the published port for VOC 2012: 20k steps of batch 10, SGD .9, weight decay 5e-4, rate 2.5e-4 (ten times
that for the pyramid's weights, twenty times without decay for its biases), poly .9, crop 321, scales .5 to 1.5, three
training scales and their maximum, output stride 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from hintseg.config.settings import Auto, Count, Positive
from hintseg.errors import ConfigError
from hintseg.methods.segmenter import Segmenter, SegmenterConfig
from hintseg.nn.decoders import AtrousPyramid, MlpHead
from hintseg.nn.encoders import build_encoder, encoder_groups
from hintseg.nn.resize import grow, resize
from hintseg.nn.scale import FeatureScale
from hintseg.types import Batch, ParameterGroup, Prediction, Targets

NEVER = -1e4
"""Logit of background where the data has none: never wins, and fits into half precision."""


class DeepLabV2Config(SegmenterConfig):
    """Settings of DeepLabv2.

    The network starts from the weights named by `backbone.weights` and a pyramid of random numbers; the published
    port starts from weights that had seen COCO's masks, which is worth several points and must be said in a report.

    Attributes:
        rates: Dilations of the pyramid in cells of stride 8; they are divided by `backbone.output_stride` / 8, so that
            they reach equally far in the photo (at least 1 cell). `auto`: the published 6, 12, 18, 24, shortened in
            proportion where the training crop is smaller than the published 321 pixels.
        init_std: Standard deviation of the pyramid's initial weights.
        scales: Factors of the training images. With more than one, every scale and the pixel-wise maximum of all have
            a loss; the paper's are 1, 0.75 and 0.5, at about twice the cost.
    """

    method: Literal["deeplabv2"] = "deeplabv2"
    rates: Annotated[tuple[Count, ...], Field(min_length=1)] | Auto = "auto"
    init_std: Positive = 0.01
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)


class DeepLabV2(Segmenter):
    """DeepLabv2 on any backbone."""

    Config = DeepLabV2Config
    config: DeepLabV2Config

    def __init__(self, config: DeepLabV2Config, classes: int, background: bool) -> None:
        super().__init__()
        self.config, self.background = config, background
        self.backbone = build_encoder(config.backbone)
        self.scale = FeatureScale()
        rates = pyramid_rates(config.rates, self.backbone.strides[-1], config.fit.crop)
        self.head = AtrousPyramid(self.backbone.channels[-1], classes + background, rates, config.init_std)

    @property
    def reads_features(self) -> bool:
        """Whether it trains at one scale, and its objectives look at labels alone."""
        return self.config.scales == (1.0,) and self.objectives_see_labels_alone

    def predict(self, images: Tensor, targets: Targets | None = None) -> Prediction:
        """Return logits (B, C, h, w) at the backbone's stride.

        With targets and several training scales: at the images' size, those of all scales and, as published, of their
        maximum. The released code shrinks the masks to the logits instead.
        """
        scales = (1.0,) if targets is None else self.config.scales
        passes = [self._read(_resize_by(images, scale)) for scale in scales]
        if len(passes) == 1:
            return Prediction(*passes[0])
        full = [grow(logits, images.shape[-2:]) for logits, _ in passes]
        return Prediction(full[0], passes[0][1], others=(*full[1:], torch.stack(full).amax(dim=0)))

    def _read(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        levels: list[Tensor] = self.backbone(images)
        return with_background(self.head(self.scale(levels[-1])), self.background), levels

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scale of the features."""
        self.scale.measure(levels[-1] for levels in training_levels(self.backbone, batches))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return backbone (1x), pyramid weights (`fit.head_lr`), and its biases (twice that, no decay)."""
        weights = [value for name, value in self.head.named_parameters() if name.endswith("weight")]
        biases = [value for name, value in self.head.named_parameters() if name.endswith("bias")]
        return [
            *encoder_groups(self.backbone),
            ParameterGroup(weights, head=True),
            ParameterGroup(biases, 2.0, head=True, weight_decay=0.0),
        ]


class SegFormerHeadConfig(SegmenterConfig):
    """Settings of the light head.

    Attributes:
        width: Channels each level is mapped to.
        dropout: Share of the fused channels dropped in training.
        finest: Image pixels per cell of the logits: levels finer than that are left out.
    """

    method: Literal["segformer_head"] = "segformer_head"
    width: Count = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    finest: Count = 4


class SegFormerHead(Segmenter):
    """SegFormer's all-MLP head on any backbone, Mix Transformers included."""

    Config = SegFormerHeadConfig
    config: SegFormerHeadConfig

    def __init__(self, config: SegFormerHeadConfig, classes: int, background: bool) -> None:
        super().__init__()
        self.config, self.background = config, background
        self.backbone = build_encoder(config.backbone)
        strides = self.backbone.strides
        self.levels = [i for i, stride in enumerate(strides) if stride >= config.finest]
        if not self.levels:
            raise ConfigError(
                f"finest={config.finest} leaves no level of {config.backbone.name}, whose levels have strides "
                f"{strides}; give finest <= {max(strides)}"
            )
        channels = [self.backbone.channels[i] for i in self.levels]
        self.scales = nn.ModuleList(FeatureScale() for _ in self.levels)
        self.head = MlpHead(channels, classes + background, config.width, config.dropout)

    @property
    def reads_features(self) -> bool:
        """Whether its objectives look at labels alone."""
        return self.objectives_see_labels_alone

    def predict(self, images: Tensor, targets: Targets | None = None) -> Prediction:
        """Return logits (B, C, h, w) at the stride of the finest level in use."""
        levels = self.backbone(images)
        scaled = [scale(levels[i]) for scale, i in zip(self.scales, self.levels, strict=True)]
        return Prediction(with_background(self.head(scaled), self.background), levels)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scale of every level."""
        # One number per batch and level stands for its features: the levels of all batches would fill the memory.
        seen = [
            [levels[i].square().mean().sqrt() for i in self.levels]
            for levels in training_levels(self.backbone, batches)
        ]
        for scale, values in zip(self.scales, zip(*seen, strict=True), strict=True):
            cast(FeatureScale, scale).measure(values)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return backbone (1x) and head (`fit.head_lr`)."""
        return [
            *encoder_groups(self.backbone),
            ParameterGroup(list(self.head.parameters()), head=True),
        ]


def multi_scale_logits(
    segment: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    merge: Literal["max", "mean"] = "max",
) -> Tensor:
    """Segment images at several sizes and merge the logits at full size.

    Args:
        segment: Maps images (B, 3, H, W) to logits (B, C, h, w), such as a segmenter's `segment`.
        images: (B, 3, H, W) float RGB in 0..1.
        scales: Factors the images are resized by, at least one.
        flip: Whether every scale is the mean of the images and their mirrored twins.
        merge: How scales are merged, per pixel and class: `max` as DeepLabv2's and AFA's test scripts do, `mean`
            as later DeepLab versions do.

    Returns:
        Logits (B, C, H, W). A DenseCRF takes their softmax.

    Cost:
        A forward pass per scale, two with `flip`; memory for two sets of full-size logits.

    Example:
        >>> brightness = lambda images: images.mean(dim=1, keepdim=True)
        >>> multi_scale_logits(brightness, torch.full((1, 3, 8, 6), 0.5), scales=(0.5, 1), flip=True).unique()
        tensor([0.5000])
    """
    height, width = images.shape[-2:]
    merged: Tensor | None = None
    for factor in scales:
        resized = _resize_by(images, factor)
        logits = segment(resized)
        if flip:
            logits = (logits + segment(resized.flip(-1)).flip(-1)) / 2
        logits = resize(logits, (height, width))
        if merged is None:
            merged = logits
        else:
            merged = torch.maximum(merged, logits) if merge == "max" else merged + logits
    if merged is None:
        raise ConfigError("scales is empty; give at least one factor, such as (1.0,)")
    return merged if merge == "max" else merged / len(scales)


@torch.no_grad()
def training_levels(backbone: nn.Module, batches: Iterable[Batch]) -> Iterator[list[Tensor]]:
    """Yield the levels of every batch in training mode: norms that are not frozen scale differently there."""
    mode, device = backbone.training, next(backbone.parameters()).device
    backbone.train()
    for batch in batches:
        yield backbone(batch.images.to(device))
    backbone.train(mode)


def with_background(logits: Tensor, background: bool) -> Tensor:
    """Put a background channel that never wins in front of (B, K, h, w) where the data has no background."""
    return logits if background else pad(logits, (0, 0, 0, 0, 1, 0), value=NEVER)


PUBLISHED_RATES, PUBLISHED_CROP = (6, 12, 18, 24), 321
"""Dilations in cells of 8 pixels, and the training crop they were published with, pixels."""


def pyramid_rates(rates: Sequence[int] | Auto, stride: int, crop: int | Auto) -> list[int]:
    """Return dilations in cells of `stride` pixels, at least 1.

    A branch that reaches beyond the training crop learns its outer weights on padding, and meets real features there
    when it sees whole photos: fully supervised on `nuclei` with crops of 160 pixels, the published rates cost 18 points
    of mIoU (docs/notebook.md).

    Args:
        rates: In cells of 8 pixels. `auto`: the published ones, shortened in proportion where the crop is smaller
            than the published.
        stride: Pixels per cell.
        crop: Side of the training crop, pixels; `auto`, where it is not known, shortens nothing.

    Example:
        >>> pyramid_rates("auto", 16, 321), pyramid_rates("auto", 16, 224), pyramid_rates((2, 4), 16, 224)
        ([3, 6, 9, 12], [2, 4, 6, 8], [1, 2])
    """
    if rates == "auto":
        share = 1.0 if crop == "auto" else min(1.0, crop / PUBLISHED_CROP)
        return [max(1, round(rate * share * 8 / stride)) for rate in PUBLISHED_RATES]
    return [max(1, round(rate * 8 / stride)) for rate in rates]


def _resize_by(images: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return images
    return resize(images, [max(1, round(side * factor)) for side in images.shape[-2:]])
