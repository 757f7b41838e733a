"""AFA: affinity from attention, end to end from tags.

Ru, Zhan, Yu and Du, "Learning Affinity from Attention: End-to-End Weakly-Supervised Semantic Segmentation with
Transformers", CVPR 2022. A classifier's maps, spread by colour (PAR) and cut by two background scores, label each crop
while it trains; the labels teach a segmentation head and, pairwise, an affinity read out of the transformer's
self-attention. Later the class maps are spread along that affinity before they label the segmentation head.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from torch import Tensor

from hintseg.losses.balanced_cross_entropy import BalancedCrossEntropy
from hintseg.losses.classification import tag_loss
from hintseg.losses.window_affinity import WindowAffinity
from hintseg.methods.one_stage import OneStage, OneStageConfig, Share, Weight
from hintseg.methods.segmenter import judge
from hintseg.nn.affinity import spread
from hintseg.nn.resize import grow
from hintseg.refine.pseudo_labels import CropPar, affinity_labels, only_said
from hintseg.types import Batch, Progress, Targets


class AfaConfig(OneStageConfig):
    """Settings of AFA. Starts are shares of all steps, so they scale with the data set.

    Attributes:
        lambda_seg: Weight of the segmentation loss.
        lambda_aff: Weight of the affinity loss; 0 switches it off, and the labels made of it.
        seg_start: When segmentation and affinity loss begin: 2000 of 20000 steps.
        affinity_start: When labels spread along the affinity replace those of PAR alone: 6000 of 20000 steps.
    """

    method: Literal["afa"] = "afa"
    lambda_seg: Weight = 0.1
    lambda_aff: Weight = 0.1
    seg_start: Share = 0.1
    affinity_start: Share = 0.3


class Afa(OneStage):
    """AFA on a Mix Transformer, or without its affinity on any timm network."""

    Config = AfaConfig
    config: AfaConfig

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_cls``, after the warm-up ``loss_seg`` and ``loss_aff``, and the losses of the objectives."""
        config, images, targets = self.config, batch.images, batch.targets
        warm = progress.fraction < config.seg_start
        use_affinity = self.affinity_head is not None and config.lambda_aff > 0
        if warm or not (config.lambda_seg or use_affinity):  # no label is used, none is made
            seen = self.branches(images, decode=bool(config.objectives))
            said = self.prediction(seen, images, affinity=False)
            return judge(said, config.objectives, batch, progress, {"loss_cls": tag_loss(seen.scores, targets)})

        labels, colour = self.labels(images, targets, progress.fraction)
        seen = self.branches(images, decode=config.lambda_seg > 0 or bool(config.objectives))
        losses = {"loss_cls": tag_loss(seen.scores, targets)}
        said = self.prediction(seen, images, affinity=use_affinity)
        if config.lambda_seg:
            l_seg = BalancedCrossEntropy(weight=config.lambda_seg)
            losses |= l_seg(said, replace(targets, pixels=labels), images, progress)
        if use_affinity:
            l_aff = WindowAffinity(weight=config.lambda_aff)
            losses |= l_aff(said, replace(targets, pixels=colour), images, progress)
        return judge(said, config.objectives, batch, progress, losses)

    def labels(self, images: Tensor, targets: Targets, done: float) -> tuple[Tensor, Tensor]:
        """Return the labels of the segmentation head, and those of the affinity, (B, H, W) uint8 each."""
        config = self.config
        walks = self.affinity_head is not None and config.lambda_aff > 0 and config.lambda_seg > 0
        walks = walks and done >= config.affinity_start
        look = self.look(images, affinity=walks)
        par = CropPar(images, targets.windows, iterations=config.par_iterations, reach_of=config.par_reach)
        # The affinity always learns from PAR labels: from its own it would learn what it says already.
        colour = self.colour_labels(par, look.maps, targets)
        if not walks or look.affinity is None:
            return colour, colour
        grid = grow(look.maps, look.grid)
        walk = partial(spread, affinity=look.affinity)
        labels = affinity_labels(par, grid, targets.possible, targets.windows, walk, **self.cuts)
        return self.known(only_said(labels, targets)), colour

    def taught(self, images: Tensor, targets: Targets, done: float) -> dict[str, Tensor]:
        """Return ``y_c``, the labels of the segmentation head: see `OneStage.taught`."""
        return {"y_c": self.labels(images, targets, done)[0]}
