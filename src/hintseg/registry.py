"""Hand-written tables name -> "module:Object". Importing this module imports no torch.

Other packages add methods through the entry-point group ``hintseg.methods``, label formats through ``hintseg.formats``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from hintseg.errors import ConfigError, did_you_mean


class Entry(NamedTuple):
    """One registered object: where it is and what it does, in a line."""

    target: str
    summary: str


METHODS: dict[str, Entry] = {
    "cam": Entry("hintseg.methods.cam:Cam", "localizer: classifier with GAP, GMP or HSPP, class activation maps"),
    "vwe": Entry("hintseg.methods.vwe:Vwe", "localizer: visual words and hybrid pooling (Ru et al., IJCAI 2021)"),
    "mctformer": Entry("hintseg.methods.mctformer:MctFormer", "localizer: one class token per class (Xu et al., 2022)"),
    "irn": Entry("hintseg.methods.irn:Irn", "refiner that learns: boundaries and random walk (Ahn et al., 2019)"),
    "cfs": Entry("hintseg.methods.cfs:Cfs", "proposer: box by box, foreground from GrabCut's noisy masks (CFS paper)"),
    "affinitynet": Entry("hintseg.methods.affinitynet:AffinityNet", "refiner that learns: pair affinity (PSA, 2018)"),
    "afa": Entry("hintseg.methods.afa:Afa", "segmenter from tags: affinity from attention (Ru et al., CVPR 2022)"),
    "bmp": Entry("hintseg.methods.bmp:Bmp", "segmenter from tags: two branches teach each other (Zhu et al.)"),
    "deeplabv2": Entry("hintseg.methods.deeplab:DeepLabV2", "segmenter: atrous pyramid summed (Chen et al., 2017)"),
    "lgsa": Entry("hintseg.methods.lgsa:LgsaDeepLabV2", "segmenter: DeepLabv2, guided attention (Xie et al., 2020)"),
    "segformer_head": Entry("hintseg.methods.deeplab:SegFormerHead", "segmenter: all-MLP head (Xie et al., 2021)"),
}

WRAPPERS: dict[str, Entry] = {
    "csd": Entry("hintseg.methods.csd:Csd", "wraps a localizer: copy-and-paste consistency (Yang et al., 2023)"),
}

REFINERS: dict[str, Entry] = {
    "par": Entry("hintseg.refine:par", "pixel-adaptive refinement with colour and position (Ru et al., 2022)"),
    "pamr": Entry("hintseg.refine:pamr", "pixel-adaptive mask refinement (Araslanov and Roth, 2020)"),
    "dense_crf": Entry("hintseg.refine:dense_crf", "fully connected CRF (Kraehenbuehl and Koltun, 2011)"),
    "random_walk": Entry("hintseg.refine:random_walk", "sparse walk along learned affinities (Ahn et al., 2019)"),
    "grabcut": Entry("hintseg.refine:grabcut", "GrabCut from a box or trimap (Rother et al., 2004)"),
}


FORMATS: dict[str, Entry] = {
    "folders": Entry("hintseg.formats.folders:Folders", "a folder of photos per class"),
    "csv": Entry("hintseg.formats.csv:Csv", "CSV of tags, one-hot tags, or boxes"),
    "voc": Entry("hintseg.formats.voc:Voc", "Pascal VOC layout: XML boxes, masks, split lists"),
    "coco": Entry("hintseg.formats.coco:Coco", "COCO instances JSON: boxes, polygons, RLE"),
    "yolo": Entry("hintseg.formats.yolo:Yolo", "YOLO .txt with data.yaml: boxes or polygons"),
    "index_png": Entry("hintseg.formats.index_png:IndexPng", "index PNGs: masks or scribbles"),
    "points": Entry("hintseg.formats.points:Points", "CSV of points"),
    "cls_labels": Entry("hintseg.formats.cls_labels:ClsLabels", "cls_labels.npy of research code"),
}


def methods() -> dict[str, Entry]:
    """Return all methods by name, those of installed plug-ins included."""
    return METHODS | _plugins("hintseg.methods")


def formats() -> dict[str, Entry]:
    """Return all label formats by name, those of installed plug-ins included."""
    return FORMATS | _plugins("hintseg.formats")


def _plugins(group: str) -> dict[str, Entry]:
    return {e.name: Entry(e.value, f"plug-in {e.value}") for e in entry_points(group=group)}


def resolve(kind: str, name: str, table: dict[str, Entry]) -> Any:
    """Import and return the object registered as `name`.

    Raises:
        ConfigError: No such name; the message lists the known ones.
    """
    if name not in table:
        known = ", ".join(table)
        raise ConfigError(f"unknown {kind} '{name}'{did_you_mean(name, list(table))}. Known: {known}")
    module, _, attribute = table[name].target.partition(":")
    return getattr(import_module(module), attribute)
