"""Every notebook runs from top to bottom."""

import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_without_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel would inherit it, and show no pictures
    notebook = nbformat.read(path, as_version=4)
    with warnings.catch_warnings():
        # Warnings of the notebook's own client (event loops, sockets), which runs outside the notebook's kernel.
        warnings.simplefilter("default")
        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    images = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert images, f"{path.name} draws nothing"


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {
        "01_first_sample",
        "02_compose",
        "03_structured_output",
        "04_your_classifier",
        "05_write_a_constraint",
        "06_syntax",
        "07_families",
        "08_coherence",
    }
