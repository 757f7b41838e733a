"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math

from torch.optim import SGD, AdamW, Optimizer

from hintseg.config.settings import FitConfig
from hintseg.types import ParameterGroup


def learning_rate_factor(step: int, steps: int, fit: FitConfig) -> float:
    """Return the factor on the learning rate at optimiser step `step` of `steps`, counted from 0.

    A linear warm-up over the first `fit.warmup` of all steps, then ``(1 - t) ** power``, half a cosine, or a cut every
    few passes, where t is the share of all steps done (so the schedule does not start over when the warm-up ends). The
    first pass may have a factor of its own. With `poly_jump` the warm-up starts at a millionth and is not multiplied by
    the curve.

    Example:
        >>> fit = FitConfig(epochs=5, warmup=0.0, schedule="poly", power=0.9)
        >>> [round(learning_rate_factor(step, 10, fit), 3) for step in (0, 5, 9)]
        [1.0, 0.536, 0.126]
        >>> fit = FitConfig(epochs=5, warmup=0.0, schedule="step", decay=0.5, decay_epochs=2, first_epoch=0.1)
        >>> [learning_rate_factor(step, 10, fit) for step in (0, 2, 4, 8)]
        [0.1, 1.0, 0.5, 0.25]
    """
    done = min(step / max(steps, 1), 1.0)
    warm = round(float(fit.warmup) * steps)
    if fit.schedule == "poly_jump" and step < warm:
        return 1e-6 + (1 - 1e-6) * step / warm
    rise = 1.0 if fit.schedule == "poly_jump" else min(1.0, (step + 1) / (warm + 1))
    epoch = 0 if fit.epochs == "auto" else int(step * fit.epochs / max(steps, 1))
    fall: float
    if fit.schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * done))
    elif fit.schedule == "step":
        fall = fit.decay ** (epoch // fit.decay_epochs)
    else:
        fall = (1 - done) ** fit.power
    return rise * fall * (fit.first_epoch if epoch == 0 else 1.0)


def build_optimizer(groups: list[ParameterGroup], fit: FitConfig) -> Optimizer:
    """Return the optimiser of resolved settings; parameters that need no gradient are left out.

    AdamW does not decay norms and biases (parameters of one axis), as is usual with it.
    """
    base, head = float(fit.lr), float(fit.head_lr)
    rows = []
    for group in groups:
        rate = base * group.lr_factor * (head if group.head else 1.0)
        decay = float(fit.weight_decay) if group.weight_decay is None else group.weight_decay
        for flat in (False, True):
            parameters = [p for p in group.parameters if p.requires_grad and (p.ndim <= 1) is flat]
            if parameters:
                spared = flat and fit.optimizer == "adamw"
                rows.append({"params": parameters, "lr": rate, "weight_decay": 0.0 if spared else decay})
    if fit.optimizer == "sgd":
        return SGD(rows, lr=base, momentum=fit.momentum)
    return AdamW(rows, lr=base)
