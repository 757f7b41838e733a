"""What a method makes beside its result: it returns arrays, and here they are written below the stage's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.cam import grow
from hintseg.config.run import RunConfig
from hintseg.data.photos import photo_size
from hintseg.files.atomic import whole_file
from hintseg.labellers.cam import MAP_STRIDE
from hintseg.methods.method import Method, Pictures
from hintseg.pipeline.each_photo import each_photo
from hintseg.pipeline.maps import tag_rows
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Stage
from hintseg.store.masks import MaskStore, read_label_png
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import IGNORE, Photo

Bytes = npt.NDArray[np.uint8]


def write_pictures_of(
    run: RunFolder, stage: Stage, method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> None:
    """Write what `Method.pictures` tells of those photos that have a mask: ``RUN/STAGE/NAME/ID.npz``."""
    if type(method).pictures is Method.pictures:
        return
    masks = run.path / stage / "masks"

    def make(group: list[Photo], pixels: Tensor) -> Iterator[Pictures]:
        yield method.pictures(pixels.float() / 255, read_label_png(masks / f"{group[0].id}.png"))

    def write(photo: Photo, made: Pictures) -> None:
        for name, arrays in made.items():
            with whole_file(run.path / stage / name / f"{photo.id}.npz") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # an option of newer numpy

    chosen = [photo for photo in photos if (masks / f"{photo.id}.png").is_file()]
    each_photo("pictures", chosen, make, write, config, watch, network=method, batch=1)


def write_extras(
    run: RunFolder, stage: Stage, method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> None:
    """Write what `Method.extras` makes of photos whose tags are known.

    Labels go to the masks ``RUN/STAGE/NAME``, at the photo's own size; a photo of which nothing is known gets none.
    Maps go to grey images ``RUN/STAGE/NAME/ID.png``, a quarter of that size.
    """
    stores = {name: MaskStore(run.stage(stage) / name, run.classes, run.background) for name in method.extra_labels}
    if not stores:
        return

    def make(group: list[Photo], pixels: Tensor) -> Iterator[dict[str, Bytes]]:
        own = photo_size(group[0].path)
        tags = tag_rows(group, len(run.classes)).to(pixels.device)
        made = {name: _image(values, own) for name, values in method.extras(pixels.float() / 255, tags).items()}
        return ({name: images[i] for name, images in made.items()} for i in range(len(group)))

    def write(photo: Photo, made: dict[str, Bytes]) -> None:
        for name in made.keys() - stores.keys():
            with whole_file(run.path / stage / name / f"{photo.id}.png") as file:
                Image.fromarray(made[name]).save(file, "PNG")
        for name, store in stores.items():  # last: they say that a photo is done
            if not (made[name] == IGNORE).all():  # no tag and no background: nothing is known
                store.write(photo.id, made[name])

    each_photo(
        ", ".join(labels.kind for labels in method.extra_labels.values()),
        photos,
        make,
        write,
        config,
        watch,
        network=method,
        done=lambda photo: all(photo.id in store for store in stores.values()),
    )
    if machine.rank() == 0:
        for store in stores.values():
            store.finish()


def _image(values: Tensor, size: tuple[int, int]) -> Bytes:
    """Return labels (B, h, w) uint8 at the photos' size, or maps (B, h, w) in 0..1 as grey values, coarser."""
    if values.dtype != torch.uint8:
        coarse = [-(-side // MAP_STRIDE) for side in values.shape[1:]]
        grey: Bytes = (grow(values[:, None], coarse)[:, 0].clamp(min=0) * 255).round().byte().cpu().numpy()
        return grey
    if values.shape[1:] != size:
        values = interpolate(values[:, None].float(), size, mode="nearest-exact")[:, 0].byte()
    labels: Bytes = values.cpu().numpy()
    return labels
