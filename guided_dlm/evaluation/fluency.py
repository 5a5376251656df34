"""How natural texts are to an autoregressive model of the same domain, and how alike they are to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.errors import InvalidRequest
from guided_dlm.training.data import encode_texts
from guided_dlm.training.trainer import evaluate_autoregressive


class Judge:
    """An autoregressive model that scores texts; train one with `guided-dlm train --objective autoregressive`."""

    def __init__(self, folder: str | Path) -> None:
        """Load the model.

        Raises:
            InvalidRequest: the folder holds no autoregressive model.
        """
        if not (Path(folder) / "config.json").is_file():
            raise InvalidRequest(f"There is no judge in {str(folder)!r}; train one with --objective autoregressive.")
        self._model = DiffusionTransformer.from_pretrained(folder).float().eval()
        if not self._model.config.causal:
            raise InvalidRequest(f"The model in {str(folder)!r} is not autoregressive, so it cannot judge.")
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def nll(self, texts: Sequence[str]) -> float:
        """Return the mean -log p per token of text and end, in nats, over all tokens of all texts; lower is better.

        Raises:
            InvalidRequest: a text is empty or does not fit the judge's canvas.
        """
        if not all(text.strip() for text in texts):
            raise InvalidRequest(
                f"{sum(not t.strip() for t in texts)} of {len(texts)} texts are empty; leave them out."
            )
        # Rotary positions reach a little further than the training canvas, which a text that never ended may fill.
        examples = encode_texts(list(texts), self._tokenizer, canvas=2 * self._model.config.max_position_embeddings)
        if len(examples) < len(texts):
            raise InvalidRequest(f"{len(texts) - len(examples)} of {len(texts)} texts are too long for this judge.")
        return evaluate_autoregressive(self._model, examples, self._tokenizer.pad_token_id)


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Share of distinct texts, and of distinct n-grams among all n-grams (n = 1, 2, 3)."""

    texts: float
    unigrams: float
    bigrams: float
    trigrams: float


def diversity(texts: Sequence[str]) -> Diversity:
    """Count distinct texts and n-grams of white-space words."""
    if not texts:
        raise InvalidRequest("There is no text to measure.")
    split = [text.split() for text in texts]

    def distinct(n: int) -> float:
        grams = [tuple(words[i : i + n]) for words in split for i in range(len(words) - n + 1)]
        return len(set(grams)) / max(1, len(grams))

    return Diversity(
        texts=len(set(texts)) / len(texts), unigrams=distinct(1), bigrams=distinct(2), trigrams=distinct(3)
    )
