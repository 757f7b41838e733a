"""Gather the problems of label files, to raise them all at once."""

from __future__ import annotations

import codecs
from pathlib import Path

from hintseg.errors import SENTENCE, LabelError, cut, list_problems, shown
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


def read_text(path: Path, notes: list[str] | None = None) -> str:
    """Read a label file of UTF-8 or UTF-16; a byte-order mark is dropped.

    Args:
        path: The file.
        notes: Where given, text that is neither is read as Windows-1252, which the notes then say.

    Raises:
        LabelError: The file cannot be read, is empty, no text, or in another encoding; then such lines are listed.
    """
    data = read_bytes(path, LabelError, "write the labels into it, or name another file")
    try:
        text = decode(data)
    except UnicodeDecodeError as error:
        text = _in_code_page(data, path, notes, error)
    except ValueError as error:
        raise LabelError(f"{path} is no text: {error}") from None
    if not text.strip():
        raise LabelError(f"{path} is empty; write the labels into it, or name another file")
    return text


def decode(data: bytes) -> str:
    r"""Return text of UTF-8 or UTF-16, also where UTF-16 has no byte-order mark.

    Raises:
        UnicodeDecodeError: It is in another encoding.
        ValueError: It is no text; with the reason and what to do, to be quoted.

    Example:
        >>> decode("a,b".encode("utf-16")), decode(b"\xef\xbb\xbfa,b")
        ('a,b', 'a,b')
    """
    if data.startswith(b"PK\x03\x04"):
        raise ValueError("it is a zip archive, as Excel's workbooks are; save it as CSV (UTF-8)")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if b"\0" in data:
        for encoding, high in (("utf-16-le", data[1::2]), ("utf-16-be", data[0::2])):
            if high.count(0) > len(data) / 4:
                return data.decode(encoding)
        raise ValueError("it holds zero bytes; save the labels as UTF-8 text")
    return data.decode("utf-8-sig")


def _in_code_page(data: bytes, path: Path, notes: list[str] | None, error: UnicodeDecodeError) -> str:
    """Return text as Windows-1252, which notes say, or refuse it with the lines that are not UTF-8."""
    if notes is not None and error.encoding == "utf-8" and not data.translate(None, _TEXT):
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            pass
        else:
            number = data.count(b"\n", 0, error.start)
            line = shown(text.split("\n")[number])
            notes.append(f"{path.name} is not UTF-8 and read as Windows-1252; line {number + 1} then says '{line}'")
            return text
    if error.encoding != "utf-8":
        raise LabelError(f"{path} is cut off: {error.reason} at its end; write it again") from None
    found = []
    for number, line_bytes in enumerate(data.split(b"\n"), start=1):
        try:
            line_bytes.decode("utf-8-sig")
        except UnicodeDecodeError as reason:
            byte = line_bytes[reason.start]
            found.append(f"line {number}: byte {byte:#04x} is not UTF-8; save the file as UTF-8")
    raise LabelError(list_problems(path.name, found)) from None


_TEXT = bytes(code for code in range(256) if code >= 32 or code in b"\t\n\v\f\r")
