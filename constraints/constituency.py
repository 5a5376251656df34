"""`SyntaxSpan` and `SyntaxTree`: constituents, through the sequences of tags that they are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, tensor

from constraints.constituents import LABELS, constituents
from constraints.span_lexicon import BEGIN, END, SpanLexicon, span_lexicon
from constraints.syntax import PartOfSpeech
from constraints.tag_pattern import quoted
from constraints.tag_sets import PENN
from constraints.taggers import spacy_parser
from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint
from guided_dlm.errors import Infeasible, InvalidRequest, within
from guided_dlm.parsing import Span, bracket_f1, read_tree, spans_of
from guided_dlm.parsing.spans import JOIN, is_preterminal
from guided_dlm.registry import register

if TYPE_CHECKING:
    from nltk.tree import Tree

ANY = "*"
_WIDEST = 8  # words that a phrase left open may have


@dataclass(frozen=True, kw_only=True, repr=False)
class _Constituency(RegularConstraint):
    """What both share: a pattern of Penn tags that holds, and a parser that may rank what it leaves open.

    The tags are guaranteed against `lexicon` as those of `PartOfSpeech` are, whose fields `certainty`, `strength` and
    `tolerance` these are; that a parser brackets them so is likely, and no more. With `parser`, the name of a spaCy
    pipeline, and `particles=`, texts are weighed by exp(weight * score) of its constituents, and `check` returns that
    score.
    """

    lexicon: str = "english"
    certainty: float = 0.5
    strength: float = 1.0
    tolerance: float = 0.0
    parser: str | None = None
    weight: float = 10.0

    called: ClassVar[str]

    @property
    def hard(self) -> bool:  # type: ignore[override]
        """Whether this is a guarantee: with tolerance, or by a parser, it is none."""
        return self.parser is None and self.tolerance == 0

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("lexicon", "certainty", "strength", "tolerance")}

    @property
    def tags(self) -> PartOfSpeech:
        """The pattern of tags that the words have to bear.

        Raises:
            Infeasible: no such constituent was ever counted.
        """
        return _part_of_speech(self)

    @property
    @abstractmethod
    def fewest(self) -> int:
        """How many words a text has at least."""

    @abstractmethod
    def pattern(self) -> str:
        """Return the pattern, as `PartOfSpeech` reads it."""

    @abstractmethod
    def score(self, found: Sequence[Span]) -> float:
        """Return how well constituents are those that are asked for, 0 to 1."""

    def _check_options(self) -> None:
        with within(self.called):
            PartOfSpeech(".", tagset="penn", **self._options())
        if not isinstance(self.weight, int | float) or not 0.0 < self.weight < float("inf"):
            raise InvalidRequest(f"{self.called}: weight={self.weight!r} must be a positive number of nats.")
        if self.parser is not None:
            spacy_parser(self.parser)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Say whether some tagging by the lexicon matches; or score the parser's constituents, 0 to 1."""
        if self.parser is None:
            try:
                return self.tags.check(text)
            except Infeasible:  # no text has such a constituent
                return False if self.hard else 0.0
        return self.score(parsed_spans(self.parser, text))

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton of the texts that some tagging admits."""
        try:
            return self.tags.to_automaton()
        except Infeasible:
            return ByteAutomaton.empty()

    def compile(self, context: CompileContext) -> Guide:
        """Compile the tags; with a parser, its scores are a reward.

        Raises:
            Infeasible: the canvas has no room for the words, or no words of this vocabulary can bear such tags.
        """
        if self.fewest > context.length:
            raise Infeasible(f"{self!r} speaks of {self.fewest} words, and the canvas has {context.length} tokens.")
        tags = self.tags
        try:
            guide = tags.compile(context)
        except Infeasible as error:
            raise Infeasible(
                f"{self!r}: no words of this vocabulary that lexicon {self.lexicon!r} knows can bear such "
                "tags; lower certainty, or give a lexicon counted on text like the model's."
            ) from error
        return guide if self.parser is None else Guide(automaton=guide.automaton, reward=self._reward)

    def _reward(self, texts: list[str], tokens_BL: Tensor) -> Tensor:
        assert self.parser is not None
        scores = [self.weight * self.score(parsed_spans(self.parser, text)) for text in texts]
        return tensor(scores, device=tokens_BL.device)

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say what holds and what is only likely."""
        return {**self.tags.notes(context), "bracketing": "best effort"}


@register("syntax_span")
@dataclass(frozen=True, kw_only=True, repr=False)
class SyntaxSpan(_Constituency):
    """Words `start` to `end`, counted from 0 and the last included, are one constituent with this label.

    Where several constituents have the same words, as in "that (S (VP serves food))", the label is theirs, the
    outermost first, joined by "::": "S::VP" is this one, and "VP" is none of it. The words and their two neighbours
    bear one of the tag sequences that were such a constituent in `sureness` of their occurrences in the text that
    `counted` was counted on (restaurant descriptions, by default), as two readers agreed; the rest of the text is free.
    """

    called: ClassVar[str] = "SyntaxSpan"

    start: int = field(kw_only=False)
    end: int = field(kw_only=False)
    label: str = field(kw_only=False)
    sureness: float = 0.95
    counted: str = "english"

    def __post_init__(self) -> None:
        """Refuse spans that cannot be, and labels and numbers that do not exist."""
        for name in ("start", "end"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidRequest(f"SyntaxSpan: {name}={value!r} must be a word's place, counted from 0.")
        if self.end < self.start:
            raise InvalidRequest(f"SyntaxSpan: it ends at word {self.end}, before its start at word {self.start}.")
        if not isinstance(self.sureness, int | float) or not 0.0 <= self.sureness <= 1.0:
            raise InvalidRequest(f"SyntaxSpan: sureness={self.sureness!r} is a share; give 0 to 1.")
        with within("SyntaxSpan"):
            self._check_label(span_lexicon(self.counted))
        self._check_options()

    def _check_label(self, counts: SpanLexicon) -> None:
        labels, known = str(self.label).split(JOIN), counts.labels()
        for label in labels:
            if label not in known:
                raise InvalidRequest(f"There is no label {label!r}; there is {', '.join(known)}.")
        if not counts.widths(self.label):
            chains = [chain for chain in counts.chains() if set(labels) & set(chain.split(JOIN))]
            raise InvalidRequest(f"No words were {self.label!r} and nothing else; there is {', '.join(chains)}.")

    def pattern(self) -> str:
        """Return the tag sequences, with neighbours, at their place in the text."""
        width, counts = self.end - self.start + 1, span_lexicon(self.counted)
        windows = counts.surest(self.label, width, self.sureness)
        options = [self._placed(window) for window in windows if self._fits(window)]
        if not options:
            where = "" if self.start else " at the start of a text"
            raise Infeasible(
                f"No sequence of {width} tags{where} was {self.label} in {100 * self.sureness:g}% of the text that "
                f"{self.counted!r} was counted on; {self._advice(counts, width)}."
            )
        before = ". " * (self.start - 1)
        return f"{before}({' | '.join(options)})"

    def _fits(self, window: tuple[str, ...]) -> bool:
        return (window[0] == BEGIN) == (self.start == 0)

    def _advice(self, counts: SpanLexicon, width: int) -> str:
        """Say how low `sureness` would have to be, or which numbers of words there are."""
        shares = {
            one: [counts.share(self.label, window) for window in counts.windows[self.label, one] if self._fits(window)]
            for one in counts.widths(self.label)
        }
        if best := max(shares.get(width, []), default=0.0):
            return f"the surest was in {100 * best:.3g}%: sureness={int(1000 * best) / 1000:g} allows it"
        widths = ", ".join(str(one) for one, found in shares.items() if found)
        return f"there it has seen such of this many words: {widths}" if widths else "it has seen none there"

    def _placed(self, window: tuple[str, ...]) -> str:
        tags = [tag for tag in window if tag not in (BEGIN, END)]
        return " ".join([*map(quoted, tags), *([] if window[-1] == END else [".*"])])

    @property
    def fewest(self) -> int:
        """The words up to the span's last."""
        return self.end + 1

    def score(self, found: Sequence[Span]) -> float:
        """Return 1 where the words are a constituent of this chain of labels."""
        labels = [label for first, last, label in found if (first, last) == (self.start, self.end)]
        return float(JOIN.join(sorted(labels, key=LABELS.index)) == self.label)


@register("syntax_tree")
@dataclass(frozen=True, kw_only=True, repr=False)
class SyntaxTree(_Constituency):
    """The text has this tree, in the brackets of the Penn Treebank: "(S (NP (DT *) (NN *)) (VP (VBZ *)) (. *))".

    Its parts of speech hold, one word for each; words in the brackets are an example. A phrase "(NP *)" is left open:
    any tag sequence of up to eight words that was such a phrase in the text that `counted` was counted on. Its label is
    the whole chain of those over the same words, as in `SyntaxSpan`: "(S::VP *)" is a clause without a subject. The
    lexicon is of two readers: a word has a high probability of a tag where both say so. It tags as the treebank does,
    where every "to" is TO. Where a tag is rare for all the words that would fit, texts are strange: a low `certainty`,
    a higher `strength` and a `SyntaxGuide` beside it help (docs/figures.md, Control).
    """

    called: ClassVar[str] = "SyntaxTree"

    tree: str = field(kw_only=False)
    lexicon: str = "treebank"
    counted: str = "english"

    def __post_init__(self) -> None:
        """Refuse brackets that do not match, and tags and labels that do not exist."""
        with within("SyntaxTree"):
            if not isinstance(self.tree, str):
                raise InvalidRequest(f"{self.tree!r} is no text; write brackets like '(S (NP (NN *)) (VP (VBZ *)))'.")
            for node in read_tree(self.tree).subtrees():
                self._check_node(node)
        self._check_options()

    def pattern(self) -> str:
        """Return the tags of the leaves."""
        return " ".join(map(self._leaf, read_tree(self.tree).subtrees(is_preterminal)))

    def _leaf(self, node: Tree) -> str:
        label = node.label()
        return quoted(label) if label in PENN.number else f"({' | '.join(_phrases(label, self.counted))})"

    def _check_node(self, node: Tree) -> None:
        if len(node) > 1 and any(isinstance(child, str) for child in node):
            raise InvalidRequest(
                f"{node.label()!r} has words beside other children; give each word its tag: '(NN pub)'."
            )
        if not is_preterminal(node) or node.label() in PENN.number:
            return
        if node[0] != ANY and node.label() in span_lexicon(self.counted).labels():
            raise InvalidRequest(
                f"'({node.label()} {node[0]})' has no tag; write '({node.label()} *)' to leave it open."
            )
        if node[0] != ANY:
            PENN.known(node.label())
        _phrases(node.label(), self.counted)
        if self.parser is not None:
            raise InvalidRequest(
                f"'({node.label()} *)' is open, and parser= compares whole trees; leave one of them out."
            )

    @property
    def fewest(self) -> int:
        """One word for each leaf."""
        return len(read_tree(self.tree).leaves())

    def score(self, found: Sequence[Span]) -> float:
        """Return labelled bracketing F1, every label of a chain for itself."""
        gold = [
            (first, last, one) for first, last, label in spans_of(read_tree(self.tree)) for one in label.split(JOIN)
        ]
        return bracket_f1(list(found), gold)


@lru_cache(maxsize=256)
def _part_of_speech(wish: _Constituency) -> PartOfSpeech:
    with within(wish.called):
        return PartOfSpeech(wish.pattern(), tagset="penn", **wish._options())


@lru_cache(maxsize=64)
def _phrases(label: str, counted: str) -> list[str]:
    """Return the tag sequences of a phrase, whatever its neighbours."""
    counts = span_lexicon(counted)
    widths = [width for width in counts.widths(label) if width <= _WIDEST]
    if not widths:
        raise InvalidRequest(f"There is no tag or phrase {label!r}; phrases are {', '.join(counts.chains())}.")
    found = dict.fromkeys(window[1:-1] for width in widths for window in counts.surest(label, width, 0.5))
    return [" ".join(map(quoted, tags)) for tags in found]


def parsed_spans(parser: str, text: str) -> list[Span]:
    """Return the constituents by a spaCy pipeline, single labels."""
    return sorted(constituents(spacy_parser(parser)(text)))
