"""Every command and every line of Python in the guides runs, in order, on tiny made data and with a tiny network."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hintseg.config import loader
from hintseg.config.run import STAGES, RunConfig
from small_runs import TINY, typed, write_squares

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)

FIT = ("epochs=1", "batch_size=4", "crop=32")
FRONT = ("backbone.levels=3", "maps.scales=[1.0]", "test.scales=[1.0]", "trainer.pictures=0", *TINY)

load = loader.load_config


def tiny(recipe: str | Path, overrides: Sequence[str] = (), *, data: Mapping[str, Any] | None = None) -> RunConfig:
    """The settings as they were asked for, but for the network, the lengths and the sizes."""
    asked = load(recipe, overrides, data=data)
    words = [*overrides, *FRONT]
    for stage in STAGES:
        block = getattr(asked, stage)
        if block is not None and hasattr(block, "fit"):
            words += [f"{stage}.fit.{word}" for word in FIT]
            words += [f"{stage}.backbone.{word}" for word in ("name=resnet10t", "weights=random", "levels=3")]
    return load(recipe, words, data=data)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the guides speak of, as the working folder."""
    made = write_squares(tmp_path / "made")
    for name, ids in (("photos", range(8)), ("new-photos", range(8, 12)), ("truth", range(8, 12))):
        (tmp_path / name).mkdir()
        for i in ids:
            kind = "SegmentationClass" if name == "truth" else "JPEGImages"
            shutil.copy(made / kind / f"photo {i}.png", tmp_path / name / f"photo {i}.png")
    tags = [line for line in (made / "tags.csv").read_text().splitlines() if int(line.split(",")[0][6:]) < 8]
    (tmp_path / "tags.csv").write_text("\n".join(tags) + "\n")
    boxes, points = ["filename,x0,y0,x1,y1,label"], ["filename,x,y,label"]
    (tmp_path / "strokes").mkdir()
    (tmp_path / "strokes" / "classes.txt").write_text("red\nblue\n")
    for i in range(4):
        mask = np.asarray(Image.open(made / "SegmentationClass" / f"photo {i}.png"))
        for label, name in ((1, "red"), (2, "blue")):
            y, x = np.nonzero(mask == label)
            if len(y):
                boxes.append(f"photo {i}.png,{x.min()},{y.min()},{x.max() + 1},{y.max() + 1},{name}")
                points.append(f"photo {i}.png,{x[len(x) // 2]},{y[len(y) // 2]},{name}")
        points.append(f"photo {i}.png,1,1,background")
        stroke = np.full_like(mask, 255)
        stroke[22], stroke[1] = np.where(mask[22], mask[22], 255), 0
        Image.fromarray(stroke).save(tmp_path / "strokes" / f"photo {i}.png")
    (tmp_path / "boxes.csv").write_text("\n".join(boxes) + "\n")
    (tmp_path / "points.csv").write_text("\n".join(points) + "\n")
    shutil.rmtree(made)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loader, "load_config", tiny)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_shows_runs(page: Path, desk: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks, "a guide shows what to type"
    if "--labels tags.csv" not in text:
        shutil.move(desk / "tags.csv", desk / "photos" / "tags.csv")
    names: dict[str, Any] = {}
    for kind, code in blocks:
        if kind == "python":
            exec(compile(code, page.name, "exec"), names)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["hintseg"]:
                done = typed(*words[1:])
                assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
                last = done.stdout.splitlines()[-1]
                assert last.startswith(("next: ", "nothing was written")), f"{line} ends with: {last}"
    if page.stem in ("index", "README"):
        assert sorted(file.stem for file in (desk / "predictions" / "png").glob("*.png")) == [
            f"photo {i}" for i in (10, 11, 8, 9)
        ]


def test_the_notebook_runs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells, as the script that it is made from; `make notebook` runs it whole, in a kernel."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("TMPDIR", str(desk))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(logging.getLogger("hintseg"), "setLevel", lambda _: None)  # it would stay for other tests
    script = ROOT / "docs" / "notebooks" / "tags_to_masks.py"
    code = script.read_text(encoding="utf-8").replace("train=64, val=8", "train=8, val=2")
    names: dict[str, Any] = {"__name__": "notebook"}
    exec(compile(code, script.name, "exec"), names)
    assert len(names["files"]) == 6
    assert {row["kind"] for row in names["run"].metrics} >= {"seed", "pseudo mask", "segmentation"}


def test_a_command_that_is_shown_and_wrong_is_found(desk: Path) -> None:
    assert typed("check", "fotos").returncode == 2
    assert typed("train", "photos", "--labels", "tags.csv", "--out", "run", "maps.aera=1").returncode == 2
