"""The check of a labelled folder, and the real data sets' counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hintseg.hints.check import CheckReport, check
from hintseg.types import Box, Click, Hints, HintSet, Mark, MaskFile, Photo, Stroke, Tags


def report_on(
    folder: Path,
    hints: list[Hints],
    classes: tuple[str, ...] = ("ant", "bee"),
    *,
    size: tuple[int, int] = (80, 70),
    splits: dict[str, tuple[str, ...]] | None = None,
    background: bool = True,
) -> CheckReport:
    """Check a set of photos of one `size` (width, height), with ids 0, 1, ..."""
    Image.new("RGB", size, "grey").save(folder / "photo.png")
    photos = tuple(Photo(str(i), folder / "photo.png", hint, hint.mask) for i, hint in enumerate(hints))
    return check(HintSet("set", classes, photos, splits or {}, background, ("a note",)))


def tags(*ids: int) -> Hints:
    return Hints(Tags(frozenset(ids)))


def said(report: CheckReport, *parts: str) -> bool:
    """Return whether one verdict has all parts."""
    return any(all(part in verdict for part in parts) for verdict in report.verdicts)


def test_the_numbers(tmp_path: Path) -> None:
    hints = [tags(1), tags(1, 2), tags(1, 2), tags(), Hints(), Hints(Tags(frozenset({2})), (Mark(2, Box(0, 0, 9, 9)),))]
    report = report_on(tmp_path, hints, splits={"train": ("0", "1"), "val": ("2",)})
    assert report.photos == 6
    assert report.photos_per_class == {"ant": 3, "bee": 3}
    assert report.objects_per_class == {"ant": 0, "bee": 1}
    assert report.cooccurrence == ((3, 2), (2, 3))
    assert report.hints == {"tags": 5, "boxes": 1, "scribbles": 0, "points": 0, "masks": 0}
    assert (report.single_tag_share, report.multi_tag_share) == (0.5, 0.5)
    assert report.negatives == 1
    assert report.unlabelled == ("4",)
    assert report.sizes == {"min": (80, 70), "median": (80, 70), "max": (80, 70)}
    assert report.distinct_sizes == 1
    assert report.splits == {"train": 2, "val": 1}
    assert report.notes == ("a note",)
    again = json.loads(json.dumps(report.as_dict()))
    assert again["cooccurrence"] == [[3, 2], [2, 3]]


def test_nothing_to_complain_about(tmp_path: Path) -> None:
    assert report_on(tmp_path, [tags(1), tags(2), tags(1, 2), tags()] * 20).verdicts == ()


def test_a_class_that_never_appears_without_another(tmp_path: Path) -> None:
    report = report_on(tmp_path, [tags(1, 2)] * 30 + [tags(2)] * 30 + [tags()])
    assert said(report, "'ant' never appears without 'bee' (30 photos)", "give boxes or points")
    assert not said(report, "'bee' never appears without")


def test_a_name_and_its_misspelling_are_asked_about(tmp_path: Path) -> None:
    names = ("grass", "gras", "horse", "house")
    report = report_on(tmp_path, [tags(1), tags(1, 3), tags(2), tags(4)], names)
    assert said(report, "are grass (2) and gras (1) one class?", "mend the label file")
    assert not said(report, "horse", "one class")
    assert not said(report_on(tmp_path, [tags(1)], names), "one class")  # a class list may hold both
    assert said(report_on(tmp_path, [tags(1), tags(2)], ("Person", "person")), "one class?")
    many = [tags(1), tags(2)] * 20
    assert not said(report_on(tmp_path, many, names), "one class")


def test_few_absent_and_untrained_classes(tmp_path: Path) -> None:
    hints = [tags(1)] * 30 + [tags(2)] * 3
    report = report_on(tmp_path, hints, ("ant", "bee", "cow"), splits={"train": ("0", "1"), "val": ("31",)})
    assert said(report, "fewer than 20 photos of bee (3)")
    assert said(report, "no photo shows cow")
    assert said(report, "no photo of the split train shows bee")


def test_no_tag_at_all(tmp_path: Path) -> None:
    assert said(report_on(tmp_path, [Hints(), tags()]), "no photo has a tag: nothing can be learned")


def test_one_class_in_every_photo_needs_negatives_or_places(tmp_path: Path) -> None:
    only = report_on(tmp_path, [tags(1)] * 30, ("ant",))
    assert said(only, "every photo has the tag ant", "add negatives")
    assert not said(report_on(tmp_path, [tags(1)] * 30 + [tags()], ("ant",)), "every photo has the tag")
    placed = Hints(Tags(frozenset({1})), (Mark(1, Click(3, 3)),))
    assert report_on(tmp_path, [placed] * 30, ("ant",)).verdicts == ()
    assert said(report_on(tmp_path, [tags(1, 2)] * 30), "every photo has the tag ant, bee")


def test_objects_that_fill_the_picture(tmp_path: Path) -> None:
    full, small = Mark(1, Box(0, 0, 80, 60)), Mark(2, Box(0, 0, 9, 9))
    hints = [Hints(Tags(frozenset({1, 2})), (full, small)), tags(1), tags(2)] * 20
    assert said(report_on(tmp_path, hints), "fill the picture: ant (86%)")
    assert not said(report_on(tmp_path, hints, background=False), "fill the picture")


@pytest.mark.parametrize("at_once", [1, 8, 1 << 18])
def test_boxes_of_two_classes_in_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("hintseg.hints.check._AT_ONCE", at_once)
    corners = [(10, 10, 30, 30), (11, 10, 31, 30), (60, 40, 70, 50), (40, 40, 50, 50)]
    both = tuple(Mark(1 if i == 0 else 2, Box(*four)) for i, four in enumerate(corners))
    hints = [Hints(Tags(frozenset({1, 2})), both), tags(1), tags(2)] * 20
    report = report_on(tmp_path, hints)
    assert said(report, "20 of 20 boxes of 'ant' lie on a box of 'bee'")
    assert said(report, "20 of 60 boxes of 'bee' lie on a box of 'ant'")
    apart = [Hints(Tags(frozenset({1, 2})), both[:1] + both[2:]), tags(1), tags(2)] * 20
    assert report_on(tmp_path, apart).verdicts == ()


def test_tiny_photos_and_photos_in_both_splits(tmp_path: Path) -> None:
    report = report_on(
        tmp_path, [tags(1), tags(2)] * 20, size=(200, 63), splits={"train": ("0", "2", "1"), "val": ("2",)}
    )
    assert said(report, "40 photos with a side below 64 px (0, 1, 2, 3 and 36 more)")
    assert said(report, "1 photo in both train and val (2)")


def test_masks_without_background_and_with_it(tmp_path: Path) -> None:
    for name, value in (("full", 1), ("some", 0)):
        mask = np.full((70, 80), 2, dtype=np.uint8)
        mask[:20] = value
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    full, some = (Hints(Tags(frozenset({1, 2})), mask=MaskFile(tmp_path / f"{name}.png")) for name in ("full", "some"))
    assert said(
        report_on(tmp_path, [full]), "value 0 (background) occurs in none of the 1 masks", "data.background=none"
    )
    assert not said(report_on(tmp_path, [full, some]), "value 0")
    assert said(report_on(tmp_path, [some], background=False), "value 0 occurs in 1 masks, but data.background=none")


def test_unreadable_photos_and_masks_that_do_not_fit(tmp_path: Path) -> None:
    report_on(tmp_path, [tags(1)])
    data = np.random.default_rng(0).integers(0, 255, (70, 80, 3), dtype=np.uint8)
    Image.fromarray(data).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no photo")
    Image.fromarray(np.full((5, 5), 1, dtype=np.uint8)).save(tmp_path / "small.png")
    photos = (
        Photo("cut", tmp_path / "cut.jpg", tags(1)),
        Photo("text", tmp_path / "text.jpg", tags(1)),
        Photo("mask", tmp_path / "whole.jpg", tags(1), MaskFile(tmp_path / "small.png")),
        Photo("box", tmp_path / "whole.jpg", Hints(Tags(frozenset({1})), (Mark(1, Box(0, 0, 100, 20)),))),
    )
    report = check(HintSet("set", ("ant",), photos))
    assert report.unreadable.keys() == {"cut", "text"}
    assert said(report, "2 photos cannot be read (cut, text)")
    assert len(report.problems) == 2
    assert "has 5 x 5 pixels, but its photo has 80 x 70" in report.problems[0]
    assert "a box reaches (100, 20), but its photo has 80 x 70" in report.problems[1]
    assert said(report, "2 masks or boxes do not fit")


def judged(folder: Path, hints: list[Hints], masks: list[np.ndarray]) -> CheckReport:
    """Check photos of 80 x 70 with a true mask each."""
    Image.new("RGB", (80, 70), "grey").save(folder / "photo.png")
    photos = []
    for number, (hint, mask) in enumerate(zip(hints, masks, strict=True)):
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        photos.append(Photo(str(number), folder / "photo.png", hint, MaskFile(folder / f"{number}_mask.png")))
    return check(HintSet("set", ("ant", "bee"), tuple(photos)))


def square(label: int) -> np.ndarray:
    mask = np.zeros((70, 80), np.uint8)
    mask[10:30, 10:30] = label
    return mask


def test_masks_against_tags(tmp_path: Path) -> None:
    def complete(*present: int) -> Hints:
        return Hints(Tags.complete(present, 2))

    swapped = judged(tmp_path, [complete(1), complete(2), complete()], [square(2), square(1), square(0)])
    assert said(swapped, "2 masks show none of their photo's tags (0 is tagged ant, its mask shows bee)")
    assert said(swapped, "do the values of the masks count the classes as the class list does?")
    right = judged(tmp_path, [complete(1), complete(2), complete()], [square(1), square(2), square(0)])
    assert not said(right, "mask")
    more = judged(tmp_path, [complete(), complete(1)], [square(1), square(1)])
    assert said(more, "1 mask shows classes that are not among their photo's tags (0)")
    assert said(judged(tmp_path, [complete(1, 2)], [square(1)]), "1 mask does not show all of their photo's tags (0)")
    unsaid = Hints(Tags(frozenset({1})))
    both = square(1)
    both[50:60, 50:60] = 2
    assert not said(judged(tmp_path, [unsaid], [both]), "not among"), "nothing was said of bees"


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    report = judged(tmp_path, [Hints(), tags(1)], [square(255), square(1)])
    assert said(report, "1 mask holds only 0 and 255 (0), and 255 is left out of everything")


def test_boxes_against_masks(tmp_path: Path) -> None:
    inside, beside, other = Mark(1, Box(5, 5, 35, 35)), Mark(1, Box(40, 40, 60, 60)), Mark(2, Box(5, 5, 35, 35))
    report = judged(tmp_path, [Hints(tags(1).tags, (inside, beside))], [square(1)])
    assert said(report, "1 boxes hold no pixel of their class in the true mask (0)")
    assert said(judged(tmp_path, [Hints(tags(2).tags, (other,))], [square(1)]), "1 boxes hold no pixel")
    assert not said(judged(tmp_path, [Hints(tags(1).tags, (inside,))], [square(1)]), "boxes")


def test_photos_that_are_nearly_black_and_photos_of_fewer_bits(tmp_path: Path) -> None:
    for name, levels in (
        ("dark", np.full((70, 80, 3), 15, np.uint8)),
        ("bright", np.full((70, 80, 3), 200, np.uint8)),
        ("twelve", np.full((70, 80), 3060, np.uint16)),
        ("ten", np.full((70, 80), 900, np.uint16)),
        ("sixteen", np.full((70, 80), 60000, np.uint16)),
    ):
        Image.fromarray(levels).save(tmp_path / f"{name}.png")

    def report(*names: str) -> CheckReport:
        return check(HintSet("set", ("ant",), tuple(Photo(name, tmp_path / f"{name}.png", tags(1)) for name in names)))

    assert said(report("dark", "bright"), "1 photo with no level above 24 of 255 (dark), nearly black")
    assert said(report("twelve"), "1 photo kept in 16 bits, of which they use fewer (bits used: 12 by 1)")
    assert said(report("twelve", "ten"), "(bits used: 10 by 1 and 12 by 1)", "are stretched differently")
    assert not said(report("sixteen", "bright"), "bits")


def test_marks_on_what_the_mask_calls_something_else(tmp_path: Path) -> None:
    mask = np.zeros((70, 80), np.uint8)
    mask[:, 40:], mask[:10] = 2, 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    drawn = np.full((70, 80), 255, np.uint8)
    drawn[30, 20:60], drawn[50, 42:50] = 2, 1  # half of the first one is right
    Image.fromarray(drawn).save(tmp_path / "s.png")
    marks = (
        *(Mark(2, Click(60, 30)), Mark(1, Click(60, 30)), Mark(1, Click(60, 3))),
        *(Mark(0, Stroke((2, 20, 30, 20))), Mark(0, Stroke((30, 20, 70, 20))), Mark(255, Click(3, 30))),
    )
    strokes = MaskFile(tmp_path / "s.png", 255, shows=frozenset({1, 2}))
    hints = [
        Hints(Tags(frozenset({1, 2})), marks, mask=MaskFile(tmp_path / "m.png")),
        Hints(Tags(frozenset({1, 2})), scribbles=strokes, mask=MaskFile(tmp_path / "m.png")),
    ]
    report = report_on(tmp_path, hints)
    assert said(report, "3 clicks or strokes lie on what the true mask calls something else (0, 1)", "move them")
    assert not said(report_on(tmp_path, [Hints(hints[0].tags, marks[:1], mask=hints[0].mask)]), "clicks or strokes")


def test_a_class_with_a_stroke_of_one_pixel(tmp_path: Path) -> None:
    speck, line = Mark(1, Stroke((20.5, 20.5))), Mark(2, Stroke((3, 4, 30, 40)))
    report = report_on(tmp_path, [Hints(Tags(frozenset({1, 2})), (speck, line))])
    assert said(report, "the strokes of ant touch a single pixel in all photos", "take the class out")
    assert not said(report, "the strokes of bee"), "nor with a click beside"
    again = report_on(tmp_path, [Hints(Tags(frozenset({1})), (speck,)), Hints(Tags(frozenset({1})), (speck,))])
    assert not said(again, "touch a single pixel")
    clicked = report_on(tmp_path, [Hints(Tags(frozenset({1})), (speck, Mark(1, Click(5, 5))))])
    assert not said(clicked, "touch a single pixel")
