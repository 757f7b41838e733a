"""Who may talk to the page: a browser on this machine that was given the address, and no page of anybody else."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")

_HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class Guard:
    """Lets through what names this host and the token, and comes from no other origin.

    The `Host` header is checked because a name of somebody else's may lead to this machine (DNS rebinding); the token
    because other programs on it may not know the address; the origin because browsers send what other pages ask for.

    Args:
        app: What answers.
        port: Where it is served.
        token: First part of every path.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in HOSTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self.refused(scope["method"], scope["path"], headers)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        if refused is not None:
            status, why = refused
            await PlainTextResponse(why, status)(scope, receive, send_guarded)
            return
        root = f"/{self.token}"
        inner = {**scope, "path": scope["path"][len(root) :] or "/", "root_path": ""}
        await self.app(inner, receive, send_guarded)

    def refused(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and reason where a request is refused."""
        if headers.get("host", "").lower() not in self.hosts:
            return 400, "this host is not served here; use the address that `hintseg review` printed"
        first = path.split("/")[1] if "/" in path else ""
        if not secrets.compare_digest(first.encode(), self.token.encode()) or not path.startswith(f"/{self.token}/"):
            return 404, "no such page; use the whole address that `hintseg review` printed"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.hosts}:
            return 403, "pages of other origins may not ask here"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "pages of other origins may not ask here"
        if method not in ("GET", "HEAD") and headers.get("content-type", "").split(";")[0] != "application/json":
            return 415, "JSON is needed"
        return None
