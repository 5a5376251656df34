"""`Template`: fixed text with blanks, for prefixes, suffixes and infilling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import reduce
from operator import add, and_
from typing import Any

from constraints.fields import Range, as_range, as_texts, show_range
from constraints.length import Length
from constraints.pattern import Choice, Regex
from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import RegularConstraint, build_value, byte_automaton
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register


@dataclass(frozen=True, kw_only=True)
class Blank:
    """A gap in a template, filled by the model; what is set must hold for the gap's own text, edge spaces included.

    `words` and `characters` are an int or (min, max) as in `Length`; `regex` a full match; `options` a list.
    """

    words: Range | None = None
    characters: Range | None = None
    regex: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Turn ints into ranges; refuse what the constraints of the same names refuse."""
        for name in ("words", "characters"):
            object.__setattr__(self, name, as_range(getattr(self, name), f"Blank: {name}"))
        if self.options != ():
            object.__setattr__(self, "options", as_texts(self.options, "Blank: options"))
        self.wishes()

    def wishes(self) -> list[RegularConstraint]:
        """Return what the gap's text must satisfy, as constraints on a whole text."""
        wishes: list[RegularConstraint] = []
        if self.words is not None or self.characters is not None:
            wishes.append(Length(words=self.words, characters=self.characters))
        if self.regex is not None:
            wishes.append(Regex(self.regex))
        if self.options:
            wishes.append(Choice(self.options))
        return wishes

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton of the gap's texts."""
        return reduce(and_, map(byte_automaton, self.wishes()), ByteAutomaton.any_text())

    def to_config(self) -> dict[str, Any]:
        """Return {"blank": {...}} with the fields that are set."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {"blank": {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}}

    def __repr__(self) -> str:
        """Show the fields that are set."""
        shown = {
            "words": self.words and show_range(self.words),
            "characters": self.characters and show_range(self.characters),
            "regex": None if self.regex is None else repr(self.regex),
            "options": self.options and repr(list(self.options)),
        }
        return f"Blank({', '.join(f'{name}={value}' for name, value in shown.items() if value)})"


@register("template")
@dataclass(frozen=True, kw_only=True, repr=False)
class Template(RegularConstraint):
    """Fixed texts and blanks, one after the other, nothing between them: write the spaces where you want them."""

    parts: tuple[str | Blank, ...] = field(kw_only=False)

    def __post_init__(self) -> None:
        """Refuse a template without parts, and parts that are neither text nor blank."""
        parts = (self.parts,) if isinstance(self.parts, str | Blank) else self.parts
        if not isinstance(parts, list | tuple):
            raise InvalidRequest(f"Template: give a list of texts and Blanks; got {parts!r}.")
        if not parts:
            raise InvalidRequest("Template([]) has no parts; give fixed texts and Blanks.")
        for part in parts:
            if not isinstance(part, str | Blank):
                raise InvalidRequest(f"Template: {part!r} is neither a text nor a Blank(...).")
        object.__setattr__(self, "parts", tuple(parts))

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Try every way to lay the parts over the text, left to right."""
        ends = {0}
        for part in self.parts:
            ends = {end for start in ends for end in _ends(part, text, start)}
        return len(text) in ends

    def to_automaton(self) -> ByteAutomaton:
        """Return the parts' automata, one after the other."""
        automata = (ByteAutomaton.literal(p) if isinstance(p, str) else p.to_automaton() for p in self.parts)
        return reduce(add, automata)

    @classmethod
    def from_fields(cls, values: Mapping[str, Any], path: str) -> Template:
        """Read {"parts": ["text", {"blank": {...}}, ...]}."""
        values, parts = dict(values), values.get("parts", [])
        if not isinstance(parts, list):
            raise InvalidRequest(f"{path}.parts: expected a list of texts and {{'blank': {{...}}}}, got {parts!r}.")
        if "parts" in values:
            values["parts"] = [_read_part(part, f"{path}.parts[{index}]") for index, part in enumerate(parts)]
        return build_value(cls, values, path)


def _read_part(part: Any, path: str) -> str | Blank:
    if isinstance(part, str | Blank):
        return part
    if not isinstance(part, Mapping) or set(part) != {"blank"}:
        raise InvalidRequest(f"{path}: expected a text or {{'blank': {{...}}}}, got {part!r}.")
    if not isinstance(part["blank"], Mapping):
        raise InvalidRequest(f"{path}.blank: expected an object like {{'words': 3}}, got {part['blank']!r}.")
    return build_value(Blank, part["blank"], f"{path}.blank")


def _ends(part: str | Blank, text: str, start: int) -> Iterator[int]:
    """Yield where a part that begins at `start` may end."""
    if isinstance(part, str):
        if text.startswith(part, start):
            yield start + len(part)
        return
    wishes = part.wishes()
    for end in range(start, len(text) + 1):
        if all(wish.check(text[start:end]) for wish in wishes):
            yield end
