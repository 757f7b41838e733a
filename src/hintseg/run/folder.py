"""The run folder: where each file lies, and its content, typed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hintseg.config.loader import parse_config
from hintseg.config.run import STAGES, RunConfig
from hintseg.errors import ConfigError, RunError
from hintseg.files.atomic import write_json
from hintseg.files.parse import read_yaml
from hintseg.run.history import Event, read_history
from hintseg.run.schema import (
    DataFacts,
    Manifest,
    MetricRow,
    PhotoRow,
    SeenSettings,
    Show,
    Shown,
    Stage,
    StageFacts,
    Sweep,
    checked,
    read_checked,
)
from hintseg.store.masks import MaskStore

BASELINE = "baseline"
"""Folder in the run folder where a wrapper's baseline is trained: a run folder of its own."""


class MadeMasks(NamedTuple):
    """The masks of a run's training photos: the stage that made them, and their folder."""

    stage: Stage
    folder: Path


class RunFolder:
    """A run on disk.

    Attributes:
        path: The folder.
    """

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
            if (path / "manifest.json").is_file():
                raise RunError(f"{path / 'config.yaml'} is missing; restore it, or start the run afresh (--overwrite)")
            if (path / "run" / "config.yaml").is_file():
                raise RunError(f"{path} holds the masks of the run {path / 'run'}; name that")
            raise RunError(
                f"{path} is no run folder (no config.yaml in it); `hintseg train DATA --out {path}` makes one"
            )
        return cls(path)

    # What is in it. A run may go on meanwhile, so only what never changes is kept.

    @property
    def config(self) -> RunConfig:
        """The run's resolved settings."""
        try:
            return parse_config(self._settings())
        except ConfigError as error:
            raise RunError(f"{self.path / 'config.yaml'} is damaged or edited: {error}") from error

    @property
    def seen(self) -> SeenSettings:
        """The settings as far as reports need them."""
        return checked(self.path / "config.yaml", self._settings(), SeenSettings)

    def _settings(self) -> dict[str, Any]:
        path = self.path / "config.yaml"
        return checked(path, read_yaml(path, RunError, "restore the file, or start the run afresh"), dict[str, Any])

    @property
    def manifest(self) -> Manifest:
        """What made the run, and what each stage did."""
        return read_checked(self.path / "manifest.json", Manifest)

    @cached_property
    def data(self) -> DataFacts:
        """The data set the run learned from."""
        return self.manifest.data

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K foreground classes; class id k is ``classes[k - 1]``."""
        return self.data.classes

    @property
    def background(self) -> bool:
        """Whether pixels may belong to no class."""
        return self.data.background

    @property
    def stages(self) -> dict[Stage, StageFacts]:
        """What each stage did, in the order they run."""
        found = self.manifest.stages
        return {name: found[name] for name in STAGES if name in found}

    @cached_property
    def photos(self) -> list[PhotoRow]:
        """The photos and their hints, those that teach first."""
        rows = read_checked(self.path / "photos.json", list[PhotoRow])
        for row in rows:
            if any(not 1 <= tag <= len(self.classes) for tag in row.tags or ()):
                raise RunError(
                    f"{self.path / 'photos.json'} is damaged: tags {row.tags} of photo '{row.id}' are no classes"
                )
        return rows

    @property
    def metrics(self) -> list[MetricRow]:
        """The results of all stages."""
        return read_checked(self.path / "metrics.json", list[MetricRow])

    @property
    def history(self) -> list[Event]:
        """When the run began, was gone on with, and ended its stages."""
        return read_history(self.path / "history.csv")

    def sweep(self, stage: Stage) -> Sweep | None:
        """Return the background threshold of a stage's maps; None where it has none yet."""
        path = self.path / stage / "sweep.json"
        return read_checked(path, Sweep) if path.is_file() else None

    def table(self, stage: Stage, name: str = "log.csv") -> dict[str, list[float]]:
        """Return the columns of a stage's CSV file, NaN where a cell is blank; empty where there is no file."""
        return _columns(self.path / stage / name)

    def shows(self, *kinds: str) -> list[tuple[Stage, Show]]:
        """Return what the stages have to show of some kinds, in the order they run."""
        return [(stage, show) for stage, facts in self.stages.items() for show in facts.shows if show.kind in kinds]

    def qualities(self, stage: Stage) -> dict[str, float]:
        """Return the quality scores, 0..1, that a stage gave its own masks, by photo id."""
        folder = self.path / stage / "masks"
        if not (folder / "manifest.json").is_file():
            return {}
        return MaskStore.load(folder).qualities()

    # What is done.

    def done(self, stage: Stage) -> bool:
        """Return whether a stage is complete."""
        facts = self.stages.get(stage)
        return facts is not None and facts.done

    @property
    def one_stage(self) -> bool:
        """Whether the segmenter itself learned from tags, so that there is no stage before it."""
        return self.manifest.learns_from == "tags" and list(self.stages) == ["segment"]

    @property
    def labels_learned(self) -> bool:
        """Whether the segmenter made the last masks of the photos that it learned from: in one stage, or in rounds."""
        facts = self.stages.get("segment")
        return facts is not None and facts.done and (facts.learned_masks or self.one_stage)

    @property
    def baseline(self) -> RunFolder | None:
        """The run of a wrapper's baseline; None for a run without, or where it is gone."""
        wrapper = self.seen.wrapper
        path = None if wrapper is None else wrapper.baseline or self.path / BASELINE
        return RunFolder(path) if path is not None and (path / "manifest.json").is_file() else None

    @property
    def shown(self) -> Shown | None:
        """What the report says of a wrapper's pictures, `wrapper_picture`; None where there are none."""
        path = self.path / "localize" / "wrapper.json"
        return read_checked(path, Shown) if path.is_file() and self.wrapper_picture.is_file() else None

    @property
    def wrapper_picture(self) -> Path:
        """Where a wrapper draws, whether it did or not."""
        return self.path / "localize" / "wrapper.png"

    def masks_of_photos(self) -> MadeMasks | None:
        """Return the last finished stage that made masks of the training photos, and their folder."""
        segmented = (self.path / "segment" / "masks").is_dir() and self.labels_learned
        own: tuple[Stage, ...] = ("segment",) if segmented else ()
        return self.masks_of((*own, "refine", "localize", "propose"))

    def masks_of(self, order: Sequence[Stage]) -> MadeMasks | None:
        """Return the first of some stages that is finished and made masks of the training photos, and their folder."""
        for stage in order:
            if (self.path / stage / "masks").is_dir() and self.done(stage):
                return MadeMasks(stage, self.path / stage / "masks")
        return None

    # Where it lies.

    def stage(self, name: str) -> Path:
        """Return the folder of a stage, created if need be."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def mask_path(self, stage: Stage, photo_id: str) -> Path:
        """Return where a stage's mask of a photo lies, whether it exists or not."""
        return self.path / stage / "masks" / f"{photo_id}.png"

    def truth_path(self, photo_id: str) -> Path:
        """Return where a photo's true mask lies, whether it exists or not."""
        return self.path / "truth" / f"{photo_id}.png"

    def label_path(self, photo_id: str) -> Path:
        """Return where what the segmenter learns of a photo lies, whether it exists or not."""
        return self.path / "labels" / f"{photo_id}.png"

    def maps_path(self, photo_id: str, stages: Sequence[Stage]) -> Path | None:
        """Return where one of `stages` left a photo's class maps; None where none did."""
        paths = [self.path / stage / "maps" / f"{photo_id}.npz" for stage in ("localize", "segment") if stage in stages]
        return next((path for path in paths if path.is_file()), None)

    # What is written.

    def write_manifest(self, manifest: Manifest) -> None:
        """Write ``manifest.json``."""
        write_json(self.path / "manifest.json", manifest.model_dump(mode="json"))

    def update_stage(self, stage: Stage, **facts: Any) -> None:
        """Add facts about a stage to the manifest."""
        manifest = self.manifest
        manifest.stages[stage] = StageFacts.model_validate({**dict(manifest.stages.get(stage, StageFacts())), **facts})
        self.write_manifest(manifest)

    def add_metrics(self, stage: Stage, rows: Sequence[MetricRow]) -> None:
        """Replace the metric rows of a stage."""
        path = self.path / "metrics.json"
        kept = [row for row in self.metrics if row.stage != stage] if path.is_file() else []
        write_json(path, [row.model_dump(mode="json") for row in [*kept, *rows]])

    def write_shown(self, shown: Shown) -> None:
        """Write what the report says of a wrapper's pictures."""
        write_json(self.path / "localize" / "wrapper.json", shown.model_dump())

    def write_sweep(self, stage: Stage, sweep: Sweep) -> None:
        """Write a stage's ``sweep.json``."""
        write_json(self.path / stage / "sweep.json", sweep.model_dump(mode="json"))


def by_class(classes: Sequence[str], iou: Iterable[float]) -> dict[str, float | None]:
    """Return the IoU of background and the classes by name, NaN for a class that does not occur.

    Example:
        >>> by_class(["cow"], [0.5, math.nan])
        {'background': 0.5, 'cow': nan}
    """
    return {name: float(value) for name, value in zip(["background", *classes], iou, strict=True)}


def _columns(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({error}); restore the file, or delete it") from error
    names = [name for name in (rows[0] if rows else {}) if name]
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan
