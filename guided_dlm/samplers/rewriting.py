"""Correctors that go over a finished text, hiding and writing some of it in turns, and `Chain`, which joins two."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import Transition
from guided_dlm.processes.schedules import Schedule
from guided_dlm.samplers.commit import rounded, take_best
from guided_dlm.samplers.corrector import Corrector, Law, Written, check_counts, check_range
from guided_dlm.samplers.remasking import P2


@dataclass(frozen=True, kw_only=True)
class Rescore(Corrector):
    """When the text is finished, hide the `count` least probable tokens given the rest, write them again; and repeat.

    p(x_l | rest) comes from `groups` more model calls: each hides every `groups`-th position, so that neighbours are
    seen; as many groups as positions hide one at a time. The model never scores a token that it sees. Which tokens go
    depends on the tokens, so this seeks likely texts: it is not exact, even for an exact denoiser. `Gibbs` is.
    """

    count: int = 4
    repeats: int = 4
    groups: int = 4

    def __post_init__(self) -> None:
        """Refuse counts that mean nothing."""
        check_counts(self, count=self.count, groups=self.groups)
        check_counts(self, least=0, repeats=self.repeats)

    @property
    def passes(self) -> int:
        """One for each group."""
        return self.groups

    def turns(self, length: int) -> int:
        """One for each repeat."""
        return self.repeats

    def select(self, written: Written) -> Tensor:
        """Return the positions with the lowest scores."""
        tokens_BL = written.after.tokens_BL
        position_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        score_BL = torch.zeros_like(written.chance_BL)
        for group in range(min(self.groups, len(position_L))):
            hidden_BL = written.eligible_BL & (position_L % self.groups == group)
            score_BL = torch.where(hidden_BL, self.score(written.look(hidden_BL), tokens_BL), score_BL)
        count_B = torch.full_like(written.eligible_BL.sum(-1), self.count)
        return take_best(-rounded(score_BL), written.eligible_BL, count_B)

    def score(self, law: Law, tokens_BL: Tensor) -> Tensor:
        """Return log p(x_l | rest), fp64 `[B, L]`."""
        return law.probability(tokens_BL).double().log().clamp_min(-1e4)


@dataclass(frozen=True, kw_only=True)
class Informed(Rescore):
    """As `Rescore`, ranked by the margin log p(x_l | rest) - max over other tokens v of log p(v | rest) (2407.21243).

    The paper reads both from one call of a model built for it; a plain model needs the `groups` calls.
    """

    def score(self, law: Law, tokens_BL: Tensor) -> Tensor:
        """Return the margin, fp64 `[B, L]`."""
        others_BL = law.marginals().scatter(-1, tokens_BL[..., None], 0.0).amax(-1).double().log().clamp_min(-1e4)
        return super().score(law, tokens_BL) - others_BL


@dataclass(frozen=True, kw_only=True)
class Gibbs(Corrector):
    """When the text is finished, draw groups of positions again from the guided, conditioned posterior.

    A sweep visits every position once, `group` at a time, in a random order. One at a time, at temperature 1 and with
    an exact denoiser, sweeps leave the model's law as it is, and the law given a hard constraint; larger groups save
    calls, not exactly. Below 1, `temperature` draws likelier tokens: it multiplies that of the run, which stays in
    [0.01, 100] or 0.

    Up to `distinct` more sweeps go only over rows that have the tokens and the prompt of an earlier row of the batch,
    each until it has others: best effort, and no law is kept. Up to `warmer` sweeps follow while any row repeats
    another, the first at 1.5 times `temperature`, the next at 2 times, and so on by halves: where a constraint leaves
    hardly another word anywhere, a likely draw is the same text again. What they write is less likely, and follows soft
    guides less. Such a row stays near the one that it repeated, and what stands in a row depends on the other rows. It
    is for whole canvases, and not for temperature 0 or particles.
    """

    sweeps: int = 1
    group: int = 1
    temperature: float = 1.0
    distinct: int = 0
    warmer: int = 0

    def __post_init__(self) -> None:
        """Refuse counts and temperatures that mean nothing."""
        check_range(self, "temperature", self.temperature, 0.01, 100.0)
        check_counts(self, group=self.group)
        check_counts(self, least=0, sweeps=self.sweeps, distinct=self.distinct, warmer=self.warmer)

    def turns(self, length: int) -> int:
        """One for each group of each sweep."""
        return (self.sweeps + self.distinct + self.warmer) * self._groups(length)

    @property
    def compares_rows(self) -> bool:
        """Whether rows are kept distinct."""
        return self.distinct + self.warmer > 0

    def warmth(self, turn: int, length: int) -> float:
        """Return its temperature, or that of a sweep of `warmer`."""
        beyond = turn // self._groups(length) - (self.sweeps + self.distinct)
        return self.temperature * (1 + max(beyond + 1, 0) / 2)

    def ends(self, turn: int, canvas: Canvas) -> bool:
        """Whether the sweeps over all rows are done, and no row repeats another."""
        return turn >= self.sweeps * self._groups(canvas.tokens_BL.shape[1]) and not bool(repeats(canvas).any())

    def select(self, written: Written) -> Tensor:
        """Return the next group of a random order of the eligible positions."""
        assert written.turn is not None  # nothing else asks: revisits() is False
        sweep, part = divmod(written.turn, self._groups(written.after.tokens_BL.shape[1]))
        order_BL = written.coins(written.at.index + 1 + sweep).masked_fill(~written.eligible_BL, torch.inf)
        rank_BL = order_BL.argsort(dim=-1, stable=True).argsort(dim=-1)
        chosen_BL = written.eligible_BL & (rank_BL // self.group == part)
        return chosen_BL if sweep < self.sweeps else chosen_BL & repeats(written.after)[:, None]

    def _groups(self, length: int) -> int:
        return -(-length // self.group)


def repeats(canvas: Canvas) -> Tensor:
    """Return the rows whose prompt and tokens are those of an earlier row, bool `[B]`."""
    prompt_BP = canvas.prompt_BP.masked_fill(~canvas.visible_BP, -1)
    _, kind_B = torch.unique(torch.cat([prompt_BP, canvas.tokens_BL], dim=1), dim=0, return_inverse=True)
    row_B = torch.arange(len(kind_B), device=kind_B.device)
    first_K = torch.full_like(row_B, len(row_B)).scatter_reduce(0, kind_B, row_B, "amin")
    return row_B > first_K[kind_B]


@dataclass(frozen=True, kw_only=True)
class Chain(Corrector):
    """Goes by `first` in the steps and by `then` in the turns after them.

    By default `P2` finds a text that agrees with itself, which it does by preferring likely ones, and a sweep of
    `Gibbs` draws every word again given the others: that is nearer to the model's law, and more varied.
    """

    first: Corrector = field(default_factory=P2)
    then: Corrector = field(default_factory=Gibbs)

    def __post_init__(self) -> None:
        """Refuse parts that would do nothing in their place, or treat the tail otherwise than the whole."""
        for name, part in (("first", self.first), ("then", self.then)):
            if not isinstance(part, Corrector):
                raise InvalidRequest(f"Chain: {name}={part!r} must be a corrector, such as P2() or Gibbs().")
            if part.keep_tail != self.keep_tail:
                raise InvalidRequest(f"Chain: {name} has keep_tail={part.keep_tail}; give the whole chain the same.")
            if (type(part).turns is Corrector.turns) != (name == "first"):
                raise InvalidRequest(
                    f"Chain: {name}={part!r} is in the wrong place: first hides while the text is written (P2, ReMDM), "
                    "then goes over the finished text (Gibbs, Rescore, Informed)."
                )

    @property
    def passes(self) -> int:
        """Those of the turns."""
        return self.then.passes

    def transition(self, at: Transition, schedule: Schedule) -> Transition:
        """Return the step as `first` wants it."""
        return self.first.transition(at, schedule)

    def revisits(self, at: Transition) -> bool:
        """Whether `first` does."""
        return self.first.revisits(at)

    def turns(self, length: int) -> int:
        """Return how many `then` takes."""
        return self.then.turns(length)

    def ends(self, turn: int, canvas: Canvas) -> bool:
        """Whether `then` does."""
        return self.then.ends(turn, canvas)

    @property
    def compares_rows(self) -> bool:
        """Whether `then` does: `first` has no turns."""
        return self.then.compares_rows

    def warmth(self, turn: int, length: int) -> float:
        """Return that of `then`."""
        return self.then.warmth(turn, length)

    def select(self, written: Written) -> Tensor:
        """Return what the one whose turn it is says."""
        return (self.first if written.turn is None else self.then).select(written)
