"""A folder per photo: NAME/images/NAME.png and NAME/masks/*.png, one mask for each object (Data Science Bowl 2018).

There is one class, and no file says its name: it is called `object`. Each mask is the outline of an object.

Source:
    Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature Methods 2019.
"""

from __future__ import annotations

from pathlib import Path

from hintseg.errors import LabelError
from hintseg.formats.codec import Fit
from hintseg.formats.gather import gather
from hintseg.formats.mask_names import mask_files
from hintseg.formats.object_masks import read_object
from hintseg.formats.photos import PhotoFolder, is_ours, photo_files
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.words import split_of
from hintseg.types import Box, HintSet, Region, Supervision

CLASS = "object"


def has_photo_folders(path: Path) -> bool:
    """Return whether there are several folders of masks, each of one photo."""
    folders = photo_folders(path)
    return len(folders) > 1 and all(len(list(photo_files(folder / "images"))) == 1 for folder in folders)


def photo_folders(path: Path) -> list[Path]:
    """Return the folders of single photos with their masks, directly in `path` or in folders of splits."""
    parts = [path, *(child for child in sorted(path.iterdir()) if child.is_dir() and split_of(child.name))]
    children = [child for part in parts for child in sorted(part.iterdir()) if not is_ours(child)]
    return [child for child in children if (child / "images").is_dir() and (child / "masks").is_dir()]


class Nuclei:
    """A folder per photo, with a mask for each object."""

    name = "nuclei"
    carries = frozenset({Supervision.BOXES, Supervision.MASKS})
    sign = "a folder per photo with images/ and masks/ of its objects"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for at least two folders that hold `images` with one photo, and `masks`."""
        return Fit.YES if labels is None and has_photo_folders(path) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read the masks of each photo's objects.

        Args:
            path: Folder of the photos' folders, or of `stage1_train` and alike.
            labels: None; this format has no label file.
            reading: How it is to be read.

        Raises:
            LabelError: `labels` is given, or there is no such folder.

        Cost:
            Every mask is decoded.
        """
        folders = photo_folders(path)
        if labels is not None or not folders:
            raise LabelError(
                f"the format 'nuclei' has a folder per photo, NAME/images and NAME/masks; there is none in {path}"
                if labels is None
                else f"the format 'nuclei' has no label file, but labels={labels} is given; leave it out"
            )
        folder = PhotoFolder(path, missing=reading.missing)
        folder.leave_out(id for id, file in folder.paths.items() if file.parent.name == "masks")
        records = []
        for one in folders:
            where = one.relative_to(path).as_posix()
            for photo in photo_files(one / "images"):
                items = tuple(_item(mask) for mask in mask_files(one / "masks"))
                name = photo.relative_to(path).as_posix()
                records.append(Record(name, items, split=split_of(one.parent.name), where="masks", line=where))
        note = f"no file names a class: all objects are called '{CLASS}'"
        said = Labels(tuple(records), "the masks", (CLASS,), notes=(note,))
        return gather(path, folder, said, reading, Problems())


def _item(file: Path) -> Item:
    try:
        return Item(CLASS, Region(rle=read_object(file)), line=file.name)
    except LabelError as error:
        return Item(CLASS, Box(0.0, 0.0, 0.0, 0.0), line=file.name, wrong=str(error))
