"""Marks, tags and what they imply; truth stands apart from hints."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hintseg.config.loader import load_config
from hintseg.errors import ConfigError, LabelError
from hintseg.hints import read_hints
from hintseg.hints.implied import implied_tags, tag_rows
from hintseg.hints.marks import read_marks
from hintseg.hints.masks import read_mask, read_scribbles, read_taught
from hintseg.pipeline.begin import make_plan
from hintseg.types import IGNORE, Box, Click, Hints, Mark, MaskFile, Photo, Region, Stroke, Tags


def test_marks_cannot_be_changed_and_travel_to_other_processes() -> None:
    marks = (Mark(1, Box(0, 0, 2, 2), 1), Mark(2, Stroke((0, 0, 3, 3), 2.0)), Mark(0, Click(1, 1)), Mark(3, Region()))
    assert pickle.loads(pickle.dumps(marks)) == marks
    with pytest.raises(dataclasses.FrozenInstanceError):
        marks[0].label = 2  # type: ignore[misc]
    assert len({*marks, Mark(1, Box(0, 0, 2, 2), 1)}) == 4
    assert Mark(1, Click(0, 0), source="model:x", trust=0.5) != Mark(1, Click(0, 0))


def test_objects_are_neither_crowds_nor_background() -> None:
    boxes = tuple(Mark(label, Box(0, 0, 2, 2)) for label in (1, IGNORE, 0, 2))
    hints = Hints(marks=(*boxes, Mark(1, Click(0, 0))))
    assert [mark.label for mark in hints.objects] == [1, 2]
    assert hints.shaped(Box) == boxes
    assert hints.shaped(Stroke) == ()


@given(
    st.tuples(st.integers(20, 700), st.integers(20, 700)), st.tuples(st.floats(0, 1), st.floats(0, 1)), st.booleans()
)
def test_a_click_says_something_of_the_pixel_it_lies_in(
    size: tuple[int, int], place: tuple[float, float], whole: bool
) -> None:
    y, x = (min(share * side, side - 1e-3) for share, side in zip(place, size, strict=True))
    y, x = (float(int(y)), float(int(x))) if whole else (y, x)
    for shape in (Click(x, y), Stroke((x, y))):
        marked = read_marks(Hints(marks=(Mark(3, shape),)), size)
        assert marked is not None
        assert marked.pixels[int(y), int(x)] == 3 or (marked.pixels == 3).sum() > 1


class TestImplied:
    def test_a_mark_says_its_tag_and_without_tags_that_others_are_absent(self) -> None:
        marks = (Mark(2, Box(0, 0, 2, 2)), Mark(0, Click(0, 0)), Mark(IGNORE, Box(0, 0, 2, 2)))
        assert implied_tags(Hints(marks=marks), 3) == Tags.complete({2}, 3)
        assert implied_tags(Hints(marks=marks), 3, closed=False) == Tags(frozenset({2}))

    def test_said_tags_are_added_to_and_nothing_is_assumed_beside_them(self) -> None:
        said = Tags(frozenset({1}), frozenset({3}))
        hints = Hints(said, (Mark(2, Stroke((0, 0))),))
        assert implied_tags(hints, 4) == Tags(frozenset({1, 2}), frozenset({3}))

    def test_nothing_said_stays_nothing(self) -> None:
        assert implied_tags(Hints(), 3) is None
        assert implied_tags(Hints(scribbles=MaskFile(Path("a.png"))), 3) is None, "nobody looked into it"
        looked = MaskFile(Path("a.png"), shows=frozenset())
        assert implied_tags(Hints(scribbles=looked), 3) == Tags.complete((), 3)

    def test_rows_tell_absent_from_not_said(self) -> None:
        tags = [
            Tags.complete({1}, 2),
            Tags(frozenset({2})),
            Tags(frozenset(), frozenset({1})),
            Tags.complete((), 2),
            None,
        ]
        values, known = tag_rows([Hints(one) for one in tags], 2)
        assert values.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
        assert known.tolist() == [[True, True], [False, True], [True, False], [True, True], [False, False]]

    def test_photos_share_what_they_say_something_about(self) -> None:
        one, other = Tags.complete({1}, 90), Tags(frozenset({2}), frozenset(range(1, 91)))
        assert one.said is other.said
        assert other.absent == frozenset(range(1, 91)) - {2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos a and b with tags and true masks; c has tags only."""
    (tmp_path / "SegmentationClass").mkdir()
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    (tmp_path / "tags.csv").write_text("a.png,ant\nb.png,bee\nc.png,ant\n")
    for name in "abc":
        Image.new("RGB", (6, 4)).save(tmp_path / f"{name}.png")
    for name, value in ("a", 1), ("b", 2):
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(tmp_path / "SegmentationClass" / f"{name}.png")
    return tmp_path


class TestTruth:
    def learned(self, folder: Path, *settings: str, recipe: str = "full") -> dict[str, bool]:
        config = load_config(recipe, settings, data={"path": str(folder)})
        split = make_plan(read_hints(folder), config)
        return {photo.id: photo.hints.mask is not None for photo in split.train}

    def test_readers_put_masks_where_they_only_judge(self, folder: Path) -> None:
        photos = read_hints(folder).photos
        assert [photo.truth is not None for photo in photos] == [True, True, False]
        assert all(photo.hints.mask is None and read_taught(photo) is None for photo in photos)
        mask = read_mask(photos[1])
        assert mask is not None
        assert (mask == 2).all()

    def test_masks_teach_where_it_is_said(self, folder: Path) -> None:
        assert self.learned(folder) == {"a": True, "b": True}, "recipe `full` says all"
        assert self.learned(folder, recipe="cam") == {"a": False, "b": False, "c": False}
        (folder / "reviewed.txt").write_text("b\n\n")
        listed = f"data.learn_masks={folder / 'reviewed.txt'}"
        assert self.learned(folder, listed) == {"b": True}
        assert self.learned(folder, listed, recipe="cam") == {"a": False, "b": True, "c": False}
        (folder / "train.txt").write_text("a\nc\n")
        assert self.learned(folder, "data.learn_masks=train", "data.train=all") == {"a": True}

    def test_no_segmenter_falls_back_on_truth_in_silence(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match=r"true masks teach only where you say so: set data.learn_masks"):
            self.learned(folder, "data.learn_masks=null")
        with pytest.raises(ConfigError, match=r"set data.learn_masks"):
            self.learned(folder, "localize=null", "refine=null", recipe="cam")

    def test_what_learn_masks_may_be(self, folder: Path) -> None:
        with pytest.raises(LabelError, match="neither a split nor a file"):
            self.learned(folder, "data.learn_masks=trian")
        (folder / "list.txt").write_text("b\nc\naa\n")
        with pytest.raises(LabelError) as caught:
            self.learned(folder, f"data.learn_masks={folder / 'list.txt'}")
        assert "line 2: 'c' has no mask" in str(caught.value)
        assert "line 3: 'aa' is no photo's id" in str(caught.value)
        for mask in (folder / "SegmentationClass").iterdir():
            mask.unlink()
        with pytest.raises(LabelError, match="none of these photos has a mask"):
            self.learned(folder)


def test_an_image_that_counts_classes_otherwise(tmp_path: Path) -> None:
    Image.new("RGB", (3, 1)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / "s.png")
    file = MaskFile(tmp_path / "s.png", unlabelled=0, ids=(3, 1))
    strokes = read_scribbles(Photo("a", tmp_path / "a.png", Hints(scribbles=file)), n_classes=3)
    assert strokes is not None
    assert strokes.tolist() == [[255, 3, 1]]
    with pytest.raises(LabelError, match="outside the class list: 2"):
        read_scribbles(Photo("a", tmp_path / "a.png", Hints(scribbles=dataclasses.replace(file, ids=(3,)))))
