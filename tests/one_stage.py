"""What the tests of AFA and BMP share."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from hintseg.config.settings import BackboneConfig
from hintseg.methods.afa import Afa
from hintseg.methods.bmp import Bmp
from hintseg.types import Batch
from made import batch_of, rand
from published import afa_weights

TINY = BackboneConfig(name="mit_tiny", weights="random")


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
