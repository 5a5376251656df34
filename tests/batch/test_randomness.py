"""Uniforms from a hash: uniform, normal, and independent across rows, steps, purposes and positions."""

import itertools

import numpy as np
import pytest
import torch
from oracles import CPU
from scipy import stats

from guided_dlm.errors import InvalidRequest
from guided_dlm.randomness import Purpose, Randomness, row_seeds


def uniforms(seeds: torch.Tensor, step: int = 0, purpose: Purpose = Purpose.PATH, width: int = 64) -> np.ndarray:
    return Randomness(seeds).uniform(step, purpose, width).numpy()


@pytest.mark.parametrize("seeds", [torch.arange(1000), torch.arange(1000) * 2**40, row_seeds(0, 1000, CPU)])
def test_they_are_uniform_over_rows_over_positions_and_overall(seeds: torch.Tensor) -> None:
    values = uniforms(seeds)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert stats.kstest(values.ravel(), "uniform").pvalue > 1e-3
    for line in (values[0], values[-1], values[:, 0], values[:, -1]):
        assert stats.kstest(line, "uniform").pvalue > 1e-3


def test_normals_are_normal() -> None:
    values = Randomness(torch.arange(1000)).normal(3, 64).numpy()
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(values[:, 5], "norm").pvalue > 1e-3


def test_no_number_serves_two_rows_steps_purposes_or_positions() -> None:
    seeds = torch.cat([torch.arange(20), row_seeds(0, 20, CPU)])
    drawn = [uniforms(seeds, step, purpose) for step in range(40) for purpose in Purpose]
    values = np.concatenate([block.ravel() for block in drawn])
    assert len(np.unique(values)) == values.size


def test_purposes_fit_between_two_steps() -> None:
    assert len({int(p) for p in Purpose}) == len(Purpose)
    assert all(0 <= int(p) < 64 for p in Purpose)


@pytest.mark.parametrize("stride", [1, 2, 64, 2**32])
def test_neighbouring_seeds_steps_purposes_and_positions_are_independent(stride: int) -> None:
    rows = torch.arange(2000) * stride
    base = uniforms(rows)
    others = [
        uniforms(rows + stride),
        uniforms(rows, step=1),
        uniforms(rows, purpose=Purpose.TOKEN),
        np.roll(base, 1, axis=1),
    ]
    for other in others:
        # A 10 by 10 table of both values, over every row and position.
        table = np.histogram2d(base.ravel(), other.ravel(), bins=10, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_a_prefix_of_the_positions_does_not_depend_on_the_width() -> None:
    assert np.array_equal(uniforms(torch.arange(5), width=64)[:, :10], uniforms(torch.arange(5), width=10))


def test_seeds_of_any_size_and_sign_are_taken_and_differ() -> None:
    seeds = [0, -1, 1, 2**63, 2**64 - 2, -(2**63) + 1]
    together = row_seeds(seeds, len(seeds), CPU)
    assert len(together.unique()) == len(seeds)
    singles = [int(row_seeds(seed, 1, CPU)[0]) for seed in seeds]
    assert all(a != b for a, b in itertools.combinations(singles, 2))


def test_as_many_seeds_as_rows_are_wanted() -> None:
    with pytest.raises(InvalidRequest, match="3 seeds for 4 rows"):
        row_seeds([1, 2, 3], 4, CPU)
