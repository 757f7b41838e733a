"""hintseg: from tags, boxes, scribbles and points to pixel masks, a segmentation model and an honest report.

The verbs are imported when first used: ``import hintseg`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hintseg import cam, refine
    from hintseg.api import (
        Run,
        check,
        demo,
        evaluate,
        export,
        load,
        masks,
        masks_from,
        predict,
        report,
        review,
        review_list,
        send_review,
        study,
        take_review,
        train,
        train_again,
    )
    from hintseg.errors import HintsegError

_API = (
    "Run",
    "check",
    "convert",
    "demo",
    "evaluate",
    "export",
    "load",
    "masks",
    "masks_from",
    "predict",
    "report",
    "review",
    "review_list",
    "send_review",
    "simulate",
    "study",
    "take_review",
    "train",
    "train_again",
)
_WHERE = dict.fromkeys(_API, "hintseg.api") | {"HintsegError": "hintseg.errors"}
_ROOMS = ("cam", "refine")

__all__ = [
    "HintsegError",
    "Run",
    "cam",
    "check",
    "convert",
    "demo",
    "evaluate",
    "export",
    "load",
    "masks",
    "masks_from",
    "predict",
    "refine",
    "report",
    "review",
    "review_list",
    "send_review",
    "simulate",
    "study",
    "take_review",
    "train",
    "train_again",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes as long as the rest of this file many times over

        return version("hintseg")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in _ROOMS:
        return import_module(f"hintseg.{name}")
    raise AttributeError(f"module 'hintseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
