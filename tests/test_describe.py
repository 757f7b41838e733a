"""The command line explains what there is: every setting with its default, its limits and what it means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hintseg.cli.listing import Kind, rows
from hintseg.config.describe import BLOCKS, describe, recipe_settings, settings_of
from hintseg.config.loader import load_config, recipe_names
from hintseg.errors import ConfigError
from hintseg.methods.bmp import BmpConfig
from hintseg.registry import METHODS, REFINERS, WRAPPERS
from small_runs import typed

DESCRIBED = [kind for kind in Kind if kind not in (Kind.backbones, Kind.recipes)]


@pytest.mark.parametrize("kind", DESCRIBED)
def test_everything_listed_is_described(kind: Kind) -> None:
    for name, summary in rows(kind):
        found = describe(kind.value, name)
        assert found.summary == summary
        assert found.text
        if kind is Kind.objectives and summary.startswith("of "):
            continue  # set by its method, whose settings say what they mean
        missing = [setting.name for setting in found.settings if not setting.meaning]
        assert not missing, f"{kind} {name}: no meaning in the docstring: {missing}"


@pytest.mark.parametrize("name", [*METHODS, *WRAPPERS, *REFINERS])
def test_methods_and_refiners_name_their_papers(name: str) -> None:
    found = describe("refiners" if name in REFINERS else "methods", name)
    assert re.search(r"\b(19|20)\d\d\b", found.text + found.source), f"{name}: no year of a paper"


def test_defaults_and_limits_are_those_of_the_classes() -> None:
    found = {setting.name: setting for setting in describe("methods", "bmp").settings}
    assert found["lambda_c2s"].default == str(BmpConfig().lambda_c2s)
    assert found["sigma_c"].allowed == "number >= 0 and <= 1"
    assert found["confidence"].allowed == "softmax, sigmoid, logit"
    stem = {setting.name: setting for setting in describe("methods", "mctformer").settings}["backbone.stem"]
    assert (stem.default, stem.allowed) == ("null", "block; or null")


@pytest.mark.parametrize("block", BLOCKS)
def test_limits_in_words_are_those_that_hold(block: str) -> None:
    """What `number > 0` and the like say is refused just beyond, in every block of settings."""
    model, _ = BLOCKS[block]
    for setting in settings_of(model):
        for sign, value in re.findall(r"^(?:whole )?number.*?(>=?) (\d+)", setting.allowed):
            beyond = int(value) if sign == ">" else int(value) - 1
            prefix = {"run": "", "fit": "localize.fit.", "data": "data."}.get(block, f"{block}.")
            with pytest.raises(ConfigError, match=re.escape(setting.name)):
                load_config("vwe", [f"{prefix}{setting.name}={beyond}"], data={"path": "photos"})


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_says_what_it_sets(recipe: str) -> None:
    said = list(recipe_settings(recipe))
    words = [f"{key}={value}" for key, value, _ in said if key != "data.path"]
    again = load_config(recipe, words, data={"path": "photos"})
    assert again == load_config(recipe, data={"path": "photos"})
    assert all(setting.meaning for _, _, setting in said)


def test_a_recipe_is_printed_to_copy(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(typed("list", "recipes", "quick", "--yaml").stdout)
    mine = load_config(file, data={"path": "photos"})
    built_in = load_config("quick", data={"path": "photos"})
    assert mine.model_copy(update={"recipe": "quick"}) == built_in
    assert yaml.safe_load(file.read_text())["segment"]["rounds"] == 3
    assert typed("list", "methods", "vwe", "--yaml").returncode == 2


def test_one_is_shown_with_its_settings() -> None:
    text = typed("list", "methods", "vwe").stdout
    assert "IJCAI 2021" in text
    assert "  words  (default 256; whole number >= 1)" in text
    assert "k, size of the codebook." in text
    assert (
        "  localize.fit.epochs = 24  (default auto; whole number >= 1; or auto)"
        in typed("list", "recipes", "quick").stdout
    )
    assert "reads: boxes, masks, tags" in typed("list", "formats", "csv").stdout
    assert "did you mean 'vwe'?" in typed("list", "methods", "vew").stderr
    assert "did you mean 'fit'?" in typed("list", "settings", "ft").stderr
    assert "resnet18d" in typed("list", "backbones", "resnet18*").stdout
