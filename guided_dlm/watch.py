"""Soft channels under watch: what a guide returns is checked at every step, and what fails is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from guided_dlm.constraint import Bias, Constraint, EnergyFn, Guide, RewardFn, Step
from guided_dlm.errors import GuidedError, GuideFailed, InvalidRequest

LARGEST = 1e6  # nats; stands for infinity, so that two infinite pulls add up to a number


def watched(guide: Guide, wish: Constraint) -> Guide:
    """Return the guide with its soft channels checked: exceptions, NaN and wrong shapes name the wish and the step.

    Infinities become a million nats; how far each guide moves the logits goes into `Step.diagnostics`, where it is.
    """
    name = repr(wish)
    return replace(
        guide,
        bias=None if guide.bias is None else _bias(guide.bias, name),
        energy=None if guide.energy is None else _energy(guide.energy, name),
        reward=None if guide.reward is None else watched_reward(guide.reward, name),
    )


def _bias(bias: Bias, name: str) -> Bias:
    def checked(step: Step) -> Tensor:
        where = f"{name}, bias at step {step.index + 1} of {step.total}"
        with _naming(where):
            given = bias(step)
        found = _tensor(given, where)
        if step.logits_BLV is not None:
            _broadcasts(found, tuple(step.logits_BLV.shape), where)
            _record(step, name, found)
        return found.clamp(-LARGEST, LARGEST)

    return checked


def _energy(energy: EnergyFn, name: str) -> EnergyFn:
    def checked(relaxed_BLV: Tensor, step: Step) -> Tensor:
        where = f"{name}, energy at step {step.index + 1} of {step.total}"
        view_BLV = relaxed_BLV.view_as(relaxed_BLV)
        if view_BLV.requires_grad:
            view_BLV.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: _gradient(gradient, step, name, where)
            )
        with _naming(where):
            given = energy(view_BLV, step)
        found_B = _tensor(given, where)
        if found_B.shape != relaxed_BLV.shape[:1]:
            raise InvalidRequest(
                f"{where}: an energy returns one number per row, shape ({relaxed_BLV.shape[0]},); got "
                f"{tuple(found_B.shape)}."
            )
        if view_BLV.requires_grad and not found_B.requires_grad:
            raise GuideFailed(
                f"{where}: the energy has no gradient in the relaxed tokens, so it cannot pull. Compute it from them "
                "without detach() or no_grad, or make it a reward."
            )
        return found_B

    return checked


def _gradient(gradient_BLV: Tensor, step: Step, name: str, where: str) -> Tensor:
    found = _tensor(gradient_BLV, f"{where}, gradient").clamp(-LARGEST, LARGEST)
    _record(step, name, -found)
    return found


def watched_reward(reward: RewardFn, name: str) -> RewardFn:
    """Return the reward with its answers checked; what fails is named `name`."""

    def checked(texts: list[str], tokens: Tensor) -> Tensor:
        where = f"{name}, reward"
        with _naming(where):
            given = torch.as_tensor(reward(texts, tokens))
        found_B = _tensor(given, where)
        if found_B.shape != (len(texts),):
            raise InvalidRequest(
                f"{where}: a reward returns one number per text, shape ({len(texts)},); got {tuple(found_B.shape)}."
            )
        return found_B.double().clamp(-LARGEST, LARGEST)

    return checked


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Name the guide before the message of whatever its code raises."""
    try:
        yield
    except GuidedError as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        raise GuideFailed(f"{where}: it raised {type(error).__name__}: {error}") from error


def _tensor(found: Any, where: str) -> Tensor:
    if not isinstance(found, Tensor):
        raise GuideFailed(f"{where}: it returned a {type(found).__name__}; return a torch tensor.")
    if bool(torch.isnan(found.detach()).any()):
        raise GuideFailed(f"{where}: it is NaN. Look for a logarithm of zero or a division by zero in it.")
    return found


def _broadcasts(found: Tensor, shape: tuple[int, ...], where: str) -> None:
    try:
        found.broadcast_to(shape)
    except RuntimeError as error:
        raise InvalidRequest(
            f"{where}: a bias of shape {tuple(found.shape)} does not broadcast to {shape} (rows, positions, tokens)."
        ) from error


def _record(step: Step, name: str, shift: Tensor) -> None:
    """Note the mean total variation between each open position's law before and after a shift."""
    if step.diagnostics is None or step.logits_BLV is None:
        return
    before_BLV = step.logits_BLV.softmax(-1)
    distance_BL = 0.5 * ((step.logits_BLV + shift).softmax(-1) - before_BLV).abs().sum(-1)
    open_BL = torch.ones_like(distance_BL) if step.known_BL is None else (step.known_BL < 0).to(distance_BL)
    step.diagnostics.moved[name] = (distance_BL * open_BL).sum(-1) / open_BL.sum(-1).clamp_min(1.0)
