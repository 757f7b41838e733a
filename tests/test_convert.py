"""Labels from one format to another, and masks in the formats of other tools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import hintseg
from hintseg.cli.app import app
from hintseg.data.shapes import write_shapes
from hintseg.errors import ConfigError, LabelError, RunError
from hintseg.formats.codec import Writer
from hintseg.formats.recognise import codec
from hintseg.hints import read_hints
from hintseg.hints.convert import kinds, writers
from hintseg.hints.masks import read_mask
from hintseg.registry import formats
from hintseg.types import HintSet, Supervision


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "shapes"
    write_shapes(folder, train=6, val=2, size=48)
    return folder


def said(hint_set: HintSet) -> dict[str, tuple[set[str], list[tuple[str, tuple[float, ...]]]]]:
    """What is said of each photo that anything is said of: names of its classes, and its boxes."""
    found = {}
    for photo in hint_set.photos:
        if kinds(photo):
            names = {hint_set.classes[label - 1] for label in photo.hints.tags or ()}
            boxes = [
                (hint_set.classes[m.label - 1], tuple(round(v, 2) for v in m.shape.corners))
                for m in photo.hints.objects
            ]
            found[photo.id.rpartition("/")[2]] = (names, sorted(boxes))
    return found


def formats_that_write(kind: Supervision) -> list[str]:
    return [name for name, found in writers().items() if kind in found.writes]


@pytest.mark.parametrize("name", sorted(writers()))
def test_what_is_written_is_read_again(shapes: Path, tmp_path: Path, name: str) -> None:
    before = read_hints(shapes)
    written = hintseg.convert(shapes, tmp_path / "out", to=name)
    after = read_hints(shapes, written.labels, format=name)
    found = codec(name)
    assert isinstance(found, Writer)
    tags, boxes = said(before), said(after)
    assert {id: names for id, (names, _) in boxes.items()} == {id: names for id, (names, _) in tags.items()}
    if Supervision.BOXES in found.writes:
        assert boxes == tags
    if Supervision.MASKS in found.writes:
        for photo in after.photos:
            one = next(p for p in before.photos if p.id == photo.id)
            mask, truth = read_mask(photo), read_mask(one)
            assert truth is not None
            assert mask is not None, f"{name} lost the mask of {photo.id}"
            assert (mask == truth).mean() > 0.97, "outlines may cut corners by half a pixel"


def test_the_command_says_where_it_lies_and_what_is_lost(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["convert", str(shapes), "--to", "csv", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "labels: " in result.output
    assert "8 photos have full masks, which it cannot hold" in result.output
    with pytest.raises(RunError, match="holds labels that were written before"):
        hintseg.convert(shapes, out, to="csv")
    hintseg.convert(shapes, out, to="csv", overwrite=True)


def test_formats_that_are_only_read_are_refused(shapes: Path, tmp_path: Path) -> None:
    only_read = next(name for name in formats() if name not in writers())
    with pytest.raises(ConfigError, match=f"the format '{only_read}' is read, but not written; --to takes"):
        hintseg.convert(shapes, tmp_path / "out", to=only_read)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="unknown format 'coca'; did you mean 'coco'"):
        hintseg.convert(shapes, tmp_path / "out", to="coca")
    points = shapes / "Hints" / "points.csv"
    masks_only = [n for n in formats_that_write(Supervision.MASKS) if writers()[n].writes == {Supervision.MASKS}]
    for name in masks_only:
        (tmp_path / name).mkdir()
        with pytest.raises(LabelError, match="choose another --to"):
            hintseg.convert(shapes / "JPEGImages", tmp_path / name, to=name, labels=points)


def test_a_table_of_colours_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    red = np.zeros((8, 8, 3), np.uint8)
    red[:4, :4, 0] = 200
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(red).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("ant\n")
    (tmp_path / "mine.csv").write_text("name,r,g,b\nbackground,0,0,0\nant,200,0,0\n")
    colours = ["--colours", str(tmp_path / "mine.csv")]
    result = CliRunner().invoke(app, ["check", str(tmp_path), "--labels", str(tmp_path / "masks"), "--json", *colours])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["photos_per_class"] == {"ant": 1}
    (tmp_path / "mine.csv").write_text("name,r,g,b\n")
    with pytest.raises(LabelError, match=r"mine\.csv"):
        hintseg.check(tmp_path, labels=tmp_path / "masks", colours=tmp_path / "mine.csv")
