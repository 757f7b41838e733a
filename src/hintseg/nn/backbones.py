"""Feature networks: any timm model with feature maps, with weights from timm, from a file, or random.

The network keeps timm's own parameter names until its weights are in; only then are the parts without use cut away.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import ResNetV2
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, WeightsError, did_you_mean, list_problems, shown
from hintseg.files.parse import is_file, parse_json
from hintseg.nn.hub import go_without, within_reach
from hintseg.nn.weight_file import read_tensors
from hintseg.types import Features

logger = logging.getLogger("hintseg")

PROBE_PX = 96
"""Side of the blank image that shows which parameter serves which level; some networks need at least 75 pixels."""

PREFIXES = ("module.", "backbone.", "net.")


class Backbone(nn.Module):
    """A feature network that hands out its feature levels, finest first.

    Pre-activation networks (timm's `resnetv2`) end their levels before batch-norm and ReLU. The last level gets the
    BN + ReLU that follows it in the full network, so that class activation maps see features >= 0; the levels between
    stay raw.

    Attributes:
        config: The settings with `levels` and `freeze` resolved. A copy of it with ``weights="random"`` builds the same
            network without its weights, for a state dict to be loaded into.
        channels: Channels of each level.
        strides: Image pixels per cell of each level.
        pretrained: Whether real weights were loaded.
        mean: Channel means the images are normalised by, (1, 3, 1, 1), for RGB in 0..1.
        std: Channel deviations, likewise.

    Example:
        >>> from hintseg.config.settings import BackboneConfig
        >>> backbone = Backbone(BackboneConfig(name="resnet10t", weights="random"))
        >>> [tuple(level.shape) for level in backbone(torch.rand(1, 3, 64, 64))][-1]
        (1, 512, 4, 4)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig, extra: int = 0) -> None:
        """Build the network and load its weights.

        Args:
            config: Name, weights, output stride, levels and what is frozen.
            extra: Channels the network reads beside the image. Their weights start from zero, so at first it is the
                network of the image alone; what reads them is never frozen.

        Raises:
            ConfigError: Unknown name, a network for one image size only, an output stride or number of levels the
                network cannot have, or extra channels where no convolution reads the image.
            WeightsError: The weight file cannot be read or belongs to another network.
        """
        super().__init__()
        if config.blocks != "auto" or config.join != "mean" or config.drop_path:
            raise ConfigError(
                f"backbone.blocks, join and drop_path are those of vision transformers, and '{config.name}' is none; "
                "leave them out"
            )
        net, self.pretrained = build(config, partial(_create, config))
        mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        names = _parameters_by_level(net)
        if config.levels is not None and config.levels > len(names):
            raise ConfigError(
                f"'{config.name}' has {len(names)} feature levels, backbone.levels={config.levels} asks for more"
            )
        count = config.levels or len(names)
        if config.weights not in ("pretrained", "random"):
            file = read_weights(Path(config.weights))
            count = load_by_name(net, file.tensors, names, config)
            mean, std = file.mean or mean, file.std or std
            self.pretrained = True

        self.channels = [int(info["num_chs"]) for info in list(net.feature_info)[:count]]
        self.strides = [int(info["reduction"]) for info in list(net.feature_info)[:count]]
        if self.strides[-1] > config.output_stride:
            raise ConfigError(
                f"'{config.name}' has {self.strides[-1]} pixels per cell and cannot be built with "
                f"backbone.output_stride={config.output_stride}; raise it, lower backbone.levels, or choose a network "
                "whose stride can be set, such as resnet50"
            )
        freeze = config.freeze
        if freeze == "auto":
            freeze = "early" if self.pretrained else "none"
        self.config = config.model_copy(update={"levels": count, "freeze": freeze})

        self.last_norm = _closing_norm(net, count)
        net.prune_intermediate_layers(list(range(count)), prune_norm=True, prune_head=True)
        widened = widen(net, extra) if extra else []
        self.net = net.to(memory_format=torch.channels_last)  # 1.4 times as fast in bfloat16, on a CPU as on a GPU
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        # Parameters no level needs would stop distributed training, which waits for the gradient of every one.
        trained = set().union(*names[count - 2 if freeze == "early" and count > 2 else 0 : count])
        if freeze == "all":
            trained = set()
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in trained)
        for conv in widened:
            conv.weight.requires_grad_(True)

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training or evaluation; frozen batch-norm layers stay in evaluation mode."""
        super().train(mode)
        if self.config.freeze != "none":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor | Features, extra: Tensor | None = None) -> list[Tensor]:
        """Return the feature levels, finest first.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1.
            extra: (B, extra, H, W), taken as it is, for a network built with extra channels.

        Returns:
            One tensor (B, channels[i], ~H / strides[i], ~W / strides[i]) per level.
        """
        if isinstance(images, Features):
            return list(images.levels)
        inputs = (images - self.mean) / self.std
        if extra is not None:
            inputs = torch.cat([inputs, extra], dim=1)
        levels: list[Tensor] = self.net.forward_intermediates(
            inputs.contiguous(memory_format=torch.channels_last),
            indices=list(range(len(self.channels))),
            intermediates_only=True,
        )
        levels[-1] = self.last_norm(levels[-1])
        return levels


class WeightFile(NamedTuple):
    """What a weight file holds; `mean` and `std` only where its metadata says them."""

    tensors: dict[str, Tensor]
    mean: list[float] | None
    std: list[float] | None


def build(config: BackboneConfig, create: Callable[[bool], Any]) -> tuple[Any, bool]:
    """Build timm's full network; return it and whether it has timm's own weights.

    Args:
        config: Name and weights; a weight file is left to `read_weights` and `load_by_name`.
        create: Calls `timm.create_model`, with timm's weights if True.

    Raises:
        ConfigError: No such network.
        WeightsError: Its published weights cannot be had, and nothing of it would be trained.
    """
    if not timm.is_model(config.name):
        raise ConfigError(f"unknown network '{config.name}'{did_you_mean(config.name, timm.list_models())}")
    try:
        net = create(False)
    except RuntimeError as error:  # a tag timm does not know, as in resnet50.no_such_tag
        raise ConfigError(f"timm cannot build '{config.name}': {error}") from error
    if config.weights != "pretrained":
        return net, False
    try:
        with within_reach(net.pretrained_cfg):
            return create(True), True
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such file, no published weights
        go_without(config, str(error).splitlines()[0])
        return net, False


def _create(config: BackboneConfig, pretrained: bool) -> Any:
    try:
        net = timm.create_model(
            config.name, pretrained=pretrained, num_classes=0, output_stride=config.output_stride
        ).eval()
    except (TypeError, AssertionError):  # its stride cannot be set; whether it fits by itself is checked by the caller
        net = timm.create_model(config.name, pretrained=pretrained, num_classes=0).eval()
    if net.pretrained_cfg.get("fixed_input_size"):
        side = net.pretrained_cfg["input_size"][-1]
        raise ConfigError(
            f"'{config.name}' takes images of {side} x {side} pixels only; choose a network for any size, such as "
            "resnet50, convnext_tiny or vit_small_patch14_dinov2"
        )
    return net


def _parameters_by_level(net: Any) -> list[set[str]]:
    """Return, for each level, the names of the parameters it needs and no finer level does.

    The gradients of a blank image tell, whatever way the network names its parts.
    """
    named = dict(net.named_parameters())
    indices = list(range(len(net.feature_info)))
    with torch.enable_grad():
        levels = net.forward_intermediates(
            torch.zeros(1, 3, PROBE_PX, PROBE_PX), indices=indices, intermediates_only=True
        )
    result: list[set[str]] = []
    seen: set[str] = set()
    for level in levels:
        gradients = torch.autograd.grad(level.sum(), list(named.values()), retain_graph=True, allow_unused=True)
        used = {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
        result.append(used - seen)
        seen |= used
    return result


def widen(net: nn.Module, extra: int) -> list[nn.Conv2d]:
    """Let every convolution that reads the image read `extra` channels more, with weights of zero."""
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3 and m.groups == 1]
    if not convs:
        raise ConfigError(
            f"no convolution of {type(net).__name__} reads the image, so it cannot be given {extra} more channels; "
            "choose another backbone.name, such as resnet50"
        )
    for conv in convs:
        zeros = conv.weight.new_zeros(conv.out_channels, extra, *conv.weight.shape[2:])
        conv.weight = nn.Parameter(torch.cat([conv.weight.detach(), zeros], dim=1))
        conv.in_channels += extra
    return convs


def _closing_norm(net: Any, levels: int) -> nn.Module:
    """Return the BN + ReLU behind the last of `levels` in a pre-activation network, or nothing to do."""
    if not isinstance(net, ResNetV2) or isinstance(net.norm, nn.Identity):
        return nn.Identity()
    # Level 0 is the stem, level i the output of stages[i - 1]; the next block begins with the norm that is wanted.
    norm: nn.Module = net.norm if levels > len(net.stages) else net.stages[levels - 1].blocks[0].norm1
    return norm


def read_weights(path: Path) -> WeightFile:
    """Read a .safetensors file, or a .pth file without running its code."""
    if not is_file(path):
        raise WeightsError(
            f"no weight file '{path}'{did_you_mean(str(path), ['pretrained', 'random'])}. backbone.weights takes "
            "'pretrained', 'random', or a .safetensors or .pth file"
        )
    tensors, metadata = read_tensors(path)
    return WeightFile(tensors, _channels(metadata, "mean", path), _channels(metadata, "std", path))


def _channels(metadata: Mapping[str, str], key: str, path: Path) -> list[float] | None:
    """Return the `mean` or `std` of a file's metadata."""
    if key not in metadata:
        return None
    try:
        found = parse_json(metadata[key].encode())
        values = [float(value) for value in found]
    except (ValueError, TypeError):
        values = []
    if len(values) != 3 or not all(math.isfinite(v) for v in values) or (key == "std" and min(values) <= 0):
        raise WeightsError(
            f"'{path}': its metadata say {key} {shown(metadata[key])}; three numbers, one per channel, are needed"
        )
    return values


def load_by_name(net: Any, tensors: Mapping[str, Tensor], names: Sequence[set[str]], config: BackboneConfig) -> int:
    """Load `tensors` into the full network by name; return how many levels have weights.

    Raises:
        WeightsError: Nothing fits, a shape differs, a kept level lacks convolutions, or fewer levels than asked for.
    """
    path, own = config.weights, net.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name
        while short not in own and (prefix := next((p for p in PREFIXES if short.startswith(p)), "")):
            short = short.removeprefix(prefix)
        fitting[short] = tensor
    unexpected = [name for name in fitting if name not in own]
    fitting = {name: tensor for name, tensor in fitting.items() if name in own}
    if not fitting:
        raise WeightsError(
            f"'{path}' belongs to another network: none of its {len(tensors)} tensors has a name that '{config.name}' "
            f"knows (file: {some(tensors)}; network: {some(own)}). Set backbone.name to the network of the file"
        )
    wrong = [
        f"{name}: file {_kind(tensor)}, network {_kind(own[name])}"
        for name, tensor in fitting.items()
        if _kind(tensor) != _kind(own[name])
    ]
    if wrong:
        where = f"'{path}' as weights of '{config.name}' (wrong network? set backbone.name)"
        raise WeightsError(list_problems(where, wrong, limit=5))

    # A level is there if any of its convolutions or matrices is: a lone norm may be what closes the level before.
    heavy = [{name for name in level if own[name].dim() > 1} for level in names]
    gone = [i for i, level in enumerate(heavy) if level and not level & fitting.keys()]
    count = min([*gone, config.levels or len(names)])
    if count == 0 or (config.levels and count < config.levels):
        raise WeightsError(
            f"'{path}' holds weights for the first {count} of {len(names)} feature levels of '{config.name}'; "
            f"backbone.levels={config.levels} needs more"
        )
    if absent := sorted(set().union(*heavy[:count]) - fitting.keys()):
        raise WeightsError(
            f"'{path}' belongs to another network: {len(absent)} convolutions of '{config.name}' are not in it "
            f"({some(absent)}). Set backbone.name to the network of the file"
        )
    net.load_state_dict(fitting, strict=False)

    kept = {name for level in names[:count] for name in level}
    missing = sorted(kept - fitting.keys())
    notes = [f"{len(fitting)} tensors loaded from '{path}'"]
    if count < len(names):
        notes.append(f"{count} of {len(names)} feature levels kept")
    if missing:
        notes.append(f"{len(missing)} not in the file, left as they were: {some(missing)}")
    if unexpected:
        notes.append(f"{len(unexpected)} in the file that the network does not have, not used: {some(unexpected)}")
    logger.log(logging.WARNING if missing else logging.INFO, "%s: %s", config.name, "; ".join(notes))
    return count


def _kind(tensor: Tensor) -> str:
    """Say what must be equal for a tensor to be loaded into another."""
    return f"{tuple(tensor.shape)}{'' if tensor.is_floating_point() else ' of whole numbers'}"


def some(names: Any, limit: int = 3) -> str:
    """Spell out the first few names."""
    names = list(names)
    return ", ".join(map(shown, names[:limit])) + (", ..." if len(names) > limit else "")
