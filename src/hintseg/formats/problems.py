"""Gather the problems of label files, to raise them all at once."""

from __future__ import annotations

from pathlib import Path

from hintseg.errors import SENTENCE, LabelError, cut, list_problems
from hintseg.files.parse import read_bytes

MOST = 1000
"""Reading stops at this many problems: the file is another one than it was taken for."""


class Problems:
    """Problems found so far, by the file or folder they are in."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._count = 0

    def add(self, where: str, what: str) -> None:
        """Remember one problem: a sentence that starts with its line or file name.

        Raises:
            LabelError: It is the last of `MOST`.
        """
        self._found.setdefault(where, []).append(cut(what, SENTENCE))
        self._count += 1
        if self._count == MOST:
            self.raise_all()

    def raise_all(self) -> None:
        """Raise one error that lists every problem, if there is any.

        Raises:
            LabelError: At least one problem was added.
        """
        if self._found:
            lists = [list_problems(where, found) for where, found in self._found.items()]
            stopped = [f"reading stopped at {MOST:,} problems"] if self._count == MOST else []
            raise LabelError("\n".join(lists + stopped))


def read_text(path: Path) -> str:
    """Read a UTF-8 label file (a byte-order mark is dropped).

    Raises:
        LabelError: The file cannot be read, is empty, or is not UTF-8; then every such line is listed.
    """
    data = read_bytes(path, LabelError, "write the labels into it, or name another file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        found = []
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                found.append(f"line {number}: byte {line[error.start]:#04x} is not UTF-8; save the file as UTF-8")
        raise LabelError(list_problems(path.name, found)) from None
    if not text.strip():
        raise LabelError(f"{path} is empty; write the labels into it, or name another file")
    return text
