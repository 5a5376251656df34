"""`Topic` and `Sentiment`: word weights as a soft pull that works with any vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constraints.classifier import check_strength
from constraints.fields import as_texts
from constraints.lexicon import expanded, plain_words, token_weights
from guided_dlm.constraint import CompileContext, Constraint, Guide, Step
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register

DATA = Path(__file__).parent / "data"
_COMMON = frozenset(
    [
        "a",
        "about",
        "after",
        "all",
        "also",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "just",
        "like",
        "more",
        "most",
        "my",
        "no",
        "not",
        "of",
        "on",
        "one",
        "or",
        "other",
        "our",
        "out",
        "over",
        "she",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "two",
        "up",
        "us",
        "was",
        "we",
        "were",
        "what",
        "when",
        "which",
        "who",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


def topics() -> list[str]:
    """Return the names of the topics that word lists are shipped for."""
    return sorted(path.stem for path in (DATA / "topics").glob("*.txt"))


@lru_cache(maxsize=32)
def _listed(name: str) -> tuple[str, ...]:
    return tuple((DATA / "topics" / f"{name}.txt").read_text().split("\n")[:-1])


@lru_cache(maxsize=1)
def sentiment_weights() -> Mapping[str, float]:
    """Return the weight of each word for "positive", in nats."""
    lines = (DATA / "sentiment.tsv").read_text().splitlines()
    return {word: float(weight) for word, weight in (line.split("\t") for line in lines)}


class WordPull(Constraint):
    """A bias on the tokens that spell a weighted word; a best effort: words of several tokens are left alone."""

    strength: float

    def word_weights(self) -> Mapping[str, float]:
        """Return the weight of each word, lower-case, before the strength."""
        raise TypeError(f"{type(self).__name__} must define word_weights().")

    def compile(self, context: CompileContext) -> Guide:
        """Return the bias.

        Raises:
            InvalidRequest: no word of it is one token of this vocabulary.
        """
        weight_V = torch.from_numpy(token_weights(self.word_weights(), context.vocabulary)).to(context.device)
        if not bool(weight_V.any()):
            raise InvalidRequest(
                f"{self!r}: none of its words is a single token of this vocabulary, so a bias cannot reach them. Use "
                "Words(include=[...]) or Words(prefer={...}), which spell words of any length."
            )
        pull_V = (self.strength * weight_V).float()

        def bias(step: Step) -> Tensor:
            return pull_V

        return Guide(bias=bias)

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say how many words there are, and how many of them a bias reaches."""
        weights = self.word_weights()
        pulled = np.flatnonzero(token_weights(weights, context.vocabulary))
        reached = {context.vocabulary.tokens[i].decode().strip().lower() for i in pulled.tolist()}
        return {"words": len(weights), "single_tokens": len(reached)}

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return the mean weight of the text's words."""
        words, weights = plain_words(text), self.word_weights()
        return sum(weights.get(word, 0.0) for word in words) / max(1, len(words))


@register("topic")
@dataclass(frozen=True, kw_only=True, repr=False)
class Topic(WordPull):
    """Pull towards a topic: the words of a shipped list (`name`), given `words`, or those typical of `examples`.

    `expand` adds synonyms and kinds of the words from WordNet, where NLTK's data is installed. `strength` is in nats
    for each word that is a single token (FORMULAS C, token bias; Dathathri et al. 1912.02164 for the lists).
    """

    name: str | None = None
    words: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    expand: bool = False
    strength: float = 3.0

    def __post_init__(self) -> None:
        """Take exactly one source of words."""
        check_strength(self.strength, "Topic")
        for source in ("words", "examples"):
            if getattr(self, source) != ():
                object.__setattr__(self, source, as_texts(getattr(self, source), f"Topic: {source}"))
        if sum([self.name is not None, bool(self.words), bool(self.examples)]) != 1:
            raise InvalidRequest("Topic: give one of name=, words= and examples=.")
        if self.name is not None and self.name not in topics():
            raise InvalidRequest(f"Topic: there is no list for {self.name!r}; shipped are {', '.join(topics())}.")
        if self.examples and not self.word_weights():
            raise InvalidRequest("Topic: the examples have no word that is typical of them; give more, or words=.")

    def word_weights(self) -> Mapping[str, float]:
        """Return 1 for each word of a list; for examples how many of them have it, relative to the most frequent."""
        if self.examples:
            counts = Counter(word for text in self.examples for word in set(plain_words(text)) - _COMMON)
            return {word: n / max(counts.values()) for word, n in counts.items()}
        words = self.words or _listed(self.name or "")
        return dict.fromkeys(expanded(words) if self.expand else [word.lower() for word in words], 1.0)

    def __repr__(self) -> str:
        """Show the source of the words."""
        source = f"name={self.name!r}" if self.name else f"words={list(self.words)!r}"
        if self.examples:
            source = f"examples=<{len(self.examples)} texts>"
        return f"Topic({source}{', expand=True' if self.expand else ''}, strength={self.strength})"


@register("sentiment")
@dataclass(frozen=True, kw_only=True, repr=False)
class Sentiment(WordPull):
    """Pull towards "positive" or "negative" words, by weights learned from labelled sentences."""

    target: str = field(kw_only=False, default="positive")
    strength: float = 3.0

    def __post_init__(self) -> None:
        """Refuse other targets."""
        check_strength(self.strength, "Sentiment")
        if self.target not in ("positive", "negative"):
            raise InvalidRequest(f"Sentiment: target={self.target!r}; choose 'positive' or 'negative'.")

    def word_weights(self) -> Mapping[str, float]:
        """Return the learned weights, turned round for "negative"."""
        sign = 1.0 if self.target == "positive" else -1.0
        return {word: sign * weight for word, weight in sentiment_weights().items()}

    def __repr__(self) -> str:
        """Show target and strength."""
        return f"Sentiment({self.target!r}, strength={self.strength})"
