"""Refiners: functions on tensors that sharpen scores with the photo's colours or with learned boundaries."""

from __future__ import annotations

from hintseg.refine.par import ParAffinity, pamr, par
from hintseg.refine.random_walk import edge_transition, random_walk

__all__ = ["ParAffinity", "edge_transition", "pamr", "par", "random_walk"]
