"""Grammar: the automaton, `check`, lark's Earley parser and NLTK's chart parser agree; notes say what is bounded."""

import random
from collections.abc import Callable

import pytest

from constraints.grammar import Grammar
from guided_dlm import CompileContext, Constraint, Vocabulary
from guided_dlm.errors import GuidedError, Infeasible, InvalidRequest
from guided_dlm.testing import check_constraint

ARITHMETIC = """
?start: sum
?sum: product | sum "+" product -> add | sum "-" product -> sub
?product: atom | product "*" atom | product "/" atom
?atom: NUMBER | "-" atom | NAME | "(" sum ")"
%import common.CNAME -> NAME
%import common.NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
"""
JSON = r"""
?start: value
?value: object | array | string | SIGNED_NUMBER | "true" | "false" | "null"
array: "[" [value ("," value)*] "]"
object: "{" [pair ("," pair)*] "}"
pair: string ":" value
string: ESCAPED_STRING
%import common.ESCAPED_STRING
%import common.SIGNED_NUMBER
%import common.WS
%ignore WS
"""
STATEMENTS = """
start: stmt+
stmt: "if" "(" expr ")" stmt ["else" stmt] | "while" "(" expr ")" stmt | "{" stmt* "}" | NAME "=" expr ";"
    | "return" expr? ";"
expr: expr "+" term | expr "<" term | term
term: term "*" factor | factor
factor: NAME | INT | "(" expr ")" | NAME "(" (expr ("," expr)*)? ")"
NAME: /[a-z]+/
%import common.INT
%ignore " "
"""
SQL = r"""
start: select ";"?
select: "SELECT"i ("*" | columns) "FROM"i NAME ("WHERE"i test)? ("LIMIT"i INT)?
columns: column ("," column)*
column: NAME ("AS"i NAME)?
test: test "AND"i test | test "OR"i test | "NOT"i test | "(" test ")" | NAME OP operand
operand: INT | NAME | "(" select ")"
OP: "=" | "<" | ">" | "<=" | ">="
NAME: /[a-z_]+/
%import common.INT
%import common.WS
%ignore WS
"""
ENGLISH = """
S -> NP VP
NP -> Det N | NP PP | 'I'
VP -> V NP | VP PP | V | V 'that' S
PP -> P NP
Det -> 'the' | 'a'
N -> 'dog' | 'park'
V -> 'saw' | 'walked'
P -> 'in' | 'with'
"""
SEEDS = {
    ARITHMETIC: ["1 + 2*(3-x)", "-(-1)", "((((7))))/a", "x1 y", "1+", "(1", "2 * - 3.5e1"],
    JSON: ['{"a": [1, -2.5e3, "x\\"y"], "b": null}', '"a"b"', '["\\\\"]', "[[],{}]", "[1,]", "tru", "{} "],
    STATEMENTS: ["if(a<b) x = f(1,g()); else { return; }", "if(a) if(b) {} else {}", "x = ;", "return(a)*b+1;"],
    SQL: ["select a, b as c from t where x = 1 and (y < 2 or not z = k)", "SELECT * FROM t;", "select from t"],
}


def parser(grammar: str) -> Callable[[str], bool]:
    from lark import Lark
    from lark.exceptions import LarkError

    earley = Lark(grammar, parser="earley", lexer="dynamic_complete")

    def accepts(text: str) -> bool:
        try:
            earley.parse(text)
        except LarkError:
            return False
        return True

    return accepts


def near(text: str, chance: random.Random) -> str:
    """Cut something out of a text, double it, or move it."""
    i, j = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    j = min(j, i + 4)
    return chance.choice([text[:i] + text[j:], text[:j] + text[i:], text[j:] + text[:j], text[:i] + " " + text[i:]])


@pytest.mark.parametrize("grammar", SEEDS, ids=["arithmetic", "json", "statements", "sql"])
def test_the_automaton_check_and_larks_earley_parser_agree(grammar: str) -> None:
    wish, accepts, chance = Grammar(grammar), parser(grammar), random.Random(0)
    automaton = wish.to_automaton()
    texts = [*SEEDS[grammar], *(near(seed, chance) for seed in SEEDS[grammar] for _ in range(15))]
    found = {text: accepts(text) for text in texts}
    assert len(set(found.values())) == 2
    for text, expected in found.items():
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


def test_nltk_grammars_accept_the_words_that_nltks_chart_parser_does() -> None:
    from nltk import CFG, ChartParser

    wish, chart, chance = Grammar(ENGLISH), ChartParser(CFG.fromstring(ENGLISH)), random.Random(0)
    automaton = wish.to_automaton()
    words = ENGLISH.replace("'", " ").split()
    vocabulary = sorted({word for word in words if word.islower()} | {"I"})
    starts = ["I saw the dog in the park with a dog", "the dog walked", "I saw that the dog walked in the park"]
    texts = [*starts, *(" ".join(chance.choice(vocabulary) for _ in range(chance.randint(0, 4))) for _ in range(150))]
    for start in starts:
        for _ in range(30):
            row = start.split()
            row[chance.randrange(len(row))] = chance.choice(vocabulary)
            texts.append(" ".join(row))
    found = {text: next(iter(chart.parse(text.split())), None) is not None for text in texts}
    assert len(set(found.values())) == 2
    for text, expected in found.items():
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text
    for spaced in ("I  walked", " I walked", "I walked ", "Iwalked"):
        assert not wish.check(spaced)
        assert not automaton.accepts(spaced.encode())


@pytest.mark.parametrize(
    "wish",
    [
        Grammar(ARITHMETIC),
        Grammar(ENGLISH),
        Grammar(ENGLISH, start="NP", spaces=r"\s+", notation="nltk"),
        Grammar('start: "(" start ")" | /[a\u00e9]/', depth=20),
        Grammar("start: /a*/"),
    ],
    ids=["arithmetic", "english", "spaces", "depth", "regular"],
)
def test_grammars_keep_the_contract_of_constraints(wish: Grammar) -> None:
    check_constraint(wish, samples=8)
    assert Constraint.from_config(wish.to_config()) == wish


def context(length: int, *tokens: bytes) -> CompileContext:
    return CompileContext(vocabulary=Vocabulary.from_tokens([*tokens, b""], eos_id=len(tokens)), length=length)


NESTED = 'start: "(" start ")" | "x"'


def test_the_depth_follows_the_canvas_so_that_no_text_of_it_is_lost() -> None:
    for length in (1, 2, 3, 9, 10, 50):
        canvas = context(length, b"(", b")", b"x")
        wish = Grammar(NESTED)
        assert wish.notes(canvas) == {"depth": (length + 1) // 2, "depth_can_bind": False}
        automaton = wish.compile(canvas).automaton
        assert automaton is not None
        deepest = (length - 1) // 2
        tokens = [0] * deepest + [2] + [1] * deepest
        assert automaton.accepts(tokens + [3] * (length - len(tokens)))


@pytest.mark.parametrize(
    ("depth", "length", "can_bind"), [(1, 2, False), (1, 3, True), (4, 8, False), (4, 9, True), (5, 10, False)]
)
def test_notes_say_whether_a_given_depth_loses_a_text_of_the_canvas(depth: int, length: int, can_bind: bool) -> None:
    wish, canvas = Grammar(NESTED, depth=depth), context(length, b"(", b")", b"x")
    assert wish.notes(canvas) == {"depth": depth, "depth_can_bind": can_bind}
    lost = b"(" * depth + b"x" + b")" * depth
    assert (len(lost) <= length) is can_bind
    assert not wish.to_automaton().accepts(lost)
    assert wish.check(lost.decode())


@pytest.mark.parametrize("text", ['start: start "a" | "a"', 'start: "a" start | "a"', "S -> S 'and' S | 'a'"])
def test_a_depth_never_binds_where_recursion_is_a_loop(text: str) -> None:
    wish, canvas = Grammar(text), context(4, b"a", b" and ")
    assert wish.notes(canvas) == {"depth": 1, "depth_can_bind": False}
    long = " and ".join("a" * 500) if "and" in text else "a" * 3000
    assert wish.to_automaton().accepts(long.encode())


def test_a_depth_without_any_text_is_refused_and_the_default_is_deep_enough() -> None:
    rows = [
        f'r{i}: "(" r{(i + 1) % 40} ")" r{(i * 7 + 3) % 40} | "[" r{(i + 1) % 40} "]" | "<" r{(i * 5 + 2) % 40} ">"'
        for i in range(40)
    ]
    text = "\n".join([*rows, '%extend r39: "x"'])
    with pytest.raises(Infeasible, match="nests deeper than that"):
        Grammar(text, start="r0", depth=1).to_automaton()
    example = Grammar(text, start="r0").to_automaton().example()
    assert example is not None
    assert Grammar(text, start="r0").check(example.decode())


def test_a_canvas_whose_tokens_cannot_write_the_grammar_is_refused() -> None:
    with pytest.raises(Infeasible, match="character"):
        Grammar(NESTED).compile(context(5, b"(", b")"))


def test_the_parser_that_checks_takes_long_and_ambiguous_texts() -> None:
    wish = Grammar('start: start start | "a" | "b"?')
    assert wish.check("ab" * 60)
    assert not wish.check("ab" * 60 + "c")


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        (5, {}, "not a text"),
        ("", {}, "empty"),
        ("start: a", {}, "line 1 column 8"),
        ('start: "a"', {"depth": 0}, "depth=0"),
        ('start: "a"', {"depth": True}, "depth=True"),
        ('start: "a"', {"depth": 2.0}, "depth=2.0"),
        ('start: "a"', {"depth": 10**9}, "depth=1000000000"),
        ('start: "a"', {"start": 3}, "start=3"),
        ('start: "a"', {"start": "strat"}, "mean 'start'"),
        ('start: "a"', {"notation": "yacc"}, "no notation 'yacc'"),
        ('start: "a"', {"spaces": " *"}, "%ignore"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_written(
    text: object, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(GuidedError, match=message) as caught:
        Grammar(text, **fields)  # type: ignore[arg-type]
    assert isinstance(caught.value, InvalidRequest | LookupError)


def test_a_complement_is_refused_where_the_bound_would_let_texts_of_the_grammar_in() -> None:
    wish, small, large = Grammar(NESTED, depth=2), context(4, b"(", b")", b"x"), context(9, b"(", b")", b"x")
    assert (~wish).compile(small).automaton is not None
    with pytest.raises(InvalidRequest, match=r"nests deeper than its automaton follows in a canvas of 9 tokens"):
        (~wish).compile(large)
