"""What a person said teaches: as hints, as masks, in a new run that begins with the old weights; and round trips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hintseg.errors import ConfigError, LabelError, RunError
from hintseg.hints import read_hints
from hintseg.quality.review_list import review_list
from hintseg.reviewing.compare import differences
from hintseg.reviewing.exchange import send, take
from hintseg.reviewing.lessons import read_lessons, with_lessons, write_lessons
from hintseg.reviewing.schema import PERSON, Action
from hintseg.reviewing.storage import Review
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.training.weights import load_weights
from hintseg.types import Click, Hints, MaskFile, Region, Stroke
from made import given, of
from review_runs import CLASSES, shifted, thing, write_run
from small_runs import TINY, typed

SETTINGS = [
    *TINY,
    *("refine=null", "segment.fit.epochs=1", "segment.fit.batch_size=4", "segment.fit.crop=64", "test.scales=[1.0]"),
    *("localize.fit.epochs=1", "localize.fit.batch_size=4", "localize.fit.crop=64", "maps.scales=[1.0]"),
    *("trainer.pictures=0",),
]


def reviewed(root: Path) -> Review:
    """A run whose photo 1 was accepted, 2 mended and accepted, 3 mended, 4 rejected and marked, 5 marked, 6 skipped."""
    run = write_run(root, 8)
    (root / "photos" / "tags.csv").write_text(
        "".join(f"{'herd/' if i == 0 else ''}{i:02d},{CLASSES[i % 3]}\n" for i in range(8))
    )
    (root / "photos" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    review = Review(RunFolder.open(run))
    paint = Action(kind="paint", label=1, points=(5, 5, 20, 5), width=5)
    said = {
        "01": [Action(kind="accept")],
        "02": [paint, Action(kind="accept")],
        "03": [paint],
        "04": [
            Action(kind="stroke", label=2, points=(30, 30, 40, 30), width=3),
            Action(kind="click", label=0, points=(2, 2)),
            Action(kind="reject"),
        ],
        "05": [Action(kind="click", label=1, points=(9.5, 9.5))],
        "06": [Action(kind="skip")],
    }
    for id, actions in said.items():
        for revision, action in enumerate(actions):
            review.act(id, revision, action)
    return review


def test_what_was_said_becomes_hints_of_a_person(tmp_path: Path) -> None:
    review = reviewed(tmp_path)
    folder = write_lessons(review)
    assert write_lessons(review) == folder, "equal reviews make one folder"
    before = {photo.id: photo for photo in read_hints(tmp_path / "photos").photos}
    hint_set = with_lessons(read_hints(tmp_path / "photos"), folder)
    hints: dict[str, Hints] = {photo.id: photo.hints for photo in hint_set.photos}
    for id in ("herd/00", "06", "07"):
        assert hints[id] == before[id].hints
    for id in ("01", "02"):
        mask = of(MaskFile, hints[id].mask)
        assert (read_label_png(mask.path) == review.mask(id, review.document(id).now)).all()
    assert set(given(hints["02"].tags)) == {1, 3}
    assert given(hints["02"].tags).absent == {2}, "an accepted mask says what is not there too"
    (mark,) = hints["03"].marks
    assert (mark.label, mark.source, type(mark.shape)) == (1, PERSON, Region)
    assert hints["03"].mask is None
    marks = hints["04"].marks
    assert [(mark.label, type(mark.shape)) for mark in marks] == [(255, Region), (2, Stroke), (0, Click)]
    assert set(given(hints["05"].tags)) == {1, 3}, "what was marked is there, whatever the tags say"
    assert [note for note in hint_set.notes if note.startswith("review:")] == [
        "review: 1 masks accepted as they were: they teach as a whole",
        "review: 1 masks mended and accepted: they teach as a whole",
        "review: 1 masks mended: the changed pixels teach",
        "review: 1 masks rejected: they teach nothing but what was marked in them",
        "review: 3 marks drawn",
    ]


def test_lessons_do_not_change_while_the_review_goes_on(tmp_path: Path) -> None:
    review = reviewed(tmp_path)
    folder = write_lessons(review)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    review.act("02", 2, Action(kind="paint", label=2, points=(5, 50), width=9))
    review.act("07", 0, Action(kind="accept"))
    other = write_lessons(review)
    assert other != folder
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert set(read_lessons(other).photos) - set(read_lessons(folder).photos) == {"07"}


def test_what_an_earlier_review_taught_goes_on_teaching(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A second round of review adds to the first; what it says of a photo is what counts of that."""
    first = write_lessons(reviewed(tmp_path / "one"))
    run = write_run(tmp_path / "two", 8)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings.setdefault("data", {})["review"] = str(first)
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    review = Review(RunFolder.open(run))
    for id in ("03", "07"):
        review.act(id, 0, Action(kind="accept"))
    second = write_lessons(review)
    before, after = (read_lessons(folder).photos for folder in (first, second))
    assert after == before | {id: after[id] for id in ("03", "07")}
    assert {after[id].state for id in ("03", "07")} == {"accepted"}
    assert {path.stem for path in (second / "accepted").iterdir()} == {"01", "02", "03", "07"}
    for id in ("01", "02"):
        old, new = (read_label_png(folder / "accepted" / f"{id}.png") for folder in (first, second))
        assert (old == new).all()
    assert not (second / "mended").exists()
    first.rename(tmp_path / "aside")
    assert set(read_lessons(write_lessons(review)).photos) == {"03", "07"}
    assert f"{first} is gone: what was said in that review is not taught any more" in caplog.messages


def test_what_cannot_be_learned_from_is_said(tmp_path: Path) -> None:
    review = reviewed(tmp_path)
    folder = write_lessons(review)
    (tmp_path / "photos" / "classes.txt").write_text("cow\nsheep\ndog\ncat\n")
    with pytest.raises(LabelError, match="was reviewed with the classes cow, sheep, dog, but the data has"):
        with_lessons(read_hints(tmp_path / "photos"), folder)
    (tmp_path / "photos" / "classes.txt").write_text("cow\nsheep\ndog\n")
    tags = (tmp_path / "photos" / "tags.csv").read_text().splitlines()
    (tmp_path / "photos" / "tags.csv").write_text("\n".join(tags[:2]) + "\n")
    for id in ("04", "05"):
        (tmp_path / "photos" / f"{id}.png").unlink()
    with pytest.raises(LabelError, match="speaks of photo '04', which is not in the data, and of 1 more"):
        with_lessons(read_hints(tmp_path / "photos"), folder)
    with pytest.raises(RunError, match=r"nothing of .* was reviewed yet"):
        write_lessons(Review(RunFolder.open(write_run(tmp_path / "other", 2))))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the command line on a few squares and discs."""
    from small_runs import write_squares

    root = tmp_path_factory.mktemp("loop")
    write_squares(root / "photos")
    done = typed("train", root / "photos", "--out", root / "first", "--recipe", "cam", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return root / "first"


def test_training_again_learns_from_the_review_and_begins_with_the_old_weights(first: Path, tmp_path: Path) -> None:
    review = Review(RunFolder.open(first))
    ids = sorted(review.photos)
    line = {"points": (2.0, 50.0, 60.0, 50.0), "width": 7}
    review.act(ids[0], 0, Action(kind="paint", label=2, **line))  # type: ignore[arg-type]
    review.act(ids[0], 1, Action(kind="accept"))
    review.act(ids[1], 0, Action(kind="paint", label=1, **line))  # type: ignore[arg-type]
    review.act(ids[2], 0, Action(kind="stroke", label=2, **line))  # type: ignore[arg-type]
    review.act(ids[3], 0, Action(kind="reject"))
    second = tmp_path / "second"
    done = typed("train", "--from-review", first, "--out", second, "segment.fit.lr=1e-9", "localize.fit.lr=1e-9")
    assert done.returncode == 0, done.stderr
    assert "plan: 1 photos teach by masks" in done.stdout
    assert "labels: review: 1 masks mended and accepted" in done.stdout
    assert "changed: " in done.stdout
    labels = {id: read_label_png(second / "labels" / f"{id}.png") for id in ids}
    assert (labels[ids[0]] == review.mask(ids[0], review.document(ids[0]).now)).all()
    assert (labels[ids[1]][50, 2:60] == 1).all()
    assert (labels[ids[2]][50, 2:60] == 2).all()
    assert (labels[ids[3]] == 255).all(), "nothing of a rejected mask is learned"
    assert typed("masks", second, "--out", tmp_path / "masks").returncode == 0
    masks = {id: read_label_png(tmp_path / "masks" / "png" / f"{id}.png") for id in ids}
    assert (masks[ids[0]] == labels[ids[0]]).all(), "an accepted mask is among the masks"
    assert (masks[ids[1]][50, 2:60] == 1).all(), "so is what was painted"
    assert (masks[ids[2]][50, 2:60] == 2).all()
    assert set(np.unique(masks[ids[3]])) <= {0, 1, 2}, "of a rejected one the new run's own"
    (first / "review" / "learned").rename(tmp_path / "aside")
    later = typed("masks", second, "--out", tmp_path / "again")
    (tmp_path / "aside").rename(first / "review" / "learned")
    assert later.returncode == 0, "the reviewed run may be gone by now"
    for stage in ("localize", "segment"):
        old, new = (load_weights(run / stage / "model.safetensors")[0].state_dict() for run in (first, second))
        learned = [name for name in old if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
        apart = max(float((old[name].float() - new[name].float()).abs().max()) for name in learned)
        assert apart < 1e-3, "with next to no learning rate the weights are those it began with"
    assert list(differences(RunFolder.open(first), RunFolder.open(second)))[-1].startswith("masks of ")
    review.act(ids[4], 0, Action(kind="accept"))  # a person goes on meanwhile
    again = typed("train", "--from-review", first, "--out", second, "--resume")
    assert again.returncode == 0, again.stderr
    assert (second / "config.yaml").read_text().count("learned/") == 1


def test_training_again_refuses_what_does_not_fit(first: Path, tmp_path: Path) -> None:
    said = typed("train", "--from-review", first, "--out", first)
    assert said.returncode == 2
    assert "is the run that was reviewed" in said.stderr
    said = typed("train", "photos", "--from-review", first)
    assert (said.returncode, "leave photos out" in said.stderr) == (2, True)
    said = typed("train")
    assert (said.returncode, "no photos given" in said.stderr) == (2, True)
    Review(RunFolder.open(first)).act("photo 6", 0, Action(kind="skip"))
    said = typed(
        "train",
        "--from-review",
        first,
        "--out",
        tmp_path / "x",
        "backbone.name=resnet18",
        "localize.backbone.name=resnet18",
    )
    assert said.returncode == 2


def test_overwriting_a_run_leaves_what_a_person_did(tmp_path: Path) -> None:
    from small_runs import write_squares

    write_squares(tmp_path / "photos")
    command = ("train", tmp_path / "photos", "--out", tmp_path / "run", "--recipe", "cam", *SETTINGS, "segment=null")
    assert typed(*command).returncode == 0
    review = Review(RunFolder.open(tmp_path / "run"))
    id = sorted(review.photos)[0]
    review.act(id, 0, Action(kind="paint", label=2, points=(5, 5), width=9))
    painted = review.mask(id, review.document(id).now)
    assert typed("review", tmp_path / "run", "--list").returncode == 0
    done = typed(*command, "--overwrite")
    assert done.returncode == 0, done.stderr
    again = Review(RunFolder.open(tmp_path / "run"))
    assert (again.mask(id, again.document(id).now) == painted).all()


@pytest.mark.parametrize("to", ["cvat", "label_studio", "labelme", "coco"])
def test_masks_go_to_another_tool_and_come_back(to: str, tmp_path: Path) -> None:
    review = Review(RunFolder.open(write_run(tmp_path, 6)))
    review.act("05", 0, Action(kind="paint", label=2, points=(5, 5, 40, 5), width=9))
    found = review_list(review.run)
    before = {id: review.mask(id, review.document(id).now) for id in review.photos}
    written = send(review, found, to, tmp_path / "out", most=3)
    sent = [row.id for row in found.photos[:3]]
    taken = take(review, written.labels)
    assert taken == (0, 3), written.lost
    states = {id: review.document(id).now.state for id in review.photos}
    assert {id for id, state in states.items() if state == "accepted"} == set(sent)
    for id in sent:
        assert (review.mask(id, review.document(id).now) == before[id]).all()


def test_what_was_mended_elsewhere_is_taken(tmp_path: Path) -> None:
    run = write_run(tmp_path, 4)
    out = tmp_path / "out"
    said = typed("review", run, "--to", "labelme", "--out", out, "--worst", 1)
    assert said.returncode == 0, said.stderr
    (file,) = (out / "labelme").rglob("*.json")
    id = file.stem
    index = int(id)
    content = json.loads(file.read_text())
    for shape in content["shapes"]:
        shape["points"] = [[x - index, y] for x, y in shape["points"]]
    file.write_text(json.dumps(content))
    said = typed("review", run, "--from", out / "labelme")
    assert (said.returncode, said.stdout) == (0, "1 masks mended and accepted, 0 accepted as they were\n"), said.stderr
    review = Review(RunFolder.open(run))
    true = thing(index, 1 + index % 3)[1]
    assert (review.mask(id, review.document(id).now) == true).mean() > 0.99, "it was off by so many pixels"
    document = review.act(id, review.document(id).revision, Action(kind="undo"))
    assert document.now.mask == 0
    assert (review.base(id) == shifted(true, index)).all()


def test_mended_files_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path, 4)
    review = Review(RunFolder.open(run))
    out = tmp_path / "out"
    send(review, review_list(review.run), "labelme", out, most=2)
    files = sorted((out / "labelme").rglob("*.json"))
    kept = {file: file.read_text() for file in files}
    content = json.loads(kept[files[0]])
    content["shapes"][0]["label"] = "zebra"
    files[0].write_text(json.dumps(content))
    said = typed("review", run, "--from", out / "labelme")
    assert said.returncode == 2
    assert "zebra" in said.stderr
    content = json.loads(kept[files[0]]) | {"imageWidth": 30, "imageHeight": 20}
    files[0].write_text(json.dumps(content))
    said = typed("review", run, "--from", out / "labelme")
    assert said.returncode == 2
    assert "30 x 20" in said.stderr
    assert not (run / "review" / "photos").exists()
    for words, why in (
        (("--to", "cvat"), "give both"),
        (("--to", "excel", "--out", tmp_path / "x"), "excel"),
        (("--to", "cvat", "--out", out), "holds labels that were written before"),
        (("--from", tmp_path / "nothing.json"), "nothing.json"),
    ):
        said = typed("review", run, *words)
        assert (said.returncode, why in said.stderr) == (2, True), said.stderr


def test_a_review_that_is_open_is_not_written_beside(tmp_path: Path) -> None:
    from hintseg import api
    from hintseg.files.lock import locked

    run = write_run(tmp_path, 3)
    review = Review(RunFolder.open(run))
    written = send(review, review_list(review.run), "cvat", tmp_path / "out", most=2)
    with locked(review.folder), pytest.raises(RunError, match="is being written to by"):
        api.take_review(run, written.labels)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ConfigError, match="--to takes"):
        api.send_review(run, tmp_path / "out", to="mvtec")
