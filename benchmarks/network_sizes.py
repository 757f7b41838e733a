"""Write how many parameters each network has that `hintseg list backbones` names: to build them all takes minutes.

    python -m benchmarks.network_sizes

Run it again with a new version of timm: it counts those that are new. Without a count they are listed without one.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from hintseg.config.settings import BackboneConfig
from hintseg.nn.catalogue import SIZES_FILE
from hintseg.nn.mit import SIZES, Mit


def count(net: nn.Module) -> int:
    """Return the parameters of a network."""
    return sum(parameter.numel() for parameter in net.parameters())


def _build(name: str) -> nn.Module:
    if name in SIZES:
        return Mit(BackboneConfig(name=name, weights="random"))
    with torch.device("meta"):
        net: nn.Module = timm.create_model(name, num_classes=0)
    return net


def main() -> None:
    """Build every network without memory and write its size."""

    def nothing(tensor: Tensor, *_: object, **__: object) -> Tensor:
        return tensor

    for name in ("normal_", "trunc_normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"):
        setattr(nn.init, name, nothing)  # most of the time goes there
    for name in ("normal_", "uniform_", "erfinv_"):
        setattr(Tensor, name, nothing)
    rows = dict(line.split(",") for line in SIZES_FILE.read_text().splitlines()) if SIZES_FILE.is_file() else {}
    for name in (*SIZES, *timm.list_models()):
        if name in rows:
            continue
        try:
            made = _build(name)
        except (RuntimeError, NotImplementedError, TypeError, ValueError, KeyError, AssertionError) as error:
            print(f"{name}: {str(error).splitlines()[0]}")
            continue
        rows[name] = str(count(made))
        SIZES_FILE.write_text("".join(f"{name},{rows[name]}\n" for name in sorted(rows)))


if __name__ == "__main__":
    main()
