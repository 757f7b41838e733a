"""How a run begins: which photos teach and which judge, and the run folder, made or gone on with."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hintseg.config.loader import dump_config
from hintseg.config.run import STAGES, RunConfig
from hintseg.config.settings import LOCALIZER
from hintseg.errors import ConfigError, LabelError, RunError, did_you_mean, join, shown
from hintseg.files.atomic import whole_file, write_json
from hintseg.files.owned import OwnedFolder, owned, refuse_inputs
from hintseg.formats.problems import Problems, read_text
from hintseg.pipeline.backbone import check_networks
from hintseg.pipeline.plan import (
    PLACED,
    UNHINTED,
    Kind,
    Plan,
    direct,
    kinds_by,
    labelled_by,
    needs_of,
    of_person,
    sentences,
    words,
)
from hintseg.registry import methods, resolve
from hintseg.run.fingerprint import Broken, broken
from hintseg.run.folder import RunFolder
from hintseg.run.history import add_event
from hintseg.run.schema import MADE_AS, DataFacts, Manifest, StageFacts
from hintseg.training.watch import Watch
from hintseg.types import Click, Hints, HintSet, MaskFile, Photo, Stroke, Supervision


def one_stage(config: RunConfig) -> bool:
    """Return whether the segmenter itself learns from something other than masks, so that it needs no stage before."""
    if config.segment is None:
        return False
    return Supervision.MASKS not in resolve("method", config.segment.method, methods()).supervision


def make_plan(hint_set: HintSet, config: RunConfig) -> Plan:
    """Choose the photos that teach and those that judge, and say what labels each.

    Raises:
        LabelError: A split that the data does not have, or no photo with the hints that the recipe learns from.
        ConfigError: The recipe would learn from true masks, and nobody said that it may.
    """

    def named(name: str, setting: str) -> set[str]:
        if name == "all":
            return {photo.id for photo in hint_set.photos}
        if name not in hint_set.splits:
            known = sorted(hint_set.splits)
            raise LabelError(
                f"the data has no split '{name}'{did_you_mean(name, known)}. It has: {', '.join(known) or 'none'}; "
                f"set data.{setting} to one of them, to all or to auto"
            )
        return set(hint_set.splits[name])

    learn, judge = config.data.train, config.data.val
    if judge == "auto":
        judge = "val" if "val" in hint_set.splits else ""
    validation = named(judge, "val") if judge else set()
    training = set(hint_set.training) if learn == "auto" else named(learn, "train")
    if learn == "auto" and "train" not in hint_set.splits:
        training = training - validation or training
    photos = with_taught_masks(hint_set, config)
    judged = validation if config.segment is not None else set()  # only a segmenter is judged on new photos
    usable = [photo for photo in photos if photo.id in training]
    itself = one_stage(config)
    needs, itself_learns = needs_of(config), direct(config)
    alone = config.propose is None and config.localize is None and not itself
    if alone and config.data.learn_masks is None and not any(itself_learns & photo.hints.kinds for photo in usable):
        raise ConfigError(
            f"recipe '{config.recipe}' has no stage that makes masks for its segmenter to learn from, and none of the "
            f"{len(usable)} training photos has {words(itself_learns)}; true masks teach only where you say so: set "
            "data.learn_masks to all, to a split, or to a file that lists photos"
        )
    found = {photo.id: labelled_by(photo, config, needs, one_stage=itself) for photo in usable}
    by: dict[str, Kind] = {id: kind for id, kind in found.items() if kind is not None}
    train = tuple(photo for photo in usable if photo.id in by)
    val = tuple(p for p in photos if p.id in judged and p.truth is not None)
    unmarked = bool(needs) and not any(needs & photo.hints.kinds for photo in usable)
    if all(kind == UNHINTED for kind in by.values()) or unmarked:
        implied = "a mask" if alone else "tags, boxes or points"
        need = words(needs) if unmarked else implied
        raise LabelError(
            f"none of the {len(usable)} training photos of {config.data.path} has {need}, which recipe "
            f"'{config.recipe}' learns from; `hintseg check {config.data.path}` shows what is there"
        )
    if not any(by[photo.id] == "masks" or photo.hints.tags or needs & photo.hints.kinds for photo in train):
        raise LabelError(f"all {len(train)} training photos are negatives: no photo shows any of the classes")
    return Plan(train, val, needs, by, sentences(usable, by, needs, photos, judged, config, hint_set.classes))


def with_taught_masks(hint_set: HintSet, config: RunConfig) -> list[Photo]:
    """Return the photos; where `data.learn_masks` says so, the true mask is a hint too.

    Raises:
        LabelError: It names no split and no file, or photos that are not there, or photos without a mask.
    """
    name = config.data.learn_masks
    if name is None:
        return list(hint_set.photos)
    known = {photo.id for photo in hint_set.photos if photo.truth is not None}
    if name == "all" or name in hint_set.splits:
        asked = known if name == "all" else known & set(hint_set.splits[name])
    elif Path(name).is_file():
        asked = _listed(Path(name), {photo.id for photo in hint_set.photos}, known)
    else:
        splits = sorted(hint_set.splits)
        raise LabelError(
            f"data.learn_masks={name} is neither a split nor a file{did_you_mean(name, splits)}. The data has the "
            f"splits {', '.join(splits) or '(none)'}; name one of them, all, or a file with the id of a photo per line"
        )
    if not asked:
        raise LabelError(f"data.learn_masks={name}: none of these photos has a mask; leave the setting out")
    return [
        replace(photo, hints=replace(photo.hints, mask=photo.truth)) if photo.id in asked else photo
        for photo in hint_set.photos
    ]


def _listed(file: Path, photos: set[str], known: set[str]) -> set[str]:
    """Return the photos that a file lists, by their ids, one a line."""
    problems, listed = Problems(), set[str]()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (id := line.strip()):
            continue
        if id not in known:
            why = "has no mask" if id in photos else f"is no photo's id{did_you_mean(id, sorted(photos))}"
            problems.add(file.name, f"line {number}: '{shown(id)}' {why}")
        listed.add(id)
    problems.raise_all()
    return listed


@contextmanager
def begin(
    out: Path,
    config: RunConfig,
    hint_set: HintSet,
    plan: Plan,
    watch: Watch,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[RunFolder]:
    """Make a run folder, or go on with the one that is there; nobody else writes into it while the block runs.

    Going on with other settings keeps every stage that they do not touch; `watch` is told which are made again and why.

    Raises:
        RunError: The folder holds something and neither `resume` nor `overwrite` was asked for; or `resume` with other
            photos or labels than the run began with; or what is read lies in a folder to be overwritten; or the folder
            cannot be written, or another process writes into it.
        WeightsError: See `check_networks`.
    """
    with owned(out, "run") as folder:
        run = RunFolder(out)
        photos = _rows(plan)
        tags = [(p.id, p.hints.tags) for p in plan.train if p.hints.tags is not None]
        partly = [[id, sorted(one.said)] for id, one in tags if len(one.said) < len(hint_set.classes)]
        teaching = [row for row in photos if row["split"] == "train"]
        hints = [hint_set.classes, hint_set.background, teaching, partly]
        read = plan.needs | (PLACED if config.segment is not None else frozenset())
        if rest := [[p.id, _digest(said)] for p in plan.train if (said := _beyond_row(p.hints, read))]:
            hints.append(rest)
        digests = {"hints": _digest(hints), "judges": _digest([row for row in photos if row["split"] == "val"])}
        if config.data.learn_masks not in (None, "all", *hint_set.splits):  # a file, which may change
            digests["taught"] = _digest([p.id for p in plan.train if p.hints.mask is not None])
        if config.data.review is not None:
            digests["review"] = _digest(
                [[p.id, *map(repr, of_person(p.hints)), repr(p.hints.mask)] for p in plan.train]
            )
        begun = (out / "config.yaml").is_file()  # the last file that is written at the beginning
        if not begun and not overwrite and any(name.split("/")[0] in STAGES for name, _ in folder.files()):
            raise RunError(
                f"{out / 'config.yaml'} is missing, but the folder holds what stages made; restore the file, or start "
                "the run afresh with --overwrite"
            )
        if begun and resume:
            _go_on(run, folder, config, plan, digests, photos, watch)
            add_event(out / "history.csv", "resumed")
        else:
            if begun and not overwrite:
                raise RunError(f"{out} is not empty; --resume goes on with it, --overwrite starts it afresh")
            refuse_inputs(out, _inputs(config, hint_set))
            check_networks(config, STAGES)
            folder.clear()
            _write_beginning(run, config, hint_set, plan, photos, digests)
        yield run


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write_beginning(
    run: RunFolder,
    config: RunConfig,
    hint_set: HintSet,
    plan: Plan,
    photos: list[dict[str, Any]],
    digests: dict[str, str],
) -> None:
    hashes = dict(digests)
    for labels in config.data.labels:
        if labels.is_file():
            hashes[str(labels)] = hashlib.sha256(labels.read_bytes()).hexdigest()
    add_event(run.path / "history.csv", "began")
    _write_photos(run, plan, photos)
    run.write_manifest(
        Manifest(
            hintseg=version("hintseg"),
            made_as=MADE_AS,
            python=platform.python_version(),
            torch=version("torch"),
            lightning=version("lightning"),
            seed=config.seed,
            learns_from=_learns_from(config, plan),
            data=DataFacts(
                name=hint_set.name,
                path=str(config.data.path),
                format=config.data.format,
                classes=hint_set.classes,
                background=hint_set.background,
                notes=hint_set.notes,
                plan=plan.sentences,
                hashes=hashes,
            ),
            stages={stage: StageFacts() for stage in STAGES if getattr(config, stage) is not None},
        )
    )
    write_json(run.path / "metrics.json", [])
    _write_config(run, config)


def _write_photos(run: RunFolder, plan: Plan, photos: list[dict[str, Any]]) -> None:
    """Write the photos; what labels each is beside what the labels say, whose hash is compared."""
    more = {photo.id: {"by": kinds_by(photo.hints, plan.by[photo.id]), "bytes": _size(photo)} for photo in plan.train}
    write_json(run.path / "photos.json", [row | (more[row["id"]] if row["split"] == "train" else {}) for row in photos])


def _size(photo: Photo) -> int | None:
    """Return the size of a photo's file, by which another one in its place is known; None if it cannot be had."""
    try:
        return photo.path.stat().st_size
    except OSError:
        return None  # said where it is read


def _write_config(run: RunFolder, config: RunConfig) -> None:
    with whole_file(run.path / "config.yaml") as file:
        file.write(dump_config(config).encode())


def _go_on(
    run: RunFolder,
    folder: OwnedFolder,
    config: RunConfig,
    plan: Plan,
    digests: dict[str, str],
    photos: list[dict[str, Any]],
    watch: Watch,
) -> None:
    """Take what other settings touch out of the run, so that it is made again; the rest stays."""
    before, hashes = run.config, run.data.hashes
    _ = run.photos, run.metrics  # damage is told before anything is done
    judged = before.segment is not None and config.segment is not None
    same_list = before.data.learn_masks == config.data.learn_masks  # another one is another setting
    compared = {"hints": True, "judges": judged, "taught": same_list, "review": True}
    if any(compared[name] and hashes.get(name) != digest for name, digest in digests.items()):
        raise RunError(
            f"the photos or labels are not those that {run.path} was begun with: files changed, or the settings let "
            "other photos teach; choose another --out, or --overwrite"
        )
    gone = [stage for stage in STAGES if run.done(stage) and getattr(config, stage) is None]
    if gone:
        raise RunError(
            f"{run.path} has finished {', '.join(gone)}, which the settings leave out; choose another --out, or keep it"
        )
    touched = broken(before, config)
    first = next(stage for stage in STAGES if stage in run.stages)
    if touched and touched[0].key == (first, "learn") and run.done(first):
        raise RunError(
            f"with these settings nothing of {run.path} would stay ({touched[0].why}); choose another --out, or start "
            "it afresh with --overwrite"
        )
    _refuse_mended(folder, touched)
    check_networks(config, [part.key[0] for part in touched if part.key[1] == "learn"])
    for part in touched:
        stage = part.key[0]
        if part.rate_only and not (run.path / stage / "model.safetensors").is_file():
            continue
        facts = run.stages.get(stage, StageFacts())
        if facts.done:
            watch.line(f"{stage} is made again{_FROM[part.key[1]]}: {part.why}")
        run.update_stage(stage, **dict(StageFacts() if part.key[1] == "learn" else facts) | {"done": False})
        run.add_metrics(stage, [])
        drawn = [f"{stage}/{show.folder}/" for show in facts.shows if show.kind == "rows"]  # of the masks
        folder.remove((*part.files, *drawn))
    manifest = run.manifest
    for stage in STAGES:
        if getattr(config, stage) is None and stage in manifest.stages:  # begun, and now left out
            folder.remove((f"{stage}/", *(("labels/", "trust/") if stage == "segment" else ())))
            del manifest.stages[stage]
        elif getattr(config, stage) is not None:
            manifest.stages.setdefault(stage, StageFacts())
    data = manifest.data.model_copy(update={"plan": plan.sentences, "hashes": manifest.data.hashes | digests})
    if manifest.model_copy(update={"data": data}) != run.manifest:
        _write_photos(run, plan, photos)
        run.write_manifest(manifest.model_copy(update={"data": data}))
    if config != before:
        _write_config(run, config)


def _refuse_mended(folder: OwnedFolder, touched: Sequence[Broken]) -> None:
    """Refuse to make masks again that somebody mended by hand."""
    for part in touched:
        if mended := folder.changed([f"{part.key[0]}/masks/"]):
            raise RunError(
                f"{len(mended)} masks in {folder.root} were changed by hand and would be made again ({part.why}), such "
                f"as {mended[0]}; choose another --out, keep that setting, or move them away first"
            )


_FROM = {"learn": "", "maps": " from its maps on, its network stays", "masks": " from its masks on, its maps stay"}


def _inputs(config: RunConfig, hint_set: HintSet) -> Iterable[Path]:
    """Return every file and folder that the run reads, as far as settings and labels name them."""
    yield config.data.path
    yield from config.data.labels
    yield from (path for path in (config.data.review, config.start) if path is not None)
    if config.recipe.endswith((".yaml", ".yml")):
        yield Path(config.recipe)
    if config.wrapper is not None and config.wrapper.settings.baseline is not None:
        yield config.wrapper.settings.baseline
    yield from _weights(config.model_dump(mode="json"))
    for photo in hint_set.photos:
        yield photo.path
        yield from (f.path for f in (photo.hints.scribbles, photo.truth) if isinstance(f, MaskFile))


def _weights(settings: dict[str, Any]) -> Iterator[Path]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _weights(value)
        elif key == "weights" and value not in ("pretrained", "random", LOCALIZER):
            yield Path(value)


def _learns_from(config: RunConfig, plan: Plan) -> str:
    if config.propose is not None:
        return words(needs_of(config))
    if config.localize is not None or one_stage(config):
        return "tags"
    return join(sorted(set(plan.by.values())))


def _beyond_row(hints: Hints, needs: frozenset[Supervision]) -> list[str]:
    """Return what learns from those needs and ``photos.json`` does not hold: strokes, and doubts."""
    strokes = hints.scribbles if Supervision.SCRIBBLES in needs else None
    marks = [repr(mark) for mark in hints.marks if needs and (isinstance(mark.shape, Stroke) or mark.trust != 1)]
    return [*marks, *([hashlib.sha256(strokes.path.read_bytes()).hexdigest()] if strokes else [])]


def _rows(plan: Plan) -> list[dict[str, Any]]:
    return [_row(p, "train") for p in plan.train] + [_row(p, "val") for p in plan.val]


def _row(photo: Photo, split: str) -> dict[str, Any]:
    hints = photo.hints
    return {
        "id": photo.id,
        "path": str(photo.path.resolve()),
        "split": split,
        "tags": None if hints.tags is None else sorted(hints.tags),
        "boxes": [[m.label, *m.shape.corners] for m in hints.objects] or None,
        "points": [[m.label, m.shape.x, m.shape.y] for m in hints.shaped(Click)] or None,
        "scribbles": None if hints.scribbles is None else str(hints.scribbles.path),
        "truth": photo.truth is not None,
    }
