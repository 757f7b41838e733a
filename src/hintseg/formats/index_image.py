"""Mask images: index images, whose values are class ids, and colour masks with a table of what each colour means."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hintseg.errors import LabelError, join
from hintseg.files.atomic import whole_file
from hintseg.files.images import open_image
from hintseg.files.palette import voc_palette
from hintseg.formats.photos import size_or_none
from hintseg.formats.problems import Problems
from hintseg.formats.records import Colour
from hintseg.geometry.frames import turned
from hintseg.types import IGNORE, MaskFile

Mask = npt.NDArray[np.uint8]
Packed = npt.NDArray[np.uint32]
Colours = tuple[tuple[Colour, int], ...]

LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".gif")
LOSSY = (".jpg", ".jpeg", ".jfif")

_ONE_CHANNEL = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")
_BLURRED = 40
"""A mask with more unknown colours than this was drawn with smooth edges, or was a JPEG."""

_PALETTE = voc_palette().tobytes()


class MaskError(LabelError):
    """A mask image that cannot be read as one.

    Attributes:
        path: The file.
        kind: What is wrong: the same words for all files of which it is true.
        found: Pixels of each value or colour that was found.
        advice: What to do.
    """

    def __init__(self, path: Path, kind: str, advice: str = "", found: Mapping[object, int] | None = None) -> None:
        self.path, self.kind, self.advice, self.found = path, kind, advice, Counter(found or {})
        super().__init__(f"the mask {path} {_sentence(kind, self.found, advice)}")


def tell(errors: Sequence[MaskError], total: int) -> list[str]:
    """Return one sentence for each kind of error, with the files and all that was found in them.

    Args:
        errors: Those of all files.
        total: How many files were looked at.
    """
    kinds: dict[str, list[MaskError]] = defaultdict(list)
    for error in errors:
        kinds[error.kind].append(error)
    sentences = []
    for same in kinds.values():
        found = sum((error.found for error in same), Counter[object]())
        what = _sentence(same[0].kind, found, same[0].advice)
        names = join([error.path.name for error in same], limit=2)
        sentences.append(f"{names} {what}" if len(same) == 1 else f"{len(same)} of {total} ({names}): each {what}")
    return sentences


def _sentence(kind: str, found: Counter[object], advice: str) -> str:
    most = [f"{value} ({count} px)" for value, count in found.most_common(5)]
    values = f": {', '.join(most)}{', ...' if len(found) > 5 else ''}" if found else ""
    return f"{kind}{values}{'; ' if advice else ''}{advice}"


class Index(NamedTuple):
    """What a mask image holds.

    Attributes:
        values: (H, W) uint8, as stored; with a table of colours, the class ids.
        palette: The colour of each value that occurs, where the image has a palette.
        bilevel: Whether it is black and white, of one bit.
    """

    values: Mask
    palette: Mapping[int, Colour]
    bilevel: bool


def read_index(path: Path, colours: Colours = ()) -> Mask:
    """Return the values of a mask image, (H, W) uint8; see `open_index`."""
    return open_index(path, colours).values


def open_index(path: Path, colours: Colours = ()) -> Index:
    """Read a mask image.

    Without a table the values of its one channel are taken (three equal channels are one), also of 16 bits. EXIF's turn
    is applied.

    Args:
        path: The file.
        colours: The class id of each colour; a value v of a single channel is the colour (v, v, v). Empty: values are
            ids.

    Raises:
        MaskError: It is missing, cut off, a JPEG, of several pictures or half transparent, has colours without or
            outside of the table, or values above 255.
    """
    with _opened(path) as image:
        own = image.getexif().get(0x0112, 1)
        if colours:
            values = _by_table(path, image, dict(colours))
            return Index(turned(values, own), {}, False)
        palette, values = _palette(image), _values(path, image)
        there = np.flatnonzero(np.bincount(values.ravel(), minlength=1)).tolist()
        used = {value: palette[value] for value in there if value in palette}
        two = {0: (0, 0, 0), 1: (255, 255, 255)}
        black_white = bool(palette) and {*palette.values()} <= {*two.values()} and used.items() <= two.items()
        bilevel = image.mode == "1" or black_white
        greys = all(red == green == blue for red, green, blue in palette.values())
        if greys and not bilevel and (other := [v for v, colour in used.items() if colour[0] != v]):
            raise MaskError(
                path,
                "has a palette of greys that are not its values, so either could be the class ids",
                "write a plain grey PNG whose values are class ids",
                {f"value {value}, grey {used[value][0]}": int((values == value).sum()) for value in other},
            )
        return Index(turned(values, own), used, bilevel)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with open_image(path) as image:
            if image.format in ("JPEG", "MPO"):
                raise MaskError(
                    path,
                    "is a JPEG, which cannot keep class ids: it blurs values",
                    "write the masks as PNG, from where they were drawn",
                )
            if getattr(image, "n_frames", 1) > 1:
                raise MaskError(path, "holds several pictures", "write one picture whose values are class ids")
            yield image
    except MaskError:
        raise
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise MaskError(path, f"cannot be read ({error}); it may be missing or cut off") from error


def _palette(image: Image.Image) -> dict[int, Colour]:
    flat = (image.getpalette() or []) if image.mode == "P" else []
    return {i: (r, g, b) for i, (r, g, b) in enumerate(zip(flat[0::3], flat[1::3], flat[2::3], strict=False))}


def _values(path: Path, image: Image.Image) -> Mask:
    if image.mode in (*_ONE_CHANNEL, "P"):
        values = np.array(image)
    else:
        packed = _packed(path, image)
        if ((packed >> 16 != packed & 255) | (packed >> 8 & 255 != packed & 255)).any():
            raise _colourful(
                path,
                _counts(packed),
                f"is a colour image (mode {image.mode})",
                "values must be class ids; or say which class a colour is: colours.csv with name,r,g,b",
            )
        values = packed & 255
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        raise MaskError(path, "holds fractions", "a mask's values must be class ids, whole numbers 0 to 255")
    if values.size and (values.min() < 0 or values.max() > IGNORE):
        raise MaskError(
            path,
            "holds numbers above 255 or below 0, such as those of objects (an instance mask)",
            f"class ids are 0 to 255: write the mask of the classes (it holds {values.min():g} to {values.max():g})",
        )
    return values.astype(np.uint8)


def _packed(path: Path, image: Image.Image) -> Packed:
    """Return colours as single numbers, (H, W): red * 65536 + green * 256 + blue."""
    rgba = np.asarray(image.convert("RGBA"))
    packed = np.zeros(rgba.shape[:2], dtype=np.uint32)
    for channel in range(3):
        packed <<= np.uint32(8)
        packed |= rgba[..., channel]
    alpha = rgba[..., 3]
    unclear = ((alpha > 0) & (alpha < 255)) | ((alpha == 0) & (packed != 0))
    if unclear.any():
        raise MaskError(
            path,
            "has transparent pixels, of which it is not clear what they mean",
            "write the mask without transparency, background as black",
            {"transparent": int(unclear.sum())},
        )
    return packed


def _by_table(path: Path, image: Image.Image, table: Mapping[Colour, int]) -> Mask:
    if image.mode in _ONE_CHANNEL and image.mode != "1":
        packed = _values(path, image).astype(np.uint32) * np.uint32(0x010101)
    else:
        packed = _packed(path, image)
    keys = np.array(sorted(r << 16 | g << 8 | b for r, g, b in table), dtype=np.uint32)
    ids = np.array([table[key >> 16, key >> 8 & 255, key & 255] for key in keys.tolist()], dtype=np.uint8)
    values, unknown = np.empty(packed.shape, dtype=np.uint8), list[Packed]()
    for row, colours in enumerate(packed):  # row by row: places take eight bytes a pixel
        place = np.minimum(np.searchsorted(keys, colours), len(keys) - 1)
        values[row] = ids[place]
        unknown.append(colours[keys[place] != colours])
    others = _counts(np.concatenate(unknown))
    if others:
        raise _colourful(
            path,
            others,
            "has colours that the table of colours does not have",
            "add them to it, or draw the mask in its colours",
        )
    return values


def _counts(packed: Packed) -> dict[Colour, int]:
    values, counts = np.unique(packed, return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    return {(value >> 16, value >> 8 & 255, value & 255): count for value, count in pairs}


def _colourful(path: Path, counts: Mapping[Colour, int], kind: str, advice: str) -> MaskError:
    if len(counts) > _BLURRED:
        return MaskError(
            path,
            f"{kind}, more than {_BLURRED} of them: it has smooth edges, or was a JPEG once",
            "write it anew as PNG, drawn and scaled without smoothing",
        )
    return MaskError(path, kind, advice, dict(counts.items()))


def read_checked(file: MaskFile, size: tuple[int, int], n_classes: int) -> Mask:
    """Return a mask image with the hint set's class ids, and 255 where nothing is known.

    Args:
        file: The image.
        size: (height, width) of its photo after EXIF rotation, pixels.
        n_classes: K; larger ids are refused.

    Returns:
        (H, W) uint8: 0 background, 1..K, 255 nothing known.

    Raises:
        MaskError: The image cannot be read, has another size, or holds ids outside the class list.
    """
    mask = looked_into(file, size, n_classes).values
    if file.unlabelled is not None:
        mask[mask == file.unlabelled] = IGNORE
    if file.ids:
        table = np.arange(IGNORE + 1, dtype=np.uint8)
        table[1 : len(file.ids) + 1] = file.ids
        mask = table[mask]
    return mask


def looked_into(file: MaskFile, size: tuple[int, int] | None, n_classes: int) -> Index:
    """Read a mask image as it lies on its photo, and check it; ids and the unlabelled value stay the image's own.

    Args:
        file: The image.
        size: (height, width) of its photo after EXIF rotation, pixels; None: not known.
        n_classes: K of the hint set, where the image does not count the classes otherwise.

    Raises:
        MaskError: As for `read_checked`.
    """
    index = open_index(file.path, file.colours)
    values = turned(index.values, file.orientation)
    if size is not None and values.shape != size:
        raise MaskError(file.path, wrong_size((values.shape[0], values.shape[1]), size))
    n = len(file.ids) or n_classes
    _check_ids(file, values, n)
    if index.bilevel and n > 1 and values.any():
        raise black_and_white(file.path, n)
    return index._replace(values=values)


def black_and_white(path: Path, classes: int) -> MaskError:
    """Return the error of a mask of one bit where there are several classes."""
    return MaskError(
        path,
        f"is black and white, so it does not say which of the {classes} classes it shows",
        "write class ids, or a mask in the colours of a table",
    )


class Looked(NamedTuple):
    """What mask images hold, by photo id; those that cannot be used are left out.

    Attributes:
        files: The images, with what they show.
        seen: Number of images that hold each value.
    """

    files: dict[str, MaskFile]
    seen: Counter[int]


def look_into(files: Mapping[str, MaskFile], photos: Mapping[str, Path], n_classes: int, problems: Problems) -> Looked:
    """Read mask images; unreadable ones, wrong sizes, wrong ids and palettes that differ are problems.

    Args:
        files: Mask image by photo id.
        photos: Photo file by photo id.
        n_classes: K.
        problems: Gets one sentence for each kind of bad file.

    Cost:
        Each takes some milliseconds.
    """

    def one(photo: str) -> tuple[list[int], Mapping[int, Colour]] | MaskError:
        try:
            index = looked_into(files[photo], size_or_none(photos[photo]), n_classes)
        except MaskError as error:
            return error
        return np.flatnonzero(np.bincount(index.values.ravel(), minlength=1)).tolist(), index.palette

    with ThreadPoolExecutor(max_workers=2) as pool:
        found = dict(zip(files, pool.map(one, files), strict=True))
    looked = Looked({}, Counter())
    errors: dict[str, list[MaskError]] = defaultdict(list)
    palettes: dict[Path, Mapping[int, Colour]] = {}
    for photo, result in found.items():
        file = files[photo]
        if isinstance(result, MaskError):
            errors[file.path.parent.name].append(result)
            continue
        there, palettes[file.path] = result
        looked.seen.update(there)
        shows = frozenset(v for v in there if 0 < v < IGNORE and v != file.unlabelled)
        looked.files[photo] = replace(file, shows=shows)
    for where, found_there in errors.items():
        for sentence in tell(found_there, len(files)):
            problems.add(where, sentence)
    if differ := differing(palettes):
        problems.add(next(iter(palettes)).parent.name, differ)
    return looked


def tags_of_masks(
    files: Mapping[str, MaskFile], photos: Mapping[str, Path], n_classes: int, problems: Problems
) -> dict[str, frozenset[int]]:
    """Return the class ids in each mask image, by photo id; see `look_into`."""
    looked = look_into(files, photos, n_classes, problems)
    return {photo: file.shows or frozenset() for photo, file in looked.files.items()}


def _check_ids(file: MaskFile, values: Mask, n_classes: int) -> None:
    counts = np.bincount(values.ravel(), minlength=IGNORE + 1)
    wrong = [v for v in np.flatnonzero(counts).tolist() if n_classes < v < IGNORE and v != file.unlabelled]
    if wrong:
        smooth = "; so many are a sign of smooth edges, or of a JPEG once" if len(wrong) > _BLURRED else ""
        raise MaskError(
            file.path,
            "holds ids outside the class list",
            f"allowed are 0 (background), 1..{n_classes} and 255 (ignore). Correct the mask or the class list; if "
            f"{wrong[0]} means 'nothing known here', pass unlabelled={wrong[0]}{smooth}",
            {value: int(counts[value]) for value in wrong},
        )


def wrong_size(given: tuple[int, int], needed: tuple[int, int]) -> str:
    """Say that a mask has another size than its photo, (height, width) each, and what to do.

    Example:
        >>> wrong_size((4, 10), (10, 20))
        'has 10 x 4 pixels, but its photo has 20 x 10 (after EXIF rotation); make them equal'
    """
    sizes = f"has {given[1]} x {given[0]} pixels, but its photo has {needed[1]} x {needed[0]} (after EXIF rotation)"
    for small, large, how in ((given, needed, "times as many"), (needed, given, "times fewer")):
        times = large[0] // max(small[0], 1)
        if times > 1 and (small[0] * times, small[1] * times) == large:
            return f"{sizes}, {times} {how} each way: write masks of the photos' size, scaled without smoothing"
    return f"{sizes}; make them equal"


def differing(palettes: Mapping[Path, Mapping[int, Colour]]) -> str:
    """Return a sentence where one value has different colours in the palettes of two masks, or an empty string.

    Tools that save a picture with a palette of its own count its colours, so that the values are no class ids.
    """
    first: dict[int, tuple[Path, Colour]] = {}
    for path, palette in palettes.items():
        for value, colour in palette.items():
            other, before = first.setdefault(value, (path, colour))
            if before != colour and value != IGNORE:
                return (
                    f"the value {value} is {before} in the palette of {other.name} and {colour} in that of "
                    f"{path.name}, so values are no class ids: write class ids, or RGB and a table of colours "
                    "(colours.csv with name,r,g,b)"
                )
    return ""


def only_ignored(seen: Mapping[int, int], what: str, classes: Sequence[str]) -> str:
    """Return a sentence where masks together hold 255 and no class id, or an empty string.

    Args:
        seen: Number of masks that hold each value.
        what: The masks in words, such as ``the 8 masks in truth``.
        classes: Names of the K foreground classes.
    """
    if not seen.get(IGNORE) or any(0 < value < IGNORE for value in seen):
        return ""
    name = classes[0] if len(classes) == 1 else "CLASS"
    values = " and ".join(str(value) for value in sorted(seen))
    wanted = ", ".join(f"{label} {one}" for label, one in [*enumerate(classes, start=1)][:3]) or "1, 2, ..."
    return (
        f"{what} hold only {values}, and 255 means 'ignore', so no pixel would be of any class; wanted are class ids "
        f"({wanted}): foreground painted as 255 has to become 1, or say what white is in colours.csv beside the masks: "
        f"the lines `name,r,g,b`, `background,0,0,0`, `{name},255,255,255`"
    )


def write_index(path: Path, mask: Mask, text: Mapping[str, str] | None = None) -> None:
    """Write a mask as a palette PNG in Pascal VOC's colours, whole or not at all.

    Args:
        path: The PNG.
        mask: Labels, (H, W) uint8.
        text: Kept in the PNG beside the picture.

    Raises:
        RunError: The file cannot be written.
    """
    image = Image.fromarray(mask)
    image.putpalette(_PALETTE)
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    with whole_file(path) as file:
        image.save(file, "PNG", pnginfo=info)
