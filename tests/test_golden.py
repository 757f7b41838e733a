"""Losses and gradients of every method are those of the commit that wrote tests/golden/golden.json.

Other processors and other versions of torch sum in another order, and a sum near 0 may fall on the other side of a
ReLU. Losses then differ by 1e-5, gradients of single layers by 0.4 % of their norm (AVX-512 against AVX2, SSE and two
threads). To compare two commits bit for bit on one machine: tests/golden/make.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden import cases, make, recipes
from hintseg.config.loader import recipe_names
from hintseg.registry import METHODS, WRAPPERS

KEPT = json.loads(cases.KEPT.read_text())


def test_every_method_and_wrapper_is_held() -> None:
    assert {case.method for case in cases.CASES.values()} == set(METHODS)
    assert {"csd"} == set(WRAPPERS)
    assert sum(case.csd is not None for case in cases.CASES.values()) >= 2
    assert set(KEPT) == set(cases.CASES)


@pytest.mark.parametrize("name", cases.CASES)
def test_losses_and_gradients_are_the_kept_ones(name: str) -> None:
    kept, found = KEPT[name], cases.plain(cases.run(cases.CASES[name]), cases.summary)
    losses = {loss: float.fromhex(value) for loss, value in kept["losses"].items()}
    assert {loss: float.fromhex(str(value)) for loss, value in found["losses"].items()} == pytest.approx(
        losses, rel=1e-4, abs=1e-6
    )
    assert list(found["gradients"]) == list(kept["gradients"])
    largest = max(values[0] for values in kept["gradients"].values() if values)
    for parameter, values in kept["gradients"].items():
        if values is None:
            assert found["gradients"][parameter] is None, parameter
        else:
            near = 0.01 * max(values[0], 1e-4 * largest)
            assert found["gradients"][parameter] == pytest.approx(values, rel=0, abs=near), parameter


def test_exact_values_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: cases.CASES[name] for name in ("mctformer", "csd-mctformer", "afa", "bmp")}
    monkeypatch.setattr(cases, "CASES", few)
    for name in ("one", "two"):
        make.main(["--out", str(tmp_path / name)])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    exact = json.loads((tmp_path / "one").read_text())
    assert set(exact) == set(few)
    digests = [value for case in exact.values() for value in case["gradients"].values()]
    assert len(set(digests)) > 0.9 * len(digests)


def test_every_recipe_is_run_for_the_checksums_of_masks() -> None:
    assert {name for name in recipe_names() if not name.startswith("paper/")} == set(recipes.STAGES)
