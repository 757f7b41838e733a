"""MCTformer: a transformer with one class token per class, whose attention shows where each class is.

Xu et al., "Multi-class Token Transformer for Weakly Supervised Semantic Segmentation", CVPR 2022 (the V2 of its code).

A ViT has one class token, and its attention finds whatever stands out. Here every class has a token of its own that
must tell whether the class is in the photo, so its attention to the patches turns to that class. A convolution on the
patch tokens gives class maps as a CNN would, and the two are multiplied (the *fused* map). Patches also attend to
patches that look like them: that attention, summed over all layers, spreads the fused map over the object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hintseg.config.auto import Facts
from hintseg.config.settings import Count, MethodConfig
from hintseg.losses.classification import tag_loss
from hintseg.methods.method import Method
from hintseg.nn.prior import ClassPrior
from hintseg.nn.vit import ClassTokenVit, VitConfig
from hintseg.types import Batch, ParameterGroup, Progress, Supervision


class MctConfig(MethodConfig):
    """Settings of MCTformer; the defaults are the published V2's.

    Attributes:
        backbone: The transformer; without learned weights it needs many photos.
        attention_layers: How many of the last layers the attention of the class tokens is summed over for the maps.
            Early layers attend to what is near, not to classes.
        patch_affinity: Whether the fused map is spread by the attention between patches, as published. That attention
            must have been learned from many photos: where it was not, it blurs the map.
        readout: How a class token says whether its class is there: `mean`, as published, by the mean of its channels;
            `linear`: by a weighted sum that starts as the mean. In a few hundred steps from learned weights the mean
            learns nothing: whether a class is there has to find its way into all channels alike.
        prior: Whether the scores of tags have a fixed offset for how often the class occurs (see `hintseg.nn.prior`);
            the published ones have none.
    """

    task: ClassVar[Literal["localize", "refine", "segment", "propose"]] = "localize"
    read_out: ClassVar[frozenset[str]] = frozenset({"attention_layers"})
    method: Literal["mctformer"] = "mctformer"
    backbone: VitConfig = VitConfig()
    attention_layers: Count = 3
    patch_affinity: bool = True
    readout: Literal["mean", "linear"] = "mean"
    prior: bool = True

    def defaults(self, facts: Facts) -> dict[str, Any]:
        """Return a localizer's, but not SGD, which trains no transformer."""
        learned = {"optimizer": "adamw", "lr": 0.0001, "head_lr": 10.0, "weight_decay": 0.05}
        return super().defaults(facts) | (learned if facts.pretrained else {})


class MctFormer(Method):
    """Class tokens scored by their mean, patch tokens by a convolution; class maps from both and the attention."""

    Config = MctConfig
    one_scale = False  # the attention of each class token sums up to one, however much of the photo its class covers
    supervision = frozenset({Supervision.TAGS})
    config: MctConfig

    def __init__(self, config: MctConfig, classes: int, background: bool) -> None:
        """Build the network.

        Args:
            config: The settings.
            classes: K.
            background: Not used: a classifier has no background class.
        """
        super().__init__()
        self.config = config
        self.backbone = ClassTokenVit(config.backbone, classes)
        self.head = nn.Conv2d(self.backbone.channels[-1], classes, kernel_size=3, padding=1)
        self.prior = ClassPrior(classes)
        width = self.backbone.channels[-1]
        weights = torch.full((classes, width), 1 / width)
        self.readout = nn.Parameter(weights) if config.readout == "linear" else None

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scale of a learned stem, in training mode, and how often each class occurs."""
        mode, device, seen = self.training, self.head.weight.device, list(batches)
        self.train()
        with torch.no_grad():
            self.backbone.measure(batch.images.to(device) for batch in seen)
        self.train(mode)
        if self.config.prior:
            self.prior.measure((batch.targets.tags, batch.targets.tags_known) for batch in seen)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_class`` and ``loss_patch``, the multi-label losses of the class tokens and of the patches."""
        classes, patches = self.backbone(batch.images)
        # Each token answers for its class alone.
        class_scores = classes.float().mean(dim=2) if self.readout is None else (classes * self.readout).float().sum(2)
        patch_scores = self.head(patches).float().mean(dim=(2, 3))
        return {
            "loss_class": tag_loss(self.prior(class_scores), batch.targets),
            "loss_patch": tag_loss(self.prior(patch_scores), batch.targets),
        }

    def raw_maps(self, images: Tensor) -> Tensor:
        """Return the fused maps of all layers (B, K, h, w), >= 0: what wrappers compare.

        Source:
            Code of Yang et al., BMVC 2023: in training the attention of class tokens is summed over all layers.
        """
        return self.fused_maps(images, layers=len(self.backbone.blocks))

    def fused_maps(self, images: Tensor, *, layers: int) -> Tensor:
        """Return the fused maps, after patch affinity if on, (B, K, h, w), >= 0, with a gradient through all parts.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, any size.
            layers: How many of the last layers the attention of class tokens is summed over, >= 1.

        Cost:
            Attention of N = h*w patches: N x N floats a photo for the sum and twice as many on the way; with a
            gradient one more for every head of every layer.

        Source:
            Xu et al., CVPR 2022; in training the code of Yang et al. lets the gradient into the patch map too.
        """
        out = self.backbone.attention(images, layers=layers)
        patch_maps = torch.relu(self.head(out.patches).float())
        fused: Tensor = out.class_to_patch * patch_maps.flatten(2)  # (B, K, N)
        if not self.config.patch_affinity:
            return fused.view_as(patch_maps)
        with torch.autocast(images.device.type, enabled=False):  # the sum is flat: its pattern needs all digits
            fused = fused @ out.affinity.transpose(1, 2)  # each patch gathers from those it attends to
        return fused.view_as(patch_maps)

    def class_maps(self, images: Tensor) -> Tensor:
        """Return class maps (B, K, h, w), >= 0, not divided by their maximum.

        Affinity lifts every patch a little, so the smallest value of each map is taken off, as in the published
        min-max. Attention shares one unit among all patches: of several scales the smallest has the largest values.
        """
        maps = self.fused_maps(images, layers=self.config.attention_layers)
        return maps - maps.amin(dim=(2, 3), keepdim=True)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the transformer at the configured learning rate and the head at ``fit.head_lr`` times it.

        Class tokens and positions are not decayed, as is usual with ViTs. Class tokens count as a head: at the rate of
        learned weights they would stay where they are. Behind a stem the transformer starts from nothing and all of it
        counts as a head.
        """
        stem = [] if self.backbone.stem is None else list(self.backbone.stem.parameters())
        tokens, positions = self.backbone.cls_token, self.backbone.pos_embed
        apart = {id(parameter) for parameter in [*stem, tokens, positions]}
        rest = [p for p in self.backbone.parameters() if id(p) not in apart]
        return [
            ParameterGroup(stem),
            ParameterGroup(rest, head=bool(stem)),
            ParameterGroup([positions], head=bool(stem), weight_decay=0.0),
            ParameterGroup([tokens], head=True, weight_decay=0.0),
            ParameterGroup([*self.head.parameters(), *([] if self.readout is None else [self.readout])], head=True),
        ]
