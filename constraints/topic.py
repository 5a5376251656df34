"""`Topic` and `Sentiment`: words as a soft pull that works with any vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from constraints.classifier import check_strength
from constraints.fields import as_texts
from constraints.lexicon import expanded, plain_words, similar_tokens, token_weights
from constraints.word_classifier import WordClassifier, reached_words
from constraints.word_model import WordModel, fit_word_model
from guided_dlm.constraint import CompileContext, Guide, Step
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


@lru_cache(maxsize=2)
def sentiment_model(target: str = "positive") -> WordModel:
    """Return the shipped model of "positive" or "negative" texts, its weights in nats."""
    model = WordModel.read(DATA / "sentiment.tsv")
    return model if target == "positive" else model.opposite()


@lru_cache(maxsize=32)
def _fitted(examples: tuple[str, ...], background: tuple[str, ...]) -> WordModel:
    return fit_word_model([*examples, *background], [1] * len(examples) + [0] * len(background))


@register("topic")
@dataclass(frozen=True, kw_only=True, repr=False)
class Topic(WordClassifier):
    """Pull towards a topic: the words of a shipped list (`name`), given `words`, or those typical of `examples`.

    With `background`, texts that are not of the topic, a word classifier is fitted to tell the two apart, and the wish
    is log p(topic | text). Without, words are a constant bias on the tokens that spell them, a best effort that leaves
    words of several tokens alone (FORMULAS C, token bias; Dathathri et al. 1912.02164 for the lists).

    `expand` adds synonyms and kinds of the words from WordNet, where NLTK's data is installed; `similar` adds that many
    tokens nearest to the words in the model's own embedding, each weighted by how near, and `notes` name them.
    `strength` is in nats for each word of weight 1, or multiplies the classifier's log-probability.
    """

    name: str | None = None
    words: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    expand: bool = False
    similar: int = 0
    strength: float = 3.0
    method: str = "exact"

    def __post_init__(self) -> None:
        """Take exactly one source of words, and what goes with it."""
        check_strength(self.strength, "Topic")
        self.check_method()
        for source in ("words", "examples", "background"):
            if getattr(self, source) != ():
                object.__setattr__(self, source, as_texts(getattr(self, source), f"Topic: {source}"))
        if sum([self.name is not None, bool(self.words), bool(self.examples)]) != 1:
            raise InvalidRequest("Topic: give one of name=, words= and examples=.")
        if self.name is not None and self.name not in topics():
            raise InvalidRequest(f"Topic: there is no list for {self.name!r}; shipped are {', '.join(topics())}.")
        if isinstance(self.similar, bool) or not isinstance(self.similar, int) or self.similar < 0:
            raise InvalidRequest(f"Topic: similar={self.similar!r} must be a whole number of tokens, 0 or more.")
        if self.examples and (self.expand or self.similar):
            raise InvalidRequest("Topic: expand= and similar= add to a list of words; with examples= leave them out.")
        if self.background and not self.examples:
            raise InvalidRequest("Topic: background= is what examples= are told apart from; give both.")
        if self.method != "exact" and not self.background:
            raise InvalidRequest("Topic: method= is for a classifier of examples= and background=; leave it out.")
        if self.background and not any(_fitted(self.examples, self.background).weights.values()):
            raise InvalidRequest("Topic: no word tells the examples from the background; give more of either.")
        if self.examples and not self.background and not self.word_weights():
            raise InvalidRequest("Topic: the examples have no word that is typical of them; give more, or words=.")

    def word_model(self) -> WordModel:
        """Return the classifier of examples against background.

        Raises:
            InvalidRequest: there is no background.
        """
        if not self.background:
            raise InvalidRequest(f"{self!r} weighs words and is no classifier; give examples= and background= for one.")
        return _fitted(self.examples, self.background)

    def word_weights(self) -> Mapping[str, float]:
        """Return 1 for each word of a list; for examples how many of them have it, relative to the most frequent.

        With a background, the classifier's weights.
        """
        if self.background:
            return self.word_model().weights
        if self.examples:
            counts = Counter(word for text in self.examples for word in set(plain_words(text)) - _COMMON)
            return {word: n / max(counts.values()) for word, n in counts.items()}
        words = self.words or _listed(self.name or "")
        return dict.fromkeys(expanded(words) if self.expand else [word.lower() for word in words], 1.0)

    def _similar(self, weight_V: NDArray[np.float64], context: CompileContext) -> dict[int, float]:
        """Return the weights of the tokens that `similar` adds."""
        if not self.similar:
            return {}
        if context.embedding_VD is None:
            raise InvalidRequest(
                f"{self!r}: similar= compares the embeddings of the model's tokens, and this model has none. Leave it "
                "out and name more words, or take them from WordNet with expand=True."
            )
        return similar_tokens(weight_V, context.vocabulary, context.embedding_VD, self.similar, leave_out=_COMMON)

    def compile(self, context: CompileContext) -> Guide:
        """Return the bias, or the classifier's energy and reward where there is a background.

        Raises:
            InvalidRequest: no word of it is one token of this vocabulary, or `similar` is asked of a model without
                embeddings.
        """
        if self.background:
            return super().compile(context)
        weight_V = token_weights(self.word_weights(), context.vocabulary)
        if not weight_V.any():
            raise InvalidRequest(
                f"{self!r}: none of its words is a single token of this vocabulary, so a bias cannot reach them. Use "
                "Words(include=[...]) or Words(prefer={...}), which spell words of any length."
            )
        for token, weight in self._similar(weight_V, context).items():
            weight_V[token] = weight
        pull_V = (self.strength * torch.from_numpy(weight_V)).float().to(context.device)

        def bias(step: Step) -> Tensor:
            return pull_V

        return Guide(bias=bias)

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say how many words there are, how many of them are single tokens, and the weights of similar tokens."""
        if self.background:
            return super().notes(context)
        vocabulary, weights = context.vocabulary, self.word_weights()
        weight_V = token_weights(weights, vocabulary)
        notes: dict[str, Any] = {"words": len(weights), "single_tokens": reached_words(weight_V, vocabulary)}
        if self.similar:
            near = self._similar(weight_V, context)
            notes["similar"] = {vocabulary.tokens[i].decode().strip(): round(x, 3) for i, x in near.items()}
        return notes

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return the mean weight of the text's words, without similar ones; log p(topic | text) with a background."""
        if self.background:
            return super().check(text, tokens)
        words, weights = plain_words(text), self.word_weights()
        return sum(weights.get(word, 0.0) for word in words) / max(1, len(words))

    def __repr__(self) -> str:
        """Show the source of the words."""
        source = f"name={self.name!r}" if self.name else f"words={list(self.words)!r}"
        if self.examples:
            source = f"examples=<{len(self.examples)} texts>"
        if self.background:
            source += f", background=<{len(self.background)} texts>"
        if self.background and self.method != "exact":
            source += f", method={self.method!r}"
        more = f"{', expand=True' if self.expand else ''}{f', similar={self.similar}' if self.similar else ''}"
        return f"Topic({source}{more}, strength={self.strength})"


@register("sentiment")
@dataclass(frozen=True, kw_only=True, repr=False)
class Sentiment(WordClassifier):
    """Pull towards "positive" or "negative" texts, by a word model that was trained on labelled sentences.

    The default strength is for `corrector="p2"`, as measured on restaurant texts (`benchmarks/guidance.py`); without
    a corrector it costs more fluency, and so do particles. Method "relaxed" overshoots beyond a strength of 8 or so.
    """

    target: str = field(kw_only=False, default="positive")
    strength: float = 48.0
    method: str = "exact"

    def __post_init__(self) -> None:
        """Refuse other targets."""
        check_strength(self.strength, "Sentiment")
        self.check_method()
        if self.target not in ("positive", "negative"):
            raise InvalidRequest(f"Sentiment: target={self.target!r}; choose 'positive' or 'negative'.")

    def word_model(self) -> WordModel:
        """Return the shipped model, turned round for "negative"."""
        return sentiment_model(self.target)

    def __repr__(self) -> str:
        """Show target and strength."""
        method = "" if self.method == "exact" else f", method={self.method!r}"
        return f"Sentiment({self.target!r}, strength={self.strength}{method})"
