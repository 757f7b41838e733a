"""What every method and every objective in the registry keeps, those of plug-ins included once they are installed."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from typer.testing import CliRunner

import hintseg
from golden import cases
from golden.recipes import settings
from hintseg.cli.app import app
from hintseg.config.loader import dump_config, load_config, parse_config
from hintseg.config.objective import Objective
from hintseg.config.run import RunConfig
from hintseg.data.shapes import write_shapes
from hintseg.errors import ConfigError
from hintseg.losses.cross_entropy import CrossEntropy, pixel_cross_entropy
from hintseg.losses.pixels import PixelObjective
from hintseg.losses.soft_margin import SoftMargin
from hintseg.methods.cfs import Cfs
from hintseg.methods.deeplab import DeepLabV2, DeepLabV2Config
from hintseg.methods.method import Method
from hintseg.methods.refiner import Refiner
from hintseg.methods.segmenter import Segmenter, SegmenterConfig
from hintseg.nn.affinity import window
from hintseg.nn.attention import attend
from hintseg.registry import METHODS, OBJECTIVES, objectives, resolve
from hintseg.training.weights import load_weights, save_weights
from hintseg.types import Batch, Prediction, Progress, Supervision, Targets
from made import given, of

PHOTOS, CLASSES = 4, cases.CLASSES
TAG_LOSSES = {"cam": {"loss_img"}, "vwe": {"loss_img", "loss_w2i"}, "mctformer": {"loss_class", "loss_patch"}}
TAG_LOSSES |= {"afa": {"loss_cls"}, "bmp": {"loss_cls"}}

method_names = pytest.mark.parametrize("name", METHODS)


# --- methods --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> dict[str, Method]:
    """Every method on a tiny backbone, its scales measured; tests leave them as they are."""
    return {name: cases.build(cases.CASES[name]) for name in METHODS}


def total(method: Method, batch: Batch, progress: Progress) -> Tensor:
    return torch.stack(list(method.losses(batch, progress).values())).sum()


@method_names
def test_the_loss_is_finite_and_falls_on_four_photos(name: str) -> None:
    case = cases.CASES[name]
    method, batch = cases.build(case), cases.make_batch(case)
    assert len(batch.ids) == PHOTOS
    groups = [p for group in method.parameter_groups() for p in group.parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(groups, lr=2e-3)
    progress = Progress(5, 100)  # where labels are made on the way, they would move the loss as it falls
    history = []
    for _ in range(12):
        loss = total(method, batch, progress)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert all(map(math.isfinite, history))
    assert min(history[-3:]) < 0.95 * history[0]


@method_names
def test_shapes(name: str, built: dict[str, Method]) -> None:
    method, case = built[name].eval(), cases.CASES[name]
    batch = cases.make_batch(case)
    task, images = method.config.task, batch.images
    with torch.no_grad():
        if task == "localize" or Supervision.TAGS in method.supervision:
            maps = method.class_maps(images)
            assert (maps.shape[:2], bool((maps >= 0).all())) == ((PHOTOS, CLASSES), True)
        if task == "localize":
            assert method.raw_maps(images).shape == maps.shape
        if task == "segment":
            logits = method.segment(images)
            assert (logits.shape[:2], bool(logits.isfinite().all())) == ((PHOTOS, CLASSES + 1), True)
            assert method.segment(images[:1, :, :48, :56]).shape[:2] == (1, CLASSES + 1)  # photos have any size
        if task == "refine":
            for count in (0, 2):
                scores = of(Refiner, method).refine(images[:1], torch.rand(count, 8, 8))
                assert (len(scores), bool(((scores >= 0) & (scores <= 1)).all())) == (count, True)
        if task == "propose":
            boxes = torch.cat(given(batch.targets.boxes))[:, 1:]
            found = of(Cfs, method).foreground(images, torch.eye(CLASSES)[[0, 2, 1, 1]], boxes)
            assert found.shape == (PHOTOS, *images.shape[2:])


@method_names
def test_photos_without_any_class_and_classes_that_no_photo_shows(name: str, built: dict[str, Method]) -> None:
    method, case = built[name].train(), cases.CASES[name]
    batch = cases.make_batch(case)
    pixels = batch.targets.pixels
    nothing = replace(batch.targets, tags=torch.zeros_like(batch.targets.tags), pixels=torch.zeros_like(given(pixels)))
    unlabelled = replace(batch.targets, pixels=torch.full_like(given(pixels), 255))
    for targets in (nothing, unlabelled):
        for step in (5, 50):
            method.zero_grad()
            loss = total(method, replace(batch, targets=targets), Progress(step, 100))
            loss.backward()
            assert loss.isfinite()
            assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    method.zero_grad()


@pytest.mark.parametrize("name", TAG_LOSSES)
def test_a_photo_of_which_no_tag_is_known_adds_nothing_to_the_losses_of_tags(name: str) -> None:
    method, batch = cases.build(cases.CASES[name]).eval(), cases.make_batch(cases.CASES[name])
    known = batch.targets.tags_known.clone()
    known[2:] = False
    pixels = batch.targets.pixels
    some = replace(batch, targets=replace(batch.targets, tags_known=known))
    first = Targets(batch.targets.tags[:2], known[:2], batch.targets.windows[:2], given(pixels)[:2])
    alone = Batch(batch.ids[:2], batch.images[:2], first)
    with torch.no_grad():
        found, expected = (method.losses(one, Progress(5, 100)) for one in (some, alone))
    for loss in TAG_LOSSES[name]:
        torch.testing.assert_close(found[loss], expected[loss], rtol=1e-4, atol=1e-6)


def test_every_method_that_learns_from_tags_is_tested_with_unknown_ones(built: dict[str, Method]) -> None:
    assert {name for name, method in built.items() if Supervision.TAGS in method.supervision} == set(TAG_LOSSES)


@method_names
def test_same_seed_same_result(name: str) -> None:
    one, two = (cases.run(cases.CASES[name]) for _ in range(2))
    assert list(one.losses) == list(two.losses)
    assert all(torch.equal(one.losses[loss], two.losses[loss]) for loss in one.losses)
    for parameter, gradient in one.gradients.items():
        other = two.gradients[parameter]
        assert (gradient is None and other is None) or torch.equal(given(gradient), given(other))


@method_names
def test_weights_and_settings_come_back(name: str, built: dict[str, Method], tmp_path: Path) -> None:
    method = built[name]
    save_weights(method, tmp_path / "model.safetensors", classes=("a", "b", "c"), background=True)
    loaded, classes, background = load_weights(tmp_path / "model.safetensors")
    assert (type(loaded), classes, background) == (type(method), ("a", "b", "c"), True)
    assert loaded.config.model_dump(exclude={"backbone"}) == method.config.model_dump(exclude={"backbone"})
    state, again = method.state_dict(), loaded.state_dict()
    assert list(state) == list(again)
    assert all(torch.equal(state[key], again[key]) for key in state)


@method_names
def test_every_parameter_that_learns_is_in_one_group(name: str, built: dict[str, Method]) -> None:
    held = [id(p) for group in built[name].parameter_groups() for p in group.parameters]
    assert len(held) == len(set(held))
    assert {id(p) for p in built[name].parameters() if p.requires_grad} <= set(held)


# --- objectives -----------------------------------------------------------------------------------------------------

SIDE = 8  # pixels and cells alike: no resizing mixes what is known with what is not


class Scene:
    """A prediction with everything that any objective judges, and targets whose last photo has nothing to learn from.

    Attributes:
        leaves: Parts of the prediction that a network would make, by name; the last dimensions are the cells.
    """

    def __init__(self, seed: int = 0, *, unlabelled: slice = slice(PHOTOS - 1, None)) -> None:
        random = torch.Generator().manual_seed(seed)
        grid = (PHOTOS, CLASSES, SIDE, SIDE)
        near = len(window(SIDE, SIDE, 8, torch.device("cpu")).inside)
        shapes: dict[str, tuple[int, ...]] = {
            "maps": grid,
            "student": grid,
            "logits": (PHOTOS, CLASSES + 1, SIDE, SIDE),
        }
        shapes |= {"others": shapes["logits"], "affinity": (PHOTOS, near, SIDE**2), "cells": (PHOTOS, SIDE**2, 5)}
        self.leaves = {name: torch.rand(shape, generator=random).requires_grad_() for name, shape in shapes.items()}
        self.pixels = torch.randint(0, CLASSES + 1, (PHOTOS, SIDE, SIDE), generator=random).byte()
        self.pixels[torch.rand(self.pixels.shape, generator=random) < 0.3] = 255
        self.pixels[unlabelled] = 255
        tags, said = torch.zeros(PHOTOS, CLASSES), torch.ones(PHOTOS, CLASSES, dtype=torch.bool)
        tags[:, 0], said[unlabelled], tags[unlabelled] = 1, False, 0
        boxes = [torch.tensor([[1.0, 1, 2, 5, 7], [2.0, 3, 0, 8, 4]])] * PHOTOS
        boxes[unlabelled] = [torch.zeros(0, 5)] * len(boxes[unlabelled])
        windows, taught = (
            torch.tensor([[0, 0, SIDE, SIDE]] * PHOTOS),
            20 * torch.rand(shapes["logits"], generator=random),
        )
        self.targets = Targets(tags, said, windows, self.pixels, boxes=tuple(boxes), taught=taught, views=1)
        self.images = 0.5 + 0.02 * torch.rand(PHOTOS, 3, SIDE, SIDE, generator=random)  # neighbours are alike
        self.teacher = torch.rand(grid, generator=random)

    def judge(self, objective: Objective) -> dict[str, Tensor]:
        parts = self.leaves
        own = {"maps": parts["maps"], "affinity": parts["affinity"], "student": parts["student"]}
        cells = parts["cells"]
        own |= {
            "teacher": self.teacher,
            "reliable": torch.ones(PHOTOS, SIDE, SIDE, dtype=torch.bool),
            "attention_loss": attend(cells, cells, cells, self.pixels.flatten(1))[1],
        }
        seen = Prediction(parts["logits"], [parts["maps"]], (parts["others"],), own)
        return objective(seen, self.targets, self.images, Progress(50, 100))

    def gradients(self, objective: Objective) -> dict[str, Tensor]:
        loss = torch.stack(list(self.judge(objective).values())).sum()
        found = torch.autograd.grad(loss, list(self.leaves.values()), allow_unused=True)
        return {name: value for name, value in zip(self.leaves, found, strict=True) if value is not None}


def made(name: str) -> Objective:
    kind = resolve("objective", name, OBJECTIVES)
    return of(Objective, kind(weight=2.0, **({"cell": 1} if "cell" in kind.model_fields else {})))


objective_names = pytest.mark.parametrize("name", OBJECTIVES)
of_hints = pytest.mark.parametrize("name", [name for name in OBJECTIVES if made(name).needs])
OF_PIXELS = [name for name in OBJECTIVES if isinstance(made(name), PixelObjective)]
OF_PIXELS += ["window_affinity", "c2s", "s2c", "object_consistency", "background_consistency"]


@objective_names
def test_an_objective_says_what_it_needs_and_gives_finite_losses_and_gradients(name: str) -> None:
    objective, scene = made(name), Scene()
    assert (objective.name, objective.needs <= set(Supervision)) == (name, True)
    losses = scene.judge(objective)
    assert all(loss.shape == () and loss.isfinite() and loss > 0 for loss in losses.values())
    gradients = scene.gradients(objective)
    assert any(value.any() for value in gradients.values())
    assert all(value.isfinite().all() for value in gradients.values())
    half = scene.judge(objective.model_copy(update={"weight": 1.0}))
    for key, loss in losses.items():
        torch.testing.assert_close(loss, 2 * half[key])


@of_hints
def test_photos_that_lack_what_an_objective_needs_contribute_nothing(name: str) -> None:
    objective, scene = made(name), Scene()
    assert all(not value[-1].any() for value in scene.gradients(objective).values())
    before = scene.judge(objective)
    with torch.no_grad():
        for value in scene.leaves.values():
            value[-1] += 3 * torch.rand(value[-1].shape)
    after = scene.judge(objective)
    assert all(torch.equal(before[key], after[key]) for key in before)


@of_hints
def test_where_no_photo_has_what_an_objective_needs_its_loss_is_0(name: str) -> None:
    scene = Scene(unlabelled=slice(None))
    assert all(loss == 0 for loss in scene.judge(made(name)).values())
    assert all(not value.any() for value in scene.gradients(made(name)).values())


@pytest.mark.parametrize("name", OF_PIXELS)  # others are there for what was not said
def test_pixels_that_were_not_said_never_contribute(name: str) -> None:
    scene = Scene()
    unknown = (scene.pixels == 255).flatten(1)
    for part, value in scene.gradients(made(name)).items():
        cells = value if part == "affinity" else value.flatten(2)
        assert not cells.transpose(1, 2)[unknown].any()


@of_hints
def test_targets_that_cannot_hold_what_an_objective_needs_are_refused(name: str) -> None:
    scene = Scene()
    scene.targets = replace(scene.targets, pixels=None, boxes=None)
    (kind,) = made(name).needs
    if kind is Supervision.TAGS:  # which all targets can hold
        assert scene.judge(made(name))
        return
    with pytest.raises(ConfigError, match=rf"'{name}' learns from {kind}, but the batch has none"):
        scene.judge(made(name))


@pytest.mark.parametrize("name", ["s2c", "window_affinity", "guided_attention", "object_consistency"])
def test_objectives_of_another_method_are_refused(name: str) -> None:
    config = DeepLabV2Config.model_validate(
        {"backbone": cases.CASES["deeplabv2"].settings["backbone"], "objectives": ({"name": name},)}
    )
    with pytest.raises(ConfigError, match=rf"objective '{name}' judges '\w+', which this segmenter does not give"):
        DeepLabV2(config, CLASSES, True).losses(cases.make_batch(cases.CASES["deeplabv2"]), Progress(0, 1))


# --- objectives in recipes ------------------------------------------------------------------------------------------


def full(*words: str) -> RunConfig:
    return load_config("full", words, data={"path": "photos"})


def test_recipes_list_objectives() -> None:
    assert of(SegmenterConfig, full().segment).objectives == (CrossEntropy(),)
    config = full("segment.objectives=[{name: cross_entropy}, {name: soft_margin, weight: 0.5}]")
    assert of(SegmenterConfig, config.segment).objectives == (CrossEntropy(), SoftMargin(weight=0.5))
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ("[{name: cros_entropy}]", r"unknown objective 'cros_entropy'; did you mean 'cross_entropy'\?"),
        ("[{name: cross_entropy, wieght: 2}]", r"unknown setting 'wieght' of cross_entropy; did you mean 'weight'\?"),
        ("[{name: cross_entropy, weight: -1}]", r"'weight' of cross_entropy = -1: input should be greater"),
        ("[{name: c2s, form: dice}]", r"'form' of c2s = 'dice': input should be 'soft_margin' or 'cross_entropy'"),
        ("[{name: cross_entropy}, {name: cross_entropy}]", "cross_entropy listed twice"),
        ("[cross_entropy]", r"an objective is a block with a name, such as \{name: cross_entropy\}"),
        ("[]", "segment.objectives"),
    ],
)
def test_mistakes_in_objectives_are_said(listed: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        full(f"segment.objectives={listed}")


def test_losses_of_all_listed_objectives_are_summed_and_none_hides_another() -> None:
    class Again(CrossEntropy):
        name: str = "again"  # type: ignore[assignment]

    batch, backbone = cases.make_batch(cases.CASES["lgsa"]), cases.CASES["lgsa"].settings["backbone"]
    kind = resolve("method", "lgsa", METHODS)
    method = kind(kind.Config(backbone=backbone, objectives=(CrossEntropy(), SoftMargin())), CLASSES, True)
    assert list(method.losses(batch, Progress(0, 1))) == ["segmentation", "soft_margin", "att"]
    method = kind(kind.Config(backbone=backbone, objectives=(CrossEntropy(), Again())), CLASSES, True)
    with pytest.raises(ConfigError, match="'again' gives a loss named segmentation, and so does another"):
        method.losses(batch, Progress(0, 1))


# --- a new objective in one new file --------------------------------------------------------------------------------

STROKES = '''
"""Partial cross entropy: only what strokes touch is learned."""

from typing import Literal

from hintseg.config.objective import Objective
from hintseg.nn.resize import grow
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.types import Supervision


class Strokes(Objective):
    name: Literal["strokes"] = "strokes"
    smooth: float = 0.0
    needs = frozenset({Supervision.SCRIBBLES})

    def __call__(self, seen, targets, images, progress):
        pixels = self.pixels(targets)
        logits = grow(seen.logits, pixels.shape[-2:])
        smooth = logits.diff(dim=2).abs().mean() + logits.diff(dim=3).abs().mean()
        return {"strokes": self.weight * (pixel_cross_entropy(logits, pixels) + self.smooth * smooth)}
'''


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install` of a package with one module and one entry point leaves behind."""
    site = tmp_path / "site"
    info = site / "strokes-1.dist-info"
    info.mkdir(parents=True)
    (site / "strokes_of_a_stranger.py").write_text(STROKES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strokes\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[hintseg.objectives]\nstrokes = strokes_of_a_stranger:Strokes\n")
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("plug_in")
def test_a_loss_of_strokes_is_one_new_file() -> None:
    assert set(objectives()) == {*OBJECTIVES, "strokes"}
    config = full("segment.objectives=[{name: strokes, smooth: 0.01}]").segment
    assert isinstance(config, SegmenterConfig)
    for case in ("deeplabv2", "segformer_head", "lgsa"):  # any segmenter learns from it
        kind: type[Segmenter] = resolve("method", case, METHODS)
        torch.manual_seed(0)
        own = cases.CASES[case].settings | {"objectives": config.objectives}
        method = kind(kind.Config.model_validate(own), CLASSES, True)
        batch = cases.make_batch(cases.CASES[case])
        strokes = torch.full_like(given(batch.targets.pixels), 255)
        strokes[:3, ::16] = given(batch.targets.pixels)[:3, ::16]  # a line here and there, none on the last photo
        batch = replace(batch, targets=replace(batch.targets, pixels=strokes))
        method.eval().prepare([batch])
        optimizer = torch.optim.AdamW(method.train().parameters(), lr=2e-3)
        history = []
        for _ in range(12):
            losses = method.losses(batch, Progress(0, 1))
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            history.append(losses["strokes"].item())
        assert history[-1] < 0.9 * history[0]


@pytest.mark.usefixtures("plug_in")
def test_the_command_line_knows_a_strangers_objective_and_its_weights_do_not_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = CliRunner().invoke(app, ["list", "objectives"])
    assert shown.exit_code == 0
    assert "strokes" in shown.output
    assert "cross_entropy" in shown.output
    write_shapes(tmp_path / "shapes", train=8, val=4, seed=0, size=48)
    words = [*settings("full"), "segment.fit.epochs=1", "segment.objectives=[{name: strokes}, {name: soft_margin}]"]
    run = hintseg.train(tmp_path / "shapes", tmp_path / "run", recipe="full", format="voc", settings=words)
    with (run.path / "segment" / "log.csv").open(newline="") as file:
        assert {"strokes", "soft_margin"} <= set(next(csv.reader(file)))
    monkeypatch.undo()  # the package is gone
    with pytest.raises(ConfigError, match="unknown objective 'strokes'"):
        full("segment.objectives=[{name: strokes}]")
    method, classes, _ = load_weights(run.path / "segment" / "model.safetensors")
    assert method.segment(torch.rand(1, 3, 48, 48)).shape[1] == len(classes) + 1


def test_partial_cross_entropy_on_strokes_is_the_mean_over_what_strokes_touch() -> None:
    logits = torch.rand(1, 3, 4, 4)
    strokes = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    strokes[0, 1, 2], strokes[0, 3, 0] = 2, 0
    expected = -(logits[0, :, 1, 2].log_softmax(0)[2] + logits[0, :, 3, 0].log_softmax(0)[0]) / 2
    torch.testing.assert_close(pixel_cross_entropy(logits, strokes), expected)
