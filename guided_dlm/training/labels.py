"""Labelled texts: the label as a prompt, forgotten now and then, so that one model serves classifier-free guidance."""

from __future__ import annotations

import random
from typing import Any

from torch.utils.data import Dataset

from guided_dlm.errors import InvalidRequest
from guided_dlm.training.data import read_lines
from guided_dlm.training.pairs import Pair, as_prompt


def read_labelled(source: str, field: str) -> list[Pair]:
    """Return (prompt, completion) from a `.jsonl` file of {"text": ..., field: label}: the label is the prompt.

    Raises:
        InvalidRequest: nothing is found there, or a line lacks either of the two.
    """
    pairs = []
    for line, where in read_lines(source):
        text, label = line.get("text"), line.get(field)
        if not all(isinstance(value, str) and value.strip() for value in (text, label)):
            raise InvalidRequest(f'{where}: expected a "text" and a label {field!r}, both texts, got {str(line)[:80]}.')
        pairs.append((as_prompt(str(label)), " ".join(str(text).split())))
    if not pairs:
        raise InvalidRequest(f"{source!r} holds no labelled texts.")
    return pairs


class LabelDropout(Dataset[dict[str, Any]]):
    """Examples whose prompt is masks instead, with probability `share`: what LLaDA takes for "no prompt" (2502.09992).

    One model then learns both halves of classifier-free guidance (2207.12598, algorithm 1). The draw is made from the
    seed, the epoch and the example's index, so that a resumed run repeats an uninterrupted one; `Trainer` tells the
    epoch. Completions stay as they are, and lengths too.
    """

    def __init__(self, examples: list[dict[str, Any]], mask_id: int, share: float, seed: int = 0) -> None:
        """Take examples of `encode_pairs`, which say where the completion begins."""
        self.examples, self.mask_id, self.share, self.seed = examples, mask_id, share, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        if random.Random(f"{self.seed} {self.epoch} {index}").random() >= self.share:
            return example
        begin = example["begin"]
        return example | {"input_ids": [self.mask_id] * begin + example["input_ids"][begin:]}

    def set_epoch(self, epoch: int) -> None:
        """Draw anew for the given epoch."""
        self.epoch = epoch
