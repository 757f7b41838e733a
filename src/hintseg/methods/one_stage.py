"""What AFA and BMP share: one encoder, a classification branch (Branch-C) and a segmentation branch (Branch-S).

The network, how both branches are read at several scales, and how its labels of whole photos are made after training.
Each method's file holds its losses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from hintseg.cam.maps import merge_twins, stretch
from hintseg.config.auto import Facts, epochs
from hintseg.config.objective import MoreObjectives
from hintseg.config.settings import Count, MethodConfig, Positive
from hintseg.errors import ConfigError
from hintseg.losses.teacher import TaughtObjective
from hintseg.methods.deeplab import NEVER, with_background
from hintseg.methods.method import ExtraLabels, Method, frozen
from hintseg.nn.affinity import AffinityHead
from hintseg.nn.backbones import Backbone
from hintseg.nn.decoders import MlpHead
from hintseg.nn.encoders import build_encoder, encoder_groups
from hintseg.nn.mit import Attention, Mit
from hintseg.nn.pooling import gmp
from hintseg.nn.prior import ClassPrior
from hintseg.nn.resize import grow, resize
from hintseg.nn.scale import FeatureScale
from hintseg.refine.pseudo_labels import CropPar, Reach, background_aware, only_said, par_labels
from hintseg.run.schema import Show
from hintseg.types import BACKGROUND, IGNORE, Batch, ParameterGroup, Prediction, Supervision, Targets

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]

FINEST = 4
"""Levels finer than this, image pixels per cell, are left out of the decoder."""


class OneStageConfig(MethodConfig):
    """Settings that AFA and BMP share; the defaults are the papers' but for `prior`.

    Attributes:
        width: Channels the decoder maps each level to.
        dropout: Share of the decoder's fused channels dropped in training.
        prior: Whether the scores of tags have a fixed offset for how often the class occurs (see `hintseg.nn.prior`);
            the papers have none.
        scales: Factors of the crop at which the class maps for the labels are made, each with its mirrored twin.
        high: Background score that a class must beat to become a label.
        low: Background score that all classes must lose to for a background label.
        background_score: Background score where one number must do: Y^c of whole photos, where Branch-S's background
            does not stand in for it.
        par_iterations: Steps of PAR; AFA takes 10 for VOC and 15 for COCO.
        par_reach: `crop`: PAR's distances follow the size of the crops; `fixed`: those of the papers, whose crops have
            512 pixels. See `hintseg.refine.pseudo_labels.CropPar`.
        objectives: Losses of Branch-S beside the paper's own, from the first step on: blocks as for other segmenters
            (`hintseg list objectives`). They judge by what is said of pixels, such as the masks of `data.learn_masks`.
        curve_photos: Photos with a true mask on which both branches are measured during training (never learned from);
            0 measures nothing.
    """

    task: ClassVar[Literal["segment"]] = "segment"
    one_stage: ClassVar[bool] = True
    width: Count = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    prior: bool = True
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 0.5, 1.5)
    high: Share = 0.55
    low: Share = 0.35
    background_score: Share = 0.45
    par_iterations: Count = 10
    par_reach: Reach = "crop"
    objectives: MoreObjectives = ()
    curve_photos: Annotated[int, Field(ge=0)] = 40

    @field_validator("objectives")
    @classmethod
    def _without_teacher(cls, listed: MoreObjectives) -> MoreObjectives:
        if names := [objective.name for objective in listed if isinstance(objective, TaughtObjective)]:
            raise ValueError(
                f"{' and '.join(names)} is for segmenters that learn from labels of pixels (deeplabv2, segformer_head, "
                "lgsa); here the two branches teach each other"
            )
        return listed

    @property
    def watched(self) -> int:
        """See `curve_photos`."""
        return self.curve_photos

    def defaults(self, facts: Facts) -> dict[str, Any]:
        """Return a segmenter's, with more steps: a fifth of them only warms the branches up."""
        usual = super().defaults(facts)
        return usual | {"epochs": epochs((900, 1500), 12, usual["batch_size"], facts)}


class Branches(NamedTuple):
    """One forward pass.

    Attributes:
        maps: Class logits of every cell, C of BMP's paper, (B, K, h, w).
        scores: Tag logits, (B, K).
        logits: Logits of Branch-S at the decoder's finest level, (B, C, h0, w0); None where the decoder was not asked.
        attention: Self-attention of the last two blocks; None where the encoder has none.
        features: The last level, which `maps` are read from, (B, c, h, w).
    """

    maps: Tensor
    scores: Tensor
    logits: Tensor | None
    attention: Attention | None
    features: Tensor


class Look(NamedTuple):
    """Both branches at several scales, without gradient, at the size of the images.

    Attributes:
        maps: Class maps, stretched to 0..1, (B, K, H, W).
        background: Branch-S's background, the mean over the scales, (B, 1, H, W); None where the decoder was not asked.
        logits: Branch-S's logits, the mean over the scales, (B, C, H, W); None where the decoder was not asked.
        affinity: Affinity of the cells at the largest scale, (B, S, N); None where not asked for.
        grid: (h, w) of the affinity's cells.
    """

    maps: Tensor
    background: Tensor | None
    logits: Tensor | None
    affinity: Tensor | None
    grid: tuple[int, int]


class OneStage(Method):
    """The network of AFA and BMP on a Mix Transformer, a plain vision transformer or any other timm network.

    Without self-attention (convolutions) the affinity head is left out: AFA then learns from PAR labels throughout.
    """

    supervision = frozenset({Supervision.TAGS})
    config: OneStageConfig

    def __init__(self, config: OneStageConfig, classes: int, background: bool) -> None:
        """Build the network.

        Args:
            config: The settings.
            classes: K.
            background: Whether pixels may belong to no class.

        Raises:
            ConfigError: The network has no level of stride 4 or more.
        """
        super().__init__()
        self.config, self.background = config, background
        self.backbone = build_encoder(config.backbone)
        strides, channels = self.backbone.strides, self.backbone.channels
        self.levels = [i for i, stride in enumerate(strides) if stride >= FINEST][-4:]
        if not self.levels:
            raise ConfigError(f"'{config.backbone.name}' has no level of stride {FINEST} or more: strides {strides}")
        # A Mix Transformer ends every level in a layer norm: its features have one scale already.
        self.feature_scales = nn.ModuleList(FeatureScale() for _ in self.levels)
        self.prior = ClassPrior(classes)
        # Applied to pooled features it gives tag scores, applied to cells it gives class maps.
        self.classifier = nn.Conv2d(channels[-1], classes, kernel_size=1, bias=False)
        self.decoder = MlpHead([channels[i] for i in self.levels], classes + background, config.width, config.dropout)
        heads = 0 if isinstance(self.backbone, Backbone) else self.backbone.attention_heads
        self.affinity_head = AffinityHead(heads) if heads else None

    def branches(self, images: Tensor, *, decode: bool) -> Branches:
        """Run the encoder and Branch-C, and Branch-S only where `decode` asks for it.

        Args:
            images: (B, 3, H, W), RGB in 0..1.
            decode: Whether the decoder runs. It is the only part with batch-norm statistics of its own.
        """
        attention: Attention | None = None
        if isinstance(self.backbone, Backbone):
            levels = self.backbone(images)
        else:
            levels, attention = self.backbone.features(images)
        levels = [scale(levels[i]) for scale, i in zip(self.feature_scales, self.levels, strict=True)]
        features = levels[-1]
        maps = self.classifier(features)
        scores = self.prior(self.classifier(gmp(features)[:, :, None, None]).flatten(1))
        logits: Tensor | None = None
        if decode:
            levels = self.weigh(levels, maps, (images.shape[2], images.shape[3]))
            logits = with_background(self.decoder(levels), self.background)
        return Branches(maps, scores, logits, attention, features)

    def weigh(self, levels: list[Tensor], maps: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return the levels as the decoder shall see them: as they are. BMP scales them by object priors."""
        return levels

    def background_of(self, logits: Tensor) -> Tensor:
        """Return how far Branch-S takes each pixel for background, (B, C, h, w) -> (B, 1, h, w): its logit."""
        return logits[:, :1].float()

    @torch.no_grad()
    def look(self, images: Tensor, *, decode: bool = False, affinity: bool = False) -> Look:
        """Read both branches at all scales, in evaluation mode: no dropout, and no batch-norm statistics change.

        Args:
            images: (B, 3, H, W), RGB in 0..1.
            decode: Whether Branch-S's background is wanted.
            affinity: Whether the affinity of the largest scale is wanted.

        Cost:
            A forward pass of 2B images per scale; the decoder runs only where asked.
        """
        size = (images.shape[2], images.shape[3])
        largest = max(self.config.scales)
        maps = images.new_zeros((), dtype=torch.float32)
        background: list[Tensor] = []
        logits: list[Tensor] = []
        found: Tensor | None = None
        grid = (0, 0)
        with frozen(self):
            for scale in self.config.scales:
                shape = [max(1, round(side * scale)) for side in size]
                scaled = resize(images, shape) if scale != 1 else images
                seen = self.branches(torch.cat([scaled, scaled.flip(3)]), decode=decode)
                maps = maps + torch.relu(merge_twins(seen.maps, size, "max"))
                if seen.logits is not None:
                    background.append(merge_twins(self.background_of(seen.logits), size, "mean"))
                    logits.append(merge_twins(seen.logits.float(), size, "mean"))
                if affinity and scale == largest and seen.attention is not None and self.affinity_head is not None:
                    own = Attention(*(part[: len(images)] for part in seen.attention))  # the twins' is not used
                    grid = (seen.maps.shape[2], seen.maps.shape[3])
                    found = self.affinity_head(own, grid)
        merged, said = (torch.stack(part).mean(dim=0) if part else None for part in (background, logits))
        return Look(stretch(maps), merged, said, found, grid)

    def taught(self, images: Tensor, targets: Targets, done: float) -> dict[str, Tensor]:
        """Return the labels that the branches teach each other at this stage of the training, by name.

        Args:
            images: (B, 3, H, W), RGB in 0..1.
            targets: Tags and windows.
            done: Share of all steps taken, 0..1.

        Returns:
            ``y_c``, those of Branch-C, and where Branch-S teaches too ``y_s``; (B, H, W) uint8, 255 where nothing is
            taught.
        """
        raise NotImplementedError

    def class_maps(self, images: Tensor) -> Tensor:
        """Return the class maps of Branch-C, (B, K, h, w), >= 0, not normalised."""
        return torch.relu(self.branches(images, decode=False).maps)

    def segment(self, images: Tensor) -> Tensor:
        """Return the logits of Branch-S, (B, C, h0, w0)."""
        return cast(Tensor, self.branches(images, decode=True).logits)

    def label_photos(self, images: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
        """Return Branch-C's labels Y^c of whole photos, with the tags known, and the background they were cut with.

        Args:
            images: Photos of one size, (B, 3, H, W), RGB in 0..1.
            tags: 1 where the class is present, (B, K).

        Returns:
            (B, H, W) uint8, 0..K, or 255 for a photo without tags where the data has no background; and (B, 1, H, W),
            in 0..1 where it has one.
        """
        seen = self.look(images, decode=self.uses_background)
        background = seen.background
        if background is None:
            background = self.constant_background(seen.maps)
        whole = images.new_tensor([[0, 0, images.shape[3], images.shape[2]]], dtype=torch.int64)
        settings = self.config
        windows = whole.expand(len(images), -1)
        spread = CropPar(images, windows, iterations=settings.par_iterations, reach_of=settings.par_reach)
        return self.known(background_aware(spread, seen.maps, background, tags)[0]), background

    @property
    def extra_labels(self) -> dict[str, ExtraLabels]:
        """Y^c, the labels of Branch-C."""
        cut = "BSP with Branch-S's background" if self.uses_background else "PAR with a constant background"
        how = f"Branch-C (Table VI): {cut}, scales {list(self.config.scales)} with flips; tags used at test time"
        return {"branch_c": ExtraLabels("Branch-C", how)}

    @property
    def shows(self) -> tuple[Show, ...]:
        """The background of Branch-S, where Branch-C's labels were cut with it."""
        prior = Show(folder="background", title="background prior", kind="heat")
        return (prior,) if self.uses_background else ()

    def extras(self, images: Tensor, tags: Tensor) -> dict[str, Tensor]:
        """Return Y^c of photos (see `label_photos`) and, where it was cut with it, the background of Branch-S."""
        labels, background = self.label_photos(images, tags)
        return {"branch_c": labels} | ({"background": background[:, 0]} if self.uses_background else {})

    @property
    def cuts(self) -> dict[str, float]:
        """The two background scores of `hintseg.refine.pseudo_labels`; without a background no class loses to them."""
        high, low = (self.config.high, self.config.low) if self.background else (NEVER, NEVER)
        return {"high": high, "low": low}

    def known(self, labels: Tensor) -> Tensor:
        """Take the background out of labels (B, H, W) where the data has none: a photo without tags wins it."""
        return labels if self.background else labels.masked_fill(labels == BACKGROUND, IGNORE)

    def colour_labels(self, spread: CropPar, maps: Tensor, targets: Targets) -> Tensor:
        """Return AFA's PAR labels of class maps (B, K, H, W), (B, H, W) uint8."""
        labels = par_labels(spread, maps, targets.possible, targets.windows, **self.cuts)
        return self.known(only_said(labels, targets))

    def constant_background(self, maps: Tensor) -> Tensor:
        """Return one background score for all pixels of maps (B, K, H, W): (B, 1, H, W)."""
        return torch.full_like(maps[:, :1], self.config.background_score if self.background else NEVER)

    @property
    def uses_background(self) -> bool:
        """Whether Branch-C's labels are cut with the background of Branch-S (BMP's BSP)."""
        return False

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scale of timm's features, in training mode, and how often each class occurs."""
        device = self.classifier.weight.device
        tags: list[tuple[Tensor, Tensor]] = []
        sizes: list[list[Tensor]] = [[] for _ in self.levels]
        mode = self.training
        self.train()
        with torch.no_grad():
            for batch in batches:
                tags.append((batch.targets.tags.to(device), batch.targets.tags_known.to(device)))
                if not isinstance(self.backbone, Mit):
                    levels = self.backbone(batch.images.to(device))
                    for seen, i in zip(sizes, self.levels, strict=True):
                        # One number stands for the level: those of all batches would fill the memory.
                        seen.append(levels[i].square().mean().sqrt())
        self.train(mode)
        for scale, values in zip(self.feature_scales, sizes, strict=True):
            cast(FeatureScale, scale).measure(values)
        if self.config.prior:
            self.prior.measure(tags)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the encoder at the configured rate, and all heads at `fit.head_lr` times it."""
        heads = [self.classifier, self.decoder, *([self.affinity_head] if self.affinity_head is not None else [])]
        return [
            *encoder_groups(self.backbone),
            ParameterGroup([p for head in heads for p in head.parameters()], head=True),
        ]

    def prediction(self, seen: Branches, images: Tensor, *, affinity: bool) -> Prediction:
        """Return a pass over images as objectives take it: full size, with the attention's `affinity` where asked."""
        own = {"maps": seen.maps}
        if affinity:
            grid = (seen.maps.shape[2], seen.maps.shape[3])
            own["affinity"] = cast(AffinityHead, self.affinity_head)(cast(Attention, seen.attention), grid)
        logits = None if seen.logits is None else grow(seen.logits, images.shape[2:])
        return Prediction(logits, own=own)
