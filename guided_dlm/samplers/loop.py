"""The sampling loop, one for every family: predict, shift, condition, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.constraint import Diagnostics, Guide, Step
from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import GuideFailed
from guided_dlm.guidance import Truncation, classifier_free, floor, shift
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.processes import Prediction, Transition
from guided_dlm.randomness import Randomness
from guided_dlm.samplers.commit import CommitRule
from guided_dlm.samplers.contrast import Contrast
from guided_dlm.samplers.corrector import Corrector, Law, Written
from guided_dlm.samplers.ending import Ending, tail_of
from guided_dlm.samplers.rerank import Rerank

if TYPE_CHECKING:
    from guided_dlm.samplers.latent import LatentGuidance

Carry = tuple[Any, Any]  # what the denoiser and its unconditional half keep from step to step
NO_CARRY: Carry = (None, None)
Method = Literal["__call__", "at_open", "differentiable"]  # how a denoiser is asked
_TURNS = 1 << 30  # steps that far on belong to a corrector's turns after the last step
# From the canvas, the step, its prediction and the model's own logits: which row each row goes on as, or None to stay.
Choose = Callable[[Canvas, Transition, Prediction, Tensor], Tensor | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """What one step did: the canvas before and after, and the law it drew from.

    Without a corrector, and in its turns after the last step, `logits_BLV` mean nothing at written positions.
    `hidden_BL` says what a corrector hid after the step wrote, bool `[B, L]`; it is hidden in `after`. Turns that a
    corrector takes after the last step count on from there: `at.index` is then `at.total` or more. `carry` is what the
    next step gets.
    """

    at: Transition
    before: Canvas
    after: Canvas
    prediction: Prediction
    logits_BLV: Tensor
    diagnostics: Diagnostics | None = None
    calls: int = 1
    hidden_BL: Tensor | None = None
    carry: Carry = NO_CARRY


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything a run depends on but the canvas: model, guide, rule and randomness.

    `automata` is None, one automaton for all rows, or one for each row. `start_B` and `terminal_S` are for a canvas
    that is one block of a longer text: the automaton's state before it, and the weight of each state after it.
    """

    denoiser: Denoiser
    guide: Guide
    automata: TokenAutomaton | Sequence[TokenAutomaton] | None
    rule: CommitRule
    randomness: Randomness
    steps: int
    truncation: Truncation = field(default_factory=Truncation)
    start_B: Tensor | None = None
    terminal_S: Tensor | None = None
    diagnose: bool = False
    contrast: Contrast | None = None
    corrector: Corrector | None = None
    rerank: Rerank | None = None
    latent_guidance: LatentGuidance | None = None

    @cached_property
    def ending(self) -> Ending | None:
        """How the model's canvases end, if they do; a block of a longer text need not."""
        return Ending.of(self.denoiser) if self.terminal_S is None else None

    def transition(self, index: int) -> Transition:
        """Return step `index`, as the corrector wants it where there is one."""
        schedule = self.denoiser.process.schedule
        at = Transition.of(index, self.steps, schedule)
        return at if self.corrector is None else self.corrector.transition(at, schedule)

    @property
    def greedy(self) -> bool:
        """Whether every step takes the mode."""
        return self.truncation.temperature == 0


def logits_of(
    plan: Plan, canvas: Canvas, at: Transition, carry: Carry, method: Method = "__call__"
) -> tuple[Tensor, Carry, int]:
    """Return the model's logits, contrasted with the unconditional half where asked for, and the model calls.

    `method` of the denoiser gives them. With "differentiable" they have their graph back to the canvas's latents, where
    gradients are enabled; with "at_open" they mean nothing at written positions.
    """
    logits_BLV, own = getattr(plan.denoiser, method)(canvas, at.t, carry[0])
    if plan.contrast is None or (scale := plan.contrast.scale(at.index / at.total)) == 1.0:
        return logits_BLV, (own, carry[1]), 1
    other_BLV, other = getattr(plan.contrast.denoiser, method)(plan.contrast.unconditional(canvas), at.t, carry[1])
    return classifier_free(logits_BLV, other_BLV, scale), (own, other), 2


def logits_of_open(plan: Plan, canvas: Canvas, at: Transition, carry: Carry) -> tuple[Tensor, Carry, int]:
    """Return what `logits_of` does, without work for what is written, whose logits mean nothing."""
    open_B = (plan.denoiser.process.known(canvas) < 0).any(-1)
    if bool(open_B.all()) or any(kept is not None for kept in carry):
        return logits_of(plan, canvas, at, carry, "at_open")
    row_N = open_B.nonzero()[:, 0]
    part = plan if plan.contrast is None else replace(plan, contrast=plan.contrast.select(row_N))
    some_NLV, carry, calls = logits_of(part, canvas.select(row_N), at, carry, "at_open")
    return some_NLV.new_zeros(len(open_B), *some_NLV.shape[1:]).index_copy(0, row_N, some_NLV), carry, calls


def shifted(
    plan: Plan,
    guide: Guide,
    canvas: Canvas,
    at: Transition,
    logits_BLV: Tensor,
    diagnostics: Diagnostics | None = None,
) -> Tensor:
    """Return one step's logits after the soft guides and truncation, with full support where a constraint needs it."""
    denoiser = plan.denoiser
    known_BL = denoiser.process.known(canvas)
    step = Step(
        index=at.index,
        total=at.total,
        time=at.t,
        tokens_BL=canvas.tokens_BL,
        open_B=(known_BL < 0).sum(-1) if denoiser.process.selects else None,
        logits_BLV=logits_BLV,
        known_BL=known_BL,
        diagnostics=diagnostics,
        before_BK=canvas.before_BK,
    )
    shifted_BLV = plan.truncation.apply(shift(logits_BLV, guide, step, known_BL))
    if plan.automata is None or denoiser.full_support:
        return shifted_BLV
    return floor(shifted_BLV, torch.from_numpy(denoiser.vocabulary.writable).to(shifted_BLV.device))


def predict(
    plan: Plan, canvas: Canvas, at: Transition, logits_BLV: Tensor, diagnostics: Diagnostics | None = None
) -> tuple[Prediction, Tensor]:
    """Shift and condition one step's logits; also return the shifted logits."""
    shifted_BLV = shifted(plan, plan.guide, canvas, at, logits_BLV, diagnostics)
    if bool(torch.isnan(shifted_BLV).any()):
        raise GuideFailed(f"The logits of step {at.index + 1} of {at.total} are NaN: look at the model and its guides.")
    prediction, used_BLV = condition(plan, canvas, at, shifted_BLV)
    if plan.rerank is not None and plan.rerank.covers(at.index / at.total):
        own_BLV, _ = ended(plan, plan.denoiser.process.known(canvas), logits_BLV)
        prediction = replace(prediction, choice=plan.rerank.choice(own_BLV, plan.denoiser.vocabulary))
    return prediction, used_BLV


def ended(plan: Plan, known_BL: Tensor, logits_BLV: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return logits that say rightly how the text ends, and what that takes from log Z `[B]`, where it does."""
    ending = plan.ending
    if ending is None:
        return logits_BLV, None
    if plan.automata is None:  # what a corrector lets write again may not end the text anew
        return logits_BLV if plan.corrector is None else ending.inside(logits_BLV, known_BL), None
    open_B = ending.open_rows(known_BL)
    if not bool(open_B.any()):
        return logits_BLV, None
    return ending.sequential(logits_BLV, open_B), ending.log_scale(known_BL)


def condition(plan: Plan, canvas: Canvas, at: Transition, shifted_BLV: Tensor) -> tuple[Prediction, Tensor]:
    """Condition shifted logits on what the canvas holds and on the automaton; also return them as they were used."""
    known_BL = plan.denoiser.process.known(canvas)
    shifted_BLV, log_scale_B = ended(plan, known_BL, shifted_BLV)
    law: Factors | Posterior = Factors(shifted_BLV, known_BL)
    if plan.automata is not None:
        law = Posterior(shifted_BLV, plan.automata, plan.start_B, plan.terminal_S, known_BL)
    prediction = Prediction(
        law=law,
        randomness=plan.randomness,
        step=at.index,
        greedy=plan.greedy,
        pad_id=plan.denoiser.vocabulary.pad_id,
        log_scale_B=log_scale_B,
    )
    return prediction, shifted_BLV


def advance(plan: Plan, canvas: Canvas, prediction: Prediction, at: Transition) -> Canvas:
    """Write one step: the end of the text first where the rule wants it so, else what the rule selects."""
    process, ending = plan.denoiser.process, plan.ending
    if ending is None:
        return process.step(canvas, prediction, at, plan.rule)
    if plan.rule.end_first and at.index == 0 and not at.last and bool(ending.open_rows(prediction.law.known_BL).any()):
        return ending.write(canvas, prediction)
    after = process.step(canvas, prediction, at, plan.rule)
    return after.close_tail(ending.end, ending.padding, process.known(after) < 0)


def settle(plan: Plan, canvas: Canvas, prediction: Prediction) -> Canvas:
    """Return the canvas with its end written where a mode is asked for under a constraint.

    The best whole canvas under `Ending.sequential` is the shortest text, since it multiplies the fewest factors. So
    the end goes to its likeliest place first, under every rule, and the mode is the best text of that length.
    """
    if not plan.greedy or plan.automata is None or plan.ending is None:
        return canvas
    return plan.ending.write(canvas, prediction) if plan.ending.open_rows(prediction.law.known_BL).any() else canvas


def run(plan: Plan, canvas: Canvas, choose: Choose | None = None, carry: Carry = NO_CARRY) -> Iterator[Snapshot]:
    """Yield each step of a run, and the corrector's turns after it; stops early once nothing is open.

    `choose` may copy rows over others before a step writes, int64 `[B]`; each row keeps its own randomness. `carry` is
    what the first step gets.
    """
    process = plan.denoiser.process
    canvas = process.start(canvas, plan.randomness)
    revision = None if plan.corrector is None else Revision(plan, plan.corrector, canvas)
    for index in range(plan.steps):
        at = plan.transition(index)
        if plan.latent_guidance is not None:
            snapshot = plan.latent_guidance.step(plan, canvas, at, carry)
            yield snapshot
            canvas, carry = snapshot.after, snapshot.carry
            continue
        revised = revision is not None and revision.goes_on(at)  # then logits count at written positions too
        if process.selects and bool((process.known(canvas) >= 0).all()) and not revised:
            break
        logits_BLV, carry, calls = logits_of(plan, canvas, at, carry, "__call__" if revised else "at_open")
        diagnostics = Diagnostics() if plan.diagnose else None
        prediction, shifted_BLV = predict(plan, canvas, at, logits_BLV, diagnostics)
        if choose is not None and (row_B := choose(canvas, at, prediction, logits_BLV)) is not None:
            canvas, logits_BLV, carry = canvas.select(row_B), logits_BLV[row_B], select_carry(carry, row_B)
            prediction, shifted_BLV = predict(plan, canvas, at, logits_BLV)
            if revision is not None:
                revision.select(row_B)
        settled = settle(plan, canvas, prediction)
        if settled is not canvas:
            prediction, shifted_BLV = predict(plan, settled, at, logits_BLV)
        snapshot = Snapshot(
            at=at,
            before=canvas,
            after=advance(plan, settled, prediction, at),
            prediction=prediction,
            logits_BLV=shifted_BLV,
            diagnostics=diagnostics,
            calls=calls,
            carry=carry,
        )
        snapshot = snapshot if revision is None else revision.of_step(snapshot, carry)
        yield snapshot
        canvas = snapshot.after
    if revision is not None:
        yield from revision.turns(canvas, carry)


def warmed(plan: Plan, warmth: float) -> Plan:
    """Return the plan at so many times its temperature, which stays in [0.01, 100]; a mode stays one."""
    if plan.greedy:
        return plan
    temperature = min(max(plan.truncation.temperature * warmth, 0.01), 100.0)
    return replace(plan, truncation=replace(plan.truncation, temperature=temperature))


class Revision:
    """What a run keeps for its corrector: with which probability each token was drawn, fp64 `[B, L]`."""

    def __init__(self, plan: Plan, corrector: Corrector, canvas: Canvas) -> None:
        """Start with nothing drawn; what is given counts as certain."""
        self.plan, self.corrector = plan, corrector
        self._chance_BL = torch.ones(canvas.tokens_BL.shape, dtype=torch.float64, device=canvas.tokens_BL.device)
        self._calls = 0

    def goes_on(self, at: Transition) -> bool:
        """Whether a full canvas may be opened again by this step or a later one."""
        return self.corrector.revisits(at)

    def select(self, row_B: Tensor) -> None:
        """Let each row go on as another."""
        self._chance_BL = self._chance_BL[row_B]

    def of_step(self, snapshot: Snapshot, carry: Carry) -> Snapshot:
        """Return the step with what the corrector hides again; after the last step nothing is."""
        self._note(snapshot)
        at, after = snapshot.at, snapshot.after
        if not self.corrector.revisits(at):
            return snapshot
        hidden_BL = self._hidden(self.plan, at, snapshot.before, after, carry, snapshot.logits_BLV)
        after = self.plan.denoiser.process.hide(after, hidden_BL)
        return replace(snapshot, after=after, hidden_BL=hidden_BL, calls=snapshot.calls + self._take_calls())

    def turns(self, canvas: Canvas, carry: Carry) -> Iterator[Snapshot]:
        """Yield the turns after the last step: each hides what the corrector says and writes all of it again.

        They are at the noise of the last step. A turn in which no row hides anything takes no model call.
        """
        process, last = self.plan.denoiser.process, self.plan.transition(self.plan.steps - 1)
        length = canvas.tokens_BL.shape[1]
        for turn in range(self.corrector.turns(length)):
            if self.corrector.ends(turn, canvas):
                break
            plan = warmed(self.plan, self.corrector.warmth(turn, length))
            hidden_BL = self._hidden(plan, last, canvas, canvas, carry, turn=turn)
            if not bool(hidden_BL.any()):
                continue
            part = replace(
                plan, randomness=replace(plan.randomness, first_step=plan.randomness.first_step + _TURNS + turn)
            )
            before = process.hide(canvas, hidden_BL)
            logits_BLV, carry, calls = logits_of_open(part, before, last, carry)
            prediction, shifted_BLV = predict(part, before, last, logits_BLV)
            snapshot = Snapshot(
                at=replace(last, index=plan.steps + turn),
                before=before,
                after=advance(part, before, prediction, last),
                prediction=prediction,
                logits_BLV=shifted_BLV,
                calls=calls + self._take_calls(),
                carry=carry,
            )
            self._note(snapshot)
            yield snapshot
            canvas = snapshot.after

    def _note(self, snapshot: Snapshot) -> None:
        """Remember the marginal of each token that was just written."""
        new_BL = snapshot.after.tokens_BL != snapshot.before.tokens_BL
        chance_BL = snapshot.prediction.law.probability(snapshot.after.tokens_BL).double()
        self._chance_BL = torch.where(new_BL, chance_BL, self._chance_BL)

    def _hidden(
        self,
        plan: Plan,
        at: Transition,
        before: Canvas,
        after: Canvas,
        carry: Carry,
        logits_BLV: Tensor | None = None,
        turn: int | None = None,
    ) -> Tensor:
        """Return what the corrector hides, bool `[B, L]`, whatever it says only at eligible positions."""
        open_BL = plan.denoiser.process.known(after) < 0
        eligible_BL = ~open_BL & ~after.fixed_BL
        if self.corrector.keep_tail:
            eligible_BL = eligible_BL & ~tail_of(plan.denoiser, plan.ending, after.tokens_BL)

        def look(hidden_BL: Tensor) -> Law:
            canvas = plan.denoiser.process.hide(after, hidden_BL)
            looked_BLV, _, calls = logits_of(plan, canvas, at, carry, "at_open")
            self._calls += calls
            return predict(plan, canvas, at, looked_BLV)[0].law

        written = Written(
            at=at,
            before=before,
            after=after,
            eligible_BL=eligible_BL,
            open_BL=open_BL,
            chance_BL=self._chance_BL,
            randomness=plan.randomness,
            look=look,
            logits_BLV=logits_BLV,
            turn=turn,
        )
        return self.corrector.select(written) & eligible_BL

    def _take_calls(self) -> int:
        calls, self._calls = self._calls, 0
        return calls


def select_carry(carry: Carry, row_B: Tensor) -> Carry:
    """Return what is carried of these rows, int64 `[N]`."""
    own, other = (kept if kept is None else kept.select(row_B) for kept in carry)
    return own, other
