"""Masks as people take them away: palette PNGs, COCO, overlays, and the forms that other tools read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hintseg.config.run import STAGES
from hintseg.data.photos import read_photo
from hintseg.errors import ConfigError, PhotoError, RunError, join
from hintseg.files.atomic import whole_file
from hintseg.files.owned import OwnedFolder, kind_of, owned
from hintseg.geometry.runs import encode_part
from hintseg.hints.convert import write, writer, writers
from hintseg.pipeline.each_photo import on_threads
from hintseg.pipeline.photo_masks import PhotoMasks
from hintseg.run.folder import BASELINE, RunFolder
from hintseg.store.coco import write_coco
from hintseg.store.instances import read_instances, write_objects
from hintseg.store.masks import MaskStore
from hintseg.store.overlay import write_overlay
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import (
    BACKGROUND,
    IGNORE,
    Box,
    Hints,
    HintSet,
    Mark,
    MaskFile,
    Photo,
    Region,
    Shape,
    Supervision,
    Tags,
)

Bytes = npt.NDArray[np.uint8]

logger = logging.getLogger("hintseg")

OBJECTS = "objects"
"""Folder of the objects in masks for people, where not all photos have any."""

RESERVED = (*STAGES, "truth", "labels", "trust", BASELINE)
"""Folders of a run that no masks for people may be written to."""


def file_name(id: str, path: Path) -> str:
    """Return a photo's file name; of two photos that differ in it only, the id has the suffix already."""
    return id if id.endswith(path.suffix) else f"{id}{path.suffix}"


@contextmanager
def masks_folder(out: Path) -> Iterator[OwnedFolder]:
    """Write masks into `out`, by all processes."""
    if kind_of(out.parent) == "run" and out.name in RESERVED:
        raise RunError(f"{out} is where the run keeps what it makes; choose another --out")
    first = machine.rank() == 0
    if not first:
        machine.barrier()  # the first one has marked the folder
    with owned(out, "masks", alone=first) as folder:
        if first:
            machine.barrier()
        yield folder


def clear(folder: OwnedFolder, overwrite: bool) -> None:
    """Let new masks take the place of earlier ones; of what somebody changed only with `overwrite`."""
    if machine.rank() == 0:
        changed = [] if overwrite else folder.changed()
        if changed:
            raise RunError(
                f"{len(changed)} files in {folder.root} were changed after hintseg wrote them, such as {changed[0]}; "
                "choose another --out, or replace them with --overwrite"
            )
        if machine.world() == 1:
            folder.renew(inner=False)
        else:  # the others may write before the first one does
            folder.clear(inner=False)
    machine.barrier()


def write_masks(
    run: RunFolder,
    target: OwnedFolder,
    overlays: bool,
    overwrite: bool,
    watch: Watch | None,
    to: Sequence[str] = (),
) -> Path:
    """Write the masks of a run's training photos, also in the formats `to`.

    Every pixel has a label. Photos of which nothing is known have none.
    """
    check_formats(to)
    source = PhotoMasks(run)
    clear(target, overwrite)
    names = sorted(source.photos)
    paths = {name: source.photos[name].path for name in names}
    files = {name: file_name(name, paths[name]) for name in names}
    boxed = [name for name in names if source.boxed(name)]
    places = {name: run.path / "propose" / "instances" / f"{name}.npz" for name in boxed}
    objects = {name: place for name, place in places.items() if place.is_file()}
    watch = watch or Watch()
    with writing(target.root, run, files, overlays, objects) as write:

        def one(photo: Photo) -> None:
            mask = source.read(photo.id)
            if mask is not None:
                write(photo, mask)

        on_threads("writing masks", [Photo(name, paths[name]) for name in names], one, watch)
    write_as(target.root, run, [Photo(name, paths[name]) for name in names], to, objects)
    if 0 < len(objects) < len(files) and machine.rank() == 0:
        watch.line(
            f"objects of {len(objects)} photos are in {target.root / OBJECTS}; {len(files) - len(objects)} photos have "
            "no boxes, so their objects are not known apart"
        )
    return target.root


def check_formats(to: Sequence[str]) -> None:
    """Refuse formats that are not written, or hold no masks, before anything is.

    Raises:
        ConfigError: Some of them.
    """
    for name in to:
        if Supervision.MASKS not in writer(name).writes:
            known = [one for one, codec in writers().items() if Supervision.MASKS in codec.writes]
            raise ConfigError(f"the format '{name}' holds no masks; --to takes {join(known)}")


def write_as(
    out: Path,
    run: RunFolder,
    photos: Sequence[Photo],
    to: Sequence[str],
    objects: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Write the masks in ``OUT/png`` in label formats too, ``OUT/FORMAT``; where they are of `objects`, those."""
    if machine.rank() == 0 and to:
        store = MaskStore(out / "png", run.classes, run.background)
        masked = [_as_truth(photo, store, len(run.classes), objects) for photo in photos if photo.id in store]
        hint_set = HintSet(out.name, run.classes, tuple(masked), background=run.background)
        for name in to:
            for sentence in write(hint_set, name, out / name).lost:
                logger.warning("%s: %s", name, sentence)
    machine.barrier()


def _as_truth(photo: Photo, store: MaskStore, classes: int, objects: Mapping[str, Path]) -> Photo:
    """Return a photo whose truth is the mask that was made of it."""
    present = {label for label in np.unique(store.read(photo.id)).tolist() if BACKGROUND < label < IGNORE}
    tags = Tags.complete(present, classes)
    found = read_instances(objects[photo.id]) if photo.id in objects else None
    if found is None or not present <= set(found.labels.tolist()):  # what tags placed is of no object
        return replace(photo, hints=Hints(tags), truth=MaskFile(store.path(photo.id)))
    marks, regions = list[Mark[Shape]](), list[Mark[Shape]]()
    for number, (label, box, mask) in enumerate(zip(found.labels, found.windows, found.masks, strict=True), start=1):
        x0, y0, x1, y1 = map(int, box)
        marks.append(Mark(int(label), Box(x0, y0, x1, y1), number))
        regions.append(Mark(int(label), Region(rle=encode_part(mask, (x0, y0), found.size)), number))
    return replace(photo, hints=Hints(tags, tuple(marks)), truth=tuple(regions))


@contextmanager
def writing(
    out: Path, run: RunFolder, files: Mapping[str, str], overlays: bool, objects: Mapping[str, Path] | None = None
) -> Iterator[Callable[[Photo, Bytes], None]]:
    """Yield what writes a photo's mask as PNG and overlay; at the end all are written as COCO too.

    `files` holds the photos' file names by id, `objects` the files of objects of those that have any: they are written
    in the forms other tools read, beside the masks, or in a folder of their own where some photos have only masks.
    """
    store = MaskStore(out / "png", run.classes, run.background)

    def write(photo: Photo, mask: Bytes) -> None:
        store.write(photo.id, mask)
        if not overlays:
            return
        try:
            write_overlay(out / "overlays" / f"{photo.id}.jpg", read_photo(photo.path), mask)
        except PhotoError as error:
            logger.warning("no overlay: %s", error)

    yield write
    if machine.rank() == 0:
        with whole_file(out / "classes.txt") as file:  # before masks are counted: with it the last earlier ones go
            file.write(("\n".join(run.classes) + "\n").encode())
        store.finish()
        known = objects or {}
        of_all = 0 < len(known) == len(files)
        if not of_all:
            write_coco(out / "coco.json", store, files=files)
        if known:
            found = ((id, files[id], read_instances(path)) for id, path in known.items())
            write_objects(out if of_all else out / OBJECTS, found, run.classes)
    machine.barrier()
