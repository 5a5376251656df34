"""Trees, spans and the chart parser against every derivation that a small grammar has."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from nltk.tree import Tree

from guided_dlm.errors import InvalidRequest
from guided_dlm.parsing import TreeGrammar, bracket_f1, read_tree, spans_of
from guided_dlm.parsing.chart import Rules, best_tree
from guided_dlm.parsing.grammar import clean

Binary = Mapping[tuple[str, str, str], float]
Leaf = Mapping[tuple[str, str], float]

TREES = [
    "(S (NP (DT the) (NN pub)) (VP (VBZ is) (PP (IN in) (NP (NN town)))) (. .))",
    "(S (NP (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))))",
    "(S (NP (NP (NN pub)) (PP (IN in) (NP (DT the) (NN town)))) (VP (VBZ has) (NP (NN food))) (. .))",
    "(S (NP (DT the) (JJ old) (NN pub)) (VP (VBZ has) (NP (NN food) (NN food))))",
]


def every_score(binary: Binary, leaf: Leaf, tags: Sequence[str], symbol: str) -> Iterator[float]:
    """The log-probability of each derivation of tags from a symbol."""
    if len(tags) == 1 and (symbol, tags[0]) in leaf:
        yield leaf[symbol, tags[0]]
    for (above, left, right), log_p in binary.items():
        for cut in range(1, len(tags)) if above == symbol else ():
            parts = (every_score(binary, leaf, tags[:cut], left), every_score(binary, leaf, tags[cut:], right))
            yield from (log_p + a + b for a, b in itertools.product(*parts))


def score(binary: Binary, leaf: Leaf, node: Any, tags: Iterator[str]) -> float:
    """The log-probability of one derivation."""
    if len(node) == 1:
        return leaf[node[0], next(tags)]
    below = [score(binary, leaf, child, tags) for child in node[1:]]
    return binary[node[0], node[1][0], node[2][0]] + sum(below)


def test_spans_join_unary_chains_and_leave_out_tags_and_roots() -> None:
    tree = read_tree("(TOP (S (VP (VBZ is) (NP (NP (NN food)) (. .)))))")
    assert spans_of(tree) == [(0, 2, "S::VP"), (1, 2, "NP"), (1, 1, "NP")]
    two = read_tree("( (S (NP (NN a)) (VP (VBZ b))) (S (VP (VB c))))")
    assert spans_of(two) == [(0, 1, "S"), (0, 0, "NP"), (1, 1, "VP"), (2, 2, "S::VP")]
    assert spans_of(read_tree("(NN a)")) == []


def test_bracketing_f1_counts_labels_at_places() -> None:
    gold = [(0, 3, "S"), (0, 1, "NP"), (2, 3, "VP")]
    assert bracket_f1(gold, gold) == 1.0
    assert bracket_f1([(0, 3, "S"), (0, 1, "VP")], gold) == pytest.approx(2 * 1 / 5)
    assert bracket_f1([(0, 1, "NP"), (0, 1, "NP")], gold) == pytest.approx(2 * 1 / 5)  # a double is counted once
    assert bracket_f1([], []) == 0.0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(S (NP a)", "1 opened and never closed"),
        ("(S a))", "closes at position 5"),
        ("(S ())", "label and a child"),
        ("S", "is no tree"),
        ("(S a) (S b)", "is no tree"),
        ("", "is no tree"),
    ],
)
def test_brackets_that_are_no_tree_are_refused(text: str, what: str) -> None:
    with pytest.raises(InvalidRequest, match=r"Brackets") as caught:
        read_tree(text)
    assert what in str(caught.value)


def test_labels_are_bared_and_empty_elements_left_out() -> None:
    tree = Tree.fromstring("(S (NP-SBJ=1 (-NONE- *T*)) (VP|X (VBZ is) (NP (NP-PRD (NN food)))) (NP (-NONE- 0)))")
    found = clean(tree)
    assert found is not None and found.pformat() == "(S (VP (VBZ is) (NP (NN food))))"
    assert clean(Tree.fromstring("(NP (-NONE- 0))")) is None


@pytest.mark.parametrize("seed", range(12))
def test_the_chart_finds_the_likeliest_of_all_derivations(seed: int) -> None:
    draw = random.Random(seed)
    symbols = "ABC"
    every = [rule for rule in itertools.product(symbols, repeat=3) if draw.random() < 0.4]
    binary = {rule: -draw.expovariate(1.0) for rule in every}
    leaf = {(symbol, tag): -draw.expovariate(1.0) for symbol in symbols for tag in "xy" if draw.random() < 0.6}
    rules = Rules.of(binary, leaf)
    for length in range(1, 7):
        tags = [draw.choice("xy") for _ in range(length)]
        scores = list(every_score(binary, leaf, tags, "A"))
        found = best_tree(rules, tags, lambda symbol: symbol == "A")
        assert (found is None) == (not scores)
        if found is not None:
            assert score(binary, leaf, found, iter(tags)) == pytest.approx(max(scores), abs=1e-5)


def test_a_grammar_gives_back_the_trees_it_was_counted_on() -> None:
    trees = [Tree.fromstring(text) for text in TREES]
    grammar = TreeGrammar.count(trees)
    for tree in trees:
        assert grammar.parse(tree.pos()) == tree


def test_unknown_tags_give_a_flat_tree_and_no_words_an_error() -> None:
    grammar = TreeGrammar.count([Tree.fromstring(TREES[0])])
    assert grammar.parse([("wow", "UH"), ("!", ".")]).pformat() == "(X (UH wow) (. !))"
    with pytest.raises(InvalidRequest, match="no word to parse"):
        grammar.parse([])
    with pytest.raises(InvalidRequest, match="there is none"):
        TreeGrammar.count([])
