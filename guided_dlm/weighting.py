"""How hard a soft wish pulls, and when: `2.0 * soft`, `soft.during(a, b)`, `soft.scheduled(schedule)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from guided_dlm.composite import Composite, bracketed
from guided_dlm.constraint import CompileContext, Constraint, Guide, Step
from guided_dlm.errors import GuideFailed, InvalidRequest, NotSerializable

Schedule = tuple[float, float] | Callable[[float], float]


def value_at(schedule: Callable[[float], float], progress: float, name: str) -> float:
    """Return a user's schedule at this progress.

    Raises:
        GuideFailed: it raised, or returned no finite number; the message starts with `name` and the progress.
    """
    where = f"{name} at progress {progress:.3f}"
    try:
        value = schedule(progress)
    except Exception as error:
        raise GuideFailed(f"{where}: it raised {type(error).__name__}: {error}") from error
    if not _is_number(value):
        raise GuideFailed(f"{where}: the schedule returned {value!r}; return a finite number.")
    return float(value)


class _Weighted(Composite):
    """A soft operand whose bias and energy are multiplied by a weight that may depend on the step."""

    operand: Constraint

    def weight(self, step: Step) -> Tensor:
        """Return the multiplier of each row at this step, float `[B]`."""
        raise TypeError(f"{type(self).__name__} must define weight(step).")

    def children(self) -> tuple[Constraint, ...]:
        """Return the one operand."""
        return (self.operand,)

    def compile(self, context: CompileContext) -> Guide:
        """Multiply the operand's bias and energy; where the weight is 0 in all rows they are not evaluated at all."""
        guide = self._weighted(self.operand.compile(context))
        return guide if guide.target is None else replace(guide, target=self._weighted(guide.target))

    def _weighted(self, guide: Guide) -> Guide:
        old_bias, old_energy = guide.bias, guide.energy

        def bias(step: Step) -> Tensor:
            weight_B = self.weight(step)
            if old_bias is None or not weight_B.any():
                return torch.zeros(1, 1, 1, device=weight_B.device)
            weight_B11 = weight_B[:, None, None]
            return torch.where(weight_B11 == 0, 0.0, weight_B11 * old_bias(step))  # infinity times nought is nought

        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            weight_B = self.weight(step)
            if old_energy is None or not weight_B.any():
                return 0.0 * relaxed_BLV.sum((1, 2))
            inside_B = weight_B != 0
            gated_BLV = torch.where(inside_B[:, None, None], relaxed_BLV, relaxed_BLV.detach())
            return torch.where(inside_B, weight_B * old_energy(gated_BLV, step), 0.0)

        return replace(guide, bias=bias if old_bias else None, energy=energy if old_energy else None)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Return the operand's own score."""
        return self.operand.check(text, tokens)


@dataclass(frozen=True, repr=False)
class Scaled(_Weighted):
    """The operand pulls `factor` times as hard."""

    infix: ClassVar[bool] = True

    factor: float
    operand: Constraint

    def __post_init__(self) -> None:
        """Refuse a hard operand and a factor that is not a finite number."""
        if not _is_number(self.factor):
            raise TypeError(f"A constraint is scaled by a finite number, not by {self.factor!r}.")
        for leaf in self.operand.leaves():
            if leaf.hard:
                raise TypeError(f"{self.factor} * {leaf!r}: a hard constraint holds or not; it has no strength.")

    def weight(self, step: Step) -> Tensor:
        """Return the factor."""
        return torch.full_like(step.progress_B, self.factor)

    def compile(self, context: CompileContext) -> Guide:
        """Multiply bias, energy and reward; a factor of zero leaves no guide at all."""
        if self.factor == 0:
            return Guide()
        guide = super().compile(context)
        reward = guide.reward
        automaton = None if guide.automaton is None else guide.automaton.scaled(self.factor)
        return replace(
            guide,
            automaton=automaton,
            reward=(lambda texts, tokens: self.factor * reward(texts, tokens)) if reward else None,
        )

    def to_config(self) -> dict[str, Any]:
        """Return {"scale": factor, "of": ...}."""
        return {"scale": self.factor, "of": self.operand.to_config()}

    def __repr__(self) -> str:
        """Show `2.0 * a`."""
        return f"{self.factor} * {bracketed(self.operand)}"


class Timed(_Weighted):
    """A soft operand whose pull depends on the row's progress; `method` is what users call to make one."""

    method: ClassVar[str]

    def _refuse_hard(self) -> None:
        for leaf in self.operand.leaves():
            if leaf.hard:
                raise TypeError(
                    f"{leaf!r}.{self.method}(...): a hard constraint must be in force at every step to be kept."
                )

    def compile(self, context: CompileContext) -> Guide:
        """Weigh bias and energy by progress.

        Raises:
            TypeError: the operand weighs whole texts, with a reward or an automaton, and has no time of its own.
        """
        guide = super().compile(context)
        remedy = f"Leave out {self.method}(), or give the wish method='relaxed' if it takes a method."
        if guide.needs_particles:
            raise TypeError(f"{self!r}: a reward is of finished texts, and has no time of its own. {remedy}")
        if guide.target is not None:  # a pull that changes is no wish about the whole text, so it is not corrected
            guide = replace(guide, reward=None, target=None)
        if guide.automaton is not None:
            raise TypeError(
                f"{self!r}: a weighted automaton weighs whole texts and is in force at every step. {remedy}"
            )
        return guide


@dataclass(frozen=True, repr=False)
class During(Timed):
    """The operand pulls only while the row's progress is in [start, stop)."""

    method: ClassVar[str] = "during"

    start: float
    stop: float
    operand: Constraint

    def __post_init__(self) -> None:
        """Refuse a hard operand and a window outside [0, 1]."""
        self._refuse_hard()
        if not (_is_number(self.start) and _is_number(self.stop) and 0 <= self.start < self.stop <= 1):
            raise InvalidRequest(
                f"during({self.start!r}, {self.stop!r}): give two numbers with 0 <= start < stop <= 1."
            )

    def weight(self, step: Step) -> Tensor:
        """Return 1 inside the window, 0 outside."""
        return ((step.progress_B >= self.start) & (step.progress_B < self.stop)).float()

    def to_config(self) -> dict[str, Any]:
        """Return {"during": [start, stop], "of": ...}."""
        return {"during": [self.start, self.stop], "of": self.operand.to_config()}

    def __repr__(self) -> str:
        """Show `a.during(0.0, 0.5)`."""
        return f"{bracketed(self.operand)}.during({self.start}, {self.stop})"


@dataclass(frozen=True, repr=False)
class Scheduled(Timed):
    """The operand pulls `schedule` times as hard: a pair (first, last), or a function of the row's progress in [0, 1).

    A pair goes linearly with progress from `first`, at the first step, towards `last`, where the run ends.
    """

    method: ClassVar[str] = "scheduled"

    schedule: Schedule
    operand: Constraint

    def __post_init__(self) -> None:
        """Refuse a hard operand and what is neither a pair of finite numbers nor a function; keep a pair as a tuple."""
        self._refuse_hard()
        if callable(self.schedule):
            return
        pair = self.schedule
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise InvalidRequest(
                f"scheduled({pair!r}): give a pair of finite numbers (first, last), or a function of progress in "
                "[0, 1)."
            )
        object.__setattr__(self, "schedule", tuple(pair))

    def weight(self, step: Step) -> Tensor:
        """Return the schedule at each row's progress, float `[B]`; a function is called once per distinct value.

        Raises:
            GuideFailed: the function raised, or returned no finite number; the message names the wish and the progress.
        """
        if not callable(self.schedule):
            first, last = self.schedule
            return first + (last - first) * step.progress_B
        progress_U, place_B = torch.unique(step.progress_B, return_inverse=True)
        factors = [value_at(self.schedule, progress, repr(self)) for progress in progress_U.tolist()]
        return torch.tensor(factors, dtype=progress_U.dtype, device=progress_U.device)[place_B]

    def to_config(self) -> dict[str, Any]:
        """Return {"ramp": [first, last], "of": ...}.

        Raises:
            NotSerializable: the schedule is a function.
        """
        if callable(self.schedule):
            raise NotSerializable(
                f"{self!r}: the schedule is a {type(self.schedule).__name__}, which plain JSON cannot name. Give a "
                "pair (first, last) instead."
            )
        return {"ramp": list(self.schedule), "of": self.operand.to_config()}

    def __repr__(self) -> str:
        """Show `a.scheduled((0.0, 2.0))`."""
        return f"{bracketed(self.operand)}.scheduled({self.schedule!r})"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
