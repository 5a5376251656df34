"""Particles over blocks: rows that compete for each sample, weighed by what every next block thinks of them.

A block model sees nothing beyond its block, and what must come later is only guessed (`samplers.blocks.lookahead`). The
weights take the guess back and put the model's own law in its place, block by block: twisted sequential Monte Carlo
(2609.35609 for hard constraints), with log Z of a block's first factors over the guess at the end of the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.particles import Cloud, Correction, Sampled, check_particles
from guided_dlm.samplers.blocks import Blocks, beyond_block
from guided_dlm.samplers.finish import Observe, Stopped, best_tokens, wants_stop
from guided_dlm.samplers.loop import Plan, logits_of, predict, run, select_carry

_APART = 1 << 19  # resampling between blocks draws numbers that no step of a block draws


class _Halted(Exception):
    """A callback or Ctrl-C ended a block, of which this is the stop."""

    def __init__(self, stop: Stopped) -> None:
        super().__init__()
        self.stop = stop


@torch.no_grad()
def sample_block_particles(
    plan: Plan,
    canvas: Canvas,
    count: int,
    decode: Callable[[Tensor], list[str]],
    observe: Observe | None = None,
    threshold: float = 0.5,
    resampling: str = "systematic",
    *,
    width: int,
) -> Sampled:
    """Write groups of `count` adjacent rows in blocks of `width`, and draw one row per group.

    Groups of low effective size are resampled before each block, once that block's first factors have been asked. As
    for `sample_particles` the weights are exact; the law is neared as `count` grows.

    Raises:
        InvalidRequest: a reward, a search, or what `check_particles` and `sample_blocks` refuse.
    """
    check_particles(replace(plan, terminal_S=canvas.tokens_BL.new_zeros(0)), resampling)
    if resampling != "systematic" or plan.guide.reward is not None:
        raise InvalidRequest(
            "Particles over blocks follow what is hard, and biases and energies; a reward reads whole texts, which "
            "blocks do not draw. Leave out the reward, or the blocks."
        )
    blocks = Blocks.start(plan, canvas, width)
    cloud = Cloud(len(canvas.tokens_BL) // count, count, plan.randomness, threshold)
    steering, stop = Correction(plan, cloud, decode), None
    while blocks.left and not bool(blocks.ended().all()):
        try:
            blocks = _resampled(blocks, steering, count)
            part, block = blocks.block()
            steering.plan = part
            blocks = _written(blocks, part, block, steering, observe)
        except _Halted as halted:
            stop = blocks.stopped(blocks.block()[0], halted.stop)
            break
    tokens_BL = blocks.completed() if stop is None else stop.tokens_BL
    if stop is None:
        steering.foresee(blocks.log_ending(tokens_BL))
    return _picked(cloud, plan.steps, tokens_BL, stop)


def _resampled(blocks: Blocks, steering: Correction, count: int) -> Blocks:
    """Weigh the rows by the first factors of the next block, and resample groups in which few of them count."""
    part, block = blocks.block()
    started, at = part.denoiser.process.start(block, part.randomness), part.transition(0)
    try:
        logits_BLV, carry, _ = logits_of(part, started, at, blocks.carry)
    except KeyboardInterrupt:
        raise _interrupted(blocks) from None
    steering.foresee(predict(part, started, at, logits_BLV)[0].log_z)
    open_N = (~blocks.ended()).reshape(-1, count).any(-1)
    row_B = steering.cloud.resample(_APART + blocks.written.shape[1], open_N)
    carry = beyond_block(part, carry)
    blocks = replace(blocks, carry=carry)
    if row_B is None:
        return blocks
    steering.select(row_B)
    return replace(
        blocks, written=blocks.written[row_B], state_B=blocks.state_B[row_B], carry=select_carry(carry, row_B)
    )


def _written(blocks: Blocks, part: Plan, block: Canvas, steering: Correction, observe: Observe | None) -> Blocks:
    """Write a block; within it weights are carried and nothing is resampled, since each row has its own start."""
    threshold, steering.cloud.threshold = steering.cloud.threshold, 0.0
    tokens_BW, carry, last = block.given_BL(), blocks.carry, None
    try:
        for last in run(part, block, steering.choose, blocks.carry):
            steering.follow(last)
            tokens_BW, carry = last.after.tokens_BL, last.carry
            looked = 2 if last.at.index == 0 else 1  # the first step's call was made before, too, to look ahead
            told = replace(last, calls=looked * last.calls)
            if observe is not None and wants_stop(observe(told)):
                raise _Halted(Stopped(*best_tokens(part, last), interrupted=False))
    except KeyboardInterrupt:
        if last is None:
            raise _interrupted(blocks) from None
        raise _Halted(Stopped(*best_tokens(part, last), interrupted=True)) from None
    finally:
        steering.cloud.threshold = threshold
    after = blocks.after(part, tokens_BW, carry)
    steering.take_back(blocks.log_drawn(part, tokens_BW, after.state_B))
    return after


def _interrupted(blocks: Blocks) -> BaseException:
    """Return what to raise where Ctrl-C came before a block's first step: itself where nothing is written."""
    if not blocks.written.shape[1]:
        return KeyboardInterrupt()
    return _Halted(Stopped(blocks.written[:, :0], torch.zeros_like(blocks.ended()), interrupted=True))


def _picked(cloud: Cloud, step: int, tokens_BL: Tensor, stop: Stopped | None) -> Sampled:
    groups, count = cloud.log_w_NK.shape
    row_N, never_N = cloud.pick(step), torch.zeros(groups, dtype=torch.bool, device=tokens_BL.device)
    tokens_NL, normaliser_N = tokens_BL[row_N], cloud.log_normaliser_N
    if stop is not None:
        open_N = stop.open_B.reshape(groups, count).any(-1)
        normaliser_N, stop = normaliser_N.fill_(torch.nan), Stopped(tokens_NL, open_N, stop.interrupted)
    return Sampled(
        tokens_NL=tokens_NL,
        log_normaliser_N=normaliser_N,
        effective_size_N=cloud.effective_size_N,
        rejected_N=never_N,
        stopped=stop,
    )
