"""Read texts, turn them into canvases, and batch canvases with a random tail."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided_dlm.errors import InvalidRequest


def read_texts(source: str, split: str = "train") -> list[str]:
    """Return the texts of a `.txt` or `.jsonl` file (may end in `.gz`; field "text"), or of a `datasets` name.

    Raises:
        InvalidRequest: nothing is found there, a line is no JSON object with a "text", or there is no text at all.
    """
    path = Path(source)
    if path.is_file():
        texts = _read_file(path)
    elif path.suffix in {".txt", ".jsonl", ".gz"}:
        raise InvalidRequest(f"There is no file {source!r}. Give a .txt or .jsonl file, or a datasets name.")
    else:
        texts = _load_dataset(source, split)
    texts = [" ".join(text.split()) for text in texts if text.strip()]
    if not texts:
        raise InvalidRequest(f"{source!r} holds no text.")
    return texts


def _read_file(path: Path) -> list[str]:
    if ".jsonl" not in path.suffixes:
        return _raw_lines(path)
    return [_text_of(record, where) for record, where in read_lines(str(path))]


def _raw_lines(path: Path) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            return list(file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} could not be read: {error}.") from error


def read_lines(source: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the objects of a `.jsonl` file (may end in `.gz`), each with the place to name in an error.

    Raises:
        InvalidRequest: there is no such file, or a line is no JSON object.
    """
    path = Path(source)
    if not path.is_file():
        raise InvalidRequest(f"There is no file {source!r}. Give a .jsonl file, which may end in .gz.")
    for number, line in enumerate(_raw_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"{where}: this is no JSON ({error.msg} at column {error.colno}).") from error
        if not isinstance(record, dict):
            raise InvalidRequest(f"{where}: expected an object, got {line.strip()[:80]}.")
        yield record, where


def _text_of(record: dict[str, Any], where: str) -> str:
    if not isinstance(record.get("text"), str):
        raise InvalidRequest(f'{where}: expected an object with a text in its field "text", got {str(record)[:80]}.')
    return str(record["text"])


def _load_dataset(name: str, split: str) -> list[str]:
    try:
        import datasets
    except ImportError as error:
        raise InvalidRequest(f"{name!r} is no file; for a datasets name, pip install 'guided-dlm[train]'.") from error
    try:
        return list(datasets.load_dataset(name, split=split)["text"])
    except Exception as error:  # the library raises a dozen kinds, all of them about this name
        raise InvalidRequest(
            f'{name!r} is neither a file nor a dataset with a split {split!r} and a column "text": '
            f"{type(error).__name__}: {error}"
        ) from error


def encode_texts(texts: list[str], tokenizer: Any, canvas: int) -> list[dict[str, Any]]:
    """Return one example per text that fits the canvas with its end: {"input_ids", "length"} (end included)."""
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    examples = [[*ids, tokenizer.eos_token_id] for ids in encoded if ids and len(ids) < canvas]
    return [{"input_ids": ids, "length": len(ids)} for ids in examples]


class CanvasCollator:
    """Pads a batch to a common canvas: the longest text plus a random tail, and the full canvas now and then.

    The model must know the tail at every length it will be asked for, but filling every batch to the full canvas
    would spend most of the work on padding.
    """

    def __init__(self, pad_id: int, canvas: int, full_share: float = 0.25, max_tail: int = 12, seed: int = 0) -> None:
        """Draw tails from `seed` and the batch itself, so that a resumed run repeats an uninterrupted one.

        `full_share=1` always pads to the canvas.
        """
        self.pad_id, self.canvas, self.full_share, self.max_tail = pad_id, canvas, full_share, max_tail
        self.seed = seed

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return {"input_ids": int64 `[B, L]`, "length": int64 `[B]`, "begin": int64 `[B]`, 0 without a prompt}."""
        length_B = torch.tensor([example["length"] for example in examples])
        draw = random.Random(f"{self.seed} {[example['input_ids'] for example in examples]}")
        if draw.random() < self.full_share:
            size = self.canvas
        else:
            tail = draw.randint(0, self.max_tail)
            size = min(self.canvas, int(length_B.max()) + tail)
        tokens_BL = torch.full((len(examples), size), self.pad_id)
        for row, example in enumerate(examples):
            tokens_BL[row, : example["length"]] = torch.tensor(example["input_ids"])
        begin_B = torch.tensor([example.get("begin", 0) for example in examples])
        return {"input_ids": tokens_BL, "length": length_B, "begin": begin_B}
