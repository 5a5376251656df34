"""Commit rules: which open positions a masked sampler writes in a step.

A rule that looks only at marginals, never at the sampled tokens, keeps the law of one token per step exact for an exact
denoiser; `llada` ranks the sampled tokens and does not (FORMULAS B).
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.processes import Prediction, Transition
from guided_dlm.randomness import Purpose


class CommitRule(ABC):
    """Chooses the positions to write, bool `[B, L]`, among the open ones.

    `end_first` asks the loop to spend the first of several steps on where the text ends, for models with such canvases.
    A rule whose choice depends on the sampled tokens says so in `sees_tokens`: the weights of particles are not known.
    """

    sees_tokens: ClassVar[bool] = False

    end_first: bool = False

    @abstractmethod
    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return the positions to write in this step."""


def take_best(score_BL: Tensor, open_BL: Tensor, count_B: Tensor) -> Tensor:
    """Return the `count_B` open positions with the highest score in each row; ties go to the left."""
    ranked_BL = score_BL.masked_fill(~open_BL, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank_BL = ranked_BL.argsort(dim=-1)
    return (rank_BL < count_B[:, None]) & open_BL


def rounded(score: Tensor) -> Tensor:
    """Return scores to the nearest 2^-20.

    Positions often tie exactly (think of a text that may be read backwards). The last bits of a score depend on what
    else is in the batch, and must not decide between them.
    """
    return (score.double() * 2**20).round() / 2**20


def write_count(remaining_B: Tensor, at: Transition) -> Tensor:
    """Return how many of the remaining positions to write now: the schedule's share, rounded, and at least one."""
    return (remaining_B.double() * at.share + 0.5).floor().clamp_min(1.0).long()


def _tail(prediction: Prediction) -> Tensor:
    """Return the marginal probability of padding `[B, L]`."""
    open_BL = prediction.law.open_BL
    if prediction.pad_id is None:
        return torch.zeros(open_BL.shape, dtype=torch.float64, device=open_BL.device)
    return prediction.law.probability(prediction.pad_id).double()


@dataclass(frozen=True, kw_only=True)
class Confidence(CommitRule):
    """Write where the largest marginal is highest; the default.

    The padding after the end of text is easy to predict everywhere. Ranked with the rest it is written first, and then
    decides that the text is short. So the end is drawn first (`end_first`), where the model's canvases have one. Where
    they have none, `tail_apart` ranks a position by its best token other than padding, and spends the schedule on the
    number of text tokens that the marginals expect.
    """

    tail_apart: bool = True
    end_first: bool = True

    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return the most confident positions."""
        law = prediction.law
        if at.whole:
            return law.open_BL
        if not self.tail_apart or prediction.pad_id is None:
            return take_best(rounded(law.confidence()), law.open_BL, write_count(law.open_BL.sum(-1), at))
        expected_B = ((1.0 - _tail(prediction)) * law.open_BL).sum(-1)
        confidence_BL = rounded(law.confidence(without=prediction.pad_id))
        return take_best(confidence_BL, law.open_BL, write_count(rounded(expected_B), at))


@dataclass(frozen=True, kw_only=True)
class LLaDA(CommitRule):
    """Write where the sampled token itself is most probable (2502.09992); not exact, even for an exact denoiser."""

    sees_tokens: ClassVar[bool] = True

    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return the positions with the most probable samples."""
        law = prediction.law
        score_BL = law.probability(prediction.tokens())
        return take_best(rounded(score_BL), law.open_BL, write_count(law.open_BL.sum(-1), at))


@dataclass(frozen=True, kw_only=True)
class EntropyBound(CommitRule):
    """Write the lowest entropies while their sum minus their maximum stays below `bound` nats (2505.24857).

    Always writes at least one position, and everything in the last step. Likely padding waits until no text is open.
    """

    bound: float = 0.5
    end_first: bool = True

    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return the largest set of nearly independent positions."""
        law = prediction.law
        if at.whole:
            return law.open_BL
        text_BL = law.open_BL & (rounded(_tail(prediction)) < 0.5)
        eligible_BL = torch.where(text_BL.any(-1, keepdim=True), text_BL, law.open_BL)
        entropy_BL = rounded(law.entropy()).masked_fill(~eligible_BL, torch.inf)
        sorted_BL = entropy_BL.sort(-1).values
        # The entropies are ascending, so the sum minus the maximum is the sum of all but the last.
        count_B = ((sorted_BL.cumsum(-1) - sorted_BL) <= self.bound).sum(-1)
        return take_best(-entropy_BL, eligible_BL, count_B.clamp_min(1))


@dataclass(frozen=True, kw_only=True)
class Ancestral(CommitRule):
    """Write each open position independently with the schedule's probability: the process's own reverse step."""

    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return an independent coin per position."""
        return prediction.law.open_BL & (_coins(prediction) < at.share)


@dataclass(frozen=True, kw_only=True)
class Random(CommitRule):
    """Write a random set of the scheduled size."""

    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return the first positions of a random order."""
        open_BL = prediction.law.open_BL
        return take_best(_coins(prediction), open_BL, write_count(open_BL.sum(-1), at))


@dataclass(frozen=True, kw_only=True)
class FirstHitting(CommitRule):
    """Write one position per row and step, a random one: the first-hitting sampler (2409.02908, sec. 4.1).

    The next mask to be written is uniform among those that are left, whatever the noise level, and a masked model needs
    no time; so the reverse process is followed exactly, with as many steps as positions, each row in an order of its
    own. With fewer steps the last one writes all that is left.
    """

    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return the first position of a random order."""
        open_BL = prediction.law.open_BL
        if at.whole:
            return open_BL
        return take_best(_coins(prediction), open_BL, torch.ones(len(open_BL), dtype=torch.long, device=open_BL.device))


@dataclass(frozen=True, kw_only=True)
class LeftToRight(CommitRule):
    """Write the leftmost open positions, as an autoregressive model would; with as many steps as positions, singly.

    The end is written when it is reached, so no guess of the length comes first. At temperature 0 under a constraint
    it does come first here too, as under every rule; `block_length=1` is greedy from left to right.
    """

    def __call__(self, prediction: Prediction, at: Transition) -> Tensor:
        """Return the first open positions."""
        open_BL = prediction.law.open_BL
        position_L = torch.arange(open_BL.shape[1], device=open_BL.device, dtype=torch.float64)
        return take_best(-position_L.expand(open_BL.shape), open_BL, write_count(open_BL.sum(-1), at))


def _coins(prediction: Prediction) -> Tensor:
    width = prediction.law.open_BL.shape[1]
    return prediction.randomness.uniform(prediction.step, Purpose.SELECTION, width)


RULES: dict[str, CommitRule] = {
    "confidence": Confidence(),
    "llada": LLaDA(),
    "entropy_bound": EntropyBound(),
    "ancestral": Ancestral(),
    "random": Random(),
    "first_hitting": FirstHitting(),
    "left_to_right": LeftToRight(),
}


_WRITES_ALL = "picks positions to write, but this process rewrites all of them; leave it out."


def commit_rule(name: str | CommitRule, selects: bool) -> CommitRule:
    """Return the rule of that name, or the rule itself; `selects` says whether the process asks for one.

    Raises:
        UnknownName: nobody knows the name; the message suggests near ones.
        InvalidRequest: the process writes every position in every step, so only "ancestral" means something.
    """
    if isinstance(name, CommitRule):
        if not selects and not isinstance(name, Ancestral | Confidence):
            raise InvalidRequest(f"sampler={name!r} {_WRITES_ALL}")
        return name
    if name not in RULES:
        near = difflib.get_close_matches(str(name), RULES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(f"There is no sampler {name!r}.{hint} Choose one of {sorted(RULES)}.")
    if not selects and name not in ("ancestral", "confidence"):
        raise InvalidRequest(f"sampler={name!r} {_WRITES_ALL}")
    return RULES[name]
