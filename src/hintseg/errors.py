"""Errors a caller can mend: every message says what was given, what is needed and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

MESSAGE = 4000
"""The most characters of a message."""

SENTENCE = 300
"""The most characters of one problem in a list of them."""

CELL = 60
"""The most characters shown of what a file holds."""

LONGEST_NAME = 200
"""Longer names are not compared with others: that takes time with the square of their length."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class HintsegError(Exception):
    """Anything the user can mend; the command line prints it and exits with code 2.

    The message may quote any file: it is cut to `MESSAGE` characters, and what no terminal or file takes is escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(cut(printable(message), MESSAGE))


class ConfigError(HintsegError):
    """A setting, recipe or name that cannot be used."""


class LabelError(HintsegError):
    """One or more problems in label files; all problems of a file are listed at once."""


class PhotoError(HintsegError):
    """A photo that cannot be read."""


class ShapeError(HintsegError, ValueError):
    """Tensors or arrays whose shapes, ranges or dtypes do not fit together."""


class WeightsError(HintsegError):
    """Network weights that are missing or belong to another network."""


class RunError(HintsegError):
    """A run folder that cannot be created, continued or read."""


class HintsegWarning(UserWarning):
    """Something that works but will hurt the result."""


def printable(text: str) -> str:
    r"""Escape control characters, and bytes of file names that are no UTF-8; line feeds and tabs stay.

    Example:
        >>> printable("a\x1b[2J\udcff")
        'a\\x1b[2J\\xff'
    """

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        if 0xDC80 <= code <= 0xDCFF:  # how Python writes a byte of a file name that is not UTF-8
            code -= 0xDC00
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return _UNPRINTABLE.sub(escaped, text)


def cut(text: str, most: int) -> str:
    """Leave out the middle of a text that is longer than `most` characters, and say so.

    Example:
        >>> cut("abcdefghij" * 100, 60)
        'abcdefghijabc... (974 characters left out) ...hijabcdefghij'
        >>> cut("abc", 60)
        'abc'
    """
    if len(text) <= most:
        return text
    kept = most - len(f"... ({len(text)} characters left out) ...")
    head, tail = kept - kept // 2, kept // 2
    return f"{text[:head]}... ({len(text) - head - tail} characters left out) ...{text[len(text) - tail :]}"


def shown(value: object) -> str:
    """Return what a file holds as it is quoted in a message: printable, on one line, at most `CELL` characters.

    Example:
        >>> shown("bird"), shown("bird " * 100)
        ('bird', 'bird bird bird bird bird bird bird bird bird bird bird bi...')
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**CELL:
        return "a number of more than 60 digits"  # Python refuses to spell out very long ones
    text = " ".join(str(value)[: 4 * CELL].split())
    return printable(text if len(text) <= CELL else text[: CELL - 3] + "...")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean 'NAME'?"`` for the nearest known name, or an empty string.

    Example:
        >>> did_you_mean("brid", ["bird", "dog"])
        "; did you mean 'bird'?"
        >>> did_you_mean("zebra", ["bird", "dog"])
        ''
    """
    if len(name) > LONGEST_NAME:
        return ""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean '{shown(near[0])}'?" if near else ""


def join(names: Sequence[str], limit: int = 12) -> str:
    """List names in a sentence.

    Example:
        >>> join(["cow", "sheep", "dog"]), join(["a", "b", "c"], limit=2)
        ('cow, sheep and dog', 'a, b and 1 more')
    """
    shown = list(names[:limit])
    if len(names) > limit:
        return f"{', '.join(shown)} and {len(names) - limit} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def list_problems(where: str, problems: Sequence[str], limit: int = 20) -> str:
    """Format all problems of one file as one message.

    Args:
        where: The file or object the problems are in.
        problems: One sentence per problem, in file order; at least one.
        limit: How many are spelled out; the rest are counted.

    Example:
        >>> print(list_problems("tags.csv", ["line 2: no tag", "line 5: unknown tag 'x'"]))
        2 problems in tags.csv:
          line 2: no tag
          line 5: unknown tag 'x'
    """
    noun = "problem" if len(problems) == 1 else "problems"
    lines = [f"{len(problems)} {noun} in {where}:", *(f"  {cut(p, SENTENCE)}" for p in problems[:limit])]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
