"""Particles: several rows per sample, weighted and resampled, so that whole runs have the law that was asked for.

The target is model(x) * [x accepted] * weight(x) * exp(reward(x)). Each step's proposal is exact for its own factors;
the weights carry what that leaves out (Feynman-Kac steering, 2501.06848; for hard constraints 2609.35609):

    G = Z(x'; factors at x') / Z(x'; factors at x) * prod over written positions p(v) / q(v) * exp(l' r' - l r)

where Z is the mass of what the automaton accepts, p the model's factors, q those shifted by proposals, r the reward of
a text drawn at that step, and l rises from 0 to 1. Weights are carried where nothing is resampled.
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
from guided_dlm.samplers.commit import LLaDA
from guided_dlm.samplers.loop import NO_CARRY, Carry, Plan, Snapshot, advance, logits_of, predict, shifted

_APART = (
    1 << 20
)  # steps that far on belong to the texts drawn for the reward, so that they are apart from the proposal's
Decode = Callable[[Tensor], list[str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """One particle drawn per sample `[N, L]`, the estimate of its group's log-normaliser, and the effective size."""

    tokens_NL: Tensor
    log_normaliser_N: Tensor
    effective_size_N: Tensor


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

    def reweigh(self, reward_B: Tensor, share: float) -> None:
        """Let `share` of the reward count, in place of what counted of the last one."""
        now_B = share * reward_B.to(self.log_w_NK)
        self.add(now_B if self.reward_B is None else now_B - self.reward_B)
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

    def resample(self, step: int) -> Tensor | None:
        """Resample groups of low effective size systematically; return each row's ancestor `[N K]`, None if none is."""
        groups, count = self.log_w_NK.shape
        low_N = self.effective_size_N < self.threshold * count
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


def check_particles(plan: Plan) -> None:
    """Refuse samplers whose weights are not known.

    Raises:
        InvalidRequest: the process rewrites every position, or the rule looks at what was drawn, or takes the mode.
    """
    if not plan.denoiser.process.selects:
        raise InvalidRequest("Particles are for masked models so far; use particles=1.")
    if isinstance(plan.rule, LLaDA):
        raise InvalidRequest("Particles need a rule that does not look at the sampled tokens; 'llada' does.")
    if plan.greedy:
        raise InvalidRequest("Particles need draws; temperature=0 takes the mode.")
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
    observe: Callable[[Snapshot], None] | None = None,
    threshold: float = 0.5,
) -> Sampled:
    """Run groups of `count` adjacent rows of the canvas to the end, and draw one row per group."""
    check_particles(plan)
    process, carry = plan.denoiser.process, NO_CARRY
    canvas = process.start(canvas, plan.randomness)
    cloud = Cloud(len(canvas.tokens_BL) // count, count, plan.randomness, threshold)
    target = plan.guide if plan.guide.target is None else plan.guide.target
    reward, last, denominator_B = plan.guide.reward, None, torch.zeros_like(cloud.log_w_NK).reshape(-1)
    for index in range(plan.steps):
        if bool((process.known(canvas) >= 0).all()):
            break
        at = Transition.of(index, plan.steps, process.schedule)
        logits_BLV, carry, calls = logits_of(plan, canvas, at, carry)
        prediction, shifted_BLV = predict(plan, canvas, at, logits_BLV)
        cloud.add(prediction.log_z - denominator_B)
        if reward is not None and index > 0:
            cloud.reweigh(_reward_of(reward, prediction, plan.randomness, decode), index / plan.steps)
        ancestor_B = cloud.resample(index)
        if ancestor_B is not None:
            canvas, logits_BLV = canvas.select(ancestor_B), logits_BLV[ancestor_B]
            carry = _select(carry, ancestor_B)
            prediction, shifted_BLV = predict(plan, canvas, at, logits_BLV)
        after = advance(plan, canvas, prediction, at)
        last = Snapshot(at=at, before=canvas, after=after, prediction=prediction, logits_BLV=shifted_BLV, calls=calls)
        # The model's own law has no proposals in it, nor the weights that `Ending.sequential` gives the first step.
        same = target is plan.guide and index > 0
        model_BLV = shifted_BLV if same else shifted(plan, target, canvas, at, logits_BLV)
        denominator_B = _denominator(plan, last, model_BLV)
        if observe is not None:
            observe(last)
        canvas = after
    if last is not None:
        cloud.add(_mass(plan, last.logits_BLV, canvas) - denominator_B)
    if reward is not None:
        cloud.reweigh(reward(decode(canvas.tokens_BL), canvas.tokens_BL), 1.0)
    return Sampled(
        tokens_NL=canvas.tokens_BL[cloud.pick(plan.steps)],
        log_normaliser_N=cloud.log_normaliser_N,
        effective_size_N=cloud.effective_size_N,
    )


def _select(carry: Carry, row_B: Tensor) -> Carry:
    own, other = (kept if kept is None else kept.select(row_B) for kept in carry)
    return own, other


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
