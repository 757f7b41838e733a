"""Masks on disk: palette PNGs, and a folder of them with a manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hintseg.errors import LabelError, RunError, ShapeError
from hintseg.files.atomic import whole_file
from hintseg.files.images import open_image
from hintseg.files.owned import foreign
from hintseg.files.palette import voc_palette
from hintseg.files.parse import read_json
from hintseg.types import IGNORE

Bytes = npt.NDArray[np.uint8]

_QUALITY = "quality"
_PALETTE = voc_palette().tobytes()


def write_mask(path: Path, mask: Bytes, *, quality: float | None = None) -> None:
    """Write a mask as a palette PNG in Pascal VOC's colours, whole or not at all.

    Args:
        path: The PNG.
        mask: Labels, (H, W) uint8.
        quality: 0..1, kept in the PNG's text; see `MaskStore`.

    Raises:
        ShapeError: `mask` is not (H, W) uint8.
        RunError: The file cannot be written.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or 0 in mask.shape:
        raise ShapeError(f"a mask of shape {mask.shape} and type {mask.dtype} given, (H, W) uint8 is needed")
    image = Image.fromarray(mask)
    image.putpalette(_PALETTE)
    text = PngInfo()
    if quality is not None:
        text.add_text(_QUALITY, repr(float(quality)))
    with whole_file(path) as file:
        image.save(file, "PNG", pnginfo=text)


def read_label_png(path: Path) -> Bytes:
    """Read the labels of a palette or grey PNG, (H, W) uint8.

    Raises:
        LabelError: The file is missing, broken, or not an index image.
    """
    try:
        with open_image(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise LabelError(
                    f"{path}: an image of mode {image.mode} given, an index image (palette or 8-bit grey) is needed; "
                    "write class ids, not colours"
                )
            return np.array(image, dtype=np.uint8)
    except FileNotFoundError as error:
        raise LabelError(f"{path}: no such mask") from error
    except LabelError:
        raise
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise LabelError(f"{path}: cannot be read as a mask ({error}); write it anew") from error


class _Row(BaseModel):
    quality: Annotated[float, Field(ge=0, le=1)] | None


class _Manifest(BaseModel):
    """``manifest.json`` of a folder of masks."""

    model_config = ConfigDict(extra="forbid")
    classes: tuple[str, ...]
    background: bool
    masks: dict[str, _Row]


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / "manifest.json"
    if not path.is_file():
        raise RunError(f"{path}: no such file; give the folder of a finished mask store")
    try:
        return _Manifest.model_validate(read_json(path, RunError, "write the masks anew"))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise RunError(f"{path}: not the manifest of a mask store ({place}: {error.errors()[0]['msg']})") from error


class MaskStore:
    """A folder of masks, one PNG per photo id, and ``manifest.json``.

    Ids with ``/`` lie in sub-folders. Each mask may state its quality: how far its maker trusts it, from 0 (a guess)
    to 1 (certain). The store only keeps the number; hintseg's own masks state by how much the winning score leads the
    runner-up's, background included, averaged over the pixels. It is kept inside the PNG, so several processes can
    write into one store, and a store that was interrupted loses nothing.

    Args:
        folder: Where the masks are; made by the first write.
        classes: Names of the K foreground classes.
        background: Whether pixels may belong to no class.
    """

    def __init__(self, folder: Path, classes: Sequence[str], background: bool = True) -> None:
        self.folder = folder
        self.classes = tuple(classes)
        self.background = background

    @classmethod
    def load(cls, folder: Path) -> MaskStore:
        """Open the store whose manifest lies in `folder`.

        Raises:
            RunError: The manifest is missing or broken.
        """
        manifest = _read_manifest(folder)
        return cls(folder, manifest.classes, manifest.background)

    def path(self, id: str) -> Path:
        """Return where the mask of photo `id` lies.

        Raises:
            RunError: `id` would lie outside the store.
        """
        if not id or id.startswith("/") or ".." in id.split("/"):
            raise RunError(f"photo id '{id}' given, a relative path inside the store is needed; rename the photo")
        return self.folder / f"{id}.png"

    def __contains__(self, id: str) -> bool:
        return self.path(id).is_file()

    def write(self, id: str, mask: Bytes, *, quality: float | None = None) -> None:
        """Write the mask of photo `id`, whole or not at all. Masks are judged: every pixel has a label.

        Args:
            id: The photo's id.
            mask: Labels, (H, W) uint8: 0 background, 1..K classes; labels with 255 are no mask (`write_mask`).
            quality: 0..1, larger is better; None if unknown.

        Raises:
            ShapeError: `mask` is not (H, W) uint8, holds labels beyond K or 255, or `quality` is not in 0..1.
            RunError: The file cannot be written.
        """
        if quality is not None and not 0 <= quality <= 1:
            raise ShapeError(f"quality {quality} given for photo {id}, a number in 0..1 is needed")
        if mask.size and (largest := mask.max()) > len(self.classes):
            raise ShapeError(
                f"label {largest} in the mask of photo {id}, 0 to {len(self.classes)} is needed"
                + ("; a mask that is judged has a label in every pixel" if largest == IGNORE else "")
            )
        write_mask(self.path(id), mask, quality=quality)

    def read(self, id: str) -> Bytes:
        """Read the mask of photo `id`, (H, W) uint8.

        Raises:
            LabelError: The mask is missing or broken.
        """
        return read_label_png(self.path(id))

    def quality(self, id: str) -> float | None:
        """Return the stated quality of a mask, 0..1, or None.

        Raises:
            LabelError: The mask is missing or broken.
        """
        try:
            with open_image(self.path(id)) as image:
                return float(image.info[_QUALITY]) if _QUALITY in image.info else None
        except Exception as error:  # as in `read_label_png`
            raise LabelError(f"{self.path(id)}: cannot be read as a mask ({error}); write it anew") from error

    def qualities(self) -> dict[str, float]:
        """Return the stated qualities by photo id, as the manifest of a finished store has them.

        Raises:
            RunError: The manifest is missing or broken.
        """
        return {id: row.quality for id, row in _read_manifest(self.folder).masks.items() if row.quality is not None}

    def ids(self) -> list[str]:
        """Return the ids of the masks on disk, sorted; what somebody else put into a folder of ours is none."""
        files = (path for path in self.folder.rglob("*.png") if not foreign(path))
        return sorted(path.relative_to(self.folder).as_posix().removesuffix(".png") for path in files)

    def finish(self) -> None:
        """Write ``manifest.json``.

        Call it once, when every process has written its masks.

        Raises:
            RunError: The manifest cannot be written.
        """
        manifest = {
            "classes": self.classes,
            "background": self.background,
            "masks": {id: {"quality": self.quality(id)} for id in self.ids()},
        }
        with whole_file(self.folder / "manifest.json") as file:
            file.write(json.dumps(manifest, indent=1).encode())
