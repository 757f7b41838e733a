"""Make notebooks of the scripts in docs/notebooks, run them, and keep them with their pictures.

python docs/run_notebook.py            into docs/notebooks
python docs/run_notebook.py FOLDER     into another folder
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

SCRIPTS = Path(__file__).parent / "notebooks"
SECONDS = 600
"""The longest that a cell may take."""


def run(script: Path, out: Path) -> Path:
    """Run the cells of a script, and return the notebook that holds them and what they showed.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = jupytext.read(script)
    notebook = nbformat.from_dict(notebook)  # of this format's own kind
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same every time
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", record_timing=False).execute(
        cwd=str(script.parent)
    )
    file = out / script.with_suffix(".ipynb").name
    nbformat.write(notebook, file)
    return file


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SCRIPTS
    for script in sorted(SCRIPTS.glob("*.py")):
        sys.stdout.write(f"written: {run(script, folder)}\n")
