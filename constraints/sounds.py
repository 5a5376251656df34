"""`Syllables` and `Rhyme`: how long a text sounds, and what its last word rhymes with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from constraints.endings import byte_ending, token_ending
from constraints.fields import Range, as_range, as_texts, in_range, show_range
from constraints.meter import (
    RUN,
    Meter,
    Piece,
    byte_meter,
    is_silent,
    token_meter,
    token_pieces,
)
from constraints.pronunciation import APOSTROPHES, CMUDICT, Pronunciations, pronunciations, rhyme_part, spelled
from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint, require_nonempty
from guided_dlm.errors import Infeasible, InvalidRequest, within
from guided_dlm.registry import register
from guided_dlm.vocabulary import Vocabulary


@register("syllables")
@dataclass(frozen=True, kw_only=True, repr=False)
class Syllables(RegularConstraint):
    r"""The words of the text have so many syllables together: an int, or (low, high), where high may be None.

    A haiku is `Syllables(lines=[5, 7, 5])`: counts line by line, the lines parted by `separator`, which is made of
    silent characters ("\n" by default; " / " or " , " for a model that never writes line ends).

    A word is a run of letters and apostrophes, looked up without its case in cmudict, which NLTK reads (`lexicon`
    names another file of its format, `DAY  D EY1`, for names and other languages). Words that it lacks are not
    written, nor are digits and signs that are spoken, like & or £. White space and punctuation are silent; a hyphen
    parts two words. A word with several pronunciations counts as any one of them, so a text satisfies the wish if some
    choice of pronunciations does.

    Guaranteed by automaton. Only words that are whole tokens of the vocabulary are written, which keeps it small and is
    narrower than `check`. With `words` exactly these are written, in any tokenisation. For a vocabulary without whole
    words, and under `~` and `|`, all spellings are followed, for which cmudict is too large: give `words` there.
    """

    counts: Range | None = field(default=None, kw_only=False)
    lines: tuple[Range, ...] = ()
    separator: str = "\n"
    words: tuple[str, ...] = ()
    lexicon: str = CMUDICT

    def __post_init__(self) -> None:
        """Turn ints into ranges; refuse no count or two, spoken separators, and words nobody can pronounce."""
        given = self.counts
        if isinstance(given, list | tuple) and len(given) != 2:
            raise InvalidRequest(
                f"Syllables: counts={given!r} is no pair (low, high); for lines write lines=[5, 7, 5]."
            )
        object.__setattr__(self, "counts", as_range(given, "Syllables: counts"))
        if not isinstance(self.lines, list | tuple):
            raise InvalidRequest(f"Syllables: lines={self.lines!r} is no list; give a count for each line.")
        lines = [as_range(one, f"Syllables: lines[{i}]") for i, one in enumerate(self.lines)]
        if (self.counts is None) == (not lines) or None in lines:
            raise InvalidRequest("Syllables: give either a count, like Syllables(12), or lines=[5, 7, 5].")
        object.__setattr__(self, "lines", tuple(lines))
        if not isinstance(self.separator, str) or not self.separator or not is_silent(self.separator):
            raise InvalidRequest(
                f"Syllables: separator={self.separator!r} must be white space or punctuation, such as ' / '."
            )
        known = _dictionary("Syllables", self.lexicon).said
        if self.words != ():
            words = tuple(dict.fromkeys(map(spelled, as_texts(self.words, "Syllables: words"))))
            object.__setattr__(self, "words", words)
            for word in words:
                if word not in known:
                    raise InvalidRequest(f"Syllables: words: {word!r} is not in {self.lexicon!r}; leave it out.")

    def __repr__(self) -> str:
        """Show the counts as one would type them."""
        shown = [] if self.counts is None else [show_range(self.counts)]
        if self.lines:
            shown.append(f"lines=[{', '.join(map(show_range, self.lines))}]")
        shown += [f"separator={self.separator!r}"] if self.separator != "\n" else []
        shown += [f"words={list(self.words)!r}"] if self.words else []
        shown += [f"lexicon={self.lexicon!r}"] if self.lexicon != CMUDICT else []
        return f"Syllables({', '.join(shown)})"

    @property
    def _ranges(self) -> tuple[Range, ...]:
        return self.lines if self.counts is None else (self.counts,)

    @property
    def _syllables(self) -> Mapping[str, frozenset[int]]:
        known = pronunciations(self.lexicon).syllables
        return {word: known[word] for word in self.words} if self.words else known

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Split the text into lines and words, and add up what each choice of pronunciations gives."""
        lines = text.split(self.separator) if len(self.lines) > 1 else [text]
        return len(lines) == len(self._ranges) and all(map(self._fits, lines, self._ranges))

    def _fits(self, line: str, allowed: Range) -> bool:
        sums, known = {0}, self._syllables
        for word in map(spelled, RUN.findall(line)):
            sums = {total + more for total in sums for more in known.get(word, ())}
        return all(map(is_silent, RUN.split(line))) and any(in_range(total, allowed) for total in sums)

    def to_automaton(self) -> ByteAutomaton:
        """Return the counter over the spellings of all words.

        Raises:
            AutomatonTooLarge: there are too many; the message says what to do.
        """
        return byte_meter(Meter(self._ranges, self.separator), self._syllables)

    def compile(self, context: CompileContext) -> Guide:
        """Count over tokens that are whole words, where there are such and no `words`; else lift the spellings.

        Raises:
            Infeasible: the words that can be written have no such counts, or the canvas is too small.
            AutomatonTooLarge: the spellings of all words would have to be followed.
        """
        pieces = {} if context.plain else self._pieces(context.vocabulary)
        if not pieces:
            return super().compile(context)
        most = max(sum(max(piece) for piece in kind if isinstance(piece, frozenset)) for kind in pieces.values())
        room = context.length * most
        if (low := sum(low for low, _ in self._ranges)) > room:
            raise Infeasible(
                f'"{self!r}" asks for at least {low} syllables, and a canvas of {context.length} tokens of this '
                f"vocabulary holds {room} at most. Ask for fewer, or raise max_new_tokens."
            )
        ranges = tuple((low, None if high is not None and high > room else high) for low, high in self._ranges)
        automaton = token_meter(Meter(ranges, self.separator), context.vocabulary, pieces)
        if len(ranges) > 1 and automaton.is_empty():
            raise Infeasible(
                f"No text over this vocabulary satisfies {self!r}: either its tokens cannot write the separator "
                f"{self.separator!r}, then give another, such as separator=' , ', or no words of theirs add up so."
            )
        return Guide(automaton=require_nonempty(automaton, self))

    def _pieces(self, vocabulary: Vocabulary) -> dict[int, tuple[Piece, ...]]:
        """Return what the tokens are made of that may be written; nothing where spellings have to be followed."""
        if self.words:
            return {}
        found = dict(token_pieces(vocabulary, self._syllables))
        whole = (index for index in found if len(vocabulary.tokens[index].strip()) > 1)
        spoken = any(isinstance(piece, frozenset) for index in whole for piece in found[index])
        return found if spoken else {}

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say what it is counted by, and how many tokens may be written."""
        notes = {"counted_by": self.lexicon}
        pieces = {} if context.plain else self._pieces(context.vocabulary)
        spoken = sum(any(isinstance(piece, frozenset) for piece in kind) for kind in pieces.values())
        return notes | ({"tokens_with_syllables": spoken} if pieces else {})


@register("rhyme")
@dataclass(frozen=True, kw_only=True, repr=False)
class Rhyme(RegularConstraint):
    """The last word of the text, before closing punctuation, rhymes with a given word.

    Two words rhyme if some pronunciations of theirs agree from the last stressed vowel on (secondary stress counts; a
    word without stress rhymes from its last vowel). The word itself counts with `identical` only; words that sound like
    it, as "sun" and "son", always do. Pronunciations are cmudict's, which NLTK reads; `lexicon` names another file of
    its format.

    Guaranteed by automaton. Where tokens of the vocabulary hold words that rhyme, the last word is within one token,
    which keeps the automaton small and is narrower than `check`; else, and under `~` and `|`, any spelling counts.
    """

    word: str = field(kw_only=False)
    identical: bool = False
    lexicon: str = CMUDICT

    def __post_init__(self) -> None:
        """Refuse words that nobody can pronounce, that have no vowel, or that nothing rhymes with."""
        if not isinstance(self.word, str):
            raise InvalidRequest(f"Rhyme: word={self.word!r} is a {type(self.word).__name__}, not a text.")
        if not isinstance(self.identical, bool):
            raise InvalidRequest(f"Rhyme: identical={self.identical!r} must be True or False.")
        known, word = _dictionary("Rhyme", self.lexicon), spelled(self.word)
        if word not in known.said:
            raise InvalidRequest(
                f"Rhyme: the word {self.word!r} is not in {self.lexicon!r}; give a word that it has, or a lexicon."
            )
        if not any(map(rhyme_part, known.said[word])):
            raise InvalidRequest(f"Rhyme: {self.word!r} has no vowel to rhyme on: {' or '.join(known.said[word])}.")
        if not self.rhymes:
            raise InvalidRequest(f"Rhyme: no other word in {self.lexicon!r} rhymes with {self.word!r}.")

    @property
    def rhymes(self) -> frozenset[str]:
        """The words that the text may end in, lower case."""
        word = spelled(self.word)
        return pronunciations(self.lexicon).rhymes(word) - (frozenset() if self.identical else {word})

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Find the last word, and compare how it sounds."""
        found = re.search(rf"(?<![\w{APOSTROPHES}])({RUN.pattern})(?P<rest>[^\w{APOSTROPHES}]*)\Z", text)
        if found is None or not is_silent(found["rest"]):
            return False
        known, last, word = pronunciations(self.lexicon).said, spelled(found[1]), spelled(self.word)
        parts = [{part for way in known.get(one, ()) if (part := rhyme_part(way))} for one in (last, word)]
        return bool(parts[0] & parts[1]) and (self.identical or last != word)

    def to_automaton(self) -> ByteAutomaton:
        """Return the texts that end in one of the words that rhyme, and silent characters."""
        return byte_ending(self.rhymes)

    def compile(self, context: CompileContext) -> Guide:
        """Look for words that rhyme within one token, where there are such; else lift their spellings."""
        automaton = None if context.plain else token_ending(self.rhymes, context.vocabulary)
        return super().compile(context) if automaton is None else Guide(automaton=automaton)

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say how many words rhyme."""
        return {"words_that_rhyme": len(self.rhymes)}


def _dictionary(who: str, name: Any) -> Pronunciations:
    if not isinstance(name, str):
        raise InvalidRequest(f"{who}: lexicon={name!r} must name a file, or be {CMUDICT!r}.")
    with within(who):
        return pronunciations(name)
