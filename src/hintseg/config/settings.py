"""Typed settings shared by all methods. Strict: unknown keys and wrong types are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hintseg.config.auto import Facts, Task, of_task

Auto = Literal["auto"]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

CLICK_PX = 2.0
"""Radius of the disc that a click stands for, in pixels of a photo whose longer side is 500."""


class Settings(BaseModel):
    """Base of every settings class: frozen, unknown keys refused, defaults validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


AUTO_BACKBONE = "auto"
"""As `backbone.name`: chosen by the machine and the weights that are there, and kept in the run's `config.yaml`."""

LOCALIZER = "localize"
"""As `backbone.weights` of a later stage: the weights that the run's localizer has learned."""


class BackboneConfig(Settings):
    """The feature network, by its timm name.

    Attributes:
        name: Any timm model with feature maps, such as `resnet50` or `mobilenetv2_100`; `auto`: one that suits the
            machine (GPU, cores, memory) and the weights given or in the hub's cache; for `afa`, `bmp` and
            `segformer_head` also the Mix Transformers `mit_b0` to `mit_b5` and `mit_tiny`, whose official weights are
            for research only.
        weights: `pretrained` (timm's own, downloaded), `random`, a local .safetensors / .pth file (a stage's of another
            run, too), or, in `refine` and `segment`, `localize`: what the run's localizer has learned.
        output_stride: Image pixels per cell of the last feature map. Photos are resized so that a patch of a plain
            vision transformer covers as many; 8 makes them larger, with four times the cells.
        levels: How many feature levels to keep, from the finest; None keeps all the weights have.
        blocks: Which blocks of a plain vision transformer the last level is read from, counted from 1; `auto`: the two
            before the last one, which is bent towards what the network was trained for.
        join: How several blocks are joined: `mean`, or `concat`, side by side.
        norm: Whether the network's own last norm is applied to each block that is read.
        drop_path: Largest share of the photos for which training leaves out a block of a vision transformer, the last.
        layer_decay: Factor on the learning rate from each block of a vision transformer to the one before; 1: none.
        freeze: `none` trains all; `norm` keeps batch-norm statistics; `early` also stops the gradient before the last
            two levels, as IRN's classifier does (a vision transformer: before the second half of its blocks); `all`
            trains nothing of it; `auto` is `early` with pretrained weights and `none` with random ones. A Mix
            Transformer has layer norms: `norm` keeps their factors and offsets and is what `auto` becomes with learned
            weights.
        keep: Whether, with `freeze=all`, the features of a photo and of its mirror image are worked out once, kept on
            disk (`hintseg cache`) and trained on by `cam`, `vwe`, `deeplabv2`, `segformer_head` and `lgsa`. Crops are
            then cut out of them, and `fit.scale` and `fit.jitter` have no effect; false trains on images.
    """

    name: str = "resnet50"
    weights: str = "pretrained"
    output_stride: Literal[8, 14, 16, 32] = 16
    levels: Count | None = None
    blocks: Annotated[tuple[Count, ...], Field(min_length=1)] | Auto = "auto"
    join: Literal["mean", "concat"] = "mean"
    norm: bool = True
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze: Literal["auto", "none", "norm", "early", "all"] = "auto"
    keep: bool = True


class FitConfig(Settings):
    """How a network is trained. `auto` is resolved from the data set, the weights and the machine.

    Attributes:
        epochs: Passes over the training photos.
        batch_size: Photos per optimiser step (all processes together).
        crop: Side of the square training crop, pixels.
        scale: Random scale, as factors of the photo's own size.
        optimizer: `adamw` or `sgd`.
        lr: Learning rate of the backbone.
        head_lr: Factor on `lr` for everything that is not the backbone.
        momentum: Of SGD. The published IRN, PSA and VWE code trains without (methods differ: see each recipe).
        weight_decay: Decoupled for AdamW, L2 for SGD.
        schedule: `poly`: lr * (1 - t)^power; `cosine`: half a cosine to zero; `step`: times `decay` every
            `decay_epochs` passes; `poly_jump`: as `poly`, but the warm-up rises to `lr` itself, and the rate then jumps
            down to the curve, as AFA and BMP publish it.
        power: Exponent of `poly`.
        decay: Factor of `step`.
        decay_epochs: Passes between two cuts of `step`.
        warmup: Share of all steps spent on a linear warm-up.
        first_epoch: Factor on the rate during the first pass; CFS + LGSA takes 0.1 where there is self-attention.
        jitter: Strength of random brightness, contrast and saturation, 0 = off.
        accumulate: Batches summed into one step: `batch_size` is split into that many parts.
        clip: Largest norm of the gradient; None switches clipping off.
    """

    epochs: Count | Auto = "auto"
    batch_size: Count | Auto = "auto"
    crop: Annotated[int, Field(ge=32)] | Auto = "auto"
    scale: tuple[Positive, Positive] | Auto = "auto"
    optimizer: Literal["adamw", "sgd"] | Auto = "auto"
    lr: Positive | Auto = "auto"
    head_lr: Positive | Auto = "auto"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] | Auto = "auto"
    schedule: Literal["poly", "cosine", "step", "poly_jump"] = "poly"
    power: Positive = 0.9
    decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    decay_epochs: Count = 10
    warmup: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    first_epoch: Annotated[float, Field(gt=0, le=1)] = 1.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    accumulate: Count = 1
    clip: Positive | None = None


class MapsConfig(Settings):
    """How class maps are read out of a trained classifier.

    Attributes:
        scales: Factors the photo is resized by; the maps of all scales are summed.
        flip: How a map and its mirrored twin are merged: `max` (VWE), `sum` (IRN) or `none`.
        threshold: Background score of the seeds, 0..1. `auto` chooses it without ground truth, from `area`.
        area: Share of the pixels of photos with tags that seeds should cover, 0..1. Judge by eye how much of a photo
            your objects fill and set it where that is far from two fifths.
    """

    scales: tuple[Positive, ...] = (1.0, 0.5, 1.5, 2.0)
    flip: Literal["max", "sum", "none"] = "max"
    threshold: Annotated[float, Field(ge=0, le=1)] | Auto = "auto"
    area: Annotated[float, Field(gt=0, lt=1)] = 0.4


class MethodConfig(Settings):
    """Base of every method's settings; each method's file holds its own.

    Attributes:
        method: The method's registry name.
        backbone: The feature network; the run's top-level `backbone` fills what a stage leaves out.
        fit: How it is trained.
    """

    task: ClassVar[Task]
    read_out: ClassVar[frozenset[str]] = frozenset()
    """Settings that training does not depend on: changing one reads the trained network out again."""
    one_stage: ClassVar[bool] = False
    """Whether it is a segmenter that learns from tags: then no stage stands before it."""
    method: str
    backbone: BackboneConfig = BackboneConfig()
    fit: FitConfig = FitConfig()

    @property
    def watched(self) -> int:
        """Photos with a true mask on which both branches of a one-stage method are measured during training."""
        return 0

    def defaults(self, facts: Facts) -> dict[str, Any]:
        """Return what every `auto` of `fit` becomes, by name; what `fit` says itself is not asked for."""
        batch = self.fit.batch_size
        return of_task(self.task, None if batch == "auto" else batch, facts)


class WrapperConfig(Settings):
    """Base of the settings of what wraps a localizer's training; each wrapper's file holds its own.

    Attributes:
        baseline: A finished run whose masks are used instead of those of a baseline trained first. It needs masks of
            the same photos and classes.
    """

    baseline_first: ClassVar[bool] = True
    """Whether it learns from masks of a baseline: the same run without it, up to its masks."""
    baseline: Path | None = None


def _several(value: Any) -> Any:
    """Take one path, or none, for a list of them."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


USUAL_LONGEST = 640
"""What `data.longest=auto` is where nothing speaks for more, pixels."""


class DataConfig(Settings):
    """Which photos, which labels.

    Attributes:
        path: Folder of the data set.
        labels: Label file or folder, where it is not found below `path` by itself; or several, which are put together.
        format: A format name (`hintseg list formats`) or `auto`.
        train: Name of the split to learn from; photos without any hint are left out, unless an objective of the
            segmenter learns from those (`consistency`). `auto`: `train` where the data has such a list, else all
            photos but those of `val` and `test`; `all`: every photo.
        val: Name of the split to evaluate on; `auto`: `val` where the data has such a list and truth.
        background: Whether pixels may belong to no class: `none` for data in which every pixel has one.
        learn_masks: Whose true masks may be learned from: `all`, the name of a split, or a file with the id of a photo
            per line. null: nobody's, they judge only.
        unlabelled: The value of index images that means "nothing known here"; needed for scribbles.
        missing: What happens where labels name photos that are not there: `error`, or `skip` them.
        colours: Table of what the colours of colour masks mean, where none lies beside them: a CSV `name,r,g,b`, or a
            `labelmap.txt`.
        click_px: Radius of the disc of pixels that a click says something of, in pixels of a photo whose longer side is
            500; larger photos have larger discs. 0: the pixel it lies in.
        review: What a person said on the review page, which teaches beside the labels and wins over them: a folder that
            `hintseg train --from-review` makes.
        longest: Photos with a longer side than this, pixels, are reduced to it when read; masks come back at the
            photo's own size. It bounds time and memory, and makes objects about as large as networks expect. `auto`:
            640; where every hint has a place, as much larger as small marked objects need. Photos larger than
            `test.tile` are then segmented in tiles.
    """

    path: Path
    labels: Annotated[tuple[Path, ...], BeforeValidator(_several)] = ()
    format: str = "auto"
    train: str = "auto"
    val: str = "auto"
    learn_masks: str | None = None
    background: Literal["present", "none"] = "present"
    unlabelled: Annotated[int, Field(ge=0, le=255)] | None = None
    missing: Literal["error", "skip"] = "error"
    colours: Path | None = None
    click_px: Annotated[float, Field(ge=0)] = CLICK_PX
    review: Path | None = None
    longest: Annotated[int, Field(ge=64)] | Auto = "auto"

    @property
    def longest_side(self) -> int:
        """`longest` as a number, pixels: what `auto` is where nothing speaks for more."""
        return USUAL_LONGEST if self.longest == "auto" else self.longest


class TrainerConfig(Settings):
    """Where and how training runs: on Lightning Fabric.

    Attributes:
        accelerator: `auto` takes a GPU where there is one.
        devices: Processes on this machine, or `auto`: every GPU, one process on a CPU.
        num_nodes: Machines.
        strategy: Fabric's strategy name; `auto` is DDP where there are several processes.
        precision: Fabric's precision name; `auto` is bfloat16 autocast where the machine is quick at it.
        workers: Loader processes; `auto` is the cores less one, at most 8, on Linux; none elsewhere, where they start
            slowly.
        logger: `csv` or `tensorboard`.
        pictures: Photos drawn at the end of every stage.
        checkpoint_minutes: Minutes between two checkpoints inside an epoch; the end of an epoch always has one.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Count | Auto = "auto"
    num_nodes: Count = 1
    strategy: str = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = "auto"
    workers: Annotated[int, Field(ge=0)] | Auto = "auto"
    logger: Literal["csv", "tensorboard"] = "csv"
    pictures: Annotated[int, Field(ge=0)] = 4
    checkpoint_minutes: Positive = 5.0
