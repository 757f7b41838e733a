"""The tables: which rows, on which data, what is read from each run."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks import mct_parts


@dataclass(frozen=True)
class Column:
    """What is read from a run.

    Attributes:
        title: Heading.
        kind: Kind of result in metrics.json, such as `seed` or `segmentation`; `SEVERAL` and `PARTS`: see
            `benchmarks.several_tags` and `mct_parts`, whose names are the titles. `STEP`: seconds of a step of the
            segmenter.
        split: `train` or `val`.
        oracle: Whether the threshold was swept on ground truth.
        classes: The classes whose mean it is; all where none is named. Data sets without them have no such column.
        metric: `miou` or `boundary_iou`.
    """

    title: str
    kind: str
    split: str
    oracle: bool = False
    classes: tuple[str, ...] = ()
    metric: str = "miou"


@dataclass(frozen=True)
class Line:
    """A line of the summary: a row of a table, with what it was had from.

    Attributes:
        words: The data.
        hints: What people said of the photos.
        recipe: What was run.
        table: Table of the row.
        data: Its data set.
        row: The row.
        upper: The row that learns from true masks.
    """

    words: str
    hints: str
    recipe: str
    table: str
    data: str
    row: str
    upper: str


SEVERAL, PARTS, STEP = "several tags", "parts", "seconds a step"

SEEDS = Column("seeds", "seed", "train")
ORACLE = Column("seeds, oracle threshold", "seed", "train", oracle=True)
MASKS = Column("masks", "pseudo mask", "train")
BRANCH_C = Column("Branch-C", "Branch-C", "val")
TAGGED = Column("Branch-S with tags", "pseudo mask", "train")
FINAL = Column("final masks", "final mask", "train")
VAL = Column("segmentation", "segmentation", "val")
BOUNDARY = Column("boundary IoU", "segmentation", "val", metric="boundary_iou")
MCT_PARTS = tuple(Column(name, PARTS, "train", oracle=True) for name in (*mct_parts.PARTS, *mct_parts.SHARES))
APART = (Column("several tags", SEVERAL, "train"), Column("several tags, ceiling", SEVERAL, "train"))


@dataclass(frozen=True)
class Row:
    """A row: a recipe and its settings.

    Attributes:
        recipe: The recipe.
        settings: Dotted settings, added to the table's and the data set's; `{baseline}` is the run of the table's
            baseline on the same data with the same seed.
        after: Row whose run it goes on from: stages that its settings do not touch are not run again.
        without: Beginnings of the table's and the data set's settings that do not concern it.
        upper: Row that learns from true masks and is otherwise alike: the share of its `VAL` is shown.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    after: str = ""
    without: tuple[str, ...] = ()
    upper: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the docs.

    Attributes:
        title: What it shows.
        rows: Its rows by name.
        data: Settings of each data set, by the name of its folder.
        columns: What is read from each run.
        settings: Settings of all rows; `{weights}` is the folder of the weight files.
        seeds: Seeds of a run without `--seeds`.
        baseline: Row that the others are compared with, seed by seed.
        notes: Said below it.
    """

    title: str
    rows: dict[str, Row]
    data: dict[str, tuple[str, ...]]
    columns: tuple[Column, ...]
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    baseline: str = ""
    notes: tuple[str, ...] = field(default=())


FREQUENT = ("background", "cat", "chair", "cow", "dog", "horse", "person", "sheep", "sofa")
"""Classes of voc12-animals with at least 15 training photos, and the background."""

FREQUENT_SEEDS = Column("seeds, frequent classes", "seed", "train", classes=FREQUENT)
FREQUENT_MASKS = Column("masks, frequent classes", "pseudo mask", "train", classes=FREQUENT)
FREQUENT_FINAL = Column("final masks, frequent classes", "final mask", "train", classes=FREQUENT)
FREQUENT_VAL = Column("segmentation, frequent classes", "segmentation", "val", classes=FREQUENT)

_MSRC = "MSRC, 355 photos, 21 classes"
_VOC = "animals of VOC 2012, 348 photos, 20 classes"
_HEART = "slices of hearts, 140 photos, 3 classes"
_NUCLEI = "nuclei, 82 photos, one class"

SUMMARY = (
    Line(_MSRC, "tags", "`quick`", "quick", "msrc", "quick", "true masks"),
    Line(_MSRC, "tags", "`vwe`, the paper's way", "networks", "msrc", "vwe, DeiT-Ti", "full, DeiT-Ti"),
    Line(_MSRC, "clicks drawn out of masks", "`points`", "hints", "msrc", "points, 100 %", "masks, 100 %"),
    Line(_MSRC, "strokes drawn out of masks", "`strokes`", "hints", "msrc", "scribbles, 100 %", "masks, 100 %"),
    Line(_MSRC, "boxes drawn out of masks", "GrabCut, a light head", "hints", "msrc", "boxes, 100 %", "masks, 100 %"),
    Line(_VOC, "tags", "`quick`", "quick", "voc12-animals", "quick", "true masks"),
    Line(_VOC, "human clicks", "`points`", "hints", "voc12-animals", "points, 100 %", "masks, 100 %"),
    Line(
        _VOC,
        "strokes drawn out of masks",
        "`strokes`",
        "hints",
        "voc12-animals",
        "scribbles, 100 %",
        "masks, 100 %",
    ),
    Line(_VOC, "boxes", "GrabCut, a light head", "hints", "voc12-animals", "boxes, 100 %", "masks, 100 %"),
    Line(_HEART, "human strokes", "`strokes`", "hints", "acdc-scribbles", "scribbles, 100 %", "masks, 100 %"),
    Line(_NUCLEI, "boxes", "GrabCut, a light head", "hints", "nuclei", "boxes, 100 %", "masks, 100 %"),
)
"""What the README shows, where it was run."""

_STOP = ("refine=null", "segment=null")
_NO_S2C, _NO_BSP, _NO_OFD = "segment.lambda_s2c=0.0", "segment.bsp=false", "segment.ofd=false"
_PAPER_BMP = (
    "segment.sigma_c=0.75",
    "segment.sigma_s=0.5",
    "segment.c2s_loss=soft_margin",
    "segment.confidence=softmax",
    "segment.balance_c2s=false",
    "segment.balance_s2c=false",
    "segment.floor_s2c=0.0",
    "segment.s2c_ramp=0.0",
    "segment.s2c_reaches=encoder",
    "segment.teacher=step",
    "segment.object_prior=sigmoid",
)
_STAGE_ONE = "csd.baseline={baseline}"
_PAPER_WORDS = (
    "localize.codebook=learned",
    "localize.temperature=1.0",
    "localize.frequency=mean",
    "localize.word_scale=false",
    "localize.word_branch=max",
)
_PAPER_WALK = ("segment.walk_share=1.0", "segment.walk_start=0.0", "segment.walk_steps=1")
_DEIT = ("backbone.name=deit_tiny_patch16_224", "backbone.weights={weights}/deit_tiny_patch16_224.safetensors")
_SMALL = ("backbone.name=mobilenetv2_100", "backbone.weights={weights}/mobilenetv2_100_in1k.safetensors")

NETWORKS = {
    "DeiT-Ti": ("deit_tiny_patch16_224", "deit_tiny_patch16_224"),
    "MobileNetV2": ("mobilenetv2_100", "mobilenetv2_100_in1k"),
    "ResNetV2-50 C4": ("resnetv2_50", "resnetv2_50_c4_in1k"),
    "ViT-S/14 (saliency)": ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2"),
}
"""timm's name and the weight file of each network."""


def _networks() -> dict[str, Row]:
    """Return the rows of the recipes on each network, its weights frozen and its features kept."""
    rows = {}
    kept = ("backbone.freeze=all", "maps.scales=[1.0]", "test.scales=[1.0]", "segment.method=segformer_head")
    for title, (name, file) in NETWORKS.items():
        network: tuple[str, ...] = (f"backbone.name={name}", f"backbone.weights={{weights}}/{file}.safetensors", *kept)
        network += ("backbone.output_stride=16", "backbone.levels=4") if name == "resnetv2_50" else ()
        network += () if "vit" in name or "deit" in name else ("segment.finest=16",)  # as coarse as the transformers
        for recipe in ("quick", "full", "cam", "vwe"):
            upper = "" if recipe == "full" else f"full, {title}"
            rows[f"{recipe}, {title}"] = Row(recipe, network, upper=upper)
    return rows


_MARKS = ("propose=null", "segment.trust=false")


def _beside(*objectives: str) -> tuple[str, ...]:
    """Return the settings of a head that learns from the pixels under marks, and from what regularises the others."""
    both = ", ".join(["{name: cross_entropy}", *(f"{{name: {objective}}}" for objective in objectives)])
    return (*_MARKS, f"segment.objectives=[{both}]")


TABLES: dict[str, Table] = {
    "vwe": Table(
        title="The VWE paper's Table 1 on frozen features: pooling, words, the branches of Eq. 12, and what differs",
        rows={
            "GAP": Row("cam", ("localize.pooling=gap",)),
            "GMP": Row("cam", ("localize.pooling=gmp",)),
            "HSPP": Row("cam", ("localize.pooling=hspp",)),
            "GAP + words": Row("vwe", ("localize.pooling=gap",)),
            "HSPP + words": Row("vwe"),
            "GAP, image branch": Row("vwe", ("localize.pooling=gap", "localize.word_branch=none"), after="GAP + words"),
            "GAP + words, larger branch": Row(
                "vwe", ("localize.pooling=gap", "localize.word_branch=max"), after="GAP + words"
            ),
            "GAP + words, tau 0.1": Row("vwe", ("localize.pooling=gap", "localize.temperature=0.1")),
            "GAP + words, tau 0.2": Row("vwe", ("localize.pooling=gap", "localize.temperature=0.2")),
            "GAP + words, frequencies as they are": Row("vwe", ("localize.pooling=gap", "localize.frequency=mean")),
            "GAP + words, learned": Row("vwe", ("localize.pooling=gap", "localize.codebook=learned")),
            "GAP + words of the paper": Row("vwe", ("localize.pooling=gap", *_PAPER_WORDS)),
        },
        data={"msrc": ("data.background=none",), "voc12-animals": ("data.longest=320",)},
        columns=(SEEDS, ORACLE, FREQUENT_SEEDS),
        settings=(
            *_DEIT,
            "backbone.output_stride=16",
            "backbone.freeze=all",
            "maps.scales=[1.0]",
            *_STOP,
        ),
        seeds=(0, 1, 2, 3, 4),
        baseline="GAP",
    ),
    "lgsa": Table(
        title="The CFS + LGSA paper's Tables 3 and 5: attention, its loss and the walk, on the same masks of boxes",
        rows={
            "none": Row("boxes", ("segment.attention=none",)),
            "Non-local": Row("boxes", ("segment.attention=non_local",), after="none"),
            "LGSA": Row("boxes", after="none"),
            "LGSA + walk as printed": Row("boxes", ("segment.walk=true", *_PAPER_WALK), after="none"),
            "LGSA + walk": Row("boxes", ("segment.walk=true",), after="none"),
            "LGSA, mass": Row("boxes", ("segment.attention_loss=mass",), after="none"),
            "LGSA, mass + walk": Row("boxes", ("segment.attention_loss=mass", "segment.walk=true"), after="none"),
        },
        data={"nuclei": ("data.longest=512",), "coco-things": ("data.longest=320",)},
        columns=(VAL, MASKS),
        settings=(
            *_DEIT,
            "backbone.output_stride=8",
            "backbone.freeze=all",
            "propose.method=grabcut",
            "segment.fit.crop=192",
            "test.scales=[1.0]",
        ),
        baseline="none",
        notes=("Crops of 192 pixels at stride 8 are 24 x 24 cells; masks are those of GrabCut, features are frozen.",),
    ),
    "quick": Table(
        title="The quick way, stage by stage, and a head on true masks",
        rows={
            "quick": Row("quick", upper="true masks"),
            "true masks": Row("full", ("backbone.freeze=all", "segment.method=segformer_head")),
        },
        data={"msrc": ("data.background=none",), "voc12-animals": ("data.longest=320",)},
        columns=(SEEDS, MASKS, FINAL, VAL, FREQUENT_SEEDS, FREQUENT_MASKS, FREQUENT_FINAL, FREQUENT_VAL),
        settings=(*_DEIT, "test.scales=[1.0]"),
    ),
    "kept": Table(
        title="What keeping features costs: crops of the kept grid, or of the photo",
        rows={"features kept": Row("quick"), "from photos": Row("quick", ("backbone.keep=false",))},
        data={"msrc": ("data.background=none",), "voc12-animals": ("data.longest=320",)},
        columns=(SEEDS, MASKS, VAL),
        settings=_DEIT,
        baseline="features kept",
    ),
    "mctformer": Table(
        title="MCTformer with learned weights: the parts of its maps at their own oracle thresholds, and its seeds",
        rows={
            "maps with affinity": Row("mctformer"),
            "maps without": Row("mctformer", ("localize.patch_affinity=false",)),
            "readout by the mean, as published": Row("mctformer", ("localize.readout=mean",)),
        },
        data={"msrc": ("data.background=none",), "voc12-animals": ()},
        columns=(*MCT_PARTS, SEEDS, ORACLE),
        settings=(
            "localize.backbone.name=deit_tiny_patch16_224",
            "localize.backbone.weights={weights}/deit_tiny_patch16_224.safetensors",
            *_STOP,
        ),
        seeds=(0,),
        notes=("Parts: 120 training photos, one scale and its mirror image; without background the best tag.",),
    ),
    "boxes": Table(
        title="The CFS + LGSA paper's Table 2: masks of boxes, and a segmenter on each",
        rows={
            "filled boxes": Row("boxes", ("propose.method=filled",), without=("propose.",), upper="true masks"),
            "GrabCut": Row("boxes", ("propose.method=grabcut",), without=("propose.",), upper="true masks"),
            "CFS + GrabCut": Row("boxes", ("propose.tight=false",), upper="true masks"),
            "CFS": Row(
                "boxes", ("propose.refine=false", "propose.tight=false"), after="CFS + GrabCut", upper="true masks"
            ),
            "CFS + GrabCut, tight boxes": Row("boxes", after="CFS + GrabCut", upper="true masks"),
            "true masks": Row("full", without=("propose.", "data.labels=")),
        },
        data={
            "nuclei": (),
            "coco-things": ("data.longest=320",),
            "voc12-animals": ("data.longest=320", "data.labels=[{data}/Annotations,{data}/SegmentationClass]"),
        },
        columns=(MASKS, VAL),
        settings=(
            *_DEIT,
            "backbone.freeze=all",
            "segment.method=segformer_head",
            "test.scales=[1.0]",
            "propose.backbone.name=mobilenetv2_100",
            "propose.backbone.weights={weights}/mobilenetv2_100_in1k.safetensors",
            "propose.backbone.freeze=norm",
        ),
    ),
    "regularisers": Table(
        title="What teaches the pixels of which marks say nothing: regularisers, a teacher, or labels spread by colour",
        rows={
            "marks alone": Row("strokes", _beside(), upper="true masks"),
            "dense CRF loss": Row("strokes", _beside("dense_crf_loss"), upper="true masks"),
            "gated CRF loss": Row("strokes", _beside("gated_crf, weight: 0.1"), upper="true masks"),
            "tree energy loss": Row("strokes", _beside("tree_energy"), upper="true masks"),
            "EMA teacher": Row("strokes", _beside("teacher"), upper="true masks"),
            "spread by colour (recipe strokes)": Row("strokes", upper="true masks"),
            "true masks": Row("full", ("segment.method=segformer_head",), without=("data.labels=", "segment.trust")),
        },
        data={
            "acdc-scribbles": ("data.unlabelled=255", "data.labels=[{data}/Scribbles]"),
            "voc12-animals": ("data.longest=320", "data.labels=[{data}/points.csv,{data}/SegmentationClass]"),
        },
        columns=(VAL, BOUNDARY, Column(STEP, STEP, "train", metric="seconds")),
        settings=(*_DEIT, "backbone.output_stride=16", "backbone.freeze=all", "test.scales=[1.0]"),
        baseline="marks alone",
        notes=(
            "acdc-scribbles has manual strokes; those of voc12-animals are human clicks, on objects and beside.",
            "Spread with `propose.step=0.3`, the default of that version, in one round.",
        ),
    ),
    "networks": Table(
        title="Recipes on four networks, frozen, with a light head",
        rows=_networks(),
        data={"msrc": ("data.background=none",), "voc12-animals": ("data.longest=320",)},
        columns=(SEEDS, MASKS, VAL, FREQUENT_SEEDS, FREQUENT_MASKS, FREQUENT_VAL),
        notes=("Two to seven other programs ran beside: seconds say little.",),
    ),
    "bmp": Table(
        title="The BMP paper's Table VI with AFA beside it: two branches that learn from tags",
        rows={
            "AFA": Row("afa"),
            "L_cls + L_c2s": Row("bmp", (_NO_S2C, _NO_BSP, _NO_OFD)),
            "+ L_s2c": Row("bmp", (_NO_BSP, _NO_OFD)),
            "+ BSP": Row("bmp", (_NO_OFD,)),
            "+ OFD": Row("bmp", upper="true masks"),
            "without L_s2c": Row("bmp", (_NO_S2C,)),
            "L_s2c trains the encoder": Row("bmp", ("segment.s2c_reaches=encoder",)),
            "L_c2s by soft margin": Row(
                "bmp", ("segment.c2s_loss=soft_margin", "segment.confidence=logit", "segment.sigma_s=0.75")
            ),
            "as in the paper": Row("bmp", _PAPER_BMP),
            "true masks": Row("full", ("segment.method=segformer_head",), without=("segment.", "maps.")),
        },
        data={"msrc": ("data.background=none",), "voc12-animals": ("data.longest=320",)},
        columns=(VAL, TAGGED, BRANCH_C, Column("seeds of Branch-C", "seed", "train"), FREQUENT_VAL),
        settings=(
            *_SMALL,
            "segment.scales=[1.0,0.5]",
            "segment.width=64",
            "maps.scales=[1.0,0.5]",
            "test.scales=[1.0]",
        ),
        baseline="AFA",
    ),
    "csd": Table(
        title="CSD's components on frozen features: seeds of photos of several tags, and what they could be worth",
        rows={
            "GAP": Row("cam", ("localize.pooling=gap", *_STOP)),
            "copy-paste": Row("csd_irn", (_STAGE_ONE, "csd.resample=false", *_STOP)),
            "+ resampling": Row("csd_irn", (_STAGE_ONE, *_STOP)),
            "+ single-class crops": Row("csd_irn", (_STAGE_ONE, "csd.crops=0.5", *_STOP)),
            "+ background": Row("csd_irn", (_STAGE_ONE, "csd.background=1.0", *_STOP)),
            "as in the paper": Row(
                "csd_irn",
                (
                    _STAGE_ONE,
                    "csd.form=paper",
                    "csd.teacher=online",
                    "csd.foreground=0.01",
                    "csd.background=0.1",
                    *_STOP,
                ),
            ),
        },
        data={"msrc": ("data.background=none",), "voc12-animals": ("data.longest=320",)},
        columns=(*APART, SEEDS, ORACLE),
        settings=(
            *_DEIT,
            "backbone.output_stride=16",
            "backbone.freeze=all",
            "backbone.keep=false",
            "maps.scales=[1.0]",
        ),
        seeds=(0, 1, 2, 3, 4),
        baseline="GAP",
        notes=("Features are frozen and made anew for every crop: pastes cannot be kept.",),
    ),
}
