"""The matcher behind `check`: what `re.fullmatch` says, without its bad moments."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regexes import FLAGS, changed, letters, patterns

from constraints.matching import _program, fullmatch


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.data())
def test_positions_say_what_re_fullmatch_says(data: st.DataObject) -> None:
    """Also for the patterns that `fullmatch` leaves to `re`."""
    pattern, text = data.draw(patterns())
    flags = int(sum(data.draw(st.sets(st.sampled_from(FLAGS))), start=0))
    near = data.draw(st.lists(changed(text[:12]), min_size=6, max_size=6))
    far = data.draw(st.lists(st.text(letters, max_size=5), min_size=4, max_size=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        compiled, program = re.compile(pattern, flags), _program(pattern, flags)
        for candidate in ["", *near, *far]:
            expected = compiled.fullmatch(candidate) is not None
            ends = program.ends(program.tree, program.tree.state.flags, candidate, frozenset([0]))
            assert (len(candidate) in ends) is expected, (pattern, flags, candidate)
            assert fullmatch(pattern, candidate, flags) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"(\w+\s?)+!", "a" * 300, False),
        (r"(\w+\s?)+!", "a b " * 60 + "c!", True),
        (r"(?:[A-Za-z]+ ?)*[?]", "The Mill is a pub near the riverside that serves food ." * 3, False),
        (r"(a|aa)+b", "a" * 200, False),
        (r"(a*)*b", "a" * 200, False),
        (r"(?:a?){200}a{200}", "a" * 200, True),
        (r"(?:(?:x?){1000}){1000}", "x" * 50, True),
        (r"(?:){4000000000}a", "a", True),
    ],
)
def test_patterns_that_backtrack_for_ever_are_answered(pattern: str, text: str, expected: bool) -> None:
    assert fullmatch(pattern, text) is expected


@pytest.mark.parametrize("pattern", ["a+b*c", "(?:ab)+", r"\w+ \w+ (?:pub|bar)", "x{2,5}"])
def test_patterns_that_cannot_backtrack_for_long_are_left_to_re(pattern: str) -> None:
    assert not _program(pattern, 0).backtracks
