"""How large photos are read: as hints with a place need, and the usual size for tags."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hintseg.config.loader import load_config
from hintseg.config.run import RunConfig
from hintseg.hints.check import check
from hintseg.hints.sizes import object_sides
from hintseg.pipeline.reading_size import LARGEST, settle_longest
from hintseg.types import Box, Click, Hints, HintSet, Mark, Photo, Region, Shape, Tags


def marked(tmp_path: Path, size: tuple[int, int], *shapes: Shape, label: int = 1) -> HintSet:
    Image.new("RGB", size).save(tmp_path / "a.png")
    marks = tuple(Mark(label, shape, object=i + 1) for i, shape in enumerate(shapes))
    photo = Photo("a", tmp_path / "a.png", Hints(Tags(frozenset({label})), marks))
    return HintSet("made", ("nut", "bolt"), (photo,))


def config(recipe: str, *words: str) -> RunConfig:
    return load_config(recipe, list(words), data={"path": "photos"})


def test_small_marked_objects_make_photos_large(tmp_path: Path) -> None:
    hints = marked(tmp_path, (4000, 3000), *[Box(0, 0, 80, 40)] * 3, Box(0, 0, 900, 700))
    settled, reasons = settle_longest(config("boxes", "localize=null"), hints, None)
    assert settled.data.longest == 3200, "40 of 4000 pixels are 32 of 3200"
    assert "3200 pixels" in reasons[0]
    few = marked(tmp_path, (4000, 3000), Box(0, 0, 900, 700))
    large, none = settle_longest(config("boxes", "localize=null"), few, None)
    assert (large.data.longest, none) == (640, [])


def test_an_outline_counts_and_a_click_does_not(tmp_path: Path) -> None:
    outline = Region(polygons=((10.0, 10.0, 110.0, 10.0, 110.0, 60.0),))
    assert list(object_sides(marked(tmp_path, (1000, 500), outline, Click(3, 3)))) == [(1, 0.05)]


def test_tags_a_number_and_an_earlier_run_keep_their_size(tmp_path: Path) -> None:
    hints = marked(tmp_path, (4000, 3000), Box(0, 0, 80, 40))
    assert settle_longest(config("cam"), hints, None)[0].data.longest == 640
    assert settle_longest(config("boxes", "data.longest=900"), hints, None)[0].data.longest == 900
    before = config("boxes", "data.longest=1000")
    assert settle_longest(config("boxes"), hints, before)[0].data.longest == 1000


def test_it_is_bounded(tmp_path: Path) -> None:
    hints = marked(tmp_path, (20000, 30), Box(0, 0, 8, 8))
    assert settle_longest(config("boxes"), hints, None)[0].data.longest == LARGEST


@pytest.mark.parametrize(("side", "said"), [(60, True), (200, False)])
def test_check_names_objects_that_become_smaller_than_a_cell(tmp_path: Path, side: int, said: bool) -> None:
    report = check(marked(tmp_path, (4000, 3000), Box(0, 0, side, side), label=2))
    found = [verdict for verdict in report.verdicts if "smaller than a cell" in verdict]
    assert bool(found) == said
    if said:
        assert "bolt (1 of 1)" in found[0]
