"""Index PNGs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hintseg.hints import read_hints
from hintseg.types import Hints, MaskFile, Tags
from layouts import hints_of, index_png, photos, refusal, truth_of


class TestIndexPng:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        photos(tmp_path / "images", "a.jpg", "deep/b.jpg", "c.jpg")
        (tmp_path / "classes.txt").write_text("ant\nbee\n")
        return tmp_path

    def test_masks(self, folder: Path) -> None:
        first = index_png(folder / "masks" / "a.png", [2, 2, 255])
        second = index_png(folder / "masks" / "deep" / "b.png", [])
        hint_set = read_hints(folder)
        assert hints_of(hint_set) == {
            "a": Hints(Tags.complete({2}, 2)),
            "deep/b": Hints(Tags.complete((), 2)),
            "c": Hints(),
        }
        assert truth_of(hint_set) == {
            "a": MaskFile(first, shows=frozenset({2})),
            "deep/b": MaskFile(second, shows=frozenset()),
        }

    def test_scribbles_need_the_unlabelled_value(self, folder: Path) -> None:
        file = index_png(folder / "scribbles" / "a.png", [2, 2, 0] + [21] * 50)
        assert "pass unlabelled=VALUE" in refusal(folder)
        strokes = Hints(Tags.complete({2}, 2), scribbles=MaskFile(file, 21, shows=frozenset({2})))
        assert hints_of(read_hints(folder, unlabelled=21))["a"] == strokes
        truth = index_png(folder / "SegmentationClass" / "a.png", [2])
        hint_set = read_hints(folder, folder / "scribbles", unlabelled=21)
        assert hints_of(hint_set)["a"] == strokes
        assert truth_of(hint_set) == {"a": MaskFile(truth)}
        both = read_hints(folder, [folder / "scribbles", folder / "SegmentationClass"], unlabelled=21)
        assert hints_of(both)["a"].scribbles == strokes.scribbles
        assert truth_of(both) == {"a": MaskFile(truth)}
        more = index_png(folder / "lines of ben" / "deep" / "b.png", [1, 0] + [21] * 50)
        two = read_hints(folder, [folder / "scribbles", folder / "lines of ben"], unlabelled=21)
        assert hints_of(two)["deep/b"].scribbles == MaskFile(more, 21, shows=frozenset({1})), "no mask by its name"

    def test_an_unknown_value_is_never_guessed(self, folder: Path) -> None:
        index_png(folder / "masks" / "a.png", [2, 2, 0] + [21] * 50)
        message = refusal(folder)
        assert "a.png holds ids outside the class list: 21 (50 px)" in message
        assert "if 21 means 'nothing known here', pass unlabelled=21" in message

    def test_masks_of_255_for_foreground(self, folder: Path) -> None:
        index_png(folder / "masks" / "a.png", [255] * 30)
        assert "foreground painted as 255 has to become 1" in refusal(folder)

    def test_problems(self, folder: Path) -> None:
        index_png(folder / "masks" / "zzz.png", [1])
        index_png(folder / "masks" / "deep" / "b.png", [1], size=(4, 4))
        Image.new("RGB", (20, 10), "red").save(folder / "masks" / "c.png")
        cut = index_png(folder / "masks" / "a.png", list(range(2)) * 50)
        cut.write_bytes(cut.read_bytes()[:-30])
        message = refusal(folder)
        assert "zzz.png: there is no photo 'zzz'" in message
        assert "b.png has 4 x 4 pixels, but its photo has 20 x 10" in message
        assert "c.png is a colour image (mode RGB): (255, 0, 0) (200 px); values must be class ids" in message
        assert "a.png cannot be read (" in message
        assert "it may be missing or cut off" in message
        (folder / "classes.txt").unlink()
        assert "write one class name per line: line n is id n" in refusal(folder)
