"""Features of a frozen encoder, worked out once for each photo and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from hintseg.config.run import RunConfig
from hintseg.data.inference import size_groups
from hintseg.data.kept import Levels
from hintseg.data.photos import photo_size
from hintseg.data.transforms import reduction
from hintseg.errors import PhotoError, RunError
from hintseg.features.cache import FeatureCache
from hintseg.methods.method import Method
from hintseg.nn.encoders import Encoder
from hintseg.nn.plain_vit import PlainVit
from hintseg.pipeline.each_photo import BATCH, each_photo, looked
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Features, Photo

logger = logging.getLogger("hintseg")

FORMAT = 2
"""Changes where what is kept changes."""


class Kept:
    """The kept features of photos.

    Args:
        cache: Where they lie.
        keys: Under which key, by the photo's id.
        strides: Image pixels per cell of each level.
        longest: Photos with a longer side, pixels, were reduced to it.
    """

    def __init__(self, cache: FeatureCache, keys: Mapping[str, str], strides: Sequence[int], longest: int) -> None:
        self.cache, self.keys, self.strides, self.longest = cache, keys, strides, longest

    def read(self, photo: Photo) -> Levels | None:
        """Return a photo's levels, float16; None where the photo could not be read.

        Raises:
            RunError: They were there and are gone.
        """
        if photo.id not in self.keys:
            return None
        levels = self.cache.read(self.keys[photo.id])
        if levels is None:
            raise RunError(
                f"the kept features of photo {photo.id} are gone or damaged in {self.cache.root}: cleared, or "
                "another run needed the space; `--resume` makes them again, `hintseg cache --limit` gives more space"
            )
        return levels

    def batch(self, photos: Sequence[Photo]) -> tuple[list[Photo], Features] | None:
        """Return the photos of one size that could be read, and their features; None where there is none."""
        found = [(photo, levels) for photo in photos if (levels := self.read(photo)) is not None]
        if not found:
            return None
        # in float32 first: at some precisions autocast does not stack float16
        single = ([level.float() for level in levels] for _, levels in found)
        stacked = [torch.stack(same) for same in zip(*single, strict=True)]
        own, mirrored = (tuple(level[:, side] for level in stacked) for side in (0, 1))
        return [photo for photo, _ in found], Features(own, _seen_size(photos[0], self.longest), mirrored)


def frozen_encoder(method: Method) -> Encoder | None:
    """Return the encoder of a method whose features may be kept: it is frozen, and the method looks through it."""
    encoder = getattr(method, "backbone", None)
    if not isinstance(encoder, Encoder) or not method.reads_features:
        return None
    return encoder if encoder.config.freeze == "all" and encoder.config.keep else None


def keep(method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch) -> Kept | None:
    """Work out the features of the photos that have none yet; None where the method needs images, or space is short."""
    encoder = frozen_encoder(method)
    if encoder is None:
        return None
    cache, network = FeatureCache(), _network_key(encoder, config)
    keys = {photo.id: key for photo in photos if (key := _photo_key(photo, network)) is not None}
    there = {id for id, key in keys.items() if cache.read(key) is not None}
    missing = [photo for photo in photos if photo.id in keys and photo.id not in there]
    cache.touch(keys[id] for id in there)

    def make(group: list[Photo], pixels: Tensor) -> Iterator[list[Tensor]]:
        images = pixels.float() / 255
        both = zip(_seen(encoder, images), _seen(encoder, images.flip(3)), strict=True)
        levels = [torch.stack(pair, dim=1).half().cpu() for pair in both]
        return ([level[i] for level in levels] for i in range(len(group)))

    def write(photo: Photo, levels: list[Tensor]) -> None:
        cache.write(keys[photo.id], levels)

    if missing:
        with machine.at_work(encoder, config.trainer) as device:
            one = size_groups(missing[:1], 1)
            first = next(looked(one, make, device, config, cast=True, longest=config.data.longest_side), None)
        need = 0 if first is None else len(keys) * sum(2 * level.numel() for level in first[1])
        if need > cache.limit:
            logger.warning(
                "features of %d photos take about %.1f GB and the cache holds %.1f GB: training on images instead; "
                "`hintseg cache --limit` gives more space",
                len(keys),
                need / 1e9,
                cache.limit / 1e9,
            )
            return None
        cache.trim(len(missing) * need // len(keys))
        each_photo("features", missing, make, write, config, watch, network=encoder, batch=BATCH)
        if machine.rank() == 0:
            watch.line(f"features: {len(missing)} photos, kept in {cache.root}")
    made = {id: key for id, key in keys.items() if id in there or cache.read(key) is not None}
    return Kept(cache, made, encoder.strides, config.data.longest_side)


def keep_to_look(
    method: Method, photos: Sequence[Photo], scales: Sequence[float], config: RunConfig, watch: Watch
) -> Kept | None:
    """Return the kept features to read a trained method out on; None where it is read out at other scales too."""
    return keep(method, photos, config, watch) if tuple(scales) == (1.0,) else None


def images_of(pixels: Tensor | Features) -> Tensor:
    """Return what a network is given: pixels (B, 3, H, W) uint8 as float32 in 0..1, or features as they are."""
    return pixels if isinstance(pixels, Features) else pixels.float() / 255  # type: ignore[return-value]


def _seen(encoder: Encoder, images: Tensor) -> list[Tensor]:
    """Return what is kept of images: the levels, and where the class token looks, if there is one."""
    if isinstance(encoder, PlainVit) and encoder.has_class_token:
        levels, attention = encoder.attended(images)
        return [*levels, attention]
    found: list[Tensor] = encoder(images)
    return found


def _seen_size(photo: Photo, longest: int) -> tuple[int, int]:
    """Return (H, W) of a photo as networks see it, pixels."""
    height, width = photo_size(photo.path)
    factor = reduction((height, width), longest)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _network_key(encoder: nn.Module, config: RunConfig) -> bytes:
    """Return a hash of all that features depend on but the photo."""
    settings = encoder.config.model_dump(mode="json", exclude={"weights", "freeze", "keep", "layer_decay", "drop_path"})  # type: ignore[union-attr, operator]
    facts = [FORMAT, settings, config.data.longest_side, machine.precision(config.trainer)]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def _photo_key(photo: Photo, network: bytes) -> str | None:
    """Return the key of a photo's features; None where its file cannot be read."""
    try:
        content = photo.path.read_bytes()
    except OSError as error:
        logger.warning("photo skipped: %s", PhotoError(f"{photo.path}: {error.strerror}"))
        return None
    return hashlib.blake2b(content, digest_size=16, key=network).hexdigest()
