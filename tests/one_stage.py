"""What the tests of AFA and BMP share."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hintseg.config.settings import BackboneConfig
from hintseg.losses.mutual import C2s
from hintseg.methods.afa import Afa
from hintseg.methods.bmp import Bmp, BmpConfig
from hintseg.types import Batch
from made import batch_of, rand
from published import afa_weights

TINY = BackboneConfig(name="mit_tiny", weights="random")
PAPER = {  # what the recipe `bmp` does otherwise
    "sigma_c": 0.75,
    "sigma_s": 0.5,
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


def windows_of(boxes: Tensor) -> Tensor:
    """Published boxes are (y0, y1, x0, x1)."""
    return torch.stack([boxes[:, 2], boxes[:, 0], boxes[:, 3], boxes[:, 1]], dim=1).long()


def batch(classes: int = 3, size: int = 64) -> Batch:
    tags = torch.zeros(2, classes)
    tags[0, [0, classes - 1]] = 1
    tags[1, 1] = 1
    images = rand(2, 3, size, size)
    return batch_of(images, tags, windows=torch.tensor([[0, 0, size, size], [4, 8, size - 6, size - 10]]))


OneStage = TypeVar("OneStage", Afa, Bmp)


def load_published(method: OneStage) -> OneStage:
    """Load the published tiny network into a method, name by name."""
    own = {}
    for name, value in afa_weights().items():
        kind = name.rsplit(".", 1)[1]
        if name.startswith("encoder."):
            own[name.replace("encoder", "backbone", 1)] = value
        elif name.startswith("attn_proj"):
            own[f"affinity_head.project.{kind}"] = value
        elif "linear_c" in name:
            level = int(name.split("linear_c")[1][0]) - 1
            own[f"decoder.project.{level}.{kind}"] = value[:, :, None, None] if value.ndim == 2 else value
        elif "linear_fuse.conv" in name:  # ours fuses the finest level first, theirs last
            own["decoder.fuse.0.weight"] = torch.cat(value.chunk(4, dim=1)[::-1], dim=1)
        elif "linear_fuse.bn" in name:
            own[f"decoder.fuse.1.{kind}"] = value
        elif "linear_pred" in name:
            own[f"decoder.classify.{kind}"] = value
        else:
            own[name] = value
    left = method.load_state_dict(own, strict=False)
    assert not left.unexpected_keys
    assert all("feature_scales" in name or name == "prior.offset" for name in left.missing_keys)
    return method.eval()


def normalised(method: Afa | Bmp, x: Tensor) -> Tensor:
    """Turn a normalised image into the 0..1 image that gives it."""
    return x * method.backbone.std + method.backbone.mean


def grow(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def bmp(classes: int = 3, **settings: Any) -> Bmp:
    torch.manual_seed(0)
    return Bmp(BmpConfig.model_validate({"backbone": TINY, "width": 16} | PAPER | settings), classes, True)


def labels_seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The labels that Branch-C gives to Branch-S from now on; they cost nothing."""
    seen: list[Tensor] = []

    def of(self: C2s, s_s: Tensor, y_c: Tensor, trust: Tensor | None) -> Tensor:
        seen.append(y_c)
        return s_s.sum() * 0

    monkeypatch.setattr(C2s, "of", of)
    return seen


def plain_stretch(values: Tensor) -> Tensor:
    return (values - values.min()) / ((values - values.min()).max() + 1e-5)
