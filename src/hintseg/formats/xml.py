"""XML label files: found and recognised by their outermost element, read, and written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from hintseg.errors import LabelError
from hintseg.files.atomic import whole_file
from hintseg.files.parse import read_xml, xml_root
from hintseg.formats.photos import walk

MOST_LOOKED_AT = 20
"""XML files of a folder whose outermost element is looked at, to recognise the format."""


def xml_files(place: Path) -> Iterator[Path]:
    """Yield the XML files below a folder, the upper ones first; a file yields itself."""
    files = walk(place) if place.is_dir() else [place]
    return (file for file in files if file.suffix.lower() == ".xml")


def xml_roots(place: Path) -> set[str]:
    """Return the names of the outermost elements of the first XML files below a folder, or of a file."""
    return {xml_root(file) for file in islice(xml_files(place), MOST_LOOKED_AT)}


def read_tree(file: Path) -> Element:
    """Return the outermost element of an XML file; the names of elements in lower case, prefixes left out.

    Raises:
        LabelError: It is missing, no XML, or beyond the limits of `files.parse`.
    """
    tree = read_xml(file, LabelError, "it may be cut off, or hold letters that are not UTF-8: write it again")
    for element in tree.iter():
        element.tag = element.tag.rpartition(":")[2].lower()
    return tree


def number(text: str | None) -> float | None:
    """Return the number that an attribute or element holds, or None."""
    try:
        return float(text or "")
    except ValueError:
        return None


def size_of(width: str | None, height: str | None) -> tuple[int, int] | None:
    """Return a stated size as (height, width), pixels; None where none is stated."""
    both = number(height), number(width)
    if both[0] is None or both[1] is None or not all(0 < value < 1e9 for value in both if value is not None):
        return None
    return int(both[0]), int(both[1])


def add(parent: Element, name: str, text: str | float = "", **attributes: str | float) -> Element:
    """Append an element; numbers as `shortest` writes them."""
    child = ElementTree.SubElement(parent, name, {key: _text(value) for key, value in attributes.items()})
    child.text = _text(text) or None
    return child


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else shortest(value)


def shortest(value: float) -> str:
    """Return a number with at most six digits behind the point, as few as it needs.

    Example:
        >>> shortest(3.0), shortest(0.25), shortest(1 / 3)
        ('3', '0.25', '0.333333')
    """
    return f"{value:.6f}".rstrip("0").rstrip(".")


def write_xml(path: Path, root: Element) -> None:
    """Write an XML file whole or not at all, indented."""
    ElementTree.indent(root)
    with whole_file(path) as file:
        ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
