"""Refinement by a function that learns nothing: scores of a photo are sharpened along its colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hintseg.cam import grow
from hintseg.config.run import FunctionRefine, RunConfig
from hintseg.data.photos import photo_size
from hintseg.labellers.cam import strongest
from hintseg.pipeline.each_photo import each_photo
from hintseg.pipeline.evidence import EvidenceStore, teaches_trust
from hintseg.pipeline.maps import readable
from hintseg.registry import REFINERS, resolve
from hintseg.run.folder import RunFolder
from hintseg.store.maps import read_maps
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import BACKGROUND, Photo


def sharpen(settings: FunctionRefine, scores: Tensor, pixels: Tensor) -> Tensor:
    """Spread scores along the colours of a photo.

    Args:
        settings: Which refiner, and its settings.
        scores: Of two classes or more, (1, C, H, W), at least 0.
        pixels: The photo, (1, 3, H, W) uint8.

    Returns:
        (1, C, H, W); they sum to 1 in each pixel where anything is known of it.

    Example:
        >>> from hintseg.config.run import ParRefine
        >>> pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        >>> sharpen(ParRefine(), torch.rand(1, 2, 8, 8), pixels).sum(dim=1).allclose(torch.ones(1, 8, 8))
        True
    """
    if settings.of_probabilities:
        scores = scores + (scores.sum(dim=1, keepdim=True) == 0)  # where nothing is known all are alike
        scores = scores / scores.sum(dim=1, keepdim=True)
    spread = resolve("refiner", settings.method, REFINERS)
    refined: Tensor = spread(scores, pixels, **settings.model_dump(exclude={"method"}))
    return refined / refined.sum(dim=1, keepdim=True).clamp(min=1e-6)


def refine_by_function(
    run: RunFolder,
    settings: FunctionRefine,
    config: RunConfig,
    photos: Sequence[Photo],
    threshold: float | None,
    watch: Watch,
) -> None:
    """Refine [background, class maps] of each photo with its colours and write the strongest."""
    store = EvidenceStore(run, "refine", trust=teaches_trust(config))

    def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        found, maps = read_maps(run.path / "localize" / "maps" / f"{group[0].id}.npz")
        labels, size = torch.from_numpy(found), (pixels.shape[-2], pixels.shape[-1])
        scores = grow(torch.from_numpy(maps)[None], size)[0] if len(maps) else torch.zeros(0, *size)
        if threshold is not None:
            scores = torch.cat([torch.full((1, *size), threshold), scores])
            labels = torch.cat([labels.new_full((1,), BACKGROUND), labels])
        if len(labels) > 1:
            scores = sharpen(settings, scores[None].to(pixels.device), pixels)[0].cpu()
        yield labels, scores

    def write(photo: Photo, made: tuple[Tensor, Tensor]) -> None:
        labels, scores = made
        size = photo_size(photo.path)
        grown = grow(scores[None], size)[0] if len(labels) else scores.new_zeros(0, *size)
        store.write(photo, strongest(labels, grown), quality=True)

    each_photo(
        f"refining with {settings.method}",
        readable(run, "localize", photos),
        make,
        write,
        config,
        watch,
        batch=1,
    )
    if machine.rank() == 0:
        store.finish(photos, watch)
