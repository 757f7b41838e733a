"""How a run begins: which photos teach and which judge, and the run folder, made or gone on with."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hintseg.config.loader import dump_config
from hintseg.config.run import STAGES, RunConfig
from hintseg.errors import LabelError, RunError, did_you_mean
from hintseg.files.atomic import whole_file, write_json
from hintseg.files.owned import owned, refuse_inputs
from hintseg.hints.masks import truth_ids
from hintseg.registry import methods, resolve
from hintseg.run.folder import RunFolder
from hintseg.run.history import add_event
from hintseg.run.schema import DataFacts, Manifest, StageFacts
from hintseg.types import HintSet, Photo, Supervision


@dataclass(frozen=True)
class Split:
    """The photos a run learns from and those it is judged on."""

    train: tuple[Photo, ...]
    val: tuple[Photo, ...]


def one_stage(config: RunConfig) -> bool:
    """Return whether the segmenter itself learns from something other than masks, so that it needs no stage before."""
    if config.segment is None:
        return False
    return Supervision.MASKS not in resolve("method", config.segment.method, methods()).supervision


def split_photos(hint_set: HintSet, config: RunConfig) -> Split:
    """Choose the training and validation photos.

    Raises:
        LabelError: A split that the data does not have, or no photo with the hints that the recipe learns from.
    """

    def named(name: str, setting: str) -> set[str]:
        if name == "all":
            return {photo.id for photo in hint_set.photos}
        if name not in hint_set.splits:
            known = sorted(hint_set.splits)
            raise LabelError(
                f"the data has no split '{name}'{did_you_mean(name, known)}. It has: {', '.join(known) or 'none'}; "
                f"set data.{setting} to one of them, to all or to auto"
            )
        return set(hint_set.splits[name])

    learn, judge = config.data.train, config.data.val
    if learn == "auto":
        learn = "train" if "train" in hint_set.splits else "all"
    if judge == "auto":
        judge = "val" if "val" in hint_set.splits else ""
    training = named(learn, "train")
    validation = named(judge, "val") if judge else set()
    known = truth_ids(hint_set)
    judged = validation & known if config.segment is not None else set()  # only a segmenter is judged on new photos
    usable = [_with_tags(photo) for photo in hint_set.photos if photo.id in training]
    if config.propose is not None:
        need, some = "boxes", [bool(p.hints.boxes) for p in usable]
        train = tuple(p for p in usable if p.hints.boxes is not None)
    elif config.localize is not None or one_stage(config):
        need, some = "tags, boxes or points", [bool(p.hints.tags) for p in usable]
        train = tuple(p for p in usable if p.hints.tags is not None)
    else:  # nothing to localize: the segmenter learns from true masks
        need, some = "a mask", [p.id in known for p in usable]
        train = tuple(p for p in usable if p.id in known)
    val = tuple(p for p in map(_with_tags, hint_set.photos) if p.id in judged)
    if not train:
        raise LabelError(
            f"none of the {len(usable)} training photos of {config.data.path} has {need}, which recipe "
            f"'{config.recipe}' learns from; `hintseg check {config.data.path}` shows what is there"
        )
    if not any(some):
        raise LabelError(f"all {len(train)} training photos are negatives: no photo shows any of the classes")
    return Split(train, val)


def _with_tags(photo: Photo) -> Photo:
    """Derive tags from stronger hints where they are not given."""
    hints = photo.hints
    if hints.tags is not None:
        return photo
    found: set[int] = set()
    if hints.boxes is not None:
        found |= {box.label for box in hints.boxes if not box.crowd}
    if hints.points is not None:
        found |= {point.label for point in hints.points if point.label}
    if hints.boxes is None and hints.points is None:
        return photo
    return replace(photo, hints=replace(hints, tags=frozenset(found)))


@contextmanager
def begin(
    out: Path, config: RunConfig, hint_set: HintSet, split: Split, *, resume: bool = False, overwrite: bool = False
) -> Iterator[RunFolder]:
    """Make a run folder, or go on with the one that is there; nobody else writes into it while the block runs.

    Raises:
        RunError: The folder holds something and neither `resume` nor `overwrite` was asked for; or `resume` with other
            settings or labels than the run began with; or what is read lies in a folder to be overwritten; or the
            folder cannot be written, or another process writes into it.
    """
    with owned(out, "run") as folder:
        run = RunFolder(out)
        photos = _rows(hint_set, split)
        digest = hashlib.sha256(json.dumps(photos, sort_keys=True).encode()).hexdigest()
        begun = (out / "config.yaml").is_file()  # the last file that is written at the beginning
        if begun and resume:
            _go_on(run, config, digest)
            add_event(out / "history.csv", "resumed")
        else:
            if begun and not overwrite:
                raise RunError(f"{out} is not empty; --resume goes on with it, --overwrite starts it afresh")
            refuse_inputs(out, _inputs(config, hint_set))
            folder.clear()
            _write_beginning(run, config, hint_set, photos, digest)
        yield run


def _write_beginning(
    run: RunFolder, config: RunConfig, hint_set: HintSet, photos: list[dict[str, Any]], digest: str
) -> None:
    hashes = {"hints": digest}
    if config.data.labels is not None and config.data.labels.is_file():
        hashes[str(config.data.labels)] = hashlib.sha256(config.data.labels.read_bytes()).hexdigest()
    add_event(run.path / "history.csv", "began")
    write_json(run.path / "photos.json", photos)
    run.write_manifest(
        Manifest(
            hintseg=version("hintseg"),
            python=platform.python_version(),
            torch=version("torch"),
            lightning=version("lightning"),
            seed=config.seed,
            learns_from=_learns_from(config),
            data=DataFacts(
                name=hint_set.name,
                path=str(config.data.path),
                format=config.data.format,
                classes=hint_set.classes,
                background=hint_set.background,
                notes=hint_set.notes,
                hashes=hashes,
            ),
            stages={stage: StageFacts() for stage in STAGES if getattr(config, stage) is not None},
        )
    )
    write_json(run.path / "metrics.json", [])
    _write_config(run, config)


def _write_config(run: RunFolder, config: RunConfig) -> None:
    with whole_file(run.path / "config.yaml") as file:
        file.write(dump_config(config).encode())


def _go_on(run: RunFolder, config: RunConfig, digest: str) -> None:
    """Check that a run may go on with these settings; how stages train that are not done may change."""
    old, new = run.config.model_dump(exclude={"trainer"}), config.model_dump(exclude={"trainer"})
    for block in (old, new):
        for stage in STAGES:
            if not run.done(stage) and block[stage] is not None:
                block[stage].pop("fit", None)
    if old != new:
        changed = [key for key in old if old[key] != new[key]]
        raise RunError(
            f"{run.path} was begun with other settings ({', '.join(changed)} differ); "
            "resume with the same ones, or choose another --out"
        )
    if run.data.hashes.get("hints") != digest:
        raise RunError(f"the photos or labels changed since {run.path} was begun; choose another --out")
    if config != run.config:
        _write_config(run, config)


def _inputs(config: RunConfig, hint_set: HintSet) -> Iterable[Path]:
    """Return every file and folder that the run reads, as far as settings and labels name them."""
    yield config.data.path
    if config.data.labels is not None:
        yield config.data.labels
    if config.recipe.endswith((".yaml", ".yml")):
        yield Path(config.recipe)
    if config.csd is not None and config.csd.baseline is not None:
        yield config.csd.baseline
    yield from _weights(config.model_dump(mode="json"))
    for photo in hint_set.photos:
        yield photo.path
        yield from (found.path for found in (photo.hints.scribbles, photo.hints.mask) if found is not None)


def _weights(settings: dict[str, Any]) -> Iterator[Path]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _weights(value)
        elif key == "weights" and value not in ("pretrained", "random"):
            yield Path(value)


def _learns_from(config: RunConfig) -> Any:
    if config.propose is not None:
        return "boxes"
    return "tags" if config.localize is not None or one_stage(config) else "masks"


def _rows(hint_set: HintSet, split: Split) -> list[dict[str, Any]]:
    known = truth_ids(hint_set)
    return [_row(p, "train", p.id in known) for p in split.train] + [_row(p, "val", True) for p in split.val]


def _row(photo: Photo, split: str, truth: bool) -> dict[str, Any]:
    hints = photo.hints
    return {
        "id": photo.id,
        "path": str(photo.path.resolve()),
        "split": split,
        "tags": None if hints.tags is None else sorted(hints.tags),
        "boxes": None if hints.boxes is None else [[b.label, *b.corners] for b in hints.boxes if not b.crowd],
        "points": None if hints.points is None else [[p.label, p.x, p.y] for p in hints.points],
        "scribbles": None if hints.scribbles is None else str(hints.scribbles.path),
        "truth": truth,
    }
