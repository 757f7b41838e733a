"""Losses and gradients of every method on one fixed batch, to compare two commits or two machines.

What changes when the types change is in two small places: `make_batch` and `losses_of`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from hintseg.methods.method import Method
from hintseg.registry import METHODS, resolve
from hintseg.types import Batch, Progress, Targets
from hintseg.wrappers.csd import Csd, CsdConfig

KEPT = Path(__file__).with_name("golden.json")
CLASSES, SIZE = 3, 64
RESNET = {"name": "resnet10t", "weights": "random", "output_stride": 8, "levels": 4}
MIT = {"name": "mit_tiny", "weights": "random"}
VIT = {"name": "vit_tiny_patch16_224", "weights": "random", "output_stride": 8, "depth": 2, "width": 24, "heads": 3}


class Case(NamedTuple):
    """One method with its settings, and where in the training it stands (step of 100)."""

    method: str
    settings: dict[str, object]
    step: int = 50
    background: bool = True
    csd: dict[str, object] | None = None


PAPER_CSD = {"form": "paper", "teacher": "online", "foreground": 0.01}
PAPER_BMP = {
    "confidence": "softmax",
    "c2s_loss": "soft_margin",
    "balance_c2s": False,
    "balance_s2c": False,
    "floor_s2c": 0.0,
    "s2c_ramp": 0.0,
    "s2c_reaches": "encoder",
    "teacher": "step",
    "object_prior": "sigmoid",
}
LEARNED_WORDS: dict[str, object] = {"codebook": "learned", "temperature": 1.0, "frequency": "sum", "word_scale": False}
WALK: dict[str, object] = {"walk_share": 1.0, "walk_start": 0.0, "walk_steps": 1}
FIXED: dict[str, object] = {"par_reach": "fixed"}
LOW = {"sigma_c": 0.1, "sigma_s": 0.1}  # untrained branches are sure of nothing
CASES = {
    "cam": Case("cam", {"backbone": RESNET, "pooling": "gap"}),
    "cam-hspp": Case("cam", {"backbone": RESNET, "pooling": "hspp"}),
    "vwe": Case("vwe", {"backbone": RESNET, "words": 16} | LEARNED_WORDS),
    "vwe-means": Case("vwe", {"backbone": RESNET, "words": 16}),
    "mctformer": Case("mctformer", {"backbone": VIT}),
    "mctformer-hybrid": Case("mctformer", {"backbone": VIT | {"stem": RESNET | {"levels": 5}}}),
    "csd-cam": Case(
        "cam", {"backbone": RESNET}, csd=PAPER_CSD | {"reliable": 0.0, "foreground": 1.0, "background": 1.0}
    ),
    "csd-vwe": Case(
        "vwe",
        {"backbone": RESNET, "words": 16} | LEARNED_WORDS,
        csd=PAPER_CSD | {"background": 0.1, "reliable": 0.3, "shift": 2},
    ),
    "csd-mctformer": Case(
        "mctformer", {"backbone": VIT}, csd=PAPER_CSD | {"reliable": 0.0, "foreground": 1.0, "background": 1.0}
    ),
    "csd-scale-free": Case("cam", {"backbone": RESNET}, csd={"reliable": 0.0, "background": 1.0}),
    "irn": Case("irn", {"backbone": RESNET}),
    "irn-edges": Case("irn", {"backbone": RESNET, "displacement": False}),
    "affinitynet": Case("affinitynet", {"backbone": RESNET, "cell": 4}),
    "deeplabv2": Case("deeplabv2", {"backbone": RESNET}),
    "deeplabv2-scales": Case("deeplabv2", {"backbone": RESNET, "scales": (1.0, 0.75, 0.5)}),
    "deeplabv2-no-background": Case("deeplabv2", {"backbone": RESNET}, background=False),
    "segformer_head": Case("segformer_head", {"backbone": RESNET, "width": 16}),
    "segformer_head-mit": Case("segformer_head", {"backbone": MIT, "width": 16}),
    "lgsa": Case("lgsa", {"backbone": RESNET} | WALK),
    "lgsa-probabilities": Case("lgsa", {"backbone": RESNET, "walk_on": "probabilities"} | WALK),
    "lgsa-mass": Case("lgsa", {"backbone": RESNET, "attention_loss": "mass"}),
    "lgsa-non-local": Case("lgsa", {"backbone": RESNET, "attention": "non_local"}),
    "cfs": Case("cfs", {"backbone": RESNET | {"levels": 5}, "widths": (16, 16, 8, 8)}),
    "afa-warm": Case("afa", {"backbone": MIT, "width": 16} | FIXED, 5),
    "afa-par": Case("afa", {"backbone": MIT, "width": 16} | FIXED, 20),
    "afa": Case("afa", {"backbone": MIT, "width": 16} | FIXED),
    "afa-timm": Case("afa", {"backbone": RESNET, "width": 16} | FIXED),
    "afa-no-background": Case("afa", {"backbone": MIT, "width": 16} | FIXED, background=False),
    "afa-reach": Case("afa", {"backbone": MIT, "width": 16}),
    "bmp-warm": Case("bmp", {"backbone": MIT, "width": 16} | FIXED | PAPER_BMP | LOW, 5),
    "bmp-par": Case("bmp", {"backbone": MIT, "width": 16} | FIXED | PAPER_BMP | LOW, 15),
    "bmp": Case("bmp", {"backbone": MIT, "width": 16} | FIXED | PAPER_BMP | LOW),
    "bmp-timm": Case("bmp", {"backbone": RESNET, "width": 16} | FIXED | PAPER_BMP | LOW),
    "bmp-ours": Case("bmp", {"backbone": MIT, "width": 16, "sigma_c": 0.1, "sigma_s": 0.1}),
    "bmp-ours-no-background": Case("bmp", {"backbone": MIT, "width": 16, "sigma_s": 0.1}, background=False),
    "bmp-no-background": Case("bmp", {"backbone": MIT, "width": 16} | FIXED | PAPER_BMP | LOW, background=False),
}


class Made(NamedTuple):
    """Photos with everything known of them; integers only, so that every machine makes the same."""

    rgb: np.ndarray  # (B, H, W, 3) uint8
    tags: np.ndarray  # (B, K) 0 or 1: all tags are known
    masks: np.ndarray  # (B, H, W) uint8
    windows: np.ndarray  # (B, 4)


def made(labels: list[list[int]], seed: int) -> Made:
    """Paint a rectangle per class on noise; a strip under each is of unknown label."""
    random = np.random.RandomState(seed)  # its stream is fixed for good
    rgb = random.randint(70, 150, (len(labels), SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.zeros((len(labels), SIZE, SIZE), np.uint8)
    tags = np.zeros((len(labels), CLASSES), np.float32)
    windows = np.array([[0, 0, SIZE, SIZE]] * len(labels))
    for i, present in enumerate(labels):
        for label in present:
            y, x = random.randint(4, SIZE - 30, 2)
            height, width = random.randint(18, 28, 2)
            area = (i, slice(y, y + height), slice(x, x + width))
            rgb[area] = rgb[area] // 2
            rgb[area][..., label - 1] += 120
            masks[area] = label
            masks[i, y + height - 2 : y + height + 2, x : x + width] = 255
            tags[i, label - 1] = 1
    windows[-1] = (4, 8, SIZE - 6, SIZE - 10)
    padded = np.ones((SIZE, SIZE), bool)
    padded[8 : SIZE - 10, 4 : SIZE - 6] = False
    masks[-1][padded] = 255
    return Made(rgb, tags, masks, windows)


TARGETS, SOURCES = [[1, 2], [3], [], [2, 3]], [[1], [3]]  # each photo of several tags has a source of one tag


def make_batch(case: Case) -> Batch:
    """Return the batch as the method is given it in training."""

    def batch(photos: Made, source: Batch | None = None) -> Batch:
        images = torch.from_numpy(photos.rgb).permute(0, 3, 1, 2).contiguous().float() / 255
        tags, masks = torch.from_numpy(photos.tags), torch.from_numpy(photos.masks)
        windows = torch.from_numpy(photos.windows)
        if not case.background:  # then no pixel is 0
            masks = masks.masked_fill(masks == 0, 255)
        targets = Targets(tags, torch.ones_like(tags, dtype=torch.bool), windows, masks)
        if case.method == "cfs":  # crops around one box: foreground is what the crop's class covers
            boxes = tuple(torch.tensor([[label, 12.0, 10.0, 50.0, 44.0]]) for label in (1, 3, 2, 2))
            targets = replace(targets, pixels=torch.where(masks == 255, masks, (masks > 0).byte()), boxes=boxes)
        return Batch([f"photo{i}" for i in range(len(tags))], images, targets, source)

    return batch(made(TARGETS, 0), batch(made(SOURCES, 1)) if case.csd is not None else None)


def losses_of(method: Method, batch: Batch, step: int) -> dict[str, Tensor]:
    """Return the weighted losses of a training step by name."""
    return method.losses(batch, Progress(step, 100))


def build(case: Case) -> Method:
    """Return a small network of random weights in training mode: its scales measured, its dropout off."""
    torch.manual_seed(0)
    kind = resolve("method", case.method, METHODS)
    # Bounds a hundred deviations away cut nothing, but how torch draws within them differs from version to version.
    with patch("torch.nn.init.trunc_normal_", lambda weight, std: nn.init.normal_(weight, 0, std)):
        method: Method = kind(kind.Config.model_validate(case.settings), CLASSES, case.background)
    if case.csd is not None:
        method = Csd(method, CsdConfig.model_validate(case.csd))
    with torch.no_grad():
        for value in method.parameters():  # some start from zero, and would hide the gradient of others
            value.add_((torch.rand(value.shape) - 0.5) / 10)
    method.eval().prepare([make_batch(case)])
    method.train()
    for part in method.modules():
        if isinstance(part, nn.Dropout | nn.Dropout2d):
            part.p = 0.0
        if hasattr(part, "drop_prob"):  # stochastic depth
            part.drop_prob = 0.0  # type: ignore[assignment]
    return method


class Result(NamedTuple):
    """Losses by name, and the gradient of their sum for each trainable parameter; None where there is none."""

    losses: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


def run(case: Case) -> Result:
    """Take the losses and gradients of one training step."""
    method = build(case)
    torch.manual_seed(1)
    losses = losses_of(method, make_batch(case), case.step)
    torch.stack(list(losses.values())).sum().backward()
    return Result(
        {name: loss.detach() for name, loss in losses.items()},
        {name: value.grad for name, value in method.named_parameters() if value.requires_grad},
    )


def plain(found: Result, of_gradient: Callable[[Tensor], object]) -> dict[str, dict[str, object]]:
    """Return a result as JSON holds it: losses as hexadecimal floats, gradients as `of_gradient` makes them."""
    gradients = found.gradients.items()
    return {
        "losses": {name: float(loss.item()).hex() for name, loss in found.losses.items()},
        "gradients": {name: None if value is None else of_gradient(value) for name, value in gradients},
    }


def digest(gradient: Tensor) -> str:
    """Return a checksum of every bit."""
    return hashlib.sha256(gradient.contiguous().numpy().tobytes()).hexdigest()[:16]


def summary(gradient: Tensor) -> list[float]:
    """Return the norm, a sum with changing weights (so that the order counts) and the first entry."""
    flat = gradient.double().flatten()
    weights = torch.arange(len(flat), dtype=torch.float64).mul(0.7).cos()
    return [float(f"{value.item():.8g}") for value in (flat.norm(), (flat * weights).sum(), flat[0])]


def to_json(found: dict[str, dict[str, dict[str, object]]]) -> str:
    """Return JSON with a line for each loss and each parameter."""
    lines = [
        f'"{case}": {{\n' + ",\n".join(_block(title, values) for title, values in parts.items()) + "\n}"
        for case, parts in found.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(title: str, values: dict[str, object]) -> str:
    rows = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in values.items())
    return f' "{title}": {{\n{rows}\n }}'
