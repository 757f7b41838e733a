"""Tables of tags, boxes and points that are written are read again as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from hintseg.formats.codec import Writer, Written
from hintseg.formats.csv import Csv
from hintseg.formats.points import Points
from hintseg.hints import read_hints
from hintseg.hints.convert import write
from hintseg.types import Box, Click, Hints, HintSet, Mark, Photo, Stroke, Tags

NAMES = ("cat", "big dog", "café au lait", "red, round", "a;b|c", 'say "hi"', "label", "0", "none", "['x', 'y']")
PHOTOS = ("a.png", "sub/a.png", "sub/b, c;d.jpg", "ünï/ö.png", "x.png", "x.jpg", "1.png", "file.png")
SIZE = (31, 17)
"""(width, height)"""


def photos(folder: Path) -> list[Photo]:
    for name in PHOTOS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(folder / name)
    (folder / "tags.csv").write_text("a.png,x\n")
    found = read_hints(folder, folder / "tags.csv")
    (folder / "tags.csv").unlink()
    return [Photo(photo.id, photo.path) for photo in found.photos]


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    return photos(tmp_path_factory.mktemp("photos"))


def again(codec: Writer, hint_set: HintSet, root: Path) -> tuple[HintSet, Written]:
    with TemporaryDirectory() as out:
        written = codec.write(hint_set, Path(out))
        return read_hints(root, written.labels, format=codec.name), written  # type: ignore[attr-defined]


def same(one: HintSet, other: HintSet) -> bool:
    return one.classes == other.classes and [p.hints for p in one.photos] == [p.hints for p in other.photos]


classes_ = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True).map(tuple)


def pixels(low: int, high: int) -> st.SearchStrategy[float]:
    """Draw fractions that stay exact when they are scaled."""
    return st.integers(64 * low, 64 * high).map(lambda value: value / 64)


coordinates = st.tuples(pixels(0, 15), pixels(0, 8), pixels(1, 16), pixels(1, 9)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@st.composite
def tagged(draw: st.DrawFn, complete: bool = False) -> tuple[tuple[str, ...], list[Tags | None]]:
    names = draw(classes_)
    ids = range(1, len(names) + 1)
    found: list[Tags | None] = []
    for _ in PHOTOS:
        said = draw(st.sets(st.sampled_from(ids))) if not complete else set(ids)
        present = draw(st.sets(st.sampled_from(ids)))
        tags = Tags(frozenset(present & said), frozenset(said)) if said else None
        found.append(draw(st.sampled_from([None, tags])))
    if not any(found):
        found[0] = Tags.complete({1}, len(names))
    return names, found


quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(tagged())
def test_tags_of_any_names_also_where_not_all_is_said(
    blank: list[Photo], drawn: tuple[tuple[str, ...], list[Tags | None]]
) -> None:
    names, tags = drawn
    hint_set = HintSet("x", names, tuple(replace(p, hints=Hints(t)) for p, t in zip(blank, tags, strict=True)))
    found, written = again(Csv(), hint_set, blank[0].path.parent)
    assert same(found, hint_set)
    assert written.lost == ()


@quick
@given(
    tagged(complete=True),
    st.lists(st.tuples(st.integers(0, 7), st.integers(1, 6), coordinates, st.floats(0, 1)), min_size=1, unique=True),
)
def test_boxes(
    blank: list[Photo],
    drawn: tuple[tuple[str, ...], list[Tags | None]],
    boxes: list[tuple[int, int, tuple[float, float, float, float], float]],
) -> None:
    names, tags = drawn
    kept = []
    for index, (photo, said) in enumerate(zip(blank, tags, strict=True)):
        own: dict[tuple[int, Box], Mark[Box]] = {}
        for at, label, corners, trust in boxes:
            label = min(label, len(names))
            if at == index:
                mark = Mark(label, Box(*corners), len(own) + 1, trust=trust)
                own.setdefault((label, mark.shape), mark)
        present = {mark.label for mark in own.values()} | set(said or ())
        whole = None if said is None and not own else Tags.complete(present, len(names))
        kept.append(replace(photo, hints=Hints(whole, tuple(own.values()))))
    assume(any(max(mark.shape.corners) > 1 for photo in kept for mark in photo.hints.shaped(Box)))  # else shares
    hint_set = HintSet("x", names, tuple(kept))
    found, written = again(Csv(), hint_set, blank[0].path.parent)
    assert same(found, hint_set)
    assert written.lost == ()


@quick
@given(
    tagged(complete=True),
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 6), pixels(0, 30), pixels(0, 16), st.floats(0, 1)),
        min_size=1,
        unique_by=lambda point: point[:4],
    ),
)
def test_points(
    blank: list[Photo],
    drawn: tuple[tuple[str, ...], list[Tags | None]],
    points: list[tuple[int, int, float, float, float]],
) -> None:
    names, tags = drawn
    kept = []
    for index, (photo, said) in enumerate(zip(blank, tags, strict=True)):
        own: dict[tuple[int, Click], Mark[Click]] = {}
        for at, label, x, y, trust in points:
            label = min(label, len(names))
            if at == index:
                own.setdefault((label, Click(x, y)), Mark(label, Click(x, y), trust=trust))
        present = {mark.label for mark in own.values()} - {0} | set(said or ())
        whole = None if said is None and not own else Tags.complete(present, len(names))
        kept.append(replace(photo, hints=Hints(whole, tuple(own.values()))))
    assume(any(max(m.shape.x, m.shape.y) > 1 for photo in kept for m in photo.hints.shaped(Click)))  # else shares
    hint_set = HintSet("x", names, tuple(kept))
    found, written = again(Points(), hint_set, blank[0].path.parent)
    assert same(found, hint_set)
    assert written.lost == ()


def test_clicks_of_one_object(blank: list[Photo]) -> None:
    marks = (Mark(1, Click(1, 2), 1), Mark(1, Click(3, 4), 2), Mark(1, Click(5, 6), 1), Mark(2, Click(7, 8)))
    hint_set = HintSet(
        "x", ("cat", "dog"), (replace(blank[0], hints=Hints(Tags.complete({1, 2}, 2), marks)), *blank[1:])
    )
    assert same(again(Points(), hint_set, blank[0].path.parent)[0], hint_set)


def test_what_is_lost_is_said(blank: list[Photo], tmp_path: Path) -> None:
    some = Hints(Tags(frozenset({1}), frozenset({1})), (Mark(1, Box(1, 1, 5, 5), 1), Mark(255, Box(5, 5, 9, 9))))
    strokes = Hints(Tags.complete({2}, 2), (Mark(2, Click(3, 3)), Mark(2, Stroke((1, 1, 5, 5)))))
    photos_ = (replace(blank[0], hints=some), replace(blank[1], hints=strokes), *blank[2:])
    hint_set = HintSet("x", ("cat", "dog"), photos_)
    lost = write(hint_set, "csv", tmp_path / "csv").lost
    assert "1 boxes of crowds are left out: a table of boxes has none" in lost
    assert "of 1 photos only some classes are known; a table of boxes says that all others are absent" in lost
    assert any("scribbles" in one for one in lost)
    lost = write(hint_set, "points", tmp_path / "points").lost
    assert "of 1 photos only some classes are known; a table of points says that all others are absent" in lost
    assert any("boxes" in one for one in lost)
