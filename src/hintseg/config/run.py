"""The settings of a whole run, and of the refiners that do not learn."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, create_model

from hintseg.config.settings import (
    Auto,
    BackboneConfig,
    Count,
    DataConfig,
    MapsConfig,
    MethodConfig,
    Positive,
    Settings,
    TrainerConfig,
    WrapperConfig,
)
from hintseg.registry import WRAPPERS


class FreeMethod(Settings):
    """Base of the settings of what a stage may do without training a network.

    Attributes:
        method: Its registry name.
    """

    method: str


class FunctionRefine(FreeMethod):
    """Base of the settings of refiners that do not learn, `hintseg.registry.REFINERS`: all but `method` are arguments.

    Attributes:
        method: The refiner's registry name.
    """

    of_probabilities: ClassVar[bool] = False
    """Whether the scores it takes must sum to 1 in each pixel."""


class DenseCrfRefine(FunctionRefine):
    """Refine seeds with a fully connected CRF. Defaults: the set AFA and BMP test with (methods differ, see `paper/`).

    Attributes:
        method: `dense_crf`.
        iterations: Mean-field iterations.
        gaussian: (sigma in pixels, weight) of the position kernel.
        bilateral: (sigma in pixels, sigma in grey values, weight) of the colour kernel.
    """

    of_probabilities: ClassVar[bool] = True
    method: Literal["dense_crf"] = "dense_crf"
    iterations: Count = 10
    gaussian: tuple[Positive, Positive] = (3.0, 3.0)
    bilateral: tuple[Positive, Positive, Positive] = (64.0, 5.0, 4.0)


class ParRefine(FunctionRefine):
    """Refine seeds by pixel-adaptive propagation.

    Attributes:
        method: `par` (colour and position) or `pamr` (colour alone).
        iterations: Steps of the propagation.
        dilations: Distances of the eight neighbours, pixels; `auto` are the published ones, made smaller where the
            photo's shorter side is below 256 pixels (see `hintseg.refine.par.reach`).
    """

    method: Literal["par", "pamr"] = "par"
    iterations: Count = 10
    dilations: tuple[Count, ...] | Auto = "auto"


class AttentionRefine(FreeMethod):
    """Spread class maps by the attention of a plain vision transformer with learned weights, as CLIP-ES does.

    Attributes:
        method: `attention`.
        backbone: The transformer.
        blocks: Attention of how many of the last blocks is averaged: of those up to the last one that
            `backbone.blocks` reads.
        power: Steps of the random walk.
        threshold: A class stays in the boxes around where its map is above this share of its largest value.
    """

    method: Literal["attention"] = "attention"
    backbone: BackboneConfig = BackboneConfig()
    blocks: Count = 8
    power: Count = 2
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.4


class TestConfig(Settings):
    """How a trained segmenter is read out.

    Attributes:
        scales: Factors the photo is resized by.
        flip: Whether the mirrored photo is averaged in.
        merge: How scales are merged: `mean` or `max` of the logits (DeepLabv2 takes the maximum).
        crf: Settings of a DenseCRF on the class probabilities; null leaves it out.
        tile: Side in pixels, a multiple of 32, of the overlapping tiles in which photos are read that are still larger
            than that once `data.longest` has bounded them: memory is that of a tile.
    """

    scales: tuple[Positive, ...] = (1.0, 0.75, 1.25)
    flip: bool = True
    merge: Literal["mean", "max"] = "mean"
    crf: DenseCrfRefine | None = None
    tile: Annotated[int, Field(ge=128, multiple_of=32)] = 1024


class ChosenWrapper(NamedTuple):
    """What wraps a run's localizer: its name in `hintseg.registry.WRAPPERS`, and its settings."""

    name: str
    settings: WrapperConfig


class RunConfig(Settings):
    """A recipe with all its settings: what `config.yaml` of a run folder holds.

    Beside the blocks named here there may be one with the name of a wrapper, `hintseg.registry.WRAPPERS`: it wraps the
    training of the localizer.

    Attributes:
        recipe: Name of the recipe the settings started from.
        seed: Drives python, numpy, torch and the loader's workers.
        start: A run of the same methods whose weights the training of each stage begins with, and whose last labels
            a segmenter that learned in rounds goes on from; null: it begins afresh.
        data: Which photos, which labels.
        backbone: Feature network of every stage that does not name its own.
        propose: What labels photos by their marks: a network (`cfs`) or any labeller that need not learn (`grabcut`,
            `filled`, see `hintseg list labellers`); null without marks.
        localize: The network that learns to place the tags; null where the recipe needs none.
        maps: How its class maps are read out and cut into seeds.
        refine: What sharpens the seeds: a network (`irn`) or a function (`dense_crf`, `par`, `pamr`)
            or `attention`, a network that is not trained; null: nothing.
        segment: The segmenter that learns from the masks; null: stop at the masks.
        test: How the segmenter is read out.
        trainer: Where and how Lightning runs.
    """

    recipe: str
    seed: Annotated[int, Field(ge=0)] = 0
    start: Path | None = None
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    propose: MethodConfig | FreeMethod | None = None
    localize: MethodConfig | None = None
    maps: MapsConfig = MapsConfig()
    refine: MethodConfig | DenseCrfRefine | ParRefine | AttentionRefine | None = None
    segment: MethodConfig | None = None
    test: TestConfig = TestConfig()
    trainer: TrainerConfig = TrainerConfig()

    @property
    def wrapper(self) -> ChosenWrapper | None:
        """What wraps the localizer; None: it is trained as it is."""
        blocks = ((name, getattr(self, name, None)) for name in WRAPPERS)
        return next((ChosenWrapper(name, block) for name, block in blocks if block is not None), None)


STAGES: tuple[Literal["propose"], Literal["localize"], Literal["refine"], Literal["segment"]] = (
    "propose",
    "localize",
    "refine",
    "segment",
)
"""Stage names in the order they run."""

FREE_REFINERS: dict[str, type[FreeMethod]] = {
    "dense_crf": DenseCrfRefine,
    "par": ParRefine,
    "pamr": ParRefine,
    "attention": AttentionRefine,
}
"""Settings of the refiners that do not learn, by name."""


@lru_cache
def run_model(
    kinds: tuple[type[Settings] | None, ...], wrappers: tuple[tuple[str, type[Settings] | None], ...]
) -> type[RunConfig]:
    """Return the `RunConfig` whose blocks have exactly these settings classes (None: the block is left out).

    Args:
        kinds: One for each of `STAGES`.
        wrappers: Each name of `hintseg.registry.WRAPPERS`, and its class.
    """
    fields: dict[str, tuple[Any, Any]] = {
        name: (kind, ...) if kind else (NoneType, None) for name, kind in zip(STAGES, kinds, strict=True)
    }
    fields |= {name: (kind or NoneType, None) for name, kind in wrappers}
    return create_model("RunConfig", __base__=RunConfig, **fields)  # type: ignore[call-overload, no-any-return]
