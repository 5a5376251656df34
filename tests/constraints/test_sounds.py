"""Syllables and Rhyme: automata, `check` and the definitions agree; what cannot be pronounced is refused."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import accepted, canvases

from constraints import Length, Rhyme, Syllables, Words
from constraints import pronunciation as sounds
from guided_dlm import CompileContext, Constraint, GuidedPipeline, Vocabulary
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest
from guided_dlm.testing import check_constraint

DICTIONARY = """;;; made for these tests
DAY  D EY1
PLAY  P L EY1
DELAY  D IH0 L EY1
HOLIDAY  HH AA1 L AH0 D EY2
A  AH0
A(2)  EY1
EVERY  EH1 V ER0 IY0
EVERY(2)  EH1 V R IY0
RIVER  R IH1 V ER0
NIGHT  N AY1 T
KNIGHT  N AY1 T
IT'S  IH1 T S
'S  EH1 S
SHH  SH
AS  AE1 Z
X-RAY  EH1 K S R EY2
"""
SYLLABLES = {"day": {1}, "play": {1}, "delay": {2}, "holiday": {3}, "a": {1}, "every": {2, 3}, "river": {2},
             "night": {1}, "knight": {1}, "it's": {1}, "shh": {0}, "as": {1}}  # fmt: skip
ON_AY = {"day", "play", "delay", "holiday", "a"}
MARKS = '.,;:!?"()[]{}-/\u2013\u2014\u2026\u201c\u201d'


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("sounds") / "words.dict"
    file.write_text(DICTIONARY)
    return str(file)


def silent(character: str) -> bool:
    return character.isspace() or character in MARKS


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """Runs of letters and apostrophes, as ("word", run), and all other characters one by one."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'\u2019"
    for is_word, group in itertools.groupby(text, lambda character: character in letters):
        if is_word:
            yield "word", "".join(group).lower().replace("\u2019", "'")
        else:
            yield from (("silent" if silent(c) else "spoken", c) for c in group)


def holds(text: str, ranges: list[tuple[int, int]], separator: str) -> bool:
    lines = text.split(separator) if len(ranges) > 1 else [text]
    if len(lines) != len(ranges):
        return False
    for line, (low, high) in zip(lines, ranges, strict=True):
        read = list(pieces(line))
        if any(kind == "spoken" or (kind == "word" and piece not in SYLLABLES) for kind, piece in read):
            return False
        choices = [sorted(SYLLABLES[piece]) for kind, piece in read if kind == "word"]
        if not any(low <= sum(choice) <= high for choice in itertools.product(*choices)):
            return False
    return True


def ends_in(text: str, words: set[str]) -> bool:
    read = list(pieces(text))
    while read and read[-1][0] == "silent":
        read.pop()
    joined = len(read) > 1 and (read[-2][1].isalnum() or read[-2][1] == "_")
    return bool(read) and read[-1][0] == "word" and read[-1][1] in words and not joined


PIECES = [
    *SYLLABLES,
    "DAY",
    "It\u2019s",
    "day's",
    "x",
    "'",
    " ",
    " ",
    " / ",
    " /",
    ", ",
    ".",
    "-",
    "\n",
    "7",
    "_",
    "\u00e9",
    "\u00a3",
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=7).map("".join),
    st.lists(st.sampled_from([*SYLLABLES, "/", "."]), max_size=7).map(" ".join),
)
COUNTS = [3, (2, 4), (0, 1), (4, None)]
LINES = [[1, 2], [2, (1, 3), 1], [2]]


@pytest.mark.parametrize("counts", COUNTS)
@settings(max_examples=25)
@given(texts=st.lists(TEXTS, min_size=10, max_size=25))
def test_a_count_of_syllables_agrees_with_every_choice_of_pronunciations(
    lexicon: str, counts: object, texts: list[str]
) -> None:
    wish = Syllables(counts, lexicon=lexicon)
    low, high = wish.counts or (0, 0)
    automaton = wish.to_automaton()
    for text in texts:
        expected = holds(text, [(low, 99 if high is None else high)], "")
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@pytest.mark.parametrize("separator", ["\n", " / ", "/", "-.-"])
@pytest.mark.parametrize("lines", LINES)
@settings(max_examples=15)
@given(data=st.data())
def test_lines_are_those_of_split(lexicon: str, separator: str, lines: list[object], data: st.DataObject) -> None:
    wish = Syllables(lines=lines, separator=separator, lexicon=lexicon)
    automaton = wish.to_automaton()
    ranges = [(low, 99 if high is None else high) for low, high in wish.lines]
    parts = st.sampled_from([*SYLLABLES, "a", "day", separator, separator, separator[0], separator[-1], " "])
    for text in data.draw(st.lists(st.lists(parts, max_size=8).map("".join), min_size=15, max_size=30)):
        expected = holds(text, ranges, separator)
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@settings(max_examples=40)
@given(texts=st.lists(TEXTS, min_size=15, max_size=30))
def test_a_rhyme_is_the_last_word_before_closing_punctuation(lexicon: str, texts: list[str]) -> None:
    for identical, words in ((False, ON_AY - {"day"}), (True, ON_AY)):
        wish = Rhyme("Day", identical=identical, lexicon=lexicon)
        automaton = wish.to_automaton()
        for text in texts:
            expected = ends_in(text, words)
            assert wish.check(text) is expected, text
            assert automaton.accepts(text.encode()) is expected, text


def vocabulary(*tokens: str) -> Vocabulary:
    return Vocabulary(
        (*(token.encode() for token in tokens), b"", b"", b""), len(tokens), len(tokens) + 1, len(tokens) + 2
    )


WHOLE = vocabulary(" a", " every", " river", " day", " /", "x")


@pytest.mark.parametrize("wish", [{"counts": 3}, {"counts": (2, None)}, {"lines": [1, 3], "separator": " / "}])
def test_over_whole_words_exactly_the_canvases_that_satisfy_are_left(lexicon: str, wish: dict[str, object]) -> None:
    """No text of these tokens has a word that two of them write, so that nothing is lost."""
    syllables = Syllables(lexicon=lexicon, **wish)  # type: ignore[arg-type]
    agrees(syllables, WHOLE)


@pytest.mark.parametrize("identical", [False, True])
def test_rhymes_over_whole_words_are_exactly_those_that_satisfy(lexicon: str, identical: bool) -> None:
    agrees(
        Rhyme("play", identical=identical, lexicon=lexicon), vocabulary(" play", " day", " night", ".", "s", "\u00e9")
    )


def agrees(wish: Constraint, words: Vocabulary, length: int = 4) -> None:
    found = accepted(wish.compile(CompileContext(vocabulary=words, length=length)).automaton, length).tolist()  # type: ignore[arg-type]
    end, pad = words.eos_id, words.pad_id
    for canvas, has in zip(canvases(len(words), length).tolist(), found, strict=True):
        size = next((place for place, token in enumerate(canvas) if token >= end), length)
        well_formed = canvas[size:] in ([], [end] + [pad] * (length - size - 1))
        assert has is (well_formed and bool(wish.check(words.decode(canvas)))), canvas


def test_words_within_one_token_are_a_subset_and_named_words_are_spelled_in_any_way(lexicon: str) -> None:
    words = vocabulary(" a", "s", " day")
    context = CompileContext(vocabulary=words, length=3)
    spelled = [0, 1, words.eos_id]  # "as"
    for wish, expected in ((Syllables(1, lexicon=lexicon), False), (Syllables(1, words=["as"], lexicon=lexicon), True)):
        assert wish.check("as")
        automaton = wish.compile(context).automaton
        assert automaton is not None and automaton.accepts(spelled) is expected


@pytest.mark.parametrize("counts", [2, (1, None)])
def test_they_keep_the_contract(lexicon: str, counts: object) -> None:
    texts = ("a day", "It\u2019s a holiday.", "", "shh!", "7 days", "night\n")
    check_constraint(Syllables(counts, lexicon=lexicon), texts=texts, samples=8)
    check_constraint(Rhyme("day", lexicon=lexicon), texts=texts, samples=8)


def test_a_haiku_keeps_the_contract(lexicon: str) -> None:
    check_constraint(
        Syllables(lines=[1, (1, 2)], separator=", ", lexicon=lexicon, words=["day", "river", "a"]),
        texts=("a day, a river", "day, river", "a,, river"), samples=8,
    )  # fmt: skip


def test_a_config_tells_a_range_from_two_lines(lexicon: str) -> None:
    pair, lines = Syllables((5, 7), lexicon=lexicon), Syllables(lines=[5, 7], lexicon=lexicon)
    assert pair.to_config()["counts"] == [5, 7]
    assert Constraint.from_config(lines.to_config()) == lines != pair == Constraint.from_config(pair.to_config())
    assert repr(pair) == f"Syllables((5, 7), lexicon={lexicon!r})"
    assert repr(lines) == f"Syllables(lines=[5, 7], lexicon={lexicon!r})"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"give either a count, like Syllables\(12\), or lines"),
        ({"counts": 3, "lines": [5]}, "give either a count"),
        ({"counts": -1}, "counts=-1: give a whole number from 0 up"),
        ({"counts": (7, 5)}, "the minimum is larger"),
        ({"counts": [5, 7, 5]}, r"for lines write lines=\[5, 7, 5\]"),
        ({"lines": [5, -1]}, r"lines\[1\]=-1"),
        ({"lines": [5, None]}, "give either a count"),
        ({"lines": 5}, "lines=5 is no list"),
        ({"lines": [5, 7], "separator": ""}, "must be white space or punctuation"),
        ({"lines": [5, 7], "separator": " and "}, "must be white space or punctuation"),
        ({"counts": 3, "words": ["day", "zzz"]}, "words: 'zzz' is not in"),
        ({"counts": 3, "words": "day"}, "give a list of texts"),
    ],
)
def test_counts_that_cannot_be_meant_are_refused(lexicon: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^Syllables: .*{message}"):
        Syllables(lexicon=lexicon, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("zzz", "the word 'zzz' is not in"),
        ("", "the word '' is not in"),
        ("'s", "is not in"),
        ("shh", "'shh' has no vowel to rhyme on: SH"),
        ("river", "no other word in .* rhymes with 'river'"),
        (3, "word=3 is a int"),
    ],
)
def test_words_that_nothing_can_rhyme_with_are_refused(lexicon: str, word: object, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^Rhyme: .*{message}"):
        Rhyme(word, lexicon=lexicon)  # type: ignore[arg-type]
    if message.startswith("no other"):
        assert Rhyme("river", identical=True, lexicon=lexicon).check("The river!")


def test_what_the_canvas_or_the_vocabulary_cannot_hold_is_infeasible(lexicon: str) -> None:
    context = CompileContext(vocabulary=WHOLE, length=4)
    with pytest.raises(Infeasible, match="at least 13 syllables, and a canvas of 4 tokens of this vocabulary holds 12"):
        Syllables(13, lexicon=lexicon).compile(context)
    with pytest.raises(Infeasible, match=r"cannot write the separator '\\n', then give another"):
        Syllables(lines=[1, 1], lexicon=lexicon).compile(context)  # no token has a line end
    with pytest.raises(Infeasible, match="No text over this vocabulary"):
        Rhyme("night", lexicon=lexicon).compile(context)


def test_a_wide_range_is_cut_to_the_canvas(lexicon: str) -> None:
    context = CompileContext(vocabulary=WHOLE, length=4)
    wide = Syllables((1, 10**6), lexicon=lexicon).compile(context).automaton
    assert wide is not None and wide.num_states < 10


def test_too_many_spellings_say_what_to_do(lexicon: str) -> None:
    with pytest.raises(AutomatonTooLarge, match=r"Name the words that may be written with words=\[\.\.\.\]"):
        Syllables(5000, lexicon=lexicon).to_automaton()


@pytest.mark.parametrize("line", ["DAY", "DAY 1", "DAY  d ey", "DAY  D EY3"])
def test_a_dictionary_that_is_written_otherwise_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "broken.dict"
    file.write_text(f"A  AH0\n{line}\n")
    with pytest.raises(InvalidRequest, match=r"line 2: expected a word and phones"):
        Syllables(3, lexicon=str(file))
    with pytest.raises(InvalidRequest, match=r"no pronouncing dictionary 'nowhere\.dict'"):
        Rhyme("day", lexicon="nowhere.dict")


def test_without_the_data_the_command_to_fetch_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def raw(self) -> str:
            raise LookupError("Resource cmudict not found.")

    sounds.pronunciations.cache_clear()
    monkeypatch.setattr(nltk.corpus, "cmudict", Missing())
    with pytest.raises(InvalidRequest, match=r"^Syllables: .*python -m nltk\.downloader cmudict"):
        Syllables(3)


@pytest.mark.parametrize(
    ("way", "part"),
    [("D EY1", "EY"), ("HH AA1 L AH0 D EY2", "EY"), ("R IH1 V ER0", "IH V ER"), ("DH AH0", "AH"), ("SH", None)],
)
def test_a_rhyme_begins_at_the_last_stressed_vowel(way: str, part: str | None) -> None:
    assert sounds.rhyme_part(way) == part


def has_cmudict() -> bool:
    try:
        nltk.corpus.cmudict.ensure_loaded()
    except LookupError:
        return False
    return True


needs_cmudict = pytest.mark.skipif(not has_cmudict(), reason="NLTK's cmudict is not installed")


@needs_cmudict
def test_english_words_sound_as_they_do() -> None:
    assert Syllables(17).check("An old silent pond, a frog jumps into the pond, splash! Silence again.")
    assert Syllables(2).check("fire") and Syllables(1).check("fire")
    assert Rhyme("pub").check("a hot tub!") and not Rhyme("pub").check("a pub")
    assert {"bay", "cafe", "holiday"} <= Rhyme("day").rhymes and "pub" not in Rhyme("day").rhymes


@needs_cmudict
@pytest.mark.parametrize(
    "build",
    [
        lambda: Syllables(12) & Rhyme("day"),
        lambda: Syllables((8, 12)) & Length(words=(5, 8)) & Words(include=["riverside"]),
        lambda: Rhyme("food") & Length(words=(4, 9)) & ~Words(include=["The"]),
        lambda: Syllables(lines=[5, 7, 5], separator=" , "),
    ],
    ids=["couplet", "length", "negation", "haiku"],
)
def test_the_shipped_model_writes_what_satisfies(build: Callable[[], Constraint]) -> None:
    wish = build()
    out = GuidedPipeline.from_pretrained("restaurant-words")(constraint=wish, num_samples=4, steps=8, seed=0)
    assert out.satisfied.all()
    assert all(wish.check(text) for text in out.texts)
    if "~" not in repr(wish):
        assert all(leaf["guaranteed"] for row in out.report for leaf in row.values())
    if isinstance(wish, Syllables):
        assert all(len(re.findall(" , ", text)) == 2 for text in out.texts)
