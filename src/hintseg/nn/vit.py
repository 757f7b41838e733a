"""A vision transformer with one class token per class that hands out averaged attention.

Built on timm's plain ViT and DeiT; parameters keep timm's names. Attention is averaged while it is computed: what is
kept are two running sums, not the map of every head of every layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import timm
import torch
from pydantic import Field
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hintseg.config.settings import BackboneConfig, Count
from hintseg.errors import ConfigError, WeightsError
from hintseg.nn.backbones import Backbone, build, load_by_name, read_weights
from hintseg.nn.scale import FeatureScale


class VitConfig(BackboneConfig):
    """The transformer, by its timm name. `output_stride` is the side of a patch, pixels; small photos need 8.

    Attributes:
        depth: Number of blocks; None as the named network has. Like `width` and `heads` for random weights only.
        width: Channels of a token; None as the named network has.
        heads: Attention heads of a block; None as the named network has.
        drop_path: Largest share of the photos for which training leaves out a block (stochastic depth), the last one's.
        token_noise: Noise on class tokens made from a learned one, as a factor of its own deviation with its position;
            0, as published: copies, which stay alike for hundreds of steps.
        stem: A convolutional network whose last level takes the place of the patches, as in hybrid ViTs; its
            `output_stride` must be that of the transformer, whose own weights must be random. It learns from photos by
            the hundred, which a transformer without learned weights does not.
    """

    name: str = "deit_small_patch16_224"
    depth: Count | None = None
    width: Count | None = None
    heads: Count | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    token_noise: Annotated[float, Field(ge=0)] = 0.0
    stem: BackboneConfig | None = None


class VitOutput(NamedTuple):
    """What the transformer sees, and where it looks.

    Attributes:
        classes: Class tokens, (B, K, d).
        patches: Patch tokens on their grid, (B, d, h, w).
        class_to_patch: Attention of class tokens to patches, heads averaged, summed over the last layers asked for,
            (B, K, N), N = h*w row-major.
        affinity: Attention of patches to patches, heads averaged, summed over all layers, (B, N, N).
    """

    classes: Tensor
    patches: Tensor
    class_to_patch: Tensor
    affinity: Tensor


class ClassTokenVit(nn.Module):
    """A ViT whose class token is there once per class.

    With learned weights all K class tokens and their position embeddings start as copies of the one there is, and some
    noise where `token_noise` asks for it. The last norm of the network is left out, as in the MCTformer code.

    Attributes:
        config: The settings with `levels` and `freeze` resolved.
        stem: What takes the place of the patches' pixels; None where there is nothing.
        channels: Channels d of the one feature level.
        strides: Image pixels per cell of it: the side of a patch.
        pretrained: Whether real weights were loaded, of the transformer or its stem.
        mean: Channel means the images are normalised by, (1, 3, 1, 1), for RGB in 0..1.
        std: Channel deviations, likewise.

    Example:
        >>> config = VitConfig(weights="random", output_stride=8, depth=2, width=48, heads=3)
        >>> classes, patches = ClassTokenVit(config, 5)(torch.rand(2, 3, 64, 96))
        >>> tuple(classes.shape), tuple(patches.shape)
        ((2, 5, 48), (2, 48, 8, 12))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: VitConfig, classes: int) -> None:
        """Build the network and load its weights.

        Args:
            config: Name, weights, patch and sizes.
            classes: K.

        Raises:
            ConfigError: The network is no plain ViT, or a setting or the stem does not fit it.
            WeightsError: The weight file cannot be read or belongs to another network.
        """
        super().__init__()
        if config.freeze not in ("auto", "none") or (config.levels or 1) > 1:
            raise ConfigError(
                f"backbone.freeze={config.freeze} and backbone.levels={config.levels} do not fit the transformer "
                f"'{config.name}', which trains whole and has one level; set freeze=none and levels=1 in this stage's "
                "backbone"
            )
        if config.weights != "random" and any((config.depth, config.width, config.heads)):
            raise ConfigError(
                f"backbone.weights={config.weights} fit '{config.name}' as it is; leave out backbone.depth, width and "
                "heads, or set backbone.weights=random"
            )
        self.stem = None if config.stem is None else _stem(config, config.stem)
        net, self.pretrained = build(config, partial(_create, config))
        mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        if config.weights not in ("pretrained", "random"):
            file = read_weights(Path(config.weights))
            try:  # resamples patches and positions of another stride
                tensors = checkpoint_filter_fn(dict(file.tensors), net)
            except Exception as error:  # timm takes it for granted that the shapes are a transformer's
                raise WeightsError(f"'{config.weights}' holds no weights of '{config.name}' ({error})") from error
            load_by_name(net, tensors, [set(dict(net.named_parameters()))], config)
            mean, std = file.mean or mean, file.std or std
            self.pretrained = True

        self.config = config.model_copy(update={"levels": 1, "freeze": "none", "stem": self.stem and self.stem.config})
        self.channels, self.strides = [int(net.embed_dim)], [config.output_stride]
        self.patch_embed, self.norm_pre, self.blocks = net.patch_embed, net.norm_pre, net.blocks
        learned = self.pretrained
        if self.stem is not None:
            self.pretrained = self.stem.pretrained
            self.patch_embed.proj = nn.Conv2d(self.stem.channels[-1], self.channels[0], kernel_size=1)
            self.stem_scale = FeatureScale()
        token, position = net.cls_token.detach(), net.pos_embed.detach()
        tokens, positions = token.repeat(1, classes, 1), position[:, :1].repeat(1, classes, 1)
        if learned:
            spread = config.token_noise * (token + position[:, :1]).std()
            tokens += spread * torch.randn_like(tokens) if spread else 0
        else:
            nn.init.trunc_normal_(tokens, std=0.02)
            nn.init.trunc_normal_(positions, std=0.02)
        self.cls_token = nn.Parameter(tokens)
        self.pos_embed = nn.Parameter(torch.cat([positions, position[:, 1:]], dim=1))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def measure(self, images: Iterable[Tensor]) -> None:
        """Bring the features of a learned stem to the scale of tokens; call it in training mode, without a gradient.

        A learned network may end a hundred times lower than positions are large: then patches differ by place alone.

        Args:
            images: Some batches, (B, 3, H, W) each.
        """
        if self.stem is not None and self.stem.pretrained:
            self.stem_scale.measure(self.stem(batch)[-1] for batch in images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class tokens (B, K, d) and patch tokens (B, d, h, w), without attention maps.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1, any size; sides that are no multiple of the patch are resized to
                the nearest one.
        """
        tokens, grid = self._embed(images)
        return self._split(self.blocks(tokens), grid)

    def attention(self, images: Tensor, *, layers: int) -> VitOutput:
        """Return tokens and averaged attention.

        Args:
            images: As for `forward`.
            layers: How many of the last layers to sum the attention of class tokens over, >= 1.

        Cost:
            Without a gradient: two maps of N x N floats a photo beside the sum, whatever the number of layers and
            heads. A gradient keeps the map of every head.

        Source:
            Xu et al., CVPR 2022: class-to-patch attention and patch affinity.
        """
        tokens, grid = self._embed(images)
        count, cells = self.cls_token.shape[1], grid[0] * grid[1]
        class_to_patch = tokens.new_zeros(len(tokens), count, cells, dtype=torch.float32)
        affinity = tokens.new_zeros(len(tokens), cells, cells, dtype=torch.float32)
        for place, block in enumerate(self.blocks):
            attention = block.attn
            qkv = attention.qkv(block.norm1(tokens)).unflatten(2, (3, attention.num_heads, -1))
            query, key, value = qkv.permute(2, 3, 0, 1, 4)  # (heads, B, K + N, d / heads) each
            query, key = attention.q_norm(query) * attention.scale, attention.k_norm(key)
            mixed = []
            for q, k, v in zip(query, key, value, strict=True):
                weights = (q @ k.transpose(1, 2)).softmax(dim=2)  # (B, K + N, K + N)
                affinity.add_(weights[:, count:, count:], alpha=1 / attention.num_heads)
                if place >= len(self.blocks) - layers:
                    class_to_patch.add_(weights[:, :count, count:], alpha=1 / attention.num_heads)
                mixed.append(weights.to(v.dtype) @ v)
            tokens = tokens + block.drop_path1(block.ls1(attention.proj(torch.cat(mixed, dim=2))))
            tokens = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
        return VitOutput(*self._split(tokens, grid), class_to_patch, affinity)

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return class and patch tokens (B, K + N, d) with their positions, and the grid (h, w)."""
        patch = self.strides[0]
        height, width = (max(1, round(side / patch)) for side in images.shape[-2:])
        size = (height * patch, width * patch)
        if images.shape[-2:] != size:
            images = interpolate(images, size, mode="bilinear", align_corners=False)
        seen = (images - self.mean) / self.std if self.stem is None else self.stem_scale(self.stem(images)[-1])
        patches = self.patch_embed.proj(seen).flatten(2).transpose(1, 2)
        count = self.cls_token.shape[1]
        positions = self.pos_embed[:, count:]
        side = isqrt(positions.shape[1])
        if (height, width) != (side, side):
            # A tenth of a cell more, as in the published code: the size is never rounded down.
            factors = ((height + 0.1) / side, (width + 0.1) / side)
            square = positions.transpose(1, 2).reshape(1, -1, side, side)
            positions = interpolate(square, scale_factor=factors, mode="bicubic").flatten(2).transpose(1, 2)
        classes = (self.cls_token + self.pos_embed[:, :count]).expand(len(images), -1, -1)
        return self.norm_pre(torch.cat([classes.to(patches.dtype), patches + positions], dim=1)), (height, width)

    def _split(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        count = self.cls_token.shape[1]
        return tokens[:, :count], tokens[:, count:].transpose(1, 2).reshape(len(tokens), -1, *grid)


def _stem(config: VitConfig, stem: BackboneConfig) -> Backbone:
    """Return the network of the stem, whose cells must be the transformer's patches."""
    if config.weights != "random":
        raise ConfigError(
            f"backbone.weights={config.weights} were learned from pixels and cannot read what backbone.stem.name="
            f"{stem.name} sees; set backbone.weights=random, or backbone.stem=null"
        )
    net = Backbone(stem)
    if net.strides[-1] != config.output_stride:
        raise ConfigError(
            f"the last level of the stem '{stem.name}' has {net.strides[-1]} pixels per cell and a patch has "
            f"{config.output_stride}; set backbone.output_stride, backbone.stem.output_stride or backbone.stem.levels "
            "so that both are the same"
        )
    return net


def _create(config: VitConfig, pretrained: bool) -> Any:
    sizes = {"depth": config.depth, "embed_dim": config.width, "num_heads": config.heads}
    try:
        net = timm.create_model(
            config.name,
            pretrained=pretrained,
            num_classes=0,
            patch_size=config.output_stride,
            drop_path_rate=config.drop_path,
            **{name: value for name, value in sizes.items() if value is not None},
        )
    except TypeError:  # its builder knows no patches
        net = None
    except AssertionError as error:
        raise ConfigError(
            f"'{config.name}' cannot be built with backbone.width={config.width} and heads={config.heads}: {error}"
        ) from error
    if reason := _other_than_plain(net):
        raise ConfigError(
            f"'{config.name}' is no plain vision transformer with one class token: {reason}; set this stage's "
            "backbone.name to one that is, such as deit_small_patch16_224, vit_small_patch14_dinov2 or "
            "vit_base_patch16_clip_224"
        )
    return net


def _other_than_plain(net: Any) -> str:
    """Say why a network cannot have a class token per class; empty if it can."""
    if not isinstance(net, VisionTransformer) or type(net.blocks[0]) is not Block:
        return "its blocks are others, or its positions rotary"
    if net.cls_token is None:
        return "it has no class token"
    if net.num_prefix_tokens > 1:
        return f"it has {net.num_prefix_tokens - 1} more tokens beside it (registers, or one for distillation)"
    return "its class token has no position" if net.no_embed_class else ""
