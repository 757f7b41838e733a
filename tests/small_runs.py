"""Photos and settings with which a whole run takes seconds, and the command line in the process of the tests."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from PIL import Image

from hintseg.cli.app import main

TINY = ("backbone.name=resnet10t", "backbone.weights=random", "trainer.workers=0", "trainer.precision=32-true")
QUICK = [
    *TINY,
    *("localize.fit.epochs=2", "localize.fit.batch_size=4", "localize.fit.crop=64", "maps.scales=[1.0]"),
    *("refine.fit.epochs=1", "refine.fit.batch_size=4", "refine.fit.crop=64"),
    *("segment.fit.epochs=2", "segment.fit.batch_size=4", "segment.fit.crop=64", "test.scales=[1.0]"),
]
"""A localizer, a refiner that learns and a segmenter."""

ONE_STAGE = [
    *("backbone.name=mit_tiny", *TINY[1:], "maps.scales=[1.0]", "test.scales=[1.0]"),
    *("segment.width=16", "segment.scales=[1.0]", "segment.fit.batch_size=4", "segment.fit.crop=64"),
]
"""A segmenter that learns from tags, AFA or BMP."""


def write_squares(folder: Path, count: int = 12, *, background: bool = True) -> Path:
    """Coloured squares (class `red`) and discs (class `blue`) on noise, in a VOC layout with masks and splits."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    tags = []
    for i in range(count):
        rgb = rng.integers(90, 160, (56, 72, 3), dtype=np.uint8)
        mask = np.zeros((56, 72), np.uint8) if background else np.full((56, 72), 1, np.uint8)
        names = []
        if i % 2 == 0 or not background:
            rgb[10:34, 6:30] = (220, 30, 30)
            mask[10:34, 6:30] = 1
            names.append("red")
        if i % 3 == 0:
            y, x = np.mgrid[:56, :72]
            disc = (y - 34) ** 2 + (x - 52) ** 2 < 150
            rgb[disc] = (30, 30, 220)
            mask[disc] = 2
            names.append("blue")
        Image.fromarray(rgb).save(folder / "JPEGImages" / f"photo {i}.png")
        Image.fromarray(mask).save(folder / "SegmentationClass" / f"photo {i}.png")
        tags.append(",".join([f"photo {i}", *names]))
    (folder / "tags.csv").write_text("\n".join(tags) + "\n")
    (folder / "classes.txt").write_text("red\nblue\n")
    ids = [f"photo {i}" for i in range(count)]
    (folder / "ImageSets/Segmentation/train.txt").write_text("\n".join(ids[:-4]) + "\n")
    (folder / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids[-4:]) + "\n")
    return folder


class Done(NamedTuple):
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


def typed(*words: object) -> Done:
    """Give the command line these words, in this process: in one of its own torch takes seconds to import."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        patch.object(sys, "argv", ["hintseg", *map(str, words)]),
        patch.object(logging.root, "handlers", []),
        warnings.catch_warnings(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        warnings.resetwarnings()
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        finally:
            logging.captureWarnings(False)
    assert isinstance(code, int | None)
    return Done(code or 0, out.getvalue(), err.getvalue())
