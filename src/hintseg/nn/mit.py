"""Mix Transformer (MiT), SegFormer's encoder, with the last stage kept at 1/16 as AFA and BMP need it.

Xie et al., "SegFormer", NeurIPS 2021. Four stages of overlapping patch embeddings and transformer blocks whose keys and
values are reduced by a strided convolution. AFA (Ru et al., CVPR 2022) gives the last embedding stride 1 instead of 2
and reads pixel affinity out of the self-attention of the last two blocks.

Weights: the official ImageNet ones are NVIDIA's and licensed for research and evaluation only. A model trained from
them inherits that: take a timm network as `backbone.name` for anything that ships.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, WeightsError, list_problems
from hintseg.nn.backbones import PREFIXES, read_weights, some
from hintseg.nn.hub import go_without
from hintseg.types import Features

logger = logging.getLogger("hintseg")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
"""Keys and values are made from cells this many times coarser, stage by stage."""


class _Size(NamedTuple):
    """Channels and blocks of the four stages."""

    channels: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]


_WIDE = (64, 128, 320, 512)
SIZES: dict[str, _Size] = {
    "mit_tiny": _Size((16, 32, 40, 64), (2, 2, 2, 2)),  # ours, without published weights: for tests and tiny photos
    "mit_b0": _Size((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": _Size(_WIDE, (2, 2, 2, 2)),
    "mit_b2": _Size(_WIDE, (3, 4, 6, 3)),
    "mit_b3": _Size(_WIDE, (3, 4, 18, 3)),
    "mit_b4": _Size(_WIDE, (3, 8, 27, 3)),
    "mit_b5": _Size(_WIDE, (3, 6, 40, 3)),
}
"""Networks by their name as `backbone.name`."""

DROP_PATH = 0.1
"""Share of residual branches dropped in training in the last block; it rises linearly from 0 in the first."""

ATTENTION_HEADS = 2 * HEADS[3]
"""Attention maps handed out: those of the last two blocks."""


class Attention(NamedTuple):
    """Self-attention of the last two blocks, as factors: the raw maps are Q K^T, before scale and softmax.

    The maps of a 512-pixel photo at scale 1.5 fill 340 MB; all that AFA needs of them is a weighted sum over heads,
    which is one product of Q and K.

    Attributes:
        query: (B, 16, N, d), N = h * w cells, row-major; 2 blocks of 8 heads.
        key: (B, 16, N, d).
    """

    query: Tensor
    key: Tensor

    def maps(self) -> Tensor:
        """Return the raw maps, (B, 16, N, N).

        Cost:
            Memory 64 * N^2 bytes per photo.
        """
        return self.query @ self.key.transpose(-2, -1)


class Mit(nn.Module):
    """A Mix Transformer that hands out four feature levels, finest first, and the last blocks' attention.

    Has the attributes of `hintseg.nn.backbones.Backbone`.

    Attributes:
        config: The settings with `levels` and `freeze` resolved.
        channels: Channels of each level.
        strides: Image pixels per cell of each level.
        pretrained: Whether real weights were loaded.

    Example:
        >>> from hintseg.config.settings import BackboneConfig
        >>> net = Mit(BackboneConfig(name="mit_tiny", weights="random"))
        >>> [tuple(level.shape) for level in net(torch.rand(1, 3, 64, 96))]
        [(1, 16, 16, 24), (1, 32, 8, 12), (1, 40, 4, 6), (1, 64, 4, 6)]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        """Build the network and load its weights.

        Args:
            config: Name, weights, output stride and what is frozen: `norm` keeps the affine parameters of all norms
                (as AFA publishes), `auto` does so with learned weights.

        Raises:
            ConfigError: Unknown name, or an output stride, number of levels or kind of freezing it cannot have.
            WeightsError: The weight file cannot be read or belongs to another network.
        """
        super().__init__()
        size = SIZES.get(config.name)
        if size is None:
            raise ConfigError(f"unknown Mix Transformer '{config.name}'; known: {', '.join(SIZES)}")
        if config.output_stride == 8 or config.levels not in (None, 4) or config.freeze == "early":
            raise ConfigError(
                f"'{config.name}' has 4 levels, ends at stride 16 or 32 and freezes 'none' or 'norm'; got "
                f"output_stride={config.output_stride}, levels={config.levels}, freeze={config.freeze}"
            )
        last = config.output_stride // 16  # stock SegFormer: 2
        self.channels = list(size.channels)
        self.attention_heads = 2 * HEADS[-1]
        self.strides = [4, 8, 16, 16 * last]
        drops = torch.linspace(0, DROP_PATH, sum(size.blocks)).tolist()
        previous = 3
        for i, (width, count) in enumerate(zip(size.channels, size.blocks, strict=True)):
            kernel, stride = (7, 4) if i == 0 else (3, 2 if i < 3 else last)
            blocks = [_Block(width, HEADS[i], REDUCTIONS[i], drops.pop(0)) for _ in range(count)]
            # SegFormer's own names, so that its weights load as they are.
            self.add_module(f"patch_embed{i + 1}", _PatchEmbed(previous, width, kernel, stride))
            self.add_module(f"block{i + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{i + 1}", nn.LayerNorm(width, eps=1e-6))
            previous = width
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.apply(_initialise)
        self.pretrained = _load(self, config)
        freeze = config.freeze if config.freeze != "auto" else ("norm" if self.pretrained else "none")
        self.config = config.model_copy(update={"levels": 4, "freeze": freeze})
        if freeze == "norm":
            for name, parameter in self.named_parameters():
                parameter.requires_grad_("norm" not in name)

    def forward(self, images: Tensor | Features) -> list[Tensor]:
        """Return four feature levels, finest first, (B, channels[i], ~H / strides[i], ~W / strides[i]).

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1.
        """
        if isinstance(images, Features):
            return list(images.levels)
        return self.features(images)[0]

    def features(self, images: Tensor) -> tuple[list[Tensor], Attention]:
        """Return the four levels and the attention of the last two blocks.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1.
        """
        x = (images - self.mean) / self.std
        levels: list[Tensor] = []
        queries: list[Tensor] = []
        keys: list[Tensor] = []
        for i in range(1, 5):
            cells, height, width = self.get_submodule(f"patch_embed{i}")(x)
            for block in self.get_submodule(f"block{i}"):  # type: ignore[attr-defined]
                cells, query, key = block(cells, height, width)
                if i == 4:
                    queries.append(query)
                    keys.append(key)
            cells = self.get_submodule(f"norm{i}")(cells)
            x = _grid(cells, height, width).contiguous()
            levels.append(x)
        return levels, Attention(torch.cat(queries[-2:], dim=1), torch.cat(keys[-2:], dim=1))


class _PatchEmbed(nn.Module):
    """Overlapping patches: a strided convolution and a norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(outputs)  # 1e-5 here and behind the reduction, 1e-6 elsewhere, as published

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """Return cells (B, N, outputs) and their height and width."""
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2)), x.shape[2], x.shape[3]


class _SelfAttention(nn.Module):
    """Multi-head attention on reduced keys and values."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (B, N, c), and queries and keys (B, heads, N or fewer, d)."""
        source = x
        if self.reduction > 1:
            grid = _grid(x, height, width)
            # A map smaller than the kernel would have no key at all: photos below 32 pixels.
            missing = (max(0, self.reduction - width), max(0, self.reduction - height))
            grid = pad(grid, (0, missing[0], 0, missing[1]))
            source = self.norm(self.sr(grid).flatten(2).transpose(1, 2))
        query = _heads(self.q(x), self.heads)
        key, value = (_heads(half, self.heads) for half in self.kv(source).chunk(2, dim=2))
        out = scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2)), query, key


class _DepthwiseConv(nn.Module):
    """3x3 per channel: SegFormer's stand-in for a position encoding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map cells (B, N, c) to cells (B, N, c)."""
        mixed: Tensor = self.dwconv(_grid(x, height, width))
        return mixed.flatten(2).transpose(1, 2)


class _Mlp(nn.Module):
    """Two linear layers with the depth-wise convolution between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.dwconv = _DepthwiseConv(4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map cells (B, N, c) to cells (B, N, c)."""
        mixed: Tensor = self.fc2(gelu(self.dwconv(self.fc1(x), height, width)))
        return mixed


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, reduction: int, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _SelfAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(width)
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return cells (B, N, c), queries and keys."""
        out, query, key = self.attn(self.norm1(x), height, width)
        x = x + self.drop_path(out)
        return x + self.drop_path(self.mlp(self.norm2(x), height, width)), query, key


def _grid(cells: Tensor, height: int, width: int) -> Tensor:
    """(B, N, c) -> (B, c, height, width)."""
    return cells.transpose(1, 2).reshape(cells.shape[0], cells.shape[2], height, width)


def _heads(cells: Tensor, heads: int) -> Tensor:
    """(B, N, c) -> (B, heads, N, c / heads)."""
    return cells.reshape(cells.shape[0], cells.shape[1], heads, -1).transpose(1, 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        nn.init.zeros_(module.get_parameter("bias"))


def _load(net: Mit, config: BackboneConfig) -> bool:
    """Load the weights that the settings name; return whether there are any."""
    if config.weights == "random":
        return False
    if config.weights != "pretrained":
        _load_tensors(net, read_weights(Path(config.weights)).tensors, config)
        return True
    try:
        tensors = _download(config.name)
    except Exception as error:  # no network, no such file, a hub that is down: each client raises its own
        go_without(config, str(error).splitlines()[0] if str(error) else type(error).__name__)
        return False
    _load_tensors(net, tensors, config)
    logger.warning("%s: NVIDIA's ImageNet weights, licensed for research and evaluation only", config.name)
    return True


def _download(name: str) -> Mapping[str, Tensor]:
    """Return NVIDIA's published weights from the hub."""
    if name == "mit_tiny":
        raise FileNotFoundError("nobody has published weights of this size")
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(f"nvidia/{name.replace('_', '-')}", "pytorch_model.bin")
    content: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return content


_HUGGING_FACE = (
    (r"^(segformer\.)?encoder\.(?=patch_embeddings|block|layer_norm)", ""),
    (r"^patch_embeddings\.(\d)\.layer_norm", r"patch_embeddings.\1.norm"),
    (r"^patch_embeddings\.(\d)\.", lambda m: f"patch_embed{int(m[1]) + 1}."),
    (r"^layer_norm\.(\d)\.", lambda m: f"norm{int(m[1]) + 1}."),
    (r"^block\.(\d)\.", lambda m: f"block{int(m[1]) + 1}."),
    (r"layer_norm_(\d)", r"norm\1"),
    (r"attention\.self\.query", "attn.q"),
    (r"attention\.self\.sr", "attn.sr"),
    (r"attention\.self\.layer_norm", "attn.norm"),
    (r"attention\.self\.(key|value)", r"attn.\1"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"mlp\.dense(\d)", r"mlp.fc\1"),
)
"""What turns a name of Hugging Face's SegformerModel into SegFormer's own; `key` and `value` become `kv` afterwards."""


def official_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under SegFormer's own names, whichever of the three common layouts they came in.

    Args:
        tensors: A state dict in SegFormer's names, in Hugging Face's, or of a whole network (AFA's `encoder.`, mmseg's
            `backbone.`).

    Example:
        >>> names = official_names({"segformer.encoder.layer_norm.3.bias": torch.zeros(2)})
        >>> list(names)
        ['norm4.bias']
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name
        while prefix := next((p for p in PREFIXES if short.startswith(p)), ""):
            short = short.removeprefix(prefix)
        for pattern, replacement in _HUGGING_FACE:
            short = re.sub(pattern, replacement, short)
        found[short.removeprefix("encoder.")] = tensor
    for name in [name for name in found if ".attn.key." in name]:
        value = name.replace(".attn.key.", ".attn.value.")
        if value in found:
            found[name.replace(".attn.key.", ".attn.kv.")] = torch.cat([found.pop(name), found.pop(value)])
    return found


def _load_tensors(net: Mit, tensors: Mapping[str, Tensor], config: BackboneConfig) -> None:
    own = net.state_dict()
    try:
        found = official_names(tensors)
    except RuntimeError as error:  # keys and values of different shapes
        raise WeightsError(f"'{config.weights}' holds no '{config.name}' ({error})") from error
    missing = [name for name in own if name not in found]
    if missing:
        raise WeightsError(
            f"'{config.weights}' holds no whole '{config.name}': {len(missing)} of {len(own)} tensors are missing "
            f"({some(missing)}; the file has {some(tensors)}). Set backbone.name to the network of the file"
        )
    wrong = [
        f"{name}: file {tuple(found[name].shape)}, network {tuple(own[name].shape)}"
        for name in own
        if found[name].shape != own[name].shape
    ]
    if wrong:
        where = f"'{config.weights}' as weights of '{config.name}' (wrong size? set backbone.name)"
        raise WeightsError(list_problems(where, wrong, limit=5))
    net.load_state_dict({name: found[name] for name in own})
    others = len(found) - len(own)
    logger.info("%s: %d tensors loaded from '%s', %d others not used", config.name, len(own), config.weights, others)
