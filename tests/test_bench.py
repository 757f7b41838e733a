"""`hintseg bench`: the plain versions give the same numbers, and the command runs and says what it measured."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hintseg.bench import OPERATIONS, libraries, measure, measuring
from hintseg.bench.measuring import PLAIN, Rates, largest_difference, load_plain
from hintseg.bench.operations import photos
from hintseg.cli.app import app
from hintseg.cli.bench import bench as command
from hintseg.errors import ConfigError
from hintseg.refine import DenseCrf, dense_crf

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", OPERATIONS)
def test_plain_versions_equal_ours(name: str) -> None:
    operation = OPERATIONS[name]
    case = operation.make(CPU, True)
    plain = getattr(load_plain(), operation.plain)
    # The dense walk squares a float32 matrix eight times; ours steps in float64.
    near = 1e-3 if operation.plain == "random_walk" else 1e-4
    assert largest_difference(operation.ours(**case.arguments), plain(**case.arguments)) < near
    assert case.bytes > 0
    assert (case.operations > 0) == (name != "masks")


def test_differences_are_seen() -> None:
    ours = [torch.zeros(2, 3), np.zeros(2)]
    assert largest_difference(ours, [np.zeros((2, 3)), torch.tensor([0.0, -0.25])]) == 0.25


def test_photos_of_the_bench_are_as_hard_as_real_ones() -> None:
    # Four photos of COCO at this size: 72 to 126 thousand vertices at sigmas 64 and 5.
    assert 70_000 < DenseCrf(photos(1, 321, 481), gaussian=None).vertices[0] < 130_000


def test_command_measures_and_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hintseg.bench.measuring.peak_memory", lambda *_, **__: 5 << 20)
    done = CliRunner().invoke(app, ["bench", "par", "--tiny", "--json", "--threads", "1"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert {"processor", "cores", "torch", "numba", "numpy", "python", "hintseg"} <= facts["machine"].keys()
    (rate,) = facts["rates"]
    assert rate["threads"] == 1
    assert min(rate["copy"], rate["multiply"]) > 1e6
    assert [row["name"] for row in facts["rows"]] == ["par"]
    for row in facts["rows"]:
        assert row["runs"] == row["plain_runs"] == 5
        assert row["ratio"] == pytest.approx(row["plain_seconds"] / row["seconds"])
        assert row["copy_share"] == pytest.approx(row["bytes"] / row["seconds"] / rate["copy"])
        assert row["multiply_share"] == pytest.approx(row["operations"] / row["seconds"] / rate["multiply"])
        assert row["difference"] < 1e-4
        assert (row["device"], row["threads"]) == ("cpu", 1)


def test_table_names_shapes_and_slow_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hintseg.bench.measuring.peak_memory", lambda *_, **__: 5 << 20)
    monkeypatch.setenv("COLUMNS", "250")
    before = torch.get_num_threads()
    try:
        command(["random_walk", "random_walk_small"], device="cpu", threads=[1, 2], slow=False, tiny=True, json=False)
    finally:
        torch.set_num_threads(before)
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if "random_walk" in line]
    assert len(rows) == 8, "speeds, then what was done, for two operations with one and two threads"
    speeds, work = rows[:4], rows[4:]
    assert sum("5 MiB" in row for row in speeds) == 4
    assert [" - " in row for row in speeds] == [True, False, True, False], "the dense walk was not run"
    assert all("7 x 9 cells, radius 5, 256 steps, 2 classes" in row for row in work)
    assert "--slow runs it" in text
    assert "multiplies" in text


def test_without_the_source_tree_ours_is_shown_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hintseg.bench.measuring.PLAIN", PLAIN.with_name("missing.py"))
    monkeypatch.setattr("hintseg.bench.measuring.peak_memory", lambda *_, **__: 7)
    row = measure(OPERATIONS["par"], CPU, Rates(1, 1e9, 1e9), tiny=True, repeats=1)
    assert row.plain_seconds is row.plain_peak is row.ratio is row.difference is None
    assert (row.peak, row.plain_runs, row.runs) == (7, 0, 1)


def test_a_long_plain_version_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hintseg.bench.measuring.PATIENCE", 0.0)
    monkeypatch.setattr("hintseg.bench.measuring.peak_memory", lambda *_, **__: 0)
    row = measure(OPERATIONS["par"], CPU, Rates(1, 1e9, 1e9), tiny=True, repeats=2)
    assert (row.runs, row.plain_runs) == (2, 1)
    assert row.ratio is not None


def test_the_library_is_beside_ours_or_the_command_says_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hintseg.bench.measuring.PLAIN", PLAIN.with_name("missing.py"))
    monkeypatch.setattr("hintseg.bench.measuring.peak_memory", lambda *_, **__: 7)
    monkeypatch.setattr("hintseg.bench.libraries.missing", lambda: None)
    operation = OPERATIONS["dense_crf"]
    made = dataclasses.replace(operation, library=lambda **given: operation.ours(**given) + 0.25)
    monkeypatch.setitem(OPERATIONS, "dense_crf", made)
    row = measure(made, CPU, Rates(1, 1e9, 1e9), tiny=True, repeats=3)
    assert row.library_difference == pytest.approx(0.25)
    assert row.library_seconds is not None
    assert row.library_ratio == row.library_seconds / row.seconds
    given: dict[str, Any] = {"device": "cpu", "threads": [1], "slow": False, "tiny": True, "json": False}
    command(["dense_crf", "par"], **given)
    text = capsys.readouterr().out
    beside = text[text.index("Beside the C++ library") : text.index("Bytes and operations")]
    assert "3e-01" in beside or "2e-01" in beside
    assert "par" not in beside
    monkeypatch.setattr("hintseg.bench.libraries.missing", lambda: "install this")
    command(["dense_crf"], **given)
    text = capsys.readouterr().out
    assert "install this" in text
    assert "Beside the C++ library" not in text
    command(["par"], **given)
    assert "install this" not in capsys.readouterr().out


def test_ours_equals_the_library() -> None:
    if libraries.missing():
        pytest.skip("pydensecrf2 is not installed")
    case = OPERATIONS["dense_crf_21_alive"].make(CPU, True)
    assert measuring.mean_difference(dense_crf(**case.arguments), libraries.dense_crf(**case.arguments)) < 1e-5


def test_advice_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hintseg.bench.libraries.find_spec", lambda name: None)
    assert "pip install 'hintseg[bench]'" in (libraries.missing() or "")


def test_memory_of_a_run_is_what_it_allocates() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells")
    # 48 float32 affinities for each pixel, and little else.
    pixels = 321 * 481
    ours = measuring.peak_memory("par", CPU, 1, plain=False, tiny=False)
    assert 0.9 * 48 * 4 * pixels < ours < 1.5 * 48 * 4 * pixels


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"names": ["parr"]}, "no operation 'parr'; did you mean 'par'?"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"threads": [0]}, "--threads 0 given"),
    ],
)
def test_mistakes_end_in_one_message(given: dict[str, Any], part: str) -> None:
    usual: dict[str, Any] = {"names": None, "device": "cpu", "threads": None, "slow": False, "tiny": True, "json": True}
    with pytest.raises(ConfigError, match=re.escape(part)):
        command(**(usual | given))
