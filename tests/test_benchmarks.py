"""Results as data: what is there is not run again, versions are not mixed, and docs are what results say."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import hints, render, results, runner, sizes, speed
from benchmarks.results import Result
from benchmarks.several_tags import several_tags
from benchmarks.tables import APART, SUMMARY, TABLES, Column, Row, Table

import hintseg
from hintseg.bench import OPERATIONS
from hintseg.bench.startup import Start
from hintseg.data.shapes import write_shapes
from hintseg.evaluation.confusion import Confusion
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png, write_mask

TABLE = Table(
    title="Two seeds",
    rows={"one": Row("cam", ("refine=null", "segment=null")), "two": Row("cam", ("segment=null",), after="one")},
    data={"shapes": ("backbone.name=resnet10t", "backbone.weights=random", "backbone.levels=2")},
    columns=(Column("seeds", "seed", "train"), Column("masks", "pseudo mask", "train")),
    settings=("localize.fit.epochs=1", "localize.fit.crop=32", "maps.scales=[1.0]", "trainer.pictures=0"),
    seeds=(0,),
    baseline="one",
)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    write_shapes(tmp_path / "shapes", train=6, val=2, size=48)
    return {"data": tmp_path, "weights": tmp_path, "out": tmp_path / "runs", "folder": tmp_path / "results"}


def test_a_table_is_run_once_and_goes_on_from_another_row(places: dict[str, Any]) -> None:
    found = runner.run("t", TABLE, rows=["one"], **places)
    assert [(one.row, one.column) for one in found] == [("one", "seeds"), ("one", "seconds"), ("one", "peak_mib")]
    assert 0 <= found[0].value <= 1
    assert found[0].command.startswith("hintseg train shapes --recipe cam localize.fit.epochs=1")
    weights = places["out"] / "t" / "shapes-one-0" / "localize" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    both = runner.run("t", TABLE, **places)
    assert sorted((one for one in both if one.row == "one"), key=str) == sorted(found, key=str)
    assert weights.stat().st_mtime_ns == before, "what is there is not run again"
    two = places["out"] / "t" / "shapes-two-0"
    assert (two / "localize" / "model.safetensors").read_bytes() == weights.read_bytes()
    assert {one.column for one in both if one.row == "two"} == {"seeds", "masks", "seconds", "peak_mib"}
    assert results.read("t", places["folder"]) == sorted(both, key=lambda o: (o.data, o.row, o.seed, o.column))


def test_a_row_takes_its_stage_one_from_the_baseline_and_photos_of_several_tags_are_measured(
    tmp_path: Path, places: dict[str, Any]
) -> None:
    write_shapes(tmp_path / "many", train=30, val=2, size=48)
    stop = ("refine=null", "segment=null")
    table = replace(
        TABLE,
        rows={"plain": Row("cam", stop), "csd": Row("csd_irn", ("csd.baseline={baseline}", *stop))},
        data={"many": TABLE.data["shapes"]},
        columns=APART,
        baseline="plain",
    )
    found = {(one.row, one.column): one for one in runner.run("t", table, **places)}
    for row in table.rows:
        seeds, ceiling = (found[row, column.title].value for column in APART)
        assert 0 < seeds <= ceiling <= 1
    assert not (places["out"] / "t" / "many-csd-0" / "baseline").exists()
    assert "csd.baseline=RUN" in found["csd", "several tags"].command


def test_the_ceiling_tells_apart_what_was_found_and_finds_nothing_more(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=4, val=2, size=48)
    settings = [*TABLE.settings, *TABLE.data["shapes"], "refine=null", "segment=null"]
    run = RunFolder.open(hintseg.train(tmp_path / "data", tmp_path / "run", recipe="cam", settings=settings).path)
    found, ceiling = Confusion(len(run.classes)), Confusion(len(run.classes))
    counted = 0
    for photo in run.photos:
        if photo.split != "train" or len(photo.tags or ()) < 2:
            continue
        counted += 1
        truth = read_label_png(run.truth_path(photo.id))
        mask = np.roll(truth, 7, axis=1)
        mask[mask > 0] = min(photo.tags or (1,))
        write_mask(run.stage("localize") / "masks" / f"{photo.id}.png", mask)
        best = mask.copy()
        for y, x in np.ndindex(*mask.shape):
            if mask[y, x] and truth[y, x] not in (0, 255):
                best[y, x] = truth[y, x]
        found.add(truth, mask)
        ceiling.add(truth, best)
    assert counted
    assert several_tags(run) == {"several tags": found.miou(), "several tags, ceiling": ceiling.miou()}
    assert ceiling.miou() > found.miou()


def test_versions_are_not_mixed(places: dict[str, Any]) -> None:
    runner.run("t", TABLE, rows=["one"], **places)
    file = places["folder"] / "t.json"
    old = json.loads(file.read_text())
    file.write_text(json.dumps([one | {"version": "0.0 abc"} for one in old]))
    with pytest.raises(SystemExit, match=r"t holds results of version 0\.0 abc, the code is .*--fresh"):
        runner.run("t", TABLE, rows=["one"], **places)
    assert len(runner.run("t", TABLE, rows=["one"], fresh=True, **places)) == 3
    with pytest.raises(SystemExit, match="t has no 'three'; known: one, two"):
        runner.run("t", TABLE, rows=["three"], **places)


def result(row: str, seed: int, value: float, column: str = "seeds") -> Result:
    return Result(
        table="t",
        row=row,
        data="shapes",
        seed=seed,
        column=column,
        split="train",
        metric="miou",
        value=value,
        protocol="scales [1.0]" if column == "seeds" else "",
        command=f"hintseg train shapes seed={seed}",
        version="0.1",
        machine="a machine",
        date="2026-11-27",
    )


def test_rows_show_spread_and_differences_of_equal_seeds() -> None:
    found = [result("one", 0, 0.5), result("one", 1, 0.6), result("two", 0, 0.53), result("two", 1, 0.61)]
    found += [
        result(row, seed, 10, cost) for row in ("one", "two") for seed in (0, 1) for cost in ("seconds", "peak_mib")
    ]
    text = render.markdown(TABLE, found)
    assert "| one | 2 | 55.0 ± 7.1 |  | 10 | 10 |" in text
    assert "| two | 2 | 57.0 ± 5.7 | +2.0 ± 1.4 | 10 | 10 |" in text
    assert text.count("hintseg train shapes seed=N") == 1
    assert "- seeds: scales [1.0]" in text
    assert render.markdown(TABLE, []) == "**Two seeds.** Not run."


def test_docs_are_what_results_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "t", TABLE)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table t -->\nold\n<!-- end -->\nafter\n")
    assert render.render(check=True, docs=tmp_path, folder=tmp_path) == [f"{tmp_path.name}/page.md"]
    assert "old" in page.read_text()
    render.render(docs=tmp_path, folder=tmp_path)
    assert page.read_text() == "before\n<!-- table t -->\n**Two seeds.** Not run.\n<!-- end -->\nafter\n"
    assert render.render(check=True, docs=tmp_path, folder=tmp_path) == []
    page.write_text("<!-- table none -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="'none', which there is not; known: vwe"):
        render.render(docs=tmp_path, folder=tmp_path)


def test_no_table_of_scores_in_the_docs_is_written_by_hand() -> None:
    for name in ("results.md", "notebook.md"):
        text = (render.DOCS / name).read_text(encoding="utf-8")
        outside = re.sub(r"<!-- table .*?<!-- end -->", "", text, flags=re.DOTALL)
        assert "\n|" not in outside, name


def test_the_summary_holds_what_was_run(tmp_path: Path) -> None:
    row = SUMMARY[0]
    values = [(row.row, "masks", 0, 0.7), (row.row, "segmentation", 0, 0.6), (row.upper, "segmentation", 0, 0.8)]
    values += [(row.row, "segmentation", 1, 0.64)]
    one = results.read("networks")[0]
    found = [
        one.model_copy(update={"row": name, "column": column, "seed": seed, "value": value, "data": row.data})
        for name, column, seed, value in values
    ]
    results.write(row.table, found, tmp_path)
    lines = render.summary(tmp_path).splitlines()
    assert lines[2:] == [f"| {row.words} | tags | `quick` | 70.0 | 62.0 ± 2.8 | 80.0 | 75.0 % | 2 |"]


def test_sizes_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "NETWORKS", {})
    write_shapes(tmp_path / "data", train=4, val=1, size=48)
    quick = ["backbone.name=test_resnet", "backbone.weights=random", "localize.fit.epochs=1", "trainer.workers=0"]
    run = hintseg.train(tmp_path / "data", tmp_path / "run", recipe="cam", settings=[*quick, "segment=null"])
    found = sizes.of_run(RunFolder.open(run.path))
    maps = [file.stat().st_size for file in (run.path / "localize/maps").iterdir()]
    assert found["class maps"] == statistics.mean(maps)
    assert found["`photos.json`"] == (run.path / "photos.json").stat().st_size / 4
    assert "predictions, palette PNG" not in found
    kept = []
    for side in (64, 128):
        monkeypatch.setattr(sizes, "_SIDE", side)
        kept.append(sizes.of_features({"small": ("test_resnet", "")})["features of small"])
    assert kept[1] / kept[0] == pytest.approx(4, rel=0.1)  # they grow with the photo's area
    made = [
        results.measured("sizes", row, sizes.COLUMN, 51_000.0, data="d", metric="bytes", command="c") for row in "a"
    ]
    assert "| a | 51,000 | 51 MB | 51 GB |" in sizes.markdown(made)


def test_speeds_are_measured_kept_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["par"]
    monkeypatch.setattr(speed, "OPERATIONS", {name: OPERATIONS[name] for name in names})
    found = speed.run_bench((1,), tiny=True, folder=tmp_path)
    assert {one.row.split(",")[0] for one in found} == set(names)
    assert speed.markdown(speed.BENCH, results.read(speed.BENCH, tmp_path)).count("\n| ") == 1
    value = next(one.value for one in found if one.column == "seconds" and one.row.startswith("par"))
    assert f"| {1000 * value:.1f} ms |" in speed.markdown(speed.BENCH, found)
    monkeypatch.setattr(speed, "measure", None)
    assert speed.run_bench((1,), tiny=True, folder=tmp_path) == results.read(speed.BENCH, tmp_path), "measured once"
    monkeypatch.setattr(speed, "starts", lambda names: [Start("predict", 3.81, 2.0, 5)])
    assert "| `predict` | 3.8 | 2.0 |" in speed.markdown(speed.STARTUP, speed.run_startup(folder=tmp_path))


def test_hints_are_studied_once_and_held_against_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shapes(tmp_path / "shapes", train=8, val=4, size=48)
    monkeypatch.setattr(hints, "DATA", {"shapes": ((), ("segment.fit.epochs=1", "segment.rounds=1"))})
    tiny = ("backbone.name=resnet10t", "backbone.weights=random", "backbone.freeze=none", "backbone.levels=4")
    monkeypatch.setattr(hints, "_NETWORK", (*tiny, "trainer.pictures=0"))
    asked: dict[str, Any] = {"data": tmp_path, "weights": tmp_path, "out": tmp_path / "out", "seeds": [0]}
    found = hints.run_hints(**asked, kinds=["points"], folder=tmp_path)
    found = hints.run_hints(**asked, kinds=["masks"], folder=tmp_path)
    assert {one.row for one in found} == {"points, 100 %", hints.MASKS}
    scores = {one.row: one.value for one in found if one.column == "segmentation"}
    share = 100 * scores["points, 100 %"] / scores[hints.MASKS]
    assert f"| {100 * scores['points, 100 %']:.1f} | {share:.1f} % |" in hints.markdown(found)
    with pytest.raises(SystemExit, match="no 'touch'; known: tags"):
        hints.run_hints(**asked, kinds=["touch"], folder=tmp_path)


def test_the_picture_of_costs_is_drawn_from_the_results(tmp_path: Path) -> None:
    def cell(row: str, column: str, value: float, seed: int) -> results.Result:
        return results.measured(hints.NAME, row, column, value, data=hints.PICTURED, seed=seed, metric="", command="")

    found = [cell("tags, 100 %", "segmentation", value, seed) for seed, value in enumerate((0.2, 0.4))]
    found += [cell("tags, 100 %", "hours", 2.0, seed) for seed in (0, 1)]
    found += [cell("tags, 10 %", "segmentation", 0.1, 0), cell("tags, 10 %", "hours", 0.5, 0)]
    results.write(hints.NAME, found, tmp_path)
    assert hints.points(found) == {"tags": [(0.5, 0.1), (2.0, 0.3)]}
    file = tmp_path / render.PICTURE
    file.parent.mkdir()
    file.write_bytes(hints.picture(found[:-2]))
    name = f"{tmp_path.name}/{render.PICTURE}"
    assert render.render(check=True, docs=tmp_path, folder=tmp_path) == [name]
    assert render.render(docs=tmp_path, folder=tmp_path) == [name]
    assert render.render(check=True, docs=tmp_path, folder=tmp_path) == []


def test_the_docs_of_this_project_are_what_its_results_say() -> None:
    assert render.render(check=True) == []
