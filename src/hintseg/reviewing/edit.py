"""What an action makes of a mask and its hints: functions on numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hintseg.errors import ShapeError
from hintseg.geometry.rasterise import pixels
from hintseg.reviewing.schema import DECISIONS, Action, DrawnMark, Step
from hintseg.types import BACKGROUND, Stroke

Bytes = npt.NDArray[np.uint8]

LONGEST = 256
"""Pixels of the longer side at which an object is cut out of its box and what is around it."""


def changed(
    step: Step, action: Action, mask: Bytes, base: Bytes, rgb: Callable[[], Bytes], *, classes: int, background: bool
) -> tuple[Step, Bytes]:
    """Return the step after an action, without the number of its mask, and the mask.

    Args:
        step: How things stood.
        action: What is done; neither `undo` nor `redo`.
        mask: The mask as it stood, (H, W) uint8.
        base: The run's mask: what `erase` brings back where there is no background, and `reset` everywhere.
        rgb: Reads the photo, (H, W, 3) uint8; only `fill` looks at it.
        classes: K.
        background: Whether pixels may belong to no class.

    Raises:
        ShapeError: The label is none of the run's classes.
    """
    if action.label > classes or (
        action.label == BACKGROUND and not background and action.kind in ("paint", "fill", "stroke", "click")
    ):
        raise ShapeError(
            f"class {action.label} given, {0 if background else 1} to {classes} is needed; reload the page"
        )
    if action.kind in DECISIONS:
        return step.model_copy(update={"state": DECISIONS[action.kind]}), mask
    if action.kind == "reset":
        return Step(), base
    points = action.points or ()
    if action.kind in ("stroke", "click"):
        mark = DrawnMark(label=action.label, points=points, width=action.width)
        return step.model_copy(update={"state": "open", "marks": (*step.marks, mark)}), mask
    painted = mask.copy()
    if action.kind == "fill":
        window, inside = cut_out(rgb(), step, action)
        painted[window][inside] = action.label
    else:
        where = pixels(Stroke(points, action.width), (mask.shape[0], mask.shape[1]))
        erased = np.uint8(BACKGROUND) if background else base[where]
        painted[where] = action.label if action.kind == "paint" else erased
    return step.model_copy(update={"state": "open"}), painted


def cut_out(rgb: Bytes, step: Step, action: Action) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """Cut the object in a box out of the photo; hints drawn in the box say what belongs to it and what does not.

    Only the box and what is around it is looked at, at a reduced size.

    Returns:
        Rows and columns of the box, and the object in it.
    """
    import cv2

    from hintseg.geometry.boxes import expand_box, pixel_window
    from hintseg.refine.grabcut import box_proposal, refine_proposal

    x0, x1 = sorted((action.points or ())[0::2])
    y0, y1 = sorted((action.points or ())[1::2])
    size = rgb.shape[0], rgb.shape[1]
    box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[1])), min(y1, float(size[0])))
    if box[2] - box[0] < 2 or box[3] - box[1] < 2:
        raise ShapeError("the box is too small to look for an object in; draw one around the object")
    window = pixel_window(box, size)
    left, top, right, bottom = expand_box(window, size)  # colours around it are background's
    crop = rgb[top:bottom, left:right]
    factor = min(1.0, LONGEST / max(crop.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in crop.shape[:2])
    if factor < 1:
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)

    def reduced(points: Sequence[float]) -> tuple[float, ...]:
        moved = (np.reshape(points, (-1, 2)) - (left, top)) * (width / (right - left), height / (bottom - top))
        return tuple(moved.ravel().tolist())

    inner = reduced(window)
    small = pixel_window(inner, (height, width))
    inside = slice(small[1], small[3]), slice(small[0], small[2])
    probability = np.full((height, width), 0.5, np.float32)
    for mark in step.marks:
        drawn = DrawnMark(label=mark.label, points=reduced(mark.points), width=max(1.0, mark.width * factor))
        probability[pixels(drawn.mark().shape, (height, width))] = 0.9 if mark.label == action.label else 0.1
    told = (probability[inside] != 0.5).any()
    cut = np.zeros((height, width), np.uint8)
    cut[inside] = refine_proposal(crop, probability, inner) if told else box_proposal(crop, inner)
    grown = cv2.resize(255 * cut, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR) > 127
    rows, columns = slice(window[1], window[3]), slice(window[0], window[2])
    return (rows, columns), grown[window[1] - top : window[3] - top, window[0] - left : window[2] - left]
