"""Names of folders that say what part of the data they hold, not what is on the photos."""

from __future__ import annotations

import re

_ENDS = ("", "ing", "set", "ingset", "data", "ingdata", "images", "img", "imgs")
_TRAIN = (*(f"train{end}" for end in _ENDS), "segtrain", "objtraindata", "trainval")
_VAL = (
    *(f"{word}{end}" for word in ("val", "valid", "validation") for end in _ENDS),
    "dev",
    "devset",
    "objvaliddata",
    "minival",
)
_TEST = (*(f"test{end}" for end in _ENDS), "segtest", "objtestdata")

_SPLITS = {word: name for name, words in (("train", _TRAIN), ("val", _VAL), ("test", _TEST)) for word in words}

PHOTO_WORDS = ("images", "imgs", "photos", "image", "img", "pictures", "pics", "jpegimages", "frames", "rgb")
LABEL_WORDS = ("labels", "label", "annotations", "annotation", "txt", "yolo")
MASK_WORDS = ("masks", "mask", "groundtruth", "gt", "segmentation", "segmentationclass", "segmentationobject")
LAYOUT_WORDS = frozenset(
    {*PHOTO_WORDS, *LABEL_WORDS, *MASK_WORDS, "scribbles", "anns"}
    | {"overlays", "results", "outputs", "output", "predictions", "thumbnails", "thumbs", "xml", "json", "csv"}
)

OTHER_TEXTS = re.compile(r"(readme|licen[cs]e|requirements|changelog|citation|train|val|valid|test|all)\b.*", re.I)
"""Texts that often lie beside label files and are none."""


def plain(name: str) -> str:
    """Return the letters of a folder's name in lower case: `Train_2017` and `train` are one word.

    Example:
        >>> plain("Ground_Truth"), plain("train2017")
        ('groundtruth', 'train')
    """
    return re.sub(r"[\W\d_]", "", name.casefold())


def split_of(name: str) -> str | None:
    """Return the split that a folder's name speaks of: `train`, `val` or `test`; None where of none.

    Example:
        >>> split_of("Testing"), split_of("valid"), split_of("cat")
        ('test', 'val', None)
    """
    return _SPLITS.get(plain(name))
