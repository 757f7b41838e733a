"""The report's table of what each kind of hint gave, against counts by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hintseg.reporting.kinds import KindRow, kinds_of_hints
from hintseg.run.folder import RunFolder
from hintseg.store.masks import write_mask
from test_reporting import make_run

UNKNOWN = 255


def run_of(path: Path, labels: dict[str, tuple[str, ...]]) -> RunFolder:
    """A run of small photos, of which each is labelled by some kinds of hints; the others of its photos judge."""
    run = make_run(path, stages=("refine",), classes=["cow", "cat"])
    rows = [row for row in json.loads((run / "photos.json").read_text()) if row["split"] == "val"]
    of_train = [{**rows[0], "id": name, "split": "train", "by": list(by)} for name, by in labels.items()]
    (run / "photos.json").write_text(json.dumps([*of_train, *rows]))
    return RunFolder.open(run)


def mask(*rows: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.array(rows, np.uint8)


def test_every_kind_has_its_photos_pixels_and_masks(tmp_path: Path) -> None:
    named = {
        "a": ("boxes",),
        "b": ("tags", "points"),
        "c": ("tags",),
        "d": ("masks",),
        "e": ("no hint",),
        "f": ("tags",),
    }
    run = run_of(tmp_path / "run", named)
    labels = {
        "a": mask([1, 1, 0, 0]),
        "b": mask([2, 2, UNKNOWN, UNKNOWN]),
        "c": mask([0, 1, UNKNOWN, UNKNOWN]),
        "d": mask([1, 2, 0, 0]),
        "f": mask([UNKNOWN] * 4),
    }
    for name, label in labels.items():
        write_mask(run.label_path(name), label)
    write_mask(run.mask_path("refine", "a"), mask([1, 1, 0, 1]))  # mended since
    write_mask(run.mask_path("refine", "b"), mask([2, 0, 0, 0]))
    write_mask(run.mask_path("refine", "c"), mask([2, 2, 2, 2]))  # what the rounds put aside
    for name, final in (("a", [1, 1, 0, 1]), ("b", [2, 0, 0, 0]), ("c", [0, 1, 1, 0])):
        write_mask(run.mask_path("segment", name), mask(final))
    run.update_stage("segment", done=True, learned_masks=True)
    for name, truth in (("a", [1, 1, 0, 0]), ("b", [2, 2, 0, 0]), ("c", [0, 1, 1, 1]), ("d", [1, 2, 0, 0])):
        write_mask(run.truth_path(name), mask(truth))
    found = {row.kind: row for row in kinds_of_hints(run)}
    assert list(found) == ["tags", "boxes", "masks", "no hint", "points"], "the commonest first"
    assert found["boxes"] == KindRow("boxes", 1, 1.0, 3 / 4, found["boxes"].miou)
    assert found["boxes"].miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["points"] == KindRow("points", 1, 2 / 4, 1 / 2, found["points"].miou)
    assert found["points"].miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Of b and c: background 2 + 1 right of 2 + 1 true and 3 + 2 made, 1: 2 of 3, 2: 1 of 2.
    assert found["tags"] == KindRow("tags", 3, 4 / 12, 3 / 4, found["tags"].miou)
    assert found["tags"].miou == pytest.approx((3 / 5 + 2 / 3 + 1 / 2) / 3)
    assert found["masks"] == KindRow("masks", 1, 1.0, None, None), "the truth that taught does not judge"
    assert found["no hint"] == KindRow("no hint", 1, None, None, None)


def test_older_runs_say_nothing_of_kinds(tmp_path: Path) -> None:
    assert kinds_of_hints(RunFolder.open(make_run(tmp_path / "run"))) == []
