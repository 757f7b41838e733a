"""Weak and strong views of photos of which nothing is known shall show the same."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hintseg.losses.teacher import TaughtObjective
from hintseg.types import Supervision, Targets


class Consistency(TaughtObjective):
    """``-(1 / |V|) sum_(i in V) [max_c q_ic > threshold] log p_i(argmax_c q_ic)`` over the cells V of strong views.

    For photos of whose pixels nothing is said, without any hint or with tags alone. q is what the teacher (see the
    objective `teacher`) says of the crop as it is. p is what the segmenter says of two views of it: one of other
    colours, blurred, with a part of another such photo pasted in (CutMix); and one of whose features half of the
    channels are dropped. Kept features of a frozen network have no colours: there the second view is all.

    Photos without hints are learned from where this objective is listed. Those with labels are shown as often as they
    are.

    Source:
        Yang, Qi, Feng, Zhang and Shi, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation"
        (UniMatch), CVPR 2023, Eqs. 2 to 6, there with two strong views, and with the segmenter itself for its teacher.
    """

    needs = frozenset[Supervision]()
    name: Literal["consistency"] = "consistency"

    def asked(self, targets: Targets, size: tuple[int, int]) -> Tensor:
        """Return the cells of the views."""
        rows = torch.arange(len(targets.windows), device=targets.windows.device)
        return (rows >= len(rows) - targets.views)[:, None, None].expand(-1, *size)
