"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hintseg.hints.check import CheckReport

WIDEST_MATRIX = 24
"""More classes than this make a matrix no terminal shows: the strongest entries are listed; `--json` has it."""


def check_tables(report: CheckReport) -> Iterator[RenderableType]:
    """Yield what `hintseg check` prints, in reading order."""
    kinds = ", ".join(f"{count} with {kind}" for kind, count in report.hints.items() if count) or "no hints"
    lines = [
        f"{report.name}: {report.photos} photos, {len(report.classes)} classes; {kinds}",
        f"one tag {report.single_tag_share:.0%}, several tags {report.multi_tag_share:.0%} of the tagged photos; "
        f"{report.negatives} negatives, {len(report.unlabelled)} unlabelled, {len(report.unreadable)} unreadable",
    ]
    if report.splits:
        lines.append("splits: " + ", ".join(f"{name} {count}" for name, count in report.splits.items()))
    if report.sizes:
        shown = ", ".join(f"{name} {w}x{h}" for name, (w, h) in report.sizes.items())
        lines.append(f"sizes: {shown} ({report.distinct_sizes} different)")
    yield Text("\n".join(lines))

    square = len(report.classes) <= WIDEST_MATRIX
    table = Table(
        "id", "class", "photos", "alone (train)", "objects", *([] if square else ["comes with (together, %)"])
    )
    for label, name in enumerate(report.classes, start=1):
        counts = (report.photos_per_class[name], report.alone_per_class[name], report.objects_per_class[name] or "-")
        table.add_row(str(label), name, *map(str, counts), *([] if square else [_company(report, label - 1)]))
    yield table
    if square and len(report.classes) > 1:
        yield _matrix(report, "photos with both classes", report.cooccurrence)
        percent = [[round(100 * value) or (value and "<1") for value in row] for row in report.prior]
        title = "together, %: what comes with the row's class in training photos (diagonal: it is alone)"
        yield _matrix(report, title, percent)
    for heading, sentences in (
        ("unreadable photos", list(report.unreadable.values())),
        ("labels that do not fit", list(report.problems)),
        ("notes", list(report.notes)),
        ("what will hurt", list(report.verdicts) or ["nothing found"]),
    ):
        if sentences:
            yield Text(f"\n{heading}:", style="bold")
            yield Text("\n".join(f"- {sentence}" for sentence in sentences[:20]))
            if len(sentences) > 20:
                yield Text(f"... and {len(sentences) - 20} more; --json has all")


def _company(report: CheckReport, index: int, limit: int = 3) -> str:
    """Return the classes that most often come with one, and how often it is alone."""
    row = report.prior[index]
    first = sorted((j for j, value in enumerate(row) if value), key=lambda j: -row[j])[:limit]
    return ", ".join(f"{'alone' if j == index else report.classes[j]} {100 * row[j]:.0f}" for j in first)


def _matrix(report: CheckReport, title: str, values: Sequence[Sequence[float | str]]) -> Table:
    table = Table(title=title, title_justify="left", padding=(0, 0), collapse_padding=True)
    table.add_column("")
    for label in range(1, len(report.classes) + 1):
        table.add_column(str(label), justify="right")
    for label, (name, row) in enumerate(zip(report.classes, values, strict=True), start=1):
        table.add_row(f"{label} {name}", *(str(count) if count else "." for count in row))
    return table
