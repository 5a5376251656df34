"""The whole extension contract: a `Constraint` says what is wished, a `Guide` acts on tensors.

A constraint is a frozen dataclass that knows no tensor and no tokenizer. `compile` turns it into a guide for one
vocabulary and canvas; `check` is the truth about a finished text and shares nothing with the guide.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import and_
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from guided_dlm import registry
from guided_dlm.automata import ByteAutomaton, TokenAutomaton, WeightedAutomaton
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest, NotSerializable, within
from guided_dlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from guided_dlm.algebra import All, AnyOf, During, Not, Scaled, Scheduled

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CompileContext:
    """What a constraint may know when it compiles: the vocabulary, the completion's length in tokens, the device.

    `embedding_VD` is the model's own input embedding, a row per token; None where it has none. Contexts that differ in
    nothing else are equal. `plain` asks for exactly the set of canvases whose texts satisfy a hard wish, without
    weights, as a complement or an alternative needs it.
    """

    vocabulary: Vocabulary
    length: int
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    embedding_VD: Tensor | None = dataclasses.field(default=None, compare=False, repr=False)
    plain: bool = False

    def __post_init__(self) -> None:
        """Refuse a canvas without room, and an embedding of other tokens."""
        if self.length < 1:
            raise InvalidRequest(f"A canvas of {self.length} tokens has no room for text; give at least 1.")
        table = self.embedding_VD
        if table is not None and (table.dim() != 2 or table.shape[0] != len(self.vocabulary)):
            raise InvalidRequest(
                f"embedding_VD has shape {tuple(table.shape)}; give one row for each of the {len(self.vocabulary)} "
                "tokens."
            )


@dataclass(frozen=True)
class Diagnostics:
    """What the soft guides did in one step, float `[B]` by name; kept only where a trace is asked for.

    `moved` is the total variation between a position's law before and after one guide, averaged over open positions;
    `scores` is what a guide says of the canvas, such as its classifier's probability.
    """

    moved: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    scores: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where the sampler stands: step `index` of `total`, noise level `time` in [0, 1], and the canvas it looks at.

    `open_B` is the number of positions still to write in each row, where the process writes them one by one.
    `logits_BLV` are the model's, before any guide, and mean nothing at what is written; `known_BL` the tokens that are
    clean already, -1 elsewhere. Where a canvas is written in blocks all of this is of one block, and `before_BK` are
    the tokens written before it.
    """

    index: int
    total: int
    time: float
    tokens_BL: Tensor
    open_B: Tensor | None = None
    logits_BLV: Tensor | None = None
    known_BL: Tensor | None = None
    diagnostics: Diagnostics | None = None
    before_BK: Tensor | None = None

    @property
    def progress_B(self) -> Tensor:
        """Share of each row's steps already done, float `[B]` in [0, 1).

        At least one position is written in each step, so a row that needs no more than `open_B` steps ends early.
        """
        total_B = torch.full(self.tokens_BL.shape[:1], float(self.total), device=self.tokens_BL.device)
        if self.open_B is not None:
            total_B = total_B.minimum(self.index + self.open_B.clamp_min(1).float())
        return self.index / total_B


Bias = Callable[[Step], Tensor]
EnergyFn = Callable[[Tensor, Step], Tensor]
RewardFn = Callable[[list[str], Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Guide:
    """A wish compiled for one vocabulary, canvas length and device; use whichever channels fit.

    Attributes:
        automaton: hard, the posterior is conditioned on it, so it holds on every output; or weighted, and soft.
        bias: a log-potential that broadcasts to `[B, L, V]`, in nats.
        energy: `[B]` from the relaxed tokens `[B, L, V]` (probabilities), differentiable in them; lower is better.
        reward: `[B]` from finished texts and tokens; higher is better.
        options: for a choice, the automaton of each option, so that the report can say how likely each was.
        target: where bias and energy are only proposals for what `reward` asks for: what of them stays part of the law
            when particles correct the rest. None: all of it.
    """

    automaton: TokenAutomaton | None = None
    bias: Bias | None = None
    energy: EnergyFn | None = None
    reward: RewardFn | None = None
    options: Mapping[str, TokenAutomaton] | None = None
    target: Guide | None = None

    @property
    def needs_particles(self) -> bool:
        """Whether something in it can be followed with particles only: a reward that no bias or energy proposes for."""
        return self.reward is not None and (self.target is None or self.target.reward is not None)


class Constraint(ABC):
    """A wish about the text; compose with `&`, `|`, `~`, `2.0 * soft` and `soft.during(a, b)`.

    Subclasses are frozen dataclasses, keyword-only but for one principal argument, registered with
    `guided_dlm.register`. Set `hard = True` where the guide's automaton guarantees the wish.
    """

    hard: ClassVar[bool] = False

    @abstractmethod
    def compile(self, context: CompileContext) -> Guide:
        """Return the guide for one vocabulary, canvas length and device.

        Raises:
            Infeasible: no text over this vocabulary satisfies the constraint.
        """

    @abstractmethod
    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Return whether a finished text satisfies a hard constraint, or the score of a soft one."""

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Return what a user should know about this wish on this canvas, for the report; plain JSON values.

        For example a bound on nesting, and whether anything that fits the canvas is lost to it.
        """
        return {}

    def children(self) -> tuple[Constraint, ...]:
        """Return the operands of a composite; a leaf has none."""
        return ()

    def leaves(self) -> Iterator[Constraint]:
        """Yield the leaves of the tree, left to right."""
        children = self.children()
        if not children:
            yield self
        for child in children:
            yield from child.leaves()

    def __and__(self, other: Constraint) -> All:
        """Both hold (hard), both pull (soft)."""
        from guided_dlm.algebra import All

        return All(self, other)

    def __or__(self, other: Constraint) -> AnyOf:
        """Either holds; the operands are all hard or all energies."""
        from guided_dlm.algebra import AnyOf

        return AnyOf(self, other)

    def __invert__(self) -> Not:
        """Not this; hard constraints only."""
        from guided_dlm.algebra import Not

        return Not(self)

    def __rmul__(self, factor: float) -> Scaled:
        """Pull `factor` times as hard; soft constraints only."""
        from guided_dlm.algebra import Scaled

        return Scaled(factor, self)

    def during(self, start: float, stop: float) -> During:
        """Pull only while progress is in [start, stop); soft constraints only."""
        from guided_dlm.algebra import During

        return During(start, stop, self)

    def scheduled(self, schedule: tuple[float, float] | Callable[[float], float]) -> Scheduled:
        """Pull `schedule` times as hard; soft constraints only.

        It is a pair (first, last), between which the factor goes linearly with progress, or a function of progress in
        [0, 1), which plain JSON cannot name.
        """
        from guided_dlm.algebra import Scheduled

        return Scheduled(schedule, self)

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON that `Constraint.from_config` reads back; fields at their defaults are left out.

        Raises:
            NotSerializable: a field holds something that plain JSON cannot name.
        """
        return {"constraint": registry.name_of(type(self))} | {
            field.name: _to_json(getattr(self, field.name), f"{type(self).__name__}.{field.name}")
            for field in self._set_fields()
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Constraint:
        """Build a constraint from plain JSON: a leaf, {"all": [...]}, {"any": [...]}, {"not": ...}, {"scale", "of"}...

        Raises:
            InvalidRequest: a key is unknown or missing; the message names it and its path.
            UnknownConstraint: no installed distribution registers the name.
        """
        from guided_dlm.config import from_config

        return from_config(config)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], path: str) -> Constraint:
        """Build a leaf from the fields of its config; override where a field is not plain JSON."""
        return build_value(cls, fields, path)

    def _set_fields(self) -> list[dataclasses.Field[Any]]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return [f for f in fields if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default]

    def __repr__(self) -> str:
        """Show the fields that differ from their defaults, as one would type them."""
        shown = [f"{f.name}={_plain(getattr(self, f.name))!r}" for f in self._set_fields()]
        first = next(iter(dataclasses.fields(self)), None)  # type: ignore[arg-type]
        if first is not None and not first.kw_only and shown:
            shown[0] = shown[0].split("=", 1)[1]
        return f"{type(self).__name__}({', '.join(shown)})"


class RegularConstraint(Constraint):
    """A hard constraint on the text that a finite automaton decides: give `to_automaton` and `check`."""

    hard: ClassVar[bool] = True

    @abstractmethod
    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton of exactly the texts that satisfy the constraint; it knows no tokenizer."""

    def factors(self) -> tuple[ByteAutomaton, ...]:
        """Return automata that all have to accept; override where they are smaller apart than multiplied.

        They are multiplied after the lift, which leaves far fewer states: no token ends inside most characters.
        """
        return (byte_automaton(self),)

    def compile(self, context: CompileContext) -> Guide:
        """Lift the factors to the vocabulary's tokens and multiply them, smallest first."""
        try:
            lifted = [factor.lift(context.vocabulary) for factor in byte_factors(self)]
            product = reduce(and_, sorted(lifted, key=lambda automaton: automaton.num_states))
        except AutomatonTooLarge as error:
            raise AutomatonTooLarge(f"{self!r} is too large for exact inference. {error}") from error
        return Guide(automaton=require_nonempty(product, self))


class WeightedConstraint(Constraint):
    """A soft wish on the whole text that a weighted automaton scores: give `to_weighted`.

    Its weights enter the same exact pass as the hard constraints, at every step of the run.
    """

    @abstractmethod
    def to_weighted(self) -> WeightedAutomaton:
        """Return the log-weight of every text, in nats; it knows no tokenizer."""

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return the text's weight."""
        return self.to_weighted().weight(text.encode())

    def compile(self, context: CompileContext) -> Guide:
        """Lift the weights to the vocabulary's tokens."""
        return Guide(automaton=self.to_weighted().lift(context.vocabulary))


@lru_cache(maxsize=256)
def byte_automaton(constraint: RegularConstraint) -> ByteAutomaton:
    """Return the constraint's automaton, built once for equal constraints."""
    return constraint.to_automaton()


@lru_cache(maxsize=256)
def byte_factors(constraint: RegularConstraint) -> tuple[ByteAutomaton, ...]:
    """Return the constraint's factors, built once for equal constraints."""
    return constraint.factors()


def require_nonempty(automaton: TokenAutomaton, constraint: Constraint) -> TokenAutomaton:
    """Return the automaton, or raise `Infeasible` naming the constraint when it accepts nothing."""
    if not automaton.accepting.any():
        raise Infeasible(
            f"No text over this vocabulary satisfies {constraint!r}. Either it contradicts itself or it asks for a "
            "character that the vocabulary's tokens cannot write."
        )
    return automaton


def build_value(cls: type[T], fields: Mapping[str, Any], path: str) -> T:
    """Build a dataclass from the fields of its config, at this JSON path.

    Raises:
        InvalidRequest: a field is unknown or missing; other errors of ours gain the path.
    """
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unset = dataclasses.MISSING
    required = [name for name, field in known.items() if field.default is unset and field.default_factory is unset]
    for name in fields:
        if name not in known:
            raise InvalidRequest(f"{path}: {cls.__name__} has no field {name!r}. It takes {sorted(known)}.")
    for name in required:
        if name not in fields:
            raise InvalidRequest(f"{path}: {cls.__name__} needs the field {name!r}. It takes {sorted(known)}.")
    with within(path):
        return cls(**fields)


def _to_json(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "to_config"):
        return value.to_config()
    if isinstance(value, Mapping):
        return {str(key): _to_json(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, where) for item in value]
    raise NotSerializable(f"{where} holds a {type(value).__name__}, which plain JSON cannot name. Pass it by name.")


def _plain(value: Any) -> Any:
    """Show sequences of names as lists, ranges as tuples."""
    if isinstance(value, tuple) and not (len(value) == 2 and all(x is None or isinstance(x, int) for x in value)):
        return list(value)
    return value
