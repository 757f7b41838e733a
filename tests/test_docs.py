"""Pages that the code says itself are as it says; pages that people write name what there is."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "PROVENANCE.md"))])


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """docs/make.py."""
    spec = spec_from_file_location("docs_make", DOCS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_and_heads_are_as_the_code_says(make: ModuleType) -> None:
    assert make.write(check=True) == [], "run `python docs/make.py`"


def test_a_page_keeps_what_people_wrote(make: ModuleType, tmp_path: Path) -> None:
    make.write(docs=tmp_path)
    page = tmp_path / "methods" / "par.md"
    page.write_text("old" + page.read_text() + "\nBy a person.\n")
    assert make.write(check=True, docs=tmp_path) == ["methods/par.md"]
    assert page.read_text().startswith("old")
    assert make.write(docs=tmp_path) == ["methods/par.md"]
    assert page.read_text().endswith("\nBy a person.\n")
    assert make.write(docs=tmp_path) == []


def test_every_method_page_says_where_and_why(make: ModuleType) -> None:
    for names in make.PAGES.values():
        for name in names:
            written = (DOCS / "methods" / f"{name}.md").read_text().partition(make.END)[2]
            heads = re.findall(r"^## (.*)$", written, re.MULTILINE)
            assert [head.split()[0] for head in heads] == ["The", "Where", "Where", "Results"], name


def names() -> Iterator[tuple[str, str]]:
    """Yield each name of our code in the pages: `hintseg.room.file.Thing`."""
    for page in PAGES:
        for found in re.finditer(r"`(hintseg(?:\.\w+)+)`", page.read_text(encoding="utf-8")):
            yield page.name, found[1]


def test_code_that_pages_name_is_there() -> None:
    wrong = [f"{page}: {name}" for page, name in names() if not there(name)]
    assert not wrong, "\n".join(wrong)


ENTRY_POINTS = {"hintseg.methods", "hintseg.objectives", "hintseg.labellers", "hintseg.formats"}


def there(name: str) -> bool:
    """Return whether a module, or an attribute of one, is called so."""
    if name in ENTRY_POINTS:
        return True
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def constants() -> list[str]:
    """Return every text in the code, the constant parts of those with placeholders each by itself."""
    found = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_errors_are_called_what_the_code_says() -> None:
    """The headings of the page are texts of the code; X stands for what differs."""
    texts = constants()
    headings = re.findall(r"^### `(.*)`$", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) > 30
    for heading in headings:
        parts = [part.strip() for part in re.split(r"\bX\b", heading) if part.strip("' ()")]
        missing = [part for part in parts if not any(part in text for text in texts)]
        assert not missing, f"'{heading}': no such text in the code: {missing}"


def test_the_site_builds_without_a_warning_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("mkdocs.yml", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)", text)
        assert not asked, f"{page.name} loads {asked}"
    assert "Add something in one file" in (tmp_path / "site" / "contributing.html").read_text(encoding="utf-8")


def test_every_page_has_a_place_in_the_site() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert named == there


def test_notebooks_are_those_of_their_scripts() -> None:
    for script in (DOCS / "notebooks").glob("*.py"):
        cells = [cell.source for cell in jupytext.read(script).cells]
        notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
        assert [cell.source for cell in notebook.cells] == cells, "run `make notebook`"
        assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
