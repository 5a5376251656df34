"""Context-free grammars as automata: exact for left and right recursion, bounded in depth for the rest."""

from guided_dlm.automata.grammar.bounded import DEFAULT_BYTES, MAX_DEPTH, Bounded, BoundedGrammar
from guided_dlm.automata.grammar.reading import Notation, read_grammar
from guided_dlm.automata.grammar.rules import Call, Choice, Expression, Repeat, Rules, Sequence, Terminal

__all__ = [
    "DEFAULT_BYTES",
    "MAX_DEPTH",
    "Bounded",
    "BoundedGrammar",
    "Call",
    "Choice",
    "Expression",
    "Notation",
    "Repeat",
    "Rules",
    "Sequence",
    "Terminal",
    "read_grammar",
]
