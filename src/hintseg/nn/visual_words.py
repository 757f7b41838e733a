"""The visual word encoder: a trainable codebook that names every cell of a feature map.

Ru, Du and Wu, "Learning Visual Words for Weakly-Supervised Semantic Segmentation", IJCAI 2021, section 3.2.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Frequency = Literal["sum", "mean"]


class WordCode(NamedTuple):
    """A feature map in words.

    Attributes:
        probabilities: P, (B, k, h, w), 0..1; the words of a cell sum to 1.
        labels: Y, (B, h, w) int64: the likeliest word of each cell, 0..k-1.
        present: y_word, (B, k) float32: 1 where a word is the likeliest of any cell.
    """

    probabilities: Tensor
    labels: Tensor
    present: Tensor

    def frequency(self, mode: Frequency) -> Tensor:
        """Return how often each word occurs, (B, k): the mean over cells (Eq. 4) or their sum (the authors' code)."""
        cells = self.probabilities.flatten(2)
        return cells.mean(dim=2) if mode == "mean" else cells.sum(dim=2)


class VisualWords(nn.Module):
    """A codebook of `words` directions that feature vectors are compared to by cosine.

    Attributes:
        codebook: C, (k, d).

    Example:
        >>> code = VisualWords(words=16, channels=8)(torch.rand(2, 8, 4, 5))
        >>> code.probabilities.shape, code.frequency("mean").shape
        (torch.Size([2, 16, 4, 5]), torch.Size([2, 16]))
    """

    def __init__(self, words: int, channels: int, *, temperature: float = 1.0) -> None:
        """Draw the codebook.

        Args:
            words: k, number of words.
            channels: d, channels of the features.
            temperature: Divides the cosines before the softmax. 1 is the paper's: cosines differ by 2 at most, so no
                word is more than e^2 times likelier than another and P is close to uniform.
        """
        super().__init__()
        self.temperature = temperature
        # Only directions count, but the length sets how fast a step of gradient descent turns them.
        self.codebook = nn.Parameter(torch.empty(words, channels))
        nn.init.kaiming_normal_(self.codebook, a=sqrt(5))

    def forward(self, features: Tensor) -> WordCode:
        """Encode features as words.

        Args:
            features: F, (B, d, h, w). The paper's authors detach them, so that the words follow the features and never
                pull them along; the caller decides.

        Returns:
            Word probabilities, labels and presence.

        Source:
            Eqs. 1-3.
        """
        # Cosines of neighbouring words differ in the third digit: half precision would choose words by rounding.
        with torch.autocast(features.device.type, enabled=False):
            directions = F.normalize(features.float(), dim=1)
            cosines = torch.einsum("bdhw,kd->bkhw", directions, F.normalize(self.codebook.float(), dim=1))  # Eq. 1
            probabilities = torch.softmax(cosines / self.temperature, dim=1)  # Eq. 2
        labels = probabilities.argmax(dim=1)  # Eq. 3
        present = torch.zeros(probabilities.shape[:2], device=features.device)
        present.scatter_(1, labels.flatten(1), 1.0)
        return WordCode(probabilities, labels, present)
