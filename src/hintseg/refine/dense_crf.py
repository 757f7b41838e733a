"""Fully connected CRF: labels that agree between pixels near each other and between pixels of like colour.

Mean field with Gaussian kernels, filtered on a permutohedral lattice in linear time. Each kernel is normalised
symmetrically, so that kernel weights mean the same near the border and on rare colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hintseg.errors import ShapeError
from hintseg.refine._checks import as_photos, check_scores
from hintseg.refine._lattice import MeanField, kernel


def dense_crf(
    probabilities: Tensor,
    rgb: Tensor,
    *,
    iterations: int = 10,
    gaussian: tuple[float, float] | None = (3, 3),
    bilateral: tuple[float, float, float] | None = (64, 5, 4),
) -> Tensor:
    """Sharpen class probabilities with a fully connected CRF.

    The defaults are AFA's and BMP's. IRNet's labels use a bilateral kernel (50, 5, 10); AffinityNet (80, 13, 10);
    DeepLab a Gaussian (1, 3) and a bilateral (67, 3, 4).

    Args:
        probabilities: Class probabilities, (B, C, H, W), float in 0..1; clipped from below at 1e-5. A channel that
            is exactly zero in a whole photo stays zero there and costs nothing.
        rgb: Photos, (B, 3, H, W), uint8, or float in 0..255.
        iterations: Number of mean-field updates, >= 0.
        gaussian: (sigma_px, weight) of the kernel on position, or None to leave it out.
        bilateral: (sigma_px, sigma_rgb, weight) of the kernel on position and colour, or None to leave it out.

    Returns:
        Marginal probabilities, (B, C, H, W), in the dtype of `probabilities`; they sum to 1 over C.

    Raises:
        ShapeError: Shapes, ranges, dtypes or devices of `probabilities` and `rgb` do not fit, or a setting is out
            of range.

    Cost:
        About 0.15 s for a photo of 321 x 481 with up to 4 classes on one CPU thread; noise costs several times
        more than photos, since every pixel then has lattice vertices of its own. About 120 bytes per pixel.

    Source:
        Krahenbuhl and Koltun, NIPS 2011, algorithm 1 and Eq. 3; Adams, Baek and Davis, Eurographics 2010.

    Example:
        >>> rgb = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        >>> probabilities = torch.full((1, 2, 8, 8), 0.5)
        >>> probabilities[0, :, 4, 4] = torch.tensor([0.1, 0.9])
        >>> dense_crf(probabilities, rgb).argmax(dim=1).float().mean()
        tensor(1.)
    """
    check_scores(probabilities, rgb, name="probabilities")
    # On a CPU the photos share no work: the lattices of one at a time are enough.
    photos = 1 if rgb.device.type == "cpu" else max(1, len(rgb))
    pairs = zip(torch.split(probabilities, photos), torch.split(rgb, photos), strict=True)
    runs = [DenseCrf(photo, gaussian=gaussian, bilateral=bilateral).infer(p, iterations) for p, photo in pairs]
    return runs[0] if len(runs) == 1 else torch.cat(runs)


class DenseCrf:
    """The kernels of a batch of photos, built once and used for any number of runs.

    Runs may differ in classes, probabilities, iterations and weights: the lattices depend on the photos and the
    standard deviations alone.

    Attributes:
        vertices: Lattice vertices of each kernel, all photos together; time and memory grow with them.

    Example:
        >>> crf = DenseCrf(torch.zeros(1, 3, 4, 6, dtype=torch.uint8), bilateral=(50, 5, 10))
        >>> labels = torch.zeros(1, 4, 6, dtype=torch.int64)
        >>> confident, cautious = (crf.infer(label_probabilities(labels, 3, p)) for p in (0.7, 0.9))
    """

    @torch.no_grad()
    def __init__(
        self,
        rgb: Tensor,
        *,
        gaussian: tuple[float, float] | None = (3, 3),
        bilateral: tuple[float, float, float] | None = (64, 5, 4),
    ) -> None:
        """Build the lattices.

        Args:
            rgb: Photos, (B, 3, H, W), uint8, or float in 0..255.
            gaussian: (sigma_px, weight) of the kernel on position, or None to leave it out.
            bilateral: (sigma_px, sigma_rgb, weight) of the kernel on position and colour, or None to leave it out.

        Raises:
            ShapeError: `rgb` is no batch of photos, a sigma is not above 0 or a weight is below 0, or a sigma is
                too small for the lattice.
        """
        photos = as_photos(rgb)
        kernels, weights = [], []
        if gaussian is not None:
            sigma_px, weight = _checked("gaussian", gaussian, "(sigma_px, weight)")
            kernels.append(kernel(photos, sigma_px))
            weights.append(weight)
        if bilateral is not None:
            sigma_px, sigma_rgb, weight = _checked("bilateral", bilateral, "(sigma_px, sigma_rgb, weight)")
            kernels.append(kernel(photos, sigma_px, sigma_rgb))
            weights.append(weight)
        self._rgb, self._weights = rgb, tuple(weights)
        self._mean_field: MeanField
        if photos.device.type == "cpu":
            from hintseg.refine import _lattice_numba

            self._mean_field = _lattice_numba.MeanField(kernels)
        else:
            from hintseg.refine import _lattice_torch

            self._mean_field = _lattice_torch.MeanField(kernels)
        self.vertices = self._mean_field.vertices

    @torch.no_grad()
    def infer(self, probabilities: Tensor, iterations: int = 10, *, weights: Sequence[float] | None = None) -> Tensor:
        """Run mean field.

        Args:
            probabilities: Class probabilities, (B, C, H, W), float in 0..1, for the same photos; clipped from below
                at 1e-5. A channel that is exactly zero in a whole photo stays zero there and costs nothing.
            iterations: Number of updates, >= 0.
            weights: Weights of the kernels, >= 0, the Gaussian's first, in place of those they were made with.

        Returns:
            Marginal probabilities, (B, C, H, W), in the dtype of `probabilities`.

        Raises:
            ShapeError: `probabilities` do not fit the photos or leave 0..1, `iterations` is negative, or `weights` are
                not one number of 0 or more per kernel.
        """
        check_scores(probabilities, self._rgb, name="probabilities")
        if probabilities.shape[2:] != self._rgb.shape[2:]:
            raise ShapeError(
                f"probabilities have {tuple(probabilities.shape[2:])} pixels and rgb {tuple(self._rgb.shape[2:])}; "
                "resize the probabilities to the photo first"
            )
        flat = probabilities.flatten(2)
        low, high = flat.amin(dim=2), flat.amax(dim=2)  # many times as fast as aminmax
        if not bool(((low >= 0) & (high <= 1)).all()):
            raise ShapeError("probabilities have values outside 0..1 (or NaN); give a softmax or clipped scores")
        if iterations < 0:
            raise ShapeError(f"iterations is {iterations}; give 0 or more, such as 10")
        chosen = self._weights if weights is None else tuple(weights)
        if len(chosen) != len(self._weights) or min(chosen, default=0) < 0:
            raise ShapeError(f"weights are {chosen}; give one of 0 or more for each of {len(self._weights)} kernels")
        return self._mean_field(flat, high > 0, iterations, chosen).view(probabilities.shape)


def label_probabilities(labels: Tensor, n_classes: int, gt_prob: float = 0.7) -> Tensor:
    """Turn hard labels into the probabilities that a CRF starts from.

    Args:
        labels: Classes, (B, H, W) or (H, W), integers in 0..n_classes - 1, without ignored pixels.
        n_classes: Number of classes, >= 2.
        gt_prob: Probability of the label, in 0..1; the other classes share the rest. IRNet uses 0.7.

    Returns:
        (B, n_classes, H, W) or (n_classes, H, W), float32.

    Raises:
        ShapeError: `labels` are no integers, leave 0..n_classes - 1, or a setting is out of range.

    Source:
        Krahenbuhl's DenseCRF library, unary_from_labels; Ahn, Cho and Kwak, CVPR 2019 use it for their labels.

    Example:
        >>> label_probabilities(torch.tensor([[0, 2]]), 3)[:, 0]
        tensor([[0.7000, 0.1500],
                [0.1500, 0.1500],
                [0.1500, 0.7000]])
    """
    if n_classes < 2 or not 0 < gt_prob < 1:
        raise ShapeError(
            f"n_classes is {n_classes} and gt_prob {gt_prob}; at least 2 classes and 0 < gt_prob < 1 needed"
        )
    if labels.ndim not in (2, 3) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ShapeError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; integers (B, H, W) or (H, W) needed"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ShapeError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; {n_classes} classes need 0..{n_classes - 1}: "
            "give ignored pixels a class first"
        )
    chosen = one_hot(labels.long(), n_classes).movedim(-1, -3).bool()
    return torch.where(chosen, gt_prob, (1 - gt_prob) / (n_classes - 1))


def _checked(name: str, setting: tuple[float, ...], meaning: str) -> tuple[float, ...]:
    *sigmas, weight = setting
    if len(setting) != meaning.count(",") + 1 or min(sigmas, default=0) <= 0 or weight < 0:
        raise ShapeError(f"{name} is {tuple(setting)}; give {meaning} with sigmas above 0 and a weight of 0 or more")
    return tuple(setting)
