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

from hintseg.files.atomic import whole_file
from hintseg.reporting import figures, pictures, words
from hintseg.reporting.run_files import MASK_KINDS, SWEPT_KINDS, RunFiles, read_run

_SCORED = 1000
"""Photos that are scored, at most, to find the best and worst."""

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
        A few seconds, and about 10 ms for each of at most 1000 photos that are scored.
    """
    folder = read_run(run)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("hintseg.reporting").joinpath("report.html.j2").read_text("utf-8"))
    page = template.render(_context(folder))
    out = run / "report.html"
    with whole_file(out) as file:
        file.write(page.encode("utf-8"))
    return out


def _context(run: RunFiles) -> dict[str, Any]:
    data = run.manifest.get("data", {})
    return {
        "name": data.get("name", run.path.name),
        "made": words.made(run),
        "quality": words.quality(run),
        "trust": [*words.trust(run), *_unplaced(run)],
        **_data(run),
        "protocol": words.protocol(run),
        "config_text": _text(run.path / "config.yaml"),
        "results": [_result(m) for m in run.metrics if not m.get("oracle")],
        "oracle_results": [_result(m) for m in run.metrics if m.get("oracle")],
        "thresholds": [t for stage in MASK_KINDS if (t := _threshold(run, stage))],
        **_classes(run),
        "pairs": _pairs(run),
        "background": run.background,
        "legend": [{"name": n, "colour": _css(k)} for k, n in enumerate(run.classes, start=1)],
        "unknown_colour": _css(255),
        "galleries": [g for g in (_gallery(run, "train"), _gallery(run, "val")) if g],
        "affinities": [row for photo in run.photos if (row := _affinity(run, photo))],
        "curves": [(stage, figures.training_curves(log)) for stage in run.stages if (log := run.log(stage))],
        "branches": figures.branch_curves(found) if (found := run.curves()) else None,
        "costs": [_cost(name, stage) for name, stage in run.stages.items()],
        "command": run.manifest.get("command", "not recorded"),
        "origin": _origin(run),
    }


def _data(run: RunFiles) -> dict[str, Any]:
    train, val = words.tag_matrix(run, "train"), words.tag_matrix(run, "val")
    has_tags = bool(len(train)) and bool(run.classes)
    context: dict[str, Any] = {
        "data_sentence": words.data_sentence(run),
        "notes": run.manifest.get("data", {}).get("notes", []),
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


def _unplaced(run: RunFiles) -> list[str]:
    """Say which tagged classes the last masks of the training photos leave out."""
    for stage in ("refine", "localize", "propose", *(["segment"] if run.one_stage else [])):
        photos = _sample(run, stage, "train")
        if photos:
            return words.unplaced_sentences(pictures.unplaced(run, stage, photos), MASK_KINDS[stage])
    return []


def _sample(run: RunFiles, stage: str, split: str) -> list[dict[str, Any]]:
    """Return the photos of a split with a mask of the stage, evenly thinned to at most `_SCORED`."""
    photos = [p for p in run.photos if p.get("split") == split and run.mask_path(stage, p["id"]).is_file()]
    return photos[:: max(1, -(-len(photos) // _SCORED))]


def _result(metric: dict[str, Any]) -> dict[str, Any]:
    row = {name: _hundredths(metric.get(name)) for name in ("miou", "pixel_accuracy", "boundary_iou")}
    threshold = metric.get("threshold")
    return {
        **row,
        "kind": metric.get("kind", ""),
        "split": metric.get("split", ""),
        "photos": metric.get("photos", "–"),
        "threshold": "–" if threshold is None else f"{threshold:.2f}",
        "protocol": metric.get("protocol", ""),
    }


def _hundredths(value: float | None) -> str:
    return words.percent(value).removesuffix(" %")


def _threshold(run: RunFiles, stage: str) -> dict[str, str] | None:
    """Return the heading, sentence and curve of a stage's threshold; None where none was swept with truth at hand."""
    sweep = run.sweep(stage)
    if not sweep.get("miou"):
        return None
    chart = figures.threshold_curve(sweep["thresholds"], sweep["miou"], sweep.get("chosen"), sweep.get("oracle"))
    return {"kind": SWEPT_KINDS[stage], "sentence": words.threshold_sentence(run, stage), "chart": chart}


def _classes(run: RunFiles) -> dict[str, Any]:
    """Per-class IoU of the last metric of each kind, on the split that judges it, best class of the last kind first."""
    final = words.final_metric(run)
    if final is None or not final.get("iou"):
        return {"iou_chart": None, "weak": ""}
    kinds = {f"{m['kind']}, {m['split']}": m["iou"] for m in run.metrics if not m.get("oracle") and m.get("iou")}
    names = sorted(final["iou"], key=lambda n: -1 if (v := final["iou"][n]) is None else v, reverse=True)
    values = {kind: [math.nan if (v := iou.get(n)) is None else v for n in names] for kind, iou in kinds.items()}
    weak = words.weak_classes(final)
    if weak:
        named = words.join([f"{n} ({words.percent(v)})" for n, v in weak])
        sentence = f"These classes fail in the {final['kind']} ({final['split']}): {named}."
    else:
        sentence = f"No class of the {final['kind']} ({final['split']}) falls below half of the mean."
    shown = {kind: row[:_CHART_CLASSES] for kind, row in values.items()}
    return {"iou_chart": figures.per_class_iou(names[:_CHART_CLASSES], shown), "weak": sentence}


def _pairs(run: RunFiles) -> dict[str, str] | None:
    """Return the pictures of CSD's pairs and what CSD changed; None where the run has no such pictures."""
    path = run.path / "localize" / "pairs.png"
    if not path.is_file():
        return None
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return {"pasted": words.pasted(run), "sentence": words.against_baseline(run), "picture": uri}


def _gallery(run: RunFiles, split: str) -> dict[str, Any] | None:
    """Choose photos of a split and collect their pictures; None where no stage made masks for it."""
    samples = {stage: photos for stage in MASK_KINDS if (photos := _sample(run, stage, split))}
    if not samples:
        return None
    stages = list(samples)
    considered = {p["id"]: p for p in samples[stages[-1]]}
    scores, meaning = pictures.photo_scores(run, stages[-1], list(considered))
    seed = int(run.manifest.get("seed", 0))
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


def _photo(run: RunFiles, photo: dict[str, Any], stages: Sequence[str]) -> dict[str, Any]:
    tags = [t for t in photo.get("tags") or () if 1 <= t <= len(run.classes)]
    return {
        "id": photo["id"],
        "tags": [{"name": run.classes[t - 1], "colour": _css(t)} for t in tags],
        "panels": [
            (name, pictures.data_uri(picture)) for name, picture in pictures.panels(run, photo, stages, apart=True)
        ],
    }


def _affinity(run: RunFiles, photo: dict[str, Any]) -> list[tuple[str, str]]:
    if photo.get("split") != "val":
        return []
    return [(name, pictures.data_uri(picture)) for name, picture in pictures.affinity_panels(run, photo)]


def _cost(name: str, stage: dict[str, Any]) -> dict[str, Any]:
    memory = stage.get("peak_memory_mb")
    return {
        "stage": name if stage.get("done") else f"{name} (not finished)",
        "method": stage.get("method", "–"),
        "photos": stage.get("photos", "–"),
        "time": words.duration(stage.get("seconds")),
        "memory": "–" if memory is None else f"{memory:,.0f} MB",
    }


def _origin(run: RunFiles) -> list[tuple[str, str]]:
    names = ("hintseg", "python", "torch", "lightning")
    versions = ", ".join(f"{name} {run.manifest[name]}" for name in names if name in run.manifest)
    data = run.manifest.get("data", {})
    rows = [
        ("Versions", versions),
        ("Machine", run.manifest.get("machine", "")),
        ("Begun", run.manifest.get("created", "")),
        ("Data", f"{data.get('path', '')} ({data.get('format', 'format not recorded')})"),
        *((f"SHA-256 of {name}", digest) for name, digest in data.get("hashes", {}).items()),
    ]
    return [(topic, str(sentence)) for topic, sentence in rows if sentence]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _css(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*pictures.colour(label))
