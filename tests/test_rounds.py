"""Rounds of a segmenter: labels made anew from what was learned, within what is known of the photos."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import hintseg
from hintseg.cam import grow
from hintseg.cli.ending import after_training
from hintseg.files.owned import adding
from hintseg.labellers.labeller import Evidence
from hintseg.methods.deeplab import multi_scale_logits
from hintseg.pipeline import rounds as module
from hintseg.pipeline.evidence import EvidenceStore
from hintseg.pipeline.plan import SURE
from hintseg.pipeline.rounds import Rounds, as_before, last_labels, relabel
from hintseg.reviewing.schema import Action
from hintseg.reviewing.storage import Review
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png, write_mask
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights
from hintseg.types import Hints, Photo, Tags
from made import rand
from small_runs import QUICK, write_squares

SETTINGS = [*QUICK, "refine=null", "segment.rounds=3"]


def test_only_classes_that_may_be_there_win() -> None:
    scores, unknown = rand(4, 30, 40), torch.zeros(30, 40, dtype=torch.bool)
    possible = torch.tensor([True, False, True, True])
    label = relabel(scores, possible, unknown, single=False)
    assert label.dtype == torch.uint8
    assert set(label.unique().tolist()) == {0, 2, 3}
    agrees = scores.argmax(dim=0) != 1
    assert torch.equal(label[agrees].long(), scores.argmax(dim=0)[agrees])


def test_in_a_photo_of_a_single_tag_a_foreign_winner_makes_a_pixel_unknown() -> None:
    scores, unknown = rand(4, 30, 40), torch.zeros(30, 40, dtype=torch.bool)
    possible = torch.tensor([True, False, True, False])
    label, winner = relabel(scores, possible, unknown, single=True), scores.argmax(dim=0)
    foreign = (winner == 1) | (winner == 3)
    assert (label[foreign] == 255).all()
    assert torch.equal(label[~foreign].long(), winner[~foreign])


def test_where_nothing_was_known_no_class_is_forced() -> None:
    scores, unknown = rand(4, 30, 40), torch.zeros(30, 40, dtype=torch.bool)
    unknown[:15] = True
    possible = torch.tensor([True, False, True, True])
    label, foreign = relabel(scores, possible, unknown, single=False), scores.argmax(dim=0) == 1
    assert (label[foreign & unknown] == 255).all()
    assert (label[~(foreign & unknown)] != 255).all()
    nothing = torch.zeros(4, dtype=torch.bool)
    assert (relabel(scores, nothing, unknown, single=False) == 255).all()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares and discs; a person says of photo 1 what every pixel is."""
    return write_squares(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> hintseg.Run:
    (data / "taught.txt").write_text("photo 0\n")
    settings = [*SETTINGS, f"data.learn_masks={data / 'taught.txt'}"]
    return hintseg.train(data, tmp_path_factory.mktemp("runs") / "whole", recipe="cam", settings=settings)


def test_each_round_labels_the_photos_within_their_tags(run: hintseg.Run, data: Path) -> None:
    rows = [line.split(",") for line in (data / "tags.csv").read_text().splitlines()]
    names = {"red": 1, "blue": 2}
    learned = {row[0]: {0} | {names[tag] for tag in row[1:]} for row in rows[:8]}
    for number in (2, 3):
        labels = {path.stem: path for path in (run.path / "segment/rounds" / str(number) / "labels").glob("*.png")}
        assert set(labels) == set(learned) - {"photo 0"}, "what a person said stays"
        for name, path in labels.items():
            assert set(np.unique(np.array(Image.open(path)))) <= learned[name] | {255}
    first, second = (load_weights(run.path / "segment/rounds" / n / "model.safetensors")[0] for n in ("1", "2"))
    last = load_weights(run.path / "segment/model.safetensors")[0]
    states = [method.state_dict() for method in (first, second, last)]
    heads = [state["head.branches.0.weight"] for state in states]
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])
    assert len({state["scale.factor"].item() for state in states}) == 1, "the features' scale belongs to the weights"
    masks, unseen = (row for row in run.metrics if row["stage"] == "segment")
    assert (masks["kind"], masks["split"]) == ("final mask", "train")
    assert (unseen["kind"], unseen["split"], unseen["photos"]) == ("segmentation", "val", 4)
    assert "and anew after each of 2 rounds" in unseen["protocol"]
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["stages"]["segment"]["done"]


def test_masks_for_people_are_what_the_last_round_says_within_the_tags(
    run: hintseg.Run, data: Path, tmp_path: Path
) -> None:
    folder = hintseg.masks(run.path, out=tmp_path / "masks") / "png"
    test = RunFolder(run.path).config.test
    method = load_weights(run.path / "segment/model.safetensors")[0].eval()
    names = {"red": 1, "blue": 2}
    rows = [line.split(",") for line in (data / "tags.csv").read_text().splitlines()]
    stage = [path.stem for path in (run.path / "segment/masks").glob("*.png")]
    assert set(stage) == {name for name, *_ in rows[1:]}, "the given mask is no work of the segmenter's"
    for name, *tags in rows[1:8]:
        photo = np.array(Image.open(data / "JPEGImages" / f"{name}.png"))
        pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            logits = multi_scale_logits(method.segment, pixels, scales=test.scales, flip=test.flip, merge=test.merge)
        scores = grow(logits.softmax(dim=1), photo.shape[:2])[0]
        possible = [0, *sorted(names[tag] for tag in tags)]
        expected = np.array(possible)[scores[possible].argmax(dim=0).numpy()]
        made = np.array(Image.open(folder / f"{name}.png"))
        assert (made == expected).mean() > 0.99
        assert set(np.unique(made)) <= set(possible)
    given = np.array(Image.open(folder / "photo 0.png"))
    true = np.array(Image.open(run.path / "truth" / "photo 0.png"))
    assert (given == true)[true != 255].all(), "a mask that was given is among the masks"


@pytest.mark.parametrize("stop", ["labels", "weights", "training"])
def test_a_run_that_stops_between_and_in_rounds_ends_with_the_same_weights(
    run: hintseg.Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    out = tmp_path / "run"
    settings = [*SETTINGS, f"data.learn_masks={data / 'taught.txt'}"]
    written = 0

    def pulled(*_: object, **__: object) -> None:
        raise RuntimeError("plug pulled")

    def some(path: Path, mask: npt.NDArray[np.uint8]) -> None:
        nonlocal written
        written += 1
        if written > 9:  # in the middle of the second time
            pulled()
        write_mask(path, mask)

    with monkeypatch.context() as patched:
        if stop == "labels":
            patched.setattr(module, "write_mask", some)
        elif stop == "weights":
            patched.setattr(module, "enter", pulled)
        else:
            patched.setattr(Rounds, "labels", lambda self, photo: pulled() if self.done else self.first(photo))
        with pytest.raises(RuntimeError, match="plug pulled"):
            hintseg.train(data, out, recipe="cam", settings=settings)
    hintseg.train(data, out, recipe="cam", settings=settings, resume=True)
    for part in ("segment/model.safetensors", "segment/rounds/1/model.safetensors"):
        assert (out / part).read_bytes() == (run.path / part).read_bytes()


def test_masks_that_were_mended_stay(run: hintseg.Run, data: Path, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    mask = tmp_path / "run/localize/masks/photo 1.png"
    mended = np.zeros((56, 72), np.uint8)
    Image.fromarray(mended).save(mask)
    settings = [*SETTINGS, "segment.rounds=2", f"data.learn_masks={data / 'taught.txt'}"]
    again = hintseg.train(data, tmp_path / "run", recipe="cam", settings=settings, resume=True)
    labels = again.path / "segment/rounds/2/labels"
    assert (labels / "photo 2.png").is_file()
    assert not (labels / "photo 1.png").exists()
    assert not (again.path / "segment/rounds/2/model.safetensors").exists()
    assert (np.array(Image.open(again.path / "labels/photo 1.png")) == 0).all()


def test_where_nobody_placed_tags_there_is_one_round(data: Path, tmp_path: Path) -> None:
    settings = [word for word in QUICK if not word.startswith(("localize", "refine", "maps"))]
    own = ["segment.rounds=3", "segment.fit.epochs=1", "trainer.pictures=0"]
    run = hintseg.train(data, tmp_path / "run", recipe="full", settings=[*settings, *own])
    assert not (run.path / "segment/rounds").exists()
    assert RunFolder.open(run.path).done("segment")
    assert (
        after_training(run.path)
        == f"next: open the report; `hintseg predict {run.path} NEW-PHOTOS` segments other photos"
    )


def test_a_mask_that_was_mended_while_a_stage_was_stopped_stays(run: hintseg.Run, tmp_path: Path) -> None:
    folder = shutil.copytree(run.path, tmp_path / "run")
    mask, photo = folder / "localize/masks/photo 2.png", Photo("photo 2", Path("photo 2.png"))
    with adding(folder):
        store = EvidenceStore(RunFolder(folder), "localize", trust=False)
        store.write(photo, Evidence(np.zeros((56, 72), np.uint8)))
        assert not read_label_png(mask).any(), "its own earlier one is written anew"
        Image.fromarray(np.ones((56, 72), np.uint8)).save(mask)
        store.write(photo, Evidence(np.zeros((56, 72), np.uint8)))
    assert read_label_png(mask).all()


def test_trust_of_new_labels_is_kept(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = [*QUICK, "refine=null", "segment.rounds=2", "segment.trust=true", "trainer.pictures=0"]
    with caplog.at_level(logging.INFO, logger="hintseg"):
        run = hintseg.train(data, tmp_path / "run", recipe="cam", settings=settings)
    folder = run.path / "segment/rounds/2"
    assert {p.name for p in (folder / "trust").iterdir()} == {p.name for p in (folder / "labels").iterdir()}
    assert any("round 1 labelled 8 photos anew" in message for message in caplog.messages)


def clicked(data: Path, tmp_path: Path) -> list[str]:
    """Write clicks on two photos; return settings of a run of the recipe `points` that learns from them."""
    clicks = [("file", "x", "y", "label"), ("photo 2.png", 2, 2, "background")]
    clicks += [(f"photo {number}.png", 18, 22, "red") for number in (2, 4)]
    (tmp_path / "points.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in clicks))
    shutil.copy(data / "classes.txt", tmp_path)
    own = f"data.labels=[{tmp_path / 'points.csv'},{data / 'SegmentationClass'}]"
    settings = [word for word in QUICK if not word.startswith("refine")]
    return [*settings, own, "segment.fit.epochs=1", "trainer.pictures=0"]


def test_masks_of_a_run_without_a_segmenter_take_the_tags_word_where_clicks_are_unsure(
    data: Path, tmp_path: Path
) -> None:
    settings = [word for word in clicked(data, tmp_path) if not word.startswith("segment")]
    run = hintseg.train(data, tmp_path / "run", recipe="points", settings=[*settings, "segment=null"])
    masks = hintseg.masks(run.path, tmp_path / "masks")
    for name in ("photo 2", "photo 4"):
        spread, of_tags = (
            read_label_png(run.path / stage / "masks" / f"{name}.png") for stage in ("propose", "refine")
        )
        mask, trust = (read_label_png(path / f"{name}.png") for path in (masks / "png", run.path / "propose/trust"))
        unsure, sure = trust < 255 * SURE - 1, trust > 255 * SURE + 1
        assert (spread != of_tags)[unsure].any()
        assert (mask == of_tags)[unsure].all()
        assert (mask == spread)[sure].all()


def test_labels_spread_from_clicks_are_made_anew_and_clicks_stay(data: Path, tmp_path: Path) -> None:
    run = hintseg.train(data, tmp_path / "run", recipe="points", settings=clicked(data, tmp_path))
    assert "what tags say (vwe, par)" in " ".join(RunFolder.open(run.path).data.plan)
    assert (run.path / "refine" / "masks" / "photo 2.png").is_file()
    anew = {path.stem: np.array(Image.open(path)) for path in (run.path / "segment/rounds/2/labels").glob("*.png")}
    assert all(anew[name][22, 18] == 1 for name in ("photo 2", "photo 4"))
    assert all(not anew.pop(f"photo {number}").any() for number in (1, 5, 7)), "they show nothing"
    assert {name for name in anew if 2 in anew[name]} == {"photo 0", "photo 3", "photo 6"}, "their tag says so"
    anew = {name: anew[name] for name in ("photo 2", "photo 4")}
    assert anew["photo 2"][2, 2] == 0
    assert set(np.unique(np.concatenate([*anew.values()]))) <= {0, 1, 255}, "of other classes nobody spoke"
    trust = np.array(Image.open(run.path / "segment/rounds/2/trust/photo 2.png"))
    assert trust[22, 18] == trust.max() == 255
    for name in ("photo 2", "photo 4"):  # what is near to a click, by its colours, stays in the final masks
        said = read_label_png(run.path / "propose/masks" / f"{name}.png")
        if (run.path / "propose/evidence" / f"{name}.png").is_file():
            said = read_label_png(run.path / "propose/evidence" / f"{name}.png")
        sure = (np.array(Image.open(run.path / "propose/trust" / f"{name}.png")) > 255 * SURE) & (said != 255)
        final = read_label_png(run.path / "segment/masks" / f"{name}.png")
        assert 9 < sure.sum() < sure.size, "more than the clicks, and not all"
        assert (final[sure] == said[sure]).all()


def test_training_again_goes_on_from_the_last_labels_and_what_a_person_painted_stays(
    run: hintseg.Run, tmp_path: Path
) -> None:
    old = shutil.copytree(run.path, tmp_path / "old")
    review = Review(RunFolder.open(old))
    painted, untouched = "photo 2", "photo 3"
    line = {"points": (2.0, 4.0, 30.0, 4.0), "width": 5}
    review.act(painted, 0, Action(kind="paint", label=2, **line))  # type: ignore[arg-type]
    lessons = review.mask(painted, review.document(painted).now)
    changed = lessons != read_label_png(old / "segment/masks" / f"{painted}.png")
    assert changed.any()
    again = hintseg.api.train_again(old, tmp_path / "new", settings=["localize.fit.lr=1e-9", "segment.fit.lr=1e-9"])
    last = {name: read_label_png(old / "segment/rounds/3/labels" / f"{name}.png") for name in (painted, untouched)}
    first = {name: read_label_png(again.path / "labels" / f"{name}.png") for name in last}
    assert (first[untouched] == last[untouched]).all()
    assert (first[painted][changed] == 2).all()
    assert (first[painted][~changed] == last[painted][~changed]).all()
    for number in ("2", "3"):
        label = read_label_png(again.path / "segment/rounds" / number / "labels" / f"{painted}.png")
        assert (label[changed] == 2).all()
    folder = again.masks(tmp_path / "masks") / "png"
    assert (read_label_png(folder / f"{painted}.png")[changed] == 2).all()


def test_labels_of_another_photo_or_of_an_absent_class_are_not_gone_on_from(run: hintseg.Run, tmp_path: Path) -> None:
    config = RunFolder.open(run.path).config.model_copy(update={"start": run.path})
    of_photo = last_labels(RunFolder.open(run.path), config, Watch())
    (path,) = (path for path in of_photo if path.stem == "photo 3")
    assert len(of_photo) == 7, "of one the mask was given"
    assert last_labels(RunFolder.open(run.path), config.model_copy(update={"start": None}), Watch()) == {}
    label = read_label_png(of_photo[path])
    found = Evidence(np.full(label.shape, 9, np.uint8))
    known = Photo("photo 3", path, Hints(Tags.complete({1, 2}, 2)))
    assert (as_before(of_photo[path], known, found, None).pixels == label).all()
    without = Photo("photo 3", path, Hints(Tags.complete(set(), 2)))
    assert (as_before(of_photo[path], without, found, None).pixels == np.where(label > 0, 255, label)).all()
    assert as_before(of_photo.get(tmp_path / "photo 3.png"), known, found, None) is found
    other = Evidence(np.zeros((3, 4), np.uint8))
    assert as_before(of_photo[path], known, other, None) is other


def test_a_photo_that_was_replaced_is_told_by_its_size_and_labelled_afresh(
    run: hintseg.Run, data: Path, tmp_path: Path
) -> None:
    """Data that was copied or unpacked anew has other times, and is the same."""

    class Lines(Watch):
        said: list[str]

        def line(self, text: str) -> None:
            self.said.append(text)

    def last() -> set[str]:
        watch.said = []
        return {path.stem for path in last_labels(RunFolder(before), config, watch)}

    before, photos, watch = shutil.copytree(run.path, tmp_path / "before"), tmp_path / "photos", Lines()
    shutil.copytree(data / "JPEGImages", photos)
    rows = json.loads((before / "photos.json").read_text())
    rows = [row | {"path": str(photos / Path(row["path"]).name)} for row in rows]
    (before / "photos.json").write_text(json.dumps(rows))
    for photo in photos.iterdir():
        os.utime(photo, (2**32, 2**32))
    config = RunFolder(before).config.model_copy(update={"start": before})
    every = last()
    assert len(every) == 7, "of one the mask was given"
    assert watch.said == []
    Image.new("RGB", (72, 56)).save(photos / "photo 3.png")
    assert last() == every - {"photo 3"}
    assert watch.said == [f"segment: 1 photos were replaced since {before} and are labelled afresh"]
    (before / "photos.json").write_text(json.dumps([row | {"bytes": None} for row in rows]))
    assert last() == set(), "of an older run times are all that is known"
    assert watch.said == [f"segment: 7 photos were replaced since {before} and are labelled afresh"]
