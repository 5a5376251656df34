"""What targets of the control benchmark ask for: each aspect reads its value, names the constraint and scores texts."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from guided_dlm.evaluation.bracketing import judge_grammar, parse
from guided_dlm.evaluation.control_scores import (
    Reading,
    Scores,
    length_scores,
    pos_scores,
    semantic_scores,
    span_scores,
    tree_scores,
)
from guided_dlm.evaluation.tagging import spacy_tagger, tokenize
from guided_dlm.parsing.spans import Span

TOLERANCE = 1e-5  # 1e-3 gives up a tenth of the tags, 0 writes what is no text where a tagger and the lexicon disagree
STRENGTH = 3.0  # of tags under spans: words that often bear another tag are parsed otherwise
# Of tags under trees: a word may bear a tag that is rare for it, and pays for it. The judge calls a "friendly" that
# ends a text an adverb; with the constraint's own certainty of 0.5 texts are stranger there, and miss more.
TREES = {"certainty": 0.02, "strength": 2.0}
TOKEN = r"(?:[^\W\d_]+|\d+|[^\w\s]|'s|n't)"  # what spaCy's tokenizer leaves whole, `SPLIT` aside
SPLIT = ("Theres", "cant", "id", "thats", "theres", "wont")  # what it takes apart, of the words in the published texts


class Aspect(ABC):
    """One thing that a target asks for; `judges` says who judges it, "tags" or "trees", where somebody does."""

    name: ClassVar[str]
    judges: ClassVar[str | None] = None

    def fits(self, record: Any) -> bool:
        """Return whether a line can be a target, where a file is not made of targets."""
        return True

    def softened(self, tolerance: float) -> Aspect:
        """Return it with this weight of a tag that a word does not bear, where tags matter."""
        return self

    @abstractmethod
    def read(self, record: Any) -> Any:
        """Return the value that a line of the file asks for; hashable, and sortable in a task of merged lines."""

    @abstractmethod
    def config(self, value: Any) -> dict[str, Any]:
        """Return the constraint that asks for the value, as plain JSON."""

    @abstractmethod
    def scores(self, texts: Sequence[Reading], value: Any) -> Scores:
        """Score each text."""

    def label(self, value: Any) -> str:
        """Return the value as tables show it."""
        return str(value)

    def prepare(self) -> None:
        """Raise before anything is sampled what scoring would raise after it: that no judge is installed."""
        if self.judges == "tags":
            spacy_tagger()
        elif self.judges == "trees":
            judge_grammar()


class Semantic(Aspect):
    """A value of a slot, such as "The Vaults" of ["name", ":", "The", "Vaults"]."""

    name = "semantic"

    def read(self, record: Any) -> str:
        """Return the tokens after the first ":", joined."""
        tokens = record["attr"] if isinstance(record, Mapping) else record
        return " ".join(tokens[tokens.index(":") + 1 :])

    def config(self, value: str) -> dict[str, Any]:
        """Ask for the value as whole words."""
        return {"constraint": "words", "include": [value]}

    def scores(self, texts: Sequence[Reading], value: str) -> Scores:
        """See `semantic_scores`."""
        return semantic_scores(texts, value)


class PartsOfSpeech(Aspect):
    """The universal tags of all tokens, without START, END and the newline token before END."""

    name = "pos"
    judges = "tags"

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        """Take the weight of a tag that a word does not bear: above 0 text is more fluent, and may miss some tags."""
        self.tolerance = tolerance

    def softened(self, tolerance: float) -> PartsOfSpeech:
        """Return it with another tolerance."""
        return PartsOfSpeech(tolerance)

    def read(self, record: Any) -> tuple[str, ...]:
        """Return the tags of the words."""
        return tuple(tag for word, tag in zip(record["words_"], record["pos"], strict=True) if is_word(word))

    def config(self, value: tuple[str, ...]) -> dict[str, Any]:
        """Ask for this sequence."""
        wish = {"constraint": "part_of_speech", "pattern": list(value)}
        return wish | {"tolerance": self.tolerance} if self.tolerance else wish

    def scores(self, texts: Sequence[Reading], value: tuple[str, ...]) -> Scores:
        """See `pos_scores`."""
        return pos_scores(texts, value)

    def label(self, value: tuple[str, ...]) -> str:
        """Return the tags, a space between them."""
        return " ".join(value)


class TokenCount(Aspect):
    """The number of tokens of the line's own words."""

    name = "length"

    def read(self, record: Any) -> int:
        """Count the words, without START, END and the newline token."""
        return sum(map(is_word, record["words_"]))

    def config(self, value: int) -> dict[str, Any]:
        """Ask for so many words and marks between single spaces.

        A count of the model's tokens would not do: some are split again, and some words are spelled in several.
        """
        pattern = f"{TOKEN}(?: {TOKEN}){{{value - 1}}}"
        whole = {"constraint": "words", "exclude": list(SPLIT)}
        return {"all": [{"constraint": "regex", "pattern": pattern}, whole]}

    def scores(self, texts: Sequence[Reading], value: int) -> Scores:
        """See `length_scores`."""
        return length_scores(texts, value)

    def label(self, value: int) -> str:
        """Return it with its unit."""
        return f"{value} tokens"


def is_word(token: str) -> bool:
    """Whether a token of `words_` is text: not START, END or a newline."""
    return token not in ("START", "END") and not token.isspace()


class MentionedSlot(Semantic):
    """A value of the line's record that its own text mentions: the longest, for most of the text is then its own."""

    def fits(self, record: Any) -> bool:
        """Return whether the text mentions any."""
        return bool(_mentioned(record))

    def read(self, record: Any) -> str:
        """Return the longest value, as the text writes it."""
        return max(_mentioned(record), key=len)


def _mentioned(record: Any) -> list[str]:
    text = " ".join(tokenize(record["text"]))
    values = (" ".join(tokenize(str(value))) for value in record["record"].values())
    found = (re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) for value in values if len(value) > 3)
    return [match[0] for match in found if match]


class Spans(Aspect):
    """One constituent: (first, last, label) of the words without START, the last included."""

    name = "spans"
    judges = "trees"

    def read(self, record: Any) -> Span:
        """Return the line's span."""
        ((first, last, label),) = record["spans"]
        return first, last, label

    def config(self, value: Span) -> dict[str, Any]:
        """Ask for it, of words that seldom bear another tag."""
        first, last, label = value
        return {"constraint": "syntax_span", "start": first, "end": last, "label": label, "strength": STRENGTH}

    def scores(self, texts: Sequence[Reading], value: Span) -> Scores:
        """See `span_scores`."""
        return span_scores(texts, value)

    def label(self, value: Span) -> str:
        """Return it as the file writes it."""
        return str(list(value))


class TreeShape(Aspect):
    """The judge's tree of the line's text."""

    name = "tree"
    judges = "trees"

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        """Take the weight of a tag that a word does not bear: above 0 text is more fluent, and may miss some tags."""
        self.tolerance = tolerance

    def softened(self, tolerance: float) -> TreeShape:
        """Return it with another tolerance."""
        return TreeShape(tolerance)

    def fits(self, record: Any) -> bool:
        """Return whether the text is short enough for any canvas of 64 tokens."""
        return 3 <= len(tokenize(record["text"])) <= 40

    def read(self, record: Any) -> str:
        """Return the tree in brackets, on one line."""
        return " ".join(parse(tuple(tokenize(record["text"]))).pformat().split())

    def config(self, value: str) -> dict[str, Any]:
        """Ask for it, of words that bear these tags, the more often the better."""
        wish = {"constraint": "syntax_tree", "tree": value, **TREES}
        return wish | {"tolerance": self.tolerance} if self.tolerance else wish

    def scores(self, texts: Sequence[Reading], value: str) -> Scores:
        """See `tree_scores`."""
        return tree_scores(texts, value)
