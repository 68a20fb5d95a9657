"""Execute the tutorials (`tutorials/*.py`, jupytext percent scripts) and write each with its outputs as a notebook.

python tests/notebooks.py [NAME ...]     all, or those whose file name contains one of the words
"""

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[1] / "tutorials"
SECONDS_PER_CELL = 300


def scripts() -> list[Path]:
    return sorted(TUTORIALS.glob("[0-9]*.py"))


def source(script: Path) -> nbformat.NotebookNode:
    """The notebook without outputs, with stable cell numbers."""
    notebook = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def execute(script: Path) -> nbformat.NotebookNode:
    """Run every cell in the tutorials folder; an exception in a cell is an exception here."""
    notebook = source(script)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(TUTORIALS)}},
    )
    return client.execute()


def write(script: Path) -> Path:
    target = script.with_suffix(".ipynb")
    temporary = target.with_suffix(".ipynb.new")
    notebook = execute(script)
    notebook.metadata["language_info"] = {"name": "python"}  # not the version that happened to run it
    nbformat.write(notebook, temporary)
    os.replace(temporary, target)
    return target


if __name__ == "__main__":
    for path in scripts():
        if not sys.argv[1:] or any(word in path.name for word in sys.argv[1:]):
            print(write(path).name, flush=True)
