"""From the first step of a canvas to its clean tokens: at the end of a run, or where it is stopped before that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.samplers.loop import NO_CARRY, Carry, Plan, Snapshot, condition, run, settle

STOP = "stop"
Observe = Callable[[Snapshot], Any]  # a step is the last one where this returns "stop"
Steps = Callable[..., Iterator[Snapshot]]


class Stopped(Exception):
    """A run was stopped before its end, by its callback or by Ctrl-C; `tokens_BL` is the best canvas it had."""

    def __init__(self, tokens_BL: Tensor) -> None:
        """Take the clean tokens, int64 `[B, L]`."""
        super().__init__("The run was stopped.")
        self.tokens_BL = tokens_BL


def sample(plan: Plan, canvas: Canvas, observe: Observe | None = None, steps: Steps = run) -> Tensor:
    """Run to the end and return the clean tokens `[B, L]`: the last joint draw, whatever the family.

    `steps` yields the snapshots of a run.

    Raises:
        Stopped: `observe` returned "stop", or somebody pressed Ctrl-C after the first step.
    """
    return sample_with(plan, canvas, NO_CARRY, observe, steps=steps)[0]


@torch.no_grad()
def sample_with(
    plan: Plan,
    canvas: Canvas,
    carry: Carry,
    observe: Observe | None = None,
    more: bool = False,
    steps: Steps = run,
) -> tuple[Tensor, Carry]:
    """As `sample`, for one block of several: begin with what is carried so far, and return what is carried on.

    `more` says that blocks follow, so that the run is not over with this one.
    """
    tokens_BL, last = canvas.given_BL(), None
    try:
        for snapshot in steps(plan, canvas, carry=carry):
            last, carry = snapshot, snapshot.carry
            stop = observe is not None and wants_stop(observe(snapshot))
            if snapshot.at.last or plan.denoiser.process.selects:
                tokens_BL = _clean(plan, snapshot)
            if stop and (more or not is_done(plan, snapshot)):
                raise Stopped(best_tokens(plan, snapshot))
    except KeyboardInterrupt:
        if last is None:
            raise
        raise Stopped(best_tokens(plan, last)) from None
    return tokens_BL, carry


def wants_stop(answer: Any) -> bool:
    """Whether a callback's answer asks to stop; callbacks that return anything else go on."""
    return isinstance(answer, str) and answer == STOP


def is_done(plan: Plan, snapshot: Snapshot) -> bool:
    """Whether the run would have ended with this step anyway."""
    process = plan.denoiser.process
    full = process.selects and bool((process.known(snapshot.after) >= 0).all())
    return plan.corrector is None and (snapshot.at.last or full)


def best_tokens(plan: Plan, snapshot: Snapshot) -> Tensor:
    """Return the likeliest whole canvas `[B, L]` under this step's law, given all that is written by now.

    It satisfies the automaton, whenever the run is stopped: what a step leaves open can always be completed.
    """
    process, at, canvas = plan.denoiser.process, snapshot.at, snapshot.after
    greedy = replace(plan, truncation=replace(plan.truncation, temperature=0.0))
    prediction, logits_BLV = condition(greedy, canvas, at, snapshot.logits_BLV)
    settled = settle(greedy, canvas, prediction)
    if settled is not canvas:
        prediction, _ = condition(greedy, settled, at, logits_BLV)
    open_BL = process.known(settled) < 0
    whole = settled.write(prediction.tokens(), open_BL)
    if plan.ending is not None:
        whole = whole.close_tail(plan.ending.end, plan.ending.padding, open_BL)
    return whole.tokens_BL


def _clean(plan: Plan, snapshot: Snapshot) -> Tensor:
    return snapshot.after.tokens_BL if plan.denoiser.process.selects else snapshot.prediction.tokens()
