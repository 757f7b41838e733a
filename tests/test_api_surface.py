"""No public name goes, comes or changes without somebody saying so."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

import hintseg.api
from api_surface import FILE, REWRITE, Surface, differences, surface
from hintseg import registry
from hintseg.registry import Entry


@pytest.fixture(scope="module")
def kept() -> Surface:
    written: Surface = json.loads(FILE.read_text())
    return written


def test_the_public_names_are_those_that_were_agreed_on(kept: Surface) -> None:
    said = differences(kept, surface())
    assert not said, "\n".join([*said, f"If this is meant, say so in CHANGELOG.md and run: {REWRITE}"])


def test_every_kind_of_name_is_watched(kept: Surface) -> None:
    for section, name, said in (
        ("package", "hintseg.refine.par", "(scores, rgb, *, dilations=(1, 2, 4, 8, 12, 24), iterations=10)"),
        ("package", "hintseg.Run.metrics", "property"),
        ("contracts", "hintseg.types.Supervision.BOXES", "'boxes'"),
        ("contracts", "hintseg.methods.method.Method.losses", "(self, batch, progress)"),
        ("contracts", "hintseg.formats.codec.Codec.carries", "attribute"),
        ("registry", "METHODS.irn", "refine"),
        ("settings", "maps.area", "0.4"),
        ("settings of methods", "irn.method", "'irn'"),
        ("commands", "train --resume", "flag, default False"),
        ("commands", "review run", "argument, one, needed"),
    ):
        assert kept[section][name] == said


def test_nothing_of_this_machine_is_kept(kept: Surface) -> None:
    text = json.dumps(kept)
    assert " at 0x" not in text
    assert "/home/" not in text
    assert text == json.dumps(surface())
    fresh = [sys.executable, "-c", "import json, api_surface; print(json.dumps(api_surface.surface()))"]
    other_hashes = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join([str(FILE.parent), *sys.path])}
    assert subprocess.run(fresh, env=other_hashes, capture_output=True, text=True, check=True).stdout.strip() == text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kept: kept["commands"].pop("train --out"), "commands: train --out is new"),
        (lambda kept: kept["package"].update(gone="(x)"), "package: gone is gone (it was '(x)')"),
        (
            lambda kept: kept["package"].update({"hintseg.load": "(run, device)"}),
            "package: hintseg.load changed from '(run, device)' to '(run)'",
        ),
    ],
)
def test_changes_are_told_in_words(kept: Surface, change: Callable[[Surface], object], words: str) -> None:
    before = copy.deepcopy(kept)
    change(before)
    (said,) = differences(before, kept)
    assert said.startswith(words)


def test_the_living_package_is_looked_at(kept: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(run: str, device: str = "cpu") -> None: ...

    monkeypatch.setattr(hintseg.api, "load", load)
    monkeypatch.setitem(registry.FORMATS, "xyz", Entry("hintseg.formats.xyz:Xyz", "made up"))
    assert differences(kept, surface()) == [
        "package: hintseg.load changed from '(run)' to \"(run, device='cpu')\"",
        "registry: FORMATS.xyz is new ('')",
    ]
