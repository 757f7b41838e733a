"""Strokes and clicks as labels of pixels, spread over a photo by its colours, and masks of them in one command."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

import hintseg
from hintseg.cli.app import app
from hintseg.errors import LabelError, ShapeError
from hintseg.hints.marks import read_marks
from hintseg.labellers.strokes import Strokes, cut_out
from hintseg.refine.geodesic import geodesic
from hintseg.store.masks import read_label_png
from hintseg.types import Box, Click, Hints, Mark, MaskFile, Region, Shape, Stroke
from made import given

SIZE = (40, 56)
Labels = npt.NDArray[np.uint8]

# --- marks ----------------------------------------------------------------------------------------------------------


def said(*marks: Mark[Shape], size: tuple[int, int] = SIZE, click_px: float = 2.0) -> Labels:
    return given(read_marks(Hints(marks=marks), size, click_px=click_px)).pixels


def test_a_click_is_a_disc_that_grows_with_the_photo() -> None:
    for side in (100, 500, 2000):
        found = said(Mark(1, Click(side / 2, side / 4)), size=(side // 2, side), click_px=3.0)
        radius = 3.0 * side / 500
        y, x = np.mgrid[: side // 2, :side] + 0.5
        disc = np.hypot(x - side / 2, y - side / 4) <= radius
        if not disc.any():  # the click lies where four pixels meet, farther than that from all their centres
            disc[side // 4, side // 2] = True
        np.testing.assert_array_equal(found == 1, disc)
        assert set(np.unique(found)) <= {1, 255}
    alone = said(Mark(1, Click(7.9, 3.1)), click_px=0)
    assert np.argwhere(alone == 1).tolist() == [[3, 7]]


def test_thin_strokes_are_not_lost_on_large_photos() -> None:
    found = said(Mark(2, Stroke((10.5, 500.5, 1990.5, 500.5))), size=(1000, 2000))
    assert (found[499:502, 20:1980] == 2).all(), "4 pixels wide, one where the photo is reduced to 500"
    assert not (found[:490] == 2).any()


def test_marks_that_contradict_each_other_say_nothing_where_they_do() -> None:
    marks = (Mark(1, Stroke((0, 10, 56, 10), 4)), Mark(2, Stroke((20, 0, 20, 40), 4)))
    crossing = said(marks[0]) != 255
    crossing &= said(marks[1]) != 255
    both = said(*marks)
    assert crossing.any()
    assert (both[crossing] == 255).all()
    np.testing.assert_array_equal(both[~crossing], np.minimum(said(marks[0]), said(marks[1]))[~crossing])
    third = Mark(1, Stroke((20, 0, 20, 40), 4))
    assert (said(*marks, third)[crossing] == 255).all(), "nor does a third mark decide"


def test_trust_regions_background_and_what_is_to_be_ignored() -> None:
    marks = (
        Mark(1, Region(((0, 0, 10, 0, 10, 10, 0, 10),)), trust=0.5),
        Mark(0, Stroke((30, 5, 50, 5), 3)),
        Mark(255, Box(0, 0, 40, 20)),
        Mark(3, Box(20, 20, 40, 40), object=1),
    )
    found = given(read_marks(Hints(marks=marks), SIZE))
    assert set(np.unique(found.pixels)) == {0, 1, 255}, "boxes say nothing of single pixels"
    assert found.classes == {1}
    trust = given(found.trust)
    assert (trust[found.pixels == 1] == 0.5).all()
    assert (trust[found.pixels == 0] == 1).all()
    np.testing.assert_array_equal(found.ignored[:20, :40], found.pixels[:20, :40] == 255)
    assert not found.ignored[20:].any()
    without = given(read_marks(Hints(marks=marks), SIZE, background=False))
    assert set(np.unique(without.pixels)) == {1, 255}
    assert read_marks(Hints(marks=marks[2:]), SIZE) is None
    assert read_marks(Hints(), SIZE) is None


def test_an_image_of_strokes_and_clicks_on_it(tmp_path: Path) -> None:
    values = np.full(SIZE, 255, np.uint8)
    values[5:8, 5:20] = 2
    Image.fromarray(values).save(tmp_path / "s.png")
    hints = Hints(marks=(Mark(1, Click(30, 30)), Mark(1, Click(6.5, 6.5))), scribbles=MaskFile(tmp_path / "s.png", 255))
    found = given(read_marks(hints, SIZE)).pixels
    expected = values.copy()
    expected[30, 30], expected[6, 6] = 1, 255
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(LabelError):
        read_marks(hints, SIZE, n_classes=1)


# --- geodesic distances ---------------------------------------------------------------------------------------------


def plain_geodesic(rgb: Labels, labels: Labels, label: int, step: float) -> npt.NDArray[np.float64]:
    """Shortest ways by relaxing all steps until nothing changes (Bellman and Ford)."""
    colours = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(float) * [2.55, 1, 1]
    height, width = labels.shape
    far = np.where(labels == label, 0.0, np.inf)
    while True:
        before = far.copy()
        for y in range(height):
            for x in range(width):
                for v in range(max(0, y - 1), min(height, y + 2)):
                    for u in range(max(0, x - 1), min(width, x + 2)):
                        if labels[y, x] in (label, 255):
                            apart = ((colours[y, x] - colours[v, u]) ** 2).sum()
                            cost = np.sqrt(apart + step**2 * ((y - v) ** 2 + (x - u) ** 2))
                            far[y, x] = min(far[y, x], far[v, u] + cost)
        if (far == before).all():
            return far


def test_geodesic_distances_equal_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (9, 11, 3), dtype=np.uint8)
    labels = np.full((9, 11), 255, np.uint8)
    labels[2, 3], labels[7, 1:9], labels[0, 10] = 1, 0, 4
    for step in (0.3, 5.0):
        found, distances = geodesic(rgb, labels, step=step, smooth=0)
        assert found.tolist() == [0, 1, 4]
        for label, distance in zip(found, distances, strict=True):
            np.testing.assert_allclose(distance, plain_geodesic(rgb, labels, label, step), rtol=1e-4)


def test_geodesic_refuses_what_does_not_fit() -> None:
    rgb, labels = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)
    with pytest.raises(ShapeError, match=r"\(H, W, 3\) and \(H, W\) are needed"):
        geodesic(rgb, labels)
    with pytest.raises(ShapeError, match="give a step above 0"):
        geodesic(rgb, labels[:, :4], step=0)


# --- the labeller ---------------------------------------------------------------------------------------------------

THINGS = (Mark(1, Stroke((9, 12, 14, 24))), Mark(2, Click(33, 24)), Mark(0, Stroke((2, 36, 50, 38))))


def two_things() -> Labels:
    """Two things on a wall of little noise."""
    rgb = np.random.default_rng(0).integers(115, 125, (*SIZE, 3), dtype=np.uint8)
    rgb[8:28, 6:18], rgb[14:34, 24:42] = (230, 60, 60), (40, 60, 220)
    return rgb


def truth() -> Labels:
    mask = np.zeros(SIZE, np.uint8)
    mask[8:28, 6:18] = 1
    mask[14:34, 24:42] = 2
    return mask


def test_marks_spread_to_the_edges_of_things_and_stay_where_they_were_drawn() -> None:
    evidence = Strokes(smooth=0.8).label(two_things(), Hints(marks=THINGS))
    assert (evidence.pixels == truth()).mean() > 0.95
    marked = given(read_marks(Hints(marks=THINGS), SIZE))
    known = marked.pixels != 255
    np.testing.assert_array_equal(evidence.pixels[known], marked.pixels[known])
    trust = given(evidence.trust)
    assert (trust[known] == 1).all()
    inside, border = trust[18:22, 10:14].mean(), trust[18:22, 17:19].mean()
    assert inside > border, "it is less sure at an edge than well inside"


def test_a_mark_on_the_wrong_side_of_an_edge_is_kept_in_reduced_photos_too() -> None:
    rgb = np.kron(two_things(), np.ones((20, 20, 1), np.uint8))
    marks = (*THINGS[2:], Mark(1, Stroke((200, 200, 500, 300))), Mark(2, Click(20.5, 20.5)))
    evidence = Strokes(longest=64).label(rgb, Hints(marks=marks))
    marked = given(read_marks(Hints(marks=marks), rgb.shape[:2])).pixels
    assert {1, 2} < set(np.unique(marked))
    np.testing.assert_array_equal(evidence.pixels[marked != 255], marked[marked != 255])


def test_without_a_mark_of_background_nothing_is_said_far_away() -> None:
    evidence = Strokes(smooth=0.8).label(two_things(), Hints(marks=THINGS[:1]))
    assert set(np.unique(evidence.pixels)) == {1, 255}
    assert (evidence.pixels[8:28, 6:18] == 1).mean() > 0.9
    assert (evidence.pixels[:, 24:] == 255).mean() > 0.9
    mask = given(evidence.complete(background=True))
    assert (mask[:, 24:] == 0).mean() > 0.9
    assert (given(evidence.complete(background=False)) == 1).all(), "where every pixel has a class there is one alone"


def test_what_is_to_be_ignored_is_not_labelled_and_doubts_are_passed_on() -> None:
    crowd = Mark(255, Box(40, 0, 56, 40))
    evidence = Strokes().label(two_things(), Hints(marks=(*THINGS, crowd)))
    unsaid = given(read_marks(Hints(marks=THINGS), SIZE)).pixels == 255
    assert (evidence.pixels[:, 40:][unsaid[:, 40:]] == 255).all()
    assert (evidence.pixels[:, :40] != 255).all()
    doubted = Mark(1, Stroke((9, 12, 14, 24)), trust=0.25)
    trust = given(Strokes().label(two_things(), Hints(marks=(doubted, *THINGS[1:]))).trust)
    sure = Strokes().label(two_things(), Hints(marks=THINGS))
    np.testing.assert_allclose(trust, np.where(sure.pixels == 1, 0.25, 1) * given(sure.trust), rtol=1e-5)


def test_photos_whose_marks_say_nothing_after_all() -> None:
    outside = Hints(marks=(Mark(1, Click(500, 500)),))
    assert (Strokes().label(two_things(), outside).pixels == 255).all()
    contradiction = Hints(marks=(Mark(1, Click(5, 5)), Mark(2, Click(5, 5))))
    assert (Strokes().label(two_things(), contradiction).pixels == 255).all()


def barred() -> tuple[Labels, Labels]:
    """A red thing behind dark bars on a wall of green, and its mask: colours lead from it over the bars to nothing."""
    rgb = np.random.default_rng(0).integers(0, 12, (*SIZE, 3), dtype=np.uint8)
    rgb[..., 1] += 120
    mask = np.zeros(SIZE, np.uint8)
    mask[8:32, 12:44] = 1
    rgb[mask == 1] = rgb[mask == 1][:, ::-1] + np.array([200, 0, 100], np.uint8) - np.array([0, 0, 112], np.uint8)
    for column in (20, 28, 36):
        rgb[8:32, column : column + 2] = (0, 160, 0)
    return rgb, mask


def test_strokes_on_colours_are_cut_out_across_edges_within_the_object() -> None:
    rgb, mask = barred()
    marks = Hints(marks=(Mark(1, Stroke((15, 12, 15, 28))), Mark(0, Stroke((2, 4, 2, 36)))))

    def iou(labels: Labels) -> float:
        return float(((labels == 1) & (mask == 1)).sum() / ((labels == 1) | (mask == 1)).sum())

    spread, cut = (Strokes(cut=way).label(rgb, marks) for way in (False, True))
    assert iou(cut.pixels) > iou(spread.pixels) + 0.2
    auto = Strokes().label(rgb, marks)
    np.testing.assert_array_equal(auto.pixels, cut.pixels)
    np.testing.assert_array_equal(auto.trust, cut.trust)
    marked = given(read_marks(marks, SIZE)).pixels
    np.testing.assert_array_equal(cut.pixels[marked != 255], marked[marked != 255])


def test_thin_strokes_on_large_photos_are_cut_by_too() -> None:
    rgb, mask = barred()
    large = np.kron(rgb, np.ones((40, 40, 1), np.uint8))
    marks = Hints(marks=(Mark(1, Stroke((600, 480, 600, 1120))), Mark(0, Stroke((80, 160, 80, 1440)))))
    cut = Strokes(longest=56).label(large, marks).pixels
    found = (cut == 1)[20::40, 20::40]
    assert (found & (mask == 1)).sum() / (found | (mask == 1)).sum() > 0.8, "the bars apart"


def test_grey_photos_clicks_and_photos_without_background_marks_are_not_cut() -> None:
    rgb, _ = barred()
    stroke, background = Mark(1, Stroke((15, 12, 15, 28))), Mark(0, Stroke((2, 4, 2, 36)))
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    scaled = grey.copy()
    scaled[-3:, -30:] = (250, 200, 0)  # a scale bar
    clicks = (Mark(1, Click(15, 20)), Mark(0, Click(2, 20)))
    for photo, marks in ((grey, (stroke, background)), (scaled, (stroke, background)), (rgb, clicks), (rgb, (stroke,))):
        auto, spread = (Strokes(cut=way).label(photo, Hints(marks=marks)) for way in ("auto", False))
        np.testing.assert_array_equal(auto.pixels, spread.pixels)


def test_what_several_classes_claim_stays_as_it_was_spread() -> None:
    rgb = np.full((*SIZE, 3), (30, 120, 30), np.uint8)
    rgb[10:30, 8:48] = (200, 40, 40)
    rgb = rgb + np.random.default_rng(0).integers(0, 8, rgb.shape, dtype=np.uint8)
    spread = np.zeros(SIZE, np.uint8)
    spread[10:30, 8:28], spread[10:30, 28:48] = 1, 2
    marks = np.full(SIZE, 255, np.uint8)
    marks[14:26, 10], marks[14:26, 45], marks[2] = 1, 2, 0
    found = cut_out(rgb, spread, marks)
    np.testing.assert_array_equal(found, spread)
    assert (cut_out(rgb, spread, np.where(marks == 0, np.uint8(255), marks)) == 255).any(), "nothing is background"


# --- masks in one command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["points", "strokes"])
def test_masks_of_one_photo_in_one_command(kind: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(two_things()).save(photos / "a.png")
    words = ["masks", str(photos), "--from", kind, "--out", str(tmp_path / "out"), "propose.smooth=0.8"]
    if kind == "points":
        rows = [("file", "x", "y", "label"), ("a.png", 12, 18, "red"), ("a.png", 33, 24, "blue")]
        with (photos / "points.csv").open("w", newline="") as file:
            csv.writer(file).writerows([*rows, ("a.png", 50, 38, "background")])
        (photos / "classes.txt").write_text("red\nblue\n")
    else:
        strokes = tmp_path / "strokes"
        strokes.mkdir()
        Image.fromarray(given(read_marks(Hints(marks=THINGS), SIZE)).pixels).save(strokes / "a.png")
        (strokes / "classes.txt").write_text("red\nblue\n")
        words += ["--labels", str(strokes), "--unlabelled", "255"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    mask = read_label_png(tmp_path / "out" / "png" / "a.png")
    assert (mask == truth()).mean() > 0.95
    assert (tmp_path / "out" / "overlays" / "a.jpg").is_file()
    assert not list((tmp_path / "out").rglob("*.safetensors")), "nothing is trained"


def test_photos_without_the_marks_are_refused(tmp_path: Path) -> None:
    Image.fromarray(two_things()).save(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text("a.png,red\n")
    with pytest.raises(LabelError, match="has points or scribbles, which recipe 'strokes' learns from"):
        hintseg.masks_from("strokes", tmp_path, tmp_path / "out")
