"""Which expressions nest in which: the recursive ones, and how deep each has to go before it has a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from guided_dlm.automata.json_schema.forms import ArrayShape, Form, ObjectShape
from guided_dlm.automata.json_schema.normal import Normaliser
from guided_dlm.errors import AutomatonTooLarge

FAR = 1 << 30
MAX_EXPRESSIONS = 20_000


class Graph:
    """The expressions met below a root. A step between two of one recursive group costs one level of depth."""

    def __init__(self, normaliser: Normaliser, root: int) -> None:
        """Walk everything below the root.

        Raises:
            AutomatonTooLarge: there are too many combinations of subschemas.
        """
        self.normaliser, self.root = normaliser, root
        self.children: dict[int, tuple[int, ...]] = {}
        self.uses: Counter[int] = Counter()
        waiting = [root]
        while waiting:
            expression = waiting.pop()
            if expression in self.children:
                continue
            met = list(self._below(normaliser.form(expression)))
            self.uses.update(met)
            found = tuple(dict.fromkeys(met))
            self.children[expression] = found
            waiting += found
            if len(self.children) > MAX_EXPRESSIONS:
                raise AutomatonTooLarge(
                    f"{normaliser.path(root)}: more than {MAX_EXPRESSIONS} combinations of subschemas can be met. "
                    "allOf, not and oneOf over recursive references multiply most; write the combined schema out."
                )
        self.group = self._groups()
        self.recursive = self._recursive()
        self.needs = self._needs()

    def _below(self, form: Form) -> Iterator[int]:
        for array in form.arrays:
            yield from self._with(array.prefix, [value for _, value in array.some])
            last = max([array.low, *(start for start, _ in array.some)]) if array.high is None else array.high
            copies = min(2, max(1, 1 + last - len(array.prefix)))
            yield from self._with((array.rest,) * copies, [value for _, value in array.some])
        for shape in form.objects:
            yield from (n.value for n in shape.names)
            yield from self._with([x.value for x in shape.extras], [x.value for x in shape.some])

    def _with(self, values: Sequence[int], demands: Sequence[int]) -> list[int]:
        """Return the values, and each of them with every selection of demands."""
        found = list(values)
        for demand in demands:
            found += [self.normaliser.both(value, demand) for value in found]
            if len(found) > MAX_EXPRESSIONS:
                raise AutomatonTooLarge("Too many demands on one array or object; fewer contains, not and oneOf.")
        return found

    def _groups(self) -> dict[int, int]:
        """Return the strongly connected component of every expression (Tarjan, without recursion)."""
        order: dict[int, int] = {}
        low: dict[int, int] = {}
        group: dict[int, int] = {}
        stack: list[int] = []
        for root in self.children:
            work = [(root, iter(self.children[root]))] if root not in order else []
            if work:
                order[root] = low[root] = len(order)
                stack.append(root)
            while work:
                node, rest = work[-1]
                child = next(rest, None)
                if child is None:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[node])
                    if low[node] == order[node]:
                        while True:
                            member = stack.pop()
                            group[member] = node
                            if member == node:
                                break
                elif child not in order:
                    order[child] = low[child] = len(order)
                    stack.append(child)
                    work.append((child, iter(self.children[child])))
                elif child not in group:
                    low[node] = min(low[node], order[child])
        return group

    def is_shared(self, expression: int) -> bool:
        """Say whether an expression stands in several places and is worth being written once and copied."""
        form = self.normaliser.form(expression)
        return self.uses[expression] > 1 and bool(form.arrays or form.objects)

    def costs(self, parent: int, child: int) -> int:
        """Return the levels of depth that a step from parent to child takes."""
        return int(self.group[parent] == self.group[child])

    def _recursive(self) -> set[int]:
        """Return the expressions from which a recursive group can be reached, for which depth matters."""
        looping = {e for e, below in self.children.items() if any(self.group[c] == self.group[e] for c in below)}
        parents: dict[int, list[int]] = {}
        for parent, below in self.children.items():
            for child in below:
                parents.setdefault(child, []).append(parent)
        found, waiting = set(looping), list(looping)
        while waiting:
            for parent in parents.get(waiting.pop(), ()):
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found

    def _needs(self) -> dict[int, int]:
        """Return for every expression the least depth at which it has a value, FAR where it has none."""
        needs = dict.fromkeys(self.children, FAR)
        changed = True
        while changed:
            changed = False
            for expression in reversed(self.children):
                if needs[expression]:
                    found = self._need(expression, needs)
                    changed |= found < needs[expression]
                    needs[expression] = min(found, needs[expression])
        return needs

    def _need(self, expression: int, needs: dict[int, int]) -> int:
        form = self.normaliser.form(expression)
        if form.constants or not form.numbers.is_empty() or not form.strings.is_empty():
            return 0

        def through(child: int) -> int:
            return min(FAR, needs.get(child, FAR) + self.costs(expression, child))

        found = [max(map(through, self._items(s)), default=0) for s in form.arrays]
        found += [self._object_need(s, through) for s in form.objects]
        return min(found, default=FAR)

    def _items(self, shape: ArrayShape) -> list[int]:
        """Return the items that an array of the shape cannot be without."""
        items = list(shape.prefix[: shape.low]) + ([shape.rest] if shape.low > len(shape.prefix) else [])
        for start, value in shape.some:
            items.append(self.normaliser.both(shape.prefix[start] if start < len(shape.prefix) else shape.rest, value))
        return items

    def _object_need(self, shape: ObjectShape, through: Callable[[int], int]) -> int:
        needed = [through(n.value) for n in shape.names if n.required]
        for demand in shape.some:
            needed.append(
                min((through(self.normaliser.both(x.value, demand.value)) for x in shape.extras), default=FAR)
            )
        spare = shape.low - sum(n.required for n in shape.names)
        if spare > 0 and not shape.extras:
            optional = sorted(through(n.value) for n in shape.names if not n.required)
            needed += optional[:spare] if len(optional) >= spare else [FAR]
        elif spare > 0 and not any(not n.required for n in shape.names):
            needed.append(min(through(x.value) for x in shape.extras))
        return max(needed, default=0)
