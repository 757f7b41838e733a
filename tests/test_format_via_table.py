"""CSV of the VGG Image Annotator."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from hintseg.errors import LabelError
from hintseg.formats.via_table import via_shape
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import Box, Click, Region, Stroke
from table_sets import data, marks, note, refused, tags

HEADER = (
    *("filename", "file_size", "file_attributes", "region_count", "region_id"),
    *("region_shape_attributes", "region_attributes"),
)
RECT = {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 6}
TRIANGLE = {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]}


def table(*rows: tuple[str, object, object], first: str = "filename") -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([first, *HEADER[1:]])
    for name, shape, attributes in rows:
        cells = [one if isinstance(one, str) else json.dumps(one) for one in (shape, attributes)]
        writer.writerow([name, 4711, "{}", 1, 0, *cells])
    return text.getvalue()


@pytest.mark.parametrize("first", ["filename", "#filename"])
def test_shapes_classes_and_negatives(tmp_path: Path, first: str) -> None:
    rows = [
        ("a.png", RECT, {"class": "cat"}),
        ("a.png", {"name": "polyline", "all_points_x": [1, 5], "all_points_y": [1, 3]}, {"class": "dog"}),
        ("a.png", {"name": "point", "cx": 3, "cy": 4}, {"class": "dog"}),
        ("b.png", {}, {}),
        ("c.png", TRIANGLE, {"class": "dog"}),
    ]
    hint_set = read_hints(data(tmp_path, table(*rows, first=first), "via_export_csv.csv"))
    assert recognise(tmp_path) == "via"
    assert marks(hint_set) == {
        "a": [("cat", Box(1, 2, 9, 8)), ("dog", Stroke((1, 1, 5, 3))), ("dog", Click(3, 4))],
        "c": [("dog", Box(1, 1, 9, 9))],
    }
    assert tags(hint_set) == {"a": {"cat", "dog"}, "b": set(), "c": {"dog"}}
    assert note(hint_set, "1 photos have no region in via_export_csv.csv and count as negatives")
    mask = read_mask(hint_set.photos[2])
    assert mask is not None
    assert abs((mask == 2).sum() - 32) <= 4
    assert hint_set.photos[0].truth is None


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ({"name": "circle", "cx": 50, "cy": 40, "r": 20}, math.pi * 400),
        ({"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10, "theta": 0.5}, math.pi * 300),
        ({"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10}, math.pi * 300),
    ],
)
def test_round_shapes_have_their_area_and_place(shape: dict[str, object], area: float) -> None:
    region = via_shape(shape)
    assert isinstance(region, Region)
    ring = np.array(region.polygons[0]).reshape(-1, 2)
    x, y = ring.T
    assert abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 == pytest.approx(area, rel=0.003)
    assert ring.mean(axis=0) == pytest.approx((50, 40))
    if "theta" in shape:  # turned clockwise: its right end lies lower
        assert y[x.argmax()] > 40


@pytest.mark.parametrize(
    ("attributes", "label"),
    [
        ({"class": "cat", "colour": "red"}, "cat"),
        ({"name": "cat"}, "cat"),
        ({"Tier": "cat"}, "cat"),
        ({"label": {"cat": True, "dog": False}}, "cat"),
        ({"type": 7}, "7"),
    ],
)
def test_the_attribute_that_is_the_class(tmp_path: Path, attributes: object, label: str) -> None:
    hint_set = read_hints(data(tmp_path, table(("a.png", RECT, attributes)), "via.csv"))
    assert marks(hint_set) == {"a": [(label, Box(1, 2, 9, 8))]}


def test_what_is_asked_about(tmp_path: Path) -> None:
    text = table(("a.png", RECT, {"colour": "red", "size": "big"}))
    assert "have the attributes 'colour' and 'size'; which is the class? Call it `class`" in refused(
        data(tmp_path, text, "via.csv")
    )
    hint_set = read_hints(data(tmp_path, table(("a.png", RECT, {})), "via.csv"))
    assert note(hint_set, "no region in via.csv names a class: all is 'object'")
    assert "is of the format 'via', by its header" in refused(tmp_path, labels=tmp_path / "via.csv", format="csv")


def test_bad_regions_do_not_cost_the_table(tmp_path: Path) -> None:
    good = [(f"{photo}.png", RECT, {"class": "cat"}) for photo in "abc"]
    for bad, why in [
        (("d.png", {"name": "rect", "x": 1}, {"class": "cat"}), "a rect needs a number `y`"),
        (("d.png", {"name": "cube"}, {"class": "cat"}), "its shape 'cube' is not known"),
        (("d.png", {"name": "polygon", "all_points_x": [1]}, {"class": "cat"}), "needs lists all_points_x and"),
        (("d.png", "{broken", {"class": "cat"}), "its shape '{broken' is not known"),
        (("d.png", RECT, {}), "has no 'class'"),
        (("d.png", {"name": "polygon", "all_points_x": ["1"], "all_points_y": [2]}, {"class": "cat"}), "is no number"),
    ]:
        hint_set = read_hints(data(tmp_path, table(*good, bad), "via.csv"))
        assert note(hint_set, "1 of 4 annotations in via.csv are left out: line 5: ")
        assert note(hint_set, why)
        assert tags(hint_set).get("d", set()) == set()
    with pytest.raises(LabelError, match="needs a number `r`"):
        via_shape({"name": "circle", "cx": 1, "cy": 2, "r": True})
