"""Length: the automaton, `check` and the definition agree on every text."""

import pytest
import references as ref
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import word_tokenizer

from constraints import Length
from guided_dlm import CompileContext, Vocabulary
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.testing import byte_vocabulary

RANGES = [None, (0, 0), (1, 1), (2, 2), (0, 1), (1, 3), (2, None), (0, None), (3, 5)]


@st.composite
def lengths(draw: st.DrawFn) -> Length:
    fields = {name: draw(st.sampled_from(RANGES)) for name in ("words", "characters", "sentences")}
    if all(value is None for value in fields.values()):
        fields["words"] = (1, 2)
    return Length(**fields)


def holds(length: Length, text: str) -> bool:
    return (
        ref.within(len(ref.words(text)), length.words)
        and ref.within(len(text), length.characters)
        and ref.within(ref.sentences(text), length.sentences)
    )


@settings(max_examples=25)
@given(lengths(), st.lists(ref.texts("one", "two.", 'End." ', "?!", "it' ", size=6), min_size=10, max_size=25))
def test_automaton_check_and_definition_agree(length: Length, texts: list[str]) -> None:
    automaton = length.to_automaton()
    for text in texts:
        expected = holds(length, text)
        assert length.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@settings(max_examples=400)
@given(ref.texts("one", "two.", 'End." ', "?!"))
@example('He said "No." Then "Yes!" and left')
@example("a.b. c")
@example("...")
@example(". .")
@example("a.'\u201d\u00bb b")
@example('a."b" c."')
@example("a.\u200b b")
def test_counts_are_those_of_the_definition(text: str) -> None:
    for count, name in ((len(ref.words(text)), "words"), (ref.sentences(text), "sentences"), (len(text), "characters")):
        assert Length(**{name: count}).check(text)
        assert not Length(**{name: (count + 1, None)}).check(text)
        assert count == 0 or not Length(**{name: (0, count - 1)}).check(text)


@pytest.mark.parametrize(
    ("text", "words", "sentences"),
    [
        ("", 0, 0),
        (" \t\n ", 0, 0),
        ("The Mill is a pub.", 5, 1),
        ("it's family - friendly", 3, 1),
        ("_ __ - ...", 0, 1),
        ("a_b _c_ 1,000 \u00bd", 4, 1),
        ("Good. Cheap! Near?", 3, 3),
        ("Rated 3.5 out of 5. Nice", 6, 2),
        ('"Go!" she said.', 3, 2),
        ("Wait ... what ?!", 2, 2),
        ("one\N{NO-BREAK SPACE}two\N{EM SPACE}three", 3, 1),
        ("zero\u200bwidth", 1, 1),
        ("U.K. pub", 2, 2),
        ("(Really?) yes", 2, 1),
        ("the 'Mill' pub", 3, 1),
        ("'Go' \"now\"", 2, 1),
        ("\u201cGo.\u201d \u00abNow!\u00bb ok", 3, 3),
    ],
)
def test_counts_of_known_texts(text: str, words: int, sentences: int) -> None:
    for length in (Length(words=words), Length(sentences=sentences)):
        assert length.check(text)
        assert length.to_automaton().accepts(text.encode())


def test_characters_are_code_points_not_bytes_or_graphemes() -> None:
    text = "e\u0301\N{GRINNING FACE}\u00e9"
    assert Length(characters=4).check(text)
    assert Length(characters=4).to_automaton().accepts(text.encode())
    assert not Length(characters=3).check(text)


def test_an_int_is_the_pair_of_itself() -> None:
    assert Length(words=3) == Length(words=(3, 3)) == Length(words=[3, 3])
    assert hash(Length(words=3)) == hash(Length(words=[3, 3]))


def test_repr_reads_like_the_call() -> None:
    assert repr(Length(words=3)) == "Length(words=3)"
    assert repr(Length(words=(8, None), characters=0)) == "Length(words=(8, None), characters=0)"


def test_tokens_are_counted_from_ids_and_not_from_text() -> None:
    length = Length(tokens=(2, 3), words=1)
    assert length.check("word", [5, 6])
    assert not length.check("word", [5])
    assert not length.check("two words", [5, 6])
    with pytest.raises(InvalidRequest, match=r"counts tokens.*check\(text, tokens\)"):
        length.check("word")
    with pytest.raises(TypeError, match="no automaton over whole texts"):
        length.to_automaton()


@pytest.mark.parametrize("name", ["tokens", "words", "characters", "sentences"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1, "give a whole number from 0 up"),
        ((-2, 3), "give a whole number from 0 up"),
        ((3, -2), "give a whole number from 0 up"),
        ((3, 2), "minimum is larger than the maximum"),
        (2.5, "give a whole number from 0 up"),
        ("3", "give a whole number from 0 up"),
        ((1, 2, 3), "give a whole number from 0 up"),
        ((), "give a whole number from 0 up"),
        ((1, "3"), "give a whole number from 0 up"),
        ((1.0, 3), "give a whole number from 0 up"),
        (True, "give a whole number from 0 up"),
        ((None, 3), "give a whole number from 0 up"),
        ((None, None), "give a whole number from 0 up"),
        ({"min": 1}, "give a whole number from 0 up"),
    ],
)
def test_impossible_ranges_are_refused_by_name(name: str, value: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^Length: {name}=.*{reason}"):
        Length(**{name: value})


def test_counting_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="counts nothing"):
        Length()


@pytest.mark.parametrize(
    ("wish", "automaton"),
    [
        (Length(words=(2, 10**9)), Length(words=(2, None))),
        (Length(words=(1, 3), characters=(0, 10**9)), Length(words=(1, 3))),
        (Length(tokens=(0, 10**9), words=2), Length(words=2)),
        (Length(sentences=(0, 10**9)), Length(sentences=(0, None))),
    ],
    ids=repr,
)
def test_a_count_that_the_canvas_cannot_reach_is_not_counted_to(wish: Length, automaton: Length) -> None:
    context = CompileContext(vocabulary=byte_vocabulary(), length=8)
    assert wish.compile(context).automaton == automaton.compile(context).automaton


@pytest.mark.parametrize("name", ["tokens", "words", "characters", "sentences"])
def test_more_than_any_canvas_holds_is_infeasible_at_once(name: str) -> None:
    context = CompileContext(vocabulary=byte_vocabulary(), length=8)
    with pytest.raises(Infeasible, match=rf"Length\({name}=1000000000\).*1000000000 {name}.*8 tokens"):
        Length(**{name: 10**9}).compile(context)


def test_counts_are_multiplied_as_tokens_where_they_stay_small() -> None:
    wish = Length(words=(8, 12), characters=(20, 100))
    context = CompileContext(vocabulary=Vocabulary.from_tokenizer(word_tokenizer()), length=32)
    apart = (Length(words=(8, 12)) & Length(characters=(20, 100))).compile(context).automaton
    assert wish.compile(context).automaton == apart
