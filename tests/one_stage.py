"""What the tests of AFA and BMP share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from batches import batch_of
from hintseg.config.settings import BackboneConfig

SHARED = Path(__file__).resolve().parents[2] / "shared"
REFERENCE = SHARED / "reference"
TINY = BackboneConfig(name="mit_tiny", weights="random")


def reference(name):
    return {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(REFERENCE / f"{name}.npz").items()}


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def windows_of(boxes):
    """Published boxes are (y0, y1, x0, x1)."""
    return torch.stack([boxes[:, 2], boxes[:, 0], boxes[:, 3], boxes[:, 1]], dim=1).long()


def batch(classes=3, size=64):
    tags = torch.zeros(2, classes)
    tags[0, [0, classes - 1]] = 1
    tags[1, 1] = 1
    images = rand(2, 3, size, size)
    return batch_of(images, tags, windows=torch.tensor([[0, 0, size, size], [4, 8, size - 6, size - 10]]))


def load_published(method):
    """Load the published tiny network into a method, name by name."""
    own = {}
    for name, value in load_file(REFERENCE / "afa_tiny.safetensors").items():
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


def normalised(method, x):
    """Turn a normalised image into the 0..1 image that gives it."""
    return x * method.backbone.std + method.backbone.mean
