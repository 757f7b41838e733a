"""Recipes, overrides and their errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hintseg.cli.listing import Kind, rows
from hintseg.config.auto import Facts, resolve_fit
from hintseg.config.loader import RECIPES, dump_config, load_config, parse_config, recipe_names
from hintseg.config.run import DenseCrfRefine, FreeMethod
from hintseg.errors import ConfigError
from hintseg.methods.cam import CamConfig
from hintseg.registry import METHODS, resolve
from made import given, of

DATA = {"path": "photos"}


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_loads_and_survives_yaml(recipe: str) -> None:
    config = load_config(recipe, data=DATA)
    again = parse_config(yaml.safe_load(dump_config(config)))
    assert again == config
    assert again.recipe == recipe


def test_all_mistakes_at_once_with_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as error:
        load_config(
            "vwe",
            ["localise.fit.epochs=3", "localize.backbon.name=x", "localize.fit.epochs=many", "trainer.workers=-1"],
            data=DATA,
        )
    text = str(error.value)
    assert text.startswith("4 problems in the settings:")
    assert "unknown setting 'localise'; did you mean 'localize'?" in text
    assert "unknown setting 'localize.backbon'; did you mean 'localize.backbone'?" in text
    assert "'localize.fit.epochs' = 'many'" in text
    assert "'trainer.workers' = -1" in text


def test_numbers_are_not_made_of_strings() -> None:
    with pytest.raises(ConfigError, match=r"seed"):
        load_config("cam", ['seed="3"'], data=DATA)


@pytest.mark.parametrize("word", ["1e-4", "1.0e-4", "0.1e-3", ".1e-3", "0.0001", "1E-4"])
def test_a_rate_may_be_written_as_everywhere_else(word: str) -> None:
    config = load_config("cam", [f"localize.fit.lr={word}"], data=DATA)
    assert given(config.localize).fit.lr == 0.0001


def test_exponents_in_a_recipe_file(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text((RECIPES / "cam.yaml").read_text() + "\ntest: {scales: [1e0, 2E-1]}\n")
    assert load_config(recipe, data=DATA).test.scales == (1.0, 0.2)


def test_unknown_recipe_and_method_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'vwe'"):
        load_config("vwee", data=DATA)
    with pytest.raises(ConfigError, match="unknown method 'cma'; did you mean 'cam'"):
        load_config("vwe", ["localize.method=cma"], data=DATA)
    with pytest.raises(ConfigError, match="a method to segment, not to localize"):
        load_config("vwe", ["localize.method=deeplabv2"], data=DATA)


def test_another_method_drops_the_settings_of_the_one_it_replaces() -> None:
    config = load_config("paper/vwe-voc12", ["localize.method=cam", "localize.pooling=gmp"])
    assert given(config.localize).method == "cam"
    assert of(CamConfig, config.localize).pooling == "gmp"
    assert given(config.localize).fit.epochs == "auto"  # the recipe said 6 for vwe
    assert given(load_config("paper/vwe-voc12", ["localize.method=vwe"]).localize).fit.epochs == 6


def test_top_level_backbone_fills_what_a_stage_leaves_out() -> None:
    config = load_config(
        "vwe", ["backbone.name=resnet18", "backbone.weights=random", "segment.backbone.name=resnet34"], data=DATA
    )
    assert given(config.localize).backbone.name == "resnet18"
    assert given(config.segment).backbone.name == "resnet34"
    assert given(config.segment).backbone.weights == "random"


def test_a_stage_can_be_left_out() -> None:
    assert load_config("vwe", ["refine=null"], data=DATA).refine is None
    assert load_config("vwe", ["segment=none"], data=DATA).segment is None


def test_a_free_refiner_replaces_a_learned_one() -> None:
    config = load_config("vwe", ["refine.method=dense_crf", "refine.iterations=5"], data=DATA)
    assert of(DenseCrfRefine, config.refine).iterations == 5


def test_recipe_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("localize:\n  method: cam\ndata:\n  path: photos\n")
    assert given(load_config(path).localize).method == "cam"
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_config(path)


def test_override_words_are_checked() -> None:
    with pytest.raises(ConfigError, match="not of the form key=value"):
        load_config("cam", ["epochs"], data=DATA)


def test_auto_scales_with_the_data_and_keeps_what_is_given() -> None:
    config = load_config("cam", ["localize.fit.batch_size=8"], data=DATA).localize
    small = resolve_fit(given(config), Facts(photos=100, side=213, pretrained=True, gpu=False))
    large = resolve_fit(given(config), Facts(photos=10_000, side=375, pretrained=True, gpu=True))
    assert small.batch_size == large.batch_size == 8
    assert of(int, small.epochs) > of(int, large.epochs)
    assert of(int, small.crop) < of(int, large.crop)
    assert "auto" not in small.model_dump().values()


def test_import_loads_no_torch() -> None:
    code = "import sys, hintseg, hintseg.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_refiners_that_are_listed_are_those_that_can_be_chosen() -> None:
    names = [name for name, _ in rows(Kind.refiners)]
    for name in names:
        config = load_config("vwe", [f"refine.method={name}"], data={"path": "photos"})
    assert of(FreeMethod, config.refine).method == name
    with pytest.raises(ConfigError) as refused:
        load_config("vwe", ["refine.method=grabcat"], data={"path": "photos"})
    assert set(str(refused.value).rpartition("Known: ")[2].split(", ")) == set(names)


def test_the_registry_says_which_stage_a_method_is_for() -> None:
    assert {name: entry.stage for name, entry in METHODS.items()} == {
        name: resolve("method", name, METHODS).Config.task for name in METHODS
    }


@pytest.mark.parametrize(
    ("recipe", "words", "said"),
    [
        ("vwe", ["backbone.nam=x"], ["unknown setting 'backbone.nam'; did you mean 'backbone.name'?"]),
        ("vwe", ["backbone.output_stride=9"], ["'backbone.output_stride' = 9: input should be 8, 14, 16 or 32"]),
        (
            "demo",  # its segmenter begins with what the localizer has learned
            ["localize.method=cma"],
            ["'localize.method': unknown method 'cma'; did you mean 'cam'? Known: cam, vwe, mctformer"],
        ),
        ("vwe", ["maps.scales=[0,-1]"], ["'maps.scales' = 0: input should be greater than 0"]),
        (
            "vwe",
            ["backbone.nam=x", "localize.backbone.nam=y"],
            [
                "unknown setting 'backbone.nam'; did you mean 'backbone.name'?",
                "unknown setting 'localize.backbone.nam'; did you mean 'localize.backbone.name'?",
            ],
        ),
    ],
)
def test_one_mistake_is_one_problem(recipe: str, words: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(recipe, words, data=DATA)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == said
