"""How often each class occurs, as a fixed offset of its score."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class ClassPrior(nn.Module):
    """Add to each class's score the log-odds of meeting the class in a training photo.

    A linear classifier without bias has to say "rare" somewhere: it learns weights that are negative on the features
    all photos share, and the class maps of rare classes end below zero everywhere, where their ReLU leaves nothing. An
    offset that is no part of the maps says it instead. The offset is measured, not learned, and saved with the
    weights; until measured it is 0.

    Args:
        classes: K.

    Example:
        >>> prior = ClassPrior(2)
        >>> tags = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
        >>> prior.measure([(tags, torch.ones(4, 2, dtype=torch.bool))])
        >>> prior(torch.zeros(1, 2))
        tensor([[ 0.8473, -0.8473]])
    """

    offset: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(classes))

    def measure(self, tags: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the offset from the known tags of some batches; half a photo is added to both sides: it stays finite.

        Args:
            tags: For each batch the tags (B, K), and which of them are known, (B, K) bool.
        """
        tags_of, known_of = zip(*tags, strict=True)
        present, known = torch.cat(tags_of).float().sum(dim=0), torch.cat(known_of).float().sum(dim=0)
        self.offset.copy_(((present + 0.5) / (known - present + 0.5)).log())

    def forward(self, scores: Tensor) -> Tensor:
        """Return scores (B, K) plus the offset."""
        return scores + self.offset
