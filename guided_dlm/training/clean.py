"""Records cleaned of what their texts do not say, by readers that were trained on other lines.

Who writes a text from a record leaves values out and adds others: in E2E two texts in five (1911.03905). A model
that is trained on such pairs learns to guess. Here every record is read again from its text: each slot gets what texts
like it most often go with in the rest of the data.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from guided_dlm.errors import InvalidRequest
from guided_dlm.training.swap import Line, stands_in, swap_values

BUCKETS = 2**20
LONGEST = 4  # words in an n-gram
BATCH = 128
ABSENT = "absent"  # no JSON text


class SlotReader(nn.Module):
    """A linear model from the hashed word n-grams of a text to the value of each slot of its record, or none.

    `lines` say which slots there are, in the order of the longest record, and which values.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        """Set all weights to zero: every value of a slot is as likely as any other."""
        super().__init__()
        records = sorted((record for _, record in lines), key=len, reverse=True)
        slots = list(dict.fromkeys(slot for record in records for slot in record))
        self.values = {
            slot: [ABSENT, *sorted({json.dumps(record[slot]) for record in records if slot in record})]
            for slot in slots
        }
        self.sizes = [len(values) for values in self.values.values()]
        self.weight = nn.EmbeddingBag(BUCKETS, sum(self.sizes), mode="sum", sparse=True)
        nn.init.zeros_(self.weight.weight)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the logits of each slot, float32 `[B, values]`."""
        grams = [list(_hashed(text)) for text in texts]
        lengths = torch.tensor([len(row) for row in grams])
        flat = torch.tensor([gram for row in grams for gram in row])
        logits: Tensor = self.weight(flat, lengths.cumsum(0) - lengths) / 10
        return tuple(logits.split(self.sizes, dim=-1))

    def fit(self, lines: Sequence[Line], swap: Sequence[str], epochs: int, seed: int) -> Iterator[float]:
        """Train on (text, record) lines, the values of `swap` changed anew in every epoch; yield each epoch's loss."""
        optimizer = torch.optim.SparseAdam(self.parameters(), lr=0.03)
        place = {slot: {value: i for i, value in enumerate(values)} for slot, values in self.values.items()}
        for epoch in range(seed, seed + epochs):
            shuffled = swap_values(lines, swap, epoch)
            random.Random(epoch).shuffle(shuffled)
            total = 0.0
            for start in range(0, len(shuffled), BATCH):
                texts, records = zip(*shuffled[start : start + BATCH], strict=True)
                wanted = [torch.tensor([place[slot][_value(record, slot)] for record in records]) for slot in place]
                loss = torch.stack([F.cross_entropy(*pair) for pair in zip(self(texts), wanted, strict=True)]).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(texts)
            yield total / len(shuffled)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return the record of each text: the likeliest value of each slot, left out where that is none."""
        found = []
        for start in range(0, len(texts), BATCH):
            best = torch.stack([logits.argmax(-1) for logits in self(texts[start : start + BATCH])], dim=-1)
            for row in best.tolist():
                chosen = {slot: values[i] for (slot, values), i in zip(self.values.items(), row, strict=True)}
                found.append({slot: json.loads(value) for slot, value in chosen.items() if value != ABSENT})
        return found


def clean_records(
    lines: Sequence[Line], swap: Sequence[str] = (), folds: int = 5, epochs: int = 3, seed: int = 0
) -> list[Line]:
    """Return the (text, record) lines with records read from the texts, texts of one record by the same reader.

    A value that the text says word for word stays; of the others, what the reader finds counts. The reader of a fold
    is trained on the other folds, so it never saw the record it puts right.

    Raises:
        InvalidRequest: there are fewer different records than `folds`, or fewer than two folds.
    """
    keys = [json.dumps(record, sort_keys=True) for _, record in lines]
    different = sorted(set(keys))
    if not 2 <= folds <= len(different):
        raise InvalidRequest(
            f"clean={folds}: records are read in that many parts, at least 2 and at most the {len(different)} "
            "different records."
        )
    random.Random(seed).shuffle(different)
    fold = {key: i % folds for i, key in enumerate(different)}
    cleaned = list(lines)
    with tqdm(total=folds * epochs, desc="cleaning records", disable=None) as bar:
        for part in range(folds):
            reader = SlotReader(lines)
            others = [line for line, key in zip(lines, keys, strict=True) if fold[key] != part]
            for _ in reader.fit(others, swap, epochs, seed):
                bar.update()
            mine = [i for i, key in enumerate(keys) if fold[key] == part]
            for i, found in zip(mine, reader.read([lines[i][0] for i in mine]), strict=True):
                text, record = lines[i]
                said = {slot: value for slot, value in record.items() if stands_in(value, text)}
                merged = found | said
                cleaned[i] = (text, {slot: merged[slot] for slot in reader.values if slot in merged})
    return cleaned


def _value(record: dict[str, Any], slot: str) -> str:
    return json.dumps(record[slot]) if slot in record else ABSENT


def _hashed(text: str) -> Iterator[int]:
    """Yield the bucket of every n-gram of the text's words and marks, its ends being words too."""
    words = ["<s>", *re.findall(r"\w+|[^\w\s]", text.lower()), "</s>"]
    for size in range(1, LONGEST + 1):
        for start in range(len(words) - size + 1):
            yield zlib.crc32(" ".join(words[start : start + size]).encode()) % BUCKETS
