"""TokenAutomaton: a regular set of canvases, as a minimal automaton over classes of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guided_dlm.automata.dfa import (
    DEAD,
    Dfa,
    Final,
    IntArray,
    Mask,
    Table,
    Weights,
    distances,
    edges,
    is_accepting,
    log_weights,
    normal_form,
)
from guided_dlm.automata.product import MAX_STATES, Keep, product
from guided_dlm.automata.symbols import Symbols, join, merged
from guided_dlm.errors import InvalidRequest, VocabularyMismatch
from guided_dlm.vocabulary import Vocabulary


class Arcs(NamedTuple):
    """The distinct (source, target) pairs of an automaton and the sets of classes that lead along them.

    `source`, `target`, `group` int64 `[A]`; row g of bool `groups` `[G, C]` is the set of classes of every arc with
    group g. Unpacks as a tuple.
    """

    source: IntArray
    target: IntArray
    group: IntArray
    groups: Mask


class Roles(NamedTuple):
    """Which tokens are text, which one ends it (None: nothing does) and which one fills the canvas after that."""

    text_ids: IntArray
    end: int | None
    fill: int | None

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Roles:
        """Read the roles off a vocabulary; where there is padding but no end of text, padding plays both roles."""
        end = vocabulary.pad_id if vocabulary.eos_id is None else vocabulary.eos_id
        fill = end if vocabulary.pad_id is None else vocabulary.pad_id
        text = vocabulary.is_text & vocabulary.writable
        text[[i for i in (end, fill, vocabulary.mask_id) if i is not None]] = False
        return cls(np.flatnonzero(text), end, fill)

    def close(self, dfa: Dfa) -> Dfa:
        """Add the tail to an automaton over text tokens: end of text where it accepts, then padding to the end."""
        if self.end is None or self.fill is None:
            return dfa
        tail, columns = dfa.table.shape
        table = np.pad(dfa.table, ((0, 1), (0, 2)), constant_values=DEAD)
        end, fill = columns, columns if self.end == self.fill else columns + 1
        table[:-1, end][dfa.accepting] = tail
        table[tail, fill] = tail
        column_of = dfa.column_of.copy()
        column_of[[self.end, self.fill]] = end, fill
        return Dfa(table, np.append(dfa.accepting, True), column_of)


class TokenAutomaton:
    """An immutable set of canvases over one vocabulary: a minimal partial DFA over token classes, numbered canonically.

    `transitions` int32 `[S, C]` (-1 dead), `token_class` int32 `[V]` (-1: the token is in no canvas), `accepting` bool
    `[S]`, `start` always 0. Every state can be reached and can accept, unless the set is empty. `==` is equality of
    languages and weights (of sets with `symbols` only if they were made alike); `& | ~ -` are intersection, union,
    complement within well-formed canvases, and difference.

    `log_weight` float64 `[S]` is None, or the log-weight, in nats, of a canvas that ends in each state (-inf where none
    may): then this is a weighted set, made by `weigh`. `&` adds weights; `|`, `~` and `-` have no meaning for them.

    `symbols` is None, or the readings of tokens that have several (`guided_dlm.automata.symbols`): then `token_class`
    is int32 `[E]`, the class of each symbol, and a canvas weighs what its accepted readings weigh together, which
    multiplies under `&`.
    """

    transitions: Table
    token_class: NDArray[np.int32]
    accepting: Mask
    log_weight: Weights | None = None
    symbols: Symbols | None = None
    start: int = 0

    def __init__(self, dfa: Dfa, vocabulary: Vocabulary, minimal: bool = False, symbols: Symbols | None = None) -> None:
        """Minimise and number an automaton unless that is done already; its columns are per token id, or per symbol."""
        table, final, column_of = dfa if minimal else normal_form(dfa, drop_dead=True)
        self.transitions, self.token_class, self.accepting = table, column_of.astype(np.int32), is_accepting(final)
        self.vocabulary = vocabulary
        if symbols is not None:
            self.symbols, self.token_class = merged(symbols, self.token_class)
        if final.dtype != np.bool_:
            self.log_weight = log_weights(final)
            self.log_weight.setflags(write=False)
        for array in (self.transitions, self.token_class, self.accepting):
            array.setflags(write=False)

    @classmethod
    def well_formed(cls, vocabulary: Vocabulary) -> TokenAutomaton:
        """Return all canvases of text tokens that form valid UTF-8, then nothing or end of text and padding."""
        from guided_dlm.automata.byte import ByteAutomaton

        return ByteAutomaton.any_text().lift(vocabulary)

    @classmethod
    def count_tokens(cls, vocabulary: Vocabulary, minimum: int, maximum: int | None) -> TokenAutomaton:
        """Return the canvases with `minimum` to `maximum` text tokens before the tail, valid UTF-8 or not.

        Raises:
            InvalidRequest: the bounds are negative or in the wrong order.
        """
        if minimum < 0 or (maximum is not None and maximum < minimum):
            raise InvalidRequest(f"A number of tokens from {minimum} to {maximum} is impossible; give 0 <= min <= max.")
        last = minimum if maximum is None else maximum
        table = np.arange(1, last + 2, dtype=np.int32)[:, None]
        table[last] = last if maximum is None else DEAD
        roles = Roles.of(vocabulary)
        column_of = np.full(len(vocabulary), -1, dtype=np.int64)
        column_of[roles.text_ids] = 0
        return cls(roles.close(Dfa(table, np.arange(last + 1) >= minimum, column_of)), vocabulary)

    @classmethod
    def score(cls, vocabulary: Vocabulary, step_V: IntArray, begin: int, log_weight: Weights) -> TokenAutomaton:
        """Return all canvases of text tokens and their tail, weighted by a sum over the tokens that stays in a range.

        A text begins at level `begin`; each text token moves it by its own step of int64 `[V]`, never out of the levels
        there are, N = len(`log_weight`). A text that ends at level i weighs `log_weight[i]` nats, all finite.

        Raises:
            InvalidRequest: the sizes do not fit the vocabulary, or `begin` is no level.
        """
        levels = len(log_weight)
        if len(step_V) != len(vocabulary) or not 0 <= begin < levels or not np.isfinite(log_weight).all():
            raise InvalidRequest(
                f"A score takes a step for each of {len(vocabulary)} tokens, finite weights, and a level to begin at "
                f"from 0 to {levels - 1}; got {len(step_V)} steps and {begin}."
            )
        roles, level_N = Roles.of(vocabulary), np.arange(levels)
        steps, kind = np.unique(step_V[roles.text_ids], return_inverse=True)
        column_of = np.full(len(vocabulary), -1, dtype=np.int64)
        column_of[roles.text_ids] = kind
        # Each level has a tail of its own, since the weight counts where the canvas ends.
        table = np.full((2 * levels, len(steps) + 2), DEAD, dtype=np.int32)
        table[:levels, : len(steps)] = np.clip(level_N[:, None] + steps, 0, levels - 1)
        if roles.end is not None and roles.fill is not None:
            end, fill = len(steps), len(steps) + (roles.end != roles.fill)
            table[:levels, end] = table[levels:, fill] = levels + level_N
            column_of[[roles.end, roles.fill]] = end, fill
        swap = np.arange(2 * levels + 1)  # the start is state 0; the last entry keeps DEAD as it is
        swap[[0, begin, -1]] = begin, 0, DEAD
        return cls(
            Dfa(swap[table][swap[:-1]].astype(np.int32), np.tile(log_weight, 2)[swap[:-1]], column_of), vocabulary
        )

    @classmethod
    def tagged(
        cls, vocabulary: Vocabulary, tags: Dfa, readings: Mapping[int, Mapping[tuple[int, ...], float]]
    ) -> TokenAutomaton:
        """Return the canvases of tokens whose tags, one reading of each token after the other, `tags` accepts.

        `readings` maps a text token's id to its readings, tuples of symbols of `tags`, and their weights in (0, 1]. All
        other text tokens are in no canvas. A canvas weighs the sum over its accepted readings of products of weights.
        """
        roles, states = Roles.of(vocabulary), tags.table.shape[0]
        kinds: dict[tuple[int, ...], int] = {}
        rows = [
            (token, kinds.setdefault(reading, len(kinds)), weight)
            for token in roles.text_ids.tolist()
            for reading, weight in readings.get(token, {}).items()
        ]
        padded = np.pad(tags.table, ((0, 1), (0, 1)), constant_values=DEAD)  # DEAD, as an index, leads to itself
        table = np.empty((states, len(kinds)), dtype=np.int32)
        for reading, column in kinds.items():
            after = np.arange(states)
            for tag in reading:
                after = padded[after, tags.column_of[tag]]
            table[:, column] = after
        rows += [(special, -1, 1.0) for special in sorted({roles.end, roles.fill} - {None})]  # type: ignore[type-var]
        rows.sort(key=lambda row: row[0])
        token, kind, weight = (np.array(column) for column in zip(*rows, strict=True))
        closed = roles.close(Dfa(table, tags.accepting, np.full(len(vocabulary), -1)))
        column_of = np.where(kind < 0, closed.column_of[token], kind)
        return cls(closed._replace(column_of=column_of), vocabulary, symbols=Symbols(token, weight.astype(np.float64)))

    @property
    def num_states(self) -> int:
        """Return S, the number of states."""
        return int(self.transitions.shape[0])

    @property
    def num_classes(self) -> int:
        """Return C, the number of token classes."""
        return int(self.transitions.shape[1])

    @cached_property
    def readings(self) -> Symbols:
        """The symbols that `token_class` is about: the readings of tokens, or the tokens themselves."""
        size = len(self.vocabulary)
        return self.symbols or Symbols(np.arange(size), np.ones(size))

    @cached_property
    def num_edges(self) -> int:
        """Return E, the number of live (state, class) pairs."""
        return int((self.transitions >= 0).sum())

    def is_empty(self) -> bool:
        """Say whether there is no canvas in the set."""
        return not self.accepting.any()

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Say whether the whole canvas, every position of it, is in the set."""
        states = np.array([self.start])
        for token in tokens:
            columns = self.token_class[self.readings.token == token]
            after = self.transitions[states][:, columns[columns >= 0]]
            states = np.unique(after[after >= 0])
        return bool(self.accepting[states].any())

    @cached_property
    def distance(self) -> Table:
        """Int32 `[S]`: the least number of tokens from each state to acceptance (over a billion if there is none)."""
        return distances(self.transitions, self.accepting)

    def feasible_lengths(self, limit: int) -> Mask:
        """Return bool `[limit + 1]`: is there a canvas of exactly that many positions in the set."""
        source, target = edges(self.transitions)
        here = np.arange(self.num_states) == self.start
        feasible = np.zeros(limit + 1, dtype=bool)
        for length in range(limit + 1):
            feasible[length] = (here & self.accepting).any()
            there = np.zeros_like(here)
            there[target[here[source]]] = True
            here = there
        return feasible

    def arcs(self) -> Arcs:
        """Return the distinct (source, target) pairs, each with the set of classes between them, sets shared."""
        state, column = np.nonzero(self.transitions >= 0)
        codes = state * self.num_states + self.transitions[state, column]
        pairs, arc = np.unique(codes, return_inverse=True)
        order = np.argsort(arc, kind="stable")
        # Arcs with equally many classes have rows of equal width, so that equal sets are equal rows.
        sizes = np.bincount(arc, minlength=pairs.size)
        ends = np.cumsum(sizes)
        group = np.zeros(pairs.size, dtype=np.int64)
        groups: list[Mask] = []
        for size in np.unique(sizes).tolist():
            members = np.flatnonzero(sizes == size)
            rows = column[order][ends[members][:, None] - size + np.arange(size)]
            first, kind = np.unique(rows, axis=0, return_index=True, return_inverse=True)[1:]
            group[members] = len(groups) + kind.reshape(-1)
            for row in rows[first]:
                mask = np.zeros(self.num_classes, dtype=bool)
                mask[row] = True
                groups.append(mask)
        stacked = np.array(groups, dtype=bool).reshape(len(groups), self.num_classes)
        return Arcs(pairs // self.num_states, pairs % self.num_states, group, stacked)

    def __and__(self, other: TokenAutomaton) -> TokenAutomaton:
        """Return the intersection."""
        return self.combine(other, "both")

    def __or__(self, other: TokenAutomaton) -> TokenAutomaton:
        """Return the union."""
        return self.combine(other, "either")

    def __sub__(self, other: TokenAutomaton) -> TokenAutomaton:
        """Return the canvases of this set that are not in the other."""
        return self.combine(other, "left")

    def __invert__(self) -> TokenAutomaton:
        """Return the well-formed canvases that are not in the set."""
        return TokenAutomaton.well_formed(self.vocabulary) - self

    def combine(
        self, other: TokenAutomaton, keep: Keep, max_states: int = MAX_STATES, length: int | None = None
    ) -> TokenAutomaton:
        """Return the canvases in both sets, in either, or in the left one only.

        With a `length` in tokens, canvases of exactly that length are told rightly and others are not: what no such
        canvas passes is left out, which saves states and the time to build them.

        Raises:
            VocabularyMismatch: the two sets are over different vocabularies.
            AutomatonTooLarge: more than `max_states` pairs of states can be reached.
        """
        if not isinstance(other, TokenAutomaton):
            return NotImplemented
        if self.vocabulary.fingerprint != other.vocabulary.fingerprint:
            raise VocabularyMismatch(
                f"Automata over vocabularies of {len(self.vocabulary)} and {len(other.vocabulary)} tokens "
                f"(fingerprints {self.vocabulary.fingerprint} and {other.vocabulary.fingerprint}) cannot be combined; "
                "lift both with one vocabulary."
            )
        if (keep not in ("both", "soft") and (self._is_weighted or other._is_weighted)) or (
            keep == "soft" and other.symbols is not None
        ):
            raise TypeError("Weighted automata have an & only: weights multiply, and a union or complement has none.")
        symbols, mine, others = join(self.symbols, other.symbols, len(self.vocabulary))
        dfa = product(self._over(mine), other._over(others), keep, max_states, length)
        return TokenAutomaton(dfa, self.vocabulary, symbols=symbols)

    def weigh(self, feature: TokenAutomaton, log_weight: float) -> TokenAutomaton:
        """Return this set with `log_weight` nats added to every canvas that is in the other set as well.

        Raises:
            VocabularyMismatch: the two sets are over different vocabularies.
        """
        return self.combine(feature._with_weights(np.full(feature.num_states, log_weight)), "soft")

    def scaled(self, factor: float) -> TokenAutomaton:
        """Return this set with all log-weights multiplied by a number.

        Raises:
            TypeError: tokens have readings, whose weights were added up and cannot be raised to a power any more.
        """
        if self.symbols is not None:
            raise TypeError(
                "Readings have weights of their own: instead of a factor give strength= to the wish itself."
            )
        return self._with_weights(factor * np.where(self.accepting, log_weights(self._final), 0.0))

    def _with_weights(self, weights: Weights) -> TokenAutomaton:
        final = np.where(self.accepting, weights, -np.inf)
        return TokenAutomaton(self._dfa._replace(accepting=final), self.vocabulary, symbols=self.symbols)

    def _over(self, symbols: IntArray) -> Dfa:
        """Return the automaton with its columns given for these of its symbols."""
        return self._dfa._replace(column_of=self.token_class[symbols].astype(np.int64))

    @property
    def _is_weighted(self) -> bool:
        return self.log_weight is not None or self.symbols is not None

    @property
    def _final(self) -> Final:
        return self.accepting if self.log_weight is None else self.log_weight

    @property
    def _dfa(self) -> Dfa:
        return Dfa(self.transitions, self._final, self.token_class.astype(np.int64))

    def __eq__(self, other: object) -> bool:
        """Say whether both sets hold the same canvases."""
        if not isinstance(other, TokenAutomaton):
            return NotImplemented
        return self is other or self._digest == other._digest

    def __hash__(self) -> int:
        """Hash the set of canvases."""
        return hash(self._digest)

    @cached_property
    def _digest(self) -> tuple[str, tuple[int, ...], bytes, bytes, bytes]:
        readings = b"" if self.symbols is None else self.symbols.digest()
        arrays = (self.transitions.tobytes(), self.token_class.tobytes(), self._final.tobytes() + readings)
        return self.vocabulary.fingerprint, self.transitions.shape, *arrays

    def __repr__(self) -> str:
        """Show the sizes."""
        return (
            f"TokenAutomaton({self.num_states} states, {self.num_classes} token classes, {self.num_edges} edges"
            f"{'' if self.log_weight is None else ', weighted'}"
            f"{'' if self.symbols is None else f', {self.symbols.token.size} readings'})"
        )
