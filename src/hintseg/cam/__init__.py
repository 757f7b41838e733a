"""Class maps and seeds: functions on tensors."""

from hintseg.cam.background import constant_background, power_background, seeds
from hintseg.cam.maps import merge_scales, multi_scale, normalise
from hintseg.cam.threshold import choose_threshold

__all__ = [
    "choose_threshold",
    "constant_background",
    "merge_scales",
    "multi_scale",
    "normalise",
    "power_background",
    "seeds",
]
