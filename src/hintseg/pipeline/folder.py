"""The run folder: it explains itself, is never overwritten unasked, and can be gone on with after any stop."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from hintseg.config.loader import dump_config, parse_config
from hintseg.config.run import STAGES, RunConfig
from hintseg.errors import LabelError, RunError, did_you_mean
from hintseg.hints.masks import truth_ids
from hintseg.registry import methods, resolve
from hintseg.types import Hints, HintSet, Photo, Supervision


@dataclass(frozen=True)
class Split:
    """The photos a run learns from and those it is judged on."""

    train: tuple[Photo, ...]
    val: tuple[Photo, ...]


class RunFolder:
    """A run on disk: settings, manifest, photos, metrics and one folder per stage."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return the run at `path`.

        Raises:
            RunError: There is no run.
        """
        path = Path(path)
        if not (path / "config.yaml").is_file():
            raise RunError(
                f"{path} is no run folder (no config.yaml in it); `hintseg train DATA --out {path}` makes one"
            )
        return cls(path)

    @property
    def config(self) -> RunConfig:
        """The run's resolved settings."""
        return parse_config(yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8")))

    @property
    def manifest(self) -> dict[str, Any]:
        """Inputs with hashes, versions, seed, and what each stage did."""
        return dict(read_json(self.path / "manifest.json"))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return tuple(self.manifest["data"]["classes"])

    @property
    def background(self) -> bool:
        """Whether pixels may belong to no class."""
        return bool(self.manifest["data"]["background"])

    def stage(self, name: str) -> Path:
        """Return the folder of a stage, created if need be."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def done(self, stage: str) -> bool:
        """Return whether a stage is complete."""
        return bool(self.manifest["stages"].get(stage, {}).get("done"))

    def update_stage(self, stage: str, **facts: Any) -> None:
        """Add facts about a stage to the manifest."""
        manifest = self.manifest
        manifest["stages"].setdefault(stage, {}).update(facts)
        write_json(self.path / "manifest.json", manifest)

    def add_metrics(self, stage: str, rows: Sequence[dict[str, Any]]) -> None:
        """Replace the metric rows of a stage."""
        path = self.path / "metrics.json"
        kept = [row for row in read_json(path) if row["stage"] != stage] if path.is_file() else []
        write_json(path, [*kept, *rows])

    def masks_of_photos(self) -> tuple[str, Path] | None:
        """Return the last finished stage that made masks of the training photos, and their folder."""
        for stage in ("refine", "localize", "propose", "segment"):
            if (self.path / stage / "masks").is_dir() and self.done(stage):
                # Only a one-stage segmenter makes masks of what it learned from.
                return (stage, self.path / stage / "masks") if stage != "segment" or one_stage(self.config) else None
        return None


def metric_row(
    stage: str,
    kind: str,
    split: str,
    protocol: str,
    *,
    photos: int,
    miou: float,
    iou: Mapping[str, float | None],
    pixel_accuracy: float | None = None,
    boundary_iou: float | None = None,
    threshold: float | None = None,
    oracle: bool = False,
) -> dict[str, Any]:
    """Return one row of metrics.json: `miou` over `photos`, `iou` by class name, all shares; `oracle` saw the truth."""
    return {
        "stage": stage,
        "kind": kind,
        "split": split,
        "photos": photos,
        "miou": miou,
        "iou": dict(iou),
        "pixel_accuracy": pixel_accuracy,
        "boundary_iou": boundary_iou,
        "threshold": threshold,
        "oracle": oracle,
        "protocol": protocol,
    }


def by_class(classes: Sequence[str], iou: Iterable[float]) -> dict[str, float | None]:
    """Return the IoU of background and the classes by name, None for a class that does not occur (NaN)."""
    return {
        name: None if isnan(value) else float(value) for name, value in zip(["background", *classes], iou, strict=True)
    }


def one_stage(config: RunConfig) -> bool:
    """Return whether the segmenter itself learns from something other than masks, so that it needs no stage before."""
    if config.segment is None:
        return False
    return Supervision.MASKS not in resolve("method", config.segment.method, methods()).supervision


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        RunError: The file is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); the run folder is damaged, start it afresh") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error


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


def create(
    out: Path, config: RunConfig, hint_set: HintSet, split: Split, *, resume: bool = False, overwrite: bool = False
) -> RunFolder:
    """Make a run folder, or go on with the one that is there.

    Raises:
        RunError: The folder holds something and neither `resume` nor `overwrite` was asked for; or `resume` with other
            settings or labels than the run began with; or the folder cannot be written.
    """
    run = RunFolder(out)
    occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
    is_run = (out / "config.yaml").is_file()
    known = truth_ids(hint_set)
    photos = [_row(p, "train", p.id in known) for p in split.train] + [_row(p, "val", True) for p in split.val]
    digest = hashlib.sha256(json.dumps(photos, sort_keys=True).encode()).hexdigest()
    if occupied and resume and is_run:
        _same_run(run, config, digest)
        return run
    if occupied and overwrite and is_run:
        shutil.rmtree(out)
    elif occupied:
        ways = "--resume goes on with it, --overwrite starts it afresh" if is_run else "choose another --out"
        raise RunError(f"{out} is not empty; {ways}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "photos.json").write_text(json.dumps(photos), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror}; choose another --out") from error
    hashes = {"hints": digest}
    if config.data.labels is not None and config.data.labels.is_file():
        hashes[str(config.data.labels)] = hashlib.sha256(config.data.labels.read_bytes()).hexdigest()
    write_json(
        out / "manifest.json",
        {
            "hintseg": version("hintseg"),
            "python": platform.python_version(),
            "torch": version("torch"),
            "lightning": version("lightning"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["hintseg", *sys.argv[1:]]),
            "seed": config.seed,
            "learns_from": "tags" if config.localize is not None or one_stage(config) else "masks",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "data": {
                "name": hint_set.name,
                "path": str(config.data.path),
                "format": config.data.format,
                "classes": list(hint_set.classes),
                "background": hint_set.background,
                "notes": list(hint_set.notes),
                "hashes": hashes,
            },
            "stages": {stage: {"done": False} for stage in STAGES if getattr(config, stage) is not None},
        },
    )
    write_json(out / "metrics.json", [])
    (out / "config.yaml.part").write_text(dump_config(config), encoding="utf-8")
    (out / "config.yaml.part").replace(out / "config.yaml")
    return run


def _same_run(run: RunFolder, config: RunConfig, digest: str) -> None:
    old, new = run.config.model_dump(exclude={"trainer"}), config.model_dump(exclude={"trainer"})
    if old != new:
        changed = [key for key in old if old[key] != new[key]]
        raise RunError(
            f"{run.path} was begun with other settings ({', '.join(changed)} differ); "
            "resume with the same ones, or choose another --out"
        )
    if run.manifest["data"]["hashes"]["hints"] != digest:
        raise RunError(f"the photos or labels changed since {run.path} was begun; choose another --out")


def _row(photo: Photo, split: str, truth: bool) -> dict[str, Any]:
    hints: Hints = photo.hints
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
