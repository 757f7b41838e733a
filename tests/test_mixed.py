"""Hints of every kind at once: the labeller `marks` and the recipe `mixed`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import timm

import hintseg
from hintseg.data.shapes import write_shapes
from hintseg.labellers.grabcut import GrabCut
from hintseg.labellers.marks import Marks
from hintseg.labellers.strokes import Strokes
from hintseg.reporting.kinds import kinds_of_hints
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.types import Box, Click, Hints, Mark, Tags
from made import given

TINY = [
    *("backbone.name=vit_tiny_patch16_224", "backbone.weights=random", "backbone.output_stride=8", "seed=0"),
    *("localize.fit.epochs=2", "segment.fit.epochs=1", "trainer.workers=0", "trainer.accelerator=cpu"),
    *("trainer.precision=32-true", "trainer.pictures=1"),
]


def two_things() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A red square at the left, a blue one at the right, on grey."""
    rgb = np.full((40, 80, 3), 128, np.uint8)
    rgb[10:30, 10:30] = (250, 20, 20)
    rgb[10:30, 50:70] = (20, 20, 250)
    return rgb


BOX = Mark(1, Box(8, 8, 32, 32), object=1)
CLICKS = (Mark(2, Click(60.5, 20.5)), Mark(0, Click(40.5, 5.5)))


def test_one_kind_alone_is_that_labeller() -> None:
    rgb = two_things()
    boxed, clicked = Hints(marks=(BOX,)), Hints(marks=CLICKS)
    assert (Marks().label(rgb, boxed).pixels == GrabCut().label(rgb, boxed).pixels).all()
    assert (Marks().label(rgb, clicked).pixels == Strokes().label(rgb, clicked).pixels).all()


def test_clicks_say_where_classes_without_a_box_are() -> None:
    found = Marks().label(two_things(), Hints(marks=(BOX, *CLICKS)))
    truth = np.zeros((40, 80), np.uint8)
    truth[10:30, 10:30], truth[10:30, 50:70] = 1, 2
    assert (found.pixels == truth).mean() > 0.97
    assert found.trust is not None
    assert found.trust[20, 20] == 1


def test_a_click_on_a_boxed_class_changes_nothing() -> None:
    rgb, hints = two_things(), Hints(marks=(BOX, Mark(1, Click(20.5, 20.5))))
    assert (Marks().label(rgb, hints).pixels == GrabCut().label(rgb, Hints(Tags(), (BOX,))).pixels).all()


def test_photos_of_every_kind_teach_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))
    made = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **own: made(name, **{"depth": 4, "embed_dim": 48, "num_heads": 3, **own})
    )
    data = tmp_path / "shapes"
    write_shapes(data, train=12, val=2, seed=0, size=64)
    ids = (data / "ImageSets/Segmentation/train.txt").read_text().split()
    boxed, clicked, tagged = ids[:4], ids[4:8], ids[8:]
    for name, columns, keep in (("points.csv", 4, clicked), ("tags.csv", 0, tagged)):
        source = data / "Hints/points.csv" if columns else data / "tags.csv"
        rows = list(csv.reader(source.open()))
        kept = [row for i, row in enumerate(rows) if (columns and i == 0) or Path(row[0]).stem in keep]
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(kept)
    for boxes in (data / "Annotations").glob("*.xml"):
        if boxes.stem not in boxed:
            boxes.unlink()
    labels = [data / "Annotations", tmp_path / "points.csv", tmp_path / "tags.csv", data / "SegmentationClass"]
    run = RunFolder.open(hintseg.train(data, tmp_path / "run", labels=labels, settings=TINY).path)
    assert run.config.recipe == "mixed"
    plan = " ".join(run.manifest.data.plan)
    assert "8 photos teach by boxes or points or scribbles" in plan
    assert "4 photos teach by tags" in plan
    assert len(list((run.path / "labels").glob("*.png"))) == 12
    given = {row.kind: row for row in kinds_of_hints(run)}
    assert {kind: row.photos for kind, row in given.items()} == {"boxes": 4, "points": 4, "tags": 4}
    assert all(row.labelled is not None and 0 < row.labelled <= 1 for row in given.values())
    assert all(row.miou is not None and 0 < row.miou < 1 for row in given.values())
    report = (run.path / "report.html").read_text()
    assert "What each kind of hint gave" in report
    assert re.search(r"<td>boxes</td><td class=\"number\">4</td><td class=\"number\">[\d.]+ %</td>", report)
    kinds = [(row.kind, row.split, row.photos) for row in run.metrics if row.stage == "segment"]
    assert kinds == [("final mask", "train", 12), ("segmentation", "val", 2)]
    out = hintseg.masks(run.path, out=tmp_path / "masks") / "png"
    assert sorted(path.stem for path in out.glob("*.png")) == ids
    for name in boxed:  # the segmenter may not label these anew
        assert (read_label_png(out / f"{name}.png") == read_label_png(run.path / f"propose/masks/{name}.png")).all()


def test_clicks_win_in_the_masks_of_a_run_of_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))
    made = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **own: made(name, **{"depth": 4, "embed_dim": 48, "num_heads": 3, **own})
    )
    data = tmp_path / "shapes"
    write_shapes(data, train=8, val=2, seed=0, size=64)
    labels = [data / "tags.csv", data / "Hints/points.csv"]
    run = hintseg.train(data, tmp_path / "run", recipe="quick", labels=labels, settings=[*TINY, "segment.rounds=1"])
    out = run.masks(tmp_path / "masks") / "png"
    folder, wrong, there = RunFolder.open(run.path), 0, 0
    for photo in (one for one in folder.photos if one.split == "train"):
        assert {*photo.by} == {"tags", "points"}
        mask, made_of_tags = (read_label_png(path / f"{photo.id}.png") for path in (out, run.path / "refine/masks"))
        for label, x, y in given(photo.points):
            assert mask[int(y), int(x)] == label
            there, wrong = there + 1, wrong + int(made_of_tags[int(y), int(x)] != label)
    assert 0 < wrong < there, "tags alone place some of them elsewhere"
