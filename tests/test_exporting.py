from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hintseg.errors import RunError
from hintseg.exporting import export_onnx, onnx_file

CLASSES = ["cat", "dog", "zürich <b>"]


class TinySegmenter(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, channels, 3, 2, 1)
        )

    def segment(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images - 0.5)
        return logits


class OneSizeSegmenter(TinySegmenter):
    """A network that, like a transformer with learned positions, takes one size only."""

    def segment(self, images: Tensor) -> Tensor:
        logits = super().segment(images)
        return logits + torch.linspace(0, 1, 8 * 10).view(1, 1, 8, 10)


def test_file_gives_the_logits_of_torch_at_any_size_and_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TinySegmenter().train()
    report = export_onnx(model, tmp_path / "new" / "model.onnx", size=(32, 40), classes=CLASSES, background=True)
    assert report.dynamic_size
    assert report.agreement >= 0.999
    assert report.size_bytes == report.path.stat().st_size
    assert model.training, "the caller's model must stay as it was"

    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, 50, 66)
    found = session.run(["logits"], {"images": images.numpy()})[0]
    with torch.no_grad():
        wanted = interpolate(model.eval().segment(images), size=(50, 66), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_metadata_says_what_the_channels_are(tmp_path: Path) -> None:
    export_onnx(TinySegmenter(), tmp_path / "model.onnx", size=(32, 40), classes=CLASSES, background=False)
    graph = onnx.load(tmp_path / "model.onnx")
    properties = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(properties["classes"]) == CLASSES
    assert properties["background"] == "false"
    assert "0..1" in properties["input"]
    assert graph.opset_import[0].version >= 17


def test_network_of_one_size_is_exported_with_that_size(tmp_path: Path) -> None:
    report = export_onnx(OneSizeSegmenter(), tmp_path / "model.onnx", size=(32, 40), classes=CLASSES, background=True)
    assert not report.dynamic_size
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[2:] == [32, 40]
    assert session.run(None, {"images": np.zeros((5, 3, 32, 40), np.float32)})[0].shape == (5, 4, 32, 40)


def test_file_that_disagrees_with_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = onnx_file._trace

    def spoil(*args: Any, **kwargs: Any) -> Any:
        graph = trace(*args, **kwargs)
        bias = next(i for i in graph.graph.initializer if list(i.dims) == [4])
        values = onnx.numpy_helper.to_array(bias).copy()
        values[1] += 1
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return graph

    monkeypatch.setattr(onnx_file, "_trace", spoil)
    with pytest.raises(RunError, match="does not agree with torch"):
        export_onnx(TinySegmenter(), tmp_path / "model.onnx", size=(32, 40), classes=CLASSES, background=True)
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(RunError, match=r"needs onnxscript.*pip install 'hintseg\[export\]'"):
        export_onnx(TinySegmenter(), tmp_path / "model.onnx", size=(32, 40), classes=CLASSES, background=True)


def test_wrong_class_count_and_unusable_targets_are_explained(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has 4 channels, but 2 classes"):
        export_onnx(TinySegmenter(), tmp_path / "model.onnx", size=(32, 40), classes=["a", "b"], background=True)
    with pytest.raises(RunError, match="is a folder"):
        export_onnx(TinySegmenter(), tmp_path, size=(32, 40), classes=CLASSES, background=True)
    with pytest.raises(RunError, match="only segmenters"):
        export_onnx(nn.Conv2d(3, 4, 1), tmp_path / "model.onnx", size=(32, 40), classes=CLASSES, background=True)
