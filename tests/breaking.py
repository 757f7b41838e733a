"""Ways to break a file: its bytes, or the keys, types and nesting of what it holds."""

from __future__ import annotations

import copy
import json
from typing import Any
from xml.etree import ElementTree

import yaml
from hypothesis import strategies as st

TEXTS = [
    "", " ", "0", "-1", "1e999", "-1e308", "nan", "inf", "9" * 400, "9" * 5000, "1_0", "0x1f", "true", "null",
    "2020-01-01", "\x00", "\x1b[2J", "a\nb", "a" * 3000, "../../../etc/passwd", "/dev/zero", "🦊" * 50, '"', "<b>",
    "&a;", "bird", "٣", "\u2028",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 255, 10**12, 10**320, 1e308, -1e308, float("nan"), float("inf"), [], {}, [[]], [None] * 3,
    {"": 0}, "\ud800", *TEXTS,
]  # fmt: skip
TOKENS = [
    b"[" * 100_000, b"{" * 3000, b"]", b"}", b'{"a":' * 2000, b"\xff", b"\xef\xbb\xbf", b"\0", b'"', b"'", b"\\ud800",
    b"&a &b *a", b"!!timestamp x", b"!!set {a}", b"<!DOCTYPE a [<!ENTITY b 'b'>]>", b"<a>" * 3000, b"\n", b"\r\n", b",",
    b";" * 20_000, b"- " * 3000, b": ", b"? ", b"<<: ", b"\xed\xa0\x80", *[text.encode() for text in TEXTS],
]  # fmt: skip


@st.composite
def broken_bytes(draw: Any, base: bytes) -> bytes:
    data = bytearray(base)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        count = draw(st.sampled_from((1, 2, 8, 100)))
        how = draw(st.sampled_from(("flip", "cut", "drop", "double", "insert", "insert", "number")))
        if how == "flip":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + count]
        elif how == "double":
            data[at:at] = data[at : at + count] * draw(st.sampled_from((1, 300)))
        elif how == "number":
            data[at : at + 4] = draw(st.sampled_from((0, 1, 2**31 - 1, 2**32 - 1, 65535))).to_bytes(4, "little")
        else:
            data[at:at] = draw(st.sampled_from(TOKENS))
    return bytes(data)


@st.composite
def broken_tree(draw: Any, base: Any) -> Any:
    tree = [copy.deepcopy(base)]
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = tree
        key: Any = 0
        while isinstance(parent[key], dict | list) and parent[key] and draw(st.integers(0, 5)):
            parent = parent[key]
            key = draw(st.sampled_from(sorted(parent, key=repr) if isinstance(parent, dict) else range(len(parent))))
        how = draw(st.sampled_from(("value", "value", "value", "drop", "double", "nest", "rename")))
        if how == "value" or parent is tree:
            parent[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif how == "drop":
            del parent[key]
        elif how == "double" and isinstance(parent, list):
            parent.extend([parent[key]] * draw(st.sampled_from((1, 2000))))
        elif how == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from([*TEXTS, "id", "names", "method"]))] = parent.pop(key)
        else:
            for _ in range(draw(st.sampled_from((1, 40, 90)))):
                parent[key] = [parent[key]] if draw(st.booleans()) else {"a": parent[key]}
    return tree[0]


def broken_json(base: bytes) -> st.SearchStrategy[bytes]:
    trees = broken_tree(json.loads(base)).map(lambda tree: json.dumps(tree).encode())
    return st.one_of(broken_bytes(base), trees)


def broken_yaml(base: bytes) -> st.SearchStrategy[bytes]:
    def dump(tree: Any) -> bytes:
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")

    return st.one_of(broken_bytes(base), broken_tree(yaml.safe_load(base)).map(dump))


@st.composite
def broken_elements(draw: Any, base: bytes) -> bytes:
    root = ElementTree.fromstring(base)
    for _ in range(draw(st.integers(1, 3))):
        every = list(root.iter())
        parent = draw(st.sampled_from(every))
        how = draw(st.sampled_from(("text", "text", "text", "tag", "drop", "double", "nest")))
        if how == "text":
            parent.text = draw(st.sampled_from(TEXTS))
        elif how == "tag":
            parent.tag = draw(st.sampled_from(("annotation", "object", "name", "x" * 3000)))
        elif how == "drop" and len(parent):
            parent.remove(draw(st.sampled_from(list(parent))))
        elif how == "double" and len(parent):
            parent.extend([copy.deepcopy(parent[0]) for _ in range(draw(st.sampled_from((1, 500))))])
        elif how == "nest":
            for _ in range(draw(st.sampled_from((1, 90)))):
                parent = ElementTree.SubElement(parent, "object")
    return ElementTree.tostring(root)


@st.composite
def broken_table(draw: Any, base: bytes) -> bytes:
    rows = [line.split(",") for line in base.decode().splitlines()] or [[""]]
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.sampled_from(rows))
        how = draw(st.sampled_from(("cell", "cell", "cell", "drop", "row", "rows", "wide")))
        if how == "cell" and row:
            row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(TEXTS))
        elif how == "drop" and row:
            del row[draw(st.integers(0, len(row) - 1))]
        elif how == "rows":
            rows.extend([[f"{cell}{number}" for cell in row] for number in range(2000)])
        elif how == "wide":
            row.extend(f"c{number}" for number in range(3000))
        else:
            rows.append(list(row))
    return "\n".join(",".join(row) for row in rows).encode()


def broken(name: str, base: bytes) -> st.SearchStrategy[bytes]:
    """Return ways to break a file, by what its name says it is; at most 1 MB come out."""
    return _broken(name, base).map(lambda content: content[:1_000_000])


def _broken(name: str, base: bytes) -> st.SearchStrategy[bytes]:
    if name.endswith(".json"):
        return broken_json(base)
    if name.endswith(".yaml"):
        return broken_yaml(base)
    if name.endswith(".xml"):
        return st.one_of(broken_bytes(base), broken_elements(base))
    if name.endswith((".csv", ".txt")):
        return st.one_of(broken_bytes(base), broken_table(base))
    return broken_bytes(base)
