"""`--recipe auto`: what fits the hints."""

from __future__ import annotations

from pathlib import Path

import pytest

import hintseg
from hintseg.config.loader import load_config
from hintseg.config.run import RunConfig
from hintseg.data.shapes import write_shapes
from hintseg.hints import read_hints
from hintseg.pipeline.begin import make_plan
from hintseg.pipeline.choose_recipe import choose_recipe, recipe_of
from hintseg.training.watch import Watch
from hintseg.types import Box, Click, Hints, HintSet, Mark, MaskFile, Photo, Stroke, Tags
from small_runs import write_squares

TAGS = Hints(Tags(frozenset({1})))
BOX = Hints(Tags(frozenset({1})), (Mark(1, Box(0, 0, 4, 4)),))
CLICK = Hints(Tags(frozenset({1})), (Mark(1, Click(1, 1)),))
STROKE = Hints(Tags(frozenset({1})), (Mark(1, Stroke((1, 1, 5, 5))),))
BOTH = Hints(Tags(frozenset({1})), (*BOX.marks, *CLICK.marks))
MASK = MaskFile(Path("a.png"))


def config(*words: str) -> RunConfig:
    return load_config("quick", list(words), data={"path": "photos"})


class Lines(Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def hints(*said: Hints, truth: bool = False) -> HintSet:
    photos = tuple(Photo(f"{i}", Path(f"{i}.jpg"), one, MASK if truth else None) for i, one in enumerate(said))
    return HintSet("made", ("cat",), photos, {"train": tuple(photo.id for photo in photos)})


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ((TAGS, TAGS), "quick"),
        ((BOX, BOTH), "boxes"),
        ((CLICK, CLICK), "points"),
        ((STROKE, CLICK), "strokes"),
        ((BOX, TAGS), "mixed"),
        ((BOX, STROKE), "mixed"),
        ((Hints(), TAGS), "quick"),
        ((Hints(),), "quick"),
    ],
)
def test_the_recipe_fits_the_hints(said: tuple[Hints, ...], name: str) -> None:
    found, why = choose_recipe(hints(*said), config())
    assert found == name
    assert why.startswith(f"'{name}', as ")


def test_masks_count_where_they_may_teach(tmp_path: Path) -> None:
    said = hints(TAGS, TAGS, truth=True)
    assert choose_recipe(said, config())[0] == "quick"
    assert choose_recipe(said, config("data.learn_masks=all"))[0] == "full"
    (tmp_path / "ids.txt").write_text("1\n")
    name, why = choose_recipe(said, config(f"data.learn_masks={tmp_path / 'ids.txt'}"))
    assert (name, why.partition(";")[0]) == ("quick", "'quick', as 1 photos have masks and 1 photos have tags")


def test_the_recipe_for_a_few_masks_beside_tags_learns_from_both(tmp_path: Path) -> None:
    write_squares(tmp_path / "photos")
    said = read_hints(tmp_path / "photos")
    (tmp_path / "ids.txt").write_text(f"{said.splits['train'][1]}\n")
    words = [f"data.learn_masks={tmp_path / 'ids.txt'}"]
    name, _ = choose_recipe(said, config(*words))
    plan = make_plan(said, load_config(name, words, data={"path": str(tmp_path / "photos")}))
    assert sorted(plan.by.values()) == ["masks", *["tags"] * 7]


def test_only_the_training_split_counts() -> None:
    said = hints(TAGS, BOX)
    apart = HintSet(said.name, said.classes, said.photos, {"train": ("0",), "val": ("1",)})
    assert choose_recipe(apart, config())[0] == "quick"


def test_a_run_that_goes_on_keeps_its_recipe(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", train=6, val=2, seed=0, size=64)
    words = [
        *("propose.method=grabcut", "segment=null", "trainer.pictures=0", "trainer.accelerator=cpu"),
        *("backbone.name=resnet10t", "backbone.weights=random"),
    ]
    lines = Lines()
    labels = tmp_path / "shapes/Annotations"
    run = hintseg.train(tmp_path / "shapes", tmp_path / "run", labels=labels, settings=words, watch=lines)
    assert recipe_of(run.path) == "boxes"
    assert "recipe: 'boxes', as 6 photos have boxes; --recipe takes another" in lines.lines
    again = Lines()
    hintseg.train(tmp_path / "shapes", tmp_path / "run", labels=labels, settings=words, resume=True, watch=again)
    assert not any(line.startswith("recipe:") for line in again.lines)
    assert recipe_of(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("splits", "settings", "taught", "judged"),
    [
        ({"train_aug": "ab", "val": "cd"}, [], "ab", "cd"),
        ({"val": "c", "test": "d"}, [], "ab", "c"),
        ({"trainval": "abc", "held": "c"}, ["data.val=held"], "abd", "c"),
        ({"train": "abc", "val": "cd"}, [], "abc", "cd"),
        ({"train_aug": "ab", "val": "cd"}, ["data.train=all"], "abcd", "cd"),
        ({"val": "abcd"}, [], "abcd", "abcd"),
    ],
)
def test_without_a_list_to_learn_from_what_judges_does_not_teach(
    splits: dict[str, str], settings: list[str], taught: str, judged: str
) -> None:
    photos = tuple(Photo(name, Path(f"{name}.jpg"), TAGS, MASK) for name in "abcd")
    data = HintSet("made", ("cat",), photos, {name: tuple(ids) for name, ids in splits.items()})
    plan = make_plan(data, config(*settings))
    assert ["".join(photo.id for photo in split) for split in (plan.train, plan.val)] == [taught, judged]
    both = sorted({*taught} & {*judged})
    said = [sentence for sentence in plan.sentences if "both teach and are judged" in sentence]
    assert len(said) == bool(both)
    assert not both or said[0].startswith(f"{len(both)} photos both teach and are judged")
