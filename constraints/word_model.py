"""A logistic regression on bags of words: small enough to ship as text, and to fit on a handful of examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from constraints.lexicon import plain_words

INTERCEPT = "(intercept)"  # no word has brackets
PENALTY = 2.0  # where labelled sentences are calibrated: their logits, cross-validated, need no scaling


@dataclass(frozen=True, kw_only=True, eq=False)
class WordModel:
    """logit p(target | text) = intercept + the sum of its words' weights, each word as often as it is there."""

    intercept: float
    weights: Mapping[str, float]

    def logit(self, text: str) -> float:
        """Return log p / (1 - p) for the target."""
        return self.intercept + sum(self.weights.get(word, 0.0) for word in plain_words(text))

    def log_p(self, text: str) -> float:
        """Return log p(target | text), finite."""
        logit = self.logit(text)
        return min(logit, 0.0) - math.log1p(math.exp(-abs(logit)))

    def opposite(self) -> WordModel:
        """Return the model of the other class."""
        return WordModel(intercept=-self.intercept, weights={word: -weight for word, weight in self.weights.items()})

    def write(self, path: Path, least: float = 0.0) -> None:
        """Write the intercept and then `word<TAB>weight` lines, the largest first, without those below `least`."""
        kept = [(word, weight) for word, weight in self.weights.items() if abs(weight) >= least]
        kept.sort(key=lambda pair: (-abs(pair[1]), pair[0]))
        lines = [f"{word}\t{weight:.2f}\n" for word, weight in [(INTERCEPT, self.intercept), *kept]]
        path.write_text("".join(lines), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> WordModel:
        """Read what `write` wrote."""
        pairs = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
        weights = {word: float(weight) for word, weight in pairs}
        return cls(intercept=weights.pop(INTERCEPT), weights=weights)


def fit_word_model(
    texts: Sequence[str],
    labels: Sequence[int],
    min_count: int = 1,
    penalty: float = PENALTY,
    only: Collection[str] | None = None,
) -> WordModel:
    """Return the logistic regression of label 1 on the words that at least `min_count` texts have, of `only` if given.

    Single letters do not count: with a vocabulary of letters each would look like a word. Both classes count alike,
    however many texts each has; `penalty` is on half the sum of squared weights. The loss is convex and the fit draws
    nothing at random.
    """
    counts = [Counter(plain_words(text)) for text in texts]
    spread = Counter(word for count in counts for word in count)
    known = sorted(
        word for word, n in spread.items() if n >= min_count and len(word) > 1 and (only is None or word in only)
    )
    place = {word: i for i, word in enumerate(known)}
    cells = [(row, place[word], n) for row, count in enumerate(counts) for word, n in count.items() if word in place]
    row_X, word_X, n_X = np.array(cells, dtype=np.float64).reshape(-1, 3).T
    count_NW = csr_matrix((n_X, (row_X.astype(int), word_X.astype(int))), (len(texts), len(place)))
    sign_N = np.where(np.asarray(labels) == 1, 1.0, -1.0)
    share_N = np.where(sign_N > 0, np.mean(sign_N > 0), np.mean(sign_N < 0))

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        weight_W, margin_N = point[:-1], sign_N * (count_NW @ point[:-1] + point[-1])
        slope_N = -sign_N * expit(-margin_N) / (2 * share_N)
        gradient = np.append(count_NW.T @ slope_N + penalty * weight_W, slope_N.sum())
        value = (np.logaddexp(0.0, -margin_N) / (2 * share_N)).sum() + 0.5 * penalty * weight_W @ weight_W
        return float(value), gradient

    found = minimize(loss, np.zeros(len(place) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return WordModel(intercept=float(found[-1]), weights=dict(zip(place, found[:-1].tolist(), strict=True)))
