"""Self-attention over all cells of a feature map, free (non-local) or guided by masks (LGSA), in blocks of rows.

The map W of Eq. 4 has N x N entries, N = h * w cells: 71 MB for a photo of 513 pixels at stride 8. Here it exists only
a block of rows at a time, forward and backward, as in flash attention: the backward pass computes every block again
from theta(X) and phi(X). The block that gives W g(X) also gives the affinity loss, so neither W nor its target is kept.

Equations are those of Xie et al., "Learning Effectively from Noisy Supervision for Weakly Supervised Semantic
Segmentation", BMVC 2020; Wang et al., "Non-local Neural Networks", CVPR 2018, is the module without the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hintseg.errors import ConfigError, ShapeError
from hintseg.types import IGNORE

LARGEST_INNER = 512
"""Channels of theta, phi and g at most; half of the features' channels where that is less."""

_BLOCK_CPU = 2**20
"""Entries of W that exist at a time: 4 MiB of float32 stay in the cache of most machines."""

_BLOCK_GPU = 2**24
"""The same on other devices, where few large products are quicker than many small ones."""


def attend(query: Tensor, key: Tensor, value: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Average values with the weights W = softmax(query key^T), and say how far W is from the masks' own map.

    The loss is the mean of (W - W_gt)^2 over pairs of labelled cells of the whole batch. W_gt(i, j) is one over the
    size of cell i's class in its photo where the labels of i and j are equal, 0 elsewhere. Cells labelled 255 are in no
    class and in no pair of the mean: what a labelled cell takes from them costs nothing, since nothing is known about
    them, and their own rows are free.

    Args:
        query: theta(X), (B, N, C'). Not divided by a temperature (Eq. 4).
        key: phi(X), (B, N, C').
        value: g(X), or anything else on the cells, (B, N, V).
        labels: Classes of the cells, (B, N) uint8, 255 ignore; None leaves the loss out.

    Returns:
        W value, (B, N, V), and the loss, a scalar >= 0; 0 without labels. Products are done in the dtype given
        (float16, whose range is too small, becomes float32); softmax and loss in float32, or float64 if given that.

    Cost:
        Time O(B N^2 (C' + V)), as any attention; the backward pass computes query key^T once more. Memory
        O(B N (C' + V)): nothing of N x N is kept.

    Source:
        Xie et al., BMVC 2020, Eqs. 4, 6 and 7. With n_c cells in class c, sum_j (W_ij - W_gt,ij)^2 =
        sum_j W_ij^2 - 2 sum_{j in class of i} W_ij / n_c + 1 / n_c.

    Example:
        >>> cells = torch.tensor([[[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]])
        >>> out, loss = attend(cells, cells, cells, torch.tensor([[1, 1, 2]], dtype=torch.uint8))
        >>> out.round().equal(cells), loss.item() < 1e-9
        (True, True)
    """
    query, key, value = (x.float() if x.dtype == torch.float16 else x for x in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        if labels is None and torch.compiler.is_compiling():  # an exporter cannot follow the loop over blocks
            return _softmax_rows(query, key).to(value.dtype) @ value, query.new_zeros(())
        found: tuple[Tensor, Tensor] = _Attend.apply(query, key, value, labels)
    return found


def mass_loss(query: Tensor, key: Tensor, labels: Tensor) -> Tensor:
    """Say how much of what labelled cells take from others comes from other classes: -log of their own class's share.

    The mean over labelled cells i of -log(sum_{j in class of i} W_ij / sum_{j labelled} W_ij). Unlike the mean of
    squared differences it does not shrink with the number of cells.

    Args:
        query: theta(X), (B, N, C').
        key: phi(X), (B, N, C').
        labels: Classes of the cells, (B, N) uint8, 255 ignore.

    Returns:
        A scalar >= 0; 0 where nothing is labelled.

    Source:
        Ours, in place of Eq. 7 of Xie et al., BMVC 2020.

    Example:
        >>> cells = torch.tensor([[[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]])
        >>> mass_loss(cells, cells, torch.tensor([[1, 1, 2]], dtype=torch.uint8)).item() < 1e-6
        True
    """
    wide = _wide(query[:0]).dtype
    classes = labels.unique()
    member = (labels[:, :, None] == classes[classes != IGNORE]).to(wide)
    shares = attend(query, key, member)[0]
    known = labels != IGNORE
    own, all_known = (shares * member).sum(dim=2)[known], shares.sum(dim=2)[known]
    tiny = torch.finfo(wide).tiny
    lost: Tensor = all_known.clamp_min(tiny).log() - own.clamp_min(tiny).log()
    return lost.sum() / known.sum().clamp_min(1)


class _Attend(torch.autograd.Function):
    """`attend` and its gradient, both in blocks of rows."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        target = None if labels is None else _target(labels, _wide(query[:0]).dtype)
        out = torch.empty_like(value)
        pull = target.known.new_zeros(target.known.shape) if target else None  # sum_j W_ij (W_ij - W_gt,ij)
        loss = _wide(query[:0]).new_zeros(())
        for block in _blocks(query):
            images, _ = block
            affinity = _softmax_rows(query[block], key[images])
            out[block] = torch.bmm(affinity.to(value.dtype), value[images])
            if target is not None and pull is not None:
                own = (torch.bmm(affinity, target.share[images]) * target.member[block]).sum(dim=2, keepdim=True)
                squares = torch.bmm(affinity.square_(), target.known[images])
                known = target.known[block]
                pull[block] = (squares - own) * known
                loss += ((squares - 2 * own + target.norm[block]) * known).sum() / target.pairs
        ctx.save_for_backward(query, key, value, out, pull, *(target or ()))
        return out, loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_loss: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, out, pull, *rest = ctx.saved_tensors
        target = _Target(*rest) if rest else None
        with torch.autocast(query.device.type, enabled=False):
            # dL/dW = grad_out value^T + 2 a (W - W_gt) and dL/dscore = W (dL/dW - d), where d, the mean of dL/dW over
            # a row weighted by W, is known from the forward pass. W_gt and d together have rank classes + 1.
            mean = _wide(grad_out * out).sum(dim=2, keepdim=True)
            left, right = -mean, torch.ones_like(mean)
            if target is not None:
                scale = 2 * grad_loss / target.pairs
                left = torch.cat([-(mean + scale * pull), -scale * target.member], dim=2)
                right = torch.cat([right, target.share], dim=2)
            right, value_t = right.transpose(1, 2), value.transpose(1, 2)
            grad_query = torch.empty_like(query)
            grad_key, grad_value = torch.zeros_like(_wide(key)), torch.zeros_like(_wide(value))
            for block in _blocks(query):
                images, _ = block
                affinity = _softmax_rows(query[block], key[images])
                grad = _wide(torch.bmm(grad_out[block], value_t[images])).baddbmm_(left[block], right[images])
                if target is not None:
                    pairs = scale * target.known[block] * target.known[images].transpose(1, 2)
                    grad.addcmul_(affinity, pairs)
                _add_product(grad_value[images], affinity.to(value.dtype), grad_out[block])
                grad = grad.mul_(affinity).to(query.dtype)
                grad_query[block] = torch.bmm(grad, key[images])
                _add_product(grad_key[images], grad, query[block])
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None


class _Target(NamedTuple):
    """W_gt in factors, P classes present in the batch.

    Attributes:
        member: 1 where a cell is of a class, (B, N, P).
        share: `member` over the size of the class in its photo, (B, N, P); W_gt = member share^T.
        norm: Sum of squares of a row of W_gt, (B, N, 1).
        known: 1 where a cell is labelled, (B, N, 1).
        pairs: Pairs of labelled cells in the batch, at least 1, a scalar.
    """

    member: Tensor
    share: Tensor
    norm: Tensor
    known: Tensor
    pairs: Tensor


def _target(labels: Tensor, dtype: torch.dtype) -> _Target:
    present: Tensor = labels.unique()
    member = (labels[:, :, None] == present[present != IGNORE]).to(dtype)
    share = member / member.sum(dim=1, keepdim=True).clamp_min(1)
    known = (labels != IGNORE).to(dtype)[:, :, None]
    pairs = known.sum(dim=1).square().sum().clamp_min(1)
    return _Target(member, share, (member * share).sum(dim=2, keepdim=True), known, pairs)


def _blocks(query: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of W, as (photos, rows): whole photos while they are small, some rows of one where it is large."""
    batch, cells = query.shape[:2]
    entries = _BLOCK_CPU if query.device.type == "cpu" else _BLOCK_GPU
    images, rows = max(1, entries // cells**2), max(1, min(cells, entries // cells))
    for image in range(0, batch, images):
        for row in range(0, cells, rows):
            yield slice(image, image + images), slice(row, row + rows)


def _softmax_rows(query: Tensor, key: Tensor) -> Tensor:
    """Return rows of W, (B, R, N), for queries (B, R, C') and keys (B, N, C'): Eq. 4."""
    return _wide(torch.bmm(query, key.transpose(1, 2))).softmax(dim=2)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right, (B, N, V), to `total` in its own precision."""
    if total.dtype == left.dtype:
        total.baddbmm_(left.transpose(1, 2), right)
    else:
        total += torch.bmm(left.transpose(1, 2), right)


def _wide(values: Tensor) -> Tensor:
    """Return at least float32."""
    return values if values.dtype == torch.float64 else values.float()


@dataclass(frozen=True, slots=True)
class Affinity:
    """The map W of a photo's cells by its factors; rows sum to one, and what is not asked for is not computed.

    Attributes:
        query: theta(X), (B, N, C'), N = h * w, row-major.
        key: phi(X), (B, N, C').
        size: (h, w).
    """

    query: Tensor
    key: Tensor
    size: tuple[int, int]

    def walk(self, values: Tensor, steps: int = 1) -> Tensor:
        """Take steps of a random walk: in each, every cell gets the mean of all cells weighted by its row of W.

        Args:
            values: Logits or probabilities on the cells, (B, C, h, w).
            steps: Number of steps; the paper takes one.

        Returns:
            W^steps values, (B, C, h, w), at least float32; no value leaves the range of `values` in its channel.

        Raises:
            ShapeError: `values` is on another grid.

        Source:
            Xie et al., BMVC 2020, Eq. 8.
        """
        size = (values.shape[2], values.shape[3])
        if size != self.size:
            raise ShapeError(
                f"values on {size} cells cannot walk on a map of {self.size} cells; resize them to the map's grid first"
            )
        cells = _wide(_to_cells(values))
        for _ in range(steps):
            cells = attend(self.query, self.key, cells)[0]
        return _to_grid(cells, self.size)

    def rows(self, cells: Tensor) -> Tensor:
        """Return where single cells take their values from.

        Args:
            cells: Row-major numbers of Q cells per photo, 0..h*w-1, (B, Q) int64.

        Returns:
            Their rows of W, (B, Q, h, w), each >= 0 and of sum 1.
        """
        query = self.query.gather(1, cells[:, :, None].expand(-1, -1, self.query.shape[2]))
        return _softmax_rows(query, self.key).view(*cells.shape, *self.size)


class Attended(NamedTuple):
    """What attention gives.

    Attributes:
        features: Z, the shape of X.
        affinity: The map W of the last module.
        loss: Eq. 7 or `mass_loss`, summed over the modules, a scalar; 0 where nothing guides them.
    """

    features: Tensor
    affinity: Affinity
    loss: Tensor


class NonLocal(nn.Module):
    """Add to every cell a mean over all cells, weighted by learned affinity: Z = h(W g(X)) + X.

    `h` starts at zero, so a network with a new module behaves as without it. Weights of theta and phi start such that
    scores have a deviation of about one for features of root mean square one: with a wide softmax every cell
    is heard, and gradients reach all of them.

    Args:
        channels: C, of the features.
        inner: C', of theta, phi and g; None is half of C, at most `LARGEST_INNER`.

    Source:
        Wang et al., CVPR 2018; Xie et al., BMVC 2020, Eqs. 4 and 5.

    Example:
        >>> module, features = NonLocal(8), torch.rand(1, 8, 5, 4)
        >>> module(features).equal(features)
        True
    """

    def __init__(self, channels: int, inner: int | None = None) -> None:
        super().__init__()
        inner = inner or max(1, min(channels // 2, LARGEST_INNER))
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.h = nn.Conv2d(inner, channels, 1)
        for layer, std in (
            (self.theta, channels**-0.5 * inner**-0.25),
            (self.phi, channels**-0.5 * inner**-0.25),
            (self.g, channels**-0.5),
            (self.h, 0.0),
        ):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Map X (B, C, h, w) to Z (B, C, h, w)."""
        return self.attend(features).features

    def attend(self, features: Tensor) -> Attended:
        """Return Z, and the map it was made with."""
        return self._attend(features, None)

    def _attend(self, features: Tensor, labels: Tensor | None) -> Attended:
        query, key, value = (_to_cells(layer(features)) for layer in (self.theta, self.phi, self.g))
        size = (features.shape[2], features.shape[3])
        mean, loss = attend(query, key, value, None if labels is None else labels.flatten(1))
        return Attended(self.h(_to_grid(mean, size)) + features, Affinity(query, key, size), loss)  # Eq. 5


class Lgsa(NonLocal):
    """Loss-guided self-attention: a non-local module whose map learns to join cells of one class and part the others.

    Args:
        channels: C, of the features.
        inner: As for `NonLocal`.
        mass: Whether `mass_loss` guides it in place of Eq. 7.

    Source:
        Xie et al., BMVC 2020, section 3.3.
    """

    def __init__(self, channels: int, inner: int | None = None, *, mass: bool = False) -> None:
        super().__init__(channels, inner)
        self.mass = mass

    def attend(self, features: Tensor, labels: Tensor | None = None) -> Attended:
        """Return Z, its map and, with labels, the affinity loss; see `hintseg.nn.attention.attend`.

        Args:
            features: X, (B, C, h, w).
            labels: Masks on the grid of the features, (B, h, w) uint8, 255 ignore.
        """
        if labels is None or not self.mass:
            return self._attend(features, labels)
        found = self._attend(features, None)
        return found._replace(loss=mass_loss(found.affinity.query, found.affinity.key, labels.flatten(1)))


def cascade(modules: Iterable[nn.Module], features: Tensor, labels: Tensor | None = None) -> Attended:
    """Send features through several modules, one after the other.

    Args:
        modules: `NonLocal` and `Lgsa` modules, at least one.
        features: X, (B, C, h, w).
        labels: Masks on the grid of the features, (B, h, w) uint8, 255 ignore, which guide every `Lgsa`.

    Returns:
        Z of the last module, its map, and the sum of the losses.

    Raises:
        ConfigError: There is no module, or one of another kind.
    """
    found: Attended | None = None
    for module in modules:
        if isinstance(module, Lgsa):
            step = module.attend(features, labels)
        elif isinstance(module, NonLocal):
            step = module.attend(features)
        else:
            raise ConfigError(f"{type(module).__name__} is no attention module; give NonLocal or Lgsa modules")
        features = step.features
        found = step if found is None else step._replace(loss=found.loss + step.loss)
    if found is None:
        raise ConfigError("a cascade needs at least one attention module")
    return found


def _to_cells(grid: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, N, C), row-major."""
    return grid.flatten(2).transpose(1, 2).contiguous()


def _to_grid(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, h, w)."""
    return cells.transpose(1, 2).reshape(cells.shape[0], cells.shape[2], *size)
