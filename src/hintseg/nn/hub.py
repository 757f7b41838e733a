"""Published weights: which of them lie on this machine, and whether there is a way to the others."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, try_to_load_from_cache

from hintseg.config.settings import BackboneConfig
from hintseg.errors import HintsegWarning, WeightsError

PATIENCE = 2.0
"""Seconds in which the hub, or the proxy before it, has to answer; its own client tries for most of a minute."""

FILES = ("model.safetensors", "pytorch_model.bin")
"""The names that timm looks for, in its order."""


def is_cached(facts: Mapping[str, Any]) -> bool:
    """Return whether a network's published weights lie in the hub's cache on this machine.

    Args:
        facts: timm's `pretrained_cfg` of the network.
    """
    repository = facts.get("hf_hub_id") or ""
    files = [facts["hf_hub_filename"]] if facts.get("hf_hub_filename") else FILES
    return repository != "" and any(isinstance(try_to_load_from_cache(repository, name), str) for name in files)


def check_reachable() -> None:
    """Connect to the hub, or to the proxy on the way to it.

    Raises:
        OSError: Nobody answers within `PATIENCE`, or the hub's client is told to stay offline.
    """
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    hub = urlsplit(constants.ENDPOINT)
    proxy = None if proxy_bypass(hub.hostname or "") else getproxies().get(hub.scheme)
    way = urlsplit(proxy if proxy is None or "://" in proxy else f"http://{proxy}") if proxy else hub
    place = way.hostname or "", way.port or (443 if way.scheme == "https" else 80)
    pool = ThreadPoolExecutor(1)  # a name is looked up without a limit of time
    try:
        pool.submit(_connect, place).result(PATIENCE)
    except TimeoutError as error:
        raise OSError(f"no connection to {hub.hostname} within {PATIENCE:g} s") from error
    except OSError as error:
        raise OSError(f"no connection to {hub.hostname}: {error.strerror or error}") from error
    finally:
        pool.shutdown(wait=False)


def _connect(place: tuple[str, int]) -> None:
    socket.create_connection(place, PATIENCE).close()


def go_without(config: BackboneConfig, reason: str) -> None:
    """Warn that published weights could not be had.

    Args:
        config: The network; `weights` is `pretrained`.
        reason: Why not.

    Raises:
        WeightsError: Nothing of the network would be trained: what it gives from random weights says nothing of photos.
    """
    missing = f"the ImageNet weights of '{config.name}' could not be had ({reason})"
    if config.freeze == "all":
        raise WeightsError(
            f"{missing}, and backbone.freeze=all trains nothing of it; give a local file with backbone.weights=FILE "
            "and the network it is of with backbone.name=NAME (or auto), or train it with backbone.freeze=auto"
        )
    warnings.warn(
        f"{missing}. The network starts from random weights, which costs much accuracy: give a local file with "
        "backbone.weights=FILE, or set backbone.weights=random to go without this warning",
        HintsegWarning,
        stacklevel=5,
    )


@contextmanager
def within_reach(facts: Mapping[str, Any]) -> Iterator[None]:
    """Have weights loaded inside come from the cache where they are in it, without a question to the hub.

    Args:
        facts: timm's `pretrained_cfg` of the network.

    Raises:
        OSError: They are not there, and there is no way to the hub.
    """
    offline = constants.HF_HUB_OFFLINE
    here = is_cached(facts)
    if facts.get("hf_hub_id") and not here:
        check_reachable()
    constants.HF_HUB_OFFLINE = offline or here
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
