"""The uniform process, through the real loop, against exact laws."""

import itertools

import pytest
import torch
from oracles import (
    Pattern,
    accepted,
    canvas_of,
    canvases,
    chi_square,
    counts,
    draw_many,
    marginals_of,
    product_joint,
    product_law,
    random_joint,
    tv,
)
from torch import Tensor

from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import ByteAutomaton
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import Transition, UniformProcess
from guided_dlm.processes.schedules import cosine, linear
from guided_dlm.samplers.commit import Ancestral

ROWS = 20_000
SIZE, LENGTH = 3, 3
VOCABULARY = Vocabulary.from_tokens([b"a", b"b", b"c"], eos_id=None)
PATTERN = "(ab|c)*b?|a+"
AUTOMATON = ByteAutomaton.from_regex(PATTERN).lift(VOCABULARY)


def forward(alpha: float) -> Tensor:
    """q(z = v | u) when a share alpha survives, `[u, v]`."""
    return alpha * torch.eye(SIZE, dtype=torch.float64) + (1 - alpha) / SIZE


def bayes(alpha_t: float, alpha_s: float) -> Tensor:
    """q(z_s | z_t, x0), `[z_t, x0, z_s]`, by Bayes' rule over the forward chain x0 -> z_s -> z_t."""
    to_s, s_to_t = forward(alpha_s), forward(alpha_t / alpha_s)
    mass = to_s[None] * s_to_t.T[:, None]
    return mass / mass.sum(-1, keepdim=True)


def exact_law(joint: Tensor, weight_N: Tensor, steps: int, schedule=linear) -> Tensor:
    """The law of the last joint draw, by transition matrices over all V ** L canvases."""
    every, x0 = canvases(SIZE, LENGTH), joint.flatten()
    law_N = torch.full((SIZE**LENGTH,), SIZE**-LENGTH, dtype=torch.float64)
    for index in range(steps):
        alpha_t, alpha_s = schedule(1 - index / steps), schedule(1 - (index + 1) / steps)
        noise = forward(alpha_t)
        likelihood_ZX = torch.stack([noise[every[:, i]][:, every[:, i]].T for i in range(LENGTH)]).prod(0)
        clean_ZX = torch.stack(
            [product_law(marginals_of(row * x0 / (row * x0).sum(), SIZE), weight_N) for row in likelihood_ZX]
        )
        if index == steps - 1:
            return law_N @ clean_ZX
        step = bayes(alpha_t, alpha_s)
        move_ZXS = torch.ones(len(every), len(every), len(every), dtype=torch.float64)
        for i in range(LENGTH):
            move_ZXS *= step[every[:, i]][:, every[:, i]][:, :, every[:, i]]
        law_N = torch.einsum("z,zx,zxs->s", law_N, clean_ZX, move_ZXS)
    raise AssertionError("steps is at least 1")


@pytest.mark.parametrize(("index", "total"), [(0, 1), (0, 4), (1, 4), (2, 4), (3, 4), (17, 100)])
@pytest.mark.parametrize("schedule", [linear, cosine])
def test_the_transition_is_bayes_rule(index: int, total: int, schedule) -> None:
    process = UniformProcess(size=SIZE, schedule=schedule)
    at = Transition.of(index, total, schedule)
    noisy, clean = torch.arange(SIZE)[:, None].expand(-1, SIZE), torch.arange(SIZE)[None].expand(SIZE, -1)
    found = process.transition(noisy, clean, at)
    assert torch.allclose(found, bayes(at.alpha_t, at.alpha_s), rtol=0, atol=1e-12)
    assert torch.allclose(found.sum(-1), torch.ones(SIZE, SIZE, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("index", [0, 2, 3])
def test_noise_over_some_of_the_tokens_steps_by_bayes_rule_too(index: int) -> None:
    process, at = UniformProcess(size=4, token_ids=(0, 1, 3)), Transition.of(index, 4, linear)
    noise_V = torch.tensor([1, 1, 0, 1]).double() / 3
    to_s = at.alpha_s * torch.eye(4).double() + (1 - at.alpha_s) * noise_V
    ratio = at.alpha_t / at.alpha_s
    s_to_t = ratio * torch.eye(4).double() + (1 - ratio) * noise_V
    for z, x in itertools.product((0, 1, 3), range(4)):  # noise never puts a 2, but a text may hold one
        mass_V = to_s[x] * s_to_t[:, z]
        found = process.transition(torch.tensor([[z]]), torch.tensor([[x]]), at)[0, 0]
        assert torch.allclose(found, mass_V / mass_V.sum(), rtol=0, atol=1e-12)


def test_the_log_odds_are_the_likelihood_up_to_a_constant() -> None:
    process = UniformProcess(size=4, token_ids=(0, 1, 3))
    canvas = canvas_of(torch.tensor([[0, 3, 1]]), VOCABULARY)
    seen_BLV = process.log_likelihood(canvas, 0.3, 4)
    gap_BLV = seen_BLV - seen_BLV[..., 2:3]
    expected = process.log_odds(linear(0.3)) * torch.nn.functional.one_hot(canvas.tokens_BL, 4)
    assert torch.allclose(gap_BLV, expected, atol=1e-12)


@pytest.mark.parametrize("ids", [(), (0, 0), (3,), (-1, 1)])
def test_noise_over_what_are_no_tokens_is_refused(ids: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="token_ids"):
        UniformProcess(size=SIZE, token_ids=ids)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(("steps", "schedule"), [(1, linear), (2, linear), (5, linear), (5, cosine)])
def test_the_loop_draws_from_the_exact_law_of_that_many_steps(steps: int, schedule, constrained: bool) -> None:
    joint = random_joint(SIZE, LENGTH, seed=1)
    weight = accepted(AUTOMATON, LENGTH).double() if constrained else torch.ones(SIZE**LENGTH).double()
    denoiser = TabularDenoiser(joint, VOCABULARY, UniformProcess(size=SIZE, schedule=schedule))
    drawn = draw_many(denoiser, Ancestral(), steps, ROWS, automaton=AUTOMATON if constrained else None)
    assert chi_square(counts(drawn, SIZE), exact_law(joint, weight, steps, schedule)) > 1e-3


def test_the_exact_law_nears_the_joint_as_steps_grow() -> None:
    joint = random_joint(SIZE, LENGTH, seed=1)
    error = [
        tv(exact_law(joint, torch.ones(SIZE**LENGTH).double(), steps).numpy(), joint.flatten())
        for steps in (1, 4, 16, 64)
    ]
    assert all(later < 0.5 * earlier for earlier, later in itertools.pairwise(error))
    assert error[0] > 0.2
    assert error[-1] < 0.01


def test_under_a_hard_constraint_steps_reduce_the_bias_but_do_not_remove_it() -> None:
    """Factors times automaton is not the joint times automaton: a step sees only marginals. Particles correct it."""
    joint = random_joint(SIZE, LENGTH, seed=3, sharpness=0.7)
    weight = accepted(AUTOMATON, LENGTH).double()
    error = [tv(exact_law(joint, weight, steps).numpy(), joint.flatten() * weight) for steps in (1, 4, 16, 64)]
    assert error == sorted(error, reverse=True)
    assert error[0] > 0.15
    assert 0.05 < error[-1] < 0.1


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_hard_constraint_on_independent_positions_is_exact_in_any_number_of_steps(steps: int) -> None:
    joint = product_joint(SIZE, LENGTH, seed=2)
    denoiser = TabularDenoiser(joint, VOCABULARY, UniformProcess(size=SIZE))
    drawn = draw_many(denoiser, Ancestral(), steps, ROWS, automaton=AUTOMATON)
    assert chi_square(counts(drawn, SIZE), joint.flatten() * accepted(AUTOMATON, LENGTH)) > 1e-3


def test_every_output_of_the_pipeline_satisfies_a_hard_constraint() -> None:
    joint = random_joint(SIZE, LENGTH, seed=3, sharpness=4.0)
    denoiser = TabularDenoiser(joint, VOCABULARY, UniformProcess(size=SIZE))
    for steps in (1, 7):
        out = GuidedPipeline(denoiser)(constraint=Pattern(PATTERN), num_samples=500, steps=steps, seed=steps)
        assert bool(out.satisfied.all())
        assert out.denoiser_calls == 8 * steps


def test_the_output_is_the_last_joint_draw_and_not_the_canvas() -> None:
    joint = random_joint(SIZE, LENGTH, seed=3)
    last = []
    out = GuidedPipeline(
        TabularDenoiser(joint, VOCABULARY, UniformProcess(size=SIZE, schedule=lambda t: 0.5 - 0.5 * t))
    )(num_samples=64, steps=4, callback=last.append)
    # This schedule ends half noisy, so the last canvas differs from the draw that it was made from.
    assert torch.equal(out.tokens, last[-1].prediction.tokens())
    assert not torch.equal(out.tokens, last[-1].after.tokens_BL)
