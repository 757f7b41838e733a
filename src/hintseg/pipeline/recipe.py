"""Run a recipe: every stage that is not done yet, then the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hintseg import signals
from hintseg.config.loader import parse_config
from hintseg.config.run import STAGES, AttentionRefine, RunConfig
from hintseg.config.settings import DataConfig
from hintseg.errors import PhotoError
from hintseg.files.owned import owned
from hintseg.formats.colours import read_colours
from hintseg.hints import read_hints
from hintseg.hints.check import check
from hintseg.hints.masks import read_mask
from hintseg.methods.attention import AttentionWalk
from hintseg.pipeline import stages
from hintseg.pipeline.backbone import settle
from hintseg.pipeline.begin import begin, make_plan, one_stage
from hintseg.pipeline.from_tags import segment_from_tags
from hintseg.pipeline.memory import peak_memory_mb, reset_peak_memory
from hintseg.pipeline.plan import Plan
from hintseg.pipeline.propose import propose
from hintseg.pipeline.reading_size import settle_longest
from hintseg.pipeline.stages import wrapper_class
from hintseg.reporting import write_pictures, write_report
from hintseg.reviewing.lessons import with_lessons
from hintseg.run.folder import BASELINE, RunFolder
from hintseg.run.history import add_event
from hintseg.run.schema import Stage
from hintseg.store.masks import write_mask
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import HintSet, Photo

logger = logging.getLogger("hintseg")

LOOKED_AT = 500
"""Photos that are opened before training, to say what `hintseg check` says of all of them."""


def read_data(data: DataConfig) -> HintSet:
    """Read the data set that the settings name.

    Raises:
        LabelError: Labels that cannot be read.
    """
    return read_hints(
        data.path,
        data.labels,
        format=data.format,
        unlabelled=data.unlabelled,
        background=data.background == "present",
        missing=data.missing,
        colours={} if data.colours is None else read_colours(data.colours),
    )


def run_recipe(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    hint_set: HintSet | None = None,
    why: Sequence[str] = (),
) -> RunFolder:
    """Read the hints, make or reopen the run folder, run every stage that is not done, write the report.

    Args:
        config: The settings.
        out: The run folder.
        resume: Go on with the run that is there.
        overwrite: Start it afresh.
        watch: Told about the progress.
        hint_set: The data set, where it was read before; None: `config.data` is read.
        why: Why this recipe was chosen, in sentences, where nobody named it.

    Raises:
        HintsegError: Anything the user can mend: labels, settings, the folder.
    """
    watch = watch or Watch()
    machine.check(config.trainer)
    machine.join()
    data, hint_set = config.data, hint_set or read_data(config.data)
    if data.review is not None:
        hint_set = with_lessons(hint_set, data.review)
    first = machine.rank() == 0
    if first:  # the others find its choice in the run folder
        begun = resume and (out / "config.yaml").is_file()
        before = RunFolder.open(out).config if begun else None
        config, reasons = settle(config, before)
        config, of_size = settle_longest(config, hint_set, before)
    plan = make_plan(hint_set, config)
    if config.wrapper is not None:
        wrapper_class(config.wrapper.name).check(config, plan.tagged, hint_set.classes)
    if isinstance(config.refine, AttentionRefine):
        AttentionWalk(config.refine)  # what it cannot take is told before anything is trained
    if not first:  # a process that Lightning or torchrun started beside the first one
        machine.barrier()
        run = RunFolder.open(out)
        config, _ = settle_longest(settle(config, run.config)[0], hint_set, run.config)
        with owned(out, "run", alone=False):
            _run(run, config, plan, watch)
        machine.barrier()
        return run
    with begin(out, config, hint_set, plan, watch, resume=resume, overwrite=overwrite) as run:
        every = {photo.id: photo for photo in (*plan.train, *plan.val)}  # a photo may be in both
        _write_truth(run, [photo for photo in every.values() if photo.truth is not None])
        facts = f"{len(plan.train)} photos to learn from, {len(plan.val)} to validate, {len(hint_set.classes)} classes"
        watch.line(f"data: {facts}, from {data.path}")
        for reason in why:
            watch.line(f"recipe: {reason}")
        for reason in reasons:
            watch.line(f"backbone: {reason}")
        for reason in of_size:
            watch.line(f"size: {reason}")
        for sentence in plan.sentences:
            watch.line(f"plan: {sentence}")
        for note in hint_set.notes:
            watch.line(f"labels: {note}")
        for verdict in check(hint_set, most=LOOKED_AT).verdicts:
            logger.warning(verdict)
        signals.offer_resume()
        machine.barrier()
        _run(run, config, plan, watch)
        watch.line(f"report: {write_report(run.path)}")
    machine.barrier()
    return run


def _run(run: RunFolder, config: RunConfig, plan: Plan, watch: Watch) -> None:
    """Run every stage that is not done, in all processes."""
    wrapper = None if run.done("localize") else config.wrapper
    if wrapper is not None and wrapper.settings.baseline_first and wrapper.settings.baseline is None:
        if machine.rank() == 0:
            watch.line(f"stage one of {wrapper.name}: the baseline and its masks, in {run.path / BASELINE}")
        without = parse_config(config.model_dump(mode="json") | {wrapper.name: None, "segment": None})
        run_recipe(without, run.path / BASELINE, resume=True, watch=watch)
    for stage in STAGES:
        if getattr(config, stage) is not None and not run.done(stage):
            _run_stage(run, stage, config, plan, watch)


def _run_stage(run: RunFolder, stage: Stage, config: RunConfig, plan: Plan, watch: Watch) -> None:
    began = time.perf_counter()
    reset_peak_memory()
    looked_at = {"propose": plan.proposed, "localize": plan.tagged, "refine": plan.tagged, "segment": plan.train}
    photos = looked_at[stage]
    if stage == "propose":
        propose(run, config, photos, watch)
    elif stage == "localize":
        stages.localize(run, config, photos, watch)
    elif stage == "refine":
        stages.refine(run, config, photos, watch)
    elif one_stage(config):
        segment_from_tags(run, config, plan.train, plan.val, watch)
    else:
        stages.segment(run, config, plan.train, plan.val, watch)
    machine.barrier()
    if machine.rank() == 0:
        seconds = time.perf_counter() - began
        shown = plan.val if stage == "segment" and not one_stage(config) else photos
        ids = [photo.id for photo in shown[:: max(1, len(shown) // max(1, config.trainer.pictures))]]
        if config.trainer.pictures and ids:
            write_pictures(run.path, stage, ids[: config.trainer.pictures])
        add_event(run.path / "history.csv", stage, seconds=seconds, peak_memory_mb=peak_memory_mb())
        run.update_stage(
            stage,
            method=getattr(config, stage).method,
            photos=len(photos),
            done=True,
        )
        watch.line(f"{stage}: {_how_good(run, stage)}{len(photos)} photos, {seconds:.0f} s, {run.path / stage}")
    machine.barrier()


def _how_good(run: RunFolder, stage: Stage) -> str:
    rows = [(row, row.miou) for row in run.metrics if row.stage == stage and not row.oracle and row.miou is not None]
    return "".join(f"{row.kind} mIoU {100 * miou:.1f} ({row.split}), " for row, miou in rows)


def _write_truth(run: RunFolder, photos: list[Photo]) -> None:
    """Paint the true masks of whatever format as PNG once: evaluation and report read those."""

    def paint(photo: Photo) -> None:
        path = run.path / "truth" / f"{photo.id}.png"
        if path.is_file():
            return
        try:
            mask = read_mask(photo, n_classes=len(run.classes), background=run.background)
        except PhotoError:
            return  # unreadable photos are reported and left out where they are used
        if mask is not None:
            write_mask(path, mask)

    with ThreadPoolExecutor() as pool:
        list(pool.map(paint, photos))
