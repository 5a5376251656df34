"""Lifted automata against the definition of a canvas, by enumeration of all short canvases."""

import itertools
import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.automata.trie import TokenTrie
from guided_dlm.errors import AutomatonTooLarge
from guided_dlm.vocabulary import Vocabulary

FACE = "\N{GRINNING FACE}".encode()
POOL = [
    b"a",
    b"b",
    b"ab",
    b"aab",
    b" ",
    b"  ",
    b" a",
    b" ab",
    b"\n",
    "é".encode(),
    b"\xc3",
    b"\xa9",
    b"\xa9a",
    b"a\xc3",
]
POOL += [b" \xc3", FACE, FACE[:2], FACE[2:], FACE[3:] + b" ", b"\xff"]
PATTERNS = [
    "a*",
    "[ab]*",
    ".*",
    "",
    " a|ab",
    r"(?s)\s*a.*",
    "é+|a",
    r"\w+( \w+)*",
    r".*\ba\b.*",
    "[^a]*",
    r"\W{1,3}",
    "  ?",
]
SPECIALS = [(None, None), (0, 0), (0, 1), (0, None), (None, 1)]


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Draw up to five text tokens and every combination of end of text, padding and mask."""
    tokens = draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=5))
    end, pad = draw(st.sampled_from(SPECIALS))
    mask = draw(st.sampled_from([None, 2]))
    return Vocabulary.from_tokens([b"<eos>", b"<pad>", b"<mask>", *tokens], eos_id=end, pad_id=pad, mask_id=mask)


def canvases(vocabulary: Vocabulary, longest: int) -> Iterator[tuple[int, ...]]:
    for length in range(longest + 1):
        yield from itertools.product(range(len(vocabulary)), repeat=length)


def text_of(vocabulary: Vocabulary, canvas: tuple[int, ...]) -> str | None:
    """Return the text of a well-formed canvas, else None: a second reading of the definition."""
    end = vocabulary.eos_id if vocabulary.eos_id is not None else vocabulary.pad_id
    pad = vocabulary.pad_id if vocabulary.pad_id is not None else end
    size = canvas.index(end) if end in canvas else len(canvas)
    if any(token != pad for token in canvas[size + 1 :]):
        return None
    body = canvas[:size]
    if any(t in (vocabulary.pad_id, vocabulary.mask_id) or not vocabulary.tokens[t] for t in body):
        return None
    data = b"".join(vocabulary.tokens[t] for t in body)
    try:
        text = (data[1:] if data[:1] == b" " else data).decode("utf-8")
    except UnicodeDecodeError:
        return None
    assert text == vocabulary.decode(canvas)
    return text


@settings(derandomize=True, deadline=None, max_examples=60)
@given(vocabularies(), st.sampled_from(PATTERNS))
def test_a_canvas_is_accepted_when_it_is_well_formed_and_its_text_matches(vocabulary: Vocabulary, pattern: str) -> None:
    automaton = ByteAutomaton.from_regex(pattern)
    lifted, well_formed = automaton.lift(vocabulary), TokenAutomaton.well_formed(vocabulary)
    for canvas in canvases(vocabulary, 4 if len(vocabulary) <= 6 else 3):
        text = text_of(vocabulary, canvas)
        assert well_formed.accepts(canvas) == (text is not None), canvas
        assert lifted.accepts(canvas) == (text is not None and re.fullmatch(pattern, text) is not None), canvas


@settings(derandomize=True, deadline=None, max_examples=80)
@given(vocabularies(), st.sampled_from(PATTERNS), st.sampled_from(PATTERNS))
def test_lifting_commutes_with_the_algebra(vocabulary: Vocabulary, left: str, right: str) -> None:
    a, b = ByteAutomaton.from_regex(left), ByteAutomaton.from_regex(right)
    one, other = a.lift(vocabulary), b.lift(vocabulary)
    assert (a & b).lift(vocabulary) == one & other
    assert (a | b).lift(vocabulary) == one | other
    assert (a - b).lift(vocabulary) == one - other
    assert (~a).lift(vocabulary) == ~one


def test_only_one_leading_space_is_dropped() -> None:
    vocabulary = Vocabulary.from_tokens([b"", b" ", b" a", b"a"], eos_id=0)
    lifted = ByteAutomaton.literal(" a").lift(vocabulary)
    accepted = {c for c in canvases(vocabulary, 3) if lifted.accepts(c)}
    # The canvas (1, 2) holds two spaces and (1, 1, 3) too; (2,) alone decodes to "a".
    assert accepted == {(1, 2), (1, 2, 0), (1, 1, 3)}


def test_the_empty_text_is_a_tail_only() -> None:
    vocabulary = Vocabulary.from_tokens([b"", b"", b"a"], eos_id=0, pad_id=1)
    lifted = ByteAutomaton.literal("").lift(vocabulary)
    assert [c for c in canvases(vocabulary, 3) if lifted.accepts(c)] == [(), (0,), (0, 1), (0, 1, 1)]


def test_specials_are_no_text_even_where_they_have_bytes() -> None:
    vocabulary = Vocabulary((b"a", b"a", b"a", b"a"), eos_id=0, pad_id=1, mask_id=2)
    lifted = ByteAutomaton.from_regex("a+").lift(vocabulary)
    assert [c for c in canvases(vocabulary, 2) if lifted.accepts(c)] == [(3,), (3, 0), (3, 3)]


def test_lifts_are_cached_by_language_and_fingerprint() -> None:
    tokens = [b"", b"a", b"b"]
    first = ByteAutomaton.from_regex("[ab]*").lift(Vocabulary.from_tokens(tokens, eos_id=0))
    assert ByteAutomaton.from_regex("(a|b)*").lift(Vocabulary.from_tokens(tokens, eos_id=0)) is first
    assert ByteAutomaton.from_regex("(a|b)*").lift(Vocabulary.from_tokens(tokens, eos_id=None)) is not first


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([*POOL, b""]), max_size=12), st.sampled_from(PATTERNS))
def test_running_the_trie_equals_running_each_token(tokens: list[bytes], pattern: str) -> None:
    automaton = ByteAutomaton.from_regex(pattern)
    states = np.arange(automaton.num_states)
    trie = TokenTrie(tokens)
    reached = np.full((len(tokens), states.size), -1)
    alive, rows = trie.run(automaton._dfa, states)
    reached[alive] = rows
    for token, row in zip(tokens, reached, strict=True):
        for state, found in enumerate(row):
            for byte in token:
                state = -1 if state < 0 else int(automaton.table[state, automaton.byte_class[byte]])
            assert state == found
    table, column = trie.columns(automaton._dfa, states)
    assert (table[:, column] == reached.T).all()


def test_a_lift_that_would_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guided_dlm.automata.trie.MAX_CELLS", 3)
    with pytest.raises(AutomatonTooLarge, match="Lifting 4 states to a vocabulary of 4 tokens gives 4 token classes"):
        ByteAutomaton.literal("abc").lift(Vocabulary.from_tokens([b"", b"a", b"b", b"c", b"bc"], eos_id=0))
