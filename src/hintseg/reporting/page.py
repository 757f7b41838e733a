"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from hintseg.errors import join
from hintseg.files.atomic import whole_file
from hintseg.quality.review_list import review_list
from hintseg.reporting import figures, pictures, words
from hintseg.reporting.kinds import KindRow, kinds_of_hints
from hintseg.run.folder import RunFolder
from hintseg.run.schema import MASK_KINDS, SWEPT_KINDS, MetricRow, PhotoRow, Show, Stage, StageFacts

_SCORED = 1000
"""Photos that are scored, at most, to find the best and worst."""

_FIRST = 20
"""Photos to look at first that are listed."""

_CHART_CLASSES = 100
"""Classes a chart can name; of longer lists the charts show the first (most frequent, or best) ones."""


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder: one file with all pictures inside, which loads nothing from anywhere.

    What the run does not have (a stage that did not run, truth, a background) is left out or said to be missing.

    Args:
        run: A run folder, finished or not.

    Returns:
        The report's path.

    Raises:
        RunError: `run` is no run folder, one of its files is damaged, or the report cannot be written.

    Cost:
        A few seconds, and about 10 ms for each of at most 1000 photos that are scored; without truth 30 ms for each
        photo, to find the doubtful ones.
    """
    folder = RunFolder.open(run)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("hintseg.reporting").joinpath("report.html.j2").read_text("utf-8"))
    page = template.render(_context(folder))
    out = run / "report.html"
    with whole_file(out) as file:
        file.write(page.encode("utf-8"))
    return out


def _context(run: RunFolder) -> dict[str, Any]:
    began = next(iter(run.history), None)
    return {
        "name": run.data.name,
        "made": words.made(run),
        "quality": words.quality(run),
        "trust": [*words.trust(run), *_unplaced(run)],
        "first": None if words.measured(run) else _first(run),
        **_data(run),
        "protocol": words.protocol(run),
        "config_text": _text(run.path / "config.yaml"),
        "results": [_result(row) for row in run.metrics if not row.oracle],
        "oracle_results": [_result(row) for row in run.metrics if row.oracle],
        "kinds": [_kind(row) for row in kinds_of_hints(run)],
        "thresholds": [t for stage in MASK_KINDS if (t := _threshold(run, stage))],
        **_classes(run),
        "wrapper": _wrapper(run),
        "background": run.background,
        "legend": [{"name": n, "colour": _css(k)} for k, n in enumerate(run.classes, start=1)],
        "unknown_colour": _css(255),
        "galleries": [g for g in (_gallery(run, "train"), _gallery(run, "val")) if g],
        "rows": [_rows(run, stage, show) for stage, show in run.shows("rows")],
        "curves": [(stage, figures.training_curves(log)) for stage in run.stages if (log := run.table(stage))],
        "measured": [curve for stage, show in run.shows("curve") if (curve := _curve(run, stage, show))],
        "costs": [_cost(run, name, facts) for name, facts in run.stages.items()],
        "command": "not recorded" if began is None else began.command,
        "origin": _origin(run),
    }


def _first(run: RunFolder) -> dict[str, Any] | None:
    """Return the photos to look at first, for a run of which nothing was measured; None where it has no masks yet."""
    made = run.masks_of_photos()
    if made is None or not _sample(run, made.stage, "train"):
        return None
    found = review_list(run)
    rows = [
        {"id": row.id, "worth": words.percent(row.worth), "doubt": f"{row.doubt:.2f}", "why": "; ".join(row.why) or "–"}
        for row in found.photos[:_FIRST]
    ]
    sentence = (
        f"Without truth nobody knows how good these masks are. As far as the run can tell, {found.summary}. "
        f"`hintseg review {run.path}` opens them, to be mended."
    )
    return {"rows": rows, "sentence": sentence}


def _data(run: RunFolder) -> dict[str, Any]:
    train, val = words.tag_matrix(run, "train"), words.tag_matrix(run, "val")
    has_tags = bool(len(train)) and bool(run.classes)
    context: dict[str, Any] = {
        "data_sentence": words.data_sentence(run),
        "notes": (*run.data.plan, *run.data.notes),
        "warnings": words.data_warnings(run),
        "has_tags": has_tags,
    }
    if has_tags:
        order = np.argsort(-train.sum(axis=0), kind="stable")[:_CHART_CLASSES]
        names = [run.classes[k] for k in order]
        counts = {"train": train.sum(axis=0)[order]} | ({"val": val.sum(axis=0)[order]} if len(val) else {})
        context["counts_chart"] = figures.photos_per_class(names, counts)
        context["together_chart"] = figures.cooccurrence(names, (train.T @ train)[np.ix_(order, order)])
    return context


def _unplaced(run: RunFolder) -> list[str]:
    """Say which tagged classes the last masks of the training photos leave out."""
    stages: list[Stage] = [*(["segment"] if run.labels_learned else []), "refine", "localize", "propose"]  # type: ignore[list-item]
    for stage in stages:
        photos = _sample(run, stage, "train")
        if photos:
            return words.unplaced_sentences(pictures.unplaced(run, stage, photos), MASK_KINDS[stage])
    return []


def _sample(run: RunFolder, stage: Stage, split: str) -> list[PhotoRow]:
    """Return the photos of a split with a mask of the stage, evenly thinned to at most `_SCORED`."""
    photos = [p for p in run.photos if p.split == split and run.mask_path(stage, p.id).is_file()]
    return photos[:: max(1, -(-len(photos) // _SCORED))]


def _result(metric: MetricRow) -> dict[str, Any]:
    row = {name: _hundredths(getattr(metric, name)) for name in ("miou", "pixel_accuracy", "boundary_iou")}
    return {
        **row,
        "kind": metric.kind,
        "split": metric.split,
        "photos": metric.photos,
        "threshold": "–" if metric.threshold is None else f"{metric.threshold:.2f}",
        "protocol": metric.protocol,
    }


def _kind(row: KindRow) -> dict[str, Any]:
    shares = {name: words.percent(getattr(row, name)) for name in ("labelled", "kept", "miou")}
    return {"kind": row.kind, "photos": row.photos} | shares


def _hundredths(value: float | None) -> str:
    return words.percent(value).removesuffix(" %")


def _threshold(run: RunFolder, stage: Stage) -> dict[str, str] | None:
    """Return the heading, sentence and curve of a stage's threshold; None where none was swept with truth at hand."""
    sweep = run.sweep(stage)
    if sweep is None or not sweep.miou:
        return None
    found = [math.nan if value is None else value for value in sweep.miou]
    chart = figures.threshold_curve(sweep.thresholds, found, sweep.chosen, sweep.oracle)
    return {"kind": SWEPT_KINDS[stage], "sentence": words.threshold_sentence(run, stage), "chart": chart}


def _classes(run: RunFolder) -> dict[str, Any]:
    """Per-class IoU of the last metric of each kind, on the split that judges it, best class of the last kind first."""
    final = words.final_metric(run)
    if final is None or not final[0].iou:
        return {"iou_chart": None, "weak": ""}
    last, miou = final
    kinds = {f"{row.kind}, {row.split}": row.iou for row in run.metrics if not row.oracle and row.iou}
    names = sorted(last.iou, key=lambda n: -1 if (v := last.iou[n]) is None else v, reverse=True)
    values = {kind: [math.nan if (v := iou.get(n)) is None else v for n in names] for kind, iou in kinds.items()}
    weak = words.weak_classes(last, miou)
    if weak:
        named = join([f"{n} ({words.percent(v)})" for n, v in weak])
        sentence = f"These classes fail in the {last.kind} ({last.split}): {named}."
    else:
        sentence = f"No class of the {last.kind} ({last.split}) falls below half of the mean."
    shown = {kind: row[:_CHART_CLASSES] for kind, row in values.items()}
    return {"iou_chart": figures.per_class_iou(names[:_CHART_CLASSES], shown), "weak": sentence}


def _wrapper(run: RunFolder) -> dict[str, str] | None:
    """Return a wrapper's pictures and what it changed; None where the run has no such pictures."""
    shown = run.shown
    if shown is None:
        return None
    uri = "data:image/png;base64," + base64.b64encode(run.wrapper_picture.read_bytes()).decode("ascii")
    return shown.model_dump() | {"sentence": words.against_baseline(run, shown.name), "picture": uri}


def _gallery(run: RunFolder, split: str) -> dict[str, Any] | None:
    """Choose photos of a split and collect their pictures; None where no stage made masks for it."""
    samples = {stage: photos for stage in MASK_KINDS if (photos := _sample(run, stage, split))}
    if not samples:
        return None
    stages = list(samples)
    considered = {p.id: p for p in samples[stages[-1]]}
    scores, meaning = pictures.photo_scores(run, stages[-1], list(considered))
    seed = run.manifest.seed
    note = f"Best and worst by {meaning} of the {MASK_KINDS[stages[-1]]}; random ones drawn with seed {seed}"
    limit = f", all among {len(considered)} photos"
    shown = []
    for group, ids in pictures.choose(scores, seed):
        for i in ids:
            score = f"{meaning} {words.percent(scores[i])}"
            shown.append({"group": group, "score": score, **_photo(run, considered[i], stages)})
    return {
        "title": "Training photos" if split == "train" else "Validation photos",
        "note": f"{note}{limit}.",
        "photos": shown,
    }


def _photo(run: RunFolder, photo: PhotoRow, stages: Sequence[Stage]) -> dict[str, Any]:
    return {
        "id": photo.id,
        "tags": [{"name": run.classes[t - 1], "colour": _css(t)} for t in photo.tags or ()],
        "panels": [
            (name, pictures.data_uri(picture)) for name, picture in pictures.panels(run, photo, stages, apart=True)
        ],
    }


def _rows(run: RunFolder, stage: Stage, show: Show) -> dict[str, Any]:
    photos = {photo.id: photo for photo in run.photos}.values()  # a photo may be in both splits
    drawn = [pictures.row_panels(run.path / stage / show.file(p.id), p, show.folder) for p in photos]
    rows = [[(name, pictures.data_uri(picture)) for name, picture in row] for row in drawn if row]
    return {"title": show.title, "note": show.note, "rows": rows}


def _curve(run: RunFolder, stage: Stage, show: Show) -> dict[str, str] | None:
    """Return the chart of what was measured during a training; None where nothing was."""
    columns = run.table(stage, show.folder)
    drawn = {label: columns[name] for name, label in show.labels.items() if name in columns}
    if "step" not in columns or not drawn:
        return None
    return {"title": show.title, "note": show.note, "chart": figures.measured_curves(columns["step"], drawn)}


def _cost(run: RunFolder, name: str, facts: StageFacts) -> dict[str, Any]:
    ended = next((event for event in reversed(run.history) if event.what == name), None)
    known = ended is not None and facts.done
    return {
        "stage": name if facts.done else f"{name} (not finished)",
        "method": facts.method or "–",
        "photos": facts.photos or "–",
        "time": words.duration(ended.seconds) if ended is not None and known else "–",
        "memory": f"{ended.peak_memory_mb:,.0f} MB" if ended is not None and known else "–",
    }


def _origin(run: RunFolder) -> list[tuple[str, str]]:
    manifest, data, began = run.manifest, run.data, next(iter(run.history), None)
    names = ("hintseg", "python", "torch", "lightning")
    rows = [
        ("Versions", ", ".join(f"{name} {getattr(manifest, name)}" for name in names)),
        ("Machine", "" if began is None else began.machine),
        ("Begun", "" if began is None else began.when),
        ("Data", f"{data.path} ({data.format})"),
        *((f"SHA-256 of {name}", digest) for name, digest in data.hashes.items()),
    ]
    return [(topic, sentence) for topic, sentence in rows if sentence]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _css(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*pictures.colour(label))
