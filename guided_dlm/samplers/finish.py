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
    """A run was stopped, by its callback or by Ctrl-C.

    `tokens_BL` is the best canvas it had, int64 `[B, L]`; `open_B` says which rows were not finished; `interrupted`
    whether it was Ctrl-C.
    """

    def __init__(self, tokens_BL: Tensor, open_B: Tensor, interrupted: bool) -> None:
        """Take what there is."""
        super().__init__("The run was stopped.")
        self.tokens_BL, self.open_B, self.interrupted = tokens_BL, open_B, interrupted


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
    steps: Steps = run,
) -> tuple[Tensor, Carry]:
    """As `sample`, for one block of several: begin with what is carried so far, and return what is carried on."""
    tokens_BL, last, stop, interrupted = canvas.given_BL(), None, False, False
    try:
        for snapshot in steps(plan, canvas, carry=carry):
            last, carry = snapshot, snapshot.carry
            stop = observe is not None and wants_stop(observe(snapshot))
            if snapshot.at.last or plan.denoiser.process.selects:
                tokens_BL = _clean(plan, snapshot)
            if stop:
                break
    except KeyboardInterrupt:
        if last is None:
            raise
        stop = interrupted = True
    if stop and last is not None:
        raise Stopped(*best_tokens(plan, last), interrupted)
    return tokens_BL, carry


def wants_stop(answer: Any) -> bool:
    """Whether a callback's answer asks to stop; callbacks that return anything else go on."""
    return isinstance(answer, str) and answer == STOP


def best_tokens(plan: Plan, snapshot: Snapshot) -> tuple[Tensor, Tensor]:
    """Return whole canvases `[B, L]` given all that is written by now, and which rows were not finished, bool `[B]`.

    What is open becomes the likeliest text under this step's law; where a model's canvases end, the likeliest of the
    likeliest length. It satisfies the automaton whenever the run is stopped: what a step leaves open can be completed.
    """
    process, at, canvas = plan.denoiser.process, snapshot.at, snapshot.after
    open_B = (process.known(canvas) < 0).any(-1)
    if snapshot.at.last and plan.corrector is None and not process.selects:
        return _clean(plan, snapshot), torch.zeros_like(open_B)
    greedy = replace(plan, truncation=replace(plan.truncation, temperature=0.0))
    prediction, logits_BLV = condition(greedy, canvas, at, snapshot.logits_BLV)
    settled = settle(greedy, canvas, prediction)
    if settled is not canvas:
        prediction, _ = condition(greedy, settled, at, logits_BLV)
    open_BL = process.known(settled) < 0
    whole = settled.write(prediction.tokens(), open_BL)
    if plan.ending is not None:
        whole = whole.close_tail(plan.ending.end, plan.ending.padding, open_BL)
    return whole.tokens_BL, open_B


def _clean(plan: Plan, snapshot: Snapshot) -> Tensor:
    return snapshot.after.tokens_BL if plan.denoiser.process.selects else snapshot.prediction.tokens()
