"""What the page asks for, and the answers: JSON, pictures, and the files of the page itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hintseg.errors import HintsegError, PhotoError, RunError, ShapeError
from hintseg.quality.review_list import DoubtRow, ReviewList
from hintseg.quality.voices import Voice, judged, voices
from hintseg.reviewing.again import Again
from hintseg.reviewing.layers import colours, heat_png, mask_png, photo_for_browser
from hintseg.reviewing.linked import linked_report
from hintseg.reviewing.schema import Action, Document
from hintseg.reviewing.storage import Review, StaleError, Standing, standing
from hintseg.run.folder import RunFolder
from hintseg.run.schema import MASK_KINDS, MetricRow
from hintseg.store.maps import read_maps
from hintseg.store.masks import read_label_png

MOST_BYTES = 1 << 20
"""The most bytes of a request: a stroke of 10,000 points has a quarter of it."""

BEFORE, AFTER = "before training again", "after training again"
"""Layers of the masks of the run that this one began with, and of the one that was trained from this review."""

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Server:
    """The answers for one run.

    Args:
        review: Its review.
        found: Its review list.
        again: Trains again.
    """

    def __init__(self, review: Review, found: ReviewList, again: Again) -> None:
        self.review, self.found, self.again = review, found, again
        self.run = review.run
        self.rows: dict[str, DoubtRow] = {row.id: row for row in found.photos}
        self.standings = review.standings()
        self.voices = voices(self.run, judged(self.run))
        if (before := _before(self.run)) is not None:
            self.voices.append(Voice(BEFORE, before))
        self._lock = Lock()

    def app(self) -> Starlette:
        """Return the application, to be put behind a `Guard`."""
        names = {path.name: path for path in files("hintseg.reviewing").joinpath("static").iterdir()}

        def page(request: Request) -> Response:
            name = request.path_params.get("name", "index.html")
            if name not in names:
                raise HTTPException(404, "no such file")
            suffix = Path(name).suffix
            return Response(names[name].read_bytes(), media_type=_TYPES[suffix], headers={"cache-control": "no-cache"})

        return Starlette(
            routes=[
                Route("/", page),
                Route("/static/{name}", page),
                Route("/report", self._answer(self.report)),
                Route("/api/list", self._answer(self.list)),
                Route("/api/photo", self._answer(self.photo)),
                Route("/api/act", self.act, methods=["POST"]),
                Route("/api/train", self.train, methods=["POST"]),
                Route("/api/train", self._answer(lambda request: JSONResponse(self.again.status()))),
                Route("/photo", self._answer(self.picture)),
                Route("/layer", self._answer(self.layer)),
            ],
            exception_handlers={HintsegError: _told, HTTPException: _told_http},
        )

    def _answer(self, function: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """Return a function that Starlette runs on a thread."""

        def answer(request: Request) -> Response:
            return function(request)

        return answer

    def list(self, request: Request) -> Response:
        """Return the run, its classes, and its photos, the first to mend first."""
        standings, blank = self.standings, Standing()
        photos = [
            {
                "id": row.id,
                "worth": row.worth,
                "doubt": row.doubt,
                "classes": sorted({*row.classes, *row.missing} - {"background"}),
                "why": row.why,
                **standings.get(row.id, blank)._asdict(),
            }
            for row in self.found.photos
        ]
        return JSONResponse(
            {
                "run": str(self.run.path),
                "name": self.run.data.name,
                "kind": MASK_KINDS[self.found.stage],
                "classes": self.run.classes,
                "background": self.run.background,
                "colours": colours(len(self.run.classes)),
                "photos": photos,
                "results": [result(row) for row in self.run.metrics if not row.oracle],
                "report": (self.run.path / "report.html").is_file(),
            }
        )

    def photo(self, request: Request) -> Response:
        """Return how a photo stands."""
        id = request.query_params.get("id", "")
        return JSONResponse(self._shown(id, self.review.document(id)))

    def _shown(self, id: str, document: Document) -> dict[str, Any]:
        row = self.rows.get(id)
        layers = [voice.name for voice in self.voices if (voice.folder / f"{id}.png").is_file()]
        after = self.again.masks()
        if after is not None and (after / f"{id}.png").is_file():
            layers.append(AFTER)
        maps = self._maps(id)
        return {
            "id": id,
            "size": document.size,
            "undo": document.at > 0,
            "redo": document.at + 1 < len(document.steps),
            **standing(document)._asdict(),
            "drawn": [mark.model_dump() for mark in document.now.marks],
            "layers": layers,
            "trained": "" if after is None else str(after),
            "maps": [] if maps is None else [self.run.classes[label - 1] for label in read_maps(maps)[0]],
            "why": () if row is None else row.why,
            "objects": [] if row is None else [one.model_dump() for one in row.objects],
        }

    def _maps(self, id: str) -> Path | None:
        return self.run.maps_path(id, ("localize", "segment")) if id in self.review.photos else None

    async def act(self, request: Request) -> Response:
        """Change a photo, and return how it stands then."""
        given = await _body(request)
        try:
            id, revision, action = given["id"], given["revision"], Action.model_validate(given["action"])
        except ValidationError as error:
            raise HTTPException(422, error.errors(include_url=False)[0]["msg"]) from error
        except (KeyError, TypeError) as error:
            raise HTTPException(422, "an id, a revision and an action are needed") from error
        if not isinstance(id, str) or not isinstance(revision, int):
            raise HTTPException(422, "an id is text and a revision a number")
        document = await run_in_threadpool(self.review.act, id, revision, action)
        with self._lock:
            self.standings = self.standings | {id: standing(document)}
        return JSONResponse(await run_in_threadpool(self._shown, id, document))

    async def train(self, request: Request) -> Response:
        """Begin to train again."""
        await _body(request)
        return JSONResponse(await run_in_threadpool(self.again.begin))

    def picture(self, request: Request) -> Response:
        """Return a photo."""
        row = self._known(request)
        content, kind = photo_for_browser(self.review.photos[row].path)
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=60"})

    def layer(self, request: Request) -> Response:
        """Return a mask or class map of a photo as see-through PNG."""
        id, name = self._known(request), request.query_params.get("name", "mask")
        if name == "mask":
            content = mask_png(self.review.mask(id, self.review.document(id).now), background=self.run.background)
        elif name.startswith("map:"):
            content = self._heat(id, name.removeprefix("map:"))
        else:
            content = mask_png(self._voice(id, name), background=self.run.background)
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=3600"})

    def _voice(self, id: str, name: str) -> npt.NDArray[np.uint8]:
        voice = next((voice for voice in self.voices if voice.name == name), None)
        if name == "run":
            return self.review.base(id)
        if name == AFTER and (after := self.again.masks()) is not None:
            return read_label_png(after / f"{id}.png")
        if voice is None:
            raise HTTPException(404, "no such layer")
        return read_label_png(voice.folder / f"{id}.png")

    def _heat(self, id: str, name: str) -> bytes:
        path = self._maps(id)
        if path is None or name not in self.run.classes:
            raise HTTPException(404, "no such class map")
        label = self.run.classes.index(name) + 1
        class_ids, maps = read_maps(path)
        if label not in class_ids:
            raise HTTPException(404, "the photo has no map of that class")
        return heat_png(maps[class_ids.tolist().index(label)], label)

    def report(self, request: Request) -> Response:
        """Return the run's report, with links to the photos here."""
        path = self.run.path / "report.html"
        if not path.is_file():
            raise HTTPException(404, "the run has no report")
        page = linked_report(path.read_text("utf-8"), self.review.photos)
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return HTMLResponse(page, headers={"content-security-policy": policy})

    def _known(self, request: Request) -> str:
        id = request.query_params.get("id", "")
        if id not in self.review.photos:
            raise HTTPException(404, "the run has no mask of such a photo")
        return id


def result(row: MetricRow) -> dict[str, Any]:
    """Return what the page shows of a result."""
    return {"kind": row.kind, "split": row.split, "photos": row.photos, "miou": row.miou}


def _before(run: RunFolder) -> Path | None:
    """Return the masks of the run that this one began with."""
    start = run.seen.start
    if start is None or not (start / "manifest.json").is_file():
        return None
    made = RunFolder(start).masks_of_photos()
    return None if made is None else made.folder


async def _body(request: Request) -> Any:
    """Return the JSON of a request that is not too large."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise HTTPException(413, "too much at once; lift the pen more often")
    try:
        return json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, "no JSON") from error


def _told(request: Request, error: Exception) -> Response:
    """Answer with the sentence of an error."""
    status = 500
    for kind, number in ((StaleError, 409), (PhotoError, 410), (ShapeError, 422), (RunError, 507)):
        if isinstance(error, kind):
            status = number
            break
    return JSONResponse({"error": str(error)}, status)


def _told_http(request: Request, error: Exception) -> Response:
    status, why = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    return JSONResponse({"error": why}, status)
