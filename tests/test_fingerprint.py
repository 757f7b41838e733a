"""--resume with other settings makes again what they touch, says which and why, and keeps the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import hintseg
from hintseg.config.loader import load_config
from hintseg.data.shapes import write_shapes
from hintseg.errors import RunError
from hintseg.run.fingerprint import broken, parts
from hintseg.run.folder import RunFolder
from hintseg.training.watch import Watch

QUICK = [
    "backbone.name=resnet10t",
    "backbone.weights=random",
    "localize.fit.epochs=1",
    "refine.fit.epochs=1",
    "segment.fit.epochs=1",
    "localize.fit.crop=48",
    "refine.fit.crop=48",
    "segment.fit.crop=48",
    "maps.scales=[1.0]",
    "test.scales=[1.0]",
    "trainer.workers=0",
    "trainer.accelerator=cpu",
    "trainer.pictures=0",
]


class Lines(Watch):
    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        self.said.append(text)

    @property
    def again(self) -> list[str]:
        return [text for text in self.said if "made again" in text]


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fingerprint-run") / "run"
    hintseg.train(shapes, out, recipe="vwe", settings=QUICK)
    return out


def files(run: Path, *patterns: str) -> dict[str, tuple[int, bytes]]:
    found = [path for pattern in patterns for path in run.glob(pattern) if path.is_file()]
    return {path.relative_to(run).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def resumed(
    finished: Path, shapes: Path, tmp_path: Path, *settings: str
) -> tuple[Path, Lines, dict[str, tuple[int, bytes]]]:
    run, lines = tmp_path / "run", Lines()
    shutil.copytree(finished, run)
    before = files(run, "*/model.safetensors", "*/maps/*", "*/masks/*")
    hintseg.train(shapes, run, recipe="vwe", settings=[*QUICK, *settings], resume=True, watch=lines)
    folder = RunFolder.open(run)
    assert all(folder.done(stage) for stage in ("localize", "refine", "segment"))
    return run, lines, before


def test_how_a_segmenter_is_tested_never_trains_anything_again(finished: Path, shapes: Path, tmp_path: Path) -> None:
    run, lines, before = resumed(finished, shapes, tmp_path, "test.flip=false")
    assert lines.again == ["segment is made again from its masks on, its maps stay: test.flip was True, is False"]
    after = files(run, "*/model.safetensors", "*/maps/*", "*/masks/*")
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert all(name.startswith("segment/masks/") for name in changed)
    assert sum(row["stage"] == "segment" for row in hintseg.load(run).metrics) == 1


def test_a_walk_setting_keeps_the_refiner_and_renews_what_learned_from_its_masks(
    finished: Path, shapes: Path, tmp_path: Path
) -> None:
    run, lines, before = resumed(finished, shapes, tmp_path, "refine.beta=3.0")
    assert [text.split(":")[0] for text in lines.again] == [
        "refine is made again from its maps on, its network stays",
        "segment is made again",
    ]
    after = files(run, "*/model.safetensors", "*/maps/*", "*/masks/*")
    kept = {name for name in before if before[name] == after[name]}
    assert {"localize/model.safetensors", "refine/model.safetensors"} <= kept
    assert {name for name in before if name.startswith("localize/")} <= kept
    assert any(before[name][1] != after[name][1] for name in before if name.startswith("refine/maps/"))


def test_a_run_made_again_in_part_equals_one_made_at_once(finished: Path, shapes: Path, tmp_path: Path) -> None:
    run, _, _ = resumed(finished, shapes, tmp_path, "maps.area=0.2", "refine.beta=3.0")
    whole = hintseg.train(
        shapes, tmp_path / "whole", recipe="vwe", settings=[*QUICK, "maps.area=0.2", "refine.beta=3.0"]
    )
    one, other = ({name: content for name, (_, content) in files(r, "**/*").items()} for r in (run, whole.path))
    differing = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    assert {name for name in differing if not name.endswith((".hintseg", "history.csv", "report.html"))} == set()


def test_the_same_settings_make_nothing_again(finished: Path, shapes: Path, tmp_path: Path) -> None:
    run, lines, before = resumed(finished, shapes, tmp_path)
    assert lines.again == []
    assert files(run, "*/model.safetensors", "*/maps/*", "*/masks/*") == before


def test_other_labels_and_left_out_stages_are_refused(finished: Path, shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    with pytest.raises(RunError, match="has finished refine, which the settings leave out"):
        hintseg.train(shapes, run, recipe="vwe", settings=[*QUICK, "refine=null"], resume=True)
    other = tmp_path / "other"
    write_shapes(other, train=8, val=2, size=48, seed=1)
    with pytest.raises(RunError, match="photos or labels are not those"):
        hintseg.train(other, run, recipe="vwe", settings=QUICK, resume=True)


@pytest.mark.parametrize(
    "recipe", ["cam", "vwe", "full", "bmp", "afa", "boxes", "mctformer", "csd_irn", "csd_mct", "demo"]
)
def test_every_setting_of_every_recipe_belongs_to_a_part(recipe: str) -> None:
    """A setting that no part depends on would be changed in silence."""
    config = load_config(recipe, data={"path": "photos"})
    known = {key for part in parts(config) for key in part.settings}
    for stage in ("propose", "localize", "refine", "segment", "maps", "test", "csd"):
        block = getattr(config, stage)
        for name in () if block is None else type(block).model_fields:
            unused = stage in ("maps", "csd") and config.localize is None and recipe not in ("bmp", "afa")
            unused |= stage == "test" and config.segment is None
            assert unused or any(key == f"{stage}.{name}" or key.startswith(f"{stage}.{name}.") for key in known)


def test_the_rate_of_a_training_under_way_may_change() -> None:
    data = {"path": "photos"}
    before, now = (load_config("vwe", [f"refine.fit.lr={rate}"], data=data) for rate in (0.1, 0.01))
    assert [(part.key, part.rate_only) for part in broken(before, now)] == [
        (("refine", "learn"), True),
        (("segment", "learn"), False),
    ]


def test_a_segmenter_that_was_begun_and_left_out_begins_anew(finished: Path, shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    RunFolder.open(run).update_stage("segment", done=False)
    (run / "segment" / "last.ckpt").write_bytes(b"of other masks")
    with (run / ".hintseg").open("a") as file:
        file.write('\n["segment/last.ckpt", ""]')
    hintseg.train(shapes, run, recipe="vwe", settings=[*QUICK, "segment=null"], resume=True)
    assert not list((run / "segment").glob("*.*"))
    assert not list((run / "labels").glob("*"))
    hintseg.train(shapes, run, recipe="vwe", settings=QUICK, resume=True)
    one, other = (files(r, "segment/model.safetensors")["segment/model.safetensors"][1] for r in (run, finished))
    assert one == other


def test_a_run_of_stages_that_make_other_things_is_neither_gone_on_with_nor_touched(
    finished: Path, shapes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"made_as": 0}))
    before = files(run, "*", "*/*")
    with pytest.raises(RunError, match=r"of another version of hintseg \(made_as: Input should be 1\)"):
        hintseg.train(shapes, run, recipe="vwe", settings=QUICK, resume=True)
    assert files(run, "*", "*/*") == before
