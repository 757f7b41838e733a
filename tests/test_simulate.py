"""Cheap hints out of full masks: inside of what they stand for, the same for the same seed, and read again."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import hintseg
from hintseg.cli.app import app
from hintseg.data.shapes import CLASSES, write_shapes
from hintseg.errors import ConfigError, LabelError, RunError
from hintseg.hints import read_hints
from hintseg.hints.masks import read_mask, read_scribbles
from hintseg.hints.simulate import Drawing, box, click, length, shortened, simulate, stroke
from hintseg.types import BACKGROUND, Box, Click, HintSet, Mark, Photo, Supervision
from mask_images import mask_of, photo, save

Bools = np.ndarray


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulate") / "shapes"
    write_shapes(folder, train=8, val=2, size=64)
    return folder


def truth_of(photo: Photo) -> np.ndarray:
    mask = read_mask(photo)
    assert mask is not None
    return mask


def pairs(shapes: Path, labels: Path, unlabelled: int | None = None) -> list[tuple[Photo, np.ndarray]]:
    """The photos with what was drawn, and their true masks."""
    truth = {one.id: truth_of(one) for one in read_hints(shapes).photos}
    drawn = read_hints(shapes, labels, unlabelled=unlabelled)
    assert drawn.classes == CLASSES
    assert len(drawn.photos) == len(truth) == 10
    return [(one, truth[one.id]) for one in drawn.photos]


def blob(seed: int, size: tuple[int, int] = (40, 50)) -> Bools:
    """One connected part with arms and bays."""
    noise = np.random.default_rng(seed).random(size).astype(np.float32)
    some = cv2.GaussianBlur(noise, (0, 0), 4)
    _, numbers, stats, _ = cv2.connectedComponentsWithStats((some > np.median(some)).astype(np.uint8))
    part: Bools = numbers == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return part


class TestDrawing:
    @given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([1.0, 2.0, 3.0, 5.0, 40.0]))
    @settings(max_examples=40, deadline=None)
    def test_strokes_stay_inside_and_are_equal_for_equal_seeds(self, seed: int, share: float, width: float) -> None:
        pixels, drawing = blob(seed % 7), Drawing(share=share, width=width)
        first, *again = (stroke(pixels, np.random.default_rng(seed), drawing) for _ in range(4))
        assert first.any()
        assert not (first & ~pixels).any()
        for other in again:
            np.testing.assert_array_equal(first, other)

    @pytest.mark.parametrize("seed", range(5))
    def test_strokes_keep_away_from_the_border(self, seed: int) -> None:
        pixels = blob(seed, (120, 150))
        drawn = stroke(pixels, np.random.default_rng(seed), Drawing())
        assert not (drawn & ~cv2.erode(pixels.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)).any()
        assert drawn.sum() > 3 * 40, "long enough to be called a stroke"

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
    def test_a_share_of_the_length_is_kept_and_lies_on_the_whole_stroke(self, share: float) -> None:
        pixels = blob(1, (200, 200))
        sums = []
        for seed in range(6):
            whole, part = (stroke(pixels, np.random.default_rng(seed), Drawing(share=s)) for s in (1.0, share))
            assert not (part & ~cv2.dilate(whole.astype(np.uint8), np.ones((3, 3))).astype(bool)).any()
            sums.append((whole.sum(), part.sum()))
        whole_px, part_px = np.sum(sums, axis=0)
        assert part_px / whole_px == pytest.approx(share, abs=0.05)

    @given(
        st.lists(st.tuples(st.floats(-99, 99), st.floats(-99, 99)), min_size=1, max_size=9),
        st.floats(0, 1),
    )
    def test_the_middle_of_a_line(self, points: list[tuple[float, float]], share: float) -> None:
        line = np.array(points)
        middle = shortened(line, share)
        assert length(middle) == pytest.approx(share * length(line), abs=1e-6)
        assert length(shortened(line, 1)) == pytest.approx(length(line))

    def test_a_spot_a_thin_line_and_a_pixel(self) -> None:
        spot = stroke(blob(3), np.random.default_rng(0), Drawing(share=0, width=3))
        assert 4 <= spot.sum() <= 9
        thin = np.zeros((9, 30), bool)
        thin[4, 3:28] = True
        drawn = stroke(thin, np.random.default_rng(0), Drawing())
        assert drawn.sum() > 5
        assert not (drawn & ~thin).any()
        pixel = np.zeros((4, 4), bool)
        pixel[0, 3] = True
        np.testing.assert_array_equal(stroke(pixel, np.random.default_rng(0), Drawing()), pixel)

    def test_clicks_lie_inside_and_the_middle_is_farthest_from_the_border(self) -> None:
        pixels, rng = blob(2), np.random.default_rng(0)
        for _ in range(50):
            x, y = click(pixels, rng, Drawing())
            assert pixels[int(y), int(x)]
        disc = np.hypot(*(np.mgrid[:41, :41] - 20)) < 15
        assert click(disc, rng, Drawing(centre=True)) == (20.5, 20.5)
        seen = {click(disc, rng, Drawing()) for _ in range(50)}
        assert len(seen) > 30, "at random"

    def test_boxes_are_tight(self) -> None:
        pixels = np.zeros((9, 9), bool)
        pixels[2, 3:7] = pixels[5, 4] = True
        assert box(pixels, np.random.default_rng(0), Drawing()) == (3, 2, 7, 6)

    def test_settings_out_of_range(self) -> None:
        for bad in ({"share": 1.5}, {"width": 0.0}, {"seed": -1}):
            with pytest.raises(ConfigError, match="given"):
                Drawing(**bad)


class TestDataSets:
    def test_points(self, shapes: Path, tmp_path: Path) -> None:
        drawn = hintseg.simulate(shapes, tmp_path / "out", hints="points")
        for one, truth in pairs(shapes, drawn.labels):
            clicks = one.hints.shaped(Click)
            assert {mark.label for mark in clicks} == set(np.unique(truth).tolist()) - {255}
            for mark in clicks:
                assert truth[int(mark.shape.y), int(mark.shape.x)] == mark.label
        assert "points on 10 photos, one per object, at random, seed 0 (background 10, " in drawn.said

    def test_scribbles(self, shapes: Path, tmp_path: Path) -> None:
        drawn = hintseg.simulate(shapes, tmp_path / "out", hints="scribbles", share=0.5)
        for one, truth in pairs(shapes, drawn.labels, unlabelled=255):
            strokes = read_scribbles(one)
            assert strokes is not None
            known = strokes != 255
            assert set(np.unique(strokes[known]).tolist()) == set(np.unique(truth).tolist()) - {255}
            np.testing.assert_array_equal(strokes[known], truth[known])
            assert known.mean() < 0.2
        assert "strokes on 10 photos, one per object, 50% of their length, 3 px wide, seed 0" in drawn.said

    def test_boxes_and_tags(self, shapes: Path, tmp_path: Path) -> None:
        boxed = hintseg.simulate(shapes, tmp_path / "boxes", hints="boxes")
        for one, truth in pairs(shapes, boxed.labels):
            covered = np.zeros_like(truth, bool)
            for mark in one.hints.shaped(Box):
                x0, y0, x1, y1 = map(int, mark.shape.corners)
                inside = truth[y0:y1, x0:x1] == mark.label
                assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # noqa: PT018
                covered[y0:y1, x0:x1] = True
            assert ((truth == BACKGROUND) | (truth == 255) | covered).mean() > 0.99
        tagged = hintseg.simulate(shapes, tmp_path / "tags", hints="tags")
        for one, truth in pairs(shapes, tagged.labels):
            assert set(one.hints.tags or ()) == set(np.unique(truth).tolist()) - {0, 255}

    def test_seeds(self, shapes: Path, tmp_path: Path) -> None:
        texts = [
            hintseg.simulate(shapes, tmp_path / str(n), hints="points", seed=seed).labels.read_text()
            for n, seed in enumerate((0, 0, 1))
        ]
        assert texts[0] == texts[1] != texts[2]

    def test_a_click_on_each_class_or_on_each_object(self, tmp_path: Path) -> None:
        photo(tmp_path / "images" / "a.png", (40, 20))
        mask = np.zeros((20, 40), np.uint8)
        mask[3:9, 3:9] = mask[3:9, 20:26] = mask[12:18, 30:36] = 1
        mask[0, 39] = 1  # one stray pixel of 800 is no object
        save(tmp_path / "masks" / "a.png", mask)
        (tmp_path / "classes.txt").write_text("ant\n")
        for per, count in (("object", 4), ("class", 1)):
            drawn = hintseg.simulate(tmp_path, tmp_path / per, hints="points", per=per)
            clicks = read_hints(tmp_path, drawn.labels).photos[0].hints.shaped(Click)
            assert [mark.label for mark in clicks].count(1) == count
        large = np.kron(mask, np.ones((4, 4), np.uint8))
        photo(tmp_path / "images" / "a.png", (160, 80))
        large[0:4, 156:160] = 0
        large[0, 159] = 1
        save(tmp_path / "masks" / "a.png", large)
        drawn = hintseg.simulate(tmp_path, tmp_path / "large", hints="boxes")
        assert len(read_hints(tmp_path, drawn.labels).photos[0].hints.objects) == 3

    def test_objects_that_touch_are_told_apart_where_the_truth_does(self, tmp_path: Path) -> None:
        photo(tmp_path / "a.png", (40, 20))
        squares = [[x, 4, x + 10, 4, x + 10, 14, x, 14] for x in (5, 15)]
        annotations = [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [ring[0], 4, 10, 10], "segmentation": [ring]}
            for n, ring in enumerate(squares, start=1)
        ]
        image = {"id": 1, "file_name": "a.png", "width": 40, "height": 20}
        content = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "ant, red"}]}
        (tmp_path / "instances.json").write_text(json.dumps(content))
        drawn = hintseg.simulate(tmp_path, tmp_path / "out", hints="boxes")
        found = read_hints(tmp_path, drawn.labels)
        assert found.classes == ("ant, red",)
        assert [mark.shape.corners for mark in found.photos[0].hints.objects] == [(5, 4, 15, 14), (15, 4, 25, 14)]

    def test_without_background_nothing_is_drawn_on_it(self, tmp_path: Path) -> None:
        photo(tmp_path / "images" / "a.png")
        save(tmp_path / "masks" / "a.png", mask_of(1))
        (tmp_path / "classes.txt").write_text("ant\n")
        drawn = hintseg.simulate(tmp_path, tmp_path / "out", hints="points", background=False)
        assert drawn.said.startswith("1 points on 1 photos")
        assert "background" not in (drawn.labels.parent / "classes.txt").read_text()

    def test_what_cannot_be_drawn(self, tmp_path: Path) -> None:
        photo(tmp_path / "a.png")
        (tmp_path / "tags.csv").write_text("a.png,ant\n")
        with pytest.raises(LabelError, match="none of the 1 photos has a full mask to draw hints from"):
            hintseg.simulate(tmp_path, tmp_path / "out", hints="points")
        with pytest.raises(ConfigError, match="hints 'masks' given, one of scribbles, points, boxes, tags"):
            hintseg.simulate(tmp_path, tmp_path / "out", hints="masks")

    def test_the_command(self, shapes: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = ["simulate", str(shapes), "--hints", "scribbles", "--share", "0.1", "--out", str(out)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "10% of their length" in result.output
        assert f"--labels {out / 'scribbles'} --unlabelled 255" in result.output.replace("\n", " ")
        checked = CliRunner().invoke(
            app, ["check", str(shapes), "--labels", str(out / "scribbles"), "--unlabelled", "255"]
        )
        assert "10 with scribbles" in checked.output
        with pytest.raises(RunError, match="holds labels that were written before"):
            hintseg.simulate(shapes, out, hints="points")
        hintseg.simulate(shapes, out, hints="points", overwrite=True)
        assert not (out / "scribbles").exists()


def test_a_data_set_without_photos() -> None:
    with pytest.raises(LabelError, match="none of the 0 photos"):
        simulate(HintSet("x", ("ant",), ()), Supervision.TAGS, Path("nowhere"))


def test_marks_of_background_are_read_as_such(shapes: Path, tmp_path: Path) -> None:
    drawn = hintseg.simulate(shapes, tmp_path / "out", hints="points")
    first = read_hints(shapes, drawn.labels).photos[0].hints.marks
    assert any(isinstance(mark, Mark) and mark.label == BACKGROUND for mark in first)
