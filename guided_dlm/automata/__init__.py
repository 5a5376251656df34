"""Regular sets of texts (ByteAutomaton) and of canvases (TokenAutomaton), with their algebra."""

from guided_dlm.automata.byte import ByteAutomaton
from guided_dlm.automata.codepoints import CodepointSet
from guided_dlm.automata.token import Arcs, TokenAutomaton
from guided_dlm.automata.weighted import WeightedAutomaton

__all__ = ["Arcs", "ByteAutomaton", "CodepointSet", "TokenAutomaton", "WeightedAutomaton"]
