"""What wraps a localizer, shown by one that needs no baseline and no pairs: a file of its own and an entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field
from torch import Tensor

import hintseg
from hintseg.config.loader import load_config
from hintseg.config.run import RunConfig
from hintseg.config.settings import WrapperConfig
from hintseg.data.shapes import write_shapes
from hintseg.errors import ConfigError, LabelError
from hintseg.methods.method import Method
from hintseg.registry import WRAPPERS, Entry
from hintseg.run.fingerprint import broken
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Shown
from hintseg.types import Batch, ParameterGroup, Photo, Progress
from hintseg.wrappers.wrapper import Wrapper
from made import given, of
from small_runs import TINY

SETTINGS = [
    *TINY,
    *("localize.fit.epochs=1", "localize.fit.batch_size=4", "localize.fit.crop=48", "maps.scales=[1.0]"),
    *("refine=null", "segment=null", "trainer.pictures=1"),
]


class HeavierConfig(WrapperConfig):
    """Settings of a wrapper that multiplies all losses."""

    baseline_first = False
    factor: Annotated[float, Field(gt=0)] = 2.0
    fewest: int = 1


class Heavier(Wrapper):
    """Multiplies the localizer's losses."""

    Config = HeavierConfig
    sources = None

    @classmethod
    def check(cls, config: RunConfig, photos: Sequence[Photo], classes: Sequence[str]) -> None:
        settings = of(HeavierConfig, given(config.wrapper).settings)
        if len(photos) < settings.fewest:
            raise LabelError(f"{len(photos)} photos given, {settings.fewest} are needed")

    def __init__(self, run: RunFolder, config: RunConfig, photos: Sequence[Photo]) -> None:
        self.run, self.settings = run, of(HeavierConfig, given(config.wrapper).settings)

    def masks(self, photo: Photo) -> None:
        return None

    def wrap(self, method: Method) -> Method:
        return Multiplied(method, self.settings.factor)

    def draw(self, method: Method) -> None:
        self.run.wrapper_picture.write_bytes(b"a picture")
        self.run.write_shown(Shown(name="heavier", title="What is heavier", text="All losses.", caption="None."))


class Multiplied(Method):
    def __init__(self, method: Method, factor: float) -> None:
        super().__init__()
        self.method, self.factor, self.config = method, factor, method.config

    def prepare(self, batches: Iterable[Batch]) -> None:
        self.method.prepare(batches)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {name: self.factor * loss for name, loss in self.method.losses(batch, progress).items()}

    def parameter_groups(self) -> list[ParameterGroup]:
        return self.method.parameter_groups()


@pytest.fixture
def heavier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRAPPERS, "heavier", Entry(f"{__name__}:Heavier", "multiplies losses"))


def test_a_wrapper_in_one_file(heavier: None, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=8, val=2, seed=0, size=48)
    words = [*SETTINGS, "heavier.factor=4"]
    with pytest.raises(LabelError, match="8 photos given, 9 are needed"):
        hintseg.train(tmp_path / "data", tmp_path / "run", recipe="cam", settings=[*words, "heavier.fewest=9"])
    assert not (tmp_path / "run").exists()
    wrapped = hintseg.train(tmp_path / "data", tmp_path / "run", recipe="cam", settings=words).path
    plain = hintseg.train(tmp_path / "data", tmp_path / "plain", recipe="cam", settings=SETTINGS).path
    first, other = (float(RunFolder(run).table("localize")["loss"][0]) for run in (wrapped, plain))
    assert first == pytest.approx(4 * other, rel=1e-6)
    assert RunFolder(wrapped).config.wrapper == ("heavier", HeavierConfig(factor=4))
    assert RunFolder(plain).config.wrapper is None
    assert not (wrapped / "baseline").exists()
    assert "What is heavier" in (wrapped / "report.html").read_text()


def test_its_settings_and_no_read_out_belong_to_the_training(heavier: None) -> None:
    data = {"path": "photos"}
    before = load_config("vwe", ["heavier={}"], data=data)
    for word, key in (("heavier.factor=3", "learn"), ("refine.beta=8", "maps"), ("maps.area=0.5", "masks")):
        first = broken(before, load_config("vwe", ["heavier={}", word], data=data))[0]
        stage = "refine" if word.startswith("refine") else "localize"
        assert first.key == (stage, key), word
    with pytest.raises(ConfigError, match=r"'heavier.facto'; did you mean 'heavier.factor'"):
        load_config("vwe", ["heavier.facto=3"], data=data)


def test_a_baseline_belongs_to_the_training() -> None:
    data = {"path": "photos"}
    before = load_config("vwe", ["csd={}"], data=data)
    for word in ("csd.shift=1", "refine.beta=8", "maps.area=0.5"):
        assert broken(before, load_config("vwe", ["csd={}", word], data=data))[0].key == ("localize", "learn"), word
