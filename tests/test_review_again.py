"""The button that trains again: in a real browser on a tiny run, and after the server was stopped meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from browser import BROWSER, browser, served
from hintseg.errors import RunError
from hintseg.files.lock import is_lent, lend
from hintseg.reviewing.again import Again, next_run
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from made import given
from review_runs import write_run
from small_runs import TINY, typed, write_squares

SETTINGS = [
    *TINY,
    *("refine=null", "segment.fit.epochs=1", "segment.fit.batch_size=4", "segment.fit.crop=64", "test.scales=[1.0]"),
    *("localize.fit.epochs=1", "localize.fit.batch_size=4", "localize.fit.crop=64", "maps.scales=[1.0]"),
    *("trainer.pictures=0",),
]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_button_trains_and_shows_before_and_after(tmp_path: Path) -> None:
    write_squares(tmp_path / "photos")
    run, second = tmp_path / "first", tmp_path / "first-2"
    done = typed("train", tmp_path / "photos", "--out", run, "--recipe", "cam", *SETTINGS)
    assert done.returncode == 0, done.stderr
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 760})
        failed: list[str] = []
        page.on("pageerror", lambda error: failed.append(str(error)))
        with served(run) as server:
            page.goto(server.address)
            page.wait_for_selector("#canvas[data-shown]")
            page.click("#train")
            page.get_by_role("button", name="Begin").click()
            expect(page.locator("#again-said")).to_contain_text("was reviewed yet", timeout=60_000)
            expect(page.locator("#again-state")).to_contain_text("stopped before it was done")
            page.keyboard.press("Escape")
            page.get_by_role("radio", name="blue").check()
            page.locator("#width").fill("20")
            page.locator("#canvas").click()
            expect(page.locator("#canvas")).to_have_attribute("data-revision", "1")
            mended = page.get_attribute("#canvas", "data-shown")
            page.get_by_role("button", name="Accept").click()
            expect(page.locator("#progress")).to_contain_text("1 of")
            page.click("#train")
            page.get_by_role("button", name="Begin").click()
            expect(page.locator("#again-state")).to_contain_text("It is training.")
            expect(page.get_by_role("button", name="Begin")).to_be_disabled()
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        with served(run) as again:  # the training went on meanwhile
            assert again.address == server.address
            now = httpx.get(f"{again.address}api/train").json()["state"]
            assert now in ("running", "done"), now
            expect(page.locator("#again-state")).to_contain_text(
                "Done. Look at it with: hintseg review", timeout=120_000
            )
            assert (second / "report.html").is_file()
            table = page.locator("#again-results")
            expect(table).to_be_visible()
            said = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
            results = [
                {f"{m.kind} ({m.split})": m.miou for m in RunFolder(one).metrics if not m.oracle}
                for one in (run, second)
            ]
            assert [row[0] for row in said] == list(results[0])
            for name, _, *shown in said:
                assert shown == [f"{100 * given(one[name]):.1f} %" for one in results]
            expect(page.locator("#again-said")).to_contain_text("pixels")
            page.keyboard.press("Escape")
            page.get_by_role("option").filter(has_text=mended).click()
            page.get_by_label("after training again").check()
            expect(page.locator("#panes figcaption").last).to_have_text("after training again")
        page.close()
        assert failed == []
    assert (read_label_png(second / "labels" / f"{mended}.png") == 2).any()


@pytest.mark.skipif(sys.platform == "win32", reason="locks are not handed on there")
def test_a_log_is_held_until_the_process_that_writes_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert not is_lent(path)
    with path.open("wb") as file:
        lend(file)
        writer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=file)
    try:
        assert is_lent(path), "whoever lent it has closed it"
    finally:
        writer.kill()
        writer.wait()
    assert not is_lent(path)


def test_a_training_that_another_server_began_is_seen(tmp_path: Path) -> None:
    run = RunFolder.open(write_run(tmp_path, 3))
    out = next_run(run.path)
    (run.path / "review").mkdir()
    (run.path / "review" / "again.json").write_text(json.dumps({"out": str(out)}))
    assert Again(run).status()["state"] == "stopped"
    (run.path / "review" / "again.json").write_text("{}")
    with pytest.raises(RunError, match=r"again\.json is damaged"):
        Again(run).out()
    (run.path / "review" / "again.json").write_text(json.dumps({"out": str(out)}))
    hold = "import sys, time; from pathlib import Path; from hintseg.files.lock import locked\n"
    hold += "with locked(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(600)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", hold, str(out)], stdout=subprocess.PIPE, env=environment) as training:
        try:
            assert training.stdout is not None
            assert training.stdout.readline() == b"held\n"
            again = Again(run)
            assert again.status()["state"] == "running"
            with pytest.raises(RunError, match="it is being trained already"):
                again.begin()
        finally:
            training.kill()
    stopped = Again(run).status()
    assert stopped["state"] == "stopped"
    assert stopped["command"] == f"hintseg train --from-review {run.path} --out {out} --resume"
