"""CSD: what a batch brings, settings and refusals, and the recipe with its stage one."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import hintseg
from csd_pairs import photo
from hintseg.cli.tables import check_tables
from hintseg.config.loader import load_config
from hintseg.config.run import RunConfig
from hintseg.data.dataset import PhotoDataset, collate
from hintseg.data.shapes import write_shapes
from hintseg.data.sources import Source, SourcePool
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import ConfigError, LabelError, PhotoError, RunError
from hintseg.hints.check import check
from hintseg.hints.cooccurrence import tag_matrix
from hintseg.methods.cam import Cam
from hintseg.pipeline.begin import make_plan
from hintseg.registry import WRAPPERS
from hintseg.reporting.pictures import Panel, write_panels
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights
from hintseg.types import IGNORE, Hints, HintSet, Photo, Tags
from hintseg.wrappers.csd import CsdConfig
from hintseg.wrappers.decoupling import Decoupling, check_data
from made import given, of

# --- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    """Six photos of noise; 0, 2 and 4 have two tags, 1 and 3 one, 5 none."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    found = []
    for i, tags in enumerate([(1, 2), (1,), (2, 3), (3,), (1, 3), ()]):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        found.append(photo(str(i), *tags, path=folder / f"{i}.png"))
    return found


def test_batches_bring_a_source_for_each_photo_with_several_tags(photos: list[Photo]) -> None:
    masks = {p.id: np.full((40, 50), i, np.uint8) for i, p in enumerate(photos)}
    transform = TrainingTransform(32, (0.9, 1.1), 0.2)
    plain, paired = (
        PhotoDataset(photos, 3, transform, lambda p: masks[p.id], sources=pool, seed=4)
        for pool in (None, SourcePool([Source(photos[1]), Source(photos[3])], None))
    )
    items = [paired[i] for i in range(6)]
    made = collate(items)
    assert made.source is not None
    assert len(made.source.ids) == int((made.targets.tags.sum(dim=1) > 1).sum()) == 3
    assert set(made.source.ids) <= {"1", "3"}
    assert (made.source.targets.tags.sum(dim=1) == 1).all()
    assert made.source.source is None
    for name, mask in zip(made.source.ids, given(made.source.targets.pixels), strict=True):
        assert set(mask.unique().tolist()) <= {int(name), IGNORE}
    alone = collate([plain[i] for i in range(6)])
    assert alone.source is None
    assert torch.equal(alone.images, made.images)  # its own views do not change
    assert made.to("cpu").source is not None
    assert collate([paired[1], paired[5]]).source is None
    again = collate([paired[i] for i in range(6)])
    assert given(again.source).ids == made.source.ids
    assert torch.equal(given(again.source).images, made.source.images)
    paired.set_epoch(1)
    assert not torch.equal(given(collate([paired[i] for i in range(6)]).source).images, made.source.images)


def test_a_part_of_a_photo_is_a_source_of_its_own_class(photos: list[Photo]) -> None:
    mask = np.full((40, 50), 3, np.uint8)
    mask[10:30, 5:25] = 2
    part = Source(replace(photos[2], hints=Hints(Tags(frozenset({2})))), (5, 10, 25, 30))
    transform = TrainingTransform(20, (1.0, 1.0))
    data = PhotoDataset(photos, 3, transform, lambda _: mask, sources=SourcePool([part], None))
    made = given(collate([data[0]]).source)
    assert (given(made.targets.pixels) == 2).all()
    assert made.targets.tags.tolist() == [[0, 1, 0]]
    assert given(made.targets.tags_known).tolist() == [[False, True, False]]


def test_crops_of_several_tags_are_sources_where_their_class_leads(pairable: Path, tmp_path: Path) -> None:
    settings = [w for w in QUICK if not w.startswith(("refine", "segment", "test"))]
    own = ["refine=null", "segment=null", "csd={crops: 1.0}", "localize.pooling=gap"]
    run = hintseg.train(pairable, tmp_path / "run", recipe="csd_irn", settings=[*settings, *own])
    folder = RunFolder.open(run.path)
    split = make_plan(hintseg.hints.read_hints(pairable), folder.config)
    every = Decoupling(folder, folder.config, split.train).sources.sources
    crops = [source for source in every if source.window]
    assert crops
    tags = {p.id: p.hints.tags for p in split.train}
    for photo_, window in crops:
        (label,) = given(photo_.hints.tags).present
        assert {label} < given(tags[photo_.id]).present
        x0, y0, x1, y1 = given(window)
        baseline = read_label_png(folder.path / "baseline/localize/masks" / f"{photo_.id}.png")[y0:y1, x0:x1]
        assert (baseline == label).sum() >= 0.05 * baseline.size
        others = (baseline != label) & (baseline != 0) & (baseline != IGNORE)
        assert others.sum() <= 0.02 * (baseline == label).sum()
    config = folder.config.model_copy(update={"csd": csd_of(folder.config).model_copy(update={"crops": 0.4})})
    fewer = [source for source in Decoupling(folder, config, split.train).sources.sources if source.window]
    count = Counter(next(iter(given(source.photo.hints.tags).present)) for source in crops)
    assert len(fewer) == sum(math.ceil(0.4 * n) for n in count.values())
    assert set(fewer) <= set(crops)


def test_a_source_that_cannot_be_read_is_replaced(
    photos: list[Photo], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = photo("broken", 1, path=tmp_path / "gone.png")
    every = [*photos, broken]
    masks = {p.id: np.zeros((40, 50), np.uint8) for p in every}
    pool = SourcePool([Source(p) for p in (photos[1], photos[3], broken)], None)
    data = PhotoDataset(every, 3, TrainingTransform(32, (0.9, 1.1)), lambda p: masks[p.id], sources=pool)
    drawn = []
    for epoch in range(8):
        data.set_epoch(epoch)
        drawn += given(collate([data[i] for i in range(6)]).source).ids
    assert len(drawn) == 24
    assert set(drawn) == {"1", "3"}
    assert data.skipped == ["broken"]
    assert sum("gone.png" in record.getMessage() for record in caplog.records) == 1
    lost = PhotoDataset(
        every, 3, TrainingTransform(32, (0.9, 1.1)), lambda p: masks[p.id], sources=SourcePool([Source(broken)], None)
    )
    with pytest.raises(PhotoError, match=r"20 photos with a single tag were drawn and none can be read.*gone\.png"):
        lost[0]


# --- settings and refusals ------------------------------------------------------------------------------------------


def csd_of(config: RunConfig) -> CsdConfig:
    return of(CsdConfig, given(config.wrapper).settings)


def test_settings() -> None:
    config = load_config("csd_irn", ["csd.shift=1"], data={"path": "photos"})
    csd = csd_of(config)
    assert (csd.foreground, csd.background, csd.shift, csd.resample) == (1.0, 0.0, 1, True)
    assert csd == CsdConfig(shift=1)  # what the recipe has and what `csd={}` adds to another are the same
    for recipe in ("paper/csd-irn-voc12", "paper/csd-mct-voc12"):
        published = csd_of(load_config(recipe, data={"path": "photos"}))
        assert (published.foreground, published.background) == (0.01, 0.1)
        assert (published.form, published.teacher) == ("paper", "online")
    assert csd_of(load_config("vwe", ["csd={}"], data={"path": "photos"})) == CsdConfig()
    assert load_config("csd_irn", ["csd=null"], data={"path": "photos"}).wrapper is None
    for recipe, word, part in (
        ("csd_irn", "csd.foregroun=1", "did you mean 'csd.foreground'?"),
        ("full", "csd={}", "'csd' wraps a localizer and there is none"),
        ("cam", "localize.method=csd", r"'csd' wraps a localizer; set csd=\{\} beside"),
    ):
        with pytest.raises(ConfigError, match=part.replace("?", r"\?")):
            load_config(recipe, [word], data={"path": "photos"})


def test_one_wrapper_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRAPPERS, "twin", WRAPPERS["csd"])
    assert load_config("cam", ["twin={shift: 2}"], data={"path": "photos"}).wrapper == ("twin", CsdConfig(shift=2))
    with pytest.raises(ConfigError, match=r"csd and twin are given, one wrapper is possible"):
        load_config("cam", ["csd={}", "twin={}"], data={"path": "photos"})


def test_too_few_photos_with_one_tag() -> None:
    config = load_config("csd_irn", data={"path": "photos"})
    many = [photo(str(i), 1, 2) for i in range(20)]
    few = [*many, *(photo(f"s{i}", 1 + i % 3) for i in range(9))]
    with pytest.raises(LabelError, match=r"9 of 29 .* single tag \(ant 3, bee 3, cow 3\).* at least 10.*csd=null"):
        check_data(config, few, ("ant", "bee", "cow"))
    check_data(config, [*few, photo("one more", 3)], ("ant", "bee", "cow"))
    with pytest.raises(LabelError, match="none of 12 training photos has two tags"):
        check_data(config, [photo(str(i), 1) for i in range(12)], ("ant", "bee", "cow"))
    with pytest.raises(LabelError, match=r"0 of 20 training photos have a single tag \(none\)"):
        check_data(config, many, ("ant", "bee", "cow"))


def test_check_shows_lonely_photos_and_the_prior(photos: list[Photo]) -> None:
    def printed(hint_set: HintSet) -> str:
        text = io.StringIO()
        console = Console(width=200, file=text)
        for part in check_tables(check(hint_set)):
            console.print(part)
        return text.getvalue()

    report = check(HintSet("set", ("ant", "bee", "cow"), tuple(photos)))
    assert report.alone_per_class == {"ant": 1, "bee": 0, "cow": 1}
    assert report.prior == ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.0, 0.5), (1 / 3, 1 / 3, 1 / 3))
    split = check(HintSet("set", ("ant", "bee", "cow"), tuple(photos), splits={"train": ("0", "1"), "val": ("2", "3")}))
    assert split.alone_per_class == {"ant": 1, "bee": 0, "cow": 0}  # CSD learns from the training photos
    assert split.prior == ((0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    text = printed(HintSet("set", ("ant", "bee", "cow"), tuple(photos)))
    assert "together, %" in text
    assert any(line.split("│")[1:4] == ["2 bee", "50", " ."] for line in text.splitlines())
    rare = [photo(str(i), 1, path=photos[0].path) for i in range(300)]
    text = printed(HintSet("set", ("ant", "bee", "cow"), (*photos, *rare)))
    assert any(line.split("│")[1:4] == ["1 ant", "99", "<1"] for line in text.splitlines())  # not the "." of never
    many = tuple(f"c{i}" for i in range(1, 31))
    text = printed(HintSet("set", many, tuple(photos)))
    (line,) = (line for line in text.splitlines() if "│ c2 " in line)
    assert "c1 50, c3 50" in line
    assert "photos with both classes" not in text
    assert tag_matrix([*photos, Photo("x", Path("x"))], 3).tolist()[:2] == [[1, 1, 0], [1, 0, 0]]


def test_pictures_of_pairs(tmp_path: Path) -> None:
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 255
    panels = [Panel("source", red, None), Panel("map of source", red, np.ones((2, 2), np.float32))]
    write_panels(tmp_path / "pairs.png", [("a into b", panels)])
    picture = np.array(Image.open(tmp_path / "pairs.png"))
    assert (picture[90, 75] == (255, 0, 0)).all()
    assert (picture[90, 231] != (255, 0, 0)).any()


# --- the recipe -----------------------------------------------------------------------------------------------------

QUICK = [
    "backbone.name=test_resnet",
    "backbone.weights=random",
    "trainer.workers=0",
    "trainer.precision=32-true",
    "trainer.pictures=2",
    *(f"{stage}.fit.{word}" for stage in ("localize", "refine", "segment") for word in ("epochs=1", "crop=32")),
    *(f"{stage}.fit.batch_size=8" for stage in ("localize", "refine", "segment")),
    "maps.scales=[1.0]",
    "test.scales=[1.0]",
]


@pytest.fixture(scope="module")
def pairable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photos, enough for some with one tag of each kind."""
    folder = tmp_path_factory.mktemp("shapes") / "photos"
    write_shapes(folder, train=40, val=4, size=40)
    return folder


class Stop(Watch):
    """Stops the run when it begins its `count`-th training."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def start(self, title: str, total: int) -> None:
        self.left -= title.startswith("training")
        if not self.left:
            raise KeyboardInterrupt
        super().start(title, total)


@pytest.fixture(scope="module")
def run(pairable: Path, tmp_path_factory: pytest.TempPathFactory) -> hintseg.Run:
    """A run that was stopped when CSD's own training began, and gone on with."""
    out = tmp_path_factory.mktemp("runs") / "csd"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        hintseg.train(pairable, out, recipe="csd_irn", settings=QUICK, watch=Stop(3))
    weights = out / "baseline" / "localize" / "model.safetensors"
    assert not (out / "localize" / "model.safetensors").exists()
    before = weights.stat().st_mtime_ns
    finished = hintseg.train(pairable, out, recipe="csd_irn", settings=QUICK, resume=True)
    assert weights.stat().st_mtime_ns == before
    return finished


def test_recipe_does_everything_in_one_command(run: hintseg.Run) -> None:
    stages = [json.loads((run.path / part / "manifest.json").read_text())["stages"] for part in (".", "baseline")]
    assert [list(s) for s in stages] == [["localize", "refine", "segment"], ["localize", "refine"]]
    assert all(stage["done"] for part in stages for stage in part.values())
    heads = [(run.path / part / "localize/log.csv").read_text().splitlines()[0] for part in (".", "baseline")]
    assert heads == ["step,epoch,lr,loss,loss_img,loss_fg,loss_bg", "step,epoch,lr,loss,loss_img"]
    method = load_weights(run.path / "localize" / "model.safetensors")[0]
    assert isinstance(method, Cam)  # the plain localizer
    assert {row["stage"] for row in run.metrics} == {"localize", "refine", "segment"}


def test_report_shows_the_pairs(run: hintseg.Run) -> None:
    page = (run.path / "report.html").read_text()
    assert base64.b64encode((run.path / "localize/wrapper.png").read_bytes()).decode() in page
    assert "Pastes of CSD" in page
    assert "(source) objects were pasted" in page  # the recipe has no weight on background
    assert "mIoU before," in page
    assert "Pastes of CSD" not in (run.path / "baseline" / "report.html").read_text()


def test_a_finished_baseline_is_used_again(run: hintseg.Run, pairable: Path, tmp_path: Path) -> None:
    settings = [w for w in QUICK if not w.startswith(("refine", "segment", "test"))]
    own = ["refine=null", "segment=null", "csd.shift=1", "csd.resample=false"]
    given = f"csd.baseline={run.path / 'baseline'}"
    other = hintseg.train(pairable, tmp_path / "run", recipe="csd_irn", settings=[*settings, *own, given])
    assert not (other.path / "baseline").exists()
    assert "mIoU before," in (other.path / "report.html").read_text()
    empty = tmp_path / "empty"
    (empty / "localize").mkdir(parents=True)
    (empty / "config.yaml").write_text("")
    (empty / "manifest.json").write_text('{"stages": {}, "data": {"classes": [], "background": true}}')
    with pytest.raises(RunError, match="has no finished masks"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=[*settings, *own, f"csd.baseline={empty}"])
    none = [*settings, *own, given, "data.background=none"]
    with pytest.raises(RunError, match="was trained with a background class, unlike this run"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=none)
    others = tmp_path / "others"  # masks of photos that this run does not have
    (others / "refine" / "masks").mkdir(parents=True)
    for name in ("config.yaml", "manifest.json"):
        (others / name).write_text((run.path / "baseline" / name).read_text())
    with pytest.raises(RunError, match=r"has a mask of none of the \d+ photos with a single tag"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=[*settings, *own, f"csd.baseline={others}"])
    manifest = json.loads((run.path / "baseline" / "manifest.json").read_text())
    manifest["data"]["classes"][0] = "elephant"
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "refine").symlink_to(run.path / "baseline" / "refine")
    (changed / "config.yaml").write_text("")
    (changed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="was trained on classes elephant"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=[*settings, *own, f"csd.baseline={changed}"])
    assert not (tmp_path / "2").exists()  # the corrected command may use the same folder


@pytest.mark.parametrize("background", [0.0, 0.1])
def test_pictures_of_pairs_show_what_was_pasted(
    run: hintseg.Run, pairable: Path, monkeypatch: pytest.MonkeyPatch, background: float
) -> None:
    folder = RunFolder.open(run.path)
    config = load_config(run.path / "config.yaml", [f"csd.background={background}"])
    photos = make_plan(hintseg.hints.read_hints(pairable), config).train
    made = {}
    monkeypatch.setattr("hintseg.wrappers.decoupling.write_panels", lambda path, rows: made.update({path: rows}))
    Decoupling(folder, config, photos).draw(load_weights(run.path / "localize" / "model.safetensors")[0])
    (rows,) = made.values()
    assert ("objects and background were pasted" in given(folder.shown).text) == bool(background)
    names = ["source", "target", "with object", *(["with background"] if background else [])]
    for _, panels in rows:
        assert [p.caption for p in panels] == [*names, *(f"map {'' if 'with' in n else 'of '}{n}" for n in names)]
        assert max(p.map.max() for p in panels[len(names) :]) in (0, 1)  # one scale for the row
        shown = {p.caption: p.rgb.astype(int) for p in panels}
        for paste in names[2:]:
            at_home, as_before = ((shown[paste] == shown[name]).all(axis=2) for name in ("source", "target"))
            assert (at_home | as_before).all()
            assert not at_home.all()
    assert any((p[2].rgb != p[1].rgb).any() for _, p in rows)  # an object was pasted


def test_without_background_objects_are_cut_to_where_the_maps_are_strong(pairable: Path, tmp_path: Path) -> None:
    settings = [w for w in QUICK if not w.startswith(("refine", "segment", "test"))]
    own = ["refine=null", "segment=null", "data.background=none", "csd={background: 0.1}", "localize.words=8"]
    own.append("localize.word_branch=none")  # sums of both branches are strong everywhere before anything is learned
    run = hintseg.train(pairable, tmp_path / "run", recipe="vwe", settings=[*settings, *own])
    folder = RunFolder.open(run.path)
    split = make_plan(hintseg.hints.read_hints(pairable, background=False), folder.config)
    found = Decoupling(folder, folder.config, split.train)
    sources = [source.photo for source in found.sources.sources]
    share = np.mean([(given(found.masks(p)) != IGNORE).mean() for p in sources])
    assert 0.2 < share < 0.8  # `maps.area` is two fifths of all
    assert all(set(np.unique(given(found.masks(p)))) <= {*given(p.hints.tags), IGNORE} for p in sources)
    log = (run.path / "localize/log.csv").read_text().splitlines()
    assert log[0] == "step,epoch,lr,loss,loss_img,loss_word,loss_w2i,loss_fg,loss_bg"
    assert {line.rpartition(",")[2] for line in log[1:]} == {"0.0"}  # no background to paste


def test_recipe_on_mctformer(pairable: Path, tmp_path: Path) -> None:
    vit = ("name=vit_tiny_patch16_224", "output_stride=8", "depth=2", "width=24", "heads=3")
    settings = [w for w in QUICK if not w.startswith(("segment", "test", "maps"))]
    own = [*(f"localize.backbone.{word}" for word in vit), "refine.cell=4", "segment=null"]
    run = hintseg.train(pairable, tmp_path / "run", recipe="csd_mct", settings=[*settings, *own])
    log = (run.path / "localize/log.csv").read_text().splitlines()
    assert log[0].endswith("loss_fg,loss_bg")
    assert any(float(line.split(",")[-2]) > 0 for line in log[1:])
    assert {row["stage"] for row in run.metrics} == {"localize", "refine"}
    assert hintseg.load(run.path / "baseline").metrics
