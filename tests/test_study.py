"""`hintseg study`: budget curves over kinds and amounts of hints."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hintseg
from hintseg.cli.app import app
from hintseg.cli.options import counts
from hintseg.data.shapes import write_shapes
from hintseg.errors import ConfigError, LabelError
from hintseg.labellers.filled import Filled
from hintseg.pipeline.study import SECONDS, Cell, caption, curves, next_hour
from hintseg.reporting.figures import cost_curves
from hintseg.run.folder import RunFolder
from made import given, of

TINY = [
    *("backbone.name=resnet10t", "backbone.weights=random", "backbone.levels=null", "backbone.freeze=none"),
    *("localize.fit.epochs=1", "segment.fit.epochs=1", "trainer.workers=0", "trainer.accelerator=cpu"),
    *("trainer.pictures=0", "segment.fit.crop=64", "localize.fit.crop=64"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "shapes"
    write_shapes(folder, train=8, val=2, seed=0, size=64)
    return folder


def test_masks_and_a_mixture(data: Path, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("localize")]
    cells = hintseg.study(data, tmp_path / "s", kinds=["masks"], shares=[0.5, 1], settings=words)
    assert [(cell.kind, cell.photos) for cell in cells] == [("masks", 4), ("masks", 8)]
    assert cells[0].hints < cells[1].hints
    assert cells[1].hours == pytest.approx(cells[1].hints * 54 / 3600)
    small, large = (RunFolder.open(tmp_path / "s/runs" / f"masks-{share}-0") for share in ("0.5", "1"))
    taught = [{photo.id for photo in run.photos if photo.split == "train"} for run in (small, large)]
    assert taught[0] < taught[1]
    rows = list(csv.DictReader((tmp_path / "s/study.csv").open()))
    assert [float(row["miou"]) for row in rows] == [cell.miou for cell in cells]
    picture = (tmp_path / "s/curves.svg").read_text()
    assert "hours of labelling" in picture
    assert "the outline of an object 54 s (Jain and Grauman, ICCV 2013)" in picture
    again = hintseg.study(data, tmp_path / "s", kinds=["masks"], shares=[0.5, 1], settings=words)
    assert again == cells, "finished runs are not run again"


def test_boxes_are_drawn_where_the_data_has_none(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", train=6, val=2, seed=0, size=64)
    for file in (tmp_path / "shapes/Annotations").glob("*.xml"):
        file.unlink()
    (tmp_path / "shapes/Annotations").rmdir()
    words = ["propose.method=grabcut", *(word for word in TINY if not word.startswith("localize"))]
    cells = hintseg.study(tmp_path / "shapes", tmp_path / "s", kinds=["boxes"], shares=[1], settings=words)
    assert (tmp_path / "s/drawn/boxes/boxes.csv").is_file()
    assert cells[0].hints >= 6
    assert cells[0].hours == pytest.approx(cells[0].hints * 7 / 3600)


def test_a_kind_may_have_another_recipe(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text("propose:\n  method: filled\nsegment:\n  method: deeplabv2\n")
    words = [word for word in TINY if not word.startswith("localize")]
    hintseg.study(data, tmp_path / "s", kinds=["boxes"], shares=[1], recipes={"boxes": str(recipe)}, settings=words)
    config = RunFolder.open(tmp_path / "s/runs/boxes-1-0").config
    assert of(Filled, config.propose)
    assert given(config.segment).method == "deeplabv2"
    with pytest.raises(ConfigError, match=r"a recipe is given for 'box'; did you mean 'boxes'.*the study is of boxes"):
        hintseg.study(data, tmp_path / "s", kinds=["boxes"], recipes={"box": "mixed"})
    result = CliRunner().invoke(app, ["study", str(data), "--out", str(tmp_path / "s"), "--recipe", "mixed"])
    assert "--recipe: 'mixed' is not of the form NAME=VALUE" in str(result.exception)


def test_the_picture_is_the_same_each_time_and_small() -> None:
    found = {"tags": [(0.1, 0.2), (1.0, 0.4)], "masks": [(2.0, 0.3), (20.0, 0.5)]}
    pictures = {cost_curves(found, caption(list(found), SECONDS)) for _ in range(2)}
    (picture,) = pictures
    assert len(picture) < 40_000
    assert b">0.1</text>" in picture
    assert b"$" not in picture


def test_curves_are_means_over_seeds() -> None:
    cells = [
        Cell("tags", 1.0, 0, 10, 20, 2.0, 0.5),
        Cell("tags", 1.0, 1, 10, 20, 2.0, 0.7),
        Cell("tags", 0.5, 0, 5, 10, 1.0, 0.4),
        Cell("boxes", 1.0, 0, 10, 20, 4.0, 0.9),
    ]
    assert curves(cells) == {"tags": [(1.0, 0.4), (2.0, 0.6)], "boxes": [(4.0, 0.9)]}
    assert next_hour(cells) == [
        "tags: 2.0 hours give mIoU 60.0; one more hour about +20.0 points",
        "boxes: 4.0 hours give mIoU 90.0",
    ]


def test_minutes_are_not_stretched_to_hours() -> None:
    cells = [Cell("tags", 0.5, 0, 5, 10, 0.1, 0.4), Cell("tags", 1.0, 0, 10, 20, 0.2, 0.45)]
    assert next_hour(cells) == ["tags: 0.2 hours give mIoU 45.0, +5.0 by the last 0.10"]


def test_mistakes_are_said_before_anything_runs(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no kind of hint is called 'tag'.*did you mean 'tags'"):
        hintseg.study(data, tmp_path / "s", kinds=["tag+boxes"])
    with pytest.raises(ConfigError, match="share 2 given"):
        hintseg.study(data, tmp_path / "s", shares=[2])
    with pytest.raises(ConfigError, match="no hint is called 'box'"):
        hintseg.study(data, tmp_path / "s", seconds={"box": 3})
    result = CliRunner().invoke(app, ["study", str(data), "--out", str(tmp_path / "s"), "--cost", "boxes=long"])
    assert isinstance(result.exception, ConfigError)
    assert "'long' is no number" in str(result.exception)


def test_a_study_needs_photos_to_judge_on(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", train=4, val=1, seed=0, size=64)
    (tmp_path / "shapes/ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(LabelError, match="needs a split 'val'"):
        hintseg.study(tmp_path / "shapes", tmp_path / "s", kinds=["masks"])


@pytest.mark.parametrize("seeds", ["-1", "0,1.5", "nan", "inf"])
def test_seeds_are_whole_numbers(seeds: str) -> None:
    assert counts("0, 2", "--seeds") == [0, 2]
    with pytest.raises(ConfigError, match="--seeds"):
        counts(seeds, "--seeds")
