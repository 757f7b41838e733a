"""Broken files and settings end in one sentence; `make fuzz` goes on for an hour. See tests/fuzzing.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given

from fuzzing import TARGETS, Target, common, survives

EXAMPLES = {"hint_targets": 16, "setting_targets": 60, "array_targets": 30, "weight_targets": 30, "run_targets": 10}


@pytest.mark.parametrize("make", TARGETS, ids=lambda make: make.__name__)
def test_broken_input_ends_in_one_sentence(make: Callable[[Path], dict[str, Target]], tmp_path: Path) -> None:
    for target in make(tmp_path).values():
        check(target, EXAMPLES[make.__name__])


def check(target: Target, examples: int) -> None:
    @common(examples, repeatable=True)
    @given(target.examples)
    def one(example: object) -> None:
        survives(target, example)

    one()
