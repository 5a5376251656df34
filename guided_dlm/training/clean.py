"""Records cleaned of what their texts do not say, by readers that were trained on other lines.

Who writes a text from a record leaves values out and adds others: in E2E up to two texts in five (1911.03905). A model
that is trained on such pairs learns to guess. Here every record is read again from its text: each slot gets what texts
like it most often go with in the rest of the data.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections import Counter
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
LEAST = 5  # a value of fewer lines is not learnt
MOST = 500  # values; each takes 12 MB
ABSENT = "absent"  # no JSON text
UNKNOWN = -100  # what cross entropy leaves out


class SlotReader(nn.Module):
    """A linear model from the hashed word n-grams of a text to the value of each slot of its record, or none.

    `lines` say which slots and values there are: strings, numbers, booleans and null, in `LEAST` lines or more.

    Raises:
        InvalidRequest: there are more than `MOST` values.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        """Set all weights to zero: every value of a slot is as likely as any other."""
        super().__init__()
        records = sorted((record for _, record in lines), key=len, reverse=True)
        slots = dict.fromkeys(slot for record in records for slot in record)
        often = {slot: Counter(_value(record, slot) for record in records) for slot in slots}
        self.values = {
            slot: [ABSENT, *sorted(value for value in often[slot].keys() - {ABSENT} if _learnt(value, often[slot]))]
            for slot in slots
        }
        self.sizes = [len(values) for values in self.values.values()]
        if sum(self.sizes) > MOST + len(self.sizes):
            most = max(self.values, key=lambda slot: len(self.values[slot]))
            raise InvalidRequest(
                f"Slots have {sum(self.sizes) - len(self.sizes)} values, {most!r} alone {len(self.values[most]) - 1}; "
                f"records are cleaned of up to {MOST}. Leave out clean, or the slot."
            )
        weight = torch.zeros(BUCKETS, sum(self.sizes))
        self.weight = nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode="sum", sparse=True)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the logits of each slot, float32 `[B, values]`."""
        grams = [list(_hashed(text)) for text in texts]
        lengths = torch.tensor([len(row) for row in grams])
        flat = torch.tensor([gram for row in grams for gram in row])
        logits: Tensor = self.weight(flat, lengths.cumsum(0) - lengths) / 10
        return tuple(logits.split(self.sizes, dim=-1))

    def fit(self, lines: Sequence[Line], swap: Sequence[str], epochs: int, seed: int) -> Iterator[float]:
        """Train on (text, record) lines, the values of `swap` changed anew in every epoch; yield each epoch's loss."""
        if not self.values:  # empty records
            yield from [0.0] * epochs
            return
        optimizer = torch.optim.SparseAdam(self.parameters(), lr=0.03)
        place = {slot: {value: i for i, value in enumerate(values)} for slot, values in self.values.items()}
        for epoch in range(seed, seed + epochs):
            shuffled = swap_values(lines, swap, epoch)
            random.Random(epoch).shuffle(shuffled)
            total = 0.0
            for start in range(0, len(shuffled), BATCH):
                texts, records = zip(*shuffled[start : start + BATCH], strict=True)
                wanted = [[place[slot].get(_value(record, slot), UNKNOWN) for record in records] for slot in place]
                losses = [
                    F.cross_entropy(logits, torch.tensor(ids), ignore_index=UNKNOWN, reduction="sum")
                    for logits, ids in zip(self(texts), wanted, strict=True)
                ]
                loss = torch.stack(losses).sum() / len(texts)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(texts)
            yield total / len(shuffled)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return the record of each text: the likeliest value of each slot, left out where that is none."""
        if not self.values:
            return [{} for _ in texts]
        found = []
        for start in range(0, len(texts), BATCH):
            best = torch.stack([logits.argmax(-1) for logits in self(texts[start : start + BATCH])], dim=-1)
            for row in best.tolist():
                chosen = {slot: values[i] for (slot, values), i in zip(self.values.items(), row, strict=True)}
                found.append({slot: json.loads(value) for slot, value in chosen.items() if value != ABSENT})
        return found

    def knows(self, record: dict[str, Any], slot: str) -> bool:
        """Whether it could have read the record's value of the slot."""
        return _value(record, slot) in self.values.get(slot, ())


def clean_records(
    lines: Sequence[Line],
    swap: Sequence[str] = (),
    folds: int = 5,
    epochs: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> list[Line]:
    """Return the (text, record) lines with records read from the texts, texts of one record by the same reader.

    The reader of a fold is trained on the other folds, so it never saw the record it puts right; `swap` as in
    `swap_values`. A value stays that the text says as whole words, or that the reader does not know: lists, objects,
    and what stands in few other records. Slots keep their order; new ones are last, or in the order of the longest
    record where the others are. It takes 12 MB a value.

    Raises:
        InvalidRequest: there are fewer different records than `folds`, fewer than two folds, no epoch, or too many
            values, see `SlotReader`.
    """
    keys = [json.dumps(record, sort_keys=True) for _, record in lines]
    different = sorted(set(keys))
    if not 2 <= folds <= len(different) or epochs < 1:
        raise InvalidRequest(
            f"folds={folds}, epochs={epochs}: records are cleaned in at least 2 folds, each read by the others, and at "
            f"most as many as there are different records, {len(different)}; epochs are 1 or more."
        )
    random.Random(seed).shuffle(different)
    fold = {key: i % folds for i, key in enumerate(different)}
    cleaned = list(lines)
    with tqdm(total=folds * epochs, desc="cleaning records", disable=not progress) as bar:
        for part in range(folds):
            others = [line for line, key in zip(lines, keys, strict=True) if fold[key] != part]
            reader = SlotReader(others)
            for _ in reader.fit(others, [slot for slot in swap if _two(others, slot)], epochs, seed):
                bar.update()
            mine = [i for i, key in enumerate(keys) if fold[key] == part]
            for i, found in zip(mine, reader.read([lines[i][0] for i in mine]), strict=True):
                cleaned[i] = (lines[i][0], _merged(reader, lines[i], found))
    return cleaned


def _merged(reader: SlotReader, line: Line, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found in a text, but for the values of its record that stay."""
    text, record = line
    stays = {slot: v for slot, v in record.items() if stands_in(v, text) or not reader.knows(record, slot)}
    merged = found | stays
    order = list(reader.values)
    own = [slot for slot in record if slot in merged]
    if own == sorted(own, key=lambda slot: order.index(slot) if slot in order else len(order)):
        return {slot: merged[slot] for slot in dict.fromkeys([*order, *own]) if slot in merged}
    return {slot: merged[slot] for slot in dict.fromkeys([*own, *order]) if slot in merged}


def _two(lines: Sequence[Line], slot: str) -> bool:
    """Whether a slot has two strings to swap."""
    return len({record[slot] for _, record in lines if isinstance(record.get(slot), str)}) > 1


def _learnt(value: str, often: Counter[str]) -> bool:
    return often[value] >= LEAST and not isinstance(json.loads(value), list | dict)


def _value(record: dict[str, Any], slot: str) -> str:
    return json.dumps(record[slot]) if slot in record else ABSENT


def _hashed(text: str) -> Iterator[int]:
    """Yield the bucket of every n-gram of the text's words and marks, its ends being words too."""
    words = ["<s>", *re.findall(r"\w+|[^\w\s]", text.lower()), "</s>"]
    for size in range(1, LONGEST + 1):
        for start in range(len(words) - size + 1):
            yield zlib.crc32(" ".join(words[start : start + size]).encode()) % BUCKETS
