"""How English words sound: their syllables and what they rhyme with, by the CMU Pronouncing Dictionary."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from guided_dlm.errors import InvalidRequest

CMUDICT = "cmudict"
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
# What is written and not spoken, besides white space. Digits and signs like & or % are spoken, and in no dictionary.
SILENT_MARKS = '.,;:!?"()[]{}-/\N{EN DASH}\N{EM DASH}\N{HORIZONTAL ELLIPSIS}\N{LEFT DOUBLE QUOTATION MARK}' + (
    "\N{RIGHT DOUBLE QUOTATION MARK}"
)
_WORD = re.compile(r"'?[a-z]+(?:'[a-z]+)*'?")
_LINE = re.compile(r"(?P<word>\S+?)(?:\(\d+\)| \d+)?(?P<phones>(?:[ \t]+[A-Z]+[012]?)+)\s*(?:#.*)?")
_CLITICS = frozenset(["'s", "'m", "'n"])  # the dictionary spells these out, "ess", where English joins them to a word
_RHYME = re.compile(r"[A-Z]+[12](?!.*[12]).*|[A-Z]+0(?!.*[012]).*")


@dataclass(frozen=True, eq=False)
class Pronunciations:
    """The ways to say each word, in ARPAbet: `said["day"] == ("D EY1",)`; a digit marks a vowel and its stress."""

    said: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, text: str, where: str) -> Pronunciations:
        """Read lines like `DAY  D EY1`, further ones as `DAY(2)  D AY1`, or numbered as NLTK has them.

        Lines that begin with `;;;` are comments, and so is what follows a #. Words with other characters than letters
        and apostrophes are left out, and so are 's, 'm and 'n, which sound with the word before them.

        Raises:
            InvalidRequest: a line is written otherwise; the message names it.
        """
        said: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith(";;;"):
                continue
            found = _LINE.fullmatch(line)
            if found is None:
                raise InvalidRequest(f"{where}, line {number}: expected a word and phones like D EY1; got {line!r}.")
            word = found["word"].lower()
            if _WORD.fullmatch(word) and word not in _CLITICS:
                said[word][" ".join(found["phones"].split())] = None
        return cls({word: tuple(ways) for word, ways in said.items()})

    @cached_property
    def syllables(self) -> Mapping[str, frozenset[int]]:
        """How many vowels each word has, by each of its pronunciations."""
        return {word: frozenset(sum(map(way.count, "012")) for way in ways) for word, ways in self.said.items()}

    @cached_property
    def _by_rhyme(self) -> Mapping[str, frozenset[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for word, ways in self.said.items():
            for part in filter(None, map(rhyme_part, ways)):
                found[part].add(word)
        return {part: frozenset(words) for part, words in found.items()}

    def rhymes(self, word: str) -> frozenset[str]:
        """Return the words that share a rhyming part with some pronunciation of a known word, itself included."""
        parts = filter(None, map(rhyme_part, self.said[word]))
        return frozenset().union(*(self._by_rhyme[part] for part in parts))


def rhyme_part(way: str) -> str | None:
    """Return the phones from the last stressed vowel on, without stress marks; None where there is no vowel.

    Secondary stress counts. A word without stress, like "the", rhymes from its last vowel.
    """
    found = _RHYME.search(way)
    return None if found is None else re.sub("[012]", "", found[0])


def spelled(word: str) -> str:
    """Return a word as the dictionary spells it: lower case, with straight apostrophes."""
    return word.lower().replace(APOSTROPHES[1], "'")


@lru_cache(maxsize=8)
def pronunciations(name: str) -> Pronunciations:
    """Return the pronunciations in a file of cmudict's format; "cmudict" is the dictionary itself, through NLTK.

    Raises:
        InvalidRequest: NLTK lacks the dictionary, there is no such file, or a line of it is written otherwise.
    """
    if name == CMUDICT:
        return Pronunciations.read(_cmudict(), "cmudict")
    if not Path(name).is_file():
        raise InvalidRequest(f"There is no pronouncing dictionary {name!r}; leave lexicon out for cmudict.")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The pronouncing dictionary {name!r} is not in UTF-8: {error}.") from error
    return Pronunciations.read(text, name)


def _cmudict() -> str:
    from nltk.corpus import cmudict

    try:
        return str(cmudict.raw())
    except LookupError as error:
        raise InvalidRequest(
            "Syllables and rhymes are read from the CMU Pronouncing Dictionary through NLTK, and its data is not "
            "installed: run python -m nltk.downloader cmudict, or set NLTK_DATA to where it is."
        ) from error
