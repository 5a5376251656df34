"""Particles: several rows per sample, weighted and resampled, so that whole runs have the law that was asked for.

The target is model(x) * [x accepted] * weight(x) * exp(reward(x)). Each step's proposal is exact for its own factors;
the weights carry what that leaves out (Feynman-Kac steering, 2501.06848; for hard constraints 2609.35609):

    G = Z(x'; factors at x') / Z(x'; factors at x) * prod over written positions p(v) / q(v) * exp(l' r' - l r)

where Z is the mass of what the automaton accepts, p the model's factors, q those shifted by proposals, r the reward of
a text drawn at that step, and l rises from 0 to 1. Weights are carried where nothing is resampled.

Reward search is the greedy cousin: one survivor per step, which goes on in all rows; no law and no normaliser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.constraint import RewardFn
from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.processes import Prediction, Transition
from guided_dlm.randomness import Purpose, Randomness
from guided_dlm.samplers.finish import Observe, Stopped, best_tokens, wants_stop
from guided_dlm.samplers.loop import Plan, Snapshot, run, shifted
from guided_dlm.watch import LARGEST

_APART = (
    1 << 20
)  # steps that far on belong to the texts drawn for the reward, so that they are apart from the proposal's
Decode = Callable[[Tensor], list[str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """One particle drawn per sample `[N, L]`, the estimate of its group's log-normaliser, and the effective size.

    A search has no normaliser; of a run that was stopped before its end it is NaN. `rejected_N` says where the reward
    rejects every particle, so that none does what was asked.
    """

    tokens_NL: Tensor
    log_normaliser_N: Tensor | None
    effective_size_N: Tensor
    rejected_N: Tensor
    stopped: Stopped | None = None


class Cloud:
    """Log-weights of N groups of K particles `[N, K]`, and the mass that earlier resampling took out."""

    def __init__(self, groups: int, count: int, randomness: Randomness, threshold: float) -> None:
        """Start with equal weights; a group is resampled where its effective size is below `threshold` * K."""
        self.log_w_NK = torch.zeros(groups, count, dtype=torch.float64, device=randomness.seeds_B.device)
        self.log_mass_N = torch.zeros(groups, dtype=torch.float64, device=self.log_w_NK.device)
        self.reward_B: Tensor | None = None  # of each particle's last text, times how much of it counts so far
        self.threshold = threshold
        self._lead = Randomness(randomness.seeds_B.reshape(groups, count)[:, 0])

    def add(self, log_g_B: Tensor) -> None:
        """Multiply the weights."""
        self.log_w_NK = self.log_w_NK + log_g_B.double().reshape(self.log_w_NK.shape)

    def reweigh(self, reward_B: Tensor, share: float, open_N: Tensor | None = None) -> None:
        """Let `share` of the reward count, in place of what counted of the last one; in open groups, where given."""
        before_B = torch.zeros_like(self.log_w_NK).reshape(-1) if self.reward_B is None else self.reward_B
        now_B = share * reward_B.to(self.log_w_NK)
        if open_N is not None:
            now_B = torch.where(open_N.repeat_interleave(self.log_w_NK.shape[1]), now_B, before_B)
        self.add(now_B - before_B)
        self.reward_B = now_B

    @property
    def effective_size_N(self) -> Tensor:
        """(sum w)^2 / sum w^2 of each group, from 1 to K."""
        return (2 * self.log_w_NK.logsumexp(-1) - (2 * self.log_w_NK).logsumexp(-1)).exp()

    @property
    def log_normaliser_N(self) -> Tensor:
        """The estimate of each group's log-normaliser; its exponential is unbiased."""
        count = self.log_w_NK.shape[1]
        mean_N = self.log_w_NK.logsumexp(-1) - torch.log(torch.tensor(float(count), dtype=torch.float64))
        return self.log_mass_N + mean_N

    def resample(self, step: int, open_N: Tensor | None = None) -> Tensor | None:
        """Resample groups of low effective size systematically; return each row's ancestor `[N K]`, None if none is.

        Groups that are not open stay as they are: alone they would have stopped, and a group's result is its own.
        """
        groups, count = self.log_w_NK.shape
        low_N = self.effective_size_N < self.threshold * count
        low_N = low_N if open_N is None else low_N & open_N
        if not bool(low_N.any()):
            return None
        uniform_N1 = self._lead.uniform(step, Purpose.RESAMPLE, 1)
        place_K = torch.arange(count, device=low_N.device)
        cumulative_NK = self.log_w_NK.softmax(-1).cumsum(-1)
        cumulative_NK = cumulative_NK / cumulative_NK[:, -1:]
        ancestor_NK = torch.searchsorted(cumulative_NK, (uniform_N1 + place_K) / count, right=True)
        ancestor_NK = torch.where(low_N[:, None], ancestor_NK.clamp_max(count - 1), place_K)
        self.log_mass_N = torch.where(low_N, self.log_normaliser_N, self.log_mass_N)
        self.log_w_NK = torch.where(low_N[:, None], 0.0, self.log_w_NK)
        row_B = (ancestor_NK + count * torch.arange(groups, device=low_N.device)[:, None]).reshape(-1)
        self.reward_B = None if self.reward_B is None else self.reward_B[row_B]
        return row_B

    def pick(self, step: int) -> Tensor:
        """Return one row per group, drawn by weight `[N]`."""
        groups, count = self.log_w_NK.shape
        uniform_N1 = self._lead.uniform(step, Purpose.RESAMPLE, 1)
        cumulative_NK = self.log_w_NK.softmax(-1).cumsum(-1)
        chosen_N = torch.searchsorted(cumulative_NK / cumulative_NK[:, -1:], uniform_N1, right=True)[:, 0]
        return chosen_N.clamp_max(count - 1) + count * torch.arange(groups, device=chosen_N.device)


class Correction:
    """Particles with the weights of whole runs: carried, and resampled where the effective size is low."""

    def __init__(self, plan: Plan, cloud: Cloud, decode: Decode) -> None:
        """Start with nothing written."""
        self.plan, self.cloud, self.decode = plan, cloud, decode
        self._target = plan.guide if plan.guide.target is None else plan.guide.target
        self._denominator_B = torch.zeros_like(cloud.log_w_NK).reshape(-1)
        self._logits_BLV: Tensor | None = None  # the model's own at this step, of the rows that go on

    def choose(self, canvas: Canvas, at: Transition, prediction: Prediction, logits_BLV: Tensor) -> Tensor | None:
        """Weigh each row by what the last step left out, and return the ancestors where groups are resampled."""
        plan, cloud = self.plan, self.cloud
        open_N = _open_groups(plan, canvas, cloud)
        cloud.add(prediction.log_z - self._denominator_B)
        if plan.guide.reward is not None and at.index > 0:
            reward_B = _reward_of(plan.guide.reward, prediction, plan.randomness, self.decode)
            cloud.reweigh(reward_B, at.index / at.total, open_N)
        ancestor_B = cloud.resample(at.index, open_N)
        self._logits_BLV = logits_BLV if ancestor_B is None else logits_BLV[ancestor_B]
        return ancestor_B

    def foresee(self, log_z_B: Tensor) -> None:
        """Weigh each row by what the next block's first factors say, before that block is begun."""
        self.cloud.add(log_z_B - self._denominator_B)
        self._denominator_B = log_z_B

    def take_back(self, log_share_B: Tensor) -> None:
        """Note that the state after a block was drawn with this log-probability; it is all that counts from now on."""
        self._denominator_B = self._denominator_B + log_share_B

    def select(self, row_B: Tensor) -> None:
        """Copy rows over others."""
        self._denominator_B = self._denominator_B[row_B]

    def follow(self, snapshot: Snapshot) -> None:
        """Note what the step wrote.

        The model's own law has no proposals in it, nor the weights that `Ending.sequential` gives the first step.
        """
        plan, model_BLV, at = self.plan, snapshot.logits_BLV, snapshot.at
        if self._logits_BLV is not None and (self._target is not plan.guide or at.index == 0):
            model_BLV = shifted(plan, self._target, snapshot.before, at, self._logits_BLV)
        self._denominator_B = _denominator(plan, snapshot, model_BLV)

    def finish(self, last: Snapshot) -> None:
        """Weigh the last step."""
        self.cloud.add(_mass(self.plan, last.logits_BLV, last.after) - self._denominator_B)

    def normaliser(self) -> Tensor | None:
        """Return the estimate of each group's log-normaliser `[N]`."""
        return self.cloud.log_normaliser_N


class Search:
    """At every step one survivor per group, by the reward of a text drawn there, goes on in all its rows (2408.08252).

    A best effort: what is drawn has no law that could be named.
    """

    def __init__(self, plan: Plan, cloud: Cloud, decode: Decode) -> None:
        """Take the cloud for its groups and its randomness; its weights are those of one step."""
        self.plan, self.cloud, self.decode = plan, cloud, decode

    def choose(self, canvas: Canvas, at: Transition, prediction: Prediction, logits_BLV: Tensor) -> Tensor | None:
        """Return the survivor of each row's group, drawn with probability proportional to exp(reward)."""
        reward, cloud = self.plan.guide.reward, self.cloud
        if reward is None or at.index == 0:  # where all rows are still alike
            return None
        reward_B = _reward_of(reward, prediction, self.plan.randomness, self.decode)
        cloud.log_w_NK = reward_B.to(cloud.log_w_NK).reshape(cloud.log_w_NK.shape)
        row_NK = torch.arange(len(reward_B), device=reward_B.device).reshape(cloud.log_w_NK.shape)
        open_N1 = _open_groups(self.plan, canvas, cloud)[:, None]
        survivor_NK = torch.where(open_N1, cloud.pick(at.index)[:, None], row_NK)
        cloud.log_w_NK = torch.zeros_like(cloud.log_w_NK)
        return survivor_NK.reshape(-1)

    def follow(self, snapshot: Snapshot) -> None:
        """Nothing is carried from step to step."""

    def finish(self, last: Snapshot) -> None:
        """Nothing is weighed but finished texts."""

    def normaliser(self) -> Tensor | None:
        """Return None: a search estimates nothing."""
        return None


STEERING: dict[str, type[Correction] | type[Search]] = {"systematic": Correction, "search": Search}


def check_particles(plan: Plan, resampling: str = "systematic") -> None:
    """Refuse samplers whose weights are not known; a search has none to know, but needs draws and positions to write.

    Raises:
        InvalidRequest: the process rewrites every position, or the rule looks at what was drawn, or takes the mode.
    """
    if not plan.denoiser.process.selects:
        raise InvalidRequest("Particles are for masked models so far; use particles=1.")
    if plan.greedy:
        raise InvalidRequest("Particles need draws; temperature=0 takes the mode.")
    if resampling == "search":
        return
    if plan.rule.sees_tokens:
        raise InvalidRequest(
            f"Particles need a rule that does not look at the sampled tokens; {plan.rule!r} does. Choose another "
            "sampler, or resampling='search', which needs no weights."
        )
    if plan.ending is not None and not plan.rule.end_first:
        raise InvalidRequest("Particles need a rule that draws the end of text first: 'confidence' or 'entropy_bound'.")
    if plan.ending is not None and plan.steps < 2:
        raise InvalidRequest("Particles draw the end of text in a step of its own; give steps=2 or more.")


@torch.no_grad()
def sample_particles(
    plan: Plan,
    canvas: Canvas,
    count: int,
    decode: Decode,
    observe: Observe | None = None,
    threshold: float = 0.5,
    resampling: str = "systematic",
) -> Sampled:
    """Run groups of `count` adjacent rows of the canvas to the end, and draw one row per group.

    Raises:
        InvalidRequest: the sampler cannot have particles; see `check_particles`.
    """
    check_particles(plan, resampling)
    cloud = Cloud(len(canvas.tokens_BL) // count, count, plan.randomness, threshold)
    steering, tokens_BL, last = STEERING[resampling](plan, cloud, decode), canvas.given_BL(), None
    stop = interrupted = False
    try:
        for last in run(plan, canvas, steering.choose):
            steering.follow(last)
            stop = observe is not None and wants_stop(observe(last))
            if stop:
                break
    except KeyboardInterrupt:
        if last is None:
            raise
        stop = interrupted = True
    open_N = torch.zeros(len(cloud.log_w_NK), dtype=torch.bool, device=tokens_BL.device)
    if last is not None and stop:
        tokens_BL, open_B = best_tokens(plan, last)
        open_N = open_B.reshape(cloud.log_w_NK.shape).any(-1)
    finished = not bool(open_N.any())
    if last is not None and finished:
        steering.finish(last)
        tokens_BL = last.after.tokens_BL
    rejected_N = torch.zeros(len(cloud.log_w_NK), dtype=torch.bool, device=tokens_BL.device)
    if plan.guide.reward is not None and finished:
        reward_B = plan.guide.reward(decode(tokens_BL), tokens_BL)
        cloud.reweigh(reward_B, 1.0)
        rejected_N = (reward_B.reshape(cloud.log_w_NK.shape) <= -LARGEST / 2).all(
            -1
        )  # sums of rewards may be a bit more
    normaliser_N = steering.normaliser()
    tokens_NL = tokens_BL[cloud.pick(plan.steps)]
    return Sampled(
        tokens_NL=tokens_NL,
        log_normaliser_N=normaliser_N if finished or normaliser_N is None else normaliser_N.fill_(torch.nan),
        effective_size_N=cloud.effective_size_N,
        rejected_N=rejected_N,
        stopped=Stopped(tokens_NL, open_N, interrupted) if stop else None,
    )


def _open_groups(plan: Plan, canvas: Canvas, cloud: Cloud) -> Tensor:
    """Return the groups in which some row has something left to write, bool `[N]`."""
    open_B = (plan.denoiser.process.known(canvas) < 0).any(-1)
    return open_B.reshape(cloud.log_w_NK.shape).any(-1)


def _reward_of(reward: RewardFn, prediction: Prediction, randomness: Randomness, decode: Decode) -> Tensor:
    """Return the reward of a whole text drawn at this step, apart from the draw that will be written."""
    scoring = replace(prediction, randomness=Randomness(randomness.seeds_B, randomness.first_step + _APART))
    tokens_BL = scoring.tokens()
    return reward(decode(tokens_BL), tokens_BL)


def _mass(plan: Plan, shifted_BLV: Tensor, canvas: Canvas) -> Tensor:
    """Return log Z of a canvas under these factors, fp64 `[B]`."""
    known_BL = plan.denoiser.process.known(canvas)
    if plan.automata is None:
        return torch.zeros(len(known_BL), dtype=torch.float64, device=known_BL.device)
    log_z_B = Posterior(shifted_BLV, plan.automata, plan.start_B, plan.terminal_S, known_BL).log_z
    return log_z_B if plan.ending is None else log_z_B + plan.ending.log_scale(known_BL)


def _denominator(plan: Plan, snapshot: Snapshot, model_BLV: Tensor) -> Tensor:
    """Return log Z(x'; factors at x) minus the log-ratio of model and proposal at what was written, fp64 `[B]`.

    Where the step wrote the end of text, it is the end's probability under both that counts.
    """
    process, ending, at = plan.denoiser.process, plan.ending, snapshot.at
    known_BL = process.known(snapshot.before)
    model = Factors(model_BLV, known_BL)
    if ending is not None and at.index == 0 and bool(ending.open_rows(known_BL).any()):
        chance_B = ending.log_mass(snapshot.prediction.law, snapshot.after) - ending.log_mass(model, snapshot.after)
        return snapshot.prediction.log_z + chance_B
    written_BL = (process.known(snapshot.after) >= 0) & (known_BL < 0)
    tokens_BL = snapshot.after.tokens_BL
    ratio_BL = model.log_p(tokens_BL) - Factors(snapshot.logits_BLV, known_BL).log_p(tokens_BL)
    ratio_B = torch.where(written_BL, ratio_BL.double(), 0.0).sum(-1)
    return _mass(plan, snapshot.logits_BLV, snapshot.after) - ratio_B
