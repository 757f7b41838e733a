"""Nobody's files are touched: folders of ours have a mark, and in it the list of what we wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor, nn

import hintseg
from hintseg.errors import HintsegError, RunError
from hintseg.exporting import export_onnx
from hintseg.files.atomic import whole_file
from hintseg.files.lock import LOCK, locked
from hintseg.files.owned import MARK, OwnedFolder, adding, kind_of, mark, owned, refuse_inputs


def write(path: Path, text: str = "ours") -> None:
    with whole_file(path) as file:
        file.write(text.encode())


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.name != MARK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of ours with three files of ours and two of somebody else."""
    with owned(tmp_path / "out", "masks"):
        for name in ("a.txt", "sub/b.txt", "sub/deep/c.txt"):
            write(tmp_path / "out" / name)
    for name in ("thesis.txt", "sub/notes.txt"):
        (tmp_path / "out" / name).write_text("theirs")
    return tmp_path / "out"


def test_clearing_deletes_the_list_and_nothing_else(folder: Path) -> None:
    OwnedFolder(folder).clear()
    assert tree(folder) == ["sub", "sub/notes.txt", "thesis.txt"]
    assert kind_of(folder) == "masks"
    assert not OwnedFolder(folder).hashes


def test_the_list_survives_a_kill_at_any_byte(folder: Path) -> None:
    whole = (folder / MARK).read_bytes()
    for length in range(len(whole.splitlines()[0]), len(whole)):
        (folder / MARK).write_bytes(whole[:length])
        known = len(OwnedFolder(folder).hashes)
        with owned(folder, "masks"):
            write(folder / "later.txt")
        assert len(OwnedFolder(folder).hashes) == known + 1
        (folder / "later.txt").unlink()


def test_a_file_of_somebody_else_is_never_replaced(folder: Path) -> None:
    with owned(folder, "masks"):
        write(folder / "a.txt", "new")
        with pytest.raises(RunError, match=r"thesis\.txt is there and hintseg did not write it; move it away"):
            write(folder / "thesis.txt")
    assert (folder / "a.txt").read_text() == "new"
    assert (folder / "thesis.txt").read_text() == "theirs"
    assert not list(folder.rglob("*.hintseg-tmp"))


def test_changed_files_are_known_and_unchanged_ones_too(folder: Path) -> None:
    assert OwnedFolder(folder).changed() == []
    (folder / "sub" / "b.txt").write_text("mended by hand")
    os.utime(folder / "a.txt", (0, 0))  # copied or touched is not changed
    assert OwnedFolder(folder).changed() == ["sub/b.txt"]


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside.txt", "sub/../../outside.txt"])
def test_an_edited_list_reaches_nothing_outside(folder: Path, name: str) -> None:
    outside = folder.parent / "outside.txt"
    outside.write_text("theirs")
    with (folder / MARK).open("a") as file:
        file.write("\n" + json.dumps([name, ""]))
    OwnedFolder(folder).clear()
    assert outside.read_text() == "theirs"


def test_links_that_lead_elsewhere_are_not_followed(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / "sub", elsewhere)
    shutil.rmtree(folder / "sub")
    (folder / "sub").symlink_to(elsewhere)
    OwnedFolder(folder).clear()
    assert (elsewhere / "b.txt").is_file()


def test_folders_without_a_mark_or_with_another_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"photo")
    with pytest.raises(RunError, match="holds files that hintseg did not write there; choose another --out"):
        owned(tmp_path / "photos", "masks").__enter__()
    assert tree(tmp_path) == ["photos", "photos/a.jpg"]
    (tmp_path / "run").mkdir()
    mark(tmp_path / "run", "run")
    with pytest.raises(RunError, match="is a folder of a run, not of masks"):
        owned(tmp_path / "run", "masks").__enter__()
    with pytest.raises(RunError, match="is a file"):
        owned(tmp_path / "photos" / "a.jpg", "masks").__enter__()


def test_a_damaged_mark_is_no_mark(folder: Path) -> None:
    (folder / MARK).write_text("{")
    with pytest.raises(RunError, match="did not write there"):
        owned(folder, "masks").__enter__()
    assert (folder / "a.txt").is_file()


def test_a_folder_in_a_folder_is_cleared_by_its_own_list(tmp_path: Path) -> None:
    outer, inner = tmp_path / "out", tmp_path / "out" / "run"
    with owned(outer, "masks"):
        write(outer / "a.txt")
        with owned(inner, "run"):
            write(inner / "b.txt")
    with adding(inner):
        write(inner / "report.html")
    (inner / "notes.txt").write_text("theirs")
    OwnedFolder(outer).clear(inner=False)
    assert tree(outer) == ["run", "run/b.txt", "run/notes.txt", "run/report.html"]
    OwnedFolder(outer).clear()
    assert tree(outer) == ["run", "run/notes.txt"]


def test_nothing_is_left_where_nothing_came_of_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), owned(tmp_path / "out", "run"):
        raise ValueError("no")
    assert tree(tmp_path) == []


def test_what_a_kill_left_half_written_goes_with_the_next_writer(folder: Path) -> None:
    (folder / "sub" / ".0123456789abcdef.hintseg-tmp").write_text("half")
    with owned(folder, "masks"):
        pass
    assert not list(folder.rglob("*.hintseg-tmp"))


def test_inputs_in_a_folder_to_be_cleared_are_refused(tmp_path: Path) -> None:
    refuse_inputs(tmp_path / "out", [tmp_path, tmp_path / "outside", tmp_path / "photos"])
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "out" / "a.jpg", tmp_path / "link" / "deep" / "w.pth"):
        with pytest.raises(RunError, match="which is read, lies in"):
            refuse_inputs(tmp_path / "out", [path])


HOLD = """
import sys, time
from pathlib import Path
from hintseg.files.lock import locked
from hintseg.files.owned import owned
try:
    with owned(Path(sys.argv[1]), "run"):
        with locked(Path(sys.argv[1])):
            pass
except Exception:
    pass
with owned(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_crash_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"written to by process {holder.pid} on .*; wait for it or stop it"):
            locked(tmp_path).__enter__()
        holder.kill()
        holder.wait()
    assert (tmp_path / LOCK).is_file()  # the file stays; the lock does not
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_forked_workers_of_a_killed_process_hold_no_lock(tmp_path: Path) -> None:
    script = HOLD.replace("time.sleep(60)", "import os\n    if os.fork() == 0: time.sleep(30)\n    time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        holder.wait()
        with locked(tmp_path):
            pass


FILLED = ["propose.method=filled", "trainer.pictures=1"]


def boxes_run(data: Path, out: Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    settings = [*FILLED, "segment=null"]
    return hintseg.train(data, out, recipe="boxes", settings=settings, resume=resume, overwrite=overwrite).path


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxes_run(shapes, tmp_path_factory.mktemp("owned-run") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run that a test may do with as it likes."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_overwrite_removes_what_we_wrote_and_nothing_else(run: Path, shapes: Path) -> None:
    hintseg.masks(run)
    (run / "notes.txt").write_text("theirs")
    (run / "propose" / "masks" / "mine.png").write_bytes(b"theirs")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in (MARK, "history.csv")}
    boxes_run(shapes, run, overwrite=True)
    assert (run / "notes.txt").read_text() == "theirs"
    assert (run / "propose" / "masks" / "mine.png").read_bytes() == b"theirs"
    assert not (run / "masks").exists()  # those masks were of the run before
    made_anew = {p: b for p, b in before.items() if run / "masks" not in p.parents and p.suffix != ".html"}
    assert all(p.read_bytes() == b for p, b in made_anew.items())


def test_a_run_that_was_killed_while_it_began_is_begun_again(run: Path, shapes: Path) -> None:
    for options in ({}, {"resume": True}, {"overwrite": True}):
        (run / "config.yaml").unlink()
        shutil.rmtree(run / "propose")
        boxes_run(shapes, run, **options)
        assert hintseg.load(run).metrics


def test_a_run_whose_settings_are_gone_is_not_begun_anew_unasked(run: Path, shapes: Path) -> None:
    (run / "config.yaml").unlink()
    before = tree(run)
    for options in ({}, {"resume": True}):
        with pytest.raises(RunError, match=r"config\.yaml is missing, but the folder holds what stages made"):
            boxes_run(shapes, run, **options)
    with pytest.raises(RunError, match=r"config\.yaml is missing; restore it"):
        hintseg.masks(run)
    assert tree(run) == before
    boxes_run(shapes, run, overwrite=True)


def test_a_link_inside_never_leads_us_to_files_of_others(run: Path, shapes: Path, tmp_path: Path) -> None:
    hintseg.masks(run)
    (run / "masks").rename(tmp_path / "kept")
    (run / "masks").symlink_to(tmp_path / "kept")
    mended = sorted((tmp_path / "kept" / "png").glob("*.png"))[0]
    mended.write_bytes(b"mended")
    boxes_run(shapes, run, overwrite=True)
    assert mended.read_bytes() == b"mended"
    shutil.rmtree(run / "propose")
    (tmp_path / "theirs" / "masks").mkdir(parents=True)
    (tmp_path / "theirs" / "masks" / "train_0000.png").write_bytes(b"theirs")
    (run / "propose").symlink_to(tmp_path / "theirs")
    with pytest.raises(RunError, match=r"leads out of .* by a link"):
        boxes_run(shapes, run, overwrite=True)
    assert (tmp_path / "theirs" / "masks" / "train_0000.png").read_bytes() == b"theirs"


BROKEN_LINES = ['["./", ""]', '["a\\u0000/b", ""]', f'["{"x" * 300}", ""]', f'["{"a/" * 3000}b", ""]', "[" * 9000]


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_an_edited_mark_is_read_as_far_as_it_makes_sense(folder: Path, line: str) -> None:
    with (folder / MARK).open("a") as file:
        file.write("\n" + line)
    OwnedFolder(folder).clear()
    assert tree(folder) == ["sub", "sub/notes.txt", "thesis.txt"]


def test_marks_and_locks_of_somebody_else_are_left_alone(run: Path, shapes: Path, tmp_path: Path) -> None:
    for name in (MARK, LOCK):
        out = tmp_path / name.strip(".")
        out.mkdir()
        (out / name).write_text("my notes")
        with pytest.raises(RunError, match="did not write"):
            boxes_run(shapes, out)
        assert (out / name).read_text() == "my notes"
    (tmp_path / "precious").write_text("precious")
    (run / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match="is in the way"):
        boxes_run(shapes, run, resume=True)
    assert (tmp_path / "precious").read_text() == "precious"


def test_masks_do_not_go_where_the_run_keeps_its_own(run: Path) -> None:
    with pytest.raises(RunError, match="where the run keeps what it makes"):
        hintseg.masks(run, run / "refine")


def test_overwrite_refuses_while_an_input_lies_in_the_folder(run: Path, shapes: Path) -> None:
    inside = run / "data"
    shutil.copytree(shapes, inside)
    for data, settings in ((inside, []), (shapes, ["backbone.weights=" + str(run / "w.safetensors")])):
        with pytest.raises(RunError, match="which is read, lies in"):
            hintseg.train(data, run, recipe="boxes", settings=[*FILLED, *settings], overwrite=True)
    assert hintseg.load(run).metrics


def test_masks_that_were_mended_by_hand_are_not_replaced_unasked(run: Path, tmp_path: Path) -> None:
    out = hintseg.masks(run, tmp_path / "masks")
    assert hintseg.masks(run, out) == out
    mended = sorted((out / "png").glob("*.png"))[0]
    mended.write_bytes(b"mended")
    with pytest.raises(RunError, match=r"1 files in .* were changed after hintseg wrote them, such as png/"):
        hintseg.masks(run, out)
    assert mended.read_bytes() == b"mended"
    hintseg.masks(run, out, overwrite=True)
    assert mended.read_bytes() != b"mended"


def test_masks_from_boxes_keep_their_run_and_foreign_files(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    hintseg.masks_from("boxes", shapes, out, settings=FILLED)
    with pytest.raises(RunError, match=r"holds the masks of the run .*run; name that"):
        hintseg.load(out)
    (out / "run" / "notes.txt").write_text("theirs")
    (out / "png" / "mine.png").write_bytes(b"theirs")
    hintseg.masks_from("boxes", shapes, out, settings=FILLED, resume=True)
    hintseg.masks_from("boxes", shapes, out, settings=FILLED, overwrite=True)
    assert (out / "run" / "notes.txt").read_text() == "theirs"
    assert (out / "png" / "mine.png").read_bytes() == b"theirs"
    assert "mine" not in (out / "coco.json").read_text()


def test_a_second_run_in_a_folder_is_refused(run: Path, shapes: Path) -> None:
    with locked(run):
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(RunError, match="is being written to by process"):
                boxes_run(shapes, run, **options)


def test_demo_never_takes_photos_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "demo-photos").mkdir()
    (tmp_path / "demo-photos" / "classes.txt").write_text("theirs")
    with pytest.raises(RunError, match="is not empty; delete it or name another folder"):
        hintseg.demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("theirs")
    with pytest.raises(RunError, match="did not write there"):
        hintseg.demo(tmp_path / "full")
    assert tree(tmp_path) == ["demo-photos", "demo-photos/classes.txt", "full", "full/thesis.txt"]


class Same(nn.Module):
    def segment(self, images: Tensor) -> Tensor:
        return images


def test_an_exported_file_of_somebody_else_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"theirs")
    with pytest.raises(HintsegError):
        hintseg.export(run, tmp_path / "model.onnx")
    with pytest.raises(RunError, match="hintseg did not write it"):
        export_onnx(Same(), tmp_path / "model.onnx", size=(32, 32), classes=(), background=True)
    assert (tmp_path / "model.onnx").read_bytes() == b"theirs"


def test_what_is_renewed_stays_until_something_new_is_there(folder: Path) -> None:
    before = tree(folder)

    def fail() -> None:
        with owned(folder, "masks") as ours:
            ours.renew()
            with whole_file(folder / "a.txt"):
                raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert tree(folder) == before
    assert kind_of(folder) == "masks"
    with owned(folder, "masks") as ours:
        ours.renew()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, [folder / f"sub/{i % 8}/new {i}.txt" for i in range(40)]))
    new = [f"sub/{i % 8}/new {i}.txt" for i in range(40)]
    assert tree(folder) == sorted(["thesis.txt", "sub", "sub/notes.txt", *(f"sub/{i}" for i in range(8)), *new])
    with owned(folder, "masks") as ours:  # the same files again, and one of somebody else in the way of the first
        ours.renew()
        (folder / "mine.txt").write_text("theirs")
        with pytest.raises(RunError, match="hintseg did not write it"):
            write(folder / "mine.txt")
        assert all((folder / name).is_file() for name in new)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, [folder / name for name in new[:20]]))
    assert {name for name in tree(folder) if "new" in name} == set(new[:20])
    with pytest.raises(RunError, match="is a folder of masks, not of labels"), owned(folder, "labels"):
        pass


def test_commands_that_come_to_nothing_lose_nothing(run: Path, shapes: Path, tmp_path: Path) -> None:
    """What was there before goes only as something takes its place, or once nothing can go wrong any more."""
    converted = tmp_path / "labels"
    hintseg.convert(shapes, converted, to="coco")
    tagged = tmp_path / "tagged"
    shutil.copytree(shapes / "JPEGImages", tagged)
    (tagged / "tags.csv").write_text("".join(f"{path.name},disc\n" for path in sorted(tagged.glob("*.png"))))
    tries: list[tuple[Path, Callable[[], object]]] = [
        (converted, lambda: hintseg.convert(tagged, converted, to="voc", overwrite=True)),
        (converted, lambda: hintseg.simulate(tagged, converted, hints="points", overwrite=True)),
    ]
    for words in ("weights=typo.safetensors", "name=no_such_network"):
        settings = [*FILLED, "backbone.name=resnet10t", f"backbone.{words}"]
        tries.append((run, partial(hintseg.train, shapes, run, recipe="boxes", settings=settings, overwrite=True)))
    for place, command in tries:
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        with pytest.raises(HintsegError):
            command()
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_masks_that_were_mended_in_a_run_are_not_made_again_unasked(run: Path, shapes: Path) -> None:
    mended = sorted((run / "propose" / "masks").glob("*.png"))[0]
    shutil.copy(sorted((run / "propose" / "masks").glob("*.png"))[1], mended)
    painted = mended.read_bytes()
    settings = ["propose.method=grabcut", "trainer.pictures=1", "segment=null"]
    with pytest.raises(RunError, match=r"nothing of .* would stay|1 masks in .* were changed by hand"):
        hintseg.train(shapes, run, recipe="boxes", settings=settings, resume=True)
    assert mended.read_bytes() == painted


def test_equal_runs_have_equal_files(shapes: Path, tmp_path: Path) -> None:
    runs = [boxes_run(shapes, tmp_path / name) for name in ("a", "b")]
    files = [{p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in runs]
    assert files[0].keys() == files[1].keys()
    differing = {str(name) for name in files[0] if files[0][name] != files[1][name]}
    assert differing <= {"history.csv", "report.html", MARK}
