"""Constituents of tagged sentences: a grammar counted from a treebank, and the chart that finds the likeliest tree."""

from guided_dlm.parsing.grammar import TreeGrammar, sentences
from guided_dlm.parsing.spans import Span, bracket_f1, read_tree, spans_of

__all__ = ["Span", "TreeGrammar", "bracket_f1", "read_tree", "sentences", "spans_of"]
