# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From tags to masks
#
# Small made photos, and of each only what is in it. This notebook trains for a minute, so its masks are rough;
# `hintseg demo` takes its time and gives better ones.
# It is generated from `docs/notebooks/tags_to_masks.py` and run by `make notebook`.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", module="tqdm")  # it asks for widgets

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import hintseg
from hintseg.data.shapes import write_shapes
from hintseg.files.palette import voc_palette

logging.getLogger("hintseg").setLevel(logging.ERROR)  # what it warns of is printed below
desk = Path(tempfile.mkdtemp())
write_shapes(desk / "photos", train=64, val=8, size=64)

# %% [markdown]
# ## Look first
#
# What is there, and what will hurt: here there are few photos of each class, and some classes come together.

# %%
report = hintseg.check(desk / "photos")
print(f"{report.photos} photos; {', '.join(report.classes)}")
for verdict in report.verdicts:
    print("-", verdict)

# %% [markdown]
# ## Train
#
# The recipe `demo` begins from random weights. Three stages: find where each tag is, spread that to the outlines, and
# teach a segmenter with the result. True masks judge; nothing learns from them.

# %%
run = hintseg.train(
    desk / "photos",
    desk / "run",
    recipe="demo",
    settings={"localize.fit.epochs": 12, "refine.fit.epochs": 2, "segment.fit.epochs": 6, "trainer.workers": 0},
)
for row in run.metrics:
    if not row["oracle"]:
        print(f"{row['kind']} ({row['split']}): mIoU {100 * row['miou']:.1f}")

# %% [markdown]
# ## Look again
#
# Photos, the masks made from their tags, and the truth.

# %%
masks = run.masks()
names = [line for line in (masks / "classes.txt").read_text().splitlines() if line]
files = sorted((masks / "png").glob("*.png"))[:6]
colours = voc_palette()
figure, axes = plt.subplots(3, len(files), figsize=(1.0 * len(files), 3.0))
for column, file in zip(axes.T, files, strict=True):
    column[0].imshow(Image.open(desk / "photos" / "JPEGImages" / file.name))
    for axis, folder in zip(column[1:], (masks / "png", desk / "photos" / "SegmentationClass"), strict=True):
        axis.imshow(colours[np.asarray(Image.open(folder / file.name))])
for axis in axes.flat:
    axis.set_axis_off()
figure.tight_layout(pad=0.2)

# %% [markdown]
# ## Use the model
#
# It needs no tags. `run.export()` writes it as ONNX.

# %%
predictions = run.predict(desk / "photos" / "JPEGImages", desk / "predictions", overlays=False)
print(len(list((predictions / "png").glob("*.png"))), "photos segmented")
