"""Inputs and outputs of the published implementations; tests/reference/README.md says how they came about."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from made import given

REFERENCE = Path(__file__).with_name("reference")


def reference(name: str) -> dict[str, Tensor]:
    """Return the numbers of one file. Inputs that were drawn stand there as seed and shape, and are drawn again."""
    values = {}
    with np.load(REFERENCE / f"{name}.npz") as file:
        for key in file:
            value = torch.from_numpy(file[key])
            name, _, kind = key.partition("__")
            if kind:
                seed, *shape = value.tolist()
                draw = {"rand": torch.rand, "randn": torch.randn}[kind]
                value = draw(shape, generator=torch.Generator().manual_seed(seed))
            values[name] = value
    return values


# The codes draw with trunc_normal_. Bounds at a hundred deviations cut nothing: it is a plain normal draw, but how
# torch makes it differs from version to version.


class Layers(dict[str, nn.Module]):
    """Layers by name, in the order in which they draw their random weights after seed 0."""

    def redraw(self, prefix: str) -> None:
        """Draw the weights below a name once more, as transformers do after they are built."""
        for layer in (layer for name, layer in self.items() if name.startswith(prefix)):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.02)
            elif isinstance(layer, nn.Conv2d):
                fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, 0, math.sqrt(2 / fan_out))
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.zeros_(given(layer.bias))

    def state(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        return {f"{name}.{key}": value for name, layer in self.items() for key, value in layer.state_dict().items()}


def afa_weights() -> dict[str, Tensor]:
    """Return the weights of AFA's network with stages of 16, 32, 40 and 64 channels, 32 in the decoder, 5 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers, widths = Layers(), (3, 16, 32, 40, 64)
        for i in range(1, 5):
            name, side = f"encoder.patch_embed{i}", 7 if i == 1 else 3
            layers[f"{name}.proj"] = nn.Conv2d(widths[i - 1], widths[i], side)
            layers[f"{name}.norm"] = nn.LayerNorm(widths[i])
            layers.redraw(name)
        for i, reduction in enumerate((8, 4, 2, 1), start=1):
            width = widths[i]
            for name in (f"encoder.block{i}.0.", f"encoder.block{i}.1."):
                layers[f"{name}norm1"] = nn.LayerNorm(width)
                for part, factor in (("q", 1), ("kv", 2), ("proj", 1)):
                    layers[f"{name}attn.{part}"] = nn.Linear(width, factor * width)
                if reduction > 1:
                    layers[f"{name}attn.sr"] = nn.Conv2d(width, width, reduction)
                    layers[f"{name}attn.norm"] = nn.LayerNorm(width)
                layers.redraw(f"{name}attn.")
                layers[f"{name}norm2"] = nn.LayerNorm(width)
                layers[f"{name}mlp.fc1"] = nn.Linear(width, 4 * width)
                layers[f"{name}mlp.dwconv.dwconv"] = nn.Conv2d(4 * width, 4 * width, 3, groups=4 * width)
                layers[f"{name}mlp.fc2"] = nn.Linear(4 * width, width)
                layers.redraw(f"{name}mlp.")
                layers.redraw(name)
            layers[f"encoder.norm{i}"] = nn.LayerNorm(width)
        layers.redraw("encoder.")
        for i in (4, 3, 2, 1):
            layers[f"decoder.linear_c{i}.proj"] = nn.Linear(widths[i], 32)
        layers["decoder.linear_fuse.conv"] = nn.Conv2d(4 * 32, 32, 1, bias=False)
        layers["decoder.linear_fuse.bn"] = nn.BatchNorm2d(32)
        layers["decoder.linear_pred"] = nn.Conv2d(32, 6, 1)
        layers["attn_proj"] = nn.Conv2d(16, 1, 1)
        nn.init.kaiming_normal_(layers["attn_proj"].get_parameter("weight"), a=math.sqrt(5), mode="fan_out")
        layers["classifier"] = nn.Conv2d(64, 5, 1, bias=False)
        return layers.state()


def mctformer_weights() -> dict[str, Tensor]:
    """Return the weights of MCTformer V2 with 4 blocks of 48 channels and 5 classes, for images of 64 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers, width = Layers(), 48
        layers["patch_embed.proj"] = nn.Conv2d(3, width, 16)
        for name in (f"blocks.{i}." for i in range(4)):
            layers[f"{name}norm1"] = nn.LayerNorm(width)
            layers[f"{name}attn.qkv"], layers[f"{name}attn.proj"] = nn.Linear(width, 3 * width), nn.Linear(width, width)
            layers[f"{name}norm2"] = nn.LayerNorm(width)
            layers[f"{name}mlp.fc1"] = nn.Linear(width, 4 * width)
            layers[f"{name}mlp.fc2"] = nn.Linear(4 * width, width)
        unused = nn.Linear(width, 5)  # what the ViT below has; MCTformer replaces it and its tokens
        for shape in ((1, 17, width), (1, 1, width)):
            nn.init.normal_(torch.empty(shape), 0, 0.02)
        layers.redraw("blocks.")
        nn.init.normal_(unused.weight, 0, 0.02)
        layers["head"] = nn.Conv2d(width, 5, 3)
        classes, places = (nn.init.normal_(torch.empty(1, n, width), 0, 0.02) for n in (5, 21))
        return layers.state() | {"cls_token": classes, "pos_embed": places}


def psa_weights() -> dict[str, Tensor]:
    """Return the weights of AffinityNet's head on levels of 512, 1024 and 4096 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"f8_3": (512, 64), "f8_4": (1024, 128), "f8_5": (4096, 256), "f9": (448, 448)}
        layers = {name: nn.Conv2d(*size, 1, bias=False) for name, size in sizes.items()}
        for name in ("f8_3", "f8_4", "f8_5"):
            nn.init.kaiming_normal_(layers[name].weight)
        nn.init.xavier_uniform_(layers["f9"].weight, gain=4)
        return {name: layer.weight.detach() for name, layer in layers.items()}
