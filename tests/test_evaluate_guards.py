"""What is no mask of class ids is not scored: every kind of it is refused, with what was found and what is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import LabelError
from hintseg.evaluation.folders import evaluate_folders
from hintseg.store.masks import MaskStore
from mask_images import coloured, mask_of, save

CLASSES = ("ant", "bee")
LABELS = {"a": 1, "b": 2}


def folder(path: Path, make: Callable[[int], np.ndarray | Image.Image], name: str = "{}.png") -> Path:
    for stem, label in LABELS.items():
        save(path / name.format(stem), make(label))
    return path


@pytest.fixture
def right(tmp_path: Path) -> Path:
    return folder(tmp_path / "right", mask_of)


def test_classes_in_another_order_are_compared_by_name(right: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "masks", lambda label: mask_of(3 - label))
    assert evaluate_folders(other, right).miou < 0.6
    (right / "classes.txt").write_text("ant\nbee\n")
    (other / "classes.txt").write_text("bee\nant\n")
    found = evaluate_folders(other, right)
    assert found.miou == 1
    assert found.iou == {"background": 1.0, "ant": 1.0, "bee": 1.0}
    assert "compared by name" in found.protocol
    assert evaluate_folders(other, right, classes=("Ameise", "Biene")).iou["Ameise"] == 1
    (right / "manifest.json").write_text('{"name": "a page"}')
    assert evaluate_folders(other, right).miou == 1, "that is nobody's list of classes"
    (other / "classes.txt").write_text("bee\n")
    with pytest.raises(LabelError, match="holds label 254, 0 to 2 or 255 is needed"):
        evaluate_folders(other, right)
    (other / "classes.txt").write_text("bee\nfly\n")
    with pytest.raises(LabelError, match=r"other ids, and the truth has no 'fly'"):
        evaluate_folders(other, right)
    (other / "classes.txt").write_text("ant\n")
    assert evaluate_folders(other, right).miou < 0.6, "the list says no more than that 1 is 'ant' in both"


def test_a_class_called_background_where_there_is_no_background(tmp_path: Path) -> None:
    masks = folder(tmp_path / "masks", mask_of)
    true = folder(tmp_path / "true", mask_of)
    store = MaskStore(masks, ("background", "bee"), background=False)
    for stem, label in LABELS.items():
        store.write(stem, np.full((15, 20), label, np.uint8))
        save(true / f"{stem}.png", np.full((15, 20), label, np.uint8))
    store.finish()
    (true / "classes.txt").write_text("background\nbee\n")
    assert evaluate_folders(masks, true).miou == 1


def test_colours_that_say_the_class_are_not_put_in_order_twice(tmp_path: Path) -> None:
    true = folder(tmp_path / "true", mask_of)
    (true / "classes.txt").write_text("ant\nbee\n")
    masks = folder(tmp_path / "masks", coloured)
    (tmp_path / "masks" / "colours.csv").write_text("name,r,g,b\nbackground,0,0,0\nant,200,0,0\nbee,0,0,200\n")
    assert evaluate_folders(masks, true).miou == 1
    (tmp_path / "masks" / "classes.txt").write_text("bee\nant\n")
    assert evaluate_folders(masks, true).miou == 1


def sorted_palette(label: int) -> Image.Image:
    """The colours of a mask in the order of their frequency, as tools save a picture with a palette."""
    return Image.fromarray(coloured(label)).quantize()


@pytest.mark.parametrize("side", ["masks", "truth"])
@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (lambda label: mask_of(255), "{}.png", "hold only 0 and 255, and 255 means 'ignore'"),
        (lambda label: mask_of(label) * 0 + 255, "{}.png", "hold only 255"),
        (coloured, "{}.png", "2 of 2 (a.png and b.png): each is a colour image (mode RGB): (0, 0, 0) (300 px)"),
        (mask_of, "{}.jpg", "holds 2 JPEGs and no PNG: JPEG cannot keep class ids"),
        (lambda label: mask_of(label) > 0, "{}.png", "each is black and white, so it does not say which of the 2"),
        (sorted_palette, "{}.png", "so values are no class ids"),
        (lambda label: mask_of(label).astype(np.uint16) * 500, "{}.png", "such as those of objects (an instance mask)"),
        (lambda label: mask_of(label, (10, 5)), "{}.png", "pixels, its truth"),
        (lambda label: mask_of(label).T, "{}.png", "turned: write both as the photo is shown"),
        (mask_of, "{}_gt.png", "end in '_gt', those of the other folder do not"),
        (mask_of, "mask_{}.png", "begin with 'mask_', those of the other folder do not"),
        (lambda label: mask_of(7), "{}.png", "holds label 7, 0 to 2 or 255 is needed"),
    ],
)
def test_what_is_no_mask_of_class_ids_is_refused(
    right: Path,
    tmp_path: Path,
    side: str,
    make: Callable[[int], np.ndarray | Image.Image],
    name: str,
    expected: str,
) -> None:
    wrong = folder(tmp_path / "wrong", make, name)
    masks, truth = (wrong, right) if side == "masks" else (right, wrong)
    with pytest.raises(LabelError) as caught:
        evaluate_folders(masks, truth, classes=CLASSES)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda label: mask_of(label).astype(np.uint16),
        lambda label: np.dstack([mask_of(label)] * 3),
        lambda label: Image.fromarray(mask_of(label)).convert("P"),
    ],
)
def test_class_ids_in_any_kind_of_picture_are_scored(
    right: Path, tmp_path: Path, make: Callable[[int], np.ndarray | Image.Image]
) -> None:
    scores = evaluate_folders(folder(tmp_path / "other", make), right, classes=CLASSES)
    assert scores.miou == 1
    assert scores.protocol.endswith("Values found: truth 0, 1 and 2; masks 0, 1 and 2.")


def test_other_suffixes_and_hidden_folders(right: Path, tmp_path: Path) -> None:
    truth = folder(tmp_path / "truth", mask_of, "{}.tif")
    save(truth / ".ipynb_checkpoints" / "a-checkpoint.tif", mask_of(2))
    scores = evaluate_folders(right, truth)
    assert (scores.photos, scores.miou, scores.missing) == (2, 1, ())


def test_masks_that_show_nothing_get_no_good_score(right: Path, tmp_path: Path) -> None:
    nothing = folder(tmp_path / "nothing", lambda label: mask_of(0))
    assert evaluate_folders(nothing, right, classes=CLASSES).iou == {
        "background": pytest.approx(300 / 400),
        "ant": 0,
        "bee": 0,
    }
    with pytest.raises(LabelError, match=r"so only background .0. would be compared"):
        evaluate_folders(nothing, nothing, classes=CLASSES)


def test_colours_with_a_table_are_scored(right: Path, tmp_path: Path) -> None:
    truth = folder(tmp_path / "data" / "SegmentationClass", coloured)
    (tmp_path / "data" / "labelmap.txt").write_text("background:0,0,0::\nant:200,0,0::\nbee:0,0,200::\n")
    scores = evaluate_folders(right, truth)
    assert scores.iou == {"background": 1, "ant": 1, "bee": 1}
    other = evaluate_folders(right, truth, classes=["bee", "ant"])
    assert (other.iou["ant"], other.iou["bee"]) == (0, 0), "the class list says which id is which"


def test_a_table_of_colours_is_a_list_of_classes_too(right: Path, tmp_path: Path) -> None:
    """Each side's own list says its ids: that of names here, that of colours there, in other orders."""
    (right / "classes.txt").write_text("background\nant\nbee\n")
    colours = folder(tmp_path / "data" / "SegmentationClass", coloured)
    (tmp_path / "data" / "labelmap.txt").write_text("background:0,0,0::\nbee:0,0,200::\nant:200,0,0::\n")
    for masks, truth in ((right, colours), (colours, right)):
        found = evaluate_folders(masks, truth)
        assert found.iou == {"background": 1, "ant": 1, "bee": 1}
        assert "compared by name" in found.protocol


def test_lists_that_contradict_each_other_are_refused(right: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "masks", mask_of)
    (right / "classes.txt").write_text("ant\nbee\n")
    (other / "classes.txt").write_text("ant\nfly\n")
    with pytest.raises(LabelError, match=r"other ids, and the truth has no 'fly'"):
        evaluate_folders(other, right)
    for one in (right, other):
        (one / "classes.txt").write_text("ant\n")
    with pytest.raises(LabelError, match="holds label 2, 0 to 1 or 255 is needed"):
        evaluate_folders(other, right)


def test_one_class_in_black_and_white(tmp_path: Path) -> None:
    both = folder(tmp_path / "one", lambda label: mask_of(label) > 0)
    assert evaluate_folders(both, both, classes=["ant"]).iou == {"background": 1, "ant": 1}
