"""BoundedGrammar against sets of strings: every derivation of up to six letters, by iteration to a fixed point."""

import itertools
import math
import time
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st

from constraints.derivation import Derivation
from guided_dlm.automata import ByteAutomaton
from guided_dlm.automata.grammar import (
    BoundedGrammar,
    Call,
    Choice,
    Expression,
    Repeat,
    Rules,
    Sequence,
    Terminal,
    read_grammar,
)
from guided_dlm.automata.grammar import bounded as module
from guided_dlm.automata.grammar.networks import FINAL, START
from guided_dlm.errors import AutomatonTooLarge, Infeasible

LENGTH = 6
NAMES = ["s", "t", "u"]
STRINGS = ["".join(letters) for n in range(LENGTH + 1) for letters in itertools.product("ab", repeat=n)]
WORDS = {pattern: [x for x in STRINGS if x in texts] for pattern, texts in {
    "a": ["a"], "b": ["b"], "ab": ["ab"], "[ab]": ["a", "b"], "a?": ["", "a"],
    "a+": [x for x in STRINGS if x and set(x) == {"a"}],
    "b+?": ["b"], "a*?b": [x for x in STRINGS if x.count("b") == 1 and x[-1] == "b"],
}.items()}  # fmt: skip

leaves = st.one_of(
    st.sampled_from([Terminal(pattern, pattern) for pattern in WORDS]), st.sampled_from([Call(n) for n in NAMES])
)
items = st.one_of(leaves, leaves, leaves, st.builds(Repeat, leaves, st.integers(0, 1), st.sampled_from([1, 2, None])))
bodies = st.builds(
    Choice, st.lists(st.builds(Sequence, st.lists(items, max_size=3).map(tuple)), min_size=1, max_size=3).map(tuple)
)
grammars = st.builds(
    Rules,
    st.fixed_dictionaries(dict.fromkeys(NAMES, bodies)),
    st.just("s"),
    ignored=st.sampled_from([(), (), (Terminal("b", "b"),), (Terminal("aa?", "aa?"), Terminal("a+?b", "a+?b"))]),
)
thorough = settings(max_examples=60, derandomize=True, phases=[Phase.explicit, Phase.generate])


def joined(left: set[str], right: set[str]) -> set[str]:
    return {x + y for x in left for y in right if len(x) + len(y) <= LENGTH}


def star(texts: set[str]) -> set[str]:
    found = {""}
    while not (more := joined(found, texts)) <= found:
        found |= more
    return found


def skipped(rules: Rules) -> set[str]:
    known = WORDS | {"aa?": ["a", "aa"], "a+?b": ["a" * n + "b" for n in range(1, LENGTH)]}
    return star({text for terminal in rules.ignored for text in known[terminal.pattern]})


def texts_of(expression: Expression, known: dict[str, set[str]], skip: set[str]) -> set[str]:
    if isinstance(expression, Terminal):
        # A terminal that may be nothing may be left out, and what is ignored before it with it: that changes nothing.
        return joined(skip, set(WORDS[expression.pattern]))
    if isinstance(expression, Call):
        return known[expression.rule]
    if isinstance(expression, Choice):
        return set().union(*(texts_of(item, known, skip) for item in expression.items))
    if isinstance(expression, Sequence):
        found = {""}
        for item in expression.items:
            found = joined(found, texts_of(item, known, skip))
        return found
    body = texts_of(expression.body, known, skip)
    found = {""}
    for _ in range(expression.least):
        found = joined(found, body)
    if expression.most is None:
        return joined(found, star(body))
    for _ in range(expression.most - expression.least):
        found |= joined(found, body)
    return found


def language(rules: Rules) -> set[str]:
    skip = skipped(rules)
    known: dict[str, set[str]] = {name: set() for name in rules.rules}
    while True:
        after = {name: texts_of(body, known, skip) for name, body in rules.rules.items()}
        if after == known:
            return joined(known[rules.start], skip)
        known = after


def nested_language(grammar: BoundedGrammar, depth: int) -> set[str]:
    """What the networks derive with calls that count at most `depth` - 1 deep, taking every call as just a call."""
    skip, plan = skipped(grammar.rules), grammar.plan
    keys = [(name, level) for name in plan.component for level in range(1, depth + 1)]
    known: dict[tuple[str, int], set[str]] = {key: set() for key in keys}

    def paths(name: str, level: int) -> set[str]:
        network = grammar.networks[name]
        at = {START: {""}}
        while True:
            after = {state: set(texts) for state, texts in at.items()}
            for state, texts in at.items():
                for terminals, target in network.reads[state]:
                    words = {x for terminal in terminals for x in WORDS[terminal.pattern]}
                    after.setdefault(target, set()).update(joined(texts, joined(skip, words)))
                for called, target in network.calls[state]:
                    inside = plan.component[called] == plan.component[name]
                    deeper = level + ((name, state, called, target) in plan.counted) if inside else 1
                    after.setdefault(target, set()).update(joined(texts, known.get((called, deeper), set())))
                if state in network.ends:
                    after.setdefault(FINAL, set()).update(texts)
            if after == at:
                return at.get(FINAL, set())
            at = after

    while True:
        found = {key: paths(*key) for key in keys}
        if found == known:
            return joined(known[grammar.rules.start, 1], skip)
        known = found


def accepted(grammar: BoundedGrammar, depth: int) -> set[str]:
    try:
        automaton = grammar.automaton(depth, max_states=2_000, max_work=60_000)
    except AutomatonTooLarge:
        reject()  # a few random grammars are ambiguous without measure
    return {text for text in STRINGS if automaton.accepts(text.encode())}


def compiled(rules: Rules) -> Iterator[BoundedGrammar]:
    """Yield the grammar with its rules rewritten, and as they are, so that every kind of call is met."""
    yield BoundedGrammar(rules)
    with mock.patch.object(module, "simplify", lambda networks, start: dict(networks)):
        yield BoundedGrammar(rules)


def infinite(rules: Rules) -> bool:
    try:
        BoundedGrammar(rules)
    except Infeasible:
        return True
    return False


@thorough
@given(grammars)
def test_no_bound_ever_lets_a_text_in_that_the_grammar_does_not_derive(rules: Rules) -> None:
    expected = language(rules)
    if infinite(rules):
        assert not expected
        return
    for grammar in compiled(rules):
        smaller: set[str] = set()
        for depth in (1, 2, 3):
            found = accepted(grammar, depth)
            assert smaller <= found <= expected, depth
            smaller = found


@thorough
@given(grammars)
def test_a_grammar_whose_recursion_is_all_loops_is_exact(rules: Rules) -> None:
    if infinite(rules):
        return
    for grammar in compiled(rules):
        if not grammar.nests:
            assert accepted(grammar, 1) == language(rules)


@thorough
@given(grammars, st.integers(1, 3))
def test_a_bounded_automaton_is_exactly_what_is_derived_within_the_bound(rules: Rules, depth: int) -> None:
    if infinite(rules):
        return
    for grammar in compiled(rules):
        assert accepted(grammar, depth) == nested_language(grammar, depth)


@thorough
@given(grammars, st.integers(1, 3))
def test_texts_shorter_than_the_least_that_is_beyond_a_bound_are_never_lost(rules: Rules, depth: int) -> None:
    if infinite(rules):
        return
    expected = language(rules)
    for grammar in compiled(rules):
        least = grammar.least_beyond(depth)
        assert {x for x in expected if len(x) < least} <= accepted(grammar, depth)


@thorough
@given(grammars, st.integers(0, LENGTH))
def test_a_bound_that_is_said_not_to_bind_loses_nothing(rules: Rules, size: int) -> None:
    if infinite(rules):
        return
    expected = {x for x in language(rules) if len(x) <= size}
    for grammar in compiled(rules):
        try:
            automaton, _, can_bind = grammar.deepest(size, budget=60)
        except AutomatonTooLarge:
            reject()
        if not can_bind:
            assert expected == {x for x in STRINGS if len(x) <= size and automaton.accepts(x.encode())}


@thorough
@given(grammars)
def test_the_parser_that_checks_texts_accepts_the_language(rules: Rules) -> None:
    derivation, expected = Derivation(rules), language(rules)
    assert {x for x in STRINGS if derivation.accepts(x)} == expected


def words(*rows: str) -> Expression:
    """Return alternatives from strings like "x s y": one-letter names of rules and terminals."""
    return Choice(
        tuple(Sequence(tuple(Call(c) if c in "stu" else Terminal(c, c) for c in row.split())) for row in rows)
    )


@pytest.mark.parametrize(
    ("rules", "nests"),
    [
        ({"s": words("s a", "b")}, False),
        ({"s": words("a s", "b")}, False),
        ({"s": words("s a s", "b")}, False),
        ({"s": words("s a s", "b s", "s b", "a")}, False),
        ({"s": words("t a", "a"), "t": words("s b", "b")}, False),
        ({"s": words("a t", "a"), "t": words("b s", "b")}, False),
        ({"s": words("a", "s t"), "t": words("b s")}, False),
        ({"s": words("s", "a")}, False),
        ({"s": words("t", "a"), "t": words("s", "b")}, False),
        ({"s": words("a s b", "")}, True),
        ({"s": words("a t b", "a"), "t": words("s s", "b")}, True),
    ],
)
def test_only_recursion_with_something_on_both_sides_needs_a_bound(rules: dict[str, Expression], nests: bool) -> None:
    grammar = BoundedGrammar(Rules(rules, "s"))
    assert grammar.nests is nests
    assert (grammar.least_beyond(1) == math.inf) is not nests
    if not nests:
        assert accepted(grammar, 1) == language(Rules(rules, "s"))


@pytest.mark.parametrize("recursive", [words("s a", "b"), words("a s", "b"), words("s a s", "b")])
def test_loops_go_on_for_ever(recursive: Expression) -> None:
    automaton = BoundedGrammar(Rules({"s": recursive}, "s")).automaton(1)
    left, right, both = b"b" + b"a" * 9999, b"a" * 9999 + b"b", b"ba" * 9999 + b"b"
    assert [automaton.accepts(text) for text in (left, right, both)].count(True) == 1


def test_a_rule_that_no_level_adds_to_is_found_to_be_exact() -> None:
    some = Terminal("b*", "b*")
    body = Choice((Terminal("a", "a"), Sequence((some, Call("s"), some))))
    grammar = BoundedGrammar(Rules({"s": body}, "s"))
    assert grammar.nests
    automaton, _, can_bind = grammar.deepest(100)
    assert not can_bind
    assert automaton == ByteAutomaton.from_regex("b*ab*")


@pytest.mark.parametrize(
    ("rules", "lost"),
    [
        ({"s": words("a s b", "")}, ["ab", "aabb", "aaabbb"]),
        ({"s": words("a t b b", "a"), "t": words("s", "b s a")}, ["aabb", "aaabbbb", "aaaabbbbbb"]),
        ({"s": words("b s", "t"), "t": words("a s a a", "b")}, ["abaa", "aabaaaa", "aaabaaaaaa"]),
        ({"s": words("s b", "t u"), "t": words("a s a a", "b"), "u": words("a")}, ["abaaaa", "aabaaaaaaa"]),
    ],
)
def test_the_first_text_that_a_bound_loses_is_as_long_as_it_says(rules: dict[str, Expression], lost: list[str]) -> None:
    for grammar in compiled(Rules(rules, "s")):
        for depth, text in enumerate(lost, start=1):
            assert grammar.least_beyond(depth) == len(text)
            assert not grammar.automaton(depth).accepts(text.encode())
            assert grammar.automaton(depth + 1).accepts(text.encode())
            assert grammar.enough_for(len(text) - 1) == depth
            assert grammar.enough_for(len(text)) == depth + 1


def test_a_level_that_adds_nothing_does_not_end_the_search_while_a_later_one_may() -> None:
    a, b = Terminal("a", "a"), Terminal("b", "b")
    ends = {0: [Terminal("ab", "ab")], 39: [Terminal("ba", "ba")]}
    rules = {
        f"r{i}": Choice(tuple([Sequence((x, Call(f"r{(i + 1) % 40}"), x)) for x in (a, b)] + ends.get(i, [])))
        for i in range(40)
    }
    *_, grammar = compiled(Rules(rules, "r0"))
    assert grammar.automaton(1) == grammar.automaton(2) == ByteAutomaton.literal("ab")
    assert grammar.deepest(400, budget=1_000).can_bind


@pytest.mark.parametrize(
    ("text", "least"), [('start: b start "x" | "y"\nb: | "z"', 90), ('start: "b" start "b" | "a" start | "b"?', 129)]
)
def test_the_deepest_automaton_is_found_in_few_steps(text: str, least: int) -> None:
    began = time.process_time()
    found = BoundedGrammar(read_grammar(text)).deepest()
    assert time.process_time() - began < 5  # 2 s on a quiet machine
    assert found.depth >= least
