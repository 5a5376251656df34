"""Reading grammars in both notations, and what is refused, where and how soon."""

import re
import time

import pytest

from constraints.derivation import Derivation
from guided_dlm.automata import ByteAutomaton
from guided_dlm.automata.grammar import BoundedGrammar, read_grammar
from guided_dlm.errors import (
    AutomatonTooLarge,
    GuidedError,
    Infeasible,
    InvalidRequest,
    UnknownName,
    UnsupportedPattern,
)


def automaton(text: str, **options: str) -> ByteAutomaton:
    return BoundedGrammar(read_grammar(text, **options)).automaton(1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('start: "a" | "b"', "a|b"),
        ('start: "a"i "b"?', "[aA]b?"),
        ('start: "a"* "b"+', "a*b+"),
        ('start: "a"~3', "a{3}"),
        ('start: "a"~2..4 "b"', "a{2,4}b"),
        ('start: ("a" | "b"~0..90)~0..2', "(a|b{0,90}){0,2}"),
        ('start: ["a"] ("b" "c")?', "a?(bc)?"),
        ('start: /[a-c]+/ "x".."z"', "[a-c]+[x-z]"),
        ('start: A\nA: B~2 | "x" (C|"y")*\nB: "b"\nC.3: /c+/i', "bb|x(?:[cC]+|y)*"),
        ('start: a -> first\n | b\n?a.2: "a"\n!b: "b" // comment', "a|b"),
        ('_x: "a"\nstart: _x _x', "aa"),
        ('start: "\\"" /\\// "\\u00e9\\n"', '"/\u00e9\n'),
        ("start: /a b/x", "ab"),
        ('start: "a" "b"\n%ignore " "\n%ignore /#[^\\n]*\\n/', r"(?: |#[^\n]*\n)*a(?: |#[^\n]*\n)*b(?: |#[^\n]*\n)*"),
        ('start: list{"a", ","}\nlist{x, s}: x (s x)*', "a(,a)*"),
        ('start: t{u{"a"}} | t{"b"}\nt{x}: x "." x\nu{x}: x x', r"aa\.aa|b\.b"),
        ('start: t{u, "a"}\nt{f, x}: f{x}\nu{x}: "<" x ">"', "<a>"),
        ("%import common.INT\nstart: INT", "[0-9]+"),
        ("%import common (INT, LETTER)\nstart: INT LETTER", "[0-9]+[A-Za-z]"),
        ("%import common.DIGIT -> D\nstart: D", "[0-9]"),
        ("%import common.ESCAPED_STRING\nstart: ESCAPED_STRING", r'"(?:[^"\\\n]|\\.)*"'),
        ("%import common.C_COMMENT\nstart: C_COMMENT", r"/\*(?:[^*]|\*+[^*/])*\*+/"),
        ('start: "a"\n%extend start: "b"', "a|b"),
        ("start: a\na: a", None),
        ('start: a\na: a | b | "x"\nb: a', "x"),
        ("start: ", ""),
        ("start: /a*/ start?", "a*"),
        ("S -> 'a' | 'b' S", "(b )*a"),
        ("S -> A B\nA -> 'x' | \nB -> 'y' | ", "x y|x|y|"),
        ("# comment\nS -> NP/S 'it is'\nNP/S -> \"who\"", "who it is"),
        ("S -> S 'b' | 'a'", "a( b)*"),
    ],
)  # fmt: skip
def test_both_notations_mean_what_their_own_readers_say(text: str, pattern: str | None) -> None:
    if pattern is None:
        with pytest.raises(Infeasible):
            automaton(text)
    else:
        assert automaton(text) == ByteAutomaton.from_regex(pattern)


def test_the_start_and_what_stands_between_words_can_be_chosen() -> None:
    assert automaton('start: "a"\nother: "b"', start="other") == ByteAutomaton.literal("b")
    assert automaton("S -> A 'x'\nA -> 'a'", start="A") == ByteAutomaton.literal("a")
    assert automaton("S -> 'a' 'b' 'c'", separator=r"\s?") == ByteAutomaton.from_regex(r"a\s?b\s?c")
    assert automaton("A -> 'x'", notation="nltk") == ByteAutomaton.literal("x")


def doubling(template: str, levels: int) -> str:
    return "\n".join(template.format(i, i + 1) for i in range(levels))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", InvalidRequest, "empty.*at least one rule"),
        (" \n\t", InvalidRequest, "empty"),
        ('start: ("a"\n', InvalidRequest, "line 1, column"),
        ('start: "a"\nb: "b', InvalidRequest, "line 2 column 4.*'b: \"b'"),
        ('start "a"', InvalidRequest, "missing colon.*line 1 column 7"),
        ('start: "a"\nstart: "b"', InvalidRequest, "defined more than once"),
        ('start: "a"\n  | nowt', InvalidRequest, "'nowt' used but not defined.*line 2 column 5"),
        ("start: NOWT", InvalidRequest, "'NOWT' used but not defined.*line 1 column 8"),
        ("start: A\nA: B", InvalidRequest, "not defined: B, at line 2 column 4"),
        ("start: A\nA: A", InvalidRequest, "Recursion in terminal 'A'.*line 1"),
        ("start: A\nA: ", InvalidRequest, "Terminals cannot be empty"),
        ('start: ""', InvalidRequest, "line 1, column 8.*Empty terminals"),
        ('start: "a"~3..1', InvalidRequest, "line 1 column 12.*lower number first"),
        ('start: "ab".."c"', InvalidRequest, "range needs one character"),
        ('start: "\\xzz"', InvalidRequest, "escape"),
        ('t{x}: x\nstart: t{"a","b"}', InvalidRequest, "template arguments.*line"),
        ('start: "a"\n%import nowhere.X', InvalidRequest, "nowhere.*own libraries"),
        ("%import .secret (y)\nstart: y", InvalidRequest, "secret.*own libraries"),
        ("start: " + "(" * 900 + '"a"' + ")" * 900, InvalidRequest, "nested too deeply"),
        ("start: X\n%declare X", UnsupportedPattern, "X with %declare, at line 1 column 8"),
        ("start: /a(?=b)/", UnsupportedPattern, r"/a\(\?=b\)/ at line 1, column 8.*look-ahead"),
        ("start: KEY\nKEY: /if\\b/", UnsupportedPattern, "Terminal KEY, at line 1 column 8.*anchor"),
        ("start: /[/", UnsupportedPattern, "does not parse at position 0"),
        ('stat: "a"', UnknownName, "'start'.*mean 'stat'"),
        ('start: start "a"', Infeasible, "no finite text.*'start'"),
        ('start: "x" a\na: b\nb: a', Infeasible, "no finite text.*rule 'start' needs the rule '[ab]'"),
        ("S -> 'a' S", Infeasible, "no finite text"),
        ("S -> NP VP\nNP -> 'a'", InvalidRequest, "'VP' is used at line 1 and has no production"),
        ("S -> 'a'\nNP -> 'b", InvalidRequest, "line 2"),
        ("S -> ''", InvalidRequest, "empty word"),
        ('start: a\na: "x"~1000000', AutomatonTooLarge, "rule 'a' expands to more than"),
        ('start: a\na: "x"~0..1000000', AutomatonTooLarge, "rule 'a' expands to more than"),
        ('start: (((("a"~9)~9)~9)~9)~9', AutomatonTooLarge, "rule 'start' expands to more than"),
        ('start: A\nA: "x"~1000000', AutomatonTooLarge, "Terminal A.*more than"),
        ('start: x\nx: ("a"|"b")* "a" ("a"|"b")~30', AutomatonTooLarge, "rule 'x' needs more than"),
        (doubling("r{0}: r{1} r{1}", 300) + '\nr300: "x"\nstart: r0', AutomatonTooLarge, "rule 'r283'"),
        (doubling("r{0}: r{1}? r{1}?", 300) + '\nr300: "x"\nstart: r0', AutomatonTooLarge, r"in the rule 'r\d+'"),
        (doubling("T{0}: T{1} T{1}", 60) + '\nT60: "x"\nstart: T0', AutomatonTooLarge, r"terminal T\d+, at line"),
        ('start: t{"a"}\nt{x}: t{u{x}} | x\nu{x}: x x', AutomatonTooLarge, "template 't'"),
    ],
)
def test_a_bad_grammar_is_refused_soon_and_says_where(text: str, kind: type[GuidedError], message: str) -> None:
    began = time.process_time()
    with pytest.raises(kind) as caught:
        BoundedGrammar(read_grammar(text)).deepest()
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    # Two seconds are the promise; the first use of NLTK in a process takes more, and is not the grammar's doing.
    assert time.process_time() - began < (8 if "->" in text else 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"notation": "bnf"}, "no notation 'bnf'.*lark.*nltk"), ({"separator": " "}, "for NLTK's notation.*%ignore")],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_grammar('start: "a"', **options)  # type: ignore[arg-type]


def test_alternatives_that_multiply_are_read_without_being_multiplied_out() -> None:
    text = "start: " + '("a" | "b")? ' * 40
    assert automaton(text) == ByteAutomaton.from_regex("[ab]{0,40}")


@pytest.mark.parametrize("rules", [40, 100])
def test_many_rules_that_all_call_one_another_find_a_small_automaton_or_say_so(rules: int) -> None:
    text = "\n".join(
        f'r{i}: "(" r{(i + 1) % rules} ")" r{(i * 7 + 3) % rules} | "[" r{(i * 5 + 2) % rules} "]" | "x"'
        for i in range(rules)
    )
    began = time.process_time()
    found = BoundedGrammar(read_grammar(text, start="r0")).deepest()
    assert found.can_bind
    assert found.automaton.accepts(b"x")
    assert not found.automaton.accepts(b"(x)")
    assert time.process_time() - began < 10


def test_a_template_without_its_arguments_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"'start' uses the template 't'.* without"):
        read_grammar("t{x}: x\nstart: t")
    passed = read_grammar('both{f, x}: f{x}\npair{x}: x x\nstart: both{pair, "a"}')
    assert BoundedGrammar(passed).automaton(1).accepts(b"aa")


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("start: A | B\nA: /(?P<x>a)/\nB: /(?P<x>b)/", ["a", "b"], ["A", "ab"]),
        ("start: A | B\nA: /(?i)a/\nB: /b/", ["a", "A", "b"], ["B"]),
        ("start: A | B\nA: /(?x) a # one/\nB: /[(?P<x>]/", ["a", "(", "<"], ["b", "one"]),
        ("start: A | B\nA: /a[]]\\(?P<y>/\nB: /(?P<y>[^]]\\])/", ["a](P<y>", "a]P<y>", "a]"], ["]]", "a"]),
    ],
)
def test_terminals_with_flags_and_named_groups_stand_side_by_side(text: str, yes: list[str], no: list[str]) -> None:
    rules = read_grammar(text)
    automaton, truth = BoundedGrammar(rules).automaton(1), Derivation(rules)
    for word in (*yes, *no):
        assert automaton.accepts(word.encode()) is (word in yes) is truth.accepts(word), word
