"""Train the shipped sentiment model on labelled sentences, and say how right and how well calibrated it is.

    python -m constraints.word_training FILE... --out constraints/data/sentiment.tsv

A line of a file is a label (0 or 1), a space and a sentence. Sentences that several files share are taken once: else
those held out would be among those trained on.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from constraints.word_model import PENALTY, fit_word_model

NEGATIONS = frozenset(
    [
        "not",
        "n't",
        "never",
        "nothing",
        "neither",
        "nor",
        "cannot",
        "can't",
        "don't",
        "doesn't",
        "didn't",
        "isn't",
        "wasn't",
    ]
)  # a lexicon of opinions lists none of them


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good a probability is, on texts it was not trained on.

    `calibration_error` is the mean distance between probability and frequency over ten bins of equal width; `slope` is
    the factor that would calibrate the logits best, 1 where they need none.
    """

    accuracy: float
    log_loss: float
    calibration_error: float
    slope: float


def read_labelled_lines(path: Path) -> list[tuple[int, str]]:
    """Return (label, sentence) of each line; files may be gzipped."""
    with gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open(errors="replace") as lines:
        pairs = [line.rstrip("\n").partition(" ") for line in lines]
    return [(int(label), text) for label, _, text in pairs if label in ("0", "1")]


def without_doubles(pairs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the first of the sentences that have the same letters a to z in the same order."""
    first: dict[str, tuple[int, str]] = {}
    for label, text in pairs:
        first.setdefault(re.sub("[^a-z]", "", text.lower()), (label, text))
    return list(first.values())


def quality(logit_N: NDArray[np.float64], label_N: NDArray[np.float64]) -> Quality:
    """Return the quality of logits for label 1."""
    sign_N, p_N = 2 * label_N - 1, expit(logit_N)
    bin_N = np.minimum((10 * p_N).astype(int), 9)
    gaps = [abs(float((p_N - label_N)[bin_N == k].sum())) for k in range(10)]

    def log_loss(scale: float) -> float:
        return float(np.logaddexp(0.0, -scale * sign_N * logit_N).mean())

    return Quality(
        accuracy=float((sign_N * logit_N > 0).mean()),
        log_loss=log_loss(1.0),
        calibration_error=sum(gaps) / len(label_N),
        slope=float(minimize_scalar(log_loss, bounds=(0.01, 10.0), method="bounded").x),
    )


def known_words(path: Path) -> frozenset[str]:
    """Return the first field of each line of a lexicon, fields apart by tabs."""
    return frozenset(line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines())


def cross_validate(
    pairs: Sequence[tuple[int, str]],
    min_count: int,
    penalty: float,
    folds: int = 10,
    only: Collection[str] | None = None,
) -> Quality:
    """Return the quality on every sentence, by models that were trained on the other folds."""
    logit_N = np.zeros(len(pairs))
    for fold in range(folds):
        train = [pair for i, pair in enumerate(pairs) if i % folds != fold]
        model = fit_word_model([text for _, text in train], [label for label, _ in train], min_count, penalty, only)
        logit_N[fold::folds] = [model.logit(text) for _, text in pairs[fold::folds]]
    return quality(logit_N, np.array([float(label) for label, _ in pairs]))


def main() -> None:
    """Cross-validate on the files, train on all of them and write the model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--min-count", type=int, default=2, help="leave out words that fewer sentences have")
    parser.add_argument("--only", type=Path, help="a lexicon: words that may have a weight, beside negations")
    parser.add_argument("--penalty", type=float, default=PENALTY)
    parser.add_argument("--least", type=float, default=0.05, help="leave out words with a smaller weight")
    arguments = parser.parse_args()
    only = known_words(arguments.only) | NEGATIONS if arguments.only else None
    read = [pair for path in arguments.files for pair in read_labelled_lines(path)]
    pairs = without_doubles(read)
    print(f"{len(pairs)} sentences, and {len(read) - len(pairs)} doubles")
    print("cross-validated:", cross_validate(pairs, arguments.min_count, arguments.penalty, only=only))
    labels, texts = [label for label, _ in pairs], [text for _, text in pairs]
    model = fit_word_model(texts, labels, arguments.min_count, arguments.penalty, only)
    model.write(arguments.out, arguments.least)
    print(f"{len(arguments.out.read_text(encoding='utf-8').splitlines()) - 1} of {len(model.weights)} words kept")


if __name__ == "__main__":
    main()
