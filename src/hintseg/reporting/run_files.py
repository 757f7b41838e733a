"""What a run folder holds, read with everything but its manifest allowed to be missing."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hintseg.errors import RunError

MASK_KINDS = {"propose": "mask from boxes", "localize": "seed", "refine": "pseudo mask", "segment": "prediction"}
"""What the masks of each stage are called, in the order the stages run."""

SWEPT_KINDS = MASK_KINDS | {"segment": "seed"}
"""What each stage cuts with a background threshold; a segmenter that learns from tags makes seeds on its way."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What reports read of a run.

    Attributes:
        path: The folder.
        manifest: ``manifest.json``.
        config: ``config.yaml``; empty where missing.
        photos: ``photos.json``; empty where missing.
        all_metrics: ``metrics.json``; empty where missing.
    """

    path: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    photos: list[dict[str, Any]]
    all_metrics: list[dict[str, Any]]

    @property
    def classes(self) -> list[str]:
        """Names of the K foreground classes; class id k is ``classes[k - 1]``."""
        return list(self.manifest.get("data", {}).get("classes", []))

    @property
    def background(self) -> bool:
        """Whether pixels may belong to no class."""
        return bool(self.manifest.get("data", {}).get("background", True))

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """What the manifest says of each stage, in the order the stages run."""
        stages = self.manifest.get("stages", {})
        return {name: stages[name] for name in MASK_KINDS if name in stages}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Measured results; those without a class to measure are left out."""
        return [m for m in self.all_metrics if m.get("miou") is not None and not math.isnan(m["miou"])]

    @property
    def baseline(self) -> Path | None:
        """The run folder of CSD's stage one; None for a run without CSD, or where it is gone."""
        csd = self.config.get("csd")
        path = None if csd is None else Path(csd.get("baseline") or self.path / "baseline")
        return path if path is not None and (path / "manifest.json").is_file() else None

    def done(self, stage: str) -> bool:
        """Return whether a stage is complete."""
        return bool(self.stages.get(stage, {}).get("done"))

    def mask_path(self, stage: str, photo_id: str) -> Path:
        """Return where a stage's mask of a photo lies, whether it exists or not."""
        return self.path / stage / "masks" / f"{photo_id}.png"

    def truth_path(self, photo_id: str) -> Path:
        """Return where a photo's true mask lies, whether it exists or not."""
        return self.path / "truth" / f"{photo_id}.png"

    @property
    def one_stage(self) -> bool:
        """Whether the segmenter itself learned from tags, so that there is no stage before it."""
        return self.manifest.get("learns_from") == "tags" and list(self.stages) == ["segment"]

    def maps_path(self, photo_id: str, stages: Sequence[str]) -> Path | None:
        """Return where one of `stages` left a photo's class maps; None where none did."""
        paths = [self.path / stage / "maps" / f"{photo_id}.npz" for stage in ("localize", "segment") if stage in stages]
        return next((path for path in paths if path.is_file()), None)

    def branch_masks(self, photo_id: str) -> list[tuple[str, Path]]:
        """Return what the classification branch of a one-stage run made of a photo: (caption, mask) pairs."""
        made = (("seed", "seeds"), ("Branch-C", "branch_c"))
        paths = [(caption, self.path / "segment" / name / f"{photo_id}.png") for caption, name in made]
        return [(caption, path) for caption, path in paths if path.is_file()]

    def background_path(self, photo_id: str) -> Path:
        """Return where the background map of the segmentation branch lies, whether it exists or not."""
        return self.path / "segment" / "background" / f"{photo_id}.png"

    def objects_path(self, step: str, photo_id: str) -> Path:
        """Return where a photo's objects cut out of their boxes lie: `grabcut`, `cfs` or `instances`."""
        return self.path / "propose" / step / f"{photo_id}.npz"

    def qualities(self, stage: str) -> dict[str, float]:
        """Return the quality scores, 0..1, that a stage gave its own masks, by photo id."""
        manifest = _read_json(self.path / stage / "masks" / "manifest.json", {})
        masks = manifest.get("masks", {})
        return {name: float(m["quality"]) for name, m in masks.items() if m.get("quality") is not None}

    def sweep(self, stage: str) -> dict[str, Any]:
        """Return a stage's ``sweep.json``, the background threshold and where it came from; empty where missing."""
        found: dict[str, Any] = _read_json(self.path / stage / "sweep.json", {})
        return found

    def log(self, stage: str) -> dict[str, list[float]]:
        """Return the columns of a stage's ``log.csv``, NaN where a cell is blank; empty where there is no file."""
        return self._columns(self.path / stage / "log.csv")

    def curves(self) -> dict[str, list[float]]:
        """Return the columns of a one-stage run's ``curves.csv``: both branches over the training; empty without."""
        return self._columns(self.path / "segment" / "curves.csv")

    def _columns(self, path: Path) -> dict[str, list[float]]:
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in (rows[0] if rows else {}) if name]
        return {name: [_number(row.get(name)) for row in rows] for name in names}


def read_run(path: Path) -> RunFiles:
    """Read the files of a run folder that say what was done and how well it went.

    Raises:
        RunError: `path` is no run folder, or one of its files is not readable as what it should be.
    """
    if not (path / "manifest.json").is_file():
        raise RunError(f"{path} is no run folder: it has no manifest.json. Give the folder that training wrote (--out)")
    return RunFiles(
        path=path,
        manifest=_read_json(path / "manifest.json", {}),
        config=_read_yaml(path / "config.yaml"),
        photos=_read_json(path / "photos.json", []),
        all_metrics=_read_json(path / "metrics.json", []),
    )


def _read_json(path: Path, missing: Any) -> Any:
    if not path.is_file():
        return missing
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}. Run the stage that writes it again") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}. Restore it from the settings of the run") from error
    return found if isinstance(found, dict) else {}


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan
