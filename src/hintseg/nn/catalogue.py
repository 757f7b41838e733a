"""Which networks there are to choose from, by family, and what is known of them without building any."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from hintseg.lean import timm
from hintseg.nn.mit import SIZES

SIZES_FILE = Path(__file__).with_name("network_sizes.csv")
"""Parameters of each network, as `python -m benchmarks.network_sizes` counted them."""

LAPTOP = 30_000_000
"""Networks of at most as many parameters train and predict on a laptop without a GPU."""


class Network(NamedTuple):
    """A network to choose from.

    Attributes:
        name: As `backbone.name`.
        family: The module of timm that builds it; `mit` for the Mix Transformers.
        patch: Side of a patch, pixels, where the name says one.
        parameters: How many, without a classifier; None for networks that are newer than the table.
        licence: That of the weights that `backbone.weights=pretrained` takes, as timm says; None where there are none.
    """

    name: str
    family: str
    patch: int | None
    parameters: int | None
    licence: str | None

    @property
    def laptop(self) -> bool:
        """Whether it is small enough for a laptop."""
        return self.parameters is not None and self.parameters <= LAPTOP


def networks(pattern: str = "") -> list[Network]:
    """Return the networks whose names match a pattern, by family and name.

    Args:
        pattern: As of a shell, such as ``resnet*``; empty for all.

    Example:
        >>> for one in networks("vit_small_patch14_dinov2"):
        ...     print(one.family, one.patch, one.parameters, one.licence, one.laptop)
        vision_transformer 14 22056192 apache-2.0 True
    """
    sizes = dict(line.split(",") for line in SIZES_FILE.read_text(encoding="utf-8").splitlines())
    names = [*timm.list_models(pattern), *(name for name in SIZES if fnmatch(name, pattern or "*"))]
    found = []
    for name in names:
        patch = re.search(r"patch(\d+)", name)
        side, parameters = int(patch[1]) if patch else None, int(sizes[name]) if name in sizes else None
        family = "mit" if name in SIZES else timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
        found.append(Network(name, family, side, parameters, _licence(name)))
    return sorted(found, key=lambda one: (one.family, one.name))


def _licence(name: str) -> str | None:
    """Return the licence of a network's published weights; None where there are none."""
    if name in SIZES:
        return "nvidia, research only"
    weights = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if weights is None or not weights.has_weights:
        return None
    return str(weights.license or "not said")
