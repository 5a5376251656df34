"""Sets of strings over code points, as minimal automata: the algebra behind pattern, length, enum and format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache

import numpy as np

from guided_dlm.automata.codepoints import LIMIT, SURROGATES, Partition
from guided_dlm.automata.dfa import DEAD, Dfa, IntArray, Mask, Table, normal_form
from guided_dlm.automata.product import Keep, product
from guided_dlm.automata.regex import regex_subsets
from guided_dlm.errors import AutomatonTooLarge

MAX_STATES = 40_000


class Texts:
    """An immutable set of strings of Unicode scalar values.

    `table` `[S, C]` over character classes (-1 dead), `accepting` `[S]`; code points in `[starts[i], starts[i + 1])`
    have class `labels[i]`. A finite set given by its members keeps them in `words`, which spares most automata.
    """

    def __init__(
        self, dfa: Dfa | None, starts: IntArray, words: frozenset[str] | None = None, minimal: bool = False
    ) -> None:
        """Bring an automaton whose columns stand for the intervals of `starts` into normal form."""
        self.words, self._minimal = words, minimal
        self._wide: Texts | Callable[[], Texts] | None = None
        self._raw, self._starts = dfa, starts

    @cached_property
    def _normal(self) -> tuple[Table, Mask, IntArray, IntArray]:
        if self.words is not None:
            dfa, starts = trie(sorted(self.words))
        else:
            assert self._raw is not None
            dfa, starts = self._raw, self._starts
        table, accepting, labels = dfa if self._minimal else normal_form(dfa, drop_dead=False)
        kept = np.flatnonzero(np.diff(labels, prepend=-2))
        return table, accepting, starts[kept], labels[kept]

    @property
    def table(self) -> Table:
        """Int32 `[S, C]`: the state after a class of characters."""
        return self._normal[0]

    @property
    def accepting(self) -> Mask:
        """Bool `[S]`."""
        return self._normal[1]

    @property
    def starts(self) -> IntArray:
        """Int64 `[I]`: where each interval of code points begins."""
        return self._normal[2]

    @property
    def labels(self) -> IntArray:
        """Int64 `[I]`: the class of each interval, -1 for none."""
        return self._normal[3]

    @classmethod
    def of(cls, words: Iterable[str]) -> Texts:
        """Return the set of the given strings; those with a lone surrogate have no UTF-8 text and are left out."""
        kept = frozenset(w for w in words if not any(SURROGATES[0] <= ord(c) < SURROGATES[1] for c in w))
        return cls(None, np.zeros(0, dtype=np.int64), kept)

    @classmethod
    def from_partition(cls, table: Table, accepting: Mask, partition: Partition) -> Texts:
        """Return the language of an automaton over the classes of a partition."""
        return cls(Dfa(table, accepting, np.array(partition.labels)), np.array(partition.starts))

    def contains(self, text: str) -> bool:
        """Say whether a string is in the set."""
        if self.words is not None:
            return text in self.words
        state = 0
        table, accepting, starts, labels = self._normal
        for character in text:
            label = int(labels[np.searchsorted(starts, ord(character), side="right") - 1])
            state = DEAD if label < 0 else int(table[state, label])
            if state == DEAD:
                return False
        return bool(accepting[state])

    def is_empty(self) -> bool:
        """Say whether no string is in the set."""
        return not self.words if self.words is not None else not bool(self.accepting.any())

    def is_any(self) -> bool:
        """Say whether every string is in the set."""
        return self.words is None and (self is any_text() or self == any_text())

    @property
    def wide(self) -> Texts:
        """The set with the strings that only some readers of a pattern count in; a complement leaves them out."""
        if callable(self._wide):
            self._wide = self._wide()
        return self._wide or self

    def widened(self, wide: Callable[[], Texts]) -> Texts:
        """Return the set with another `wide`, which is made only where it is asked for."""
        found = Texts(self._raw, self._starts, self.words, self._minimal)
        found._wide = wide
        found.__dict__.update({k: v for k, v in self.__dict__.items() if k in ("_normal", "digest")})
        return found

    def __and__(self, other: Texts) -> Texts:
        """Return the intersection."""
        found = self._both(other)
        same = self._wide is None and other._wide is None
        return found if same else found.widened(lambda: self.wide._both(other.wide))

    def __or__(self, other: Texts) -> Texts:
        """Return the union."""
        found = self._either(other)
        same = self._wide is None and other._wide is None
        return found if same else found.widened(lambda: self.wide._either(other.wide))

    def __sub__(self, other: Texts) -> Texts:
        """Return the strings of this set that are not in the other, however they are read."""
        found = self._without(other.wide)
        same = self._wide is None and other._wide is None
        return found if same else found.widened(lambda: self.wide._without(other))

    def __invert__(self) -> Texts:
        """Return every string that is not in the set."""
        return any_text() - self

    def _both(self, other: Texts) -> Texts:
        for one, two in ((self, other), (other, self)):
            if one is any_text():
                return two
            if one.words is not None:
                return Texts.of(w for w in one.words if two.contains(w))
        return self._combine(other, "both")

    def _either(self, other: Texts) -> Texts:
        if self.words is not None and other.words is not None:
            return Texts.of(self.words | other.words)
        for one, two in ((self, other), (other, self)):
            if one is any_text() or two.words == frozenset():
                return one
        return self._combine(other, "either")

    def _without(self, other: Texts) -> Texts:
        if self.words is not None:
            return Texts.of(w for w in self.words if not other.contains(w))
        return self if other.words == frozenset() else self._combine(other, "left")

    def _combine(self, other: Texts, keep: Keep) -> Texts:
        starts = np.union1d(self.starts, other.starts)
        left, right = (
            Dfa(t.table, t.accepting, t.labels[np.searchsorted(t.starts, starts, side="right") - 1])
            for t in (self, other)
        )
        return Texts(product(left, right, keep, MAX_STATES), starts)

    @cached_property
    def digest(self) -> object:
        """A key that is equal for equal sets."""
        if self.words is not None:
            return self.words
        table, accepting, starts, labels = self._normal
        return table.shape, table.tobytes(), accepting.tobytes(), starts.tobytes(), labels.tobytes()

    def __eq__(self, other: object) -> bool:
        """Compare as sets; a finite set is equal only to one that was given by its members too."""
        return isinstance(other, Texts) and (self is other or self.digest == other.digest)

    def __hash__(self) -> int:
        """Hash the set."""
        return hash(self.digest)


def trie(words: Sequence[str]) -> tuple[Dfa, IntArray]:
    """Return the tree of some strings over one class per character used, and the intervals of its columns."""
    characters = sorted({ord(c) for word in words for c in word})
    starts = np.unique(np.array([0, *SURROGATES, *characters, *(c + 1 for c in characters if c + 1 < LIMIT)]))
    column = {c: i for i, c in enumerate(characters)}
    labels = np.array([column.get(int(s), -1) for s in starts], dtype=np.int64)
    children: list[dict[int, int]] = [{}]
    ends = set()
    for word in words:
        node = 0
        for character in word:
            after = children[node].setdefault(column[ord(character)], len(children))
            if after == len(children):
                children.append({})
            node = after
        ends.add(node)
    table = np.full((len(children), max(1, len(characters))), DEAD, dtype=np.int32)
    for node, row in enumerate(children):
        for label, after in row.items():
            table[node, label] = after
    return Dfa(table, np.array([node in ends for node in range(len(children))]), labels), starts


@lru_cache(maxsize=1)
def any_text() -> Texts:
    """Return the set of all strings."""
    found = Texts(
        Dfa(np.zeros((1, 1), dtype=np.int32), np.ones(1, dtype=bool), np.array([0, -1, 0])), np.array([0, *SURROGATES])
    )
    return found


@lru_cache(maxsize=1)
def no_text() -> Texts:
    """Return the empty set."""
    return Texts.of(())


@lru_cache(maxsize=1024)
def regex(pattern: str, flags: int = 0) -> Texts:
    """Return the strings that `re.fullmatch(pattern, ., flags)` matches."""
    subsets = regex_subsets(pattern, flags, MAX_STATES)
    return Texts.from_partition(*subsets.determinise(), subsets.partition)


@lru_cache(maxsize=256)
def length(low: int, high: int | None) -> Texts:
    """Return the strings of `low` to `high` code points; None is open.

    Raises:
        AutomatonTooLarge: counting that far takes too many states.
    """
    if low == 0 and high is None:
        return any_text()
    last = low if high is None else high
    if last > MAX_STATES:
        raise AutomatonTooLarge(
            f"Counting {last} characters takes {last} states before they are spelled in JSON; the most is {MAX_STATES}."
        )
    if last < low:
        return no_text()
    following = np.arange(1, last + 2, dtype=np.int32)
    following[-1] = last if high is None else DEAD
    accepting = np.arange(last + 1) >= low
    dfa = Dfa(following[:, None], accepting, np.array([0, -1, 0]))
    return Texts(dfa, np.array([0, *SURROGATES]), minimal=True)
