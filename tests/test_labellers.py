"""What every labeller in the registry keeps, how its evidence is used, and a new labeller in one file."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import hintseg
from golden import cases
from hintseg.cli.app import app
from hintseg.config.loader import dump_config, load_config, parse_config
from hintseg.config.settings import BackboneConfig, MapsConfig, MethodConfig
from hintseg.data.dataset import PhotoDataset, collate
from hintseg.data.shapes import write_shapes
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import ConfigError, LabelError
from hintseg.labellers.cam import CamLabeller
from hintseg.labellers.cfs import CfsLabeller
from hintseg.labellers.filled import Filled
from hintseg.labellers.grabcut import GrabCut
from hintseg.labellers.labeller import Labeller, labeller_class
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.methods.cam import Cam, CamConfig
from hintseg.methods.mctformer import MctConfig, MctFormer
from hintseg.methods.method import Method
from hintseg.methods.segmenter import Segmenter
from hintseg.nn.vit import VitConfig
from hintseg.pipeline.evidence import EvidenceStore
from hintseg.registry import LABELLERS, labellers
from hintseg.run.fingerprint import broken
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png, write_mask
from hintseg.training.watch import Watch
from hintseg.types import Batch, Box, Click, Hints, Mark, Photo, Progress, Stroke, Supervision, Tags
from made import THINGS, given, of, two_things

SIZE = (40, 56)


def build(name: str) -> Labeller | CfsLabeller | CamLabeller:
    """A labeller, ready to be asked; networks are tiny and untrained."""
    if name == "cfs":
        network = cases.build(cases.CASES["cfs"]).eval()
        return of(CfsLabeller, labeller_class(name)(network, network.config, cases.CLASSES, gpu=False))
    if name == "cam":
        network = cases.build(cases.CASES["cam"]).eval()
        return CamLabeller(network, MapsConfig(scales=(1.0,)), cases.CLASSES, threshold=0.3)
    return of(Labeller, labeller_class(name)())


HINTS = {
    Supervision.BOXES: Hints(Tags.complete({1, 2}, 3), marks=THINGS),
    Supervision.TAGS: Hints(Tags.complete({1, 2}, 3)),
    Supervision.SCRIBBLES: Hints(marks=(Mark(1, Stroke((8, 10, 16, 26))), Mark(0, Stroke((2, 38, 50, 38))))),
    Supervision.POINTS: Hints(marks=(Mark(1, Click(12, 18)), Mark(2, Click(33, 24)))),
}
names = pytest.mark.parametrize("name", LABELLERS)


# --- what every labeller keeps --------------------------------------------------------------------------------------


@names
def test_evidence_is_of_the_photo_and_in_range(name: str) -> None:
    labeller, rgb = build(name), two_things()
    assert labeller.needs
    for kind in labeller.needs:
        evidence = labeller.label(rgb, HINTS[kind])
        assert evidence.pixels.shape == SIZE
        assert evidence.pixels.dtype == np.uint8
        assert set(np.unique(evidence.pixels)) <= {0, 1, 2, 255}
        assert {1, 2} & set(np.unique(evidence.pixels)), "something is said"
        assert evidence.trust is None or (evidence.trust.shape == SIZE and evidence.trust.min() >= 0)
        assert evidence.objects is None or evidence.objects.labels.tolist() == [1, 2]
    np.testing.assert_array_equal(rgb, two_things(), err_msg="the photo was changed")


@names
def test_equal_photos_and_hints_give_equal_evidence(name: str) -> None:
    labeller = build(name)
    hints = HINTS[next(iter(labeller.needs))]
    one, two = labeller.label(two_things(), hints), build(name).label(two_things(), hints)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert (one.trust is None) == (two.trust is None)
    if one.trust is not None and two.trust is not None:
        np.testing.assert_array_equal(one.trust, two.trust)


@names
def test_a_photo_without_what_is_needed_is_refused(name: str) -> None:
    labeller = build(name)
    kinds = set(HINTS) - labeller.needs
    for hints in (Hints(), *(HINTS[kind] for kind in kinds if not HINTS[kind].kinds & labeller.needs)):
        by = " or ".join(sorted(labeller.needs))
        with pytest.raises(LabelError, match=rf"labeller '{name}' labels by {by}, and of this photo"):
            labeller.label(two_things(), hints)


@pytest.mark.parametrize("name", [name for name in LABELLERS if name != "cam"])
def test_settings_come_back(name: str) -> None:
    config = load_config("boxes", [f"propose.method={name}"], data={"path": "photos"})
    assert config.propose is not None
    assert config.propose.method == name
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["propose.method=grabcut", "propose.itertions=2"],
            r"'propose.itertions'; did you mean 'propose.iterations'\?",
        ),
        (["propose.method=grabcut", "propose.iterations=0"], r"'propose.iterations' = 0: input should be greater"),
        (["propose.method=grabcat"], r"unknown method 'grabcat'; did you mean 'grabcut'\?"),
        (["propose.method=cam"], "'cam' is a method to localize, not to propose"),
    ],
)
def test_mistakes_in_settings_are_said(words: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_config("boxes", words, data={"path": "photos"})


@pytest.mark.parametrize("kind", [Filled, GrabCut])
def test_trust_of_a_box_is_that_of_its_pixels(kind: type[Filled | GrabCut]) -> None:
    boxes = (Mark(1, Box(4, 6, 24, 30), object=1, trust=0.25), THINGS[1])
    plain, doubted = (kind().label(two_things(), Hints(marks=marks)) for marks in (THINGS, boxes))
    assert plain.trust is None
    assert doubted.trust is not None
    np.testing.assert_array_equal(plain.pixels, doubted.pixels)
    assert (doubted.trust[doubted.pixels == 1] == 0.25).all()
    assert (doubted.trust[doubted.pixels == 2] == 1).all()
    assert (doubted.trust[:6] == 1).all(), "outside of boxes nobody doubts"


def test_a_crowd_is_unknown_and_objects_lie_before_it() -> None:
    crowd = Mark(255, Box(0, 0, 56, 20))
    evidence = Filled().label(two_things(), Hints(marks=(*THINGS, crowd)))
    assert (evidence.pixels[:6] == 255).all()
    assert (evidence.pixels[8:20, 6:18] == 1).all()
    assert not evidence.pixels[36:].any()
    alone = Filled().label(two_things(), Hints(marks=(crowd,)))
    assert (alone.pixels[:20] == 255).all()


@pytest.mark.parametrize(
    ("kind", "config", "shared"),
    [
        (Cam, CamConfig(backbone=BackboneConfig(name="test_resnet", weights="random")), True),
        (MctFormer, MctConfig(backbone=VitConfig(weights="random", depth=1, width=12, heads=3)), False),
    ],
)
def test_without_background_maps_on_one_scale_share_a_maximum_and_attention_does_not(
    kind: Callable[..., Method], config: MethodConfig, shared: bool
) -> None:
    torch.manual_seed(0)
    network = kind(config, 3, False)
    if isinstance(network, MctFormer):
        network.head.weight.data *= 1000  # maps of random weights are about as small as what maxima are guarded by
    labeller = CamLabeller(network.eval(), MapsConfig(scales=(1.0,)), 3, background=False)
    maps = labeller.look(torch.rand(1, 3, 64, 64), torch.tensor([[1.0, 1.0, 0.0]]))
    largest = maps[0].amax(dim=(1, 2))
    assert largest.max() == pytest.approx(1, abs=1e-2)
    assert largest[2] == 0
    assert (float(largest[:2].min()) < 0.98) == shared


# --- trust on its way to the loss -----------------------------------------------------------------------------------


@pytest.fixture
def one_photo(tmp_path: Path) -> Photo:
    path = tmp_path / "a.png"
    Image.fromarray(two_things()).save(path)
    return Photo("a", path, Hints(Tags.complete({1}, 3)))


def test_trust_walks_with_its_labels_into_targets(one_photo: Photo) -> None:
    pixels = np.random.default_rng(0).integers(1, 6, SIZE, dtype=np.uint8)
    table = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0], np.float32)  # the trust of each label, to tell where it went
    for seed in range(5):
        dataset = PhotoDataset(
            [one_photo],
            5,
            TrainingTransform(48, (0.5, 2.0)),
            lambda _: pixels,
            trust=lambda _: table[pixels],
            seed=seed,
        )
        targets = collate([dataset[0]]).targets
        labels, trust = given(targets.pixels), given(targets.trust)
        known = labels.ne(255)
        assert known.any()
        torch.testing.assert_close(trust[known], torch.from_numpy(table)[labels[known].long()], atol=1 / 255, rtol=0)
        assert not trust[~known].any()
    wholly = PhotoDataset([one_photo], 5, TrainingTransform(48, (1.0, 1.0)), lambda _: pixels, trust=lambda _: None)
    assert given(collate([wholly[0]]).targets.trust).eq(1).sum() == 40 * 48
    without = PhotoDataset([one_photo], 5, TrainingTransform(48, (1.0, 1.0)), lambda _: pixels)
    assert collate([without[0]]).targets.trust is None


TINY = [
    *("backbone.name=resnet10t", "backbone.weights=random", "backbone.output_stride=8", "trainer.workers=0"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.pictures=0", "maps.scales=[1.0]"),
    *("test.scales=[1.0]", "segment.method=deeplabv2", "segment.fit.epochs=1", "segment.fit.batch_size=4"),
    "segment.fit.crop=48",
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor | None]:
    """The trust of every batch that a segmenter judges."""
    found: list[torch.Tensor | None] = []
    judge = Segmenter.losses

    def losses(self: Segmenter, batch: Batch, progress: Progress) -> dict[str, torch.Tensor]:
        found.append(batch.targets.trust)
        return judge(self, batch, progress)

    monkeypatch.setattr(Segmenter, "losses", losses)
    return found


def test_the_segmenter_is_told_trust_only_where_it_asks(tmp_path: Path, seen: list[torch.Tensor | None]) -> None:
    write_shapes(tmp_path / "shapes", train=8, val=2, size=48)
    words = [*TINY, "refine.method=par", "localize.fit.epochs=1", "localize.fit.crop=48"]

    def train(*more: str, resume: bool = False) -> RunFolder:
        run = hintseg.train(
            tmp_path / "shapes", tmp_path / "run", recipe="cam", settings=[*words, *more], resume=resume
        )
        return RunFolder.open(run.path)

    run = train()
    assert set(map(type, seen)) == {type(None)}
    assert not list(run.path.rglob("trust"))
    before = {path.name: path.read_bytes() for path in (run.path / "refine" / "masks").glob("*.png")}
    weights = (run.path / "localize" / "model.safetensors").stat().st_mtime_ns
    seen.clear()
    train("segment.trust=true", resume=True)
    assert (run.path / "localize" / "model.safetensors").stat().st_mtime_ns == weights, "its network stays"
    assert before == {path.name: path.read_bytes() for path in (run.path / "refine" / "masks").glob("*.png")}
    assert not (run.path / "localize" / "trust").exists(), "only what becomes labels is asked"
    trust = {path.stem: read_label_png(path) for path in (run.path / "refine" / "trust").glob("*.png")}
    assert len(trust) == 8
    for name, values in trust.items():
        np.testing.assert_array_equal(read_label_png(run.path / "trust" / f"{name}.png"), values)
        quality = run.qualities("refine")[name]
        assert values.mean() / 255 == pytest.approx(quality, abs=2 / 255)
    assert all(one is not None and one.min() >= 0 and one.max() <= 1 and one.unique().numel() > 2 for one in seen)


def test_trust_changes_the_loss() -> None:
    logits, pixels = torch.randn(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.uint8)
    batch = cases.make_batch(cases.CASES["deeplabv2"])
    assert batch.targets.trust is None
    half = pixel_cross_entropy(logits, pixels, torch.full((1, 4, 4), 0.5))
    torch.testing.assert_close(half, pixel_cross_entropy(logits, pixels) / 2)


def test_asking_for_trust_makes_masks_again_and_trains_no_localizer_again() -> None:
    data = {"path": "photos"}
    for recipe, parts in (
        ("vwe", [("refine", "masks"), ("segment", "learn")]),
        ("cam", [("refine", "masks"), ("segment", "learn")]),
        ("boxes", [("propose", "masks"), ("segment", "learn")]),
    ):
        before, now = (load_config(recipe, [f"segment.trust={on}"], data=data) for on in ("false", "true"))
        assert [part.key for part in broken(before, now)] == parts


# --- masks that are judged ------------------------------------------------------------------------------------------


def write_no_background(folder: Path) -> Path:
    """Four photos without background: boxes of two, a crowd beside a box in one, nothing known of the pixels of one."""
    folder.mkdir()
    rows: list[tuple[object, ...]] = [("file", "xmin", "ymin", "xmax", "ymax", "label")]
    for number in range(4):
        Image.fromarray(two_things()).save(folder / f"p{number}.png")
    for number in range(3):
        rows += [(f"p{number}.png", 0, 0, 20, 40, "left"), (f"p{number}.png", 40, 0, 56, 40, "right")]
    (folder / "classes.txt").write_text("left\nright\n")
    with (folder / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with (folder / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*((f"p{n}.png", "left", "right") for n in range(3)), ("p3.png",)])
    return folder


def test_where_no_pixel_is_background_masks_are_complete_and_labels_are_not(tmp_path: Path) -> None:
    data = write_no_background(tmp_path / "data")
    said: list[str] = []

    class Listening(Watch):
        def line(self, text: str) -> None:
            said.append(text)

    run = hintseg.train(
        data,
        tmp_path / "run",
        recipe="boxes",
        labels=[data / "boxes.csv", data / "tags.csv"],
        settings=[*TINY, "propose.method=filled", "data.background=none"],
        watch=Listening(),
    )
    masks, labels = run.path / "propose" / "masks", run.path / "labels"
    assert sorted(path.stem for path in masks.glob("*.png")) == ["p0", "p1", "p2"]
    expected = np.repeat([1] * 30 + [2] * 26, 40).reshape(56, 40).T
    for number in range(3):
        mask = read_label_png(masks / f"p{number}.png")
        assert (mask != expected).mean() < 0.02, "each side takes the nearest object"
        label = read_label_png(labels / f"p{number}.png")
        assert (label[:, 20:40] == 255).all()
        np.testing.assert_array_equal(label[label != 255], mask[label != 255])
    assert any("propose: 1 photos get no mask" in line and "p3" in line for line in said)
    out = hintseg.masks(run.path, tmp_path / "masks")
    assert sorted(path.stem for path in (out / "png").glob("*.png")) == ["p0", "p1", "p2"]
    assert all((read_label_png(path) != 255).all() for path in (out / "png").glob("*.png"))
    mended = np.full(SIZE, 2, np.uint8)
    write_mask(masks / "p0.png", mended)
    store = EvidenceStore(RunFolder.open(run.path), "propose", trust=False)
    found = given(store.read(Photo("p0", data / "p0.png"))).pixels
    before = read_label_png(labels / "p0.png")
    np.testing.assert_array_equal(found[:, 20:30], mended[:, 20:30], "what a person changed is known")
    np.testing.assert_array_equal(found[:, 40:], before[:, 40:])


# --- a new labeller in one new file ---------------------------------------------------------------------------------

DISCS = '''
"""A disc of the class around each click."""

from typing import Literal

import numpy as np
from pydantic import Field

from hintseg.labellers.labeller import Evidence, Labeller, check
from hintseg.types import Click, Supervision


class Discs(Labeller):
    needs = frozenset({Supervision.POINTS})
    method: Literal["discs"] = "discs"
    radius: float = Field(6.0, gt=0)

    def label(self, rgb, hints):
        check(self.method, self.needs, hints)
        pixels = np.full(rgb.shape[:2], 255, np.uint8)
        trust = np.ones(rgb.shape[:2], np.float32)
        y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]] + 0.5
        for mark in hints.shaped(Click):
            disc = (x - mark.shape.x) ** 2 + (y - mark.shape.y) ** 2 < self.radius**2
            pixels[disc], trust[disc] = mark.label, 0.5
        return Evidence(pixels, trust)
'''


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install` of a package with one module and one entry point leaves behind."""
    info = tmp_path / "site" / "discs-1.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "discs_of_a_stranger.py").write_text(DISCS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: discs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[hintseg.labellers]\ndiscs = discs_of_a_stranger:Discs\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.fixture
def pointed(tmp_path: Path) -> Path:
    """Eight photos: clicks on six, nothing in one, and one of which nobody said a word."""
    folder = tmp_path / "pointed"
    folder.mkdir()
    for number in range(8):
        Image.fromarray(two_things()).save(folder / f"p{number}.png")
    rows: list[tuple[object, ...]] = [("file", "x", "y", "label")]
    for number in range(6):
        rows += [(f"p{number}.png", 12, 18, "red"), (f"p{number}.png", 33, 24, "blue")]
    with (folder / "points.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "classes.txt").write_text("red\nblue\n")
    return folder


@pytest.mark.usefixtures("plug_in")
def test_a_labeller_of_points_is_one_new_file(
    pointed: Path, tmp_path: Path, seen: list[torch.Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(labellers()) == {*LABELLERS, "discs"}
    shown = CliRunner().invoke(app, ["list", "labellers"])
    assert (shown.exit_code, "discs" in shown.output, "grabcut" in shown.output) == (0, True, True)
    with pytest.raises(ConfigError, match=r"unknown setting 'propose.raduis'; did you mean 'propose.radius'\?"):
        load_config("boxes", ["propose.method=discs", "propose.raduis=3"], data={"path": "photos"})
    with pytest.raises(LabelError, match="has boxes, which recipe 'boxes' learns from"):
        hintseg.train(pointed, tmp_path / "none", recipe="boxes", settings=[*TINY, "propose.method=filled"])

    words = [*TINY, "propose.method=discs", "propose.radius=5", "segment.trust=true"]
    run = hintseg.train(pointed, tmp_path / "run", recipe="boxes", settings=words)
    folder = RunFolder.open(run.path)
    assert folder.data.plan == (
        "6 photos teach by points (discs, deeplabv2)",
        "2 photos left out: nothing is said of them",
    )
    assert folder.manifest.learns_from == "points"
    assert "From the points of 6 training photos" in (run.path / "report.html").read_text()
    assert not (run.path / "propose" / "instances").exists(), "it tells no objects apart"
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for number in range(6):
        label = read_label_png(run.path / "labels" / f"p{number}.png")
        for value, centre in ((1, (12, 18)), (2, (33, 24))):
            np.testing.assert_array_equal(label == value, (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 25)
        mask = read_label_png(run.path / "propose" / "masks" / f"p{number}.png")
        assert set(np.unique(mask)) == {0, 1, 2}, "a judged mask has a label in every pixel"
        trust = read_label_png(run.path / "trust" / f"p{number}.png")
        assert set(np.unique(trust[label != 255])) == {128, 255}
        assert trust[18, 12] == trust[24, 33] == 255, "what was clicked on is known"
    assert seen
    assert all({round(v, 2) for v in given(one).unique().tolist()} <= {0.0, 0.5, 1.0} for one in seen)
    out = hintseg.masks(run.path, tmp_path / "masks")
    assert len(list((out / "png").glob("*.png"))) == 6
    assert json.loads((out / "coco.json").read_text())["annotations"]

    again = [word for word in words if "radius" not in word]
    resumed = tmp_path / "again"
    shutil.copytree(run.path, resumed)
    monkeypatch.undo()  # the package is gone
    with pytest.raises(ConfigError, match="unknown method 'discs'"):
        hintseg.train(pointed, resumed, recipe="boxes", settings=again, resume=True)


@pytest.mark.usefixtures("plug_in")
def test_photos_with_points_and_photos_with_tags_are_each_labelled_by_what_serves_them(
    pointed: Path, tmp_path: Path
) -> None:
    with (pointed / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("p6.png", "red"), ("p7.png",)])
    run = hintseg.train(
        pointed,
        tmp_path / "run",
        recipe="boxes",
        labels=[pointed / "points.csv", pointed / "tags.csv"],
        settings=[
            *TINY,
            "propose.method=discs",
            "localize.method=cam",
            "localize.fit.epochs=1",
            "localize.fit.crop=48",
        ],
    )
    plan = RunFolder.open(run.path).data.plan
    assert plan == (
        "7 photos teach by points (discs, deeplabv2)",  # one of them shows nothing, as is known
        "1 photos teach by tags (cam, deeplabv2)",
        "in 6 photos what tags say (cam) counts where the spread of points or scribbles is unsure",
    )
    assert not read_label_png(run.path / "labels" / "p7.png").any()
