"""Networks that read syntax off noisy canvases: where they are, and how they are loaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from guided_dlm.errors import InvalidRequest, shorten
from guided_dlm.parsing.reader import SyntaxReader, SyntaxReaderConfig

SHIPPED, READERS = Path(__file__).parent / "data", ("restaurant-syntax",)


def find_reader(name: object) -> Path:
    """Return the folder of a reader: of one that comes along by its name, or the folder itself.

    Raises:
        InvalidRequest: there is none.
    """
    shipped = SHIPPED / name if isinstance(name, str) and name in READERS else None
    folder = shipped or (Path(name) if isinstance(name, str | Path) else None)
    config = folder / "config.json" if folder is not None else None
    if config is None or not config.is_file() or SyntaxReaderConfig.model_type not in config.read_text():
        raise InvalidRequest(
            f"model={name!r} is no syntax reader; {', '.join(READERS)} comes along, and guided-dlm "
            "train-syntax-reader writes folders of others."
        )
    assert folder is not None
    return folder.resolve()


def load_reader(name: str, device: str) -> tuple[SyntaxReader, Any]:
    """Return a reader on a device, and its tokenizer.

    Raises:
        InvalidRequest: there is none, or its files are damaged.
    """
    folder = find_reader(name)
    return _load(folder, tuple(file.stat().st_mtime_ns for file in sorted(folder.glob("*.*"))), device)


@lru_cache(maxsize=4)
def _load(folder: Path, written: tuple[int, ...], device: str) -> tuple[SyntaxReader, Any]:
    """Load a folder once for each device, and each time that it is written."""
    try:
        reader = SyntaxReader.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
        reader.to(device).eval()  # type: ignore[arg-type]
        return reader, AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"The syntax reader in {str(folder)!r} could not be loaded: {shorten(str(error), 200)}"
        ) from error
