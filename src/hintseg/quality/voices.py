"""What else in a run folder labels the photos whose masks are judged: each is a voice for or against the mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.errors import RunError
from hintseg.run.folder import MadeMasks, RunFolder
from hintseg.run.schema import SWEPT_KINDS, Stage
from hintseg.store.maps import read_maps
from hintseg.store.masks import read_label_png

Bytes = npt.NDArray[np.uint8]


class Voice(NamedTuple):
    """Something that labels photos.

    Attributes:
        name: What it is called: `seed`, `segmenter`, ...
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


def voices(run: RunFolder, made: MadeMasks) -> list[Voice]:
    """Return what else labels the photos of the judged masks, in the order of the stages."""
    found = []
    for stage in run.stages:
        if stage not in (made.stage, "segment") and (run.path / stage / "masks").is_dir():
            found.append(Voice(SWEPT_KINDS[stage], run.path / stage / "masks"))
        for show in run.stages[stage].shows if stage == made.stage else ():
            if show.kind == "mask":
                found.append(Voice(show.title, run.path / stage / show.folder))
    rounds = sorted((run.path / "segment" / "rounds").glob("*/labels"), key=lambda path: _number(path.parent.name))
    if rounds and made.stage != "segment":
        found.append(Voice("segmenter", rounds[-1]))
    return found


Scores = tuple[list[int], npt.NDArray[np.float32]]


def scores_of(run: RunFolder, made: MadeMasks) -> Callable[[str], Scores | None]:
    """Return what reads the class maps of a photo: the label of each, and the maps, background's among them.

    Without a chosen background threshold there is no score of background, and so none of its doubt.
    """
    stages: tuple[Stage, ...] = ("segment",) if made.stage == "segment" else ("localize",)
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


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
