"""Pairs of a text and a JSON record, as prompts and completions in both directions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from guided_dlm.errors import InvalidRequest
from guided_dlm.training.clean import clean_records
from guided_dlm.training.data import read_lines
from guided_dlm.training.swap import swap_values

Pair = tuple[str, str]


def record_text(record: Any) -> str:
    """Return a record as one line of compact JSON, the form that models are trained on."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def as_prompt(source: str) -> str:
    """Return a text or a record's text as the prompt that asks for its counterpart: one line, and its end."""
    return " ".join(source.split()) + "\n"


def read_pairs(
    source: str,
    field: str,
    swap: Sequence[str] = (),
    readings: int = 1,
    seed: int = 0,
    clean: int = 0,
    progress: bool = False,
) -> list[Pair]:
    """Return (prompt, completion) from a `.jsonl` file of {"text": ..., field: {...}}: two pairs a line, one each way.

    With `clean` the records are first read again from their texts, in so many folds: see `clean_records`. Values of the
    slots `swap` are changed for others of the file, in text and record: see `swap_values`. With more `readings` there
    are as many pairs from text to record, each with swaps of its own.

    Raises:
        InvalidRequest: nothing is found there, a line lacks either of the two, a slot of `swap` lacks two values, or
            records cannot be cleaned.
    """
    lines = []
    for line, where in read_lines(source):
        text, record = line.get("text"), line.get(field)
        if not isinstance(text, str) or not text.strip() or not isinstance(record, dict):
            raise InvalidRequest(f'{where}: expected a "text" and an object {field!r}, got {str(line)[:80]}.')
        lines.append((" ".join(text.split()), record))
    if not lines:
        raise InvalidRequest(f"{source!r} holds no pairs.")
    if clean:
        lines = clean_records(lines, swap, folds=clean, seed=seed, progress=progress)
    pairs = []
    for reading in range(readings):
        for text, record in swap_values(lines, swap, seed + reading):
            written = record_text(record)
            pairs.append((as_prompt(text), written))
            if reading == 0:
                pairs.append((as_prompt(written), text))
    return pairs


def encode_pairs(pairs: list[Pair], tokenizer: Any, canvas: int) -> list[dict[str, Any]]:
    """Return one example per pair that fits the canvas: {"input_ids", "begin", "length"}.

    `begin` is where the completion begins; `length` counts prompt, completion and the end.
    """
    if not pairs:
        return []
    prompts, completions = (
        tokenizer(list(side), add_special_tokens=False)["input_ids"] for side in zip(*pairs, strict=True)
    )
    joined = [
        (len(prompt), [*prompt, *completion, tokenizer.eos_token_id])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return [{"input_ids": ids, "begin": begin, "length": len(ids)} for begin, ids in joined if len(ids) <= canvas]
