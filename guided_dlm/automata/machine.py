"""Exploring a Python state machine over classes of characters into a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

from guided_dlm.automata.codepoints import CodepointSet, Partition, partition
from guided_dlm.automata.dfa import DEAD, Mask, Table
from guided_dlm.errors import AutomatonTooLarge, InvalidRequest

State = TypeVar("State", bound=Hashable)


def explore(
    classes: Sequence[CodepointSet],
    start: State,
    step: Callable[[State, int], State | None],
    accepting: Callable[[State], bool],
    max_states: int,
) -> tuple[Table, Mask, Partition]:
    """Return table, accepting states and partition of a state machine; `ByteAutomaton.from_machine` says the rest.

    Raises:
        InvalidRequest: two classes share a character.
        AutomatonTooLarge: more than `max_states` states can be reached.
    """
    characters, members = partition(classes)
    if (members.sum(axis=0) > 1).any():
        first, second = np.flatnonzero(members[:, (members.sum(axis=0) > 1).argmax()])[:2]
        raise InvalidRequest(
            f"Classes {first} and {second} of a state machine share characters; make them disjoint, for example by "
            f"replacing class {second} with classes[{second}] - classes[{first}]."
        )
    # The class of each part of the partition; characters in no given class are "everything else".
    symbols = np.where(members.any(axis=0), members.argmax(axis=0) if len(classes) else 0, len(classes)).tolist()
    number: dict[State, int] = {start: 0}
    order, rows = [start], []
    for state in order:
        row = []
        for symbol in symbols:
            after = step(state, symbol)
            if after is not None and after not in number:
                number[after] = len(order)
                order.append(after)
            row.append(DEAD if after is None else number[after])
        rows.append(row)
        if len(order) > max_states:
            raise AutomatonTooLarge(
                f"A state machine over {len(classes)} character classes reaches more than {max_states} states; the "
                f"last one is {order[-1]!r}. Lower its counters."
            )
    return np.array(rows, dtype=np.int32), np.array([accepting(state) for state in order], dtype=bool), characters
