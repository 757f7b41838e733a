"""A trained segmenter as one ONNX file that is known to give the same answers."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hintseg.errors import RunError
from hintseg.files.atomic import whole_file
from hintseg.methods.method import Method

_LOG = logging.getLogger("hintseg")

OPSET = 18
"""The operator set torch's exporter writes without a conversion."""

TOLERANCE = 1e-3
"""Largest difference of a class's logits, as a share of that class's largest logit (at least 1)."""

_PRODUCER = "hintseg"

AGREEMENT = 0.999
"""Smallest share of pixels that must get the same class."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported and how well it agrees with torch.

    Attributes:
        path: The ONNX file.
        size_bytes: Its size, bytes.
        dynamic_size: Whether it takes photos of any size; if not, only the size given. The batch size is always free.
        max_difference: Largest absolute difference of a logit between onnxruntime and torch.
        agreement: Share of pixels that get the same class from both, 0..1.
    """

    path: Path
    size_bytes: int
    dynamic_size: bool
    max_difference: float
    agreement: float


class _FullSize(nn.Module):
    """The segmenter with logits at the size of its images, which is what people outside of torch expect."""

    def __init__(self, segmenter: Method) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        logits = self.segmenter.segment(images)  # (B, C, h, w)
        return interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)  # (B, C, H, W)


def export_onnx(
    model: nn.Module, out: Path, *, size: tuple[int, int], classes: Sequence[str], background: bool
) -> ExportReport:
    """Write a segmenter as ONNX and check it against torch on random images.

    The graph takes ``images`` (B, 3, H, W), float32 RGB in 0..1 (it normalises by itself), and returns ``logits``
    (B, C, H, W), background first. Any B is accepted, and any H and W where the network allows it. The file's
    metadata says the same, and holds the class names as JSON.

    Args:
        model: A trained segmenter, with ``segment(images)`` -> (B, C, h, w) logits. It is copied, not changed.
        out: The file to write; it appears whole or not at all.
        size: Height and width of a typical photo, pixels: the only size accepted where other sizes cannot be had.
        classes: Names of the K foreground classes.
        background: Whether channel 0 can win; it never does where the data has no background.

    Returns:
        How large the file is, and how far onnxruntime and torch agree.

    Raises:
        RunError: The extra ``hintseg[export]`` is missing, `model` is no segmenter of these classes, it cannot be
            exported, the file's answers differ from torch's, or it cannot be written, such as over another file.

    Cost:
        A copy of the model and two exports at most: seconds to a minute.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise RunError(f"ONNX export needs {', '.join(missing)}. Install the extra: pip install 'hintseg[export]'")
    if not hasattr(model, "segment"):
        raise RunError(f"{type(model).__name__} has no segment(images): only segmenters can be exported")
    if out.is_dir():
        raise RunError(f"{out} is a folder. Give the name of the file to write, such as {out / 'model.onnx'}")
    if out.exists() and not _is_ours(out):
        raise RunError(f"{out} is there and hintseg did not write it; choose another --out")
    network = _FullSize(cast(Method, copy.deepcopy(model))).cpu().float().eval()
    channels = _run_torch(network, _random_images(1, size)).shape[1]
    if channels != len(classes) + 1:
        raise RunError(
            f"the segmenter has {channels} channels, but {len(classes)} classes and a background need "
            f"{len(classes) + 1}. Give the classes it was trained with"
        )
    other = (size[0] + 32, size[1] + 64)
    try:
        graph = _trace(network, size, dynamic_size=True)
        differences = [
            _compare(network, graph, images) for images in (_random_images(2, size), _random_images(1, other))
        ]
        dynamic_size = True
    except Exception as reason:  # exporter, onnxruntime and shape rules each raise their own; all mean "not any size"
        _LOG.info("the network is exported with a fixed size: %s", reason)
        try:
            graph = _trace(network, size, dynamic_size=False)
            differences = [_compare(network, graph, _random_images(2, size))]
        except RunError:
            raise
        except Exception as error:
            raise RunError(f"{type(model).__name__} cannot be exported to ONNX: {error}") from error
        dynamic_size = False
    _describe(graph, classes, background)
    with whole_file(out) as file:
        file.write(graph.SerializeToString())
    max_difference, agreement = max(d for d, _ in differences), min(a for _, a in differences)
    return ExportReport(out, out.stat().st_size, dynamic_size, max_difference, agreement)


def _random_images(count: int, size: tuple[int, int]) -> Tensor:
    """Return seeded noise images (count, 3, H, W) in 0..1: blobs and grain, so that all scales are exercised."""
    generator = torch.Generator().manual_seed(0)
    blobs = interpolate(torch.rand(count, 3, 6, 6, generator=generator), size=size, mode="bicubic").clamp(0, 1)
    return 0.7 * blobs + 0.3 * torch.rand(count, 3, *size, generator=generator)


def _run_torch(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return cast(Tensor, network(images))


def _trace(network: nn.Module, size: tuple[int, int], *, dynamic_size: bool) -> Any:
    """Return the ONNX graph (a ModelProto) with a free batch size, and free height and width where asked."""
    free = torch.export.Dim.DYNAMIC
    axes = {0: free, 2: free, 3: free} if dynamic_size else {0: free}
    program = torch.onnx.export(
        network,
        (_random_images(2, size),),  # two images: a batch of one would be taken for a constant
        input_names=["images"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=(axes,),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto


def _compare(network: nn.Module, graph: Any, images: Tensor) -> tuple[float, float]:
    """Return (largest absolute difference, share of equal arg-max); raise RunError where they are out of bounds."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"images": images.numpy()})[0]
    wanted = _run_torch(network, images).numpy()  # (B, C, H, W)
    if found.shape != wanted.shape:
        raise RunError(f"the ONNX file returns shape {found.shape}, torch returns {wanted.shape}; nothing was written")
    difference = np.abs(found - wanted).max(axis=(0, 2, 3))  # (C,)
    bound = TOLERANCE * np.maximum(np.abs(wanted).max(axis=(0, 2, 3)), 1)
    agreement = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    if not (difference <= bound).all() or agreement < AGREEMENT:
        raise RunError(
            f"the ONNX file does not agree with torch on random images: largest difference {difference.max():.2g}, "
            f"same class on {100 * agreement:.2f} % of pixels (needed: {100 * AGREEMENT:.1f} %). Nothing was written; "
            "please report the method and the versions of torch and onnxruntime"
        )
    return float(difference.max()), agreement


def _is_ours(file: Path) -> bool:
    """Return whether a file is a graph that says that we wrote it."""
    import onnx

    try:
        return bool(onnx.load(file, load_external_data=False).producer_name == _PRODUCER)
    except Exception:  # no protobuf, or no such file any more
        return False


def _describe(graph: Any, classes: Sequence[str], background: bool) -> None:
    """Write into the metadata what goes in, what comes out and which channel is which class."""
    import onnx

    graph.producer_name = _PRODUCER
    zero = "channel 0 is background" if background else "channel 0 never wins (no background class)"
    onnx.helper.set_model_props(
        graph,
        {
            "input": "images (B, 3, H, W): float32 RGB in 0..1, not normalised; the network normalises by itself",
            "output": f"logits (B, C, H, W): {zero}, channel k is classes[k - 1]; the class of a pixel is the arg-max",
            "classes": json.dumps(list(classes)),
            "background": json.dumps(background),
        },
    )
