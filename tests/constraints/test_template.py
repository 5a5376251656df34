"""Template: the automaton, `check` and a laying-out by brute force agree on every text."""

import pytest
import references as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from wishes import fills, lays_out

from constraints import Blank, Template
from guided_dlm.errors import GuidedError, InvalidRequest

BLANKS = [
    Blank(),
    Blank(words=1),
    Blank(words=0),
    Blank(words=(1, 2)),
    Blank(words=(2, None)),
    Blank(characters=(0, 2)),
    Blank(words=1, characters=3),
    Blank(regex="[a-z]+"),
    Blank(regex="a|ab"),
    Blank(options=["a", "ab", ""]),
    Blank(options=["a b"], words=2),
    Blank(regex=r"\s*"),
]
FIXED = ["a", " ", "ab", " is ", ".", "", "\u00e9", "a b", "\N{GRINNING FACE}"]
PARTS = st.lists(st.one_of(st.sampled_from(FIXED), st.sampled_from(BLANKS)), min_size=1, max_size=5)


@settings(max_examples=25)
@given(st.data(), PARTS)
def test_automaton_check_and_brute_force_agree(data: st.DataObject, parts: list[str | Blank]) -> None:
    template = Template(parts)
    automaton = template.to_automaton()
    fixed = [part for part in parts if isinstance(part, str) and part]
    for text in data.draw(st.lists(ref.texts(*fixed, "a", "ab", " ", "b", size=6), min_size=10, max_size=25)):
        expected = lays_out(parts, text)
        assert template.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@settings(max_examples=20)
@given(st.data(), PARTS)
def test_a_filled_template_holds(data: st.DataObject, parts: list[str | Blank]) -> None:
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
        elif part.options:
            text += data.draw(st.sampled_from([o for o in part.options if fills(part, o)]))
        else:
            candidates = ["", "a", "ab", "a ab", "abc", " ", "ab ab ab", "\N{GRINNING FACE}a"]
            text += data.draw(st.sampled_from([gap for gap in candidates if fills(part, gap)]))
    template = Template(parts)
    assert template.check(text)
    assert template.to_automaton().accepts(text.encode())


@pytest.mark.parametrize(
    ("parts", "text", "expected"),
    [
        (["The ", Blank(words=1), " is a pub ."], "The Mill is a pub .", True),
        (["The ", Blank(words=1), " is a pub ."], "The Old Mill is a pub .", False),
        (["The ", Blank(words=1), " is a pub ."], "The  is a pub .", False),
        (
            [Blank(words=(1, 2)), " is ", Blank(words=(1, 2))],
            "that is is that",
            True,
        ),  # either "is" may be the fixed one
        ([Blank(words=1), " is ", Blank(words=1)], "that is is that", False),
        ([Blank(), Blank(words=1)], "a b c", True),
        ([Blank(words=1), Blank(words=1)], "ab", True),  # nothing stands between adjacent blanks: "a" and "b"
        ([Blank(words=1), Blank(words=1)], "a", False),
        ([Blank(words=0)], "", True),
        ([Blank(words=0)], " - ", True),
        (["a"], "a", True),
        (["a"], "ab", False),
        ([Blank(), "x"], "xx", True),
        (["x", Blank()], "x", True),
        ([Blank(characters=0), "x"], "x", True),
    ],
)
def test_known_layouts(parts: list[str | Blank], text: str, expected: bool) -> None:
    template = Template(parts)
    assert lays_out(parts, text) is expected
    assert template.check(text) is expected
    assert template.to_automaton().accepts(text.encode()) is expected


def test_a_single_part_needs_no_list() -> None:
    assert Template("a") == Template(["a"])
    assert Template(Blank(words=1)) == Template([Blank(words=1)])


@pytest.mark.parametrize("parts", [[], [3], [None], ["a", 3], [["a"]], 5, None])
def test_parts_that_are_neither_text_nor_blank_are_refused(parts: object) -> None:
    with pytest.raises(InvalidRequest, match="Template"):
        Template(parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"words": -1},
        {"words": (3, 1)},
        {"characters": "2"},
        {"regex": "("},
        {"regex": 5},
        {"options": []},
        {"options": "ab"},
    ],
)
def test_blanks_refuse_what_their_constraints_refuse(fields: dict[str, object]) -> None:
    with pytest.raises(GuidedError):
        Blank(**fields)  # type: ignore[arg-type]


def test_repr_reads_like_the_call() -> None:
    assert repr(Template(["The ", Blank(words=1), Blank(words=(1, 4), options=["a"])])) == (
        "Template(['The ', Blank(words=1), Blank(words=(1, 4), options=['a'])])"
    )
