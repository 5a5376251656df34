"""Grammars in lark's notation, read by lark's own loader up to the point where it would lose repeats and groups."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from guided_dlm.automata.grammar.recursion import components
from guided_dlm.automata.grammar.rules import Call, Choice, Expression, Repeat, Rules, Sequence, Terminal, leaves
from guided_dlm.errors import AutomatonTooLarge, InvalidRequest, UnknownName, UnsupportedPattern, shorten

MAX_TERMINAL_PARTS = 10_000
MAX_TEMPLATES = 1_000

# lark's library spells a string in quotes lazily and with a look-behind; this is the same set of texts without.
_QUOTED = (r'".*?(?<!\\)(\\\\)*?"', r'"(?:[^"\\\n]|\\.)*"')


def read_lark(text: str, start: str) -> Rules:
    """Return the rules of a grammar in lark's notation; priorities, aliases and `?` or `!` before rules change nothing.

    Raises:
        InvalidRequest: lark cannot read it, or it uses a name that is not defined; the message has line and column.
        UnsupportedPattern: it declares terminals without saying what they are.
        AutomatonTooLarge: a terminal or a template expands without end.
        UnknownName: there is no such start rule.
    """
    loaded = _load(text)
    plain = [str(name) for name, parameters, _, _ in loaded.rule_defs if not parameters]
    if start not in plain:
        near = difflib.get_close_matches(start, plain, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UnknownName(
            f"The grammar has no rule {start!r} to start from. {hint}It has {plain[:20]}; choose one with start=."
        )
    reader = _Reader(loaded, text)
    return Rules(reader.rules(), start, tuple(reader.terminals[name] for name in dict.fromkeys(loaded.ignore)))


def _load(text: str) -> Any:
    """Return lark's own reading of the grammar: trees of rules and terminals, imports resolved."""
    from lark.exceptions import LarkError
    from lark.load_grammar import GrammarBuilder

    try:
        builder = GrammarBuilder()
        _require_small(text)
        builder.load_grammar(text, "<string>")
        loaded, files = builder.build(), builder.used_files
    except LarkError as error:
        raise InvalidRequest(f"The grammar cannot be read: {_explain(str(error), text)}") from error
    except RecursionError as error:
        raise InvalidRequest(
            "The grammar cannot be read: its groups are nested too deeply. Give some of them rules of their own."
        ) from error
    except (OSError, AssertionError) as error:
        raise InvalidRequest(
            f"The grammar cannot be read: {error}. Only lark's own libraries can be imported."
        ) from error
    relative = [path for path in files if isinstance(path, str)]
    if relative:
        raise InvalidRequest(
            f"The grammar imports the file {relative[0]!r}, so its text alone does not say what it means. Copy the "
            "rules into it; imports from lark's own libraries (%import common.X) are fine."
        )
    for name, (tree, _) in [*loaded.term_defs, *((n, (t, o)) for n, _, t, o in loaded.rule_defs)]:
        if tree is None:
            raise UnsupportedPattern(
                f"The grammar declares {name} with %declare{_place(text, name)}, without saying which texts it stands "
                "for. Give it a definition."
            )
    return loaded


def _require_small(text: str) -> None:
    """Refuse terminals whose composition multiplies, before lark writes it out."""
    from lark import load_grammar
    from lark.grammar import Terminal as Symbol

    parse: Any = load_grammar._parse_grammar  # only what is written: names are still names
    used: dict[str, list[str]] = {}
    for statement in parse(text, "<string>").children:
        definition = statement.children[0] if statement.data in ("override", "extend") else statement
        if definition.data == "term":
            symbols = definition.children[-1].scan_values(lambda leaf: isinstance(leaf, Symbol))
            used.setdefault(str(definition.children[0]), []).extend(str(symbol.name) for symbol in symbols)
    size: dict[str, int] = {}
    for name, *_ in components(used, lambda name: [other for other in used[name] if other in used]):
        size[name] = 1 + sum(size.get(other, 1) for other in used[name])
        if size[name] > MAX_TERMINAL_PARTS:
            raise AutomatonTooLarge(
                f"The terminal {name}{_place(text, name)} expands to more than {MAX_TERMINAL_PARTS} parts, because "
                "terminals that are used several times in one another multiply. Make some of them rules."
            )


def _explain(message: str, text: str) -> str:
    """Return lark's message with the place of the name that it is about, where it gives no place itself."""
    summary = message.strip().partition("\n")[0].replace(" in <string>", "").strip(" .:!")
    numbered = re.search(r"line (\d+)", summary)
    if numbered:
        line = ["", *text.split("\n"), ""][int(numbered[1])]
        return f"{summary}, in {shorten(line.strip())!r}. Correct that line."
    names = re.findall(r"'(\w+)'|\b(?:defined:|rule|terminal|for|in) (\w+)", summary)
    places = (_place(text, quoted or plain) for quoted, plain in names)
    return f"{summary}{next(filter(None, places), '')}. Correct or define it there."


def _place(text: str, name: str) -> str:
    match = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
    if match is None:
        return ""
    line = text.count("\n", 0, match.start()) + 1
    return f", at line {line} column {match.start() - text.rfind(chr(10), 0, match.start())}"


class _Reader:
    """Translates lark's trees; templates become a rule for each list of arguments."""

    def __init__(self, loaded: Any, text: str) -> None:
        self.loaded, self.text = loaded, text
        self.definitions = {str(name): (parameters, tree) for name, parameters, tree, _ in loaded.rule_defs}
        self.terminals = _terminals(loaded, text)
        self.found: dict[str, Expression] = {}
        self.waiting: list[tuple[str, str, dict[str, Expression]]] = []
        self.expanded = 0

    def rules(self) -> Mapping[str, Expression]:
        """Return every rule, those that templates expand to included."""
        self.waiting = [(name, name, {}) for name, (parameters, _) in self.definitions.items() if not parameters]
        for name, source, arguments in self.waiting:
            try:
                self.found[name] = self.expression(self.definitions[source][1], arguments)
            except RecursionError as error:
                raise InvalidRequest(
                    f"The rule {source!r}{_place(self.text, source)} is nested too deeply; give its groups rules of "
                    "their own."
                ) from error
        for name, found in self.found.items():
            for leaf in leaves(found):
                if isinstance(leaf, Call) and leaf.rule not in self.found:
                    raise InvalidRequest(
                        f"The rule {name!r} uses the template {leaf.rule!r}{_place(self.text, leaf.rule)} without its "
                        "arguments. Give them in braces."
                    )
        return self.found

    def expression(self, tree: Any, arguments: Mapping[str, Expression]) -> Expression:
        """Return what a tree says, where template parameters stand for `arguments`."""
        from lark.lexer import Token
        from lark.tree import Tree

        def inner(child: Any) -> Expression:
            return self.expression(child, arguments)

        if not isinstance(tree, Tree):
            name = str(tree.name)
            return self.terminals[name] if tree.is_term else arguments.get(name) or Call(name)
        children = tree.children
        if tree.data == "expansions":
            return Choice(tuple(map(inner, children))) if len(children) > 1 else inner(children[0])
        if tree.data == "expansion":
            return Sequence(tuple(map(inner, children))) if len(children) != 1 else inner(children[0])
        if tree.data in ("alias", "value"):
            return inner(children[0])
        if tree.data == "maybe":
            return Repeat(inner(children[0]), 0, 1)
        if tree.data == "expr":
            return self.repeat(inner(children[0]), [str(token) for token in children[1:] if isinstance(token, Token)])
        if tree.data == "template_usage":
            return self.template(children[0], tuple(map(inner, children[1:])), arguments)
        return _literal(tree)

    def repeat(self, body: Expression, operator: list[str]) -> Expression:
        """Return a repeat: `?`, `*`, `+`, `~n` or `~n..m`."""
        least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(operator[0], (0, 0))
        if operator[0] == "~":
            least, most = int(operator[1]), int(operator[-1])
            if most < least:
                raise InvalidRequest(
                    f"The grammar repeats something ~{least}..{most}{_place(self.text, f'{least}..{most}')}, and that "
                    "is no range; give the lower number first."
                )
        return Repeat(body, least, most)

    def template(self, symbol: Any, given: tuple[Expression, ...], arguments: Mapping[str, Expression]) -> Expression:
        """Return a call of the rule that a template is with these arguments."""
        passed = arguments.get(str(symbol.name))
        source = passed.rule if isinstance(passed, Call) else str(symbol.name)
        parameters = self.definitions[source][0]
        if len(parameters) != len(given):
            raise InvalidRequest(
                f"The template {source!r}{_place(self.text, source)} takes {len(parameters)} arguments and got "
                f"{len(given)}. Give as many as it takes."
            )
        name = f"{source}{{{', '.join(map(repr, given))}}}"
        if name not in self.found and all(known != name for known, _, _ in self.waiting):
            self.expanded += 1
            if self.expanded > MAX_TEMPLATES or len(name) > 100 * MAX_TEMPLATES:
                raise AutomatonTooLarge(
                    f"The template {source!r}{_place(self.text, source)} expands to more than {MAX_TEMPLATES} rules, "
                    "perhaps because it uses itself with ever larger arguments. Write the rules out."
                )
            self.waiting.append((name, source, dict(zip(parameters, given, strict=True))))
        return Call(name)


def _literal(tree: Any) -> Terminal:
    """Return the terminal that a literal or a range in a rule is, with the pattern that lark makes of it."""
    from lark.exceptions import LarkError
    from lark.load_grammar import PrepareLiterals
    from lark.tree import Tree

    shown = "..".join(str(child) for child in tree.children)
    place = getattr(tree.children[0], "line", None)
    where = f" at line {place}, column {tree.children[0].column}" if place else ""
    try:
        pattern = PrepareLiterals().transform(Tree(tree.data, list(tree.children))).children[0]
    except (LarkError, SyntaxError, ValueError, AssertionError, UnboundLocalError) as error:
        reason = "a range needs one character on either side" if tree.data == "range" else "an escape in it is wrong"
        if re.search("mpty|newlines", str(error)):
            reason = shorten(str(error))
        raise InvalidRequest(f"The literal {shorten(shown)}{where} cannot be read: {reason}. Correct it.") from error
    return Terminal(pattern.to_regexp(), f"{shorten(shown)}{where}")


def _terminals(loaded: Any, text: str) -> dict[str, Terminal]:
    """Return the named terminals, their definitions composed by lark."""
    from lark.exceptions import LarkError
    from lark.load_grammar import Grammar

    try:
        terminals, _, _ = Grammar([], loaded.term_defs, loaded.ignore).compile([], "*")
    except (LarkError, SyntaxError, ValueError, AssertionError, UnboundLocalError) as error:
        raise InvalidRequest(f"A terminal of the grammar cannot be read: {_explain(str(error), text)}") from error
    patterns = {item.name: item.pattern.to_regexp().replace(*_QUOTED) for item in terminals}
    return {name: Terminal(pattern, f"{name}{_place(text, name)}") for name, pattern in patterns.items()}
