"""Tables of points."""

from __future__ import annotations

from pathlib import Path

import pytest

from hintseg.hints import read_hints
from hintseg.types import Click
from table_sets import data, marks, note, refused, tags


@pytest.mark.parametrize(
    "text",
    [
        "file,x,y,label\na.png,1.5,2,cat\n",
        "file;X;Y;Class\na.png;1,5;2;cat\n",
        "label,x_coord,y_coord,image\ncat,1.5,2,a.png\n",
        "cat,1.5,2,a.png,20,10\n",
        "file,point_x,point_y,label,image_width,image_height\na.png,3,4,cat,40,20\n",
    ],
)
def test_all_ways_to_write_a_point(tmp_path: Path, text: str) -> None:
    assert marks(read_hints(data(tmp_path, text, "points.csv"))) == {"a": [("cat", Click(1.5, 2.0))]}


def test_objects_confidences_negatives_and_tags(tmp_path: Path) -> None:
    text = "file,x,y,label,object,confidence\na.png,1,2,cat,n7,0.5\na.png,3,4,cat,n7,\na.png,3,8,cat,n2,1\n"
    text += "a.png,0,0,background,,\nb.png,,,,,\nc.png,,,cat,,\n"
    hint_set = read_hints(data(tmp_path, text, "clicks.csv"))
    found = hint_set.photos[0].hints.marks
    assert [(mark.label, mark.object, mark.trust) for mark in found] == [
        (1, 1, 0.5),
        (1, 1, 1.0),
        (1, 2, 1.0),
        (0, None, 1.0),
    ]
    assert tags(hint_set) == {"a": {"cat"}, "b": set(), "c": {"cat"}}


def test_bad_rows_and_classes(tmp_path: Path) -> None:
    good = "a.png,1,2,cat\nb.png,1,2,cat\nc.png,1,2,cat\n"
    hint_set = read_hints(data(tmp_path, f"file,x,y,label\n{good}d.png,1,,cat\n"))
    assert note(hint_set, "1 of 4 annotations in tags.csv are left out: line 5: x '1' and y '' are not two numbers")
    hint_set = read_hints(data(tmp_path, f"file,x,y,label\n{good}d.png,1,2,\n"))
    assert note(hint_set, "1 of 4 annotations in tags.csv are left out: line 5: has no class")
    assert note(read_hints(data(tmp_path, "file,x,y\na.png,1,2\n")), "all is 'object'")
    numbers = {"classes.txt": "cat\ndog\nfox\n"}
    assert "its classes are numbers (7)" in refused(data(tmp_path, "file,x,y,label\na.png,1,2,7\n", files=numbers))
