"""Class maps and seeds: functions on tensors."""

from hintseg.cam.background import constant_background, power_background, seeds
from hintseg.cam.maps import merge_scales, merge_twins, multi_scale, normalise, stretch
from hintseg.cam.threshold import choose_threshold
from hintseg.nn.resize import grow

__all__ = [
    "choose_threshold",
    "constant_background",
    "grow",
    "merge_scales",
    "merge_twins",
    "multi_scale",
    "normalise",
    "power_background",
    "seeds",
    "stretch",
]
