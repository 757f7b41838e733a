"""How doubtful masks are: the measures against numbers worked out by hand, the list on a run of known faults."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks import results
from benchmarks.review_order import gain, keep, markdown, measure, ranks, sparsification, spearman
from PIL import Image

from hintseg.errors import RunError
from hintseg.files.lock import locked
from hintseg.quality.kept import kept_list
from hintseg.quality.measures import against_tags, disagreement, off_edges, parts_in_doubt, runner_up, worth
from hintseg.quality.review_list import review_list
from hintseg.reporting import write_report
from hintseg.run.folder import RunFolder
from hintseg.store.masks import MaskStore, read_label_png, write_mask
from made import given
from review_runs import SIZE, shifted, thing, write_run
from small_runs import typed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("quality"))


def test_the_worst_photos_come_first_and_doubt_follows_the_fault(run: Path) -> None:
    found = review_list(RunFolder.open(run))
    assert (found.stage, found.split, found.voices) == ("refine", "train", ("seed", "runner-up"))
    assert len(found.photos) == 12
    assert sum(row.worth for row in found.photos) == pytest.approx(1)
    doubts = {row.id: row.doubt for row in found.photos}
    assert doubts["herd/00"] == 0
    assert doubts["11"] == max(doubts.values())
    for row in found.photos:  # the seed is the truth here, so doubt is the true error
        mask, true = (read_label_png(run / name / f"{row.id}.png") for name in ("refine/masks", "truth"))
        ious = [((mask == k) & (true == k)).sum() / ((mask == k) | (true == k)).sum() for k in np.unique(true)]
        assert row.doubt == pytest.approx(1 - np.mean(ious))


def test_worth_weighs_every_class_alike_and_no_photo_twice() -> None:
    pairs = np.zeros((2, 3, 3))
    pairs[0] = [[0, 0, 0], [0, 900, 0], [0, 90, 10]]  # 90 of 1000 pixels of 1, 90 of 100 of 2
    pairs[1] = [[0, 0, 0], [0, 10, 0], [0, 0, 0]]
    assert worth({"seed": pairs}).tolist() == [1, 0]
    even = np.stack([pairs[0], pairs[0]])
    assert worth({"seed": even}).tolist() == [0.5, 0.5]
    louder = worth({"seed": pairs, "other": np.stack([pairs[1], pairs[0]])})
    assert louder.tolist() == [0.5, 0.5], "each voice has one vote, however much it doubts"
    assert worth({}).tolist() == []
    assert worth({"seed": np.stack([np.diag([1.0, 2, 3])] * 2)}).tolist() == [0, 0]


def test_disagreement_leaves_out_what_neither_shows_and_background_where_there_is_none() -> None:
    pairs = np.array([[5, 0, 0], [5, 10, 0], [0, 0, 0]])
    assert disagreement(pairs).tolist() == pytest.approx([0.5, 1 / 3, np.nan], nan_ok=True)
    assert np.isnan(disagreement(pairs, background=False)[0])


def test_the_runner_up_counts_every_pixel_once() -> None:
    scores = np.random.default_rng(0).random((3, 5, 7), dtype=np.float32)
    pairs, doubt = runner_up([0, 2, 3], scores, 3, 35 * 16)
    assert pairs.sum() == pytest.approx(35 * 16)
    best = np.array([0, 2, 3])[scores.argmax(0)]
    assert pairs.sum(axis=0).tolist() == pytest.approx([16 * (best == k).sum() for k in range(4)])
    ordered = np.sort(scores, axis=0)
    assert doubt == pytest.approx((ordered[-2] / ordered[-1]).mean(), rel=1e-6)
    assert runner_up([1], scores[:1], 1, 35)[0].tolist() == [[0, 0], [0, 35]]


def test_outlines_on_edges_are_told_from_outlines_beside_them() -> None:
    rgb, mask = thing(1, 1)
    on, beside = given(off_edges(rgb, mask)), given(off_edges(rgb, shifted(mask, 8)))
    assert on < 0.15 < beside
    assert off_edges(rgb, np.ones_like(mask)) is None


def test_tags_against_the_mask() -> None:
    counts = np.array([[90, 10, 0, 0], [60, 10, 30, 0]])
    assert against_tags(counts, [1, 3]) == ((3,), {2: 0.3})
    assert against_tags(counts, None) == ((), {})


def test_parts_are_listed_by_their_doubt() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[2:12, 2:12], mask[20:30, 20:40], mask[39, 0] = 1, 1, 2
    doubt = np.zeros((40, 40), np.float32)
    doubt[20:30, 20:30] = 1
    parts = parts_in_doubt(mask, doubt)
    assert [(part.label, part.box, part.doubt) for part in parts] == [
        (1, (20, 20, 40, 30), 0.5),
        (1, (2, 2, 12, 12), 0),
    ]


def test_what_the_benchmark_measures() -> None:
    assert ranks(np.array([0.1, 0.5, 0.1])).tolist() == [1.5, 3, 1.5]
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 30, 20])) == pytest.approx(0.5)
    errors = np.array([0.1, 0.9, 0.5])
    assert sparsification(errors, np.array([1, 2, 0])) == 1
    assert sparsification(errors, np.array([0, 2, 1])) < 0
    counts = np.array([[[5, 0], [5, 0]], [[10, 0], [0, 10]]])
    # before: background 15 of 20, class 10 of 15; mending the first photo makes both 1
    assert gain(counts, np.array([0, 1]), 0.5, True) == pytest.approx(100 * (1 - (15 / 20 + 10 / 15) / 2))
    assert gain(counts, np.array([1, 0]), 0.5, True) == 0


def test_the_benchmark_reads_a_run(run: Path) -> None:
    found = measure(RunFolder.open(run))
    assert found.doubt_correlation == pytest.approx(1)
    ours, chance, worst, best = found.gains[0.1]
    assert best >= ours > chance
    assert worst > chance


def test_what_the_benchmark_found_is_kept_and_written(run: Path, tmp_path: Path) -> None:
    opened = RunFolder.open(run)
    made = keep("one", opened, 0, "without", tmp_path)
    assert keep("one", opened, 0, "without", tmp_path) == made
    assert sorted(results.read("review_order", tmp_path), key=str) == sorted(made, key=str)
    values = {one.column: one.value for one in made}
    assert values["photos"] == len(opened.photos)
    assert values["rank correlation"] == pytest.approx(1)
    *_, line = (line for line in markdown(made).splitlines() if line.startswith("| one"))
    share = 100 * values["5%, list"] / values["5%, oracle by worth"]
    assert line.startswith(f"| one | {len(opened.photos)} | 1 | without | 1.00 | {values['sparsification']:.2f} |")
    assert f"| {share:.1f} % |" in line


def test_the_list_is_printed_as_table_csv_and_json(run: Path) -> None:
    said = typed("review", run, "--list")
    assert said.returncode == 0
    assert "compared with seed, runner-up" in said.stdout
    table = list(csv.DictReader(io.StringIO(typed("review", run, "--list", "--csv").stdout)))
    whole = json.loads(typed("review", run, "--list", "--json").stdout)
    assert [row["photo"] for row in table] == [row["id"] for row in whole["photos"]]
    assert float(table[0]["worth"]) == pytest.approx(whole["photos"][0]["worth"], abs=1e-5)
    assert typed("review", run, "--json").returncode == 2


def test_the_kept_list_is_made_anew_when_a_mask_changes(tmp_path: Path) -> None:
    folder = RunFolder.open(write_run(tmp_path, 4))
    before, steps = kept_list(folder), list[int]()
    assert kept_list(folder, lambda: steps.append(1)) == before
    assert steps == []
    store = MaskStore.load(folder.path / "refine" / "masks")
    store.write("03", read_label_png(folder.truth_path("03")))
    assert {row.id: row.doubt for row in kept_list(folder).photos}["03"] == 0
    kept = folder.path / "review" / "list.json"
    kept.write_text(kept.read_text()[:100])
    assert len(kept_list(folder).photos) == 4


def test_photos_that_moved_are_still_listed(tmp_path: Path) -> None:
    folder = RunFolder.open(write_run(tmp_path, 3))
    shutil.rmtree(tmp_path / "photos")
    assert [row.off_edges for row in review_list(folder).photos] == [None] * 3


def test_what_cannot_be_listed_is_said_in_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path, 3)
    with locked(run):
        said = typed("review", run, "--list")
        assert said.returncode == 2
        assert "is being written to by process" in said.stderr
    write_mask(run / "localize" / "masks" / "01.png", np.zeros((5, 5), np.uint8))
    said = typed("review", run, "--list")
    assert said.returncode == 2
    assert f"is 5 x 5 pixels and the photo's mask {SIZE[1]} x {SIZE[0]}" in said.stderr
    for stage in ("localize", "refine"):
        shutil.rmtree(run / stage)
    said = typed("review", run, "--list")
    assert (said.returncode, said.stdout) == (2, "")
    assert "has no masks yet" in said.stderr
    with pytest.raises(RunError, match="is no run folder"):
        RunFolder.open(tmp_path / "photos")
    Image.open(tmp_path / "photos" / "01.png").verify()


def test_a_mask_that_no_longer_fits_its_photo_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, 3)
    Image.new("RGB", (SIZE[1] * 2, SIZE[0] * 2)).save(RunFolder.open(run).photos[1].path)
    said = typed("review", run, "--list")
    assert said.returncode == 2
    assert f"has {SIZE[1]} x {SIZE[0]} pixels and its photo {SIZE[1] * 2} x {SIZE[0] * 2}" in said.stderr


def test_an_order_that_says_nothing_is_called_so(tmp_path: Path) -> None:
    run = write_run(tmp_path, 3)
    shutil.rmtree(run / "localize")
    found = review_list(RunFolder.open(run))
    assert (found.voices, [row.worth for row in found.photos]) == ((), [0, 0, 0])
    said = typed("review", run, "--list")
    assert said.returncode == 0
    assert "the order says nothing" in " ".join(said.stdout.split())
    assert "of the doubt" not in said.stdout


def test_a_report_without_truth_says_what_to_look_at_first(tmp_path: Path) -> None:
    run = write_run(tmp_path, 12, truth=False)
    page = write_report(run).read_text("utf-8")
    assert "What to look at first" in page
    found = review_list(RunFolder.open(run)).photos
    listed = re.findall(r'<td><span data-photo="([^"]+)"', page)
    assert listed == [row.id for row in found]
    assert "the first 2 of 12 photos hold" in page
