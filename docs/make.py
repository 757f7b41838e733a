"""Write the pages that the code says itself: the settings reference, and the head of each method's page.

python docs/make.py            write them
python docs/make.py --check    write nothing; exit 1 where they are not what the code says
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hintseg.config.describe import BLOCKS, Description, Setting, describe
from hintseg.config.loader import read_recipe, recipe_names, summary
from hintseg.registry import LABELLERS, METHODS, OBJECTIVES, REFINERS, WRAPPERS

DOCS = Path(__file__).parent
SETTINGS = "reference/settings.md"
END = "<!-- end of what the code says; docs/make.py writes all above -->\n"
"""What is above belongs to the code, what is below to people."""

PAGES = {"methods": [*METHODS, *WRAPPERS], "refiners": list(REFINERS)}
"""What has a page below `methods/`, by the kind that `describe` knows."""


def pages(docs: Path = DOCS) -> Iterator[tuple[str, str]]:
    """Yield each page's path below `docs`, and its text as it should be."""
    yield SETTINGS, settings_page()
    yield "methods/index.md", index_page()
    for kind, names in PAGES.items():
        for name in names:
            page = docs / "methods" / f"{name}.md"
            written = page.read_text(encoding="utf-8") if page.is_file() else END
            yield f"methods/{name}.md", head(describe(kind, name)) + END + written.partition(END)[2]


def settings_page() -> str:
    """Return the reference of all settings."""
    parts = [
        "# Settings\n",
        "Every setting with its default, what it may be, and what it does, as the code says it. On the command line a "
        "setting is a word `NAME=VALUE`, such as `localize.fit.epochs=10`; in a recipe file it is YAML. "
        "`hintseg list methods NAME` prints the same.\n\n"
        "A run has a block for each stage (`propose`, `localize`, `refine`, `segment`), with the settings of its "
        "method and, where it trains a network, the blocks `backbone` and `fit`.\n",
        "## What belongs to no method\n",
        *(section("settings", name, f"`{name}`") for name in BLOCKS),
        "## Methods\n",
        *(section("methods", name, name) for name in [*METHODS, *WRAPPERS]),
        "## Refiners that do not learn\n",
        *(section("refiners", name, name) for name in REFINERS),
        "## Labellers that do not learn\n",
        *(section("labellers", name, name) for name in LABELLERS if name not in METHODS),
        "## Objectives\n",
        'Blocks of the list `segment.objectives`. Those "of" a method are set by its own settings.\n',
        *(section("objectives", name, name) for name in OBJECTIVES),
    ]
    return "\n".join(parts)


def section(kind: str, name: str, title: str) -> str:
    """Return the settings of one thing, under a heading."""
    found = describe(kind, name)
    about = f"{found.summary[0].upper()}{found.summary[1:]}."
    if kind in ("methods", "refiners"):
        about += f" [Its page](../methods/{name}.md)."
    return f"### {title}\n\n{about}\n\n{table(found.settings, found.key)}\n"


def table(settings: Sequence[Setting], key: str) -> str:
    """Return settings as a table, with their dotted names."""
    lines = ["| setting | default | may be | meaning |", "|---|---|---|---|"]
    for one in settings:
        name = one.name if not key or key == "segment.objectives" else f"{key}.{one.name}"
        default = "needed" if one.default is None else "its own" if one.default == "{...}" else f"`{one.default}`"
        cells = [f"`{name}`", default, one.allowed, one.meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def head(found: Description) -> str:
    """Return the head of a method's page: what it is, where it comes from, its settings."""
    module = {**METHODS, **WRAPPERS, **REFINERS}[found.name].target.partition(":")[0]
    recipes = [f"`{name}`" for name in recipe_names() if uses(name, found.name)]
    facts = [
        *found.facts.items(),
        *([("recipes", ", ".join(recipes))] if recipes else []),
        ("code", f"`{module}`"),
        ("all about it", f"`hintseg list {'refiners' if found.name in REFINERS else 'methods'} {found.name}`"),
    ]
    lines = [f"# {found.name}\n", "| | |", "|---|---|", *(f"| {fact} | {text} |" for fact, text in facts), ""]
    parts = ["\n".join(lines), found.text.replace("``", "`") + "\n"]
    if found.source:
        parts.append(f"Source: {' '.join(found.source.split())}\n")
    own = [one for one in found.settings if one.default != "{...}"]
    if own:
        parts.append(f"## Settings\n\n{table(own, found.key)}\n")
        if len(own) < len(found.settings):
            parts.append(
                "`backbone` and `fit` are as [everywhere](../reference/settings.md#what-belongs-to-no-method).\n"
            )
    return "\n".join(parts) + "\n"


def uses(recipe: str, name: str) -> bool:
    """Return whether a recipe names a method."""
    blocks = read_recipe(recipe)
    return name in blocks or any(block.get("method") == name for block in blocks.values() if isinstance(block, dict))


def index_page() -> str:
    """Return the list of methods and recipes."""
    about = "Each page says the idea, where each equation stands in the code, and where hintseg differs.\n"
    lines = ["# Methods\n", about, "| method | what it is |", "|---|---|"]
    for kind, names in PAGES.items():
        lines += [f"| [{name}]({name}.md) | {describe(kind, name).summary} |" for name in names]
    about = "A recipe names the stages and their settings; `hintseg list recipes NAME` shows them.\n"
    lines += ["\n## Recipes\n", about, "| recipe | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {summary(name)} |" for name in recipe_names()]
    return "\n".join(lines) + "\n"


def write(*, check: bool = False, docs: Path = DOCS) -> list[str]:
    """Write all pages, or with `check` none; return those that were not as the code says."""
    changed = []
    for name, text in pages(docs):
        page = docs / name
        text = re.sub(r"[ \t]+\n", "\n", text)
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            changed.append(name)
            if not check:
                page.parent.mkdir(parents=True, exist_ok=True)
                page.write_text(text, encoding="utf-8", newline="\n")
    return changed


def main() -> None:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where pages differ")
    args = parser.parse_args()
    changed = write(check=args.check)
    for one in changed:
        sys.stdout.write(f"{'differs' if args.check else 'written'}: {one}\n")
    sys.exit(1 if args.check and changed else 0)


if __name__ == "__main__":
    main()
