"""The simulated person: paints where a mask is most wrong, stays inside, and what was painted is learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks import results
from benchmarks.person import RIGHT, brush, main, markdown, mend, score, wrong_part

from hintseg.geometry.rasterise import rasterise
from hintseg.reviewing.storage import Review
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.types import Stroke
from review_runs import thing, write_run
from small_runs import TINY, typed, write_squares

SETTINGS = [
    *TINY,
    *("refine=null", "segment.fit.epochs=1", "segment.fit.batch_size=4", "segment.fit.crop=64", "test.scales=[1.0]"),
    *("localize.fit.epochs=1", "localize.fit.batch_size=4", "localize.fit.crop=64", "maps.scales=[1.0]"),
    *("trainer.pictures=0",),
]


def test_the_largest_wrong_part_of_one_class_is_found() -> None:
    true = np.zeros((40, 50), np.uint8)
    true[5:15, 5:25], true[20:30, 5:15], true[35:, 40:] = 1, 2, 255
    mask = np.zeros_like(true)
    mask[0:5, 40:48] = 1
    label, part = wrong_part(mask, true) or (None, None)
    assert label == 1
    assert part is not None
    assert (part == (true == 1)).all()
    mask[true == 1] = 1
    assert (wrong_part(mask, true) or (None,))[0] == 2
    mask[true == 2] = 2
    assert (wrong_part(mask, true) or (None,))[0] == 0, "background that is called something"
    mask[0:5, 40:48] = 0
    assert wrong_part(mask, true) is None
    mask[0, 0] = 1
    assert wrong_part(mask, true) is None, "nobody sees a pixel"


@pytest.mark.parametrize("seed", range(4))
def test_the_brush_stays_inside_and_covers_much_of_a_part(seed: int) -> None:
    _, mask = thing(1, 1, (120, 160))
    points, width = brush(mask == 1, np.random.default_rng(seed))
    drawn = rasterise(Stroke(points, width), mask.shape)
    assert not (drawn & (mask != 1)).any()
    assert drawn.sum() > 0.25 * (mask == 1).sum()


def test_a_photo_is_painted_until_it_is_right(tmp_path: Path) -> None:
    review = Review(RunFolder.open(write_run(tmp_path, 12, size=(120, 160))))
    before = score(review)
    true = read_label_png(review.run.truth_path("11"))
    few, right = mend(review, "11", true, 1, np.random.default_rng(0))
    assert (few, right, review.document("11").now.state) == (1, False, "open")
    many, right = mend(review, "11", true, 60, np.random.default_rng(0))
    document = review.document("11")
    mask = review.mask("11", document.now)
    assert right == bool((mask != true).mean() <= RIGHT) == (document.now.state == "accepted")
    assert many > 1
    assert (mask != true).sum() < (review.base("11") != true).sum()
    assert mend(review, "herd/00", read_label_png(review.run.truth_path("herd/00")), 5, np.random.default_rng(0)) == (
        0,
        True,
    ), "the mask is right as it is"
    assert score(review) > before


def test_a_review_is_learned_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_squares(tmp_path / "photos")
    run, out = tmp_path / "run", tmp_path / "out"
    done = typed("train", tmp_path / "photos", "--out", run, "--recipe", "cam", *SETTINGS)
    assert done.returncode == 0, done.stderr
    words = ["squares", str(run), "--out", str(out), "--order", "list", "--set", "segment.fit.lr=1e-5"]
    main([*words, "--share", "0", "0.25", "--results", str(tmp_path)])
    assert capsys.readouterr().out.startswith("0% list 0: 0 photos, 0 strokes (0 min)")
    found = results.read("person", tmp_path)
    values = {(one.row, one.column): one.value for one in found}
    control, reviewed = "none, trained again", "25%, list"
    assert (values[control, "photos"], values[reviewed, "photos"]) == (0, 2)
    assert values[control, "masks before"] == values[control, "mended"] == values[reviewed, "masks before"]
    assert values[reviewed, "mended"] > values[reviewed, "masks before"]
    assert values[reviewed, "minutes"] == pytest.approx(values[reviewed, "strokes"] * 10.9 / 60)
    assert len(values) == 2 * 9, "and the new run's masks and model"
    table = markdown(found).splitlines()
    assert table[2].startswith("| squares | none, trained again | 1 | 0 | 0 |")
    assert table[3].startswith("| squares | 25%, list: 2 | 1 |")
    lessons = list((out / "reviewed-0.25-list-0" / "review" / "learned").iterdir())
    assert len(lessons) == 1
    assert not (run / "review" / "photos").exists(), "the run stays as it is"
