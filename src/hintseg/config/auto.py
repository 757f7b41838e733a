"""Turn `auto` into numbers: training length, crop, batch and rate from the data, the weights and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hintseg.config.settings import FitConfig, MethodConfig


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
# ones. Chosen so that the small sets of docs/benchmarks.md train in minutes; not tuned beyond that. `one_stage` stands
# for methods that go from tags to a segmenter at once: a fifth of their steps only warms the branches up.
_STEPS = {
    "localize": (180, 600),
    "refine": (180, 250),
    "segment": (500, 800),
    "propose": (500, 800),
    "one_stage": (900, 1500),
}
_PASSES = {"localize": 6, "refine": 3, "segment": 12, "propose": 12, "one_stage": 12}

# Optimiser, backbone rate, factor of the heads, weight decay. A classifier on learned features starts from nothing and
# has few photos: it needs a hundred times the rate that leaves the features whole (docs/benchmarks.md, "rates").
_LEARNED = {
    "localize": ("sgd", 0.001, 100.0, 1e-4),
    "refine": ("adamw", 0.001, 1.0, 1e-4),
    "segment": ("adamw", 0.0001, 10.0, 0.01),
    "propose": ("adamw", 0.0001, 10.0, 0.01),
    # Methods that differ from their task: a transformer is not trained by SGD, and AffinityNet trains its backbone too.
    "mctformer": ("adamw", 0.0001, 10.0, 0.05),
    "affinitynet": ("adamw", 0.0001, 10.0, 1e-4),
    "one_stage": ("adamw", 0.0001, 10.0, 0.01),
}
_RANDOM = ("adamw", 0.002, 1.0, 0.05)


def resolve_fit(config: MethodConfig, facts: Facts) -> FitConfig:
    """Return the method's training settings without any `auto`.

    Example:
        >>> from hintseg.config.settings import MethodConfig
        >>> class Any(MethodConfig):
        ...     task = "localize"
        >>> fit = resolve_fit(Any(method="any"), Facts(photos=355, side=213, pretrained=True, gpu=False))
        >>> fit.epochs, fit.batch_size, fit.crop
        (8, 16, 224)
    """
    fit, task = config.fit, getattr(config, "pace", config.task)
    batch = fit.batch_size if fit.batch_size != "auto" else max(1, min(16, facts.photos // 4))
    steps = _STEPS[task][0 if facts.pretrained else 1]
    learned = _LEARNED.get(config.method, _LEARNED[task])
    optimizer, lr, head_lr, weight_decay = learned if facts.pretrained else _RANDOM
    wanted: dict[str, Any] = {
        "epochs": max(_PASSES[task], round(steps * batch / max(facts.photos, 1))),
        "batch_size": batch,
        "crop": min(448 if facts.gpu else 256, max(64, round(facts.side / 32) * 32)),
        "scale": (0.7, 1.4) if task == "localize" else (0.5, 1.5),
        "optimizer": optimizer,
        "lr": lr,
        "head_lr": head_lr,
        "weight_decay": weight_decay,
        "warmup": 0.05 if facts.pretrained else 0.2,
    }
    return fit.model_copy(update={key: value for key, value in wanted.items() if getattr(fit, key) == "auto"})
