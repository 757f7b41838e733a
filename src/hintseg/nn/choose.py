"""`backbone.name=auto`: the network that suits the machine, and the weights that can be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import timm
import torch

from hintseg.errors import ConfigError
from hintseg.nn.backbones import PREFIXES
from hintseg.nn.hub import check_reachable, is_cached
from hintseg.nn.weight_file import read_tensors

LARGE, SMALL, UNLEARNED = "resnet50", "mobilenetv2_100", "resnet18"
"""What a GPU trains, what a laptop trains, and what starts from random weights.

At 224 pixels they take 4.1, 0.3 and 1.8 billion multiplications a photo (timm's tables). `resnet50` is the network of
most papers, `mobilenetv2_100` the smallest with published weights that this package was measured with; from random
weights few photos cannot teach a deep network. A rule of thumb, not tuned.
"""

GPU_GIB, CORES, GIB = 8.0, 16, 32.0
"""From which memory a GPU, and from how many cores and how much memory a machine without one, trains `LARGE`."""

OF_FILES = (LARGE, SMALL, UNLEARNED, "resnetv2_50", "deit_tiny_patch16_224", "vit_small_patch14_dinov2", "resnet101")
"""The networks that a weight file is compared with."""


class Machine(NamedTuple):
    """What the choice depends on.

    Attributes:
        gpu: Memory of the GPU that trains, GiB; None without one.
        cores: Cores this process may use.
        memory: Memory of the machine, GiB; None where the system does not tell.
    """

    gpu: float | None
    cores: int
    memory: float | None


def choose(weights: str, machine: Machine, reachable: Callable[[], None] = check_reachable) -> tuple[str, str]:
    """Return a network and why it was chosen.

    Args:
        weights: `backbone.weights`.
        machine: What trains it.
        reachable: Raises OSError where the hub cannot be reached; asked only where something has to be downloaded.

    Raises:
        ConfigError: A weight file of a network that is not among `OF_FILES`.
        WeightsError: The file cannot be read.
    """
    if weights == "random":
        return UNLEARNED, "a shallow network, as it starts from random weights"
    if weights != "pretrained":
        return _of_file(Path(weights)), f"the network whose weights '{weights}' holds"
    sized = [LARGE, SMALL]
    if machine.gpu is not None:
        large, what = machine.gpu >= GPU_GIB, f"a GPU of {machine.gpu:.0f} GiB"
    else:
        large = machine.cores >= CORES and (machine.memory or 0) >= GIB
        memory = "" if machine.memory is None else f" and {machine.memory:.0f} GiB"
        what = f"{machine.cores} cores{memory} without a GPU"
    wanted, other = sized if large else reversed(sized)
    here = {name: is_cached(timm.get_pretrained_cfg(name).to_dict()) for name in sized}
    if here[wanted]:
        return wanted, f"for {what}; its weights are on this machine"
    try:
        reachable()
    except OSError as error:
        if here[other]:
            return other, f"its weights are on this machine, those of '{wanted}' are not, and there is {error}"
    return wanted, f"for {what}"


def _of_file(path: Path) -> str:
    """Return the network that all of whose tensors of a file's names have its shapes, most of them."""
    shapes: dict[str, torch.Size] = {}
    for name, tensor in read_tensors(path)[0].items():
        while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
            name = name.removeprefix(prefix)
        shapes[name] = tensor.shape
    found: dict[str, int] = {}
    for network in OF_FILES:
        with torch.device("meta"):
            own = timm.create_model(network, num_classes=0).state_dict()
        shared = [name for name in shapes if name in own]
        if all(shapes[name] == own[name].shape for name in shared):
            found[network] = len(shared)
    best = max(found, key=lambda network: found[network], default="")
    if not best or found[best] < len(shapes) / 2:
        raise ConfigError(
            f"backbone.name=auto cannot tell the network of '{path}': it is none of {', '.join(OF_FILES)}; give its "
            "timm name as backbone.name"
        )
    return best
