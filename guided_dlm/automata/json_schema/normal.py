"""From keywords to forms: every subschema, and every combination of them that is met, once."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from guided_dlm.automata.json_schema import forms
from guided_dlm.automata.json_schema.document import Document, Place, step
from guided_dlm.automata.json_schema.forms import FALSE, TRUE, Form, everything, nothing
from guided_dlm.automata.json_schema.keywords import own_form, refuse_unknown
from guided_dlm.errors import AutomatonTooLarge, GuidedError, UnsupportedSchema

MAX_WORK = 1_000_000
# Keywords that say nothing about a value beside $ref.
_ANNOTATIONS = frozenset(
    {"$ref", "$defs", "definitions", "$schema", "$comment", "title", "description", "default", "examples", "deprecated"}
)


class Normaliser:
    """Interns expressions over the subschemas of a document (ints; 0 is true, 1 is false) and gives their forms."""

    def __init__(self, document: Document) -> None:
        """Start with the trivial expressions."""
        self.document = document
        self.kinds: list[tuple[str, Any]] = [("true", None), ("false", None)]
        self.number: dict[tuple[str, Any], int] = {}
        self.nodes: dict[int, Any] = {}
        self.forms: dict[int, Form] = {TRUE: everything(), FALSE: nothing()}
        self.of_node: dict[int, Form] = {}
        self.open: list[int] = []
        self.inhabited: dict[int, bool] = {TRUE: True, FALSE: False}
        self.asked: set[int] = set()
        self.denied: set[int] = set()
        self.work = 0

    def intern(self, kind: str, key: Any) -> int:
        """Return the number of an expression."""
        found = self.number.setdefault((kind, key), len(self.kinds))
        if found == len(self.kinds):
            self.kinds.append((kind, key))
        return found

    def count(self, work: int) -> None:
        """Count combinations of subschemas, so that those that multiply end in time.

        Raises:
            AutomatonTooLarge: there were too many.
        """
        self.work += work
        if self.work > MAX_WORK:
            raise AutomatonTooLarge(
                f"Combining the subschemas takes more than {MAX_WORK} steps. oneOf, not, if and allOf over references "
                "to one another multiply most; use anyOf where the alternatives exclude one another anyway."
            )

    def schema(self, schema: Any) -> int:
        """Return the expression of a subschema."""
        if isinstance(schema, bool):
            return TRUE if schema else FALSE
        for _ in range(100):  # a schema that only refers is what it refers to
            if not isinstance(schema, dict) or "$ref" not in schema or not _ANNOTATIONS.issuperset(schema):
                break
            schema = self.document.resolve(schema["$ref"], self.document.place(schema))
        if isinstance(schema, bool) or not schema:
            return FALSE if schema is False else TRUE
        expression = self.intern("node", id(schema))
        self.nodes[id(schema)] = schema
        return expression

    def both(self, left: int, right: int) -> int:
        """Return the expression of the values of both."""
        self.count(1)
        if left == right or right == TRUE:
            return left
        if left == TRUE:
            return right
        if FALSE in (left, right):
            return FALSE
        parts = [p for e in (left, right) for p in (self.kinds[e][1] if self.kinds[e][0] == "and" else (e,))]
        parts = list(dict.fromkeys(parts))
        self.count(len(parts))
        if any(self.kinds[p][0] == "not" and self.kinds[p][1] in parts for p in parts):
            return FALSE
        return parts[0] if len(parts) == 1 else self.intern("and", tuple(parts))

    def invert(self, value: int) -> int:
        """Return the expression of the other values."""
        if value in (TRUE, FALSE):
            return TRUE + FALSE - value
        kind, key = self.kinds[value]
        return int(key) if kind == "not" else self.intern("not", value)

    def path(self, expression: int) -> str:
        """Return the JSON path that an expression comes from first."""
        kind, key = self.kinds[expression]
        if kind == "node":
            return self.document.place(self.nodes[key]).path
        return "$" if kind in ("true", "false") else self.path(key[0] if kind == "and" else key)

    def form(self, expression: int) -> Form:
        """Return the form of an expression."""
        if expression not in self.forms:
            try:
                self.forms[expression] = self._form(*self.kinds[expression])
            except GuidedError as error:
                raise placed(error, self.path(expression)) from error
        return self.forms[expression]

    def _form(self, kind: str, key: Any) -> Form:
        if kind == "node":
            return self.node(self.nodes[key])
        if kind == "not":
            return forms.invert(self.form(key), self)
        found = self.form(key[0])
        for part in key[1:]:
            found = forms.both(found, self.form(part), self)
        return found

    def node(self, schema: Any) -> Form:
        """Return the form of a subschema.

        Raises:
            UnsupportedSchema: it uses a keyword that is not enforced, or refers to itself without anything in between.
        """
        if isinstance(schema, bool):
            return everything() if schema else nothing()
        key = id(schema)
        if key in self.of_node:
            return self.of_node[key]
        place = self.document.place(schema)
        if key in self.open:
            raise UnsupportedSchema(f"{place.path}: $ref leads back here without an object or array in between.")
        self.open.append(key)
        try:
            found = self._keywords(schema, place)
        except GuidedError as error:
            raise placed(error, place.path) from error
        finally:
            self.open.pop()
        self.of_node[key] = found
        return found

    def _keywords(self, schema: dict[str, Any], place: Place) -> Form:
        active = self.document.validator.VALIDATORS
        if "$ref" in schema and "unevaluatedItems" not in active:  # drafts up to 7 ignore what stands beside it
            return self.node(self.document.resolve(schema["$ref"], place))
        refuse_unknown(schema, place, active)
        found = own_form(schema, place, self)
        if "$ref" in schema:
            found = forms.both(found, self.node(self.document.resolve(schema["$ref"], place)), self)
        for word in ("$dynamicRef", "$recursiveRef"):
            if word in schema and word in active:
                target = self.document.resolve_dynamic(word, schema[word], place)
                found = forms.both(found, self.node(target), self)
        for branch in schema.get("allOf", ()):
            found = forms.both(found, self.node(branch), self)
        if "anyOf" in schema:
            branches = [forms.both(found, self.node(branch), self) for branch in schema["anyOf"]]
            found = _union(branches)
        if "oneOf" in schema:
            found = self._exactly_one(found, schema["oneOf"])
        if "not" in schema:
            found = forms.both(found, forms.invert(self.node(schema["not"]), self), self)
        if "if" in schema and "if" in active and ("then" in schema or "else" in schema):
            found = self._conditional(found, schema)
        return self._dependent(found, schema, place, active)

    def _exactly_one(self, outer: Form, schemas: list[Any]) -> Form:
        branches = [self.node(branch) for branch in schemas]
        alone = [forms.both(outer, branch, self) for branch in branches]
        found = nothing()
        overlaps: list[list[int]] = [[] for _ in alone]
        for i, j in combinations(range(len(alone)), 2):
            if self._meet(alone[i], alone[j]):
                overlaps[i].append(j)
                overlaps[j].append(i)
        for i, form in enumerate(alone):
            for j in overlaps[i]:
                form = forms.both(form, forms.invert(branches[j], self), self)
            found = forms.either(found, form)
        return found

    def _meet(self, left: Form, right: Form) -> bool:
        """Say whether two forms share a value."""
        if left.constants & right.constants:
            return True
        if not (left.numbers & right.numbers).is_empty() or not (left.strings.wide & right.strings.wide).is_empty():
            return True
        if not (left.arrays and right.arrays) and not (left.objects and right.objects):
            return False
        shared = Form(frozenset(), nothing().numbers, nothing().strings, left.arrays, left.objects)
        return self.has_value(forms.both(shared, right, self))

    def _conditional(self, outer: Form, schema: dict[str, Any]) -> Form:
        condition = self.node(schema["if"])
        met = forms.both(outer, condition, self)
        unmet = forms.both(outer, forms.invert(condition, self), self)
        if "then" in schema:
            met = forms.both(met, self.node(schema["then"]), self)
        if "else" in schema:
            unmet = forms.both(unmet, self.node(schema["else"]), self)
        return forms.either(met, unmet)

    def _dependent(self, found: Form, schema: dict[str, Any], place: Place, active: Any) -> Form:
        for word in ("dependencies", "dependentRequired", "dependentSchemas"):
            for name, needed in schema.get(word, {}).items() if word in active else ():
                if isinstance(needed, str):
                    needed = [needed]
                if isinstance(needed, list):
                    if not needed:
                        continue
                    needed = {"required": needed}
                inner = Place(step(step(place.path, word), name), place.base)
                without = self.document.derived({"not": {"required": [name], "type": "object"}}, inner)
                present = self.document.derived({"type": "object", "required": [name]}, inner)
                if isinstance(needed, dict) and id(needed) not in self.document.places:
                    self.document.derived(needed, inner)
                self.document.derived(without["not"], inner)
                met = forms.both(forms.both(found, self.node(present), self), self.node(needed), self)
                found = forms.either(forms.both(found, self.node(without), self), met)
        return found

    def has_value(self, form: Form) -> bool:
        """Say whether some value is in a form."""
        if form.constants or not form.numbers.is_empty() or not form.strings.is_empty():
            return True
        return any(self._array_has(s) for s in form.arrays) or any(self._object_has(s) for s in form.objects)

    def _array_has(self, shape: forms.ArrayShape) -> bool:
        items = [*shape.prefix[: shape.low], *([shape.rest] if shape.low > len(shape.prefix) else [])]
        for start, value in shape.some:
            items.append(self.both(shape.prefix[start] if start < len(shape.prefix) else shape.rest, value))
        return all(map(self.is_inhabited, items))

    def _object_has(self, shape: forms.ObjectShape) -> bool:
        return all(self.is_inhabited(n.value) for n in shape.names if n.required)

    def is_inhabited(self, expression: int) -> bool:
        """Say whether an expression has a value; what is being asked already counts as having none, being smaller."""
        if expression in self.inhabited or expression in self.denied or expression in self.asked:
            return self.inhabited.get(expression, False)
        self.asked.add(expression)
        answer = self.has_value(self.form(expression))
        self.asked.remove(expression)
        if answer:
            # Every no so far may have leant on this one, which was taken for a no while it was open.
            self.denied.clear()
            self.inhabited[expression] = True
        else:
            self.denied.add(expression)
        if not self.asked:
            self.inhabited |= dict.fromkeys(self.denied, False)
            self.denied.clear()
        return answer


def placed(error: GuidedError, path: str) -> GuidedError:
    """Return an error with the JSON path before its message, unless one is there."""
    return error if str(error).startswith("$") else type(error)(f"{path}: {error}")


def _union(branches: list[Form]) -> Form:
    found = nothing()
    for branch in branches:
        found = forms.either(found, branch)
    return found
