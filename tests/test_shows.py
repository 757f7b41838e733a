"""What a method from a stranger's package draws stands in the report, which knows no method by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from torch import Tensor

import hintseg
from hintseg.data.shapes import write_shapes
from hintseg.errors import RunError
from hintseg.methods.afa import Afa, AfaConfig
from hintseg.methods.deeplab import DeepLabV2, DeepLabV2Config
from hintseg.methods.method import ExtraLabels
from hintseg.registry import METHODS, Entry
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Show

SETTINGS = [
    "backbone.weights=random",
    "segment.fit.epochs=1",
    "segment.fit.batch_size=4",
    "segment.fit.crop=48",
    "test.scales=[1.0]",
    "trainer.workers=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.pictures=2",
]


class PointingConfig(DeepLabV2Config):
    method: Literal["pointing"] = "pointing"  # type: ignore[assignment]


class Pointing(DeepLabV2):
    """Shows how bright the photo is around its middle."""

    Config = PointingConfig  # type: ignore[assignment]

    @property
    def shows(self) -> tuple[Show, ...]:
        return (Show(folder="glow", title="Where it glows", note="Bright <pixels>.", kind="rows"),)

    def pictures(self, images: Tensor, mask: npt.NDArray[np.uint8]) -> dict[str, dict[str, npt.NDArray[Any]]]:
        assert images.shape[2:] == mask.shape
        return {"glow": {"queries": np.array([[0.5, 0.5]]), "maps": images.mean(dim=1).cpu().numpy()}}


class CertainConfig(AfaConfig):
    method: Literal["certain"] = "certain"  # type: ignore[assignment]


class Certain(Afa):
    """Gives labels and a map beside its masks."""

    Config = CertainConfig  # type: ignore[assignment]

    @property
    def shows(self) -> tuple[Show, ...]:
        return (Show(folder="certainty", title="certainty", kind="heat"),)

    @property
    def extra_labels(self) -> dict[str, ExtraLabels]:
        return {"twin": ExtraLabels("Twin", "all background")}

    def extras(self, images: Tensor, tags: Tensor) -> dict[str, Tensor]:
        brightness = images.mean(dim=1)
        return {"twin": brightness.mul(0).byte(), "certainty": brightness}


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("pointing", "Pointing"), ("certain", "Certain")):
        monkeypatch.setitem(METHODS, name, Entry(f"{__name__}:{kind}", "a stranger's", "segment"))


def captions(page: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


def test_pictures_of_a_segmenter(strangers: None, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=4, val=3, seed=0, size=48)
    words = [*SETTINGS, "backbone.name=resnet10t", "segment.method=pointing"]
    run = hintseg.train(tmp_path / "data", tmp_path / "run", recipe="full", settings=words)
    page = (run.path / "report.html").read_text()
    assert "<h2>Where it glows</h2>" in page
    assert "Bright &lt;pixels&gt;." in page
    assert captions(page).count("glow of pixel 1") == 2  # trainer.pictures
    later = [*words, "trainer.pictures=1", "test.flip=false"]
    again = hintseg.train(tmp_path / "data", tmp_path / "run", recipe="full", settings=later, resume=True)
    assert captions((again.path / "report.html").read_text()).count("glow of pixel 1") == 1  # none of the masks before


def test_extras_of_a_method_that_learns_from_tags(strangers: None, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=4, val=2, seed=0, size=48)
    own = ["backbone.name=mit_tiny", "segment.width=16", "segment.scales=[1.0]", "maps.scales=[1.0]"]
    words = [*SETTINGS, *own, "segment.method=certain"]
    run = hintseg.train(tmp_path / "data", tmp_path / "run", recipe="afa", settings=words)
    found = captions((run.path / "report.html").read_text())
    first = found.index("photo and hints")
    assert found[first + 1 : first + 6] == ["seed", "certainty", "Twin", "prediction", "truth"]
    assert {"Twin"} <= {row["kind"] for row in run.metrics}


def test_a_manifest_shows_nothing_outside_of_its_stage(strangers: None, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=4, val=2, seed=0, size=48)
    words = [*SETTINGS, "backbone.name=resnet10t", "segment.method=pointing"]
    run = hintseg.train(tmp_path / "data", tmp_path / "run", recipe="full", settings=words).path
    (run / "manifest.json").write_text((run / "manifest.json").read_text().replace('"glow"', '"../../glow"'))
    with pytest.raises(RunError, match=r"stages\.segment\.shows\.0\.folder"):
        _ = RunFolder.open(run).manifest
