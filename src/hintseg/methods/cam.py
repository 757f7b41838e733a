"""CAM: a tag classifier whose last layer, applied to every cell, shows where it looks.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016. The pooling before the classifier
decides how much of an object it needs to see: the average (GAP) covers too much, the maximum (GMP, Oquab et al., CVPR
2015) too little, HSPP (Ru et al., IJCAI 2021, Eqs. 5-7) lies between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from hintseg.config.settings import Auto, MethodConfig
from hintseg.losses.classification import tag_loss
from hintseg.methods.method import Method
from hintseg.nn.class_token import uses_class_token
from hintseg.nn.encoders import build_encoder, encoder_groups
from hintseg.nn.plain_vit import PlainVit
from hintseg.nn.pooling import POOLED_NORM, pool
from hintseg.nn.prior import ClassPrior
from hintseg.nn.scale import FeatureScale
from hintseg.types import Batch, ParameterGroup, Progress, Supervision


class CamConfig(MethodConfig):
    """Settings of the CAM classifier.

    Attributes:
        pooling: How cells are pooled before the classifier: `gap`, `gmp` or `hspp`.
        gamma: Weight of the average within `hspp`; the paper uses 2.
        prior: Whether the score has a fixed offset for how often the class occurs (see `hintseg.nn.prior`). The
            published classifiers have none: with 140 photos of 20 classes their maps of the rare ones are empty.
        attention: Whether class maps are multiplied by how much the class token looks at each cell (see
            `hintseg.nn.class_token`). On frozen DeiT-Tiny features of voc12-animals seeds rise from 33.5 to 47.6 mIoU
            by it (nine frequent classes, oracle threshold).
    """

    read_out: ClassVar[frozenset[str]] = frozenset({"attention"})

    task: ClassVar[Literal["localize", "refine", "segment", "propose"]] = "localize"
    method: Literal["cam"] = "cam"
    pooling: Literal["gap", "gmp", "hspp"] = "gap"
    gamma: Annotated[float, Field(ge=0)] = 2.0
    prior: bool = True
    attention: bool | Auto = "auto"


class Cam(Method):
    """Backbone, pooling, one linear classifier without bias; class maps are the classifier on the cells."""

    Config = CamConfig
    supervision = frozenset({Supervision.TAGS})
    config: CamConfig

    def __init__(self, config: CamConfig, classes: int, background: bool) -> None:
        """Build the classifier.

        Args:
            config: The settings.
            classes: K.
            background: Whether pixels may belong to no class; a classifier has no such class itself.

        Raises:
            ConfigError: Attention is asked for, and the network has no class token.
        """
        super().__init__()
        self.config = config
        self.backbone = build_encoder(config.backbone)
        self.attends = uses_class_token(config.attention, self.backbone, background=background)
        channels = self.backbone.channels[-1]
        self.feature_scale = FeatureScale(rms=POOLED_NORM / channels**0.5)
        self.prior = ClassPrior(classes)
        # Without a bias the average of a class map is the class score.
        self.classifier = nn.Conv2d(channels, classes, kernel_size=1, bias=False)

    @property
    def reads_features(self) -> bool:
        """Yes."""
        return True

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the feature scale on some batches, in training mode: that is what the classifier will see."""
        mode, device, seen = self.training, self.classifier.weight.device, list(batches)
        self.train()
        with torch.no_grad():
            self.feature_scale.measure(self._pool(self.backbone(b.images.to(device))[-1]) for b in seen)
        self.train(mode)
        if self.config.prior:
            self.prior.measure((b.targets.tags, b.targets.tags_known) for b in seen)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_img``, the multi-label loss of the tags."""
        pooled = self._pool(self._features(batch.images))
        logits = self.prior(self.classifier(pooled[:, :, None, None]).flatten(1))  # (B, K)
        return {"loss_img": tag_loss(logits, batch.targets)}

    def class_maps(self, images: Tensor) -> Tensor:
        """Return class maps (B, K, h, w), >= 0, not normalised."""
        if not self.attends:
            return torch.relu(self.raw_maps(images))
        levels, attention = cast(PlainVit, self.backbone).attended(images)
        return torch.relu(self.classifier(self.feature_scale(levels[-1]))) * attention

    def raw_maps(self, images: Tensor) -> Tensor:
        """Return the classifier's scores of every cell, (B, K, h, w), with a gradient."""
        scores: Tensor = self.classifier(self._features(images))
        return scores

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the backbone at the configured learning rate and the classifier at ``fit.head_lr`` times it."""
        return [
            *encoder_groups(self.backbone),
            ParameterGroup(list(self.classifier.parameters()), head=True),
        ]

    def _features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, d, h, w)."""
        scaled: Tensor = self.feature_scale(self.backbone(images)[-1])
        return scaled

    def _pool(self, features: Tensor) -> Tensor:
        """(B, d, h, w) -> (B, d)."""
        return pool(features, self.config.pooling, gamma=self.config.gamma)
