"""Files that the documents point to are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("guided_dlm/weights/*/README.md"),
]
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)\)")
RESULT = re.compile(r"`(benchmarks/[\w./-]+\.\w+)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_results_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [document.parent / link for link in LINK.findall(text)]
    results = [ROOT / name for name in RESULT.findall(text)]
    assert not [str(path) for path in [*links, *results] if not path.exists()]


def test_documents_point_to_files() -> None:
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    assert sum(len(LINK.findall(text)) for text in texts) > 5
    assert sum(len(RESULT.findall(text)) for text in texts) > 5
