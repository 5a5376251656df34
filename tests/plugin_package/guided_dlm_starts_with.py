"""A third party's constraint: the text starts with a given prefix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from guided_dlm import register
from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import RegularConstraint


@register("starts-with")
@dataclass(frozen=True, kw_only=True)
class StartsWith(RegularConstraint):
    """Texts that start with `prefix`, letter for letter."""

    prefix: str = field(kw_only=False)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Whether the text starts with the prefix."""
        return text.startswith(self.prefix)

    def to_automaton(self) -> ByteAutomaton:
        """The prefix, then any characters."""
        return ByteAutomaton.from_regex(f"(?s){re.escape(self.prefix)}.*")
