"""What every benchmark prints first, and how its figures are kept: a JSON file beside a Markdown table."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The processor's name as the system gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def conditions(**more: Any) -> dict[str, Any]:
    """Machine, versions and settings of a run."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **more,
    }


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def publish(
    name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], settings: dict[str, Any]
) -> None:
    """Print the table with its conditions and write both forms to benchmarks/results."""
    RESULTS.mkdir(exist_ok=True)
    said = ", ".join(f"{key} {value}" for key, value in settings.items())
    text = f"# {title}\n\n{said}\n\n{markdown(header, rows)}\n"
    print(text)
    (RESULTS / f"{name}.md").write_text(text)
    records = [dict(zip(header, row, strict=True)) for row in rows]
    (RESULTS / f"{name}.json").write_text(json.dumps({"conditions": settings, "rows": records}, indent=1) + "\n")
