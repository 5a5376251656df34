"""Correctors: which written positions a masked sampler hides again, because tokens predicted in parallel may clash.

What is hidden was written before, so the old tokens are a witness that the canvas can still be completed: a hard
constraint holds on every output, under every corrector. Positions that the prompt or a template fixed are never hidden.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.processes import Transition
from guided_dlm.processes.schedules import Schedule
from guided_dlm.randomness import Purpose, Randomness
from guided_dlm.samplers.commit import rounded, take_best

Law = Factors | Posterior


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A canvas after a step wrote it, and what a corrector may ask about it.

    Attributes:
        at: the step.
        before: the canvas that the step's model call saw.
        after: the canvas with what the step wrote.
        eligible_BL: bool `[B, L]`, written positions that may be hidden: not fixed, and no tail where that is kept.
        open_BL: bool `[B, L]`, positions that are still hidden.
        chance_BL: fp64 `[B, L]`, the marginal probability with which each token was drawn.
        logits_BLV: the guided logits of the step, at written positions too; None in a turn after the last step.
        turn: which turn after the last step this is; None while the canvas is first written.
        look: calls the model once more, with these positions hidden (bool `[B, L]`), and returns the guided law there.
    """

    at: Transition
    before: Canvas
    after: Canvas
    eligible_BL: Tensor
    open_BL: Tensor
    chance_BL: Tensor
    randomness: Randomness
    look: Callable[[Tensor], Law]
    logits_BLV: Tensor | None = None
    turn: int | None = None

    def coins(self, step: int) -> Tensor:
        """Return this step's uniforms for hiding, fp64 `[B, L]`."""
        return self.randomness.uniform(step, Purpose.REMASK, self.after.tokens_BL.shape[1])

    @property
    def older_BL(self) -> Tensor:
        """The eligible positions that were written before this step."""
        return self.eligible_BL & (self.before.tokens_BL == self.after.tokens_BL)


@dataclass(frozen=True, kw_only=True)
class Corrector(ABC):
    """Chooses written positions to hide again; immutable.

    `keep_tail` leaves the end of text and the padding as they are, and with them how long the text is.
    """

    keep_tail: bool = True

    @property
    def passes(self) -> int:
        """How many more model calls each `select` makes."""
        return 0

    def transition(self, at: Transition, schedule: Schedule) -> Transition:
        """Return the step as this corrector wants it: how many positions to write, at which noise level."""
        return at

    def revisits(self, at: Transition) -> bool:
        """Whether this step or a later one may hide something, so that a full canvas does not end the run."""
        return False

    def turns(self, length: int) -> int:
        """Return how many turns follow the last step; each hides what `select` says and writes all of it again."""
        return 0

    @abstractmethod
    def select(self, written: Written) -> Tensor:
        """Return the positions to hide, bool `[B, L]`, among the eligible ones."""


@dataclass(frozen=True, kw_only=True)
class _Remdm(Corrector):
    """Remasking with probability sigma in every step (2503.00307); the rule "ancestral" makes it the paper's sampler.

    The step keeps q(z_s | x0): a written position is hidden with probability sigma, and a hidden one is written with
    probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t) (eq. 7 there). An exact denoiser needs none of it.
    """

    strength: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _check_range(self, "strength", self.strength, 0.0, 1.0)

    @abstractmethod
    def sigma(self, at: Transition) -> float:
        """Return the probability of hiding a written position in this step."""

    def revisits(self, at: Transition) -> bool:
        """Return True until the last step, unless the strength is 0."""
        return self.strength > 0 and not at.last

    def transition(self, at: Transition, schedule: Schedule) -> Transition:
        """Write more, by as much as is hidden."""
        sigma = 0.0 if at.last else self.sigma(at)
        if sigma == 0.0:
            return at
        return replace(at, unmask=(at.alpha_s - (1.0 - sigma) * at.alpha_t) / (1.0 - at.alpha_t))

    def select(self, written: Written) -> Tensor:
        """Return an independent coin per position that was written before this step."""
        return written.older_BL & (written.coins(written.at.index) < self.sigma(written.at))


def sigma_max(at: Transition) -> float:
    """Return the largest sigma that keeps q(z_s | x0): min(1, (1 - alpha_s) / alpha_t) (2503.00307, eq. 6)."""
    return 1.0 if 1.0 - at.alpha_s >= at.alpha_t else (1.0 - at.alpha_s) / at.alpha_t


@dataclass(frozen=True, kw_only=True)
class RemdmCap(_Remdm):
    """sigma = min(strength, sigma_max)."""

    strength: float = 0.008

    def sigma(self, at: Transition) -> float:
        """Return the capped probability."""
        return min(self.strength, sigma_max(at))


@dataclass(frozen=True, kw_only=True)
class RemdmRescale(_Remdm):
    """sigma = strength * sigma_max."""

    strength: float = 0.015

    def sigma(self, at: Transition) -> float:
        """Return the scaled probability."""
        return self.strength * sigma_max(at)


@dataclass(frozen=True, kw_only=True)
class RemdmConf(_Remdm):
    """sigma_l = strength * sigma_max * softmax over written positions of -(probability with which l was drawn).

    What was written with little confidence is hidden first (2503.00307, section 4.1). As in the authors' code a hidden
    position has sigma 0, so it is written with the usual probability.
    """

    strength: float = 1.0

    def sigma(self, at: Transition) -> float:
        """Return the probability that is shared out over the positions."""
        return self.strength * sigma_max(at)

    def transition(self, at: Transition, schedule: Schedule) -> Transition:
        """Leave the step as it is."""
        return at

    def select(self, written: Written) -> Tensor:
        """Return a coin per position, weighted by how unsure its token was."""
        older_BL = written.older_BL
        share_BL = (-written.chance_BL).masked_fill(~older_BL, -torch.inf).softmax(-1)  # NaN in rows with none
        return older_BL & (written.coins(written.at.index) < share_BL.nan_to_num(0.0) * self.sigma(written.at))


@dataclass(frozen=True, kw_only=True)
class RemdmLoop(_Remdm):
    """Write most of the canvas, go over it at one noise level with sigma = min(strength, sigma_max), then finish.

    Times are the paper's (2503.00307, section 4.2): from 1 down to `t_on` noise falls from 1 to `hold`, stays there
    until `t_off`, and falls to 0. `hold` = 0.1 is alpha = 0.9 under the linear schedule.
    """

    strength: float = 0.02
    t_on: float = 0.55
    t_off: float = 0.05
    hold: float = 0.1

    def __post_init__(self) -> None:
        """Refuse times out of order."""
        super().__post_init__()
        if not 0.0 < self.t_off < self.t_on < 1.0 or not 0.0 < self.hold < 1.0:
            raise InvalidRequest(
                f"RemdmLoop: t_off={self.t_off!r} and t_on={self.t_on!r} must rise between 0 and 1, and "
                f"hold={self.hold!r} must lie between 0 and 1."
            )

    def noise(self, t: float) -> float:
        """Return the noise level at time `t` of the run."""
        if t > self.t_on:
            return 1.0 - (1.0 - t) / (1.0 - self.t_on) * (1.0 - self.hold)
        return self.hold if t >= self.t_off else t / self.t_off * self.hold

    def transition(self, at: Transition, schedule: Schedule) -> Transition:
        """Return the step between the noise levels of its times."""
        t, s = self.noise(at.t), self.noise(at.s)
        return super().transition(replace(at, t=t, s=s, alpha_t=schedule(t), alpha_s=schedule(s)), schedule)

    def sigma(self, at: Transition) -> float:
        """Return the probability while noise is held; 0 before and after. `at` has the noise levels for times."""
        return min(self.strength, sigma_max(at)) if at.t == at.s else 0.0


@dataclass(frozen=True, kw_only=True)
class P2(Corrector):
    """Every step writes all positions and keeps the best share, old and new alike (path planning, 2502.03540).

    The planner is the denoiser itself: a token written in this step counts with the log-probability it was drawn with,
    an older one with `strength` times the log-probability that this step's call gives the token it saw there. Kept are
    alpha_s of the positions. It ranks by sampled tokens, as `llada` does, so it is not exact for an exact denoiser.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        _check_range(self, "strength", self.strength, 0.0, 1e6)

    def transition(self, at: Transition, schedule: Schedule) -> Transition:
        """Write everything."""
        return replace(at, unmask=1.0)

    def revisits(self, at: Transition) -> bool:
        """Return True until the last step."""
        return not at.last

    def select(self, written: Written) -> Tensor:
        """Return the worst positions, so many that the schedule's share is left."""
        assert written.logits_BLV is not None  # there are no turns
        log_p_BL = written.logits_BLV.log_softmax(-1).gather(-1, written.after.tokens_BL[..., None])[..., 0]
        seen_BL = self.strength * log_p_BL.double()
        score_BL = torch.where(written.older_BL, seen_BL, written.chance_BL.log()).clamp_min(-1e4)
        count_B = written.eligible_BL.sum(-1)
        kept_B = ((count_B + written.open_BL.sum(-1)).double() * written.at.alpha_s + 0.5).floor().long()
        return take_best(-rounded(score_BL), written.eligible_BL, (count_B - kept_B).clamp_min(0))


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
        _check_counts(self, count=self.count, groups=self.groups)
        _check_counts(self, least=0, repeats=self.repeats)

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

    A sweep visits every position once, `group` at a time, in a random order. With one at a time and an exact denoiser
    it leaves the model's law as it is, and the law given a hard constraint; larger groups save calls, not exactly.
    """

    sweeps: int = 1
    group: int = 1

    def __post_init__(self) -> None:
        """Refuse counts that mean nothing."""
        _check_counts(self, group=self.group)
        _check_counts(self, least=0, sweeps=self.sweeps)

    def turns(self, length: int) -> int:
        """One for each group of each sweep."""
        return self.sweeps * -(-length // self.group)

    def select(self, written: Written) -> Tensor:
        """Return the next group of a random order of the eligible positions."""
        assert written.turn is not None  # nothing else asks: revisits() is False
        sweep, part = divmod(written.turn, self.turns(written.after.tokens_BL.shape[1]) // self.sweeps)
        order_BL = written.coins(sweep).masked_fill(~written.eligible_BL, torch.inf)
        rank_BL = order_BL.argsort(dim=-1, stable=True).argsort(dim=-1)
        return written.eligible_BL & (rank_BL // self.group == part)


def _check_range(corrector: Corrector, name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidRequest(f"{type(corrector).__name__}: {name}={value!r} must be a number from {low} to {high}.")


def _check_counts(corrector: Corrector, least: int = 1, **counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidRequest(
                f"{type(corrector).__name__}: {name}={value!r} must be a whole number, at least {least}."
            )


CORRECTORS: dict[str, Corrector] = {
    "remdm-cap": RemdmCap(),
    "remdm-rescale": RemdmRescale(),
    "remdm-conf": RemdmConf(),
    "remdm-loop": RemdmLoop(),
    "rescore": Rescore(),
    "informed": Informed(),
    "gibbs": Gibbs(),
    "p2": P2(),
}


def corrector_of(name: str | Corrector | None, selects: bool) -> Corrector | None:
    """Return the corrector of that name, or the corrector itself, or None; `selects` says whether the model is masked.

    Raises:
        UnknownName: nobody knows the name; the message suggests near ones.
        InvalidRequest: the process rewrites every position in every step, so that nothing is final before the end.
    """
    if name is None:
        return None
    if not isinstance(name, Corrector) and str(name) not in CORRECTORS:
        near = difflib.get_close_matches(str(name), CORRECTORS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(f"There is no corrector {name!r}.{hint} Choose one of {sorted(CORRECTORS)}.")
    if not selects:
        raise InvalidRequest(
            f"corrector={name!r} hides written positions again, and this process rewrites all positions in every step; "
            "leave it out."
        )
    return name if isinstance(name, Corrector) else CORRECTORS[str(name)]
