"""Uniform numbers from (row seed, step, purpose, position): row i of a batch draws what row i alone draws."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from guided_dlm.errors import InvalidRequest


class Purpose(IntEnum):
    """What a uniform number is for; different purposes never share one."""

    PATH = 1
    TOKEN = 2
    SELECTION = 3
    TRANSITION = 4
    START = 5
    NOISE = 6
    NOISE_ANGLE = 7
    END = 8
    RESAMPLE = 9
    REMASK = 10
    ACCEPT = 11
    STATE = 12


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_STRIDE = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Scramble int64 numbers: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = x + _STRIDE
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


@dataclass(frozen=True, eq=False)
class Randomness:
    """Counter-based uniforms for a batch: `seeds_B` int64, one per row; steps are counted from `first_step`."""

    seeds_B: Tensor
    first_step: int = 0

    def uniform(self, step: int, purpose: Purpose, width: int) -> Tensor:
        """Return uniforms in [0, 1), fp64 `[B, width]`."""
        counter = torch.arange(width, device=self.seeds_B.device)
        key_B = mix(mix(self.seeds_B) + (self.first_step + step) * 64 + int(purpose))
        bits_BW = mix(key_B[:, None] + mix(counter)[None, :])
        return _shift_right(bits_BW, 11).double() * 2.0**-53

    def normal(self, step: int, width: int) -> Tensor:
        """Return standard normals, fp64 `[B, width]` (Box and Muller, 1958)."""
        radius = self.uniform(step, Purpose.NOISE, width)
        angle = self.uniform(step, Purpose.NOISE_ANGLE, width)
        return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * math.pi * angle)


def row_seeds(seed: int | Iterable[int], rows: int, device: torch.device) -> Tensor:
    """Return one seed per row: the ones given, or ones derived from a single number and the row's index.

    Raises:
        InvalidRequest: the seeds are no whole numbers, or there are not as many as rows.
    """
    given = list(seed) if isinstance(seed, Iterable) and not isinstance(seed, str) else [seed]
    try:
        values = [_signed(operator.index(value) % (1 << 64)) for value in given]
    except TypeError as error:
        raise InvalidRequest(f"seed={seed!r}: give a whole number, or one for each row.") from error
    if not isinstance(seed, Iterable):
        return mix(mix(torch.tensor(values[0], device=device)) + torch.arange(rows, device=device))
    if len(values) != rows:
        raise InvalidRequest(f"Got {len(values)} seeds for {rows} rows (prompts x samples); give one, or one per row.")
    return torch.tensor(values, dtype=torch.int64, device=device)


def particle_seeds(seeds_B: Tensor, count: int) -> Tensor:
    """Return `count` seeds for each row, in adjacent places `[B count]`; one particle keeps the row's own."""
    if count == 1:
        return seeds_B
    return mix(mix(seeds_B)[:, None] + torch.arange(count, device=seeds_B.device)).reshape(-1)
