"""The tree energy loss: unlabelled cells shall look like what the tree of the photo's colours brings to them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hintseg.config.settings import Positive
from hintseg.losses.reduced import PhotoObjective, Scene
from hintseg.nn.resize import resize
from hintseg.refine.tree_filter import tree_filter
from hintseg.types import IGNORE, Prediction, Progress, Targets

DEVIATION = 0.226
"""Mean standard deviation of ImageNet's colours in 0..1: the paper's trees are of colours divided by it."""


class TreeEnergy(PhotoObjective):
    """``(1 / |U|) sum_(i in U) |P_i - Y_i|_1`` over the unlabelled cells U, with Y = F(P) the prediction filtered.

    F is the mean over all cells weighed by ``exp(-D_ij / sigma)``, with D along the minimum spanning tree of the
    colours (`hintseg.refine.tree_filter.tree_filter`); with `features` it is followed by that along the tree of the
    segmenter's last features, ``exp(-D_ij)``, as in the paper's cascade. The soft labels Y have no gradient here.

    Source:
        Liang, Wang, Zhang, Sun and Shen, "Tree Energy Loss: Towards Sparsely Annotated Semantic Segmentation", CVPR
        2022, Eqs. 2 to 7.

    Attributes:
        sigma: How far soft labels reach along the tree of colours.
        features: Whether the tree of features is used too.
    """

    name: Literal["tree_energy"] = "tree_energy"
    sigma: Positive = 0.02
    features: bool = False

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``tree_energy``."""
        return {"tree_energy": self.mean(seen, targets, images)}

    def of(self, scene: Scene, seen: Prediction) -> Tensor:
        """Return the mean distance from the soft labels in one photo."""
        soft = filtered(scene.probabilities, scene.colours / DEVIATION, self.sigma)
        if self.features:
            level = resize(seen.levels[-1][scene.number][None].float(), scene.grid)[0]
            soft = filtered(soft, level[(slice(None), *scene.cells)], 1.0)
        unknown = scene.labels == IGNORE
        apart = (scene.probabilities - soft).abs().sum(dim=0)
        return (apart * unknown).sum() / unknown.sum().clamp(min=1)


def filtered(probabilities: Tensor, features: Tensor, sigma: float) -> Tensor:
    """Return `tree_filter` of tensors (C, h, w) and (c, h, w), without a gradient."""
    values, others = (one.detach().cpu().double().numpy() for one in (probabilities, features))
    return torch.from_numpy(tree_filter(values, others, sigma=sigma)).to(probabilities)
