"""torchvision and timm, imported without torch's compiler.

Both load ``torch._dynamo`` for functions that no network here calls: half of what importing them costs. What needs it
loads it when it runs. Modules that use the two take them from here, or lie in a package that does (`hintseg.nn`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch._compile import _disable_dynamo  # what torch's own functions are kept from its compiler with

UTILS = "torch._dynamo.utils"


@contextmanager
def compiler_later() -> Iterator[None]:
    """Let what is imported inside name torch's compiler without loading it."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    disable, later = torch.compiler.disable, ModuleType(UTILS)
    vars(later).update(is_compile_supported=_is_compile_supported, __getattr__=_of_utils)
    sys.modules[UTILS], torch.compiler.disable = later, _disable
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(UTILS) is later:
            del sys.modules[UTILS]


def _disable(fn: Callable[..., Any] | None = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    return _disable_dynamo(fn, recursive)


def _is_compile_supported(device_type: str) -> Any:
    return _of_utils("is_compile_supported")(device_type)


def _of_utils(name: str) -> Any:
    """Return an attribute of the true module, which takes the place of the other."""
    if name.startswith("__"):
        raise AttributeError(name)
    if vars(sys.modules.get(UTILS, sys)).get("__getattr__") is _of_utils:
        del sys.modules[UTILS]
    return getattr(import_module(UTILS), name)


with compiler_later():
    import timm
    import torchvision.transforms.v2

__all__ = ["timm", "torchvision"]
