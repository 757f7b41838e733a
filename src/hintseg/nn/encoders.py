"""Which network a name means."""

from __future__ import annotations

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError
from hintseg.nn.backbones import Backbone
from hintseg.nn.mit import SIZES, Mit
from hintseg.nn.plain_vit import PlainVit, is_plain_vit
from hintseg.types import ParameterGroup

Encoder = Backbone | Mit | PlainVit


def build_encoder(config: BackboneConfig, extra: int = 0) -> Encoder:
    """Return a feature network: a Mix Transformer, a plain vision transformer, or any other timm network.

    Args:
        config: The network's settings.
        extra: Channels it reads beside the image, with weights of zero at first.

    Raises:
        ConfigError: No such network, or a setting that it does not have.
        WeightsError: The weight file cannot be read or belongs to another network.
    """
    if config.name in SIZES:
        if extra:
            raise ConfigError(
                f"'{config.name}' reads images alone and cannot be given {extra} more channels; choose another "
                "backbone.name, such as resnet50"
            )
        return Mit(config)
    return PlainVit(config, extra) if is_plain_vit(config.name) else Backbone(config, extra)


def encoder_groups(encoder: Encoder) -> list[ParameterGroup]:
    """Return the parameters of a feature network, those of a vision transformer with a rate for each block.

    The rate falls by `layer_decay` from each block to the one before, and once more to what lies before the first.

    Source:
        Clark et al., ICLR 2020; Bao et al., ICLR 2022 (BEiT), appendix.
    """
    decay = encoder.config.layer_decay
    if decay == 1 or not isinstance(encoder, PlainVit):
        return [ParameterGroup(list(encoder.parameters()))]
    depth = len(encoder.net.blocks)
    rates: dict[int, ParameterGroup] = {}
    for name, parameter in encoder.net.named_parameters():
        first, _, rest = name.partition(".")
        place = int(rest.partition(".")[0]) + 1 if first == "blocks" else (depth if first == "norm" else 0)
        rates.setdefault(place, ParameterGroup([], decay ** (depth - place))).parameters.append(parameter)
    return [rates[place] for place in sorted(rates, reverse=True)]
