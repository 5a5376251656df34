"""Words: the automaton, `check` and the definition agree on every text."""

import re
import unicodedata

import pytest
import references as ref
from hypothesis import example, given, settings
from hypothesis import strategies as st

from constraints import Words
from guided_dlm.errors import InvalidRequest

PHRASES = [
    "a", "ab", "a a", "a.", ".a", "-", "?!", "a b", " a", "a ", "it's", "b-c", "\u00e9", "k", "s", "ss", "\u00df", "i",
    "\u0130", "\u03b9", "\u03c3", "_", "a_", "\N{GRINNING FACE}", "a\tb", "(a", "a)", "...",
]  # fmt: skip
ONLY = ["a", "ab", "it's", "b-c", "\u00e9", "k", "\u00df", "i", "\u03b9", "a\u03b9", "\u03c3", "_a", "a_", "1,000", "7"]


@st.composite
def wishes(draw: st.DrawFn) -> Words:
    lists = {
        "include": draw(st.lists(st.sampled_from(PHRASES), max_size=3)),
        "exclude": draw(st.lists(st.sampled_from(PHRASES), max_size=2)),
        "only": draw(st.lists(st.sampled_from(ONLY), max_size=3)),
    }
    lists = {name: values for name, values in lists.items() if values} or {"include": ["a"]}
    ordered = draw(st.booleans()) and "\u03b9" not in lists.get("include", [])  # see the test of U+0345
    return Words(**lists, in_order=ordered, ignore_case=draw(st.booleans()))


def holds(wish: Words, text: str) -> bool:
    return ref.words_hold(text, wish.include, wish.exclude, wish.only, wish.in_order, wish.ignore_case)


def agree(wish: Words, text: str) -> None:
    expected = holds(wish, text)
    assert wish.check(text) is expected, (wish, text)
    assert wish.to_automaton().accepts(text.encode()) is expected, (wish, text)


@settings(max_examples=25)
@given(st.data(), wishes())
def test_automaton_check_and_definition_agree(data: st.DataObject, wish: Words) -> None:
    automaton = wish.to_automaton()
    near = ref.texts(*wish.include, *wish.exclude, *wish.only, " ", ".", size=7)
    for text in data.draw(st.lists(near, min_size=20, max_size=40)):
        expected = holds(wish, text)
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@settings(max_examples=30)
@given(st.data(), st.lists(st.sampled_from(["a", "a a", "a.", ".a", "-", "- -", "a-a", "--"]), min_size=2, max_size=3))
def test_ordered_phrases_may_touch_but_not_overlap(data: st.DataObject, phrases: list[str]) -> None:
    wish = Words(include=phrases, in_order=True)
    automaton = wish.to_automaton()
    few = st.lists(st.sampled_from([*phrases, "a", ".", " ", "-", "b"]), max_size=7).map("".join)
    for text in data.draw(st.lists(few, min_size=10, max_size=25)):
        expected = ref.in_order(phrases, text, False)
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@pytest.mark.parametrize(
    ("wish", "text", "expected"),
    [
        (Words(include=["pub"]), "a pub.", True),
        (Words(include=["pub"]), "a (pub)", True),
        (Words(include=["pub"]), "public", False),
        (Words(include=["pub"]), "pub_", False),
        (Words(include=["pub"]), "pub2", False),
        (Words(include=["pub"]), "pub\u0301", True),  # a combining mark is not \w
        (Words(include=["pub"]), "Pub", False),
        (Words(include=["pub"], ignore_case=True), "PUB", True),
        (Words(include=["family - friendly"]), "a family - friendly pub", True),
        (Words(include=["family - friendly"]), "a family  - friendly pub", False),
        (Words(include=["?"]), "what?", False),  # the neighbour is \w
        (Words(include=["?"]), "what ?", True),
        (Words(include=["a", "b"], in_order=True), "b a", False),
        (Words(include=["a", "b"]), "b a", True),
        (Words(include=["a", "a"]), "a", True),
        (Words(include=["a", "a"], in_order=True), "a", False),
        (Words(include=["a", "a"], in_order=True), "a a", True),
        (Words(include=["a a", "a"], in_order=True), "a a", False),
        (Words(include=["a", "a a"], in_order=True), "a a a", True),
        (Words(include=["-", "-"], in_order=True), "--", True),
        (Words(include=["a", "-"], in_order=True), "a-", False),
        (Words(include=["a", "-"], in_order=True), "a -", True),
        (Words(exclude=["the"]), "then", True),
        (Words(exclude=["the"]), "the end", False),
        (Words(exclude=["the"]), "The end", True),
        (Words(exclude=["the"], ignore_case=True), "The end", False),
        (Words(exclude=["a"]), "", True),
        (Words(only=["a", "b"]), "a, (b) -- a!", True),
        (Words(only=["a", "b"]), "a c", False),
        (Words(only=["a"]), "a-a", False),
        (Words(only=["a"]), "_a", False),
        (Words(only=["a"]), "_ a", True),
        (Words(only=["it's"]), "'it's'", True),
        (Words(only=["it"]), "it's", False),
        (Words(only=["a"]), "", True),
        (Words(only=["k"], ignore_case=True), "\N{KELVIN SIGN}", True),
        (Words(only=["\u00df"], ignore_case=True), "SS", False),  # re.IGNORECASE folds one character to one
        (Words(only=["\u00df"], ignore_case=True), "\u1e9e", True),
    ],
)
def test_known_cases(wish: Words, text: str, expected: bool) -> None:
    assert holds(wish, text) is expected
    agree(wish, text)


@pytest.mark.parametrize(
    "text", ["\u0345", "a\u0345", "\u0345a", "a\u0345 .", "\u0345.", "\u03b9.", "\u0345 \u0345", "\u0345\u0345"]
)
@pytest.mark.parametrize(
    "wish",
    [
        Words(only=["a\u03b9"], ignore_case=True),
        Words(only=["\u03b9"], ignore_case=True),
        Words(only=["\u03b9a"], ignore_case=True),
        Words(include=["\u03b9"], ignore_case=True),
        Words(exclude=["\u03b9"], ignore_case=True),
    ],
    ids=repr,
)
def test_the_one_mark_that_is_a_letter_in_another_case(wish: Words, text: str) -> None:
    """U+0345 is no word character, yet equals the letter iota under re.IGNORECASE."""
    agree(wish, text)


@settings(max_examples=25)
@given(st.sampled_from([c for c in map(chr, range(0x2500)) if c.lower() != c or c.upper() != c]))
@example("\u0130")
@example("\N{KELVIN SIGN}")
@example("\u00df")
def test_ignore_case_follows_re_for_every_character(character: str) -> None:
    word = f"x{character}x"
    automaton = Words(only=[word], ignore_case=True).to_automaton() if word.isalnum() else None
    if automaton is None:
        return
    variants = {character, character.upper(), character.lower(), character.swapcase(), character.casefold()}
    for variant in variants:
        text = f"x{variant}x"
        expected = re.fullmatch(re.escape(word), text, re.IGNORECASE) is not None
        assert automaton.accepts(text.encode()) is expected, text


def test_a_phrase_is_matched_as_bytes_never_normalised() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert unicodedata.normalize("NFC", decomposed) == composed
    agree(Words(include=[composed]), decomposed)
    assert not Words(include=[composed]).check(decomposed)


@pytest.mark.parametrize("name", ["include", "exclude", "only"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], r"=\[\] asks for nothing"),
        ("pub", "give a list of texts"),
        (None, "give a list of texts"),
        (["a", 3], r"\[1\]=3 is not a text"),
        ([None], r"\[0\]=None is not a text"),
        ({"a": 1}, "give a list of texts"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(name: str, value: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^Words: {name}.*{reason}"):
        Words(**{name: value})


@pytest.mark.parametrize("phrase", ["", " ", "\t\n"])
def test_blank_phrases_are_refused(phrase: str) -> None:
    for name in ("include", "exclude"):
        with pytest.raises(InvalidRequest, match="empty phrase"):
            Words(**{name: ["a", phrase]})


@pytest.mark.parametrize("word", ["", "two words", "pub.", "(pub", "_", "-", " pub"])
def test_only_takes_single_bare_words(word: str) -> None:
    with pytest.raises(InvalidRequest, match="no single word"):
        Words(only=[word])


def test_asking_for_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="asks for nothing"):
        Words()
    with pytest.raises(InvalidRequest, match="asks for nothing"):
        Words(in_order=True)
