"""`data.longest=auto` becomes a number, before anything is written."""

from __future__ import annotations

import math

from hintseg.config.loader import parse_config
from hintseg.config.run import RunConfig
from hintseg.config.settings import USUAL_LONGEST
from hintseg.hints.sizes import SMALL_PX, object_sides
from hintseg.types import HintSet

LARGEST = 8192
"""No photo is read larger than this by itself, pixels of its longer side."""


def settle_longest(config: RunConfig, hint_set: HintSet, before: RunConfig | None) -> tuple[RunConfig, list[str]]:
    """Return the settings with a number as `data.longest`, and why, where that is not the usual one.

    Photos of which only tags are known are read at the usual size: where things are is not known, so all of the photo
    has to be seen at once. Where hints have a place, photos are read as large as it takes for three quarters of the
    marked objects to be at least `SMALL_PX` wide and high.

    Args:
        config: The settings.
        hint_set: The photos and their hints.
        before: The settings that the run in this folder has, whose size stays; None: it begins.
    """
    if config.data.longest != "auto":
        return config, []
    raw, reasons = config.model_dump(mode="json"), []
    longest = USUAL_LONGEST
    if before is not None and before.data.longest != "auto":
        longest = before.data.longest
    elif config.localize is None:
        needed = sorted(SMALL_PX / share for _, share in object_sides(hint_set))
        if needed and (least := math.ceil(needed[(3 * len(needed) - 1) // 4] / 32) * 32) > USUAL_LONGEST:
            longest = min(least, LARGEST)
            reasons = [
                f"photos are read at up to {longest} pixels (data.longest): reduced to {USUAL_LONGEST}, a quarter of "
                f"the marked objects would be smaller than {SMALL_PX} pixels"
            ]
    raw["data"]["longest"] = longest
    return parse_config(raw), reasons
