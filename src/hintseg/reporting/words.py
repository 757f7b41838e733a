"""What the report says in sentences: what was made, how good it is, how far to trust it, and under which protocol."""

from __future__ import annotations

from typing import Any

import numpy as np

from hintseg.config.run import TestConfig
from hintseg.config.settings import MapsConfig
from hintseg.errors import join
from hintseg.hints.check import ENOUGH_TO_TELL, FEW_PHOTOS
from hintseg.hints.implied import tag_rows
from hintseg.run.folder import RunFolder
from hintseg.run.schema import MASK_KINDS, SWEPT_KINDS, MetricRow, PhotoRow, Stage, StageFacts, StageSettings
from hintseg.types import Hints, Tags

_LEVELS = (
    (0.75, "good: most masks can be used as they are"),
    (0.60, "usable: expect to correct outlines and the weak classes named below"),
    (0.40, "rough: a start for correcting by hand, not for use unseen"),
    (0.00, "poor: do not use these masks without looking at every one"),
)
"""Least mIoU and what it means. Fully supervised networks reach about 0.75 to 0.85 on everyday photos."""

_JUDGES = {
    "seed": "seeds",
    "pseudo mask": "pseudo masks",
    "final mask": "final masks",
    "segmentation": "segmentation model",
}

_LEFT_OUT = 0.25
"""From this share of its photos on, a class that the masks leave out is named."""


def percent(value: float | None) -> str:
    """Format a share for people.

    Example:
        >>> percent(0.6432), percent(None)
        ('64.3 %', '–')
    """
    return "–" if value is None or np.isnan(value) else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Format a time span for people.

    Example:
        >>> duration(8.21), duration(75), duration(7300), duration(None)
        ('8.2 s', '1 min 15 s', '2 h 1 min', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def measured(run: RunFolder) -> list[tuple[MetricRow, float]]:
    """Return the fair results and their mIoU: those whose threshold saw the truth are left out."""
    return [(row, row.miou) for row in run.metrics if not row.oracle and row.miou is not None]


def final_metric(run: RunFolder) -> tuple[MetricRow, float] | None:
    """Return the row that judges the run, and its mIoU: the last stage's, on unseen photos where there are any."""
    order = list(_JUDGES)
    ranked = sorted(
        measured(run), key=lambda m: (order.index(m[0].kind) if m[0].kind in order else -1, m[0].split == "val")
    )
    return ranked[-1] if ranked else None


def weak_classes(metric: MetricRow, miou: float) -> list[tuple[str, float]]:
    """Return the classes that fail, worst first: IoU below half of the mean, or below 0.2."""
    bound = max(0.2, miou / 2)
    found = [(name, value) for name, value in metric.iou.items() if value is not None and value < bound]
    return sorted(found, key=lambda pair: pair[1])


def made(run: RunFolder) -> str:
    """Say what the run made, and out of what."""
    photos, name = f"{len(_photos(run, 'train'))} training photos", run.data.name
    hints = run.manifest.learns_from
    if run.done("propose") or run.done("localize"):
        kinds: dict[Stage, str] = {
            "propose": "masks",
            "localize": "seeds",
            "refine": "pseudo masks",
            "segment": "a segmentation model",
        }
        return (
            f"From the {hints} of {photos} of {name}, this run made {join([kinds[s] for s in kinds if run.done(s)])}."
        )
    if run.done("segment") and run.one_stage:
        return f"From the tags of {photos} of {name}, this run made pseudo masks and a segmentation model in one stage."
    if run.done("segment"):
        hints = hints.replace("masks", "true masks")
        return f"From the {hints} of {photos} of {name}, this run trained a segmentation model."
    return f"This run on {name} has not finished any stage yet."


def quality(run: RunFolder) -> list[str]:
    """Say how good the result is: the mIoU of each stage, or why it is not known."""
    fair = measured(run)
    if not fair:
        return [_quality_without_truth(run)]
    sentences = []
    for kind, words in _JUDGES.items():
        for split in dict.fromkeys(row.split for row, _ in fair if row.kind == kind):
            metric, miou = [m for m in fair if m[0].kind == kind and m[0].split == split][-1]
            said = "The segmentation model reaches" if kind == "segmentation" else f"{words.capitalize()} reach"
            sentences.append(f"{said} {percent(miou)} mIoU on {metric.photos} {split} photos.")
    return sentences


def against_baseline(run: RunFolder, wrapper: str) -> str:
    """Say how the masks of a run with a wrapper compare with those of its baseline, where both were measured."""
    before, sentences = run.baseline, []
    if before is None:
        return ""
    for kind in ("seed", "pseudo mask"):
        pair = [[miou for row, miou in measured(one) if row.kind == kind] for one in (before, run)]
        if all(pair):
            sentences.append(f"{kind}s {percent(pair[0][-1])} mIoU before, {percent(pair[1][-1])} with {wrapper}")
    return f"Against the baseline: {join(sentences)}." if sentences else ""


def _quality_without_truth(run: RunFolder) -> str:
    """Say what the masks' own scores say, which is not accuracy."""
    for stage in reversed(MASK_KINDS):
        scores = run.qualities(stage)
        if scores:
            return (
                "No true masks were given, so accuracy is not known. The "
                f"{MASK_KINDS[stage]}s' own quality scores average {np.mean(list(scores.values())):.2f} (0 to 1); "
                "they rank photos, they do not measure accuracy."
            )
    return "No true masks were given, so accuracy is not known: judge the pictures below."


def trust(run: RunFolder) -> list[str]:
    """Say how far to trust the result, and what speaks against it."""
    final = final_metric(run)
    sentences = []
    unfinished = [name for name, stage in run.stages.items() if not stage.done]
    if unfinished:
        sentences.append(f"Not finished: {join(unfinished)}. Continue with --resume.")
    if final is None:
        sentences.append("To measure accuracy, draw true masks for about 50 photos and run evaluate on them.")
    else:
        metric, miou = final
        level = next(words for least, words in _LEVELS if miou >= least)
        unseen = "photos it has not seen" if metric.split == "val" else "the photos it learned from"
        sentences.append(f"Judged by the {_JUDGES.get(metric.kind, metric.kind)} on {unseen}, this is {level}.")
        weak = weak_classes(metric, miou)
        if weak:
            named = join([f"{name} ({percent(value)})" for name, value in weak])
            sentences.append(f"Do not trust the result for {named}.")
        if metric.photos < 100:
            sentences.append(f"Only {metric.photos} photos were measured: a few points up or down mean little.")
    if run.seen.backbone.weights == "random":
        sentences.append("The backbone started from random weights; learned weights usually give far better masks.")
    sentences.append(f"This is one run with seed {run.manifest.seed}: another seed gives somewhat other numbers.")
    return sentences


def unplaced_sentences(counts: dict[str, tuple[int, int]], kind: str) -> list[str]:
    """Say which tagged classes the masks leave out; see `pictures.unplaced`.

    Example:
        >>> unplaced_sentences({"cow": (1, 20), "boat": (3, 5)}, "seed")
        ['Of photos with the tag, these have no pixel of the class in the seed: boat (3 of 5).']
    """
    missing, tagged = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0)
    if missing > tagged / 2:
        return [
            f"Most {kind}s are empty: {missing} of {tagged} tags have no pixel. Look at the class maps below: where "
            "they show the objects, lower maps.threshold; where not, train longer or start from learned weights."
        ]
    often = [f"{name} ({m} of {n})" for name, (m, n) in counts.items() if n and m / n >= _LEFT_OUT]
    if not often:
        return []
    return [f"Of photos with the tag, these have no pixel of the class in the {kind}: {join(often)}."]


def tag_matrix(run: RunFolder, split: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return which photo of a split has which tag, (photos, K) of 0 and 1; photos without known tags are left out."""
    hints = [Hints(Tags(frozenset(photo.tags))) for photo in _photos(run, split) if photo.tags is not None]
    return tag_rows(hints, len(run.classes))[0].astype(np.int64)


def data_sentence(run: RunFolder) -> str:
    """Say how many photos, classes and tags there are, and which other hints."""
    train, matrix = _photos(run, "train"), tag_matrix(run, "train")
    kinds = [f"{sum(getattr(p, k) is not None for p in train)} with {k}" for k in ("boxes", "points", "scribbles")]
    kinds = [k for k in kinds if not k.startswith("0 ")]
    classes = f"{len(run.classes)} class" + ("" if len(run.classes) == 1 else "es")
    sentence = f"{len(train)} training photos of {classes}" + (f" ({join(kinds)})" if kinds else "")
    if len(matrix):
        tags = matrix.sum(axis=1)
        sentence += f"; {tags.mean():.1f} tags per photo, {percent(float((tags > 1).mean()))} with more than one"
        sentence += f", {int((tags == 0).sum())} without any of the classes"
    return sentence + "."


def overlap_sentence(run: RunFolder) -> str:
    """Say how many boxes of the training photos overlap a box of another class; empty where none does.

    Cost:
        The square of the boxes of a photo: 20 ms for 1000 boxes.
    """
    overlapping = total = 0
    for photo in _photos(run, "train"):
        rows = np.array(photo.boxes or np.zeros((0, 5)))
        labels, (x0, y0, x1, y1) = rows[:, 0], rows[:, 1:].T
        meet = (np.maximum.outer(x0, x0) < np.minimum.outer(x1, x1)) & (
            np.maximum.outer(y0, y0) < np.minimum.outer(y1, y1)
        )
        overlapping += int((meet & (labels[:, None] != labels)).any(axis=1).sum())
        total += len(rows)
    if not overlapping:
        return ""
    return f"{overlapping} of {total} boxes overlap a box of another class: the smaller box is taken to be in front."


def data_warnings(run: RunFolder) -> list[str]:
    """Say what in the training photos and their hints will hurt."""
    warnings = _tag_warnings(run) if "propose" not in run.stages else _skipped(run)
    overlaps = overlap_sentence(run) if "propose" in run.stages else ""
    return [*warnings, overlaps] if overlaps else warnings


def _skipped(run: RunFolder) -> list[str]:
    skipped = dict.fromkeys(name for stage in run.stages.values() for name in stage.skipped)
    return [f"{len(skipped)} photos could not be read and were left out: {join(list(skipped))}."] if skipped else []


def _tag_warnings(run: RunFolder) -> list[str]:
    matrix, classes = tag_matrix(run, "train"), run.classes
    warnings = _skipped(run)
    if not len(matrix):
        return warnings
    together, counts = matrix.T @ matrix, matrix.sum(axis=0)
    absent = [name for name, n in zip(classes, counts, strict=True) if n == 0]
    if absent:
        warnings.append(f"No training photo has {join(absent)}: never learned.")
    few = [f"{name} ({n})" for name, n in zip(classes, counts, strict=True) if 0 < n < FEW_PHOTOS]
    if few:
        warnings.append(f"Fewer than {FEW_PHOTOS} training photos: {join(few)}.")
    alone = (matrix.sum(axis=1) == 1) @ matrix  # (K,), photos in which a class is the only tag
    bound, never_alone = [], []
    for index, name in enumerate(classes):
        others = [classes[j] for j in range(len(classes)) if j != index and together[index, j] == counts[index]]
        if counts[index] >= ENOUGH_TO_TELL and others:
            bound.append(f"{name} (never without {join(others, limit=3)})")
        elif counts[index] >= ENOUGH_TO_TELL and not alone[index]:
            never_alone.append(name)
    if bound:
        warnings.append(
            f"Tags cannot tell which pixels are which for {join(bound)}: add photos of each alone, or boxes or points."
        )
    if never_alone:
        warnings.append(f"Never the only class of a photo, so learned by contrast only: {join(never_alone)}.")
    if run.background and not (matrix.sum(axis=1) == 0).any():
        warnings.append(
            "No training photo is without objects. Photos with an empty tag list (true negatives) help to learn "
            "what is background."
        )
    return warnings


def protocol(run: RunFolder) -> list[tuple[str, str]]:
    """Say how the numbers came about, as (topic, sentence) pairs."""
    config = run.seen
    lines = [("Recipe", config.recipe)]
    for name, stage in run.stages.items():
        lines.append((f"Stage {name}", _stage_sentence(stage, getattr(config, name))))
    lines.append(("Seed", str(run.manifest.seed)))
    splits = [photo.split for photo in run.photos]
    truth = len({photo.id for photo in run.photos if photo.truth})
    lines.append(
        (
            "Photos",
            f"{splits.count('train')} to learn from, {splits.count('val')} to evaluate on; {truth} have true masks"
            + (", which were used for evaluation only" if run.seen.data.learn_masks is None else "")
            + ".",
        )
    )
    background = "present" if run.background else "none: every pixel belongs to a class, and value 0 is not in the mean"
    lines.append(("Background class", background))
    if run.done("propose"):
        hints = run.manifest.learns_from
        used = "cut out of their boxes; where boxes overlap, the smaller one is in front" if hints == "boxes" else ""
        used = f"Masks of training photos were {used or f'made of their {hints}'}."
        lines.append((f"{hints.capitalize()} at test time", used))
    if run.done("localize") or (run.one_stage and run.done("segment")):
        used = "Seeds and pseudo masks of training photos: classes that are not in the photo's tags are left out."
        lines.append(
            (
                "Tags at test time",
                used + (" The segmentation model sees no tags." if config.segment is not None else ""),
            )
        )
        lines.append(("Class maps", f"{_scales(config.maps)}; {_mirrored(config.maps.flip)}."))
        cut = [stage for stage in MASK_KINDS if run.sweep(stage)] or ["localize"]
        lines += [(f"Threshold of {SWEPT_KINDS[stage]}s", threshold_sentence(run, stage)) for stage in cut]
    if run.done("segment"):
        crf = "with" if config.test.crf else "without"
        lines.append(("Segmenter's test", f"{_scales(config.test)}; {_mirrored(config.test.flip)}; {crf} DenseCRF."))
    return lines


def threshold_sentence(run: RunFolder, stage: Stage) -> str:
    """Say which background threshold cut a stage's masks and where it came from."""
    if not run.background:
        return "None needed: there is no background, each pixel gets the strongest of the photo's classes."
    sweep = run.sweep(stage)
    if sweep is None or sweep.chosen is None:
        return "Not recorded."
    sentence = f"{sweep.chosen:.2f}: {sweep.how.rstrip('.')}."
    if sweep.oracle is not None:
        sentence += f" Ground truth would have chosen {sweep.oracle:.2f} (oracle, for comparison only)."
    return sentence


def _stage_sentence(facts: StageFacts, settings: StageSettings | None) -> str:
    if settings is None:
        return "not in the settings."
    fit = facts.fit or settings.fit
    parts = [settings.method]
    if fit:
        backbone = settings.backbone
        networks = {} if backbone is None else {"backbone": backbone, "stem": backbone.stem}
        parts += [f"{role} {net.name} with weights {net.weights}" for role, net in networks.items() if net]
        names = {"epochs": "epochs", "batch_size": "batch", "crop": "crop", "optimizer": "optimiser", "lr": "rate"}
        parts += [f"{word} {fit[name]}" for name, word in names.items() if name in fit]
    parts += [f"{facts.steps} steps"] if facts.steps else []
    parts += [] if facts.done else ["not finished"]
    return "; ".join(parts) + "."


def _photos(run: RunFolder, split: str) -> list[PhotoRow]:
    return [photo for photo in run.photos if photo.split == split]


def _scales(settings: MapsConfig | TestConfig) -> str:
    scales = settings.scales
    if len(scales) == 1:
        return f"single scale ({scales[0]:g})"
    return f"multi-scale ({', '.join(f'{s:g}' for s in scales)})"


def _mirrored(flip: object) -> str:
    return "without mirrored photo" if flip in (None, False, "none") else "with mirrored photo"
