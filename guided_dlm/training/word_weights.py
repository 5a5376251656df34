"""Log-linear word weights of labelled sentences: a guide for any vocabulary, small enough to ship as text.

    python -m guided_dlm.training.word_weights FILE... --out constraints/data/sentiment.tsv

A line of a file is a label (0 or 1), a space and a sentence. The model is a logistic regression on which words a
sentence has, with a penalty on large weights.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


def words_of(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return WORD.findall(text.lower())


def read_labelled_lines(path: Path) -> list[tuple[int, str]]:
    """Return (label, sentence) of each line; files may be gzipped."""
    with gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open(errors="replace") as lines:
        pairs = [line.rstrip("\n").partition(" ") for line in lines]
    return [(int(label), text) for label, _, text in pairs if label in ("0", "1")]


def _presence(sentences: Sequence[str], words: dict[str, int]) -> Tensor:
    found = [(row, words[word]) for row, text in enumerate(sentences) for word in set(words_of(text)) if word in words]
    index, size = torch.tensor(found, dtype=torch.int64).T.reshape(2, -1), (len(sentences), len(words))
    return torch.sparse_coo_tensor(index, torch.ones(index.shape[1]), size, check_invariants=True).coalesce()


def train_word_weights(
    pairs: Sequence[tuple[int, str]], min_count: int = 5, penalty: float = 2e-4, steps: int = 300, held_out: int = 10
) -> tuple[dict[str, float], float]:
    """Return the weight of each word, in nats for label 1, and the accuracy on every `held_out`-th sentence.

    Words are those in at least `min_count` sentences; `penalty` is on the sum of squares.
    """
    test, train = pairs[::held_out], [pair for i, pair in enumerate(pairs) if i % held_out]
    counts = Counter(word for _, text in train for word in set(words_of(text)))
    words = {word: i for i, word in enumerate(sorted(w for w, n in counts.items() if n >= min_count))}
    label_N = torch.tensor([float(label) for label, _ in train])
    present_NW = _presence([text for _, text in train], words)
    weight_W1, bias = torch.zeros(len(words), 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([weight_W1, bias], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        logits_N = torch.sparse.mm(present_NW, weight_W1)[:, 0] + bias
        loss = binary_cross_entropy_with_logits(logits_N, label_N) + penalty * weight_W1.square().sum()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        logits_N = torch.sparse.mm(_presence([text for _, text in test], words), weight_W1)[:, 0] + bias
    right = (logits_N > 0) == torch.tensor([label == 1 for label, _ in test])
    weights = dict(zip(words, weight_W1.detach()[:, 0].tolist(), strict=True))
    return weights, float(right.float().mean())


def main() -> None:
    """Train on the files and write `word<TAB>weight` lines, the largest weights first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--least", type=float, default=0.25, help="leave out words with a smaller weight")
    arguments = parser.parse_args()
    pairs = [pair for path in arguments.files for pair in read_labelled_lines(path)]
    weights, accuracy = train_word_weights(pairs)
    kept = sorted(((w, x) for w, x in weights.items() if abs(x) >= arguments.least), key=lambda p: (-abs(p[1]), p[0]))
    arguments.out.write_text("".join(f"{word}\t{weight:.2f}\n" for word, weight in kept))
    print(f"{len(pairs)} sentences, held-out accuracy {accuracy:.3f}, {len(kept)} of {len(weights)} words kept")


if __name__ == "__main__":
    main()
