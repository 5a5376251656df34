"""Character sets against Python's own sets and str methods."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_dlm.automata import CodepointSet
from guided_dlm.automata.codepoints import partition
from guided_dlm.errors import InvalidRequest

SCALARS = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
PROBES = [0, 1, 2, 3, 9, 10, 11, 0xD7FE, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0x10FFFE, 0x10FFFF]
probe_sets = st.sets(st.sampled_from([p for p in PROBES if not 0xD800 <= p < 0xE000]))


def build(points: set[int]) -> CodepointSet:
    return CodepointSet.of(map(chr, points))


def members(characters: CodepointSet) -> set[int]:
    return {p for p in PROBES if characters.contains(p)}


@settings(derandomize=True, deadline=None, max_examples=100)
@given(probe_sets, probe_sets)
def test_set_operations_agree_with_python_sets(left: set[int], right: set[int]) -> None:
    a, b = build(left), build(right)
    assert members(a | b) == left | right
    assert members(a & b) == left & right
    assert members(a - b) == left - right
    assert members(~a) == {p for p in PROBES if not 0xD800 <= p < 0xE000} - left
    assert (a == b) == (left == right)
    assert len(a) == len(left)
    assert bool(a) == bool(left)


@pytest.mark.parametrize(
    ("characters", "test"),
    [
        (CodepointSet.word(), lambda c: c.isalnum() or c == "_"),
        (CodepointSet.alnum(), str.isalnum),
        (CodepointSet.space(), str.isspace),
        (CodepointSet.digit(), str.isdecimal),
        (CodepointSet.any(), lambda c: True),
        (CodepointSet.range("a", "z"), lambda c: "a" <= c <= "z"),
    ],
)
def test_categories_agree_with_str_methods_on_every_character(characters: CodepointSet, test: object) -> None:
    inside = characters.members(np.array(SCALARS))
    assert inside.tolist() == [bool(test(chr(p))) for p in SCALARS]  # type: ignore[operator]


def test_surrogates_are_in_no_set() -> None:
    assert not CodepointSet.any().contains(0xD800)
    assert not (~CodepointSet()).contains(0xDFFF)
    assert CodepointSet.range(0xD700, 0xE001).contains(0xE000)
    assert not CodepointSet.range(0xD700, 0xE001).contains(0xD900)


def test_an_inverted_range_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="lower end first"):
        CodepointSet.range("z", "a")


def test_every_given_set_is_a_union_of_partition_classes() -> None:
    sets = [CodepointSet.word(), CodepointSet.of("ab\n"), CodepointSet.range("a", "f"), CodepointSet()]
    classes, inside = partition(sets)
    label = classes.dense()
    assert (label[0xD800:0xE000] == -1).all()
    for row, characters in zip(inside, sets, strict=True):
        assert (row[label[SCALARS]] == characters.members(np.array(SCALARS))).all()
    assert np.unique(inside, axis=1).shape == inside.shape
