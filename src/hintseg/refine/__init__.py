"""Refiners: functions on tensors that sharpen scores with the photo's colours or with learned boundaries."""

from __future__ import annotations

from hintseg.refine.attention import attention_refine
from hintseg.refine.dense_crf import DenseCrf, dense_crf, label_probabilities
from hintseg.refine.grabcut import box_proposal, grabcut, refine_proposal
from hintseg.refine.par import ParAffinity, pamr, par
from hintseg.refine.random_walk import edge_transition, path_offsets, random_walk
from hintseg.refine.tightness import lift_to_sides

__all__ = [
    "DenseCrf",
    "ParAffinity",
    "attention_refine",
    "box_proposal",
    "dense_crf",
    "edge_transition",
    "grabcut",
    "label_probabilities",
    "lift_to_sides",
    "pamr",
    "par",
    "path_offsets",
    "random_walk",
    "refine_proposal",
]
