"""Masks as people take them away: palette PNGs, COCO, overlays, and the forms that other tools read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hintseg.config.run import STAGES
from hintseg.data.photos import read_photo
from hintseg.errors import PhotoError, RunError
from hintseg.files.atomic import whole_file
from hintseg.files.owned import OwnedFolder, kind_of, owned
from hintseg.labellers.labeller import Evidence
from hintseg.pipeline.each_photo import on_threads
from hintseg.pipeline.plan import combine
from hintseg.run.folder import BASELINE, RunFolder
from hintseg.store.coco import write_coco
from hintseg.store.instances import read_instances, write_objects
from hintseg.store.masks import MaskStore
from hintseg.store.overlay import write_overlay
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Photo

Bytes = npt.NDArray[np.uint8]

logger = logging.getLogger("hintseg")

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
    """Delete earlier masks, by the first process; what somebody changed only with `overwrite`."""
    if machine.rank() == 0:
        changed = [] if overwrite else folder.changed()
        if changed:
            raise RunError(
                f"{len(changed)} files in {folder.root} were changed after hintseg wrote them, such as {changed[0]}; "
                "choose another --out, or replace them with --overwrite"
            )
        folder.clear(inner=False)
    machine.barrier()


def write_masks(run: RunFolder, target: OwnedFolder, overlays: bool, overwrite: bool, watch: Watch | None) -> Path:
    """Write the masks of a run's training photos; what marks and tags say is combined, and every pixel has a label.

    Photos of which nothing is known have none.
    """
    made, by_marks = run.masks_of_photos(), run.masks_of(("propose",))
    if made is None:
        raise RunError(f"{run.path} has no masks yet; `hintseg train ... --out {run.path} --resume` makes them")
    clear(target, overwrite)
    made_by = (by_marks, run.masks_of(("refine", "localize", "segment") if by_marks else (made.stage,)))
    stores = [None if one is None else MaskStore(one.folder, run.classes, run.background) for one in made_by]
    rows = {row.id: row for row in run.photos if row.split == "train"}  # a photo may be in both splits
    paths = {name: row.path for name, row in rows.items()}
    names = sorted({name for store in stores if store is not None for name in store.ids() if name in rows})
    files = {name: file_name(name, paths[name]) for name in names}
    folder = run.path / "propose" / "instances"
    objects = folder if made.stage == "propose" and folder.is_dir() else None
    with writing(target.root, run, files, overlays, objects) as write:

        def one(photo: Photo) -> None:
            row = rows[photo.id]
            marks, tags = (None if s is None or photo.id not in s else s.read(photo.id) for s in stores)
            path = run.objects_path("instances", photo.id)
            known = read_instances(path) if marks is not None and path.is_file() else None
            by_marks = None if marks is None else Evidence(marks, None, known)
            # Without masks of tags a class that was not marked has no place: the masks of marks stand alone.
            found = by_marks if tags is None else combine(row.tags, by_marks, Evidence(tags))
            mask = None if found is None else found.complete(run.background)  # a person may have mended in some 255
            if mask is not None:
                write(photo, mask)

        on_threads("writing masks", [Photo(name, paths[name]) for name in names], one, watch or Watch())
    return target.root


@contextmanager
def writing(
    out: Path, run: RunFolder, files: Mapping[str, str], overlays: bool, objects: Path | None = None
) -> Iterator[Callable[[Photo, Bytes], None]]:
    """Yield what writes a photo's mask as PNG and overlay; at the end all are written as COCO too.

    `files` holds the photos' file names by id, `objects` the folder of their objects, where there is one: those are
    written in the forms other tools read.
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
        store.finish()
        if objects is None:
            write_coco(out / "coco.json", store, files=files)
        else:
            write_objects(
                out, ((id, name, read_instances(objects / f"{id}.npz")) for id, name in files.items()), run.classes
            )
        with whole_file(out / "classes.txt") as file:
            file.write(("\n".join(run.classes) + "\n").encode())
    machine.barrier()
