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
from hintseg.files.owned import OwnedFolder, owned, refuse_inputs
from hintseg.hints.masks import truth_ids
from hintseg.registry import methods, resolve
from hintseg.run.fingerprint import broken
from hintseg.run.folder import RunFolder
from hintseg.run.history import add_event
from hintseg.run.schema import DataFacts, Manifest, StageFacts
from hintseg.training.watch import Watch
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
    out: Path,
    config: RunConfig,
    hint_set: HintSet,
    split: Split,
    watch: Watch,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[RunFolder]:
    """Make a run folder, or go on with the one that is there; nobody else writes into it while the block runs.

    Going on with other settings keeps every stage that they do not touch; `watch` is told which are made again and why.

    Raises:
        RunError: The folder holds something and neither `resume` nor `overwrite` was asked for; or `resume` with other
            photos or labels than the run began with; or what is read lies in a folder to be overwritten; or the folder
            cannot be written, or another process writes into it.
    """
    with owned(out, "run") as folder:
        run = RunFolder(out)
        photos = _rows(hint_set, split)
        hints = [hint_set.classes, hint_set.background, photos]
        digest = hashlib.sha256(json.dumps(hints, sort_keys=True).encode()).hexdigest()
        begun = (out / "config.yaml").is_file()  # the last file that is written at the beginning
        if begun and resume:
            _go_on(run, folder, config, digest, watch)
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


def _go_on(run: RunFolder, folder: OwnedFolder, config: RunConfig, digest: str, watch: Watch) -> None:
    """Take what other settings touch out of the run, so that it is made again; the rest stays."""
    before = run.config
    if run.data.hashes.get("hints") != digest:
        raise RunError(f"the photos or labels changed since {run.path} was begun; choose another --out, or --overwrite")
    gone = [stage for stage in STAGES if run.done(stage) and getattr(config, stage) is None]
    if gone:
        raise RunError(
            f"{run.path} has finished {', '.join(gone)}, which the settings leave out; choose another --out, or keep it"
        )
    touched = broken(before, config)
    first = next(stage for stage in STAGES if stage in run.stages)
    if touched and touched[0].key == (first, "learn") and run.done(first):
        raise RunError(
            f"with these settings nothing of {run.path} would stay ({touched[0].why}); choose another --out, or start "
            "it afresh with --overwrite"
        )
    for part in touched:
        stage = part.key[0]
        if part.rate_only and not (run.path / stage / "model.safetensors").is_file():
            continue
        facts = run.stages.get(stage, StageFacts())
        if facts.done:
            watch.line(f"{stage} is made again{_FROM[part.key[1]]}: {part.why}")
        run.update_stage(stage, **dict(StageFacts() if part.key[1] == "learn" else facts) | {"done": False})
        run.add_metrics(stage, [])
        folder.remove(part.files)
    for stage in STAGES:
        if getattr(config, stage) is not None and stage not in run.stages:
            run.update_stage(stage, done=False)
    if config != before:
        _write_config(run, config)


_FROM = {"learn": "", "maps": " from its maps on, its network stays", "masks": " from its masks on, its maps stay"}


def _inputs(config: RunConfig, hint_set: HintSet) -> Iterable[Path]:
    """Return every file and folder that the run reads, as far as settings and labels name them."""
    yield config.data.path
    if config.data.labels is not None:
        yield config.data.labels
    if config.recipe.endswith((".yaml", ".yml")):
        yield Path(config.recipe)
    if config.wrapper is not None and config.wrapper.settings.baseline is not None:
        yield config.wrapper.settings.baseline
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
