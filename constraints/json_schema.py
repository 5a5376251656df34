"""`JSONSchema`: the text is a JSON value that a schema allows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from constraints.json_check import is_instance
from guided_dlm.automata import ByteAutomaton
from guided_dlm.automata.json_schema import CompiledSchema, Document, check_whitespace, compile_schema
from guided_dlm.constraint import CompileContext, RegularConstraint
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register

MAX_DEPTH = 100


@register("json_schema")
@dataclass(frozen=True, kw_only=True, repr=False)
class JSONSchema(RegularConstraint):
    r"""The whole text is JSON that a schema allows: a dict, True for any JSON, or a pydantic model class.

    Properties are written in the order of `properties`, then of `required`, extras last; `order="any"` frees it while
    the automaton stays small. `whitespace` between tokens is "flexible", "compact", or a pattern over space, tab and
    line ends. `depth` bounds how deep free JSON and recursive references nest; None is the deepest that stays small,
    and `notes` states it. `escapes="any"` reads every spelling of a string, "needed" all but \u00XX for printable
    ASCII, which takes a third of the states; None is any while the automaton stays small, and `notes` states it too.

    Numbers that are bounded, multiples or listed are written without exponents. They are compared exactly, as decimals
    of any length; `check` and most readers round to floats first, so that past 15 digits they may differ (they read
    1.00000000000000000000001 as 1, and an integer of 400 digits with .0 as infinite).

    A property that the schema does not
    name may stand twice, because telling free names apart is not regular, and then each of its values satisfies what
    is asked of all. What is asked of one free property alone, by a `not` or `oneOf` around `additionalProperties` or
    `patternProperties`, one of its values satisfies, perhaps not the last; `check` asks it of each.
    """

    schema: str = field(kw_only=False)
    whitespace: str = "flexible"
    order: str = "schema"
    depth: int | None = None
    escapes: str | None = None

    def __post_init__(self) -> None:
        """Keep the schema as text, so that equal schemas are equal; refuse invalid ones and unknown options."""
        object.__setattr__(self, "schema", _as_text(self.schema))
        for name, known in (("order", ("schema", "any")), ("escapes", (None, "any", "needed"))):
            if getattr(self, name) not in known:
                raise InvalidRequest(f"JSONSchema: {name}={getattr(self, name)!r} is unknown; give one of {known}.")
        deep = self.depth
        if deep is not None and (isinstance(deep, bool) or not isinstance(deep, int) or not 0 <= deep <= MAX_DEPTH):
            raise InvalidRequest(f"JSONSchema: depth={deep!r}: give a whole number from 0 to {MAX_DEPTH}, or None.")
        check_whitespace(self.whitespace)
        Document(json.loads(self.schema))

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Parse and validate with jsonschema; it knows nothing of the automaton, of property order or of depth."""
        return is_instance(text, self.schema)

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton of the instances, to the depth that `notes` states."""
        return _compiled(self).automaton

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Return the bound on recursion, and whether a text in this canvas could want to nest deeper."""
        compiled = _compiled(self)
        longest = max(map(len, context.vocabulary.tokens), default=0)
        # A value one level deeper takes at least an opening and a closing byte for each level.
        room = context.length * longest >= 2 * (compiled.depth + 1)
        return {"depth": compiled.depth, "depth_can_bind": compiled.cut and room, "escapes": compiled.escapes}

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON with the schema as such."""
        return super().to_config() | {"schema": json.loads(self.schema)}

    def __repr__(self) -> str:
        """Show the schema as one would type it, and the options that differ from their defaults."""
        options = "".join(f", {f.name}={getattr(self, f.name)!r}" for f in self._set_fields() if f.name != "schema")
        return f"JSONSchema({json.loads(self.schema)!r}{options})"


def _as_text(schema: Any) -> str:
    """Return a schema as JSON text; the order of its keys is kept, because it is the order of properties."""
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    if not isinstance(schema, Mapping | bool):
        raise InvalidRequest(
            f"JSONSchema: a schema is a dict, True for any JSON, or a pydantic model class; got {schema!r:.80}."
        )
    try:
        return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"JSONSchema: the schema is not plain JSON: {error}.") from error


@lru_cache(maxsize=64)
def _compiled(constraint: JSONSchema) -> CompiledSchema:
    schema = json.loads(constraint.schema)
    return compile_schema(
        schema, constraint.whitespace, constraint.order == "any", constraint.depth, constraint.escapes
    )
