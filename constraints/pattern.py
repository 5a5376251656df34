"""`Regex` and `Choice`: the text as a whole matches a pattern, or is one of a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from constraints.fields import as_texts
from constraints.matching import fullmatch
from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint, byte_automaton, require_nonempty
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register

_FLAGS = {"i": re.IGNORECASE, "s": re.DOTALL, "m": re.MULTILINE, "x": re.VERBOSE, "a": re.ASCII}


@register("regex")
@dataclass(frozen=True, kw_only=True, repr=False)
class Regex(RegularConstraint):
    r"""The whole text matches a pattern, as with `re.fullmatch`.

    Python's `re` syntax without look-around, back-references, conditionals and atomic groups; `flags` out of "ismxa".
    """

    pattern: str = field(kw_only=False)
    flags: str = ""

    def __post_init__(self) -> None:
        """Refuse unknown flags, patterns that do not parse, and constructs that are not regular."""
        for name, value in (("pattern", self.pattern), ("flags", self.flags)):
            if not isinstance(value, str):
                raise InvalidRequest(f"Regex: {name}={value!r} is a {type(value).__name__}, not a text.")
        unknown = set(self.flags) - set(_FLAGS)
        if unknown:
            raise InvalidRequest(f"Regex: there is no flag {sorted(unknown)[0]!r}; choose from {''.join(_FLAGS)!r}.")
        ByteAutomaton.check_regex(self.pattern, self._re_flags)

    @property
    def _re_flags(self) -> int:
        return reduce(or_, (_FLAGS[flag] for flag in self.flags), 0)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Match again, as `re.fullmatch` does, but never for longer than the text deserves."""
        return fullmatch(self.pattern, text, self._re_flags)

    def to_automaton(self) -> ByteAutomaton:
        """Return the pattern's automaton."""
        return ByteAutomaton.from_regex(self.pattern, self._re_flags)


@register("choice")
@dataclass(frozen=True, kw_only=True, repr=False)
class Choice(RegularConstraint):
    """The text is exactly one of the options.

    The report carries the posterior of each option under the first step's factors, summed over tokenisations: what
    sampling would do in one step.
    """

    options: tuple[str, ...] = field(kw_only=False)

    def __post_init__(self) -> None:
        """Refuse an empty list and repeated options."""
        object.__setattr__(self, "options", as_texts(self.options, "Choice: options"))
        if len(set(self.options)) < len(self.options):
            raise InvalidRequest(f"Choice: an option stands twice in {list(self.options)}.")

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Look the text up in the list."""
        return text in self.options

    def to_automaton(self) -> ByteAutomaton:
        """Return the union of the options."""
        return ByteAutomaton.from_regex("|".join(re.escape(option) for option in self.options))

    def compile(self, context: CompileContext) -> Guide:
        """Lift the union, and each option by itself for the report."""
        automaton = byte_automaton(self).lift(context.vocabulary)
        options = {option: ByteAutomaton.literal(option).lift(context.vocabulary) for option in self.options}
        return Guide(automaton=require_nonempty(automaton, self), options=options)
