"""Correctors that hide tokens again while the text is written: ReMDM's rules (2503.00307) and path planning (P2)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import Transition
from guided_dlm.processes.schedules import Schedule
from guided_dlm.samplers.commit import rounded, take_best
from guided_dlm.samplers.corrector import Corrector, Written, check_range


@dataclass(frozen=True, kw_only=True)
class _Remdm(Corrector):
    """Remasking with probability sigma in every step (2503.00307); the rule "ancestral" makes it the paper's sampler.

    The step keeps q(z_s | x0): a written position is hidden with probability sigma, and a hidden one is written with
    probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t) (eq. 7 there). An exact denoiser needs none of it.
    """

    strength: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        check_range(self, "strength", self.strength, 0.0, 1.0)

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
        check_range(self, "strength", self.strength, 0.0, 1e6)

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
