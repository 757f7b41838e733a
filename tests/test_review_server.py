"""What the server of the review page answers, what it refuses, and what lies on disk then."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from starlette.testclient import TestClient

from hintseg.errors import RunError
from hintseg.quality.review_list import review_list
from hintseg.reviewing.again import Again
from hintseg.reviewing.guard import Guard
from hintseg.reviewing.schema import Action
from hintseg.reviewing.server import Server
from hintseg.reviewing.storage import KEPT_STEPS, Review, StaleError
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from review_runs import SIZE, thing, write_run

TOKEN = "a-secret"
ID = "05"


@pytest.fixture
def review(tmp_path: Path) -> Review:
    return Review(RunFolder.open(write_run(tmp_path, 6)))


@pytest.fixture
def client(review: Review) -> Iterator[TestClient]:
    app = Guard(Server(review, review_list(review.run), Again(review.run)).app(), 80, TOKEN)
    with TestClient(app, base_url=f"http://127.0.0.1:80/{TOKEN}/", headers={"host": "127.0.0.1:80"}) as opened:
        yield opened


def act(client: TestClient, revision: int, id: str = ID, **action: Any) -> Any:
    return client.post("api/act", json={"id": id, "revision": revision, "action": action})


def now(review: Review, id: str = ID) -> npt.NDArray[np.uint8]:
    return review.mask(id, review.document(id).now)


def test_what_is_drawn_is_on_disk_when_it_is_answered(client: TestClient, review: Review) -> None:
    before = now(review)
    said = act(client, 0, kind="paint", label=2, points=[10, 10, 30, 10], width=5).json()
    assert (said["revision"], said["mended"], said["undo"], said["redo"]) == (1, True, True, False)
    again = Review(review.run)  # as after a restart
    painted = now(again)
    assert (painted[10, 10:30] == 2).all()
    assert (painted[20:] == before[20:]).all()
    png = Image.open(io.BytesIO(client.get("layer", params={"id": ID, "name": "mask"}).content))
    assert (np.asarray(png) == painted).all()
    assert (np.asarray(png.convert("RGBA"))[..., 3] == 255 * (painted > 0)).all(), "background is see-through"


def test_undo_and_redo_survive_a_restart_and_a_new_change_ends_the_redo(client: TestClient, review: Review) -> None:
    first = now(review)
    act(client, 0, kind="paint", label=2, points=[10, 10], width=5)
    act(client, 1, kind="stroke", label=1, points=[1, 1, 9, 9], width=3)
    act(client, 2, kind="accept")
    again = Review(review.run)
    document = again.act(ID, 3, Action(kind="undo"))
    assert (document.now.state, len(document.now.marks)) == ("open", 1)
    document = again.act(ID, 4, Action(kind="undo"))
    assert (len(document.now.marks), document.now.mask) == (0, 1)
    document = again.act(ID, 5, Action(kind="undo"))
    assert (now(again) == first).all()
    assert again.act(ID, 6, Action(kind="undo")) == document, "there is nothing before"
    document = again.act(ID, 6, Action(kind="redo"))
    assert now(again)[10, 10] == 2
    document = again.act(ID, 7, Action(kind="click", label=3, points=(5, 5)))
    assert again.act(ID, 8, Action(kind="redo")) == document
    files = sorted(path.name for path in (review.folder / "masks" / ID).iterdir())
    assert files == ["0.png", "1.png"], "masks that no step names are gone"


def test_eraser_reset_and_fill(client: TestClient, review: Review) -> None:
    _, true = thing(5, 3)
    act(client, 0, kind="erase", points=[0, 30, 80, 30], width=200)
    assert not now(review).any()
    said = act(client, 1, kind="fill", label=3, points=[70, 55, 30, 5])
    assert said.status_code == 200
    filled = now(review)
    both, either = ((filled == 3) & (true == 3)).sum(), ((filled == 3) | (true == 3)).sum()
    assert both / either > 0.9, "GrabCut finds the disc in the box, drawn from any corner"
    act(client, 2, kind="reset")
    assert (now(review) == review.base(ID)).all()


def test_hints_drawn_in_the_box_say_what_belongs_to_the_object(client: TestClient, review: Review) -> None:
    act(client, 0, kind="erase", points=[0, 30, 80, 30], width=200)
    act(client, 1, kind="stroke", label=0, points=[42, 20, 62, 20], width=3)
    act(client, 2, kind="stroke", label=3, points=[42, 30, 62, 30], width=3)
    act(client, 3, kind="fill", label=3, points=[30, 5, 75, 55])
    filled = now(review)
    assert (filled[30, 43:61] == 3).all()
    assert not filled[20, 43:61].any()


@pytest.mark.parametrize("size", [(900, 1200), (1200, 900)])
def test_an_object_of_a_large_photo_is_found_at_its_full_size(tmp_path: Path, size: tuple[int, int]) -> None:
    review = Review(RunFolder.open(write_run(tmp_path, 2, size=size)))
    height, width = size
    true = thing(1, 2, size)[1] == 2
    review.act("01", 0, Action(kind="erase", points=(0, height / 2, width, height / 2), width=2000))
    x, y, radius = 0.65 * width, height / 2, 0.3 * height
    box = (x - 1.2 * radius, y - 1.2 * radius, min(x + 1.2 * radius, width), y + 1.2 * radius)
    review.act("01", 1, Action(kind="fill", label=2, points=box))
    filled = now(review, "01")
    assert set(np.unique(filled)) == {0, 2}
    assert ((filled == 2) & true).sum() / ((filled == 2) | true).sum() > 0.97
    review.act("01", 2, Action(kind="stroke", label=0, points=(x - 200, y, x + 200, y), width=30))
    review.act("01", 3, Action(kind="stroke", label=2, points=(x - 200, y + 150, x + 200, y + 150), width=30))
    review.act("01", 4, Action(kind="erase", points=(0, height / 2, width, height / 2), width=2000))
    document = review.act("01", 5, Action(kind="fill", label=2, points=box))
    again = now(review, "01")
    middle = slice(round(x) - 150, round(x) + 150)
    assert document.revision == 6
    assert (again[round(y) + 150, middle] == 2).all(), "the stroke of the class"
    assert not again[round(y), middle].any(), "the stroke of something else"


def test_without_background_the_eraser_brings_the_runs_mask_back(review: Review) -> None:
    review.background = False
    review.act(ID, 0, Action(kind="paint", label=1, points=(0, 30, 80, 30), width=200))
    review.act(ID, 1, Action(kind="erase", points=(0, 30, 80, 30), width=200))
    assert (now(review) == review.base(ID)).all()


def test_two_tabs_do_not_write_over_each_other(client: TestClient, review: Review) -> None:
    assert act(client, 0, kind="paint", label=2, points=[10, 10], width=5).status_code == 200
    late = act(client, 0, kind="paint", label=1, points=[40, 40], width=5)
    assert late.status_code == 409
    assert "changed elsewhere" in late.json()["error"]
    assert now(review)[10, 10] == 2
    assert act(client, 1, kind="paint", label=1, points=[40, 40], width=5).status_code == 200
    assert (now(review)[10, 10], now(review)[40, 40]) == (2, 1)
    with pytest.raises(StaleError):
        review.act(ID, 1, Action(kind="accept"))


def test_a_full_disk_loses_nothing(client: TestClient, review: Review) -> None:
    act(client, 0, kind="paint", label=2, points=[10, 10], width=5)
    before = now(review)
    with patch("pathlib.Path.replace", side_effect=OSError(28, "No space left on device")):
        full = act(client, 1, kind="paint", label=1, points=[40, 40], width=5)
    assert full.status_code == 507
    assert "No space left on device" in full.json()["error"]
    assert (now(Review(review.run)) == before).all()
    assert act(client, 1, kind="paint", label=1, points=[40, 40], width=5).status_code == 200
    assert not list(review.folder.rglob("*tmp"))


def test_a_kill_between_mask_and_document_leaves_the_change_before(review: Review) -> None:
    review.act(ID, 0, Action(kind="paint", label=2, points=(10, 10), width=5))
    before = now(review)
    with patch("hintseg.reviewing.storage.whole_file", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        review.act(ID, 1, Action(kind="paint", label=1, points=(40, 40), width=5))
    assert (now(Review(review.run)) == before).all()
    review.act(ID, 1, Action(kind="paint", label=3, points=(40, 40), width=5))
    assert now(review)[40, 40] == 3


def test_only_the_last_changes_are_kept(review: Review) -> None:
    for revision in range(KEPT_STEPS + 5):
        review.act(ID, revision, Action(kind="paint", label=2, points=(revision, 10), width=2))
    document = review.document(ID)
    assert len(document.steps) == KEPT_STEPS
    assert len(list((review.folder / "masks" / ID).iterdir())) == KEPT_STEPS + 1


def test_the_list_says_how_far_each_photo_is(client: TestClient) -> None:
    act(client, 0, kind="paint", label=2, points=[10, 10], width=5)
    act(client, 1, kind="accept")
    listed = client.get("api/list").json()
    assert listed["photos"][0]["id"] == "05"
    assert (listed["classes"], listed["colours"][1], listed["kind"]) == (
        ["cow", "sheep", "dog"],
        "#800000",
        "pseudo mask",
    )
    row = listed["photos"][0]
    assert (row["state"], row["mended"], row["revision"], row["classes"]) == ("accepted", True, 2, ["dog"])


@pytest.mark.parametrize("path", ["", "static/main.js", "api/list", "api/photo?id=05", "photo?id=05", "layer?id=05"])
def test_without_token_host_or_origin_nothing_is_said(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200
    for wrong in ("another", "", TOKEN[:-1], TOKEN + "x"):
        assert client.get(f"http://127.0.0.1:80/{wrong}/{path}").status_code == 404
    for host in ("evil.example", "127.0.0.1:81", "127.0.0.1.evil.example:80", "localhost"):
        assert client.get(path, headers={"host": host}).status_code == 400
    assert client.get(path, headers={"host": "localhost:80"}).status_code == 200
    for origin in ("http://evil.example", "null", "https://127.0.0.1:80", "http://127.0.0.1:8000"):
        assert client.get(path, headers={"origin": origin}).status_code == 403
    assert client.get(path, headers={"origin": "http://127.0.0.1:80"}).status_code == 200
    assert client.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    answer = client.get(path)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_changes_are_json_of_our_own_page(client: TestClient) -> None:
    body = {"id": ID, "revision": 0, "action": {"kind": "accept"}}
    content = json.dumps(body)
    assert client.post("api/act", content=content, headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("api/act", json=body, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("api/act").status_code == 405
    assert client.post("api/act", content="{", headers={"content-type": "application/json"}).status_code == 422
    assert client.post("api/act", content="[" * 10**5, headers={"content-type": "application/json"}).status_code == 422
    assert (
        client.post("api/act", content=" " * (2 << 20), headers={"content-type": "application/json"}).status_code == 413
    )
    assert client.get("api/photo", params={"id": ID}).json()["revision"] == 0


@pytest.mark.parametrize(
    "id", ["../../photos/05", "../truth/05", "/etc/passwd", "05/../05", "", "%2e%2e/05", "nobody", "05\0"]
)
@pytest.mark.parametrize("path", ["photo", "layer", "api/photo"])
def test_no_file_outside_of_the_runs_photos(client: TestClient, path: str, id: str) -> None:
    assert client.get(path, params={"id": id}).status_code in (404, 507)
    assert act(client, 0, id=id, kind="accept").status_code == 507


@pytest.mark.parametrize("name", ["../server.py", "%2e%2e/server.py", "..%2fserver.py", "/etc/passwd", "nothing.js"])
def test_no_file_outside_of_the_page(client: TestClient, name: str) -> None:
    assert client.get(f"http://127.0.0.1:80/{TOKEN}/static/{name}").status_code == 404


@pytest.mark.parametrize("name", ["map:nothing", "map:cow", "../seed", "other"])
def test_layers_that_are_not_there(client: TestClient, name: str) -> None:
    assert client.get("layer", params={"id": ID, "name": name}).status_code == 404


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "paint"},
        {"kind": "paint", "label": 2, "points": [1, 2, 3]},
        {"kind": "paint", "label": 4, "points": [1, 2]},
        {"kind": "paint", "label": 2, "points": [1, float("inf")]},
        {"kind": "paint", "label": 2, "points": [1, 2], "width": 0},
        {"kind": "fill", "label": 2, "points": [1, 2]},
        {"kind": "fill", "label": 2, "points": [1, 2, 1.5, 2]},
        {"kind": "explode"},
        {"kind": "accept", "more": 1},
    ],
)
def test_actions_that_do_not_fit_are_refused(client: TestClient, review: Review, action: dict[str, Any]) -> None:
    body = json.dumps({"id": ID, "revision": 0, "action": action})
    assert client.post("api/act", content=body, headers={"content-type": "application/json"}).status_code == 422
    assert not (review.folder / "photos").exists()


def test_photos_that_moved_or_changed_since_are_said_and_kept(
    client: TestClient, review: Review, tmp_path: Path
) -> None:
    act(client, 0, kind="paint", label=2, points=[10, 10], width=5)
    path = tmp_path / "photos" / "05.png"
    aside = path.rename(tmp_path / "aside.png")
    gone = client.get("api/photo", params={"id": ID})
    assert gone.status_code == 410
    assert "cannot be opened" in gone.json()["error"]
    assert client.get("photo", params={"id": ID}).status_code == 410
    Image.new("RGB", (SIZE[1], SIZE[0])).save(path)
    assert "changed since it was reviewed" in client.get("api/photo", params={"id": ID}).json()["error"]
    assert act(client, 1, kind="accept").status_code == 410
    shutil.move(aside, path)
    assert client.get("api/photo", params={"id": ID}).json()["revision"] == 1
    Image.new("RGB", (5, 5)).save(tmp_path / "photos" / "04.png")
    other = client.get("api/photo", params={"id": "04"})
    assert "is 5 x 5 pixels and its mask 80 x 60" in other.json()["error"]


def test_a_damaged_document_is_said(review: Review) -> None:
    review.act(ID, 0, Action(kind="accept"))
    path = review.folder / "photos" / f"{ID}.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunError, match=r"05\.json"):
        Review(review.run).document(ID)


def test_photos_come_upright_and_as_browsers_show_them(client: TestClient, review: Review, tmp_path: Path) -> None:
    plain = client.get("photo", params={"id": ID})
    assert plain.headers["content-type"] == "image/png"
    assert plain.content == (tmp_path / "photos" / "05.png").read_bytes()
    deep = tmp_path / "photos" / "04.png"
    Image.fromarray(np.full(SIZE, 30_000, np.uint16)).save(deep)
    assert client.get("photo", params={"id": "04"}).headers["content-type"] == "image/jpeg"


def test_the_report_leads_to_the_page(client: TestClient, review: Review) -> None:
    assert client.get("report").status_code == 404
    (review.run.path / "report.html").write_text('<body><span data-photo="herd/00">herd/00</span><i>x</i>')
    page = client.get("report")
    assert '<a href="./#photo=herd%2F00">herd/00</a>' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_the_runs_masks_are_never_touched(client: TestClient, review: Review) -> None:
    path = review.run.mask_path("refine", ID)
    before = read_label_png(path)
    act(client, 0, kind="paint", label=2, points=[10, 10], width=50)
    assert (read_label_png(path) == before).all()
