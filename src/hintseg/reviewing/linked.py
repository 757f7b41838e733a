"""The report of a run, as it is served beside the page: each of its photos leads to the page."""

from __future__ import annotations

import html
import re
from collections.abc import Container
from urllib.parse import quote

_PHOTO = re.compile(r'<span data-photo="([^"]*)">([^<]*)</span>')
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n?')


def linked_report(page: str, photos: Container[str]) -> str:
    """Return a report whose photos lead to the review page, and which leads there itself.

    Args:
        page: ``report.html``.
        photos: Ids of the photos that the page has.

    Example:
        >>> linked_report('<body><span data-photo="a b">a b</span>', {"a b"})
        '<body><p><a href="./">Review these masks</a></p><a href="./#photo=a%20b">a b</a>'
    """

    def link(found: re.Match[str]) -> str:
        id = html.unescape(found[1])
        return f'<a href="./#photo={quote(id, safe="")}">{found[2]}</a>' if id in photos else found[0]

    page = _POLICY.sub("", page, count=1)  # the server sends one
    return _PHOTO.sub(link, page.replace("<body>", '<body><p><a href="./">Review these masks</a></p>', 1))
