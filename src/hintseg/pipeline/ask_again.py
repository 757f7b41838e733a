"""The finished segmenter, asked again for the photos whose masks are reviewed: mirrored, and at other scales.

Its label of all answers together is a voice of the review list, which also says how far the answers differ.

RUN/review/network/DIGEST/labels/ID.png    the label of all answers together, of the photo's size
RUN/review/network/DIGEST/answers/ID.npz   that label and those of each answer, a quarter of the photo's size
RUN/review/network/DIGEST/done             written when all photos were asked about
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hintseg.cam import grow
from hintseg.data.photos import photo_size
from hintseg.files.atomic import whole_file
from hintseg.nn.resize import resize
from hintseg.pipeline.each_photo import each_photo
from hintseg.pipeline.kept import keep
from hintseg.quality.voices import DONE, answers_path, judged_rows, judged_split, network_folder
from hintseg.run.folder import RunFolder
from hintseg.store.masks import write_mask
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights
from hintseg.types import Photo

Bytes = npt.NDArray[np.uint8]

VIEWS = ((1.0, False), (1.0, True), (0.75, False), (1.25, False))
"""What is asked for: how the photo is resized, and whether it is mirrored."""

CELL = 4
"""Pixels of the photo per cell of an answer."""


def ask_again(run: RunFolder, watch: Watch) -> None:
    """Ask a run's segmenter again, for the photos it was not asked about yet.

    Nothing is done without a segmenter, or where none of the photos is there any more. The photos whose tags are known
    are labelled with those alone, as their masks are.

    Raises:
        HintsegError: The run has no masks yet, or its weights or settings are damaged.

    Cost:
        Four looks of the network at each photo; two with features of a frozen network that are kept.
    """
    folder = network_folder(run)
    if folder is None or (folder / DONE).is_file():
        return
    method, classes, background = load_weights(run.path / "segment" / "model.safetensors")
    config, everything = run.config, np.arange(0 if background else 1, len(classes) + 1)
    with_tags = judged_split(run) == "train"
    tags = {row.id: row.tags if with_tags else None for row in judged_rows(run)}
    photos = [Photo(row.id, row.path) for row in judged_rows(run) if row.path.is_file()]
    if not photos:
        return
    kept = keep(method, photos, config, watch)

    def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Bytes, Bytes]]:
        size = photo_size(group[0].path)
        cells = [max(1, side // CELL) for side in size]
        images, found = pixels.float() / 255, None if kept is None else kept.batch(group)
        own = images if found is None or len(found[0]) < len(group) else cast(Tensor, found[1].to(images.device))
        answers = []
        for factor, mirrored in VIEWS:
            seen = own if factor == 1 else resize(images, [max(1, round(side * factor)) for side in images.shape[-2:]])
            logits = method.segment(seen.flip(-1)).flip(-1) if mirrored else method.segment(seen)
            answers.append(grow(logits, cells).softmax(dim=1))
        every = torch.stack(answers).cpu()
        for number, photo in enumerate(group):
            said = tags[photo.id]
            may = everything if said is None else np.array([*everything[everything == 0], *said], np.int64)
            may = may if len(may) else everything  # nothing is tagged, and there is no background
            scores = every[:, number, torch.from_numpy(may)]  # (views, n, h, w)
            together = scores.mean(dim=0)
            labels = torch.cat([together.argmax(dim=0)[None], scores.argmax(dim=1)])
            whole = grow(together[None], size)[0].argmax(dim=0)
            yield may[whole.numpy()].astype(np.uint8), may[labels.numpy()].astype(np.uint8)

    def write(photo: Photo, made: tuple[Bytes, Bytes]) -> None:
        write_mask(folder / "labels" / f"{photo.id}.png", made[0])
        with whole_file(answers_path(folder, photo.id)) as file:
            np.savez_compressed(file, labels=made[1])

    each_photo(
        "asking the segmenter again",
        photos,
        make,
        write,
        config,
        watch,
        network=method,
        done=lambda photo: answers_path(folder, photo.id).is_file(),
    )
    with whole_file(folder / DONE):
        pass
    for other in folder.parent.iterdir():  # what another segmenter said
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
