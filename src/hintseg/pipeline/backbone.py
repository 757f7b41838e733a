"""Before anything is written: `backbone.name=auto` becomes a name, and weights that are needed are asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from hintseg.config.loader import parse_config
from hintseg.config.run import STAGES, RunConfig
from hintseg.config.settings import AUTO_BACKBONE, LOCALIZER, BackboneConfig
from hintseg.nn.hub import go_without, within_reach
from hintseg.run.schema import Stage
from hintseg.training import machine


def settle(config: RunConfig, before: RunConfig | None) -> tuple[RunConfig, list[str]]:
    """Return the settings with a network in place of every `auto`, and why, a sentence for each kind of weights.

    Args:
        config: The settings.
        before: Those that the run in this folder has, whose networks stay; None: it begins.

    Raises:
        ConfigError: A weight file whose network cannot be told.
        WeightsError: A weight file that cannot be read.
    """
    raw = config.model_dump(mode="json")
    kept = {} if before is None else before.model_dump(mode="json")
    names: dict[str, str] = {}
    said: dict[str, str] = {}
    for stage in ("", *STAGES):
        backbone = ((raw[stage] or {}) if stage else raw).get("backbone")
        if backbone is None or backbone["name"] != AUTO_BACKBONE:
            continue
        earlier = ((kept.get(stage) or {}) if stage else kept).get("backbone")
        weights = str(backbone["weights"])
        if earlier is not None and earlier["weights"] == weights:
            backbone["name"] = earlier["name"]
        elif weights == LOCALIZER and raw["localize"] is not None:
            backbone["name"] = raw["localize"]["backbone"]["name"]
        else:
            if weights not in names:
                names[weights], said[weights] = _choose(weights, config)
            backbone["name"] = names[weights]
    if raw == config.model_dump(mode="json"):
        return config, []
    return parse_config(raw), [f"auto is '{names[weights]}': {why}" for weights, why in said.items()]


def check_networks(config: RunConfig, stages: Sequence[Stage]) -> None:
    """Refuse networks that the stages could not build: each is built once, with the weights of its file.

    Published weights are asked for where nothing of their network would be trained; elsewhere it can do without.

    Raises:
        ConfigError: No such network, or a setting that it does not have.
        WeightsError: A weight file cannot be read or is of another network; or the published weights do not lie on
            this machine, and there is no way to the hub.
    """
    seen = list[BackboneConfig]()
    for stage in stages:
        backbone = getattr(getattr(config, stage), "backbone", None)
        if not isinstance(backbone, BackboneConfig) or backbone.weights == LOCALIZER or backbone in seen:
            continue
        seen.append(backbone)
        _build(backbone)
        if (backbone.freeze, backbone.weights) != ("all", "pretrained"):
            continue
        import timm

        facts = timm.get_pretrained_cfg(backbone.name)
        try:
            with within_reach({} if facts is None else facts.to_dict()):
                pass
        except OSError as error:
            go_without(backbone, str(error))


def _build(backbone: BackboneConfig) -> None:
    """Build a network and let it go. Chance is left as it was, and what is loaded is said when it is trained."""
    import torch

    from hintseg.nn.encoders import build_encoder

    logger = logging.getLogger("hintseg")
    disabled, logger.disabled = logger.disabled, True
    try:
        with torch.random.fork_rng(devices=()):
            own = {"weights": "random"} if backbone.weights == "pretrained" else {}
            build_encoder(backbone.model_copy(update=own))
    finally:
        logger.disabled = disabled


def _choose(weights: str, config: RunConfig) -> tuple[str, str]:
    from hintseg.nn.choose import Machine, choose

    device, gpu = machine.device(config.trainer), None
    if device.type == "cuda":
        import torch

        gpu = torch.cuda.get_device_properties(device).total_memory / 2**30
    return choose(weights, Machine(gpu, machine.cores(), _memory()))


def _memory() -> float | None:
    """Return the machine's memory, GiB, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None
