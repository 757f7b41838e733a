"""A teacher that is an average of the segmenter: what it is sure of teaches unsaid pixels, and photos without hints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import hintseg
from golden import cases
from hintseg.config.loader import load_config
from hintseg.config.settings import FitConfig, TrainerConfig
from hintseg.data.dataset import PhotoDataset, train_loader
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import ConfigError, LabelError
from hintseg.losses.consistency import Consistency
from hintseg.losses.teacher import Teacher
from hintseg.methods import taught
from hintseg.methods.segmenter import Segmenter
from hintseg.methods.taught import MOMENTUM, Taught, cut_mix, dropped, strong_view, with_teacher, with_views
from hintseg.registry import METHODS, resolve
from hintseg.run.folder import RunFolder
from hintseg.training.fit import fit
from hintseg.types import Batch, Features, Photo, Prediction, Progress, Targets
from made import given, of, rand
from small_runs import QUICK, write_squares

HALF = Progress(50, 100)


def scene(views: int = 0) -> tuple[Prediction, Targets, Tensor]:
    """Four photos of 12 x 16 pixels, 3 classes; of the last nothing is said, and the third is half padding."""
    pixels = torch.full((4, 12, 16), 255, dtype=torch.uint8)
    pixels[0, 3, 4:9], pixels[1, 8, 8], pixels[2, 1, 1] = 1, 2, 0
    windows = torch.tensor([[0, 0, 16, 12]] * 4)
    windows[2, 2] = 8
    tags = torch.zeros(4, 2)
    said = 12 * rand(4, 3, 12, 16, seed=3)
    targets = Targets(tags, tags > 0, windows, pixels, taught=said, views=views)
    return Prediction(rand(4, 3, 12, 16).requires_grad_()), targets, rand(4, 3, 12, 16, seed=1)


def plain(seen: Prediction, targets: Targets, rows: list[int], threshold: float) -> float:
    """The loss, pixel by pixel."""
    logits, said, pixels = given(seen.logits).detach(), given(targets.taught), given(targets.pixels)
    costs = []
    for row in rows:
        x0, y0, x1, y1 = targets.windows[row].tolist()
        for y in range(y0, y1):
            for x in range(x0, x1):
                if pixels[row, y, x] != 255:
                    continue
                q, p = said[row, :, y, x].softmax(dim=0), logits[row, :, y, x].softmax(dim=0)
                best = int(q.argmax())
                costs.append(-math.log(p[best]) if q[best] > threshold else 0.0)
    assert sum(cost > 0 for cost in costs) > 20
    assert sum(cost == 0 for cost in costs) > 20
    return sum(costs) / len(costs)


def test_the_teacher_speaks_where_it_is_sure_and_nobody_else_spoke() -> None:
    seen, targets, images = scene()
    found = Teacher(cell=1, threshold=0.9)(seen, targets, images, HALF)["teacher"]
    assert found.item() == pytest.approx(plain(seen, targets, [0, 1, 2], 0.9), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, [given(seen.logits)])
    assert gradient.any()
    assert not gradient.movedim(1, -1)[given(targets.pixels) != 255].any(), "a hint is never overruled"
    assert not gradient[3].any(), "nothing is said of it"
    assert not gradient[2, :, :, 8:].any(), "padding"


def test_consistency_judges_views_alone() -> None:
    seen, targets, images = scene(views=1)
    found = Consistency(cell=1, threshold=0.9, weight=2)(seen, targets, images, HALF)["consistency"]
    assert found.item() == pytest.approx(2 * plain(seen, targets, [3], 0.9), rel=1e-5)
    none = Consistency(cell=1)(*scene(views=0), HALF)["consistency"]
    assert none == 0


def test_the_weight_rises_from_nothing() -> None:
    kinds = [Teacher(cell=1, ramp=0.5), Teacher(cell=1, ramp=0)]
    (early, half, late), always = (
        [kind(*scene(), Progress(step, 100))["teacher"].item() for step in (0, 25, 60)] for kind in kinds
    )
    assert early == 0
    assert half == pytest.approx(late / 2)
    assert always == pytest.approx([late] * 3)


def test_without_a_teacher_it_says_so() -> None:
    seen, targets, images = scene()
    with pytest.raises(ConfigError, match="objective 'teacher' learns from a teacher, and this batch has none"):
        Teacher()(seen, replace(targets, taught=None), images, HALF)


# --- the average ----------------------------------------------------------------------------------------------------


def built(*names: str, method: str = "deeplabv2", freeze: str = "none") -> Segmenter:
    torch.manual_seed(0)
    kind: type[Segmenter] = resolve("method", method, METHODS)
    backbone = {**of(dict, cases.CASES["deeplabv2"].settings["backbone"]), "freeze": freeze}
    listed = tuple(
        {"name": name, **({"ramp": 0.0, "threshold": 0.5} if name != "cross_entropy" else {})} for name in names
    )
    return kind(kind.Config.model_validate({"backbone": backbone, "objectives": listed}), cases.CLASSES, True)


def half_labelled() -> Batch:
    batch = cases.make_batch(cases.CASES["deeplabv2"])
    pixels = given(batch.targets.pixels).clone()
    pixels[2:], pixels[:2, ::2] = 255, 255
    return replace(batch, targets=replace(batch.targets, pixels=pixels))


def test_the_teacher_is_the_average_of_the_weights_of_the_steps() -> None:
    method = of(Taught, with_teacher(built("cross_entropy", "teacher")))
    batch, weights, expected = half_labelled(), [], torch.zeros(())
    own, theirs = (next(of(nn.Module, net.head).parameters()) for net in (method.segmenter, method.teacher))
    for step in range(150):
        with torch.no_grad():
            own.fill_(math.sin(step))
        if step in (0, 1, 2, 149):
            method.losses(batch, Progress(step, 150))
            method.losses(batch, Progress(step, 150))  # the second part of a step counts once
        else:
            method._follow(step)
        weights.append(math.sin(step))
        share = max(1 / (step + 1), 1 - MOMENTUM)
        expected = (1 - share) * expected + share * own.detach()
        torch.testing.assert_close(theirs, expected)
        if step < 99:
            torch.testing.assert_close(theirs, torch.full_like(theirs, sum(weights) / len(weights)))
    assert not theirs.requires_grad


def test_what_is_frozen_is_in_memory_once_and_what_learns_twice() -> None:
    method = of(Taught, with_teacher(built("cross_entropy", "teacher", freeze="all")))
    pairs = list(zip(method.segmenter.parameters(), method.teacher.parameters(), strict=True))
    assert all((one is other) is not one.requires_grad for one, other in pairs)
    assert {one is other for one, other in pairs} == {True, False}
    assert with_teacher(built("cross_entropy")).__class__ is not Taught


def test_classes_known_to_be_absent_are_never_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    method = of(Taught, with_teacher(built("cross_entropy", "teacher")))
    batch = half_labelled()
    told: list[Batch] = []
    known = torch.zeros_like(batch.targets.tags_known)
    known[0, 0] = known[1, 1] = True  # the first class is not in photo 0, the second is in photo 1
    tags = torch.zeros_like(batch.targets.tags)
    tags[1, 1] = 1
    batch = replace(batch, targets=replace(batch.targets, tags=tags, tags_known=known))

    def losses(_method: Segmenter, seen: Batch, _progress: Progress) -> dict[str, Tensor]:
        told.append(seen)
        return {}

    monkeypatch.setattr(Segmenter, "losses", losses)
    method.losses(batch, HALF)
    probabilities = given(told[0].targets.taught).softmax(dim=1)
    assert not probabilities[0, 1].any()
    assert probabilities[0, [0, 2]].all()
    assert probabilities[1:].all(), "what is there, and what was not said, may be taught"


@pytest.mark.parametrize("method", ["deeplabv2", "segformer_head", "lgsa"])
def test_every_segmenter_learns_from_views_of_photos_without_hints(method: str) -> None:
    segmenter = built("cross_entropy", "consistency", method=method)
    whole = with_teacher(segmenter).train()
    losses = whole.losses(half_labelled(), HALF)
    assert losses["consistency"] > 0
    losses["consistency"].backward()
    assert any(p.grad is not None and p.grad.any() for p in segmenter.parameters())
    assert all(p.grad is None for p in of(Taught, whole).teacher.parameters())
    assert not of(nn.Module, segmenter.backbone)._forward_hooks
    batch = half_labelled()
    all_said = replace(batch, targets=replace(batch.targets, pixels=torch.zeros_like(given(batch.targets.pixels))))
    assert whole.losses(all_said, HALF)["consistency"] == 0


# --- views ----------------------------------------------------------------------------------------------------------


def test_what_is_pasted_brings_its_lesson_along() -> None:
    torch.manual_seed(0)
    values = torch.arange(1.0, 9)
    images = values[:, None, None, None].expand(8, 3, 32, 48).clone()
    said = values[:, None, None, None].expand(8, 4, 4, 6).clone()
    windows = torch.tensor([[0, 0, 48, 32]] * 7 + [[8, 0, 40, 24]])
    mixed, words, seen_in = cut_mix(images, said, windows)
    grown = words.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    assert torch.equal(mixed, grown[:, :3])
    changed = (mixed != images).flatten(1).float().mean(dim=1)
    assert 2 <= int((changed > 0).sum()) <= 7
    assert (changed <= 0.6).all()
    for row in range(8):
        partners = set(mixed[row].unique().tolist()) - {row + 1.0}
        both = 8.0 in partners or row == 7
        assert seen_in[row].tolist() == [8, 0, 40, 24] if both else [0, 0, 48, 32]


def test_strong_views_have_other_colours_in_the_same_places() -> None:
    torch.manual_seed(0)
    image = torch.full((3, 40, 40), 0.2)
    image[:, 10:30, 10:30] = torch.tensor([0.8, 0.4, 0.3])[:, None, None]
    views = torch.stack([strong_view(image) for _ in range(40)])
    assert views.shape == (40, 3, 40, 40)
    assert views.amin() >= -1e-5
    assert views.amax() <= 1 + 1e-5
    brighter = views[:, 0, 20, 20] > views[:, 0, 3, 3]
    assert brighter.all()
    assert len({tuple(view[:, 20, 20].tolist()) for view in views}) > 25
    grey = [(view[0] - view[1]).abs().max() < 1e-5 for view in views]
    assert 2 < sum(grey) < 16


def test_features_of_the_last_images_lose_half_of_their_channels() -> None:
    encoder = nn.Identity()
    levels = [torch.ones(3, 200, 4, 4), torch.ones(3, 100, 2, 2)]
    with dropped(encoder, 2):
        found = encoder(levels)
    for before, after in zip(levels, found, strict=True):
        assert torch.equal(after[0], before[0])
        shares = (after[1:] == 0).flatten(2).all(dim=2).float().mean(dim=1)
        assert ((shares > 0.3) & (shares < 0.7)).all()
        assert set(after[1:].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(encoder(levels)[0], levels[0])


def test_kept_features_have_no_colours_so_their_own_channels_are_dropped() -> None:
    features = Features((rand(4, 5, 3, 4),), (48, 64))
    _, targets, _ = scene()
    batch = Batch(list("abcd"), features, replace(targets, trust=rand(4, 12, 16), boxes=(torch.ones(1, 5),) * 4))  # type: ignore[arg-type]
    more = with_views(batch, torch.tensor([1, 3]))
    images = of(Features, more.images)
    assert (len(images.levels[0]), images.size, more.ids) == (6, (48, 64), [*"abcdbd"])
    assert torch.equal(images.levels[0][4:], features.levels[0][[1, 3]])
    known = more.targets
    assert known.views == 2
    assert torch.equal(given(known.taught)[4:], given(targets.taught)[[1, 3]])
    assert [len(boxes) for boxes in given(known.boxes)] == [1, 1, 1, 1, 0, 0]
    assert not known.tags_known[4:].any()
    assert (given(known.pixels)[4:] == 255).all()
    assert torch.equal(known.windows[4:], targets.windows[[1, 3]])


def test_a_training_with_a_teacher_that_went_on_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [Photo(str(i), tmp_path / f"{i}.png") for i in range(8)]
    for i, photo in enumerate(photos):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (48, 48, 3), np.uint8)).save(photo.path)
    half = np.zeros((48, 48), np.uint8)
    half[:, 24:] = 1
    words: dict[str, Any] = {"optimizer": "adamw", "lr": 0.01, "head_lr": 1.0, "weight_decay": 0.0, "warmup": 0.0}
    settings = FitConfig(epochs=2, batch_size=4, crop=48, scale=(1.0, 1.0), **words)
    trainer = TrainerConfig(accelerator="cpu", workers=0, precision="32-true")

    def train(folder: Path) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        data = PhotoDataset(photos, 3, TrainingTransform(48, (1.0, 1.0)), lambda one: half if one.id < "4" else None)
        method = built("cross_entropy", "teacher", "consistency")
        fit(with_teacher(method), train_loader(data, batch_size=4), settings, trainer, folder, resume=True)
        return method.state_dict()

    whole, losses = train(tmp_path / "whole"), Taught.losses

    def stops(method: Taught, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        if progress.step == 3:
            raise KeyboardInterrupt
        return losses(method, batch, progress)

    monkeypatch.setattr(Taught, "losses", stops)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped")
    monkeypatch.setattr(Taught, "losses", losses)
    again = train(tmp_path / "stopped")
    assert list(again) == list(whole)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


# --- whole runs -----------------------------------------------------------------------------------------------------


SEGMENT = [word for word in QUICK if not word.startswith(("localize", "refine", "maps"))] + ["trainer.pictures=0"]


def masks_of_a_few(folder: Path) -> list[str]:
    data = write_squares(folder)
    (data / "few.txt").write_text("photo 0\nphoto 3\n")
    return [*SEGMENT, f"data.learn_masks={data / 'few.txt'}"]


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_photos_without_any_hint_are_learned_from_where_an_objective_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze: str
) -> None:
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))
    seen: list[int] = []

    def counted(batch: Batch, rows: Tensor) -> Batch:
        seen.append(len(rows))
        return with_views(batch, rows)

    monkeypatch.setattr(taught, "with_views", counted)
    words = [*masks_of_a_few(tmp_path / "data"), f"backbone.freeze={freeze}"]
    listed = "segment.objectives=[{name: cross_entropy}, {name: consistency, ramp: 0, threshold: 0.5}]"
    labels = tmp_path / "data/SegmentationClass"
    for photo in ("photo 1", "photo 2"):  # of these there is no mask at all
        (labels / f"{photo}.png").unlink()
    hintseg.train(tmp_path / "data", tmp_path / "run", recipe="full", labels=labels, settings=[*words, listed])
    plan = RunFolder.open(tmp_path / "run").data.plan
    assert any("2 photos teach by masks" in line for line in plan)
    assert any("4 photos teach by what the segmenter is sure of" in line for line in plan)
    assert sum(seen) > 0
    log = (tmp_path / "run/segment/log.csv").read_text().splitlines()
    column = log[0].split(",").index("consistency")
    assert any(float(line.split(",")[column]) > 0 for line in log[1:])


def test_photos_without_hints_alone_teach_nothing(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data")
    for path in (data / "SegmentationClass").glob("*.png"):
        path.unlink()
    (data / "tags.csv").write_text("photo 8,red\n")
    words = [*SEGMENT, "segment.objectives=[{name: cross_entropy}, {name: consistency}]", "propose=null"]
    with pytest.raises((ConfigError, LabelError), match="none of the 8 training photos has"):
        hintseg.train(data, tmp_path / "run", recipe="strokes", settings=words)


@pytest.mark.parametrize(
    ("recipe", "listed", "text"),
    [
        ("full", "[{name: consistency}]", "nothing that a person said would be learned; list cross_entropy too"),
        ("full", "[{name: teacher}, {name: consistency}]", "teacher and consistency"),
        ("full", "[{name: cross_entropy}, {name: teacher, threshold: 0.3}]", "'threshold' of teacher = 0.3"),
        ("bmp", "[{name: teacher}]", "teacher is for segmenters that learn from labels of pixels"),
        ("afa", "[{name: cross_entropy}, {name: consistency}]", "the two branches teach each other"),
    ],
)
def test_what_cannot_be_taught_is_said_before_training(recipe: str, listed: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_config(recipe, [f"segment.objectives={listed}"], data={"path": "photos"})
