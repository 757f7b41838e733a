"""What the files of a run folder hold. They are checked against these models whenever they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from hintseg.config.run import TestConfig
from hintseg.config.settings import MapsConfig
from hintseg.errors import RunError
from hintseg.files.parse import read_json
from hintseg.registry import WRAPPERS

Stage = Literal["propose", "localize", "refine", "segment"]

Split = Literal["train", "val"]

MASK_KINDS: dict[Stage, str] = {
    "propose": "mask from boxes",
    "localize": "seed",
    "refine": "pseudo mask",
    "segment": "prediction",
}
"""What the masks of each stage are called, in the order the stages run."""

SWEPT_KINDS: dict[Stage, str] = {**MASK_KINDS, "segment": "seed"}
"""What each stage cuts with a background threshold; a segmenter that learns from tags makes seeds on its way."""

Share = Annotated[float, Field(ge=0, le=1)]
Measured = Annotated[Share | None, BeforeValidator(lambda value: None if value != value else value)]
"""0..1; None where nothing was measured (NaN)."""

Label = Annotated[int, Field(ge=0, le=254)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
T = TypeVar("T")


MADE_AS: Literal[1] = 1
"""Part of every fingerprint: raised where stages make something else of equal settings, or files hold other things."""


class Facts(BaseModel):
    """Base of what is read from a run: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFacts(Facts):
    """The data set that a run learned from.

    Attributes:
        name: Its name, for titles.
        path: Its folder.
        format: The label format, or `auto`.
        classes: Names of the K foreground classes; class id k is ``classes[k - 1]``.
        background: Whether pixels may belong to no class.
        notes: What the reader mapped or skipped, one sentence each.
        plan: How many photos teach by what, and how many are left out and why, one sentence each.
        hashes: SHA-256 of the hints (`hints`), and of a label file by its path.
    """

    name: str
    path: str
    format: str
    classes: tuple[str, ...]
    background: bool
    notes: tuple[str, ...]
    plan: tuple[str, ...]
    hashes: dict[str, str]


class Show(Facts):
    """Something that a stage wrote beside its masks, for the report to show.

    Attributes:
        folder: Where it lies below the stage's folder; for a `curve` the file.
        title: Caption of the pictures; heading of `rows` and `curve`.
        note: What stands with a heading, in sentences.
        kind: Beside the photo's mask: `mask`, ``ID.png`` of labels; `heat`, ``ID.png`` of grey values; `objects`,
            ``ID.npz`` (see `hintseg.store.instances`). In a section of its own: `rows`, ``ID.npz`` of points,
            ``queries`` (n, 2), shares of width and height, and a map of each, ``maps`` (n, h, w) in 0..1. With the
            training: `curve`, a CSV of ``step`` and columns of mIoU in 0..1.
        labels: The columns of a `curve` that are drawn, and what each is called.
    """

    folder: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    title: str
    note: str = ""
    kind: Literal["mask", "heat", "objects", "rows", "curve"]
    labels: dict[str, str] = {}

    def file(self, photo_id: str) -> str:
        """Return where the part of a photo lies below the stage's folder."""
        return f"{self.folder}/{photo_id}.{'png' if self.kind in ('mask', 'heat') else 'npz'}"


class StageFacts(Facts):
    """What a stage did.

    Attributes:
        done: Whether it is complete.
        method: The method's registry name.
        photos: Photos it learned from.
        steps: Optimiser steps; None where nothing is trained.
        fit: Resolved settings of the training.
        skipped: Ids of photos that could not be read.
        shows: What the report shows of it beside its masks, in this order.
        learned_masks: Of a segmenter, whether its masks are of the photos that it learned from, too.
    """

    done: bool = False
    method: str | None = None
    photos: int | None = None
    steps: int | None = None
    fit: dict[str, Any] = {}
    skipped: tuple[str, ...] = ()
    shows: tuple[Show, ...] = ()
    learned_masks: bool = False


class Manifest(Facts):
    """``manifest.json``: what made the run. Equal runs have equal manifests: times are in ``history.csv``.

    Attributes:
        hintseg: Version that began the run.
        made_as: `MADE_AS` of that version; runs of another one can be neither read nor gone on with.
        python: Likewise.
        torch: Likewise.
        lightning: Likewise.
        seed: The run's seed.
        learns_from: What kind of hint teaches, such as `boxes`, `tags`, `masks`.
        data: The data set.
        stages: What each stage did, by its name.
    """

    hintseg: str
    made_as: Literal[1]
    python: str
    torch: str
    lightning: str
    seed: int
    learns_from: str
    data: DataFacts
    stages: dict[Stage, StageFacts]


class PhotoRow(Facts):
    """One entry of ``photos.json``: a photo of one split, and its hints.

    Attributes:
        id: The photo's id.
        path: Its file.
        split: Whether it teaches or judges; a photo in both has two entries.
        tags: Class ids; None: not said.
        boxes: Rows of class id, x0, y0, x1, y1 in pixels.
        points: Rows of class id (0: background), x, y in pixels.
        scribbles: The file of its strokes.
        truth: Whether its true mask is known.
        by: The kinds of hints that label it for the segmenter; none of a photo that judges.
        bytes: Size of the file, of a photo that teaches; None in runs of before 2026-11-28.
    """

    id: str
    path: Path
    split: Split
    tags: tuple[Label, ...] | None
    boxes: tuple[tuple[Label, Finite, Finite, Finite, Finite], ...] | None
    points: tuple[tuple[Label, Finite, Finite], ...] | None
    scribbles: str | None
    truth: bool
    by: tuple[str, ...] = ()
    bytes: Annotated[int, Field(ge=0)] | None = None


class MetricRow(Facts):
    """One result, a row of ``metrics.json``.

    Attributes:
        stage: The stage that was judged.
        kind: What was judged: seed, pseudo mask, segmentation, ...
        split: Which photos.
        photos: How many.
        miou: Mean over the classes that occur, 0..1; None where none does.
        iou: By class name, 0..1; None for a class that does not occur.
        pixel_accuracy: 0..1.
        boundary_iou: 0..1.
        threshold: Background threshold of the masks.
        oracle: Whether the truth chose the threshold: then it is no result.
        protocol: How the masks were made, in words.
    """

    stage: Stage
    kind: str
    split: Split
    photos: int
    miou: Measured
    iou: dict[str, Measured]
    pixel_accuracy: Measured = None
    boundary_iou: Measured = None
    threshold: float | None = None
    oracle: bool = False
    protocol: str


class Sweep(Facts):
    """``STAGE/sweep.json``: the background threshold of a stage's maps, and what the truth says of it.

    Attributes:
        thresholds: Those tried, 0..1.
        miou: What each gives, 0..1 (None: no class occurs); None without truth.
        chosen: The one the masks were cut with; None where there is no background.
        how: Where it came from, in words.
        oracle: The one the truth would have chosen.
    """

    thresholds: tuple[float, ...]
    miou: tuple[Measured, ...] | None
    chosen: float | None
    how: str
    oracle: float | None


class NetworkSettings(BaseModel):
    """What reports say of a stage's network."""

    name: str | None = None
    weights: str | None = None
    stem: NetworkSettings | None = None


class StageSettings(BaseModel):
    """What reports say of a stage's settings."""

    method: str
    backbone: NetworkSettings | None = None
    fit: dict[str, Any] = {}


class Shown(Facts):
    """``localize/wrapper.json``: what the report says of ``wrapper.png`` beside it, the pictures of a wrapper.

    Attributes:
        name: What people call the wrapper.
        title: Heading of the pictures.
        text: What was done, in sentences.
        caption: What stands below the pictures.
    """

    name: str
    title: str
    text: str
    caption: str


class WrapperSettings(BaseModel):
    """What reports read of a wrapper's settings."""

    baseline: Path | None = None


class DataSettings(BaseModel):
    """What reports read of the settings of the data."""

    learn_masks: str | None = None
    review: Path | None = None


class SeenSettings(BaseModel):
    """``config.yaml`` as far as reports read it: no method is looked up, so no network library is imported."""

    recipe: str
    seed: int
    start: Path | None = None
    data: DataSettings = DataSettings()
    backbone: NetworkSettings
    propose: StageSettings | None = None
    localize: StageSettings | None = None
    wrapper: WrapperSettings | None = None
    maps: MapsConfig
    refine: StageSettings | None = None
    segment: StageSettings | None = None
    test: TestConfig

    @model_validator(mode="before")
    @classmethod
    def _find_wrapper(cls, raw: Any) -> Any:
        """Take the wrapper's block, whatever its name."""
        blocks = [raw[name] for name in WRAPPERS if raw.get(name) is not None] if isinstance(raw, dict) else []
        return raw | {"wrapper": blocks[0]} if blocks else raw


def read_checked(path: Path, kind: type[T]) -> T:
    """Read a JSON file of a run folder.

    Args:
        path: The file.
        kind: What it holds: one of the models here, or a list of them.

    Raises:
        RunError: It is missing, no JSON, or holds something else.
    """
    return checked(path, read_json(path, RunError, "restore the file, or start the run afresh"), kind)


def checked(path: Path, value: object, kind: type[T]) -> T:
    """Check what was read from a file of a run folder.

    Raises:
        RunError: It is not what `kind` says.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first, *rest = error.errors(include_url=False)
        place = ".".join(map(str, first["loc"])) or "the whole"
        more = f" and {len(rest)} more places" if rest else ""
        raise RunError(
            f"{path} is damaged, edited or of another version of hintseg ({place}: {first['msg']}{more}); restore the "
            "file, or start the run afresh (--overwrite, or another --out)"
        ) from error
