"""The recipe `quick`, end to end: kept features of a frozen network, seeds, PAR, a head in rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
from huggingface_hub import constants
from PIL import Image

import hintseg
from hintseg.data.dataset import PhotoDataset
from hintseg.data.shapes import write_shapes
from hintseg.errors import WeightsError
from hintseg.features.cache import FeatureCache
from hintseg.nn import hub

TINY = [
    *("backbone.name=vit_tiny_patch16_224", "backbone.weights=random", "backbone.output_stride=8", "seed=0"),
    *("localize.fit.epochs=3", "segment.fit.epochs=2", "trainer.workers=0", "trainer.accelerator=cpu"),
    *("trainer.precision=32-true", "trainer.pictures=1"),
]


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a vision transformer of four narrow blocks."""
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))
    made = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **own: made(name, **{"depth": 4, "embed_dim": 48, "num_heads": 3, **own})
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "shapes", train=16, val=4, seed=0, size=64)
    return tmp_path / "shapes"


def test_from_tags_to_a_model_without_decoding_a_photo_to_train(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a photo was decoded to train on it")

    monkeypatch.setattr(PhotoDataset, "read", never)
    run = hintseg.train(data, tmp_path / "run", recipe="quick", settings=TINY)
    kinds = {(row["stage"], row["kind"], row["split"]) for row in run.metrics if not row["oracle"]}
    assert kinds == {
        ("localize", "seed", "train"),
        ("refine", "pseudo mask", "train"),
        ("segment", "final mask", "train"),
        ("segment", "segmentation", "val"),
    }
    assert FeatureCache().usage().files == 16, "both stages look through one network"
    assert [path.name for path in sorted((run.path / "segment/rounds").iterdir())] == ["1", "2", "3"]
    assert (run.path / "report.html").is_file()
    out = run.predict(data / "JPEGImages", tmp_path / "out")
    first = run.path / "segment/masks" / f"{(data / 'ImageSets/Segmentation/val.txt').read_text().split()[0]}.png"
    assert (np.array(Image.open(first)) == np.array(Image.open(out / "png" / first.name))).all()


def test_from_boxes(data: Path, tmp_path: Path) -> None:
    settings = [*TINY, "propose.method=grabcut", "localize=null", "refine=null"]
    run = hintseg.train(data, tmp_path / "run", recipe="quick", format="voc", settings=settings)
    kinds = {(row["stage"], row["split"]) for row in run.metrics}
    assert ("propose", "train") in kinds
    assert ("segment", "val") in kinds
    assert not (run.path / "segment/rounds").exists(), "what a person marked stays, so one round says it all"


def test_weights_that_cannot_be_had_are_told_before_a_run_is_overwritten(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "is_cached", lambda _: False)
    published = ["backbone.weights=pretrained" if word.startswith("backbone.weights") else word for word in TINY]
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set.*give a local file with backbone.weights=FILE"):
        hintseg.train(data, tmp_path / "new", recipe="quick", settings=published)
    assert not (tmp_path / "new").exists()
    old = hintseg.train(data, tmp_path / "old", recipe="quick", settings=[*TINY, "segment=null", "refine=null"])
    before = {path: path.read_bytes() for path in old.path.rglob("*") if path.is_file()}
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        hintseg.train(data, old.path, recipe="quick", settings=published, overwrite=True)
    assert {path: path.read_bytes() for path in old.path.rglob("*") if path.is_file()} == before
