"""How text, JSON, YAML and XML are read, everywhere in the package.

What people hand each other can be cut off, edited, or made to harm. So these readers refuse what is not a plain file,
and values that are nested too deeply, numbers with too many digits, and whatever grows when it is read (YAML aliases,
XML entities): reading takes time and memory in proportion to the file, and ends in values or in one sentence.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
import yaml

from hintseg.errors import HintsegError, cut, shown

MOST_BYTES = 2 << 30
"""Larger text files are refused; COCO's own largest has 0.45 GB."""

MOST_YAML_BYTES = 1 << 18
"""Larger YAML files are refused: settings and class names need less, and reading takes 20 s per MB."""

DEPTH = 64
"""The most levels of lists and mappings, or of XML elements, inside each other."""

VALUES = 200_000
"""The most values of a YAML file, each alias counted as what it stands for."""

DIGITS = 300
"""The most digits of a whole number: with more it is no float."""

WORDS = 200
"""The most characters of a reader's own reason that are quoted."""


def is_file(path: Path) -> bool:
    """Return whether `path` is a plain file; never raises, whatever the name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def read_bytes(path: Path, error: type[HintsegError], advice: str, *, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a plain file.

    Args:
        path: The file.
        error: What to raise.
        advice: What to do then, the end of the message.
        most: Bytes of the largest file that is read.

    Raises:
        HintsegError: `error`: the file is missing, no plain file (such as a pipe), too large, or cannot be read.
    """
    try:
        if not is_file(path):
            path.stat()  # raises where it is missing, and says why
            raise OSError("it is no plain file")
        if (size := path.stat().st_size) > most:
            raise OSError(f"it has {size:,} bytes, at most {most:,} are read")
        return path.read_bytes()
    except (OSError, ValueError) as reason:
        raise error(f"cannot read {path}: {getattr(reason, 'strerror', None) or reason}; {advice}") from reason


def read_head(path: Path, most: int) -> bytes:
    """Return the first bytes of a plain file, none where it cannot be read; for a look at what it holds."""
    try:
        if not is_file(path):
            return b""
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""


def read_json(path: Path, error: type[HintsegError], advice: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.
        error: What to raise.
        advice: What to do then, the end of the message.

    Raises:
        HintsegError: `error`: the file is missing, cannot be read, is no JSON, or goes beyond the limits above.
    """
    data = read_bytes(path, error, advice)
    try:
        return parse_json(data)
    except ValueError as reason:
        raise error(f"{path} is no valid JSON: {reason}; {advice}") from reason


def read_yaml(path: Path, error: type[HintsegError], advice: str, *, as_written: bool = False) -> Any:
    """Return what a YAML file holds; see `read_json` and `parse_yaml`."""
    data = read_bytes(path, error, advice, most=MOST_YAML_BYTES)
    try:
        return parse_yaml(data.decode("utf-8-sig"), as_written=as_written)
    except ValueError as reason:
        raise error(f"{path} is no valid YAML: {reason}; {advice}") from reason


def read_xml(path: Path, error: type[HintsegError], advice: str) -> Element:
    """Return the outermost element of an XML file; see `read_json`."""
    data = read_bytes(path, error, advice)
    try:
        return parse_xml(data)
    except ValueError as reason:
        raise error(f"{path} is no valid XML: {reason}; {advice}") from reason


def xml_root(path: Path) -> str:
    """Return the name of the outermost element of an XML file, in lower case, without prefix; empty: it is none.

    Only the first 64 kB are read, to tell formats apart.
    """
    parser = expat.ParserCreate()
    found: list[str] = []

    def start(name: str, _: dict[str, str]) -> None:
        found.append(name)
        raise StopIteration

    parser.StartElementHandler = start
    if is_file(path):
        with suppress(OSError, ValueError, LookupError, StopIteration, expat.ExpatError), path.open("rb") as file:
            parser.Parse(file.read(1 << 16), False)
    return found[0].rpartition(":")[2].lower() if found else ""


def parse_json(data: bytes) -> Any:
    r"""Return what JSON text holds. NaN and Infinity are read as floats, as Python writes them.

    Raises:
        ValueError: With the reason, to be quoted.

    Example:
        >>> parse_json(b'{"a": [1, 2.5, null]}')
        {'a': [1, 2.5, None]}
        >>> parse_json(b"[" * 100 + b"]" * 100)
        Traceback (most recent call last):
        ValueError: values lie 100 levels inside each other, at most 64 are read
    """
    text = data.decode("utf-8-sig")
    # Strings out, then only brackets count; `\\` before `\"`, so that each backslash is paired as JSON pairs it.
    bare = re.sub(rb'"[^"]*"?', b"", data.replace(rb"\\", b"").replace(rb"\"", b""))
    brackets = np.frombuffer(bare.translate(None, _NO_BRACKETS), np.uint8) & 0x07
    # "[" 0x5b and "{" 0x7b end in 3, "]" 0x5d and "}" 0x7d in 5.
    if brackets.size and (deepest := int(np.cumsum(4 - brackets.astype(np.int64)).max())) > DEPTH:
        raise ValueError(f"values lie {deepest} levels inside each other, at most {DEPTH} are read")
    if b"9" * (DIGITS + 1) in bare.translate(_TO_NINE):
        raise ValueError(f"a number has more than {DIGITS} digits")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} in line {error.lineno}, column {error.colno}") from error
    if _ESCAPED_SURROGATE.search(data):
        _refuse_surrogates(found)
    return found


_NO_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")
_TO_NINE = bytes(ord("9") if code in b"0123456789" else code for code in range(256))
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _refuse_surrogates(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the text '{shown(value)}' holds half a character, or bytes that are no UTF-8") from error
    elif isinstance(value, dict):
        for item in value.items():
            _refuse_surrogates(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_surrogates(item)


class _Loader(yaml.SafeLoader):
    """Plain YAML: text, numbers, true, false and null, lists and mappings; 1e-4 is a number, as everywhere else.

    Dates and numbers to the base 60 stay text. Tags are refused, and keys that a mapping has twice.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"{event.tag} is a tag; write the plain value", **_at(event))
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.MarkedYAMLError(problem=f"values lie more than {DEPTH} levels inside each other", **_at(event))
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(problem=f"the key '{shown(key.value)}' occurs twice", **_at(key))
                seen.add((key.tag, key.value))
        return node

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > DIGITS:
            raise yaml.MarkedYAMLError(problem=f"a number has more than {DIGITS} digits", **_at(node))
        return super().construct_yaml_int(node)


def _at(event: Any) -> dict[str, Any]:
    return {"problem_mark": event.start_mark}


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)

_FLOAT = re.compile(
    r"[-+]?((\d[\d_]*\.[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
)
_INT = re.compile(r"[-+]?(0b[01_]+|0x[\da-fA-F_]+|0[0-7_]*|[1-9][\d_]*)$")
_OTHER = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp")

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in _OTHER]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


class _AsWritten(_Loader):
    """YAML whose values are all text: `no` is "no", 1e3 is "1e3", and what is left empty is ""."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # noqa: RUF012 (merges of mappings)


def parse_yaml(text: str, *, as_written: bool = False) -> Any:
    """Return what YAML text holds.

    Args:
        text: The text.
        as_written: Whether values stay the text they are written as; of names YAML makes numbers, truth and null.

    Raises:
        ValueError: With the reason, to be quoted.

    Example:
        >>> parse_yaml("{a: 1e-4, b: [2020-01-01, yes]}")
        {'a': 0.0001, 'b': ['2020-01-01', True]}
        >>> parse_yaml("names: {0: no, 1: 007}", as_written=True)
        {'names': {'0': 'no', '1': '007'}}
        >>> parse_yaml("!!python/object:os.system []")
        Traceback (most recent call last):
        ValueError: tag:yaml.org,2002:python/object:os.system is a tag; write the plain value in line 1, column 1
    """
    try:
        found = yaml.load(text, _AsWritten if as_written else _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(cut(f"{error.problem or error.context}", WORDS) + where) from error
    except yaml.YAMLError as error:
        raise ValueError(cut(" ".join(str(error).split()), WORDS)) from error
    _refuse_growth(found)
    _refuse_surrogates(found)
    return found


def _refuse_growth(value: Any) -> None:
    """Refuse what aliases make too large or too deep, or to hold itself."""
    left, waiting = VALUES, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        children = list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else ()
        left -= len(children)
        if left < 0 or depth > DEPTH:
            raise ValueError(
                f"its aliases make more than {VALUES:,} values of it, or more than {DEPTH} levels; write the values out"
            )
        waiting += [(child, depth + 1) for child in children]


def parse_xml(data: bytes) -> Element:
    """Return the outermost element of XML text, in whatever encoding it says.

    Raises:
        ValueError: With the reason, to be quoted.

    Example:
        >>> parse_xml(b"<a><b>1</b></a>").findtext("b")
        '1'
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise ValueError(f"elements lie more than {DEPTH} levels inside each other")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: Any) -> None:
        raise ValueError("it declares a DOCTYPE, which can name other files and grow without end; delete that line")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(str(error)) from error
