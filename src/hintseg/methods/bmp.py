"""BMP: two branches that teach each other, end to end from tags.

Zhu et al., "Branches Mutual Promotion for End-to-End Weakly Supervised Semantic Segmentation", on AFA's base. Branch-C
classifies high-level features, Branch-S decodes all levels. Their outputs are two segmentations of one photo, so each
labels the other (interactional supervision, Eqs. 3-8); Branch-C tells Branch-S where objects are before features are
fused (object-aware feature decoding, Eqs. 9-11), and Branch-S gives Branch-C a background map in place of a constant
(background-aware spatial propagation, Eqs. 12-13).

Where the paper is silent, these readings hold; they are those of the authors' code:

- S^c inside L_s2c (Eq. 8) is the classification branch's own logits of the K classes, resized: the propagated map has
  passed through min, max and 10 rounds of averaging and holds no useful gradient, and its background is not Branch-C's.
- Before BSP starts, Y^c are AFA's labels (two background scores): with one constant score no background pixel could
  pass sigma_c. In data without a background they stay: there is nothing for BSP to spread, and sigma_c would leave
  little but the peaks of the maps (ours; the paper's data all have a background).
- L_aff learns from AFA's PAR labels throughout and starts with L_c2s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from hintseg.cam.maps import stretch
from hintseg.losses.classification import tag_loss
from hintseg.losses.mutual import C2s, S2c
from hintseg.losses.window_affinity import WindowAffinity
from hintseg.methods.one_stage import Look, OneStage, OneStageConfig, Share, Weight
from hintseg.methods.segmenter import judge
from hintseg.nn.resize import grow
from hintseg.refine.pseudo_labels import CropPar, background_aware, inside, only_said
from hintseg.types import BACKGROUND, IGNORE, Batch, Progress, Targets


class BmpConfig(OneStageConfig):
    """Settings of BMP: the paper's; what only the authors' code does has a name here, and is off but for one setting.

    Starts are shares of all steps, so they scale with the data set. A weight of 0 switches a loss off; the rows of the
    paper's Table VI are ``lambda_c2s``, ``lambda_s2c``, ``bsp``, ``ofd`` and ``lambda_aff`` switched on one by one.

    Attributes:
        lambda_c2s: lambda_1 of Eq. 14; the paper takes 0.1 for COCO.
        lambda_s2c: lambda_2 of Eq. 14.
        lambda_aff: lambda_3 of Eq. 14; without self-attention in the encoder there is no such loss.
        bsp: Background-aware spatial propagation (Eqs. 12-13); nothing happens where the data has no background.
        ofd: Object-aware feature decoding (Eqs. 9-11).
        c2s_start: When L_c2s (and L_aff) begin: 2000 of 20000 steps; COCO 13000 of 80000.
        s2c_start: When L_s2c begins: 4000 of 20000 steps. The authors' script begins at 2000.
        bsp_start: When BSP replaces the constant background scores: 4000 of 20000 steps.
        sigma_c: Confidence that Y^c must exceed (Eq. 5). The authors' code has 0.5 (the two are swapped there), and so
            has the recipe `bmp`: on two data sets labels above 0.75 held about 16 % of each class, above 0.5 about 57 %
            (docs/benchmarks.md, section 8).
        sigma_s: Confidence that Y^s must exceed (Eq. 7), among all classes, those that the tags rule out included.
            The authors' code has 0.75.
        confidence: What sigma_s is compared with: a probability, which the paper calls S^s (`sigmoid` fits the soft
            margin loss, `softmax` cross entropy), or the raw `logit`, which the code takes.
        background_map: B^s of Eq. 12. The paper calls it a probability (`softmax`, `sigmoid`: averaged over scales);
            `stretched` is what the authors' code does: the logits, averaged over scales and stretched to 0..1 in each
            photo, as the seeds C beside it are. It is the default, because both must be on one scale to compete: in
            small trials a probability lost all objects, or all background, within a few steps of BSP's start.
        c2s_loss: l_seg of L_c2s: `soft_margin` or `cross_entropy`. The paper allows both, the code takes the first.
        filter_feedback: Whether Y^s keeps to the photo's tags, as the paper says of its pseudo annotations; the code
            leaves absent classes in.
        detach_prior: Whether OFD's object prior passes no gradient to Branch-C. The paper does not say; the code
            detaches, so that Branch-C learns from L_cls and L_s2c alone.
        keep_gain: Whether PAR's growth of 1.01 per iteration stays in the scores that sigma_c is compared with, as in
            the code (up to 1.105 after 10).
    """

    method: Literal["bmp"] = "bmp"
    lambda_c2s: Weight = 0.7
    lambda_s2c: Weight = 0.1
    lambda_aff: Weight = 0.1
    bsp: bool = True
    ofd: bool = True
    c2s_start: Share = 0.1
    s2c_start: Share = 0.2
    bsp_start: Share = 0.2
    sigma_c: Share = 0.75
    sigma_s: Share = 0.5
    confidence: Literal["softmax", "sigmoid", "logit"] = "softmax"
    background_map: Literal["stretched", "softmax", "sigmoid"] = "stretched"
    c2s_loss: Literal["soft_margin", "cross_entropy"] = "soft_margin"
    filter_feedback: bool = True
    detach_prior: bool = True
    keep_gain: bool = False


class Bmp(OneStage):
    """BMP on a Mix Transformer, or without L_aff on any timm network."""

    Config = BmpConfig
    config: BmpConfig

    @property
    def uses_background(self) -> bool:
        """Whether BSP is on."""
        # Without L_c2s Branch-S has learned nothing.
        return self.config.bsp and self.config.lambda_c2s > 0 and self.background

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_c2s``, ``loss_s2c``, ``loss_aff``, the terms of Eq. 14; and objectives'."""
        config, images, targets, done = self.config, batch.images, batch.targets, progress.fraction
        c2s_on = config.lambda_c2s > 0 and done >= config.c2s_start
        s2c_on = config.lambda_s2c > 0 and done >= config.s2c_start
        aff_on = config.lambda_aff > 0 and done >= config.c2s_start and self.affinity_head is not None
        bsp_on = c2s_on and self.uses_background and done >= config.bsp_start

        y_c: Tensor | None = None
        colour: Tensor | None = None
        if c2s_on or aff_on:
            look = self.look(images, decode=bsp_on)
            par = CropPar(images, targets.windows, iterations=config.par_iterations, reach_of=config.par_reach)
            if aff_on or not bsp_on:  # labels that this phase does not use are not made
                colour = self.colour_labels(par, look.maps, targets)
            if look.background is None:
                y_c = colour
            else:
                b_s = look.background
                winner, sure = background_aware(par, look.maps, b_s, targets.possible, keep_gain=config.keep_gain)
                y_c = winner.masked_fill(sure <= config.sigma_c, IGNORE)  # M^c, Eq. 5; 0 outside the photo
                y_c = only_said(y_c, targets)

        seen = self.branches(images, decode=c2s_on or s2c_on or bool(config.objectives))
        losses = {"loss_cls": tag_loss(seen.scores, targets)}
        said = self.prediction(seen, images, affinity=aff_on)
        if c2s_on and y_c is not None:
            l_c2s = C2s(weight=config.lambda_c2s, form=config.c2s_loss)
            losses |= l_c2s(said, replace(targets, pixels=y_c), images, progress)
        if s2c_on and said.logits is not None:
            y_s = self.feedback(said.logits.detach(), targets)
            losses |= S2c(weight=config.lambda_s2c)(said, replace(targets, pixels=y_s), images, progress)
        if aff_on and colour is not None:
            l_aff = WindowAffinity(weight=config.lambda_aff)
            losses |= l_aff(said, replace(targets, pixels=colour), images, progress)
        return judge(said, config.objectives, batch, progress, losses)

    def feedback(self, s_s: Tensor, targets: Targets) -> Tensor:
        """Return Y^s (Eq. 3), 255 where M^s (Eq. 7) is 0.

        Args:
            s_s: Logits of Branch-S, (B, C, H, W).
            targets: Tags and windows. Classes whose tag was not said may be there: they pass if they are sure.

        Returns:
            (B, H, W) uint8: 1..K, or 255; background never counts, for Branch-C has no such class.
        """
        if self.config.confidence == "softmax":
            s_s = s_s.softmax(dim=1)  # over all classes: of background and a single tag one is always above a half
        elif self.config.confidence == "sigmoid":
            s_s = s_s.sigmoid()
        if self.config.filter_feedback:
            absent = pad(~targets.possible, (1, 0))  # not the background
            s_s = s_s.masked_fill(absent[:, :, None, None], -torch.inf)
        surest, y_s = s_s.max(dim=1)
        m_s = (y_s != BACKGROUND) & (surest > self.config.sigma_s)
        m_s &= inside(targets.windows, (s_s.shape[2], s_s.shape[3]))
        return y_s.masked_fill(~m_s, IGNORE).to(torch.uint8)

    def weigh(self, levels: list[Tensor], maps: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Scale features by the object prior, if OFD is on: object-aware feature decoding.

        Args:
            levels: X^1..X^4, (B, c, h_i, w_i) each.
            maps: C, logits (B, K, h, w).
            size: (H, W) of the images.
        """
        if not self.config.ofd:
            return levels
        # Resized first: the maximum of resized classes is sharper than the resized maximum.
        strongest = (grow(maps, size) + self.prior.offset[:, None, None]).amax(dim=1, keepdim=True)  # Eq. 9
        prior = torch.sigmoid(strongest)  # C^m as the probability that there is an object
        if self.config.detach_prior:
            prior = prior.detach()
        return [level * grow(prior, level.shape[2:]).to(level.dtype) for level in levels]  # Eq. 10

    def background_of(self, logits: Tensor) -> Tensor:
        """Return B^s of one scale (Eq. 12), (B, C, h, w) -> (B, 1, h, w): a probability, or the raw logits."""
        if self.config.background_map == "softmax":
            return logits.float().softmax(dim=1)[:, :1]
        if self.config.background_map == "sigmoid":
            return logits[:, :1].float().sigmoid()
        return super().background_of(logits)

    def look(self, images: Tensor, *, decode: bool = False, affinity: bool = False) -> Look:
        """Read both branches as `OneStage` does, the background B^s in 0..1."""
        seen = super().look(images, decode=decode, affinity=affinity)
        if seen.background is None or self.config.background_map != "stretched":
            return seen
        return seen._replace(background=stretch(seen.background))
