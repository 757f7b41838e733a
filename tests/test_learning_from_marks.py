"""Strokes and clicks teach a segmenter directly, win over what is made of other hints, and are never thinned out."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hintseg
from hintseg.config.loader import load_config
from hintseg.data.dataset import PhotoDataset, collate
from hintseg.data.shapes import write_shapes
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import ConfigError
from hintseg.hints import read_hints
from hintseg.hints.marks import read_marks
from hintseg.labellers.labeller import Evidence
from hintseg.labellers.marks import Marks
from hintseg.labellers.strokes import Strokes
from hintseg.losses.balanced_cross_entropy import BalancedCrossEntropy
from hintseg.losses.cross_entropy import CrossEntropy
from hintseg.nn.resize import grow
from hintseg.pipeline.plan import combine
from hintseg.run.fingerprint import broken
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.types import Box, Click, Hints, Mark, Photo, Prediction, Progress, Stroke, Tags, Targets
from made import given, of, rand

DIRECT = "propose=null"

TINY = [
    DIRECT,
    *("backbone.name=resnet10t", "backbone.weights=random", "backbone.output_stride=8", "trainer.workers=0"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.pictures=0", "test.scales=[1.0]"),
    *("segment.fit.epochs=2", "segment.fit.batch_size=4", "segment.fit.crop=48", "seed=0"),
]

# --- no mark is thinned out -----------------------------------------------------------------------------------------


def targets_of(pixels: torch.Tensor, trust: torch.Tensor | None = None) -> Targets:
    tags = torch.zeros(len(pixels), 2)
    windows = torch.tensor([[0, 0, pixels.shape[2], pixels.shape[1]]] * len(pixels))
    return Targets(tags, tags > 0, windows, pixels, trust)


@pytest.mark.parametrize("kind", [CrossEntropy, BalancedCrossEntropy])
def test_every_judges_all_pixels_of_thin_strokes(kind: type[CrossEntropy | BalancedCrossEntropy]) -> None:
    pixels = torch.full((3, 32, 48), 255, dtype=torch.uint8)
    pixels[0, 5, 3:40], pixels[0, 9:30, 17], pixels[1, 20, 20] = 1, 2, 0  # none on a row or column that 4 keeps
    for size in ((4, 6), (8, 12), (32, 48)):
        seen = Prediction(rand(3, 3, *size).requires_grad_(), others=(rand(3, 3, 7, 9, seed=1).requires_grad_(),))
        for targets in (targets_of(pixels), targets_of(pixels, rand(3, 32, 48))):
            losses, gradients = [], []
            for every in (1, 4):
                found = kind(every=every)(seen, targets, rand(3, 3, 32, 48), Progress(0, 1))[kind.key]
                losses.append(found)
                gradients.append(torch.autograd.grad(found, [given(seen.logits), *seen.others]))
            torch.testing.assert_close(losses[0], losses[1])
            for one, two in zip(*gradients, strict=True):
                torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-4)


def test_every_still_thins_out_what_is_labelled_densely() -> None:
    pixels = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    pixels[1] = 255
    pixels[1, 7, 7] = 2
    seen = Prediction(rand(2, 3, 32, 32))
    found = CrossEntropy(every=4)(seen, targets_of(pixels), rand(2, 3, 32, 32), Progress(0, 1))["segmentation"]
    kept = torch.full_like(pixels, 255)
    kept[0, 2::4, 2::4] = pixels[0, 2::4, 2::4]
    kept[1] = pixels[1]
    expected = CrossEntropy()(seen, targets_of(kept), rand(2, 3, 32, 32), Progress(0, 1))["segmentation"]
    torch.testing.assert_close(found, expected)


# --- boxes walk with the photo --------------------------------------------------------------------------------------


def test_boxes_are_where_their_pixels_are_on_every_crop(tmp_path: Path) -> None:
    rgb = np.zeros((40, 56, 3), np.uint8)
    rgb[10:30, 8:28] = 255
    Image.fromarray(rgb).save(tmp_path / "a.png")
    marks = (Mark(2, Box(8, 10, 28, 30), object=1), Mark(255, Box(0, 0, 5, 5)))
    photo = Photo("a", tmp_path / "a.png", Hints(Tags.complete({2}, 3), marks=marks))
    sizes = set()
    for seed in range(12):
        transform = TrainingTransform(32, (0.5, 1.5))
        batch = collate([PhotoDataset([photo], 3, transform, boxes=True, seed=seed)[0]])
        (boxes,) = given(batch.targets.boxes)
        bright = batch.images[0, 0] > 0.9
        sizes.add(len(boxes))
        for label, *corners in boxes.tolist():
            rows, columns = (np.flatnonzero(bright.any(dim=axis).numpy()) for axis in (1, 0))
            assert label == 2
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else corners
            assert np.abs(np.array(found) - corners).max() <= 2
    assert 1 in sizes
    assert collate([PhotoDataset([photo], 3, transform)[0]]).targets.boxes is None


# --- marks win ------------------------------------------------------------------------------------------------------


def test_marks_win_over_what_is_made_of_anything() -> None:
    made = Evidence(np.array([[1, 1, 0, 0, 255, 0]], np.uint8), np.full((1, 6), 0.5, np.float32))
    marks = (Mark(2, Stroke((1.2, 0.5, 2.8, 0.5))), Mark(255, Box(5, 0, 6, 1)))
    both = given(combine({1}, made, None, read_marks(Hints(marks=marks), (1, 6))))
    assert both.pixels.tolist() == [[1, 2, 2, 0, 255, 255]]
    assert given(both.trust)[0, :5].tolist() == [0.5, 1, 1, 0.5, 0.5]
    alone = given(combine({2}, None, None, read_marks(Hints(marks=marks), (1, 6))))
    assert alone.pixels.tolist() == [[255, 2, 2, 255, 255, 255]]
    assert alone.trust is None


# --- from simulated marks to a model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes, and clicks and strokes drawn from their masks; without other labels."""
    folder = tmp_path_factory.mktemp("marks")
    write_shapes(folder / "shapes", train=12, val=4, seed=0, size=64)
    for kind in ("points", "scribbles"):
        hintseg.simulate(folder / "shapes", folder / kind, hints=kind, width=1, format="voc")
    return folder


def labels_of(data: Path, kind: str) -> dict[str, object]:
    if kind == "strokes":
        return {"labels": data / "scribbles" / "scribbles", "unlabelled": 255}
    return {"labels": data / "points" / "points.csv"}


@pytest.mark.parametrize("kind", ["strokes", "points"])
def test_marks_alone_teach_a_model(kind: str, data: Path, tmp_path: Path) -> None:
    own = labels_of(data, kind)
    words = [*TINY, "localize=null", "refine=null"]
    run = hintseg.train(data / "shapes", tmp_path / "run", recipe=kind, settings=words, **own)  # type: ignore[arg-type]
    folder = RunFolder.open(run.path)
    assert folder.data.plan[0] == "12 photos teach by points or scribbles (segformer_head)"
    assert folder.manifest.learns_from == "points or scribbles"
    assert "points or scribbles" in (run.path / "report.html").read_text()
    hints = read_hints(data / "shapes", own["labels"], unlabelled=own.get("unlabelled"))  # type: ignore[arg-type]
    train = {photo.id: photo for photo in hints.photos if photo.id in hints.splits["train"]}
    labels = {path.stem: read_label_png(path) for path in (run.path / "labels").glob("*.png")}
    assert set(labels) == set(train)
    for name, label in labels.items():
        np.testing.assert_array_equal(label, given(read_marks(train[name].hints, (64, 64))).pixels)
        assert 0.5 < (label == 255).mean() < 1
    assert [row["kind"] for row in run.metrics] == ["segmentation"]


@pytest.mark.parametrize("kind", ["strokes", "points"])
def test_the_recipes_spread_marks_first(kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))
    words = [*(word for word in TINY if word != DIRECT), "backbone.output_stride=8", "segment.fit.epochs=1"]
    own = labels_of(data, kind)
    run = hintseg.train(data / "shapes", tmp_path / "run", recipe=kind, settings=words, **own)  # type: ignore[arg-type]
    folder = RunFolder.open(run.path)
    assert folder.data.plan[0] == "12 photos teach by points or scribbles (strokes, segformer_head)"
    labels = [read_label_png(path) for path in (run.path / "labels").glob("*.png")]
    assert len(labels) == 12
    assert np.mean([(label != 255).mean() for label in labels]) > 0.9
    assert len(list((run.path / "trust").glob("*.png"))) == 12


def test_kept_features_learn_from_marks(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))

    def never(*_: object) -> None:
        raise AssertionError("a photo was decoded to train on it")

    monkeypatch.setattr(PhotoDataset, "read", never)
    words = [*TINY, "backbone.freeze=all", "segment.objectives=[{name: cross_entropy, every: 4}]"]
    run = hintseg.train(
        data / "shapes", tmp_path / "run", recipe="strokes", labels=data / "points" / "points.csv", settings=words
    )
    with (run.path / "segment" / "log.csv").open(newline="") as file:
        losses = [float(row["segmentation"]) for row in csv.DictReader(file)]
    assert min(losses) > 0, "clicks of one pixel are judged, whatever `every` says"


def write_labels(data: Path, folder: Path, points: list[list[str]], tags: list[list[str]]) -> list[Path]:
    """Write a table of points and one of tags, and return them."""
    for name, rows in {"points.csv": points, "tags.csv": tags}.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    shutil.copy(data / "points" / "classes.txt", folder / "classes.txt")
    return [folder / "points.csv", folder / "tags.csv"]


def test_photos_without_marks_are_left_out_and_said(data: Path, tmp_path: Path) -> None:
    with (data / "points" / "points.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    kept = [row for row in rows if row[0] not in ("train_0000.png", "train_0001.png", "train_0002.png")]
    with (data / "shapes" / "tags.csv").open(newline="") as file:
        tags = [row for row in csv.reader(file) if row[0] in ("train_0000.png", "train_0001.png")]
    said = write_labels(data, tmp_path, [header, *kept], [*tags, ["train_0002.png"]])
    words = [*TINY, "segment.fit.epochs=1"]
    run = hintseg.train(data / "shapes", tmp_path / "run", recipe="strokes", labels=said, settings=words)
    plan = RunFolder.open(run.path).data.plan
    assert plan[0] == "10 photos teach by points or scribbles (segformer_head)", "one of them shows nothing"
    assert plan[1].startswith("2 photos left out: recipe 'strokes' learns nothing from tags")
    assert not read_label_png(run.path / "labels" / "train_0002.png").any()


def test_a_class_that_nothing_teaches_is_said(data: Path, tmp_path: Path) -> None:
    with (data / "points" / "points.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (data / "shapes" / "tags.csv").open(newline="") as file:
        tags = list(csv.reader(file))
    gone = next(row[3] for row in rows if row[3] != "background")
    said = write_labels(data, tmp_path, [header, *(r for r in rows if r[3] != gone)], tags)
    words = [*TINY, "segment.fit.epochs=1"]
    run = hintseg.train(data / "shapes", tmp_path / "run", recipe="strokes", labels=said, settings=words)
    sentences = [line for line in RunFolder.open(run.path).data.plan if line.startswith("nothing teaches")]
    assert sentences == [
        f"nothing teaches '{gone}': photos show it, but none of those that teach says where; mark it in some, or "
        "choose a recipe that learns from tags"
    ]


def test_a_recipe_of_marks_without_any_says_what_it_needs(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the 12 training photos has points or scribbles; true masks teach"):
        hintseg.train(data / "shapes", tmp_path / "run", recipe="strokes", format="voc", settings=TINY)


def test_the_radius_of_clicks_makes_the_labels_again() -> None:
    one, two = (load_config("points", [f"data.click_px={px}"], data={"path": "photos"}) for px in (2.0, 4.0))
    assert [part.key for part in broken(one, two)] == [("propose", "learn"), ("segment", "learn")]
    config = load_config("points", ["data.click_px=30", "propose.method=marks"], data={"path": "photos"})
    photo, clicked = np.full((100, 100, 3), 99, np.uint8), Hints(marks=(Mark(1, Click(50, 50)), Mark(0, Click(2, 2))))
    for labeller in (of(Marks, config.propose), Strokes()):
        sure = [one.label(photo, clicked).trust for one in (labeller.told(config.data), labeller)]
        discs = [(given(trust)[30:70, 30:70] == 1).sum() for trust in sure]
        assert discs[0] > 4 * discs[1] > 0
    assert Strokes(click_px=1).told(config.data).click_px == 1


def test_unlabelled_images_contribute_nothing_to_the_mean() -> None:
    pixels = torch.full((2, 8, 8), 255, dtype=torch.uint8)
    pixels[0, 2, 2:5] = 1
    logits = rand(2, 3, 8, 8).requires_grad_()
    loss = CrossEntropy()(Prediction(logits), targets_of(pixels), rand(2, 3, 8, 8), Progress(0, 1))["segmentation"]
    expected = -grow(logits, (8, 8))[0, :, 2, 2:5].log_softmax(dim=0)[1].mean()
    torch.testing.assert_close(loss, expected)
    assert not torch.autograd.grad(loss, logits)[0][1].any()


def test_boxes_teach_directly_where_objectives_learn_from_them(data: Path, tmp_path: Path) -> None:
    words = [*TINY, "segment.objectives=[{name: projection}, {name: pairwise}, {name: image_level}]"]
    run = hintseg.train(data / "shapes", tmp_path / "run", recipe="strokes", format="voc", settings=words)
    folder = RunFolder.open(run.path)
    assert folder.data.plan == ("12 photos teach by boxes (segformer_head)",)
    assert folder.manifest.learns_from == "boxes"
    assert next(row["protocol"] for row in run.metrics).startswith("trained on boxes and tags alone")
    with (run.path / "segment" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("projection", "pairwise", "image_level"):
        assert all(float(row[name]) >= 0 for row in rows)
        assert float(rows[-1][name]) > 0


@pytest.mark.parametrize("name", ["dense_crf_loss", "gated_crf", "tree_energy"])
def test_a_regulariser_is_one_line_of_a_recipe(name: str, data: Path, tmp_path: Path) -> None:
    words = [*TINY, "segment.fit.epochs=1", f"segment.objectives=[{{name: cross_entropy}}, {{name: {name}}}]"]
    labels = data / "points" / "points.csv"
    run = hintseg.train(data / "shapes", tmp_path / "run", recipe="strokes", labels=labels, settings=words)
    with (run.path / "segment" / "log.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["dense_crf" if name == "dense_crf_loss" else name]) > 0
