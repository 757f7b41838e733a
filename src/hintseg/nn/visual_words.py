"""The visual word encoder: a codebook that names every cell of a feature map.

Ru, Du and Wu, "Learning Visual Words for Weakly-Supervised Semantic Segmentation", IJCAI 2021, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Frequency = Literal["sum", "mean"]

ROUNDS = 10
"""Rounds of k-means."""

CELLS = 80
"""Cells per word that k-means looks at, at most."""

KEPT = 0.99
"""What a step leaves of a running mean."""


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
        codebook: C, (k, d): a parameter where it is learned, else a buffer.
        centre: What is subtracted from features before they are compared, (d,); 0 where the codebook is learned.
        usual: Mean of P over the training cells, (k,); 0 where the codebook is learned.

    Example:
        >>> code = VisualWords(words=16, channels=8)(torch.rand(2, 8, 4, 5))
        >>> code.probabilities.shape, code.frequency("mean").shape
        (torch.Size([2, 16, 4, 5]), torch.Size([2, 16]))
    """

    codebook: Tensor
    centre: Tensor
    usual: Tensor

    def __init__(self, words: int, channels: int, *, temperature: float = 1.0, learned: bool = True) -> None:
        """Draw the codebook.

        Args:
            words: k, number of words.
            channels: d, channels of the features.
            temperature: Divides the cosines before the softmax. 1 is the paper's: cosines differ by 2 at most, so no
                word is more than e^2 times likelier than another and P is close to uniform.
            learned: Whether the codebook learns from gradients (the paper); else it holds means of features, see
                `start` and `follow`.
        """
        super().__init__()
        self.temperature, self.learned = temperature, learned
        # Only directions count, but the length sets how fast a step of gradient descent turns them.
        codebook = nn.init.kaiming_normal_(torch.empty(words, channels), a=sqrt(5))
        if learned:
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("usual", torch.zeros(words))

    def forward(self, features: Tensor) -> WordCode:
        """Encode features as words.

        Args:
            features: F, (B, d, h, w). The paper's authors detach them, so that the words follow the features and never
                pull them along; the caller decides.

        Returns:
            Word probabilities, labels and presence.

        Source:
            Eqs. 1-3; of features less their centre where the codebook is not learned.
        """
        # Cosines of neighbouring words differ in the third digit: half precision would choose words by rounding.
        with torch.autocast(features.device.type, enabled=False):
            directions = self._directions(features)
            cosines = torch.einsum("bdhw,kd->bkhw", directions, F.normalize(self.codebook.float(), dim=1))  # Eq. 1
            probabilities = torch.softmax(cosines / self.temperature, dim=1)  # Eq. 2
        labels = probabilities.argmax(dim=1)  # Eq. 3
        present = torch.zeros(probabilities.shape[:2], device=features.device)
        present.scatter_(1, labels.flatten(1), 1.0)
        return WordCode(probabilities, labels, present)

    @torch.no_grad()
    def start(self, features: Iterable[Tensor]) -> None:
        """Set the centre to the mean of features, and the codebook to their k-means by cosine.

        Args:
            features: Of some batches, (B, d, h, w) each. A few cells of each photo are looked at, drawn at random.

        Source:
            Section 3.2 names k-means as the classic way. Why it is taken here: `hintseg.methods.vwe.VweConfig`.
        """
        cells = torch.cat([level.float().flatten(2).transpose(1, 2).flatten(0, 1) for level in features])
        self.centre.copy_(cells.mean(dim=0))
        words = len(self.codebook)
        drawn = cells[torch.randperm(len(cells), device=cells.device)[: CELLS * words]]
        directions = F.normalize(drawn - self.centre, dim=1)
        book = directions[torch.arange(words, device=cells.device) % len(directions)].clone()
        for _ in range(ROUNDS):
            nearest = (directions @ book.T).argmax(dim=1)
            sums = torch.zeros_like(book).index_add_(0, nearest, directions)
            book = torch.where(sums.any(dim=1, keepdim=True), F.normalize(sums, dim=1), book)
        self.codebook.copy_(book)
        self.usual.copy_(self(drawn.T[None, :, :, None]).probabilities.mean(dim=(0, 2, 3)))

    @torch.no_grad()
    def follow(self, features: Tensor, code: WordCode) -> None:
        """Let the centre, the words and their usual share follow the features: running means over training steps.

        Args:
            features: F, (B, d, h, w).
            code: Their words.
        """
        directions = self._directions(features).transpose(0, 1).flatten(1).T  # (B h w, d)
        named = code.labels.flatten()
        sums = torch.zeros_like(self.codebook).index_add_(0, named, directions)
        means = torch.where(sums.any(dim=1, keepdim=True), F.normalize(sums, dim=1), self.codebook)
        self.codebook.lerp_(means, 1 - KEPT)
        self.centre.lerp_(features.float().mean(dim=(0, 2, 3)), 1 - KEPT)
        self.usual.lerp_(code.probabilities.mean(dim=(0, 2, 3)), 1 - KEPT)

    def _directions(self, features: Tensor) -> Tensor:
        """Return features less the centre, each cell of length 1, (B, d, h, w)."""
        return F.normalize(features.float() - self.centre[:, None, None], dim=1)
