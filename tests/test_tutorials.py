"""Every tutorial runs from the first cell to the last, and the committed notebook is that run."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

SPEC = importlib.util.spec_from_file_location("notebooks", Path(__file__).with_name("notebooks.py"))
assert SPEC is not None
assert SPEC.loader is not None
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)

SCRIPTS = notebooks.scripts()
FRAME = (
    "You will learn",
    "The idea in ten lines of NumPy",
    "Build it",
    "Check it against the oracle",
    "Numbers",
    "Exercises",
    "Summary",
)

# The Jupyter client's own sockets and event loops warn on some platforms; the cells run in another process.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_tutorials() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_tutorial_runs(script: Path) -> None:
    notebook = notebooks.execute(script)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in FRAME] == list(FRAME)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any("assert" in cell.source for cell in code), "a tutorial checks what it says"
    for cell in code:
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt"), "a picture needs alternative text"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_committed_notebook_is_current(script: Path) -> None:
    """The cells are the script's and each was executed without error: `make notebooks` writes it anew."""
    committed = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    expected = notebooks.source(script)
    assert [(c.cell_type, c.source) for c in committed.cells] == [(c.cell_type, c.source) for c in expected.cells]
    executed = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert executed == list(range(1, len(executed) + 1))
