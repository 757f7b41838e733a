"""The settings of a whole run, and of the refiners that do not learn."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, create_model

from hintseg.config.settings import (
    BackboneConfig,
    Count,
    DataConfig,
    MapsConfig,
    MethodConfig,
    Positive,
    Settings,
    TrainerConfig,
)


class FunctionRefine(Settings):
    """Base of the settings of refiners that do not learn, `hintseg.registry.REFINERS`: all but `method` are arguments.

    Attributes:
        method: The refiner's registry name.
    """

    of_probabilities: ClassVar[bool] = False
    """Whether the scores it takes must sum to 1 in each pixel."""
    method: str


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
        dilations: Distances of the eight neighbours, pixels.
    """

    method: Literal["par", "pamr"] = "par"
    iterations: Count = 10
    dilations: tuple[Count, ...] = (1, 2, 4, 8, 12, 24)


class FilledPropose(Settings):
    """Take each box as its object's mask: the baseline of methods that learn from boxes.

    Attributes:
        method: `filled`.
    """

    method: Literal["filled"] = "filled"


class GrabCutPropose(Settings):
    """Cut the object out of each box by its colours. Nothing is learned, so it also serves few photos.

    Attributes:
        method: `grabcut`.
        expand: How much wider and higher than the box the region is that GrabCut sees; what is added is background.
        iterations: Cuts per box, the colours learned anew before each. More than one lets thin and dim objects fade
            away: docs/benchmarks.md, "GrabCut".
        smallest: Results that cover less of the box than this share are replaced by the filled box.
        longest: Larger crops are reduced to this side, pixels, meanwhile; null: never.
        neighbours: Whether the pixels of other boxes of the class are spared when GrabCut learns the background's
            colours. The paper does not say so; see `hintseg.refine.box_proposal`.
    """

    method: Literal["grabcut"] = "grabcut"
    expand: Annotated[float, Field(ge=0)] = 0.5
    iterations: Count = 1
    smallest: Annotated[float, Field(ge=0, lt=1)] = 0.2
    longest: Annotated[int, Field(ge=32)] | None = 320
    neighbours: bool = True


class TestConfig(Settings):
    """How a trained segmenter is read out.

    Attributes:
        scales: Factors the photo is resized by.
        flip: Whether the mirrored photo is averaged in.
        merge: How scales are merged: `mean` or `max` of the logits (DeepLabv2 takes the maximum).
        crf: Settings of a DenseCRF on the class probabilities; null leaves it out.
    """

    scales: tuple[Positive, ...] = (1.0, 0.75, 1.25)
    flip: bool = True
    merge: Literal["mean", "max"] = "mean"
    crf: DenseCrfRefine | None = None


class CsdConfig(Settings):
    """Settings of CSD, which wraps the training of the localizer; the defaults are the paper's but for `background`.

    The weights belong to sums over a grid of 14 x 14 cells; on other grids the sums are scaled to it. Where photos have
    no background class, there is no background to paste.

    Attributes:
        foreground: lambda_1, weight of the consistency of pasted objects; 0 leaves it out.
        background: lambda_2, weight of the consistency of pasted background; 0 leaves it out. The paper has 0.1, and
            either one alone does harm there. With a classifier of few classes, whose scores go to tens, 0.1 ruined
            the maps (docs/benchmarks.md, section 9); the recipes `csd_mct` and `paper/csd-...` have it.
        dummy: M', the constant score beside the sum of all class scores. The paper does not say it; 0.1 is the
            authors' earlier code.
        reliable: A cell of an object counts where the score of its class, stretched to 0..1 over the source photo, is
            at least this. The paper speaks of reliable pseudo-labels and gives no number; 0.5 is the authors' earlier
            code; 0 counts every cell that the object's mask covers.
        shift: Largest shift of a paste, in cells of the class maps, up, down and sideways. 0 pastes in place.
        resample: Whether source photos are drawn by how often classes come together (the paper's resampling), or all
            alike (its row "copy-and-paste").
        diagonal: What a class counts with itself, see `hintseg.hints.cooccurrence.cooccurrence_prior`.
        baseline: A finished run whose masks are used instead of those of a baseline trained first. It needs masks of
            the same photos and classes.
    """

    foreground: Annotated[float, Field(ge=0)] = 0.01
    background: Annotated[float, Field(ge=0)] = 0.0
    dummy: float = 0.1
    reliable: Annotated[float, Field(ge=0, le=1)] = 0.5
    shift: Annotated[int, Field(ge=0)] = 0
    resample: bool = True
    diagonal: Literal["single", "all"] = "single"
    baseline: Path | None = None


class RunConfig(Settings):
    """A recipe with all its settings: what `config.yaml` of a run folder holds.

    Attributes:
        recipe: Name of the recipe the settings started from.
        seed: Drives python, numpy, torch and the loader's workers.
        data: Which photos, which labels.
        backbone: Feature network of every stage that does not name its own.
        propose: What turns boxes into masks: a network (`cfs`) or a function (`grabcut`, `filled`); null without boxes.
        localize: The network that learns to place the tags; null where the recipe needs none.
        csd: Wraps the localizer's training in CSD: it is trained twice, first as it is for the masks of photos with a
            single tag, then with pastes of those; null: once, as it is.
        maps: How its class maps are read out and cut into seeds.
        refine: What sharpens the seeds: a network (`irn`) or a function (`dense_crf`, `par`, `pamr`); null: nothing.
        segment: The segmenter that learns from the masks; null: stop at the masks.
        test: How the segmenter is read out.
        trainer: Where and how Lightning runs.
    """

    recipe: str
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    propose: MethodConfig | FilledPropose | GrabCutPropose | None = None
    localize: MethodConfig | None = None
    csd: CsdConfig | None = None
    maps: MapsConfig = MapsConfig()
    refine: MethodConfig | DenseCrfRefine | ParRefine | None = None
    segment: MethodConfig | None = None
    test: TestConfig = TestConfig()
    trainer: TrainerConfig = TrainerConfig()


STAGES: tuple[Literal["propose"], Literal["localize"], Literal["refine"], Literal["segment"]] = (
    "propose",
    "localize",
    "refine",
    "segment",
)
"""Stage names in the order they run."""

FREE_METHODS: dict[str, dict[str, type[Settings]]] = {
    "propose": {"filled": FilledPropose, "grabcut": GrabCutPropose},
    "refine": {"dense_crf": DenseCrfRefine, "par": ParRefine, "pamr": ParRefine},
}
"""What a stage may do without learning, by stage and name."""


@lru_cache
def run_model(*kinds: type[Settings] | None) -> type[RunConfig]:
    """Return the `RunConfig` whose `STAGES` have exactly these settings classes (None: the stage is left out)."""
    chosen = dict(zip(STAGES, kinds, strict=True))
    fields = {name: (kind, ...) if kind else (None, None) for name, kind in chosen.items()}
    return create_model("RunConfig", __base__=RunConfig, **fields)  # type: ignore[call-overload, no-any-return]
