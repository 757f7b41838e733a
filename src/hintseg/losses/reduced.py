"""What regularisers of whole photos look at: predictions, colours and labels on a coarser grid, inside the photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.config.objective import Objective
from hintseg.config.settings import Count
from hintseg.errors import ConfigError
from hintseg.losses.affinity import labels_on_grid
from hintseg.nn.resize import resize
from hintseg.types import IGNORE, Prediction, Supervision, Targets


@dataclass(frozen=True, slots=True)
class Scene:
    """One photo on a grid of cells; its padding is cut off.

    Attributes:
        probabilities: (C, h, w) of the segmenter, with a gradient.
        colours: (3, h, w) RGB in 0..1.
        labels: (h, w) uint8: 0 background, 1..K, 255 not said.
        number: Which photo of the batch it is.
        cells: Rows and columns that it takes of the whole grid.
        grid: (h, w) of that.
    """

    probabilities: Tensor
    colours: Tensor
    labels: Tensor
    number: int
    cells: tuple[slice, slice]
    grid: tuple[int, int]


class PhotoObjective(Objective):
    """Base of objectives that say of a photo's unlabelled pixels how they go with the others, by colour.

    Photos without any labelled pixel contribute nothing: there every constant prediction would be as good.

    Attributes:
        cell: Side of the cells that it is worked out on, image pixels.
    """

    needs = frozenset({Supervision.MASKS})
    cell: Count = 4

    def mean(self, seen: Prediction, targets: Targets, images: Tensor) -> Tensor:
        """Return the weighted mean of `of` over the photos with labels; 0, with a gradient of 0, without any."""
        losses = [self.of(scene, seen) for scene in self.scenes(seen, targets, images)]
        return self.weight * torch.stack(losses).mean() if losses else logits_of(self, seen)[:0].sum()

    def of(self, scene: Scene, seen: Prediction) -> Tensor:
        """Return the loss of one photo, a scalar >= 0 that does not grow with its size."""
        raise NotImplementedError

    def scenes(self, seen: Prediction, targets: Targets, images: Tensor) -> Iterator[Scene]:
        """Yield the photos that have a labelled pixel, but those smaller than a cell."""
        pixels, logits = self.pixels(targets), logits_of(self, seen)
        size = grid_of(images, self.cell)
        probabilities = resize(logits.float(), size).softmax(dim=1)
        colours, labels = interpolate(images.float(), size=size, mode="area"), labels_on_grid(pixels, size)
        for number in (pixels != IGNORE).any(dim=2).any(dim=1).nonzero().flatten().tolist():
            cells = window_cells(targets.windows[number], images.shape[-2:], size)
            rows, columns = cells
            if rows.start < rows.stop and columns.start < columns.stop:
                part = (slice(None), rows, columns)
                of_photo = probabilities[number][part], colours[number][part], labels[number][cells]
                yield Scene(*of_photo, number, cells, size)


def grid_of(images: Tensor, cell: int) -> tuple[int, int]:
    """Return (h, w) of the grid of cells of `cell` pixels on images (B, 3, H, W)."""
    height, width = (max(1, round(side / cell)) for side in images.shape[-2:])
    return height, width


def logits_of(objective: Objective, seen: Prediction) -> Tensor:
    """Return the logits of a prediction.

    Raises:
        ConfigError: It has none.
    """
    if seen.logits is None:
        raise ConfigError(f"objective '{objective.name}' judges logits, and this prediction has none")
    return seen.logits


def window_cells(window: Tensor, size: Sequence[int], cells: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of the cells whose centre lies in a window (x0, y0, x1, y1), pixels.

    Example:
        >>> window_cells(torch.tensor([0, 2, 8, 8]), (8, 8), [4, 4])
        (slice(1, 4, None), slice(0, 4, None))
    """
    x0, y0, x1, y1 = window.tolist()
    found = []
    for low, high, side, count in ((y0, y1, size[0], cells[0]), (x0, x1, size[1], cells[1])):
        ends = [-int(-(end * count / side - 0.5) // 1) for end in (low, high)]  # the first centre not below
        found.append(slice(max(0, ends[0]), max(0, ends[1])))
    return found[0], found[1]
