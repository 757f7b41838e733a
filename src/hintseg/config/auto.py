"""Turn `auto` into numbers: training length, crop, batch and rate from the data, the weights and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hintseg.config.settings import FitConfig, MethodConfig

Task = Literal["localize", "refine", "segment", "propose"]


@dataclass(frozen=True)
class Facts:
    """What `auto` depends on.

    Attributes:
        photos: Training photos; for a method that learns from crops of boxes, the boxes of an epoch.
        side: Median of the photos' shorter sides, pixels; for crops, their side.
        pretrained: Whether the backbone starts from learned weights.
        gpu: Whether a GPU does the work.
    """

    photos: int
    side: int
    pretrained: bool
    gpu: bool


# Optimiser steps that small data sets need, (with learned weights, from random ones), and the fewest passes over large
# ones. Chosen so that the small sets of docs/notebook.md train in minutes; not tuned beyond that.
_LENGTH = {
    "localize": ((180, 600), 6),
    "refine": ((180, 250), 3),
    "segment": ((500, 800), 12),
    "propose": ((500, 800), 12),
}

# Optimiser, backbone rate, factor of the heads, weight decay. A classifier on learned features starts from nothing and
# has few photos: it needs a hundred times the rate that leaves the features whole (docs/notebook.md, "Rates").
_LEARNED = {
    "localize": ("sgd", 0.001, 100.0, 1e-4),
    "refine": ("adamw", 0.001, 1.0, 1e-4),
    "segment": ("adamw", 0.0001, 10.0, 0.01),
    "propose": ("adamw", 0.0001, 10.0, 0.01),
}
_RANDOM = ("adamw", 0.002, 1.0, 0.05)


def epochs(steps: tuple[int, int], passes: int, batch: int, facts: Facts) -> int:
    """Return how many passes make so many steps.

    Args:
        steps: Optimiser steps with learned weights, and from random ones.
        passes: The fewest passes.
        batch: Photos per step.
        facts: What there is.
    """
    return max(passes, round(steps[0 if facts.pretrained else 1] * batch / max(facts.photos, 1)))


def of_task(task: Task, batch: int | None, facts: Facts) -> dict[str, Any]:
    """Return what `auto` becomes for networks of a task, by the names of `FitConfig`.

    Args:
        task: What the network does.
        batch: Photos per step; None where they are not given.
        facts: What there is.
    """
    size = max(1, min(16, facts.photos // 4)) if batch is None else batch
    optimizer, lr, head_lr, weight_decay = _LEARNED[task] if facts.pretrained else _RANDOM
    return {
        "epochs": epochs(*_LENGTH[task], size, facts),
        "batch_size": size,
        "crop": min(448 if facts.gpu else 256, max(64, round(facts.side / 32) * 32)),
        "scale": (0.7, 1.4) if task == "localize" else (0.5, 1.5),
        "optimizer": optimizer,
        "lr": lr,
        "head_lr": head_lr,
        "weight_decay": weight_decay,
        "warmup": 0.05 if facts.pretrained else 0.2,
    }


def resolve_fit(config: MethodConfig, facts: Facts) -> FitConfig:
    """Return the method's training settings without any `auto`: see `MethodConfig.defaults`.

    Example:
        >>> from hintseg.config.settings import MethodConfig
        >>> class Any(MethodConfig):
        ...     task = "localize"
        >>> fit = resolve_fit(Any(method="any"), Facts(photos=355, side=213, pretrained=True, gpu=False))
        >>> fit.epochs, fit.batch_size, fit.crop
        (8, 16, 224)
    """
    fit, wanted = config.fit, config.defaults(facts)
    return fit.model_copy(update={key: value for key, value in wanted.items() if getattr(fit, key) == "auto"})
