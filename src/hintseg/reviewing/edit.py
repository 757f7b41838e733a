"""What an action makes of a mask and its hints: functions on numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hintseg.errors import ShapeError
from hintseg.geometry.rasterise import pixels
from hintseg.reviewing.schema import DECISIONS, Action, DrawnMark, Step
from hintseg.types import BACKGROUND, Stroke

Bytes = npt.NDArray[np.uint8]


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

    Returns:
        Rows and columns of the box, and the object in it.
    """
    from hintseg.geometry.boxes import pixel_window
    from hintseg.refine.grabcut import box_proposal, refine_proposal

    x0, x1 = sorted((action.points or ())[0::2])
    y0, y1 = sorted((action.points or ())[1::2])
    size = rgb.shape[0], rgb.shape[1]
    box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[1])), min(y1, float(size[0])))
    if box[2] - box[0] < 2 or box[3] - box[1] < 2:
        raise ShapeError("the box is too small to look for an object in; draw one around the object")
    window = pixel_window(box, size)
    rows, columns = slice(window[1], window[3]), slice(window[0], window[2])
    probability = np.full(size, 0.5, np.float32)
    for mark in step.marks:
        probability[pixels(mark.mark().shape, size)] = 0.9 if mark.label == action.label else 0.1
    if (probability[rows, columns] == 0.5).all():
        return (rows, columns), box_proposal(rgb, box)
    width, height = window[2] - window[0], window[3] - window[1]
    top, left = max(window[1] - height // 4, 0), max(window[0] - width // 4, 0)  # colours around it are background's
    around = slice(top, window[3] + height // 4), slice(left, window[2] + width // 4)
    inner = (window[0] - left, window[1] - top, window[2] - left, window[3] - top)
    return (rows, columns), refine_proposal(np.ascontiguousarray(rgb[around]), probability[around], inner)
