"""Label Studio: its JSON export, JSON-MIN, CSV, and tasks with predictions.

Coordinates are percent of the picture's width and height. Of several annotations of a task one counts: the one that is
marked as ground truth, else the latest; cancelled ones never do. A task without annotations is unlabelled, unless it
has predictions: then those are read. Turning the picture in the tool turns the view, not the coordinates.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import is_file, read_json, read_xml
from hintseg.formats.codec import Fit, Written
from hintseg.formats.gather import IGNORED, gather
from hintseg.formats.json_files import find_json, holds_json, split_of
from hintseg.formats.label_studio_table import rows
from hintseg.formats.label_studio_task import Task, tasks_of
from hintseg.formats.label_studio_writer import write_tasks
from hintseg.formats.layout import CLASS_LIST, is_background, read_classes, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Labels, Reading, Record
from hintseg.formats.tables import find_kind, is_table
from hintseg.types import HintSet, Supervision

TAG_QUESTIONS = frozenset({"tag", "tags", "class", "classes", "category", "categories"})
"""Names of questions whose answers are classes, whatever else the file holds."""

CHOICE_QUESTIONS = TAG_QUESTIONS | {"choice", "choices", "label", "labels"}
"""Names of questions whose answers are classes rather than those of others, such as a comment."""


class LabelStudio:
    """Label Studio JSON and CSV: boxes, polygons, brush, keypoints, choices."""

    name = "label_studio"
    carries = frozenset(Supervision)
    sign = "a JSON list of tasks with data and annotations, or a table with annotation_id"
    writes = carries

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for a JSON list of tasks, or a table with the header of its CSV."""
        if find_kind(path, labels, "label_studio"):
            return Fit.YES
        if labels is None:
            return Fit.YES if find_json(path, None, self.name) else Fit.NO
        return Fit.YES if holds_json(labels, self.name) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read exported tasks.

        Choices are tags where the file has no regions, where they name classes that regions have too, or where a
        `classes.txt` lists them; other questions, such as the weather, are left out with a note.

        Args:
            path: Folder of the data set.
            labels: The JSON or CSV file, or a folder of them; None looks for it.
            reading: How it is to be read.

        Raises:
            LabelError: There is no label file, or all problems of the files at once.
        """
        files = find_kind(path, labels, "label_studio") or find_json(path, labels, self.name)
        if not files:
            raise LabelError(
                f"there is no Label Studio JSON or CSV in {labels or path}; name the label file with labels=FILE"
            )
        problems = Problems()
        tasks = [(file, task) for file in files for task in _load(file, problems)]
        folder = find_photos(path, missing=reading.missing)
        listed = read_classes(path, files[0], problems, background=reading.background)
        labels_of, choices_of = _config(files[0].parent)
        notes = _notes([task for _, task in tasks])
        named = {item.label for _, task in tasks for item in task.items} | set(labels_of)
        words = _words([task for _, task in tasks])
        asked = _questions([task for _, task in tasks], words, named, listed, notes)
        chosen = {
            (file, place): tuple(dict.fromkeys(words[way] for one in asked for way in task.choices.get(one, ())))
            for place, (file, task) in enumerate(tasks)
        }
        classes = listed
        if classes is None and (labels_of or choices_of):
            known = [*labels_of, *(word for one in asked for word in choices_of.get(one, ()))]
            every = dict.fromkeys([*known, *sorted(named.union(*chosen.values()))])
            classes = tuple(one for one in every if one and one != IGNORED and not _no_class(one, reading))
        records = [
            Record(
                task.names[0],
                tuple(task.items),
                tags=chosen[file, place] if chosen[file, place] or not task.items else None,
                size=task.size,
                relative=task.size is None and bool(task.items),
                split=split_of(file) if len(files) > 1 else None,
                also=task.names[1:],
                where=file.name,
                line=task.line,
            )
            for place, (file, task) in enumerate(tasks)
            if task.said
        ]
        source = join([file.name for file in files])
        splits = {} if len(files) > 1 else read_splits(path, folder, problems)
        said = Labels(tuple(records), source, classes, splits, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write tasks with predictions, `tasks.json`, and the labeling config that fits them."""
        return write_tasks(hint_set, out)


def _load(file: Path, problems: Problems) -> list[Task]:
    content = rows(file) if is_table(file) else read_json(file, LabelError, "it may be cut off: export it again")
    tasks = [content] if isinstance(content, dict) else content
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise LabelError(f"{file.name} is no Label Studio export: it must be a list of tasks")
    try:
        return list(tasks_of(tasks))
    except LabelError as error:
        problems.add(file.name, str(error))
        problems.raise_all()
        raise


def _no_class(name: str, reading: Reading) -> bool:
    return reading.background and is_background(name)


def _notes(tasks: Sequence[Task]) -> list[str]:
    """Return what was chosen among annotations, and what is not read."""
    notes = []
    if several := sum(task.annotations > 1 for task in tasks):
        notes.append(f"{several} tasks have several annotations; the ground truth, or else the latest, counts")
    models = Counter(task.model for task in tasks if task.model and task.said)
    if models:
        names = join([shown(name) for name in sorted(models)])
        notes.append(f"{sum(models.values())} tasks have no annotation; the predictions of {names} are read instead")
    if silent := sum(not task.said for task in tasks):
        notes.append(f"{silent} tasks have no annotation that counts and stay unlabelled")
    if turned := sum(task.turned for task in tasks):
        notes.append(f"{turned} photos were turned in Label Studio; that turns the view, not the coordinates")
    if boxes := sum(task.turned_boxes for task in tasks):
        notes.append(f"{boxes} boxes are turned; their four corners are taken for the object's outline")
    left = sum((task.left_out for task in tasks), Counter[str]())
    notes.extend(f"{count} results of the type {shown(kind)} are left out" for kind, count in sorted(left.items()))
    return notes


def _words(tasks: Sequence[Task]) -> dict[tuple[str, ...], str]:
    """Return the class of each choice: the last step of its path, the whole path where two end alike."""
    paths = {path for task in tasks for chosen in task.choices.values() for path in chosen}
    ends = Counter(path[-1] for path in paths)
    return {path: path[-1] if ends[path[-1]] == 1 else " / ".join(path) for path in paths}


def _questions(
    tasks: Sequence[Task],
    words: dict[tuple[str, ...], str],
    named: set[str],
    listed: tuple[str, ...] | None,
    notes: list[str],
) -> list[str]:
    """Return the questions whose answers are classes; a note says which are not."""
    answers: dict[str, set[str]] = defaultdict(set)
    for task in tasks:
        for question, chosen in task.choices.items():
            answers[question] |= {words[path] for path in chosen}
    asked = []
    sure = [question for question in answers if question.lower() in CHOICE_QUESTIONS]
    for question, given in sorted(answers.items()):
        known = named if listed is None else set(listed)
        if (
            question.lower() in TAG_QUESTIONS
            or given & known
            or (not named and listed is None and (question in sure or not sure))
        ):
            asked.append(question)
        else:
            some = join(sorted(map(shown, given)), limit=4)
            notes.append(
                f"the answers to '{shown(question)}' ({some}) are taken for properties of the photo and left out; if "
                f"they are classes, list them in {CLASS_LIST}"
            )
    if len(asked) > 1:
        notes.append(f"the answers to {len(asked)} questions are tags: {join([shown(one) for one in asked])}")
    return asked


def _config(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the labels and, by question, the choices of the labeling config in a folder, in their order."""
    labels, choices = list[str](), dict[str, list[str]]()
    for file in sorted(folder.glob("*.xml")):
        root = read_xml(file, LabelError, "write it again") if is_file(file) and b"<View" in file.read_bytes() else None
        if root is None or root.tag != "View":
            continue
        for element in root.iter():
            values: list[Any] = [child.get("value") for child in element.iter() if child.tag in ("Label", "Choice")]
            if element.tag.endswith("Labels"):
                labels += [value for value in values if value]
            elif element.tag in ("Choices", "Taxonomy"):
                choices[element.get("name") or "choice"] = [value for value in values if value]
    return labels, choices
