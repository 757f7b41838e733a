"""Hand-written tables name -> "module:Object". Importing this module imports no torch.

Other packages add methods, objectives, labellers and label formats through the entry-point groups ``hintseg.methods``,
``hintseg.objectives``, ``hintseg.labellers`` and ``hintseg.formats``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from hintseg.errors import ConfigError, did_you_mean


class Entry(NamedTuple):
    """One registered object: where it is, what it does in a line and, of a method, the stage it is for."""

    target: str
    summary: str
    stage: str = ""


METHODS: dict[str, Entry] = {
    "cam": Entry(
        "hintseg.methods.cam:Cam", "localizer: classifier with GAP, GMP or HSPP, class activation maps", "localize"
    ),
    "vwe": Entry(
        "hintseg.methods.vwe:Vwe", "localizer: visual words and hybrid pooling (Ru et al., IJCAI 2021)", "localize"
    ),
    "mctformer": Entry(
        "hintseg.methods.mctformer:MctFormer", "localizer: one class token per class (Xu et al., 2022)", "localize"
    ),
    "irn": Entry(
        "hintseg.methods.irn:Irn", "refiner that learns: boundaries and random walk (Ahn et al., 2019)", "refine"
    ),
    "cfs": Entry(
        "hintseg.methods.cfs:Cfs", "proposer: box by box, foreground from GrabCut's noisy masks (CFS paper)", "propose"
    ),
    "affinitynet": Entry(
        "hintseg.methods.affinitynet:AffinityNet", "refiner that learns: pair affinity (PSA, 2018)", "refine"
    ),
    "afa": Entry(
        "hintseg.methods.afa:Afa", "segmenter from tags: affinity from attention (Ru et al., CVPR 2022)", "segment"
    ),
    "bmp": Entry(
        "hintseg.methods.bmp:Bmp", "segmenter from tags: two branches teach each other (Zhu et al.)", "segment"
    ),
    "deeplabv2": Entry(
        "hintseg.methods.deeplab:DeepLabV2", "segmenter: atrous pyramid summed (Chen et al., 2017)", "segment"
    ),
    "lgsa": Entry(
        "hintseg.methods.lgsa:LgsaDeepLabV2", "segmenter: DeepLabv2, guided attention (Xie et al., 2020)", "segment"
    ),
    "segformer_head": Entry(
        "hintseg.methods.deeplab:SegFormerHead", "segmenter: all-MLP head (Xie et al., 2021)", "segment"
    ),
}

WRAPPERS: dict[str, Entry] = {
    "csd": Entry(
        "hintseg.wrappers.decoupling:Decoupling", "wraps a localizer: copy-and-paste consistency (Yang et al., 2023)"
    ),
}

OBJECTIVES: dict[str, Entry] = {
    "cross_entropy": Entry("hintseg.losses.cross_entropy:CrossEntropy", "labelled pixels; what segmenters learn from"),
    "balanced_cross_entropy": Entry(
        "hintseg.losses.balanced_cross_entropy:BalancedCrossEntropy", "background and foreground weigh alike (AFA)"
    ),
    "soft_margin": Entry("hintseg.losses.soft_margin:SoftMargin", "each class a yes-or-no question of its own"),
    "dense_crf_loss": Entry("hintseg.losses.dense_crf_loss:DenseCrfLoss", "near and alike: one label (Tang, 2018)"),
    "gated_crf": Entry("hintseg.losses.gated_crf:GatedCrf", "near and alike, in a window (Obukhov, 2019)"),
    "tree_energy": Entry("hintseg.losses.tree_energy:TreeEnergy", "soft labels along a tree (Liang et al., 2022)"),
    "projection": Entry("hintseg.losses.projection:Projection", "boxes: their sides are touched (BoxInst, 2021)"),
    "pairwise": Entry("hintseg.losses.pairwise:Pairwise", "boxes: like neighbours have one label (BoxInst, 2021)"),
    "image_level": Entry("hintseg.losses.image_level:ImageLevel", "tags: a class somewhere, or nowhere (Bearman)"),
    "teacher": Entry("hintseg.losses.teacher:Teacher", "unsaid pixels: what an average of itself is sure of"),
    "consistency": Entry("hintseg.losses.consistency:Consistency", "photos without hints: strong views (UniMatch)"),
    "guided_attention": Entry("hintseg.losses.guided_attention:GuidedAttention", "of lgsa: attention within a class"),
    "window_affinity": Entry("hintseg.losses.window_affinity:WindowAffinity", "of afa, bmp: affinity of near cells"),
    "c2s": Entry("hintseg.losses.mutual:C2s", "of bmp: Branch-C teaches Branch-S"),
    "s2c": Entry("hintseg.losses.mutual:S2c", "of bmp: Branch-S teaches Branch-C"),
    "object_consistency": Entry("hintseg.wrappers.consistency:ObjectConsistency", "of csd: pasted objects"),
    "background_consistency": Entry("hintseg.wrappers.consistency:BackgroundConsistency", "of csd: pasted background"),
}
"""Losses of a segmenter's predictions. Those "of" a method read what only it gives, and it sets their weights."""

REFINERS: dict[str, Entry] = {
    "par": Entry("hintseg.refine:par", "pixel-adaptive refinement with colour and position (Ru et al., 2022)"),
    "pamr": Entry("hintseg.refine:pamr", "pixel-adaptive mask refinement (Araslanov and Roth, 2020)"),
    "dense_crf": Entry("hintseg.refine:dense_crf", "fully connected CRF (Kraehenbuehl and Koltun, 2011)"),
    "attention": Entry("hintseg.methods.attention:AttentionWalk", "a plain ViT's attention (Lin et al., 2023)"),
}
"""Refiners that do not learn: functions of scores and a photo, and a network that is not trained."""

LABELLERS: dict[str, Entry] = {
    "filled": Entry("hintseg.labellers.filled:Filled", "boxes: each is its object's mask, the baseline"),
    "grabcut": Entry("hintseg.labellers.grabcut:GrabCut", "boxes: each object cut out by its colours"),
    "cfs": Entry("hintseg.labellers.cfs:CfsLabeller", "boxes: a network that learned from GrabCut of all of them"),
    "strokes": Entry("hintseg.labellers.strokes:Strokes", "scribbles, points: each pixel takes the nearest, by colour"),
    "marks": Entry(
        "hintseg.labellers.marks:Marks", "boxes, scribbles, points: by GrabCut and by colour, whichever there are"
    ),
    "cam": Entry("hintseg.labellers.cam:CamLabeller", "tags: class maps of the stage localize", "localize"),
}
"""What makes labels of a photo's hints: `propose.method`, but `cam`, whose localizer is chosen by `localize.method`."""

FORMATS: dict[str, Entry] = {
    "folders": Entry("hintseg.formats.folders:Folders", "a folder of photos per class"),
    "mvtec": Entry("hintseg.formats.mvtec:MvTec", "MVTec AD: folders of defects, with their masks"),
    "nuclei": Entry("hintseg.formats.nuclei:Nuclei", "a folder per photo, with a mask of each object (DSB 2018)"),
    "csv": Entry("hintseg.formats.csv:Csv", "tables of tags, boxes (also Open Images), Kaggle's run lengths"),
    "voc": Entry("hintseg.formats.voc:Voc", "Pascal VOC: XML boxes in any layout, masks, split lists"),
    "cvat": Entry("hintseg.formats.cvat:Cvat", "CVAT for images 1.1: tags, boxes, polygons, polylines, points, masks"),
    "coco": Entry("hintseg.formats.coco:Coco", "COCO instances JSON: boxes, polygons, RLE"),
    "label_studio": Entry(
        "hintseg.formats.label_studio:LabelStudio",
        "Label Studio JSON and CSV: boxes, outlines, brush, points, choices",
    ),
    "via": Entry("hintseg.formats.via:Via", "JSON and CSV of VIA, the VGG Image Annotator: all shapes"),
    "createml": Entry("hintseg.formats.createml:CreateMl", "Create ML JSON: boxes, or labels of photos"),
    "labelme": Entry("hintseg.formats.labelme:Labelme", "labelme JSON, one for each photo: all shapes, flags as tags"),
    "yolo": Entry("hintseg.formats.yolo:Yolo", "YOLO .txt with data.yaml: boxes or polygons"),
    "index_png": Entry("hintseg.formats.index_png:IndexPng", "index PNGs: masks or scribbles"),
    "points": Entry("hintseg.formats.points:Points", "tables of points"),
    "cls_labels": Entry("hintseg.formats.cls_labels:ClsLabels", "cls_labels.npy of research code"),
}


def methods() -> dict[str, Entry]:
    """Return all methods by name, those of installed plug-ins included."""
    return METHODS | _plugins("hintseg.methods")


def objectives() -> dict[str, Entry]:
    """Return all objectives by name, those of installed plug-ins included."""
    return OBJECTIVES | _plugins("hintseg.objectives")


def labellers() -> dict[str, Entry]:
    """Return all labellers by name, those of installed plug-ins included."""
    return LABELLERS | _plugins("hintseg.labellers")


def formats() -> dict[str, Entry]:
    """Return all label formats by name, those of installed plug-ins included."""
    return FORMATS | _plugins("hintseg.formats")


def _plugins(group: str) -> dict[str, Entry]:
    return {found.name: Entry(found.value, f"plug-in {found.value}") for found in entry_points(group=group)}


def methods_to(stage: str) -> dict[str, Entry]:
    """Return the methods for a stage by name; plug-ins are imported, to ask them."""
    table = methods()
    return {n: e for n, e in table.items() if (e.stage or resolve("method", n, table).Config.task) == stage}


def resolve(kind: str, name: str, table: dict[str, Entry]) -> Any:
    """Import and return the object registered as `name`.

    Raises:
        ConfigError: No such name; the message lists the known ones.
    """
    if name not in table:
        known = ", ".join(table)
        raise ConfigError(f"unknown {kind} '{name}'{did_you_mean(name, list(table)) or '.'} Known: {known}")
    module, _, attribute = table[name].target.partition(":")
    return getattr(import_module(module), attribute)
