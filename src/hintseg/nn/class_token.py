"""How much the class token of a vision transformer looks at each cell, as a share of a class map.

Gao et al., "TS-CAM: Token Semantic Coupled Attention Map for Weakly Supervised Object Localization", ICCV 2021. The
features of a frozen network know which class is there; its class token knows where objects are.
"""

from __future__ import annotations

from hintseg.config.settings import Auto
from hintseg.errors import ConfigError
from hintseg.nn.encoders import Encoder
from hintseg.nn.plain_vit import PlainVit


def uses_class_token(asked: bool | Auto, encoder: Encoder, *, background: bool) -> bool:
    """Return whether class maps are to be multiplied by what the class token looks at.

    `auto`: where the network has a class token and its weights are frozen, so that the token still knows what an object
    is, and where there is a background to tell objects from.

    Args:
        asked: The setting `localize.attention`.
        encoder: The network.
        background: Whether pixels may belong to no class.

    Raises:
        ConfigError: It is asked for, and the network has no class token.

    Example:
        >>> from hintseg.config.settings import BackboneConfig
        >>> from hintseg.nn.encoders import build_encoder
        >>> frozen = BackboneConfig(name="vit_tiny_patch16_224", weights="random", output_stride=16, freeze="all")
        >>> uses_class_token("auto", build_encoder(frozen), background=True)
        True
    """
    able = isinstance(encoder, PlainVit) and encoder.has_class_token
    if asked is True and not able:
        raise ConfigError(
            f"localize.attention=true: '{encoder.config.name}' has no class token that looks at an image; take a "
            "vision transformer with one as backbone.name, such as deit_tiny_patch16_224"
        )
    return able and background and encoder.config.freeze == "all" if asked == "auto" else asked
