"""The report's charts, as SVG in data URIs. Colours are Okabe and Ito's, which colour-blind readers can tell apart."""

from __future__ import annotations

import base64
import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

_POINTS = 400
"""Points of a curve that are drawn; longer logs are thinned by averaging."""

_STYLE = {
    "text.parse_math": False,  # class names are untrusted: a dollar sign is no formula
    "svg.fonttype": "none",
    "svg.hashsalt": "hintseg",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def photos_per_class(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Draw how many photos of each split have each class.

    Args:
        classes: Class names, length K.
        counts: Numbers of photos, length K, by split.
    """
    return _bars(classes, {name: [float(n) for n in values] for name, values in counts.items()}, "photos")


def per_class_iou(classes: Sequence[str], values: Mapping[str, Sequence[float]]) -> str:
    """Draw the IoU of each class for each kind of mask.

    Args:
        classes: Class names in the order to draw.
        values: IoU 0..1 of each class, NaN where missing, by kind.
    """
    percent = {kind: [100 * v for v in row] for kind, row in values.items()}
    return _bars(classes, percent, "IoU, %", limit=100)


def cooccurrence(classes: Sequence[str], matrix: np.ndarray[Any, Any]) -> str:
    """Draw which classes are seen together.

    Args:
        classes: Class names, length K.
        matrix: (K, K) numbers of photos with both classes; the diagonal counts photos with the class.
    """
    count = len(classes)
    share = 100 * matrix / np.maximum(matrix.diagonal(), 1)[:, None]  # (K, K), %
    side = min(9.0, max(2.2, 0.3 * count))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side + 1.9, side + 1.2), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        size = 9 if count <= 30 else 6
        axes.set_xticks(range(count), [_short(c) for c in classes], rotation=90, fontsize=size)
        axes.set_yticks(range(count), [_short(c) for c in classes], fontsize=size)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if count <= 25:
            for (row, column), value in np.ndenumerate(share):
                if matrix[row, column] and row != column:
                    colour = "white" if value > 55 else "#333333"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=20, pad=0.02, ticks=(0, 50, 100))
        bar.ax.set_title("%")
        bar.outline.set_visible(False)
        return _svg(figure)


def threshold_curve(
    thresholds: Sequence[float], miou: Sequence[float], chosen: float | None, oracle: float | None
) -> str:
    """Draw mIoU over the background threshold, with the chosen and the oracle threshold.

    Args:
        thresholds: Background scores, 0..1, ascending.
        miou: mIoU 0..1 at each.
        chosen: The threshold that was used; None if unknown.
        oracle: The best one by ground truth; None if unknown.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(thresholds, [100 * v for v in miou], color=COLOURS[7], linewidth=1.4)
        marks = (("chosen", chosen, COLOURS[0], "-", "o"), ("oracle", oracle, COLOURS[5], "--", "D"))
        for name, place, colour, dashes, marker in marks:
            if place is None:
                continue
            value = 100 * float(np.interp(place, thresholds, miou))
            axes.axvline(place, color=colour, linewidth=1, linestyle=dashes)
            axes.plot([place], [value], marker, color=colour, label=f"{name}: {place:.2f} gives {value:.1f} %")
        axes.set_xlabel("background threshold")
        axes.set_ylabel("mIoU, %")
        axes.grid(axis="y", color="#eeeeee")
        axes.legend()
        return _svg(figure)


def training_curves(log: Mapping[str, Sequence[float]]) -> str:
    """Draw losses and learning rate over the optimiser steps.

    Args:
        log: Columns of ``log.csv``: step, epoch, lr, loss and the named parts of the loss.
    """
    steps = np.asarray(log.get("step", range(len(next(iter(log.values()))))), dtype=float)
    parts = [name for name in log if name not in ("step", "epoch", "lr", "loss")]
    lines = (["loss"] if "loss" in log else []) + (parts if len(parts) > 1 or "loss" not in log else [])
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        for index, name in enumerate(lines):
            colour = COLOURS[7] if name == "loss" else COLOURS[index % 7]
            left.plot(*_thin(steps, np.asarray(log[name])), color=colour, linewidth=1.2, label=_short(name))
        left.set_title("loss")
        left.set_xlabel("step")
        left.set_ylim(bottom=min(0, left.get_ylim()[0]))
        if lines:
            left.legend(fontsize=8)
        right.plot(*_thin(steps, np.asarray(log.get("lr", np.full(len(steps), np.nan)))), color=COLOURS[0])
        right.set_title("learning rate")
        right.set_xlabel("step")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.grid(axis="y", color="#eeeeee")
        return _svg(figure)


def measured_curves(steps: Sequence[float], curves: Mapping[str, Sequence[float]]) -> str:
    """Draw what was measured during a training.

    Args:
        steps: Optimiser steps.
        curves: Shares at each, such as mIoU, 0..1, by name.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.subplots()
        for index, (name, values) in enumerate(curves.items()):
            colour = COLOURS[index % 8]
            axes.plot(steps, [100 * v for v in values], "o-", markersize=3, color=colour, label=_short(name))
        axes.set_xlabel("step")
        axes.set_ylabel("%")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#eeeeee")
        axes.legend()
        return _svg(figure)


def cost_curves(curves: Mapping[str, Sequence[tuple[float, float]]], caption: str) -> bytes:
    """Draw mIoU over the hours of labelling, an SVG file.

    Args:
        curves: Points (hours, mIoU 0..1) of each kind of hint.
        caption: What stands below, such as whence the hours are.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for index, (kind, points) in enumerate(curves.items()):
            hours, miou = zip(*points, strict=True)
            axes.plot(hours, [100 * v for v in miou], "o-", markersize=4, color=COLOURS[index % 8], label=kind)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # powers of ten would be formulas, which `_STYLE` leaves as they are
        axes.set_xlabel("hours of labelling")
        axes.set_ylabel("mIoU, %")
        axes.grid(color="#eeeeee")
        axes.legend()
        figure.supxlabel(textwrap.fill(caption, 120), x=0.01, ha="left", fontsize=6.5, color="#5a6572")
        return _svg_bytes(figure)


def _bars(names: Sequence[str], series: Mapping[str, Sequence[float]], label: str, limit: float | None = None) -> str:
    """Draw horizontal bars, one group per name and one colour per series."""
    thickness = 0.8 / max(len(series), 1)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.7 + len(names) * (0.16 + 0.09 * len(series))), layout="constrained")
        axes = figure.subplots()
        for index, (name, values) in enumerate(series.items()):
            places = np.arange(len(names)) + (index - (len(series) - 1) / 2) * thickness
            axes.barh(places, np.nan_to_num(values), thickness, color=COLOURS[index % 8], label=name)
            for place, value in zip(places, values, strict=True):
                text = "–" if np.isnan(value) else f"{value:.0f}"
                axes.annotate(
                    text, (np.nan_to_num(value), place), (3, 0), textcoords="offset points", va="center", fontsize=6.5
                )
        axes.set_yticks(range(len(names)), [_short(n) for n in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, limit)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(label)
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=len(series))
        return _svg(figure)


def _thin(steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Leave blank cells out and average neighbours, so that at most `_POINTS` are drawn."""
    kept = np.isfinite(values)
    steps, values = steps[kept], values[kept]
    width = -(-len(values) // _POINTS)
    if width <= 1:
        return steps, values
    edges = np.arange(0, len(values), width)
    sizes = np.diff(np.append(edges, len(values)))
    return np.add.reduceat(steps, edges) / sizes, np.add.reduceat(values, edges) / sizes


def _short(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _svg(figure: Figure) -> str:
    """Return a figure as a data URI; inside an image it can neither run scripts nor disturb the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(_svg_bytes(figure)).decode("ascii")


def _svg_bytes(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # glyphs missing here are drawn by the reader's browser
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
