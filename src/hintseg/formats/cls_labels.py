"""`cls_labels.npy` of research repositories: a pickled dict from photo name to a 0/1 vector over the classes.

Loading a pickle can run any code, so the file is read by an unpickler that knows numpy arrays, dicts, strings and
numbers and refuses everything else. Integer keys, as IRN writes them, are VOC's (2007000032: 2007_000032) or COCO's.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hintseg.errors import LabelError, list_problems, shown
from hintseg.files.parse import read_bytes
from hintseg.formats.codec import Fit
from hintseg.formats.gather import gather
from hintseg.formats.layout import CLASS_LIST, VOC_CLASSES, find_truth, read_classes, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Labels, Reading, Record
from hintseg.formats.voc import voc_root
from hintseg.types import HintSet, Supervision

FILE = "cls_labels.npy"


class ClsLabels:
    """cls_labels.npy of research code."""

    name = "cls_labels"
    carries = frozenset({Supervision.TAGS})
    sign = FILE

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for `cls_labels.npy`, or take any .npy that is given."""
        if labels is not None:
            return Fit.WEAK if labels.suffix.lower() == ".npy" else Fit.NO
        return Fit.YES if (path / FILE).is_file() else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read tags from a `cls_labels.npy`.

        Args:
            path: Folder of the data set, also one in Pascal VOC layout.
            labels: The file; None takes `cls_labels.npy` in `path`.
            reading: How it is to be read.

        Raises:
            LabelError: The file holds something else than such a dict, or all its problems at once.
        """
        file = labels or path / FILE
        root = voc_root(path) or path
        vectors = load(file)
        problems, notes = Problems(), list[str]()
        folder = find_photos(root, missing=reading.missing)
        classes = read_classes(root, file, problems, background=reading.background)
        if classes is None:
            if {vector.size for vector in vectors.values()} != {len(VOC_CLASSES)}:
                raise LabelError(
                    f"{file.name} does not name its classes; write {CLASS_LIST} beside it, one name per line"
                )
            classes = VOC_CLASSES
            notes.append("the classes are taken to be Pascal VOC's 20")
        records = []
        said: dict[bytes, tuple[tuple[str, ...], tuple[str, ...]]] = {}  # many photos share what they show
        for key, vector in vectors.items():
            line = f"entry '{shown(key)}'"
            if vector.shape != (len(classes),) or not np.isin(vector, (0, 1)).all():
                problems.add(
                    file.name, f"{line}: needs {len(classes)} values 0 or 1, but has {vector.size}: {shown(vector)}"
                )
                continue
            name, *also = _names(key)
            bits = vector.astype(bool)
            pair = tuple(tuple(classes[k] for k in np.flatnonzero(one)) for one in (bits, ~bits))
            tags, absent = said.setdefault(bits.tobytes(), (pair[0], pair[1]))
            records.append(Record(name, (), tags, absent, also=tuple(also), where=file.name, line=line))
        splits = read_splits(root, folder, problems)
        truth = find_truth(root, folder, notes, named=True, unlabelled=reading.unlabelled)
        found = Labels(tuple(records), file.name, classes, splits, truth, notes=tuple(notes))
        return gather(path, folder, found, reading, problems)


def load(file: Path) -> dict[str | int, npt.NDArray[Any]]:
    """Return the dict of a `cls_labels.npy` without running any code the file may hold.

    Raises:
        LabelError: The file is missing, cut off, or holds something else than a dict of arrays.
    """
    data = read_bytes(file, LabelError, "name the label file with labels=FILE")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        if shape != () or dtype != np.dtype(object):
            raise LabelError(
                f"{file.name} holds an array of shape {shape}; needed is one dict of photo name -> 0/1 vector"
            )
        start = stream.tell()
        for operation, argument, _ in pickletools.genops(stream):
            # Python sets room aside for the number a memo entry states: one broken byte would take all memory.
            if operation.name.endswith("PUT") and int(argument or 0) > len(data):
                raise LabelError(f"{file.name} is broken: it states more entries than it has bytes")
        stream.seek(start)
        content = _ArraysOnly(stream, encoding="latin1").load().value
    except LabelError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything; none of it is a bug of ours
        raise LabelError(f"cannot read {file}: {error}; it may be cut off or no .npy file") from error
    if not isinstance(content, dict) or not content:
        raise LabelError(f"{file.name} holds a {type(content).__name__}; needed is a dict of photo name -> 0/1 vector")
    vectors: dict[str | int, npt.NDArray[Any]] = {}
    wrong = []
    for key, value in content.items():
        vector = _vector(value)
        if vector is None:
            wrong.append(f"entry '{shown(key)}': is no 0/1 vector")
        elif isinstance(key, str):
            vectors[key] = vector
        elif isinstance(key, int) and 0 <= key < 10**12:
            vectors[int(key)] = vector
        else:
            wrong.append(f"entry '{shown(key)}': is neither a photo's name nor its number")
    if wrong:
        raise LabelError(list_problems(file.name, wrong))
    return vectors


def _vector(value: Any) -> npt.NDArray[Any] | None:
    """Return an entry as a vector of numbers; None where it is none. Lists in lists may be larger than any memory."""
    if isinstance(value, list | tuple) and all(isinstance(item, int | float) and abs(item) <= 1 for item in value):
        return np.array(value, dtype=np.float64)
    found = value.value if isinstance(value, _Array) else None
    return found if isinstance(found, np.ndarray) and found.dtype.kind in "biuf" and found.ndim == 1 else None


def _names(key: str | int) -> list[str]:
    """Return the names of the photo a key may mean; integers are VOC or COCO numbers."""
    text = str(key)
    return [text] if isinstance(key, str) else [text, f"{text[:4]}_{text[4:]}", f"{key:012d}"]


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and plain containers; refuses every other name a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """Return our stand-in for a harmless name.

        Raises:
            LabelError: The name is not one of them.
        """
        known = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise LabelError(
                f"the file asks for '{module}.{name}' when loaded; only numpy arrays, dicts, strings and numbers are "
                "read, because loading a file must never run its code"
            )
        return known


class _Dtype:
    """Stands for a pickled dtype: numbers, text and objects only."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufU]\d{1,4}|O8?", code):
            raise LabelError(f"the file holds values of the kind '{code}'")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for a pickled array: numpy's own way to build one would trust the file."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, by_columns, data = state[-4:]
        if dtype.dtype == np.dtype(object):
            self.value = data[0]  # only the outermost array holds objects: the one dict
        else:
            self.value = _values(data, dtype).reshape(shape, order="F" if by_columns else "C")


def _values(data: bytes | str, dtype: _Dtype) -> npt.NDArray[Any]:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype=dtype.dtype)


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return _values(data, dtype)[0].item()


def _from_buffer(data: bytes, dtype: _Dtype, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _values(data, dtype).reshape(shape, order=order)
    return array


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise LabelError(f"the file holds bytes as '{encoding}'")
    return text.encode("latin1")


# What pickles of numpy arrays ask for: protocols 0 to 5, Python 2 and 3, numpy 1 and 2.
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): object(),  # only named as the kind to build
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
}
