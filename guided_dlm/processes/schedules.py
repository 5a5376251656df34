"""Noise schedules: alpha(t), the share of the signal that is left at noise level t in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from guided_dlm.errors import UnknownName

Schedule = Callable[[float], float]


def linear(t: float) -> float:
    """Return 1 - t (the schedule of LLaDA, 2502.09992)."""
    return 1.0 - t


def cosine(t: float) -> float:
    """Return 1 - cos(pi/2 (1 - t)), slow at the noisy end (2406.07524, app. E)."""
    return 1.0 - math.cos(0.5 * math.pi * (1.0 - t))


def cosine_squared(t: float, offset: float = 1e-4) -> float:
    """Return cos^2(pi/2 (t + offset) / (1 + offset)) relative to t = 0 (2102.09672, eq. 17), as SSD-LM has it."""
    quarter = 0.5 * math.pi / (1.0 + offset)
    return (math.cos(quarter * (t + offset)) / math.cos(quarter * offset)) ** 2


def log_linear(t: float, smallest: float = 1e-3) -> float:
    """Return 1 - (1 - smallest) t, so that log(1 / alpha) stays finite (2310.16834; 2406.07524, app. E)."""
    return 1.0 - (1.0 - smallest) * t


def sqrt(t: float) -> float:
    """Return 1 - sqrt(t + 1e-4), for Gaussian noise on embeddings (2205.14217, app. A)."""
    return max(0.0, 1.0 - math.sqrt(t + 1e-4))


SCHEDULES: dict[str, Schedule] = {
    "linear": linear,
    "cosine": cosine,
    "cosine_squared": cosine_squared,
    "log_linear": log_linear,
    "sqrt": sqrt,
}


def schedule(name: str | Schedule) -> Schedule:
    """Return the schedule of that name; a function is its own schedule.

    Raises:
        UnknownName: nobody knows the name; the message lists the ones there are.
    """
    if callable(name):
        return name
    if name not in SCHEDULES:
        raise UnknownName(f"There is no noise schedule {name!r}; choose one of {sorted(SCHEDULES)}.")
    return SCHEDULES[name]


def alphas(name: str | Schedule, t_B: Tensor) -> Tensor:
    """Return alpha at each of many noise levels, fp64 of their shape and on their device."""
    function = schedule(name)
    values = [function(t) for t in t_B.flatten().tolist()]
    return torch.tensor(values, dtype=torch.float64, device=t_B.device).reshape(t_B.shape)
