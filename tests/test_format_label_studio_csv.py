"""CSV of Label Studio."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from tests.tables import data, marks, note, refused, tags

from hintseg.errors import LabelError
from hintseg.formats.label_studio_csv import percent_shape
from hintseg.hints import read_hints, recognise
from hintseg.types import Box, Click, Region

SIZE = {"original_width": 20, "original_height": 10}
RECT = {"x": 5, "y": 20, "width": 40, "height": 60, "rotation": 0, "rectanglelabels": ["cat"], **SIZE}


def table(*rows: tuple[str, object], column: str = "label", more: dict[str, str] | None = None) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    more = more or {}
    writer.writerow(
        ["image", "id", column, *more, "annotator", "annotation_id", "created_at", "updated_at", "lead_time"]
    )
    for number, (name, value) in enumerate(rows):
        cell = value if isinstance(value, str) else json.dumps(value)
        path = f"/data/upload/3/0a1b2c3d-{name}"
        writer.writerow([path, number, cell, *more.values(), 1, number, "2026-01-01", "2026-01-01", 3.2])
    return text.getvalue()


def test_choices(tmp_path: Path) -> None:
    rows = [("a.png", {"choices": ["cat", "dog"]}), ("b.png", "dog"), ("c.png", "traffic light"), ("d.png", "")]
    hint_set = read_hints(data(tmp_path, table(*rows, column="choice", more={"comment": "blurred"}), "project-1.csv"))
    assert recognise(tmp_path) == "label_studio_csv"
    assert tags(hint_set) == {"a": {"cat", "dog"}, "b": {"dog"}, "c": {"traffic light"}, "d": set()}
    assert note(hint_set, "columns of project-1.csv that are not read: 'comment'")
    assert note(hint_set, "1 photos have an empty annotation in project-1.csv")


def test_shapes_in_percent(tmp_path: Path) -> None:
    polygon = {"points": [[5, 10], [45, 10], [45, 90]], "closed": True, "polygonlabels": ["dog"], **SIZE}
    point = {"x": 15, "y": 40, "width": 1, "keypointlabels": ["cat"]}
    rows = [("a.png", [RECT, point]), ("b.png", [polygon]), ("c.png", [])]
    hint_set = read_hints(data(tmp_path, table(*rows), "export.csv"))
    assert marks(hint_set) == {
        "a": [("cat", Box(1, 2, 9, 8)), ("cat", Click(3, 4))],
        "b": [("dog", Box(1, 1, 9, 9))],
    }
    assert tags(hint_set) == {"a": {"cat"}, "b": {"dog"}, "c": set()}
    assert hint_set.photos[1].truth is not None


def test_shapes_of_another_column_beside_choices(tmp_path: Path) -> None:
    text = table(("a.png", [RECT]), ("b.png", ""), column="box", more={"choice": "dog"})
    assert tags(read_hints(data(tmp_path, text))) == {"a": {"cat", "dog"}, "b": {"dog"}}


def test_two_annotators(tmp_path: Path) -> None:
    hint_set = read_hints(data(tmp_path, table(("a.png", "cat"), ("a.png", "dog"), ("b.png", "dog"), column="choice")))
    assert tags(hint_set) == {"a": {"cat", "dog"}, "b": {"dog"}}
    assert note(hint_set, "1 photos have several annotations in tags.csv: what they say is put together")


def test_turned_shapes() -> None:
    value = {"x": 50, "y": 20, "width": 20, "height": 10, "rotation": 90}
    box = percent_shape(value, (100, 100))  # about its upper left corner, clockwise
    assert isinstance(box, Box)
    assert box.corners == pytest.approx((40, 20, 50, 40))
    with pytest.raises(LabelError, match="original_width and original_height are not said"):
        percent_shape(value, None)
    ellipse = percent_shape({"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 0}, (100, 200))
    assert isinstance(ellipse, Region)
    assert max(ellipse.polygons[0][0::2]) == pytest.approx(120)
    assert max(ellipse.polygons[0][1::2]) == pytest.approx(70)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"x": 5, "rectanglelabels": ["cat"]}, "shape 1: needs a number `y`"),
        ({**RECT, "rectanglelabels": []}, "shape 1: has no class"),
        ({"format": "rle", "rle": [0, 1], "brushlabels": ["cat"], **SIZE}, "is a brush's mask; export as JSON"),
        ({"points": [[1, 2], [3]], "polygonlabels": ["cat"]}, "a polygon has a point that is not two numbers"),
    ],
)
def test_bad_shapes_do_not_cost_the_table(tmp_path: Path, bad: object, why: str) -> None:
    rows = [(f"{photo}.png", [RECT]) for photo in "abc"]
    hint_set = read_hints(data(tmp_path, table(*rows, ("d.png", [bad]))))
    assert note(hint_set, "1 of 4 annotations in tags.csv are left out: line 5: ")
    assert note(hint_set, why)
    assert tags(hint_set)["d"] == set()


def test_a_table_without_labels(tmp_path: Path) -> None:
    message = refused(data(tmp_path, table(("a.png", "sunny"), column="weather")))
    assert "columns found: 'image', 'id', 'weather'" in message
    assert "needed is one of choices, or of shapes as JSON" in message
