"""CSV of Label Studio, which is read as its JSON-MIN is."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from hintseg.hints import read_hints, recognise
from hintseg.types import Box, Click
from table_sets import data, marks, note, tags

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
    assert recognise(tmp_path) == "label_studio"
    assert tags(hint_set) == {"a": {"cat", "dog"}, "b": {"dog"}, "c": {"traffic light"}, "d": set()}
    assert note(hint_set, "the answers to 'comment' (blurred) are taken for properties of the photo and left out")


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


def test_shapes_beside_choices(tmp_path: Path) -> None:
    for choice, tagged in (("cat", {"cat"}), ("sunny", set())):
        text = table(("a.png", [RECT]), ("b.png", ""), column="box", more={"choice": choice})
        hint_set = read_hints(data(tmp_path, text))
        assert tags(hint_set) == {"a": {"cat"}, "b": tagged}
    assert note(hint_set, "the answers to 'choice' (sunny) are taken for properties of the photo and left out")


def test_the_file_that_label_studio_itself_writes(tmp_path: Path) -> None:
    """Its columns stand by name; it says choices and shapes of one photo in one row."""
    text = (Path(__file__).parent / "reference" / "formats" / "label_studio.csv").read_bytes()
    hint_set = read_hints(data(tmp_path, text, "project-1-at-2026-11-27.csv"))
    assert recognise(tmp_path) == "label_studio"
    assert marks(hint_set) == {"a": [("cat", Box(1, 2, 9, 8))], "b": [("dog", Box(1, 1, 9, 9))]}
    assert tags(hint_set) == {"a": {"cat", "dog"}, "b": {"dog"}, "c": {"cat"}}


def test_a_bad_shape_does_not_cost_the_table(tmp_path: Path) -> None:
    rows = [(f"{photo}.png", [RECT]) for photo in "abc"]
    hint_set = read_hints(data(tmp_path, table(*rows, ("d.png", [{**RECT, "y": None}]))))
    assert note(hint_set, "1 of 4 annotations in tags.csv are left out: task 3")
    assert tags(hint_set)["d"] == set()
    assert set(marks(hint_set)) == {"a", "b", "c"}
