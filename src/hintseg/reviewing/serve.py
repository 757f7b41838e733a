"""Serving the page: on this machine alone, until somebody stops it."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hintseg.errors import RunError
from hintseg.files.atomic import write_json
from hintseg.files.lock import locked
from hintseg.quality.review_list import ReviewList
from hintseg.reviewing.storage import Review
from hintseg.run.schema import Facts, read_checked

HOST = "127.0.0.1"


def check_installed() -> None:
    """Refuse to go on without what the page needs.

    Raises:
        RunError: The extra is not installed.
    """
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise RunError(f"the page needs {' and '.join(missing)}, not installed here; pip install 'hintseg[review]'")


def serve(
    review: Review, found: ReviewList, *, port: int = 0, opened: bool = True, say: Callable[[str], object]
) -> None:
    """Serve the page of a run until the process is told to stop.

    Args:
        review: The review of the run.
        found: Its review list.
        port: Where, 1..65535; 0 takes a free one.
        opened: Whether a browser is opened.
        say: Told the address.

    Raises:
        RunError: What the page needs is not installed, the port is taken, or the review is open in another process.
    """
    check_installed()
    import uvicorn

    from hintseg.reviewing.again import Again
    from hintseg.reviewing.guard import Guard
    from hintseg.reviewing.server import Server

    with locked(review.folder), socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        before = _address(review.folder)
        token = before.token if before is not None else secrets.token_urlsafe(24)
        if port or before is None or not _bound(place, before.port):
            try:
                place.bind((HOST, port))
            except OSError as error:
                why = error.strerror or error
                raise RunError(f"port {port} cannot be used ({why}); choose another --port, or leave it out") from error
        place.listen(64)  # a browser may ask as soon as it has the address
        number = place.getsockname()[1]
        _keep(review.folder, Address(port=number, token=token))
        app = Guard(Server(review, found, Again(review.run)).app(), number, token)
        address = f"http://{HOST}:{number}/{token}/"
        _warm()
        say(f"review: {address}  (Ctrl-C stops it; everything is kept in {review.folder})")
        if opened:
            webbrowser.open(address)
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[place])


class Address(Facts):
    """``review/address.json``: where the page was served last.

    A page that is open when the server stops finds it again there, with what it could not save yet.

    Attributes:
        port: The port.
        token: First part of every path.
    """

    port: Annotated[int, Field(ge=1, le=65535)]
    token: Annotated[str, Field(pattern=r"^[\w-]{32}$")]


def _address(folder: Path) -> Address | None:
    path = folder / "address.json"
    try:
        return read_checked(path, Address) if path.is_file() else None
    except RunError:  # whoever edited it gets another address
        return None


def _keep(folder: Path, address: Address) -> None:
    path = folder / "address.json"
    write_json(path, address.model_dump())
    path.chmod(0o600)  # who knows the token may change masks


def _bound(place: socket.socket, port: int) -> bool:
    try:
        place.bind((HOST, port))
    except OSError:
        return False
    return True


def _warm() -> None:
    """Import what the first filled object would wait for, and what would slow the page down meanwhile."""
    import cv2  # noqa: F401

    import hintseg.refine.grabcut  # noqa: F401
