"""BMP: two branches that teach each other, end to end from tags.

Zhu et al., "Branches Mutual Promotion for End-to-End Weakly Supervised Semantic Segmentation", arXiv 2023, on AFA's
base. Branch-C classifies high-level features, Branch-S decodes all levels. Their outputs are two segmentations of one
photo, so each labels the other (interactional supervision, Eqs. 3-8); Branch-C tells Branch-S where objects are before
features are fused (object-aware feature decoding, Eqs. 9-11), and Branch-S gives Branch-C a background map in place of
a constant (background-aware spatial propagation, Eqs. 12-13).

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
from typing import Literal, cast

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
from hintseg.types import BACKGROUND, IGNORE, Batch, Prediction, Progress, Targets

LEAST_PRIOR = 0.3
"""What OFD's stretched object prior leaves of features where no class is seen."""


class BmpConfig(OneStageConfig):
    """Settings of BMP. What differs from the paper says so; the recipes `paper/bmp-...` take all of that back.

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
        sigma_c: Confidence that Y^c must exceed (Eq. 5): 0.75 in the paper, 0.5 in the authors' code (the two are
            swapped there) and here: on two data sets labels above 0.75 held about 16 % of each class, above 0.5 about
            57 % (docs/notebook.md, "sigma_c").
        sigma_s: What Y^s must exceed (Eq. 7), among all classes, those that the tags rule out included: 0.5 in the
            paper, 0.75 in the authors' code.
        confidence: What sigma_s is compared with; it goes with `c2s_loss`. A probability, which the paper calls S^s
            (`softmax` for cross entropy, `sigmoid`), or for soft margin, which asks of each class by itself, the raw
            `logit`, which the code takes.
        background_map: B^s of Eq. 12. The paper calls it a probability (`softmax`, `sigmoid`: averaged over scales);
            `stretched` is what the authors' code does: the logits, averaged over scales and stretched to 0..1 in each
            photo, as the seeds C beside it are. It is the default, because both must be on one scale to compete: in
            small trials a probability lost all objects, or all background, within a few steps of BSP's start.
        c2s_loss: l_seg of L_c2s. The paper allows both, the authors' code takes `soft_margin`. On `msrc`
            (MobileNetV2, 150 steps, seed 0) Branch-S was at 33.0 mIoU with cross entropy and at 25.7 with soft margin,
            which hardly learns the rarer classes, from labels of the same quality.
        balance_c2s: Whether background and objects weigh alike in L_c2s, as in AFA; not in the paper.
        balance_s2c: Whether the classes of Y^s weigh alike in L_s2c; not in the paper.
        floor_s2c: Share of the photos' pixels that L_s2c's sum is divided by at least. In the paper it is divided by
            the sure pixels alone: where there are a dozen, those pull as hard as whole photos.
        s2c_ramp: Share of all steps in which L_s2c rises to its weight; not in the paper.
        s2c_reaches: What L_s2c trains: Branch-C's classifier alone, or the `encoder` too, as in the paper. On `msrc`
            (MobileNetV2, 150 steps, seeds 0, 1, 2) Branch-S was at 32.1 mIoU without L_s2c, at 31.8 with the first and
            at 30.5 with the second (AFA: 29.8): Y^s is three quarters of one class, and the features go along.
        teacher: What Y^s is read from: Branch-S at all `scales`, mirrored too, in evaluation mode, as the paper's
            pseudo annotations are and as Y^c is; or the pass of the training `step`, as in the authors' code. On `msrc`
            (MobileNetV2, frozen, 120 steps, one seed, `logit` 0.75) Y^s was right in 95 % against 64 % of its pixels.
        filter_feedback: Whether Y^s keeps to the photo's tags, as the paper says of its pseudo annotations; the code
            leaves absent classes in.
        object_prior: C^m of Eq. 9: its `sigmoid`, as in the authors' code; or `stretched` to 0.3..1 in each photo. The
            sigmoid told objects nothing from background (medians .68 and .64). Without a background everything is an
            object, and the stretched one is left out.
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
    sigma_c: Share = 0.5
    sigma_s: float = 0.5
    confidence: Literal["softmax", "sigmoid", "logit"] = "softmax"
    background_map: Literal["stretched", "softmax", "sigmoid"] = "stretched"
    c2s_loss: Literal["cross_entropy", "soft_margin"] = "cross_entropy"
    balance_c2s: bool = True
    balance_s2c: bool = True
    floor_s2c: Share = 0.05
    s2c_ramp: Share = 0.2
    s2c_reaches: Literal["classifier", "encoder"] = "classifier"
    teacher: Literal["scales", "step"] = "scales"
    filter_feedback: bool = True
    object_prior: Literal["stretched", "sigmoid"] = "stretched"
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
        c2s_on, s2c_on, bsp_on = self._begun(done)
        aff_on = config.lambda_aff > 0 and done >= config.c2s_start and self.affinity_head is not None
        looks_twice = s2c_on and config.teacher == "scales"
        y_c, colour, y_s = None, None, None
        if c2s_on or aff_on or looks_twice:
            look = self.look(images, decode=bsp_on or looks_twice)
            if c2s_on or aff_on:
                par = CropPar(images, targets.windows, iterations=config.par_iterations, reach_of=config.par_reach)
                if aff_on or not bsp_on:  # labels that this phase does not use are not made
                    colour = self.colour_labels(par, look.maps, targets)
                y_c = self._spread(par, look, targets) if bsp_on else colour
            if looks_twice:
                y_s = self.feedback(cast(Tensor, look.logits), targets)

        seen = self.branches(images, decode=c2s_on or s2c_on or bool(config.objectives))
        losses = {"loss_cls": tag_loss(seen.scores, targets)}
        said = self.prediction(seen, images, affinity=aff_on)
        if c2s_on and y_c is not None:
            l_c2s = C2s(weight=config.lambda_c2s, form=config.c2s_loss, balance=config.balance_c2s)
            losses |= l_c2s(said, replace(targets, pixels=y_c), images, progress)
        if s2c_on and said.logits is not None:
            if y_s is None:
                y_s = self.feedback(said.logits.detach(), targets)
            risen = min(1.0, (done - config.s2c_start) / config.s2c_ramp) if config.s2c_ramp else 1.0
            l_s2c = S2c(weight=config.lambda_s2c * risen, balance=config.balance_s2c, floor=config.floor_s2c)
            s_c = seen.maps if config.s2c_reaches == "encoder" else self.classifier(seen.features.detach())
            losses |= l_s2c(Prediction(None, own={"maps": s_c}), replace(targets, pixels=y_s), images, progress)
        if aff_on and colour is not None:
            l_aff = WindowAffinity(weight=config.lambda_aff)
            losses |= l_aff(said, replace(targets, pixels=colour), images, progress)
        return judge(said, config.objectives, batch, progress, losses)

    def _begun(self, done: float) -> tuple[bool, bool, bool]:
        """Return which of L_c2s, L_s2c and BSP have begun when a share `done` of the steps is taken."""
        c2s = self.config.lambda_c2s > 0 and done >= self.config.c2s_start
        s2c = self.config.lambda_s2c > 0 and done >= self.config.s2c_start
        return c2s, s2c, c2s and self.uses_background and done >= self.config.bsp_start

    def _spread(self, par: CropPar, look: Look, targets: Targets) -> Tensor:
        """Return Y^c with BSP, (B, H, W) uint8, 255 where M^c (Eq. 5) is 0."""
        b_s, config = cast(Tensor, look.background), self.config
        winner, sure = background_aware(par, look.maps, b_s, targets.possible, keep_gain=config.keep_gain)
        return only_said(winner.masked_fill(sure <= config.sigma_c, IGNORE), targets)  # 0 outside the photo

    @torch.no_grad()
    def taught(self, images: Tensor, targets: Targets, done: float) -> dict[str, Tensor]:
        """Return ``y_c`` and ``y_s`` as far as they have begun: see `OneStage.taught`."""
        c2s_on, s2c_on, bsp_on = self._begun(done)
        if not (c2s_on or s2c_on):
            return {}
        labels: dict[str, Tensor] = {}
        look = self.look(images, decode=bsp_on or s2c_on)
        if c2s_on:
            par = CropPar(
                images, targets.windows, iterations=self.config.par_iterations, reach_of=self.config.par_reach
            )
            labels["y_c"] = self._spread(par, look, targets) if bsp_on else self.colour_labels(par, look.maps, targets)
        if s2c_on:
            s_s = look.logits
            if self.config.teacher == "step" or s_s is None:
                s_s = grow(self.segment(images), (images.shape[2], images.shape[3]))
            labels["y_s"] = self.feedback(s_s, targets)
        return labels

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
        config = self.config
        if not config.ofd or (config.object_prior == "stretched" and not self.background):
            return levels
        # Resized first: the maximum of resized classes is sharper than the resized maximum.
        strongest = (grow(maps, size) + self.prior.offset[:, None, None]).amax(dim=1, keepdim=True)  # Eq. 9
        if config.detach_prior:
            strongest = strongest.detach()
        if config.object_prior == "stretched":
            prior = LEAST_PRIOR + (1 - LEAST_PRIOR) * stretch(strongest)
        else:
            prior = torch.sigmoid(strongest)  # C^m as the probability that there is an object
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
