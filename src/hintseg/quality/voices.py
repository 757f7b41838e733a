"""What else in a run folder labels the photos whose masks are judged: each is a voice for or against the mask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.errors import RunError
from hintseg.files.arrays import read_arrays
from hintseg.run.folder import MadeMasks, RunFolder
from hintseg.run.schema import SWEPT_KINDS, PhotoRow, Split, Stage
from hintseg.store.maps import read_maps
from hintseg.store.masks import read_label_png

Bytes = npt.NDArray[np.uint8]

NETWORK = "network"
"""The voice of the finished segmenter, asked again: mirrored and at other scales, all answers together."""

DONE = "done"
"""File in the folder of those answers that says that all are there."""


class Voice(NamedTuple):
    """Something that labels photos.

    Attributes:
        name: What it is called: `seed`, `network`, ...
        folder: Its index PNGs, ``ID.png``; 255 where it says nothing.
    """

    name: str
    folder: Path

    def read(self, photo_id: str, mask: Bytes) -> Bytes | None:
        """Return its labels, of the size of `mask`; None where it says nothing of the photo.

        Raises:
            RunError: They are of another size.
        """
        path = self.folder / f"{photo_id}.png"
        if not path.is_file():
            return None
        found = read_label_png(path)
        if found.shape != mask.shape:
            raise RunError(
                f"{path} is {found.shape[1]} x {found.shape[0]} pixels and the photo's mask {mask.shape[1]} x "
                f"{mask.shape[0]}; make the stage again"
            )
        return found


def judged(run: RunFolder) -> MadeMasks:
    """Return the masks that are looked through: those of the training photos, else those of the validation photos.

    Raises:
        RunError: The run has no masks yet.
    """
    found = run.masks_of_photos() or run.masks_of(("segment",))
    if found is None:
        raise RunError(f"{run.path} has no masks yet; `hintseg train ... --out {run.path} --resume` makes them")
    return found


def judged_split(run: RunFolder) -> Split:
    """Return the split of the photos whose masks are looked through."""
    return "val" if judged(run).stage == "segment" and not run.labels_learned else "train"


def judged_rows(run: RunFolder) -> list[PhotoRow]:
    """Return the photos whose masks are looked through, and that have one."""
    stage, split = judged(run).stage, judged_split(run)
    return [row for row in run.photos if row.split == split and run.mask_path(stage, row.id).is_file()]


def network_folder(run: RunFolder) -> Path | None:
    """Return where the answers of the run's segmenter, asked again, are kept; None where it has no finished one.

    The name follows from the weights, the photos and their tags: answers of others are never taken for these.
    """
    weights = run.path / "segment" / "model.safetensors"
    if not run.done("segment") or not weights.is_file():
        return None
    digest = hashlib.blake2b(judged(run).stage.encode(), digest_size=8)
    for path in (weights, run.path / "photos.json"):
        digest.update(repr((path.stat().st_mtime_ns, path.stat().st_size)).encode())
    return run.path / "review" / NETWORK / digest.hexdigest()


def answers_path(folder: Path, photo_id: str) -> Path:
    """Return where the answers about a photo lie in a `network_folder`, whether they are there or not."""
    return folder / "answers" / f"{photo_id}.npz"


def answers_of(run: RunFolder) -> Callable[[str], Bytes | None]:
    """Return what reads the answers of the segmenter, asked again, about a photo; it returns None where there are none.

    They are labels, (1 + n, h, w) uint8: of all answers together, then of each.
    """
    folder = network_folder(run)
    if folder is None or not (folder / DONE).is_file():
        return lambda _: None

    def read(photo_id: str) -> Bytes | None:
        path = answers_path(folder, photo_id)
        if not path.is_file():  # a photo that could not be read
            return None
        (labels,) = read_arrays(path, {"labels": "u"})
        if labels.ndim != 3 or len(labels) < 2 or 0 in labels.shape or labels.max() > len(run.classes):
            raise RunError(f"{path}: no labels of the run's classes; delete {folder}, and they are made again")
        return labels.astype(np.uint8)

    return read


def voices(run: RunFolder, made: MadeMasks) -> list[Voice]:
    """Return what else labels the photos of the judged masks, in the order of the stages."""
    found = []
    for stage in run.stages:
        if stage not in (made.stage, "segment") and (run.path / stage / "masks").is_dir():
            found.append(Voice(SWEPT_KINDS[stage], run.path / stage / "masks"))
        for show in run.stages[stage].shows if stage == made.stage else ():
            if show.kind == "mask":
                found.append(Voice(show.title, run.path / stage / show.folder))
    asked = network_folder(run)
    if asked is not None and (asked / DONE).is_file():
        found.append(Voice(NETWORK, asked / "labels"))
    return found


Scores = tuple[list[int], npt.NDArray[np.float32]]


def scores_of(run: RunFolder, made: MadeMasks) -> Callable[[str], Scores | None]:
    """Return what reads the class maps of a photo: the label of each, and the maps, background's among them.

    Without a chosen background threshold there is no score of background, and so none of its doubt.
    """
    stages: tuple[Stage, ...] = ("segment",) if made.stage == "segment" and run.one_stage else ("localize",)
    sweep = run.sweep(stages[0])
    threshold = None if sweep is None or not run.background else sweep.chosen

    def read(photo_id: str) -> Scores | None:
        path = run.maps_path(photo_id, stages)
        if path is None:
            return None
        class_ids, maps = read_maps(path)
        labels = [int(label) for label in class_ids]
        if threshold is None:
            return labels, maps
        return [0, *labels], np.concatenate([np.full((1, *maps.shape[1:]), threshold, np.float32), maps])

    return read
