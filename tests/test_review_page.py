"""The review page in a real browser, served as the command serves it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from browser import BROWSER, Served, browser, served
from hintseg.quality.kept import _key
from hintseg.quality.review_list import review_list
from hintseg.reviewing.storage import Review
from hintseg.run.folder import RunFolder
from review_runs import finish_run, write_run

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
DRAWS = "HINTSEG_PICTURES"
"""Environment variable: where it is set, the pictures of the docs are taken anew."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path, 12, size=(120, 160))


@pytest.fixture
def page(chromium: Browser, run: Path) -> Iterator[tuple[Page, Served]]:
    """The page of a run, and who serves it. A script that fails fails the test."""
    with served(run) as server:
        context = chromium.new_context(viewport={"width": 1280, "height": 760})
        opened = context.new_page()
        failed: list[str] = []
        opened.on("pageerror", lambda error: failed.append(str(error)))
        go(opened, server.address)
        yield opened, server
        context.close()
        assert failed == []


def go(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("#canvas[data-shown]")


def shown(page: Page) -> str | None:
    return page.get_attribute("#canvas", "data-shown")


def revision(page: Page, number: int) -> None:
    expect(page.locator("#canvas")).to_have_attribute("data-revision", str(number))


def drag(page: Page, *places: tuple[float, float]) -> None:
    """Drag the mouse over the photo; places are shares of its width and height."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    scale = min(box["width"] / 160, box["height"] / 120) * 0.98
    x0, y0 = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    at = [(x0 + (x - 0.5) * 160 * scale, y0 + (y - 0.5) * 120 * scale) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def mask(run: Path, id: str) -> npt.NDArray[np.uint8]:
    review = Review(RunFolder.open(run))
    return review.mask(id, review.document(id).now)


def state(run: Path, id: str) -> str:
    return Review(RunFolder.open(run)).document(id).now.state


def test_open_filter_paint_undo_accept_reload(page: tuple[Page, Served], run: Path) -> None:
    opened, _ = page
    assert shown(opened) == "11"
    assert opened.title() == "farm: hintseg review"
    opened.select_option("#by-class", "cow")
    expect(opened.locator("#count")).to_have_text("4 of 12 photos")
    opened.get_by_role("option").filter(has_text="09").click()
    expect(opened.locator("#canvas")).to_have_attribute("data-shown", "09")
    before = mask(run, "09")
    opened.get_by_role("radio", name="sheep").check()
    drag(opened, (0.1, 0.9), (0.5, 0.9))
    revision(opened, 1)
    painted = mask(run, "09")
    assert (painted[108, 20:76] == 2).all()
    drag(opened, (0.1, 0.1), (0.5, 0.1))
    revision(opened, 2)
    opened.get_by_role("button", name="Undo").click()
    revision(opened, 3)
    assert (mask(run, "09") == painted).all()
    opened.get_by_role("button", name="Undo").click()
    revision(opened, 4)
    assert (mask(run, "09") == before).all()
    opened.get_by_role("button", name="Redo").click()
    revision(opened, 5)
    opened.get_by_role("button", name="Accept").click()
    expect(opened.locator("#canvas")).to_have_attribute("data-shown", "06")
    assert state(run, "09") == "accepted"
    opened.reload()
    opened.wait_for_selector("#canvas[data-shown]")
    expect(opened.locator("#progress")).to_have_text("1 of 12 photos decided, 1 mended")
    assert shown(opened) == "06"
    opened.select_option("#by-state", "mended")
    expect(opened.locator("#count")).to_have_text("1 of 12 photos")
    opened.locator(".row").click()
    expect(opened.locator("#caption")).to_have_text("mask, mended")
    assert (mask(run, "09") == painted).all()


def test_hints_and_filled_objects(page: tuple[Page, Served], run: Path) -> None:
    opened, _ = page
    opened.get_by_role("button", name="Eraser").click()
    opened.locator("#width").fill("120")
    for row in (0.2, 0.8):
        drag(opened, (0.02, row), (0.98, row))
    revision(opened, 2)
    assert not mask(run, "11").any()
    opened.get_by_role("radio", name="dog").check()
    opened.get_by_role("button", name="Fill object").click()
    began = time.monotonic()
    drag(opened, (0.38, 0.1), (0.92, 0.9))
    revision(opened, 3)
    assert time.monotonic() - began < 2
    filled = mask(run, "11") == 3
    truth = review_truth(run, "11") == 3
    assert (filled & truth).sum() / (filled | truth).sum() > 0.9
    opened.get_by_role("button", name="Stroke").click()
    drag(opened, (0.6, 0.5), (0.7, 0.5))
    opened.get_by_role("button", name="Point").click()
    drag(opened, (0.05, 0.05))
    revision(opened, 5)
    marks = Review(RunFolder.open(run)).document("11").now.marks
    assert [(mark.label, len(mark.points) > 2) for mark in marks] == [(3, True), (3, False)]
    assert abs(marks[1].points[0] - 8) < 1
    for box in opened.locator("#layers input, #maps input").all():
        box.check()
    names = ["mask, mended", "as the run made it", "seed", "class map: dog"]
    expect(opened.locator("#panes figcaption")).to_have_text(names)


def review_truth(run: Path, id: str) -> npt.NDArray[np.uint8]:
    from hintseg.store.masks import read_label_png

    return read_label_png(run / "truth" / f"{id}.png")


def test_two_tabs_keep_both_works(page: tuple[Page, Served], run: Path) -> None:
    one, server = page
    two = one.context.new_page()
    go(two, server.address)
    two.evaluate("BroadcastChannel.prototype.postMessage = () => {}")  # as in two browsers: they do not hear each other
    two.get_by_role("radio", name="sheep").check()
    drag(two, (0.1, 0.9), (0.4, 0.9))
    revision(two, 1)
    one.get_by_role("radio", name="cow").check()
    drag(one, (0.1, 0.1), (0.4, 0.1))
    revision(one, 2)
    both = mask(run, "11")
    assert both[108, 40] == 2
    assert both[12, 40] == 1
    one.get_by_role("radio", name="dog").check()
    drag(one, (0.1, 0.5), (0.2, 0.5))
    revision(two, 3)  # it heard of it, and shows it
    two.close()


def test_a_decision_on_what_another_tab_changed_is_asked_for_again(page: tuple[Page, Served], run: Path) -> None:
    one, server = page
    with httpx.Client(base_url=server.address) as other:
        action = {"kind": "paint", "label": 2, "points": [10, 10], "width": 9}
        assert other.post("api/act", json={"id": "11", "revision": 0, "action": action}).status_code == 200
    one.get_by_role("button", name="Accept").click()
    expect(one.locator("#status")).to_contain_text("changed elsewhere")
    revision(one, 1)
    assert state(run, "11") == "open"
    one.get_by_role("button", name="Accept").click()
    expect(one.locator("#canvas")).to_have_attribute("data-shown", "10")
    assert state(run, "11") == "accepted"


def test_a_stopped_server_loses_nothing(page: tuple[Page, Served], run: Path) -> None:
    opened, server = page
    drag(opened, (0.1, 0.9), (0.4, 0.9))
    revision(opened, 1)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    drag(opened, (0.1, 0.1), (0.4, 0.1))
    expect(opened.get_by_role("alert")).to_contain_text("Not saved: the server does not answer")
    drag(opened, (0.6, 0.1), (0.9, 0.1))
    with served(run) as again:
        assert again.address == server.address, "an open page finds it again"
        opened.get_by_role("button", name="Try again").click()
        revision(opened, 3)
        expect(opened.get_by_role("alert")).to_be_hidden()
    found = mask(run, "11")
    assert (found[[108, 12, 12], [40, 40, 120]] == 1).all()


def test_killed_while_saving_every_answered_change_is_there(run: Path) -> None:
    answered = 0
    for wait in (0.001, 0.004, 0.007):
        with served(run) as server, httpx.Client(base_url=server.address) as client:
            begun = answered
            try:
                while True:
                    if answered == begun + 5:  # it is killed at some moment of one of the next changes
                        threading.Timer(wait, server.process.send_signal, [signal.SIGKILL]).start()
                    action = {"kind": "paint", "label": 2, "points": [answered % 160, 60], "width": 3}
                    body = {"id": "11", "revision": answered, "action": action}
                    client.post("api/act", json=body).raise_for_status()
                    answered += 1
            except httpx.TransportError:
                assert answered >= begun + 5
        document = Review(RunFolder.open(run)).document("11")
        assert document.revision in (answered, answered + 1), "the last one may be saved and not answered"
        answered = document.revision
        painted = mask(run, "11")[60, : answered - 1]
        assert (painted == 2).all()


def test_by_keyboard_alone(page: tuple[Page, Served], run: Path) -> None:
    opened, _ = page
    keys = opened.keyboard
    for key in ("n", "n", "p"):
        keys.press(key)
    expect(opened.locator("#canvas")).to_have_attribute("aria-busy", "false")
    expect(opened.locator("#canvas")).to_have_attribute("data-shown", "10")
    keys.press("2")
    expect(opened.locator("#status")).to_have_text("Class: sheep")
    keys.press("d")
    expect(opened.locator("#canvas")).to_be_focused()
    for _ in range(5):
        keys.press("Shift+ArrowUp")
    keys.press("Space")
    for _ in range(3):
        keys.press("Shift+ArrowLeft")
    keys.press("Space")
    revision(opened, 1)
    assert (mask(run, "10")[10, 52:80] == 2).all()
    keys.press("f")
    keys.press("Space")
    for key in ("Shift+ArrowRight", "Shift+ArrowDown"):
        for _ in range(6):
            keys.press(key)
    keys.press("Escape")
    keys.press("t")
    keys.press("Enter")
    revision(opened, 2)
    keys.press("z")
    revision(opened, 3)
    keys.press("Shift+Z")
    revision(opened, 4)
    keys.press("r")
    expect(opened.locator("#canvas")).to_have_attribute("data-shown", "09")
    assert state(run, "10") == "rejected"
    keys.press("s")
    expect(opened.locator("#canvas")).to_have_attribute("data-shown", "08")
    assert state(run, "09") == "skipped"
    keys.press("?")
    expect(opened.get_by_role("dialog")).to_be_visible()
    keys.press("a")
    keys.press("Escape")
    expect(opened.get_by_role("dialog")).to_be_hidden()
    assert state(run, "08") == "open", "keys do nothing behind an open dialog"
    opened.locator("#rows").focus()
    keys.press("ArrowDown")
    expect(opened.locator("#canvas")).to_have_attribute("data-shown", "07")
    order = []
    opened.locator("body").press("Tab")
    for _ in range(40):
        order.append(opened.evaluate("document.activeElement.id || document.activeElement.dataset.tool || ''"))
        keys.press("Tab")
    assert {"rows", "canvas", "by-class", "train", "opacity", "fill", "reset"} <= set(order), "Tab reaches all"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: tuple[Page, Served], scheme: Any) -> None:
    opened, _ = page
    opened.emulate_media(color_scheme=scheme)
    drag(opened, (0.1, 0.9), (0.4, 0.9))
    revision(opened, 1)
    for box in opened.locator("#layers input").all():
        box.check()
    for button in ("#canvas", "#help", "#train"):
        opened.keyboard.press("Escape")
        opened.click(button)
        found = Axe().run(opened).response["violations"]
        serious = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found if one["impact"] != "minor"]
        assert serious == []


def test_light_and_dark_differ(page: tuple[Page, Served]) -> None:
    opened, _ = page
    colours = []
    schemes: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
    for scheme in schemes:
        opened.emulate_media(color_scheme=scheme)
        colours.append(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_on_a_touch_tablet(chromium: Browser, run: Path) -> None:
    with served(run) as server:
        context = chromium.new_context(viewport={"width": 820, "height": 1180}, has_touch=True)
        opened = context.new_page()
        go(opened, server.address)
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        opened.locator("#canvas").scroll_into_view_if_needed()
        box = opened.locator("#canvas").bounding_box()
        assert box is not None
        opened.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        revision(opened, 1)
        assert mask(run, "11")[60, 80] == 1
        session = context.new_cdp_session(opened)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        before = opened.locator("#canvas").screenshot()
        touch("touchStart", (x - 40, y))
        touch("touchStart", (x - 40, y), (x + 40, y))
        for step in range(1, 6):
            touch("touchMove", (x - 40 - 20 * step, y), (x + 40 + 20 * step, y))
        touch("touchEnd")
        opened.wait_for_timeout(200)
        assert opened.locator("#canvas").screenshot() != before, "two fingers zoom"
        revision(opened, 1)  # and paint nothing
        context.close()


def test_other_pages_cannot_ask(page: tuple[Page, Served], chromium: Browser, run: Path) -> None:
    _, server = page
    stranger = chromium.new_page()
    stranger.route("http://evil.example/", lambda route: route.fulfill(body="<p>hello", content_type="text/html"))
    stranger.goto("http://evil.example/")
    ask = """async (address) => {
      const body = JSON.stringify({id: "11", revision: 0, action: {kind: "accept"}});
      const said = [];
      for (const options of [{method: "POST", body}, {method: "POST", body, mode: "no-cors"}, {}, {mode: "no-cors"}])
        said.push(await fetch(address, options).then((one) => one.type + one.status, () => "refused"));
      return said;
    }"""
    found = stranger.evaluate(ask, server.address + "api/act")
    assert all(said in ("refused", "opaque0") for said in found)
    assert state(run, "11") == "open"
    stranger.close()


def test_five_thousand_photos(chromium: Browser, tmp_path: Path) -> None:
    run = many(tmp_path, 5000)
    with served(run) as server:
        opened = chromium.new_page(viewport={"width": 1280, "height": 760})
        began = time.monotonic()
        go(opened, server.address)
        took = time.monotonic() - began
        assert took < 2, f"the page took {took:.2f} s"
        expect(opened.locator("#count")).to_have_text("5000 of 5000 photos")
        assert opened.locator(".row").count() < 60
        times = []
        for _ in range(12):
            opened.wait_for_timeout(150)  # a person looks at it, if only for a moment
            times.append(
                opened.evaluate("""() => new Promise((done) => {
                  const canvas = document.getElementById("canvas"), began = performance.now();
                  new MutationObserver((_, observer) => {
                    observer.disconnect();
                    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
                  }).observe(canvas, { attributeFilter: ["data-shown"] });
                  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "n", bubbles: true }));
                })""")
            )
        assert sorted(times)[len(times) // 2] < 100, times
        opened.locator("#rows").press("End")
        expect(opened.locator(".row[aria-posinset='5000']")).to_be_visible()
        opened.close()


def many(root: Path, count: int) -> Path:
    """A run of very many photos, ten of them different, 640 x 480; its list is worked out for those ten."""
    run = write_run(root, 10, size=(480, 640))
    listed = review_list(RunFolder.open(run)).model_dump(mode="json")
    rows = {row["id"]: row for row in json.loads((run / "photos.json").read_text())}
    told, photos = [], []
    for number in range(count):
        row = listed["photos"][number % 10]
        id = f"{row['id']}-{number:04d}"
        told.append(row | {"id": id, "worth": row["worth"] / count})
        photos.append(rows[row["id"]] | {"id": id})
        for stage in ("localize", "refine"):
            os.link(run / stage / "masks" / f"{row['id']}.png", run / stage / "masks" / f"{id}.png")
    finish_run(run, root / "photos", photos)
    kept = run / "review" / "list.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps({"key": _key(RunFolder.open(run)), "found": listed | {"photos": told}}))
    return run


def test_a_port_in_use_and_a_second_server(page: tuple[Page, Served], run: Path, tmp_path: Path) -> None:
    _, server = page
    port = server.address.split(":")[2].split("/")[0]
    for folder, options, said in (
        (
            write_run(tmp_path / "other", 2),
            ["--port", port],
            f"error: port {port} cannot be used (Address already in use)",
        ),
        (run, [], "is being written to by process"),
    ):
        command = [sys.executable, "-m", "hintseg", "review", str(folder), "--no-open", *options]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_pictures_of_the_docs(chromium: Browser, tmp_path: Path) -> None:
    with served(write_run(tmp_path, 12, size=(240, 320))) as server:
        opened = chromium.new_page(viewport={"width": 1180, "height": 640})
        go(opened, server.address)
        opened.get_by_role("radio", name="dog").check()
        for name in ("as the run made it", "seed"):
            opened.get_by_label(name).check()
        drag(opened, (0.3, 0.5), (0.36, 0.42))
        opened.get_by_role("button", name="Stroke").click()
        drag(opened, (0.6, 0.6), (0.72, 0.62))
        revision(opened, 2)
        opened.wait_for_timeout(300)
        taken = {"review.png": opened.screenshot()}
        opened.emulate_media(color_scheme="dark")
        opened.click("#help")
        taken["review-dark.png"] = opened.screenshot()
        opened.close()
    for name, picture in taken.items():
        if DRAWS in os.environ:
            (PICTURES / name).write_bytes(picture)
        assert (PICTURES / name).is_file(), f"take it with {DRAWS}=1"
