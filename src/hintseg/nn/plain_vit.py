"""Plain vision transformers as feature networks: timm's ViT and EVA families (DeiT, DINOv2 and v3, CLIP, SigLIP, ...).

A plain transformer has one grid of patches from first to last. Photos of any size are read: they are resized so that a
patch covers `output_stride` pixels of the photo, and the positions that were learned are resampled to that grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import eva, vision_transformer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, WeightsError
from hintseg.nn.backbones import PROBE_PX, build, load_by_name, read_weights, widen
from hintseg.nn.mit import Attention
from hintseg.types import Features

FAMILIES = (vision_transformer.VisionTransformer, eva.Eva)
"""Classes of timm whose networks are plain vision transformers."""

FINER = 4
"""The finest level of a pyramid has this many times as many cells a side as the patches: more would be made up."""

ATTENTION_BLOCKS = 2
"""Of how many of the last blocks `features` hands out queries and keys, as a Mix Transformer does."""


def is_plain_vit(name: str) -> bool:
    """Return whether a timm name is that of a plain vision transformer.

    Example:
        >>> is_plain_vit("deit_tiny_patch16_224"), is_plain_vit("resnet50"), is_plain_vit("vit_small_patch16_dinov3")
        (True, False, True)
    """
    base = name.removeprefix("hf_hub:").removeprefix("hf-hub:")
    if not timm.is_model(base):
        return False
    module = timm.models.model_entrypoint(base).__module__.rpartition(".")[2]
    return module in ("vision_transformer", "eva", "deit")


class PlainVit(nn.Module):
    """A plain vision transformer that hands out feature levels, finest first.

    Its last level is read from the blocks `config.blocks`: averaged, or side by side (`config.join`). Where more levels
    are asked for, they come from blocks evenly spread over the depth, resized to finer grids: a simple pyramid.

    Attributes:
        config: The settings with `levels`, `blocks` and `freeze` resolved.
        channels: Channels of each level.
        strides: Image pixels per cell of each level.
        pretrained: Whether real weights were loaded.
        mean: Channel means the images are normalised by, (1, 3, 1, 1), for RGB in 0..1.
        std: Channel deviations, likewise.

    Example:
        >>> config = BackboneConfig(name="vit_tiny_patch16_224", weights="random", output_stride=16)
        >>> net = PlainVit(config)
        >>> [tuple(level.shape) for level in net(torch.rand(1, 3, 64, 90))]
        [(1, 192, 4, 6)]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig, extra: int = 0) -> None:
        """Build the network and load its weights.

        Args:
            config: Name, weights, output stride, blocks, levels and what is frozen.
            extra: Channels the network reads beside the image, with weights of zero at first.

        Raises:
            ConfigError: The network is no plain ViT, or has no such blocks.
            WeightsError: The weight file cannot be read or belongs to another network.
        """
        super().__init__()
        net, self.pretrained = build(config, partial(_create, config))
        mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        if config.weights not in ("pretrained", "random"):
            file = read_weights(Path(config.weights))
            family = eva if isinstance(net, eva.Eva) else vision_transformer
            try:  # resamples positions and patches of other sizes
                tensors = family.checkpoint_filter_fn(dict(file.tensors), net)
            except Exception as error:  # timm takes it for granted that the shapes are a transformer's
                raise WeightsError(f"'{config.weights}' holds no weights of '{config.name}' ({error})") from error
            load_by_name(net, tensors, [set(dict(net.named_parameters()))], config)
            mean, std = file.mean or mean, file.std or std
            self.pretrained = True
        self.blocks = _blocks(config, len(net.blocks))
        count = config.levels or 1
        self.patch = int(net.patch_embed.patch_size[0])
        width = int(net.embed_dim)
        # What lies behind the last block that is read is without use.
        indices = net.prune_intermediate_layers(self.blocks, prune_norm=not config.norm, prune_head=True)
        self.blocks = [int(index) for index in indices]
        depth = len(net.blocks)
        self.spread = [max(0, depth * (i + 1) // count - 1) for i in range(count - 1)]
        self.finer = [min(FINER, 2 ** (count - 1 - i)) for i in range(count)]
        joined = width * (len(self.blocks) if config.join == "concat" else 1)
        self.channels = [width] * (count - 1) + [joined]
        self.strides = [max(1, config.output_stride // finer) for finer in self.finer]
        freeze = config.freeze
        if freeze == "auto":
            freeze = "early" if self.pretrained else "none"
        self.attention_heads = ATTENTION_BLOCKS * int(net.blocks[-1].attn.num_heads)
        self.config = config.model_copy(
            update={"levels": count, "freeze": freeze, "blocks": tuple(block + 1 for block in self.blocks)}
        )
        widened = widen(net, extra) if extra else []
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        used = self._used()  # distributed training waits for the gradient of every parameter
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in used and _trains(name, freeze, depth))
        for conv in widened:
            conv.weight.requires_grad_(True)

    def forward(self, images: Tensor | Features, extra: Tensor | None = None) -> list[Tensor]:
        """Return the feature levels, finest first.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1, any size.
            extra: (B, extra, H, W), taken as it is, for a network built with extra channels.

        Returns:
            One tensor (B, channels[i], ~H / strides[i], ~W / strides[i]) per level.
        """
        if isinstance(images, Features):
            return list(images.levels[: len(self.channels)])
        inputs = (images - self.mean) / self.std
        if extra is not None:
            inputs = torch.cat([inputs, extra], dim=1)
        size = [self.patch * max(1, round(side / self.config.output_stride)) for side in images.shape[-2:]]
        if tuple(inputs.shape[-2:]) != tuple(size):
            inputs = interpolate(inputs, size=size, mode="bilinear", align_corners=False, antialias=True)
        wanted = sorted({*self.spread, *self.blocks})
        found = self.net.forward_intermediates(inputs, indices=wanted, norm=self.config.norm, intermediates_only=True)
        of_block = dict(zip(wanted, found, strict=True))
        read = [of_block[block] for block in self.blocks]
        last = torch.cat(read, dim=1) if self.config.join == "concat" else torch.stack(read).mean(dim=0)
        levels = [of_block[block] for block in self.spread]
        return [
            interpolate(level, scale_factor=finer, mode="bilinear", align_corners=False) if finer > 1 else level
            for level, finer in zip([*levels, last], self.finer, strict=True)
        ]

    @property
    def has_class_token(self) -> bool:
        """Whether a token stands for the whole image, first among all; some networks pool instead."""
        return getattr(self.net, "cls_token", None) is not None

    def attended(self, images: Tensor | Features) -> tuple[list[Tensor], Tensor]:
        """Return the levels, and how much the class token looks at each cell.

        Queries and keys are those before rotary positions, as in `features`.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1; or features that were kept with that attention as a last level.

        Returns:
            The levels; (B, 1, h, w) float32 >= 0, the mean over heads and over the blocks that are read. 1 is what a
            cell would get if all tokens were alike.
        """
        if isinstance(images, Features):
            return self(images), images.levels[len(self.channels)]
        blocks = [self.net.blocks[block].attn for block in self.blocks]
        with ExitStack() as hooks:
            seen: list[Tensor] = []
            for norm in (norm for block in blocks for norm in (block.q_norm, block.k_norm)):
                hooks.callback(norm.register_forward_hook(lambda _module, _inputs, out: seen.append(out)).remove)
            levels: list[Tensor] = self(images)
        prefix, total = int(self.net.num_prefix_tokens), []
        for block, query, key in zip(blocks, seen[0::2], seen[1::2], strict=True):
            scores = query[:, :, :1].float() @ key.float().transpose(2, 3) * block.scale  # (B, heads, 1, tokens)
            total.append(scores.softmax(dim=3)[:, :, 0, prefix:].mean(dim=1) * scores.shape[3])
        side = [max(1, round(size / self.config.output_stride)) for size in images.shape[-2:]]
        return levels, torch.stack(total).mean(dim=0).unflatten(1, side)[:, None]

    def features(self, images: Tensor) -> tuple[list[Tensor], Attention]:
        """Return the levels, and the attention of patches to patches of the last two blocks, as factors.

        Queries and keys are those before rotary positions, where the network has such: what a patch shows, not where.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1.
        """
        seen: list[Tensor] = []
        prefix = int(self.net.num_prefix_tokens)

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen.append(output[:, :, prefix:])

        with ExitStack() as hooks:
            for block in list(self.net.blocks)[-ATTENTION_BLOCKS:]:
                for norm in (block.attn.q_norm, block.attn.k_norm):
                    hooks.callback(norm.register_forward_hook(keep).remove)
            levels = self(images)
        return levels, Attention(torch.cat(seen[0::2], dim=1), torch.cat(seen[1::2], dim=1))

    @torch.no_grad()
    def affinity(self, images: Tensor, *, blocks: int) -> tuple[list[Tensor], Tensor]:
        """Return the levels, and the attention of patches to patches, heads and the last blocks averaged.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1.
            blocks: How many of the last blocks, >= 1.

        Returns:
            The levels; (B, N, N) float32, each row sums to 1, N cells of the patch grid, row-major.

        Cost:
            The attention of every head of one block at a time.
        """
        prefix = int(self.net.num_prefix_tokens)
        total: list[Tensor] = []

        def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            mean = inputs[0][:, :, prefix:, prefix:].float().mean(dim=1)
            if total:
                total[0].add_(mean)
            else:
                total.append(mean)

        chosen = [block.attn for block in list(self.net.blocks)[-blocks:]]
        with ExitStack() as stack:
            for attention in chosen:
                stack.enter_context(_unfused(attention))
                stack.callback(attention.attn_drop.register_forward_pre_hook(add).remove)
            levels = self(images)
        return levels, total[0] / total[0].sum(dim=2, keepdim=True)

    def _used(self) -> set[str]:
        """Return the names of the parameters that the levels depend on: the gradients of a blank image tell."""
        named = dict(self.net.named_parameters())
        extra = self.net.patch_embed.proj.in_channels - 3
        with torch.enable_grad():
            levels = self(torch.zeros(1, 3, PROBE_PX, PROBE_PX), torch.zeros(1, extra, PROBE_PX, PROBE_PX))
            total = torch.stack([level.float().pow(2).sum() for level in levels]).sum()
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}


def _create(config: BackboneConfig, pretrained: bool) -> Any:
    net = timm.create_model(
        config.name, pretrained=pretrained, num_classes=0, dynamic_img_size=True, drop_path_rate=config.drop_path
    )
    if not isinstance(net, FAMILIES) or not isinstance(net.patch_embed.proj, nn.Conv2d):
        raise ConfigError(f"'{config.name}' is no plain vision transformer that reads an image by patches")
    return net.eval()


def _blocks(config: BackboneConfig, depth: int) -> list[int]:
    """Return the blocks that are read, counted from 0, rising."""
    if config.blocks == "auto":  # the last one is bent towards what it was trained for
        return [max(0, depth - 3), depth - 2] if depth > 2 else [depth - 1]
    wrong = [block for block in config.blocks if block > depth]
    if wrong:
        raise ConfigError(f"'{config.name}' has {depth} blocks, backbone.blocks asks for {wrong[0]}; they count from 1")
    return sorted({block - 1 for block in config.blocks})


def _trains(name: str, freeze: str, depth: int) -> bool:
    """Return whether a parameter trains: `early` holds all that lies before the second half of the blocks."""
    if freeze in ("all", "none"):
        return freeze == "none"
    if freeze == "norm":
        return "norm" not in name
    first, _, rest = name.partition(".")
    return (first == "blocks" and int(rest.partition(".")[0]) >= depth // 2) or first == "norm"


@contextmanager
def _unfused(attention: Any) -> Iterator[None]:
    """Have a block work its attention out in the open, where it can be seen."""
    before, attention.fused_attn = attention.fused_attn, False
    try:
        yield
    finally:
        attention.fused_attn = before
