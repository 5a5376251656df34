"""Noise on almost-one-hot logits, through the real loop: the likelihood, each step, and the law of what is drawn."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import (
    CPU,
    Pattern,
    accepted,
    canvas_of,
    chi_square,
    counts,
    draw_many,
    product_joint,
    random_joint,
    tv,
)
from scipy import stats
from torch import Tensor

from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import ByteAutomaton
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior import Factors
from guided_dlm.processes import GaussianProcess, Prediction, Process, SimplexProcess, Transition
from guided_dlm.processes.schedules import Schedule, cosine_squared, linear, sqrt
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.samplers.commit import Ancestral

ROWS = 20_000
SIZE = 3
K = 5.0
VOCABULARY = Vocabulary.from_tokens([b"a", b"b", b"c"], eos_id=None)
EMBEDDINGS = K * (2.0 * torch.eye(SIZE, dtype=torch.float64) - 1.0)
PATTERN = "(ab|c)*b?|a+"
AUTOMATON = ByteAutomaton.from_regex(PATTERN).lift(VOCABULARY)
SOLVERS = ["ddim", "renoise"]


def process(**options: Any) -> SimplexProcess:
    return SimplexProcess(**{"size": SIZE, "scale": K} | options)


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("t", [1e-3, 0.3, 0.9, 1.0])
def test_the_likelihood_is_that_of_the_normal_law_around_each_token(t: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens_BL = torch.randint(4, (2, 3), generator=generator)
    noisy = process(size=4, scale=scale)
    canvas = noisy.start(
        canvas_of(tokens_BL, Vocabulary.from_tokens([b"a", b"b", b"c", b"d"], eos_id=None)),
        Randomness(row_seeds(3, 2, CPU)),
    )
    w_BLV, abar = canvas.latents_BLD, cosine_squared(t)
    assert w_BLV is not None
    clean_VV = scale * (2 * torch.eye(4, dtype=torch.float64) - 1)
    law = torch.distributions.Normal(math.sqrt(abar) * clean_VV, math.sqrt(1 - abar) * scale)
    exact_BLV = law.log_prob(w_BLV[:, :, None]).sum(-1)
    found_BLV = noisy.log_likelihood(canvas, t, 4)
    error_BLV = found_BLV.log_softmax(-1) - exact_BLV.log_softmax(-1)
    assert float((error_BLV.abs() / exact_BLV.abs().clamp_min(1.0)).max()) < 1e-10


def test_what_is_given_is_certain() -> None:
    canvas = canvas_of(torch.zeros(1, 2, dtype=torch.int64), VOCABULARY).fix(torch.tensor([[-1, 2]]))
    canvas = process().start(canvas, Randomness(row_seeds(0, 1, CPU)))
    found = process().log_likelihood(canvas, 0.5, SIZE)
    assert bool(found[0, 0].isfinite().all())
    assert found[0, 1].tolist() == [-math.inf, -math.inf, 0.0]
    assert process().known(canvas).tolist() == [[-1, 2]]


@pytest.mark.parametrize("options", [{}, {"eta": 0.3}, {"clean": "mean"}, {"clean": "mean", "eta": 0.0}])
def test_it_is_gaussian_diffusion_on_almost_one_hot_embeddings(options: dict[str, Any]) -> None:
    """In units of K: the same noise, the same draw, the same step, to rounding; and no table."""
    unit = GaussianProcess(embeddings_VD=EMBEDDINGS / K, schedule=cosine_squared, **options)
    ours = process(**options)
    randomness = Randomness(row_seeds(0, 50, CPU))
    logits_BLV = torch.randn(50, 2, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    blank = canvas_of(torch.zeros(50, 2, dtype=torch.int64), VOCABULARY)
    there, here = unit.start(blank, randomness), ours.start(blank, randomness)
    for index in range(3):
        at = Transition.of(index, 4, cosine_squared)
        prediction = Prediction(law=Factors(logits_BLV), randomness=randomness, step=index)
        there, here = (p.step(c, prediction, at, Ancestral()) for p, c in ((unit, there), (ours, here)))
        assert there.latents_BLD is not None
        torch.testing.assert_close(here.latents_BLD, K * there.latents_BLD, atol=1e-10, rtol=1e-10)
    with pytest.raises(AttributeError, match="embeddings_VD"):
        _ = ours.embeddings_VD


def stepped(index: int, solver: str, rows: int = 40_000) -> tuple[Tensor, Tensor, Transition]:
    """Latents `[rows, V]` before and after one of five steps towards token 0, from noise."""
    at = Transition.of(index, 5, linear)
    randomness = Randomness(row_seeds(0, rows, CPU))
    noisy = process(schedule=linear, solver=solver)
    before = noisy.start(canvas_of(torch.zeros(rows, 1, dtype=torch.int64), VOCABULARY), randomness)
    certain = Factors(torch.tensor([0.0, -1e9, -1e9], dtype=torch.float64).expand(rows, 1, SIZE))
    after = noisy.step(before, Prediction(law=certain, randomness=randomness, step=index), at, Ancestral())
    assert before.latents_BLD is not None
    assert after.latents_BLD is not None
    return before.latents_BLD[:, 0], after.latents_BLD[:, 0], at


@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_has_its_mean_and_noise_that_owes_nothing_to_the_canvas(index: int, solver: str) -> None:
    """Ancestral: q(w_s | w_t, w_0), a product of two normals. Renoise: q(w_s | w_0), whatever w_t was."""
    before, after, at = stepped(index, solver)
    r, a_t, a_s = at.alpha_t / at.alpha_s, at.alpha_t, at.alpha_s
    c0, ct = math.sqrt(a_s) * (1 - r) / (1 - a_t), math.sqrt(r) * (1 - a_s) / (1 - a_t)
    variance = (1 - a_s) / (1 - a_t) * (1 - r)
    if solver == "renoise":
        c0, ct, variance = math.sqrt(a_s), 0.0, 1 - a_s
    noise = (after - c0 * EMBEDDINGS[0] - ct * before) / (K * math.sqrt(variance))
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    for i, j in itertools.product(range(SIZE), range(SIZE)):
        assert stats.pearsonr(noise[:, i], before[:, j]).pvalue > 1e-3
    for i, j in itertools.combinations(range(SIZE), 2):
        assert stats.pearsonr(noise[:, i], noise[:, j]).pvalue > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", [cosine_squared, sqrt])
def test_one_position_is_exact_in_any_number_of_steps(steps: int, solver: str, schedule: Schedule) -> None:
    """Draw w_0 given w_t, then w_s: either way w_s has the law q(w_s), because abar is 0 at the start."""
    joint = random_joint(SIZE, 1, seed=1)
    denoiser = TabularDenoiser(joint, VOCABULARY, process(schedule=schedule, solver=solver))
    assert chi_square(counts(draw_many(denoiser, Ancestral(), steps, ROWS), SIZE), joint.flatten()) > 1e-3


@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_hard_constraint_on_independent_positions_is_exact_in_any_number_of_steps(steps: int, solver: str) -> None:
    joint = product_joint(SIZE, 3, seed=2)
    denoiser = TabularDenoiser(joint, VOCABULARY, process(solver=solver))
    drawn = draw_many(denoiser, Ancestral(), steps, ROWS, automaton=AUTOMATON)
    assert chi_square(counts(drawn, SIZE), joint.flatten() * accepted(AUTOMATON, 3)) > 1e-3


def law_by_hand(
    joint: Tensor, weight_N: Tensor, steps: int, solver: str, draws: int = 400_000
) -> tuple[Tensor, Tensor]:
    """The law of that many steps on two positions `[V * V]`, and its standard errors: from the definitions.

    The latents are followed by simulation, with a generator and a code of their own; the last draw is integrated: its
    law is the mean over the latents of the product of marginals, held to the weight.
    """
    generator = torch.Generator().manual_seed(11)
    size = len(joint)
    clean_VV = K * (2 * torch.eye(size, dtype=torch.float64) - 1)
    weight_VV = weight_N.reshape(size, size)

    def noise_N2V() -> Tensor:
        return K * torch.randn(draws, 2, size, generator=generator, dtype=torch.float64)

    w_N2V = noise_N2V()
    for index in range(steps):
        a_t, a_s = cosine_squared(1 - index / steps), cosine_squared(1 - (index + 1) / steps)
        distance_N2V = (w_N2V[:, :, None] - math.sqrt(a_t) * clean_VV).square().sum(-1)
        seen_N2V = (-distance_N2V / (2 * (1 - a_t) * K**2)).softmax(-1)
        pair_NVV = joint * seen_N2V[:, 0, :, None] * seen_N2V[:, 1, None, :]
        pair_NVV = pair_NVV / pair_NVV.sum((1, 2), keepdim=True)
        law_NVV = pair_NVV.sum(2)[:, :, None] * pair_NVV.sum(1)[:, None, :] * weight_VV
        law_NC = (law_NVV / law_NVV.sum((1, 2), keepdim=True)).flatten(1)
        if index == steps - 1:
            return law_NC.mean(0), law_NC.std(0) / math.sqrt(draws)
        pick_N = torch.multinomial(law_NC, 1, generator=generator)[:, 0]
        clean_N2V = clean_VV[torch.stack([pick_N // size, pick_N % size], 1)]
        r = a_t / a_s
        c0, ct, variance = math.sqrt(a_s), 0.0, 1 - a_s
        if solver == "ddim":  # q(w_s | w_t, w_0), from the product of two Gaussians (2006.11239, eq. 7)
            c0, ct = math.sqrt(a_s) * (1 - r) / (1 - a_t), math.sqrt(r) * (1 - a_s) / (1 - a_t)
            variance = (1 - a_s) / (1 - a_t) * (1 - r)
        w_N2V = c0 * clean_N2V + ct * w_N2V + math.sqrt(variance) * noise_N2V()
    raise AssertionError("steps is at least 1")


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(("steps", "solver"), [(1, "ddim"), (4, "ddim"), (4, "renoise")])
def test_the_loop_draws_from_the_exact_law_of_that_many_steps(steps: int, solver: str, constrained: bool) -> None:
    """Of a correlated joint, whose own law so few steps do not have: so what is met is the sampler's."""
    joint = random_joint(SIZE, 2, seed=1)
    automaton = ByteAutomaton.from_regex("ab|c.|bb?c?").lift(VOCABULARY)
    weight = accepted(automaton, 2).double() if constrained else torch.ones(SIZE**2, dtype=torch.float64)
    law, error = law_by_hand(joint, weight, steps, solver)
    assert float(error.max()) < 1e-3  # of 20,000 draws it is 3.5e-3
    denoiser = TabularDenoiser(joint, VOCABULARY, process(solver=solver))
    seen = counts(draw_many(denoiser, Ancestral(), steps, ROWS, automaton if constrained else None), SIZE)
    assert chi_square(seen, law) > 1e-3
    assert chi_square(seen, joint.flatten() * weight) < 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_law_nears_a_correlated_joint_as_steps_grow(solver: str) -> None:
    joint = random_joint(SIZE, 3, seed=3)
    denoiser = TabularDenoiser(joint, VOCABULARY, process(solver=solver))
    few, more, many = (
        tv(counts(draw_many(denoiser, Ancestral(), steps, ROWS), SIZE), joint.flatten()) for steps in (1, 5, 50)
    )
    assert few > 0.3 > more > many
    assert many < 0.05


def test_the_scale_changes_nothing_but_the_unit() -> None:
    joint = random_joint(SIZE, 2, seed=5)
    small, large = (
        draw_many(TabularDenoiser(joint, VOCABULARY, process(scale=scale)), Ancestral(), 3, 500) for scale in (1.0, 8.0)
    )
    assert torch.equal(small, large)


@pytest.mark.parametrize(
    "options",
    [{}, {"solver": "renoise"}, {"clean": "mean", "eta": 0.0}, {"clean": "mean", "eta": 0.0, "solver": "dpm++2m"}],
)
@pytest.mark.parametrize("asked", [{}, {"temperature": 0}, {"top_p": 0.5}])
def test_every_output_of_the_pipeline_satisfies_a_hard_constraint(options: dict[str, Any], asked: Any) -> None:
    joint = random_joint(SIZE, 3, seed=4, sharpness=4.0)
    pipe = GuidedPipeline(TabularDenoiser(joint, VOCABULARY, process(**options)))
    for steps in (1, 12):
        out = pipe(constraint=Pattern(PATTERN), num_samples=200, steps=steps, seed=steps, **asked)
        assert bool(out.satisfied.all())
        assert math.isfinite(float(out.log_weights.sum()))


def test_the_greedy_projection_embeds_the_mode() -> None:
    """At temperature 0 a step renoises the likeliest text, whatever the noise (the paper's greedy projection)."""
    noisy: Process = process(solver="renoise")
    randomness = Randomness(row_seeds(0, 2_000, CPU))
    law = Factors(torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64).log().expand(2_000, 1, SIZE))
    canvas = noisy.start(canvas_of(torch.zeros(2_000, 1, dtype=torch.int64), VOCABULARY), randomness)
    prediction = Prediction(law=law, randomness=randomness, step=0)
    near_clean = Transition(index=0, total=2, t=1.0, s=0.5, alpha_t=0.0, alpha_s=1.0)
    for greedy, found in ((True, {0}), (False, {0, 1, 2})):
        after = noisy.step(canvas, replace(prediction, greedy=greedy), near_clean, Ancestral())
        assert after.latents_BLD is not None
        assert set(after.latents_BLD.argmax(-1).flatten().tolist()) == found


def test_the_schedule_of_the_paper_goes_from_clean_to_noise() -> None:
    assert cosine_squared(0.0) == 1.0
    assert cosine_squared(0.5) == pytest.approx(0.5, abs=1e-3)
    assert 0.0 <= cosine_squared(1.0) < 1e-12


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": 0}, "size=0"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"scale": math.inf}, "scale=inf"),
        ({"solver": "euler"}, "none of 'ddim'"),
        ({"solver": "renoise", "eta": 0.5}, "leave out clean and eta"),
        ({"solver": "renoise", "clean": "mean"}, "leave out clean and eta"),
        ({"solver": "dpm++2m"}, "clean='mean' and eta=0"),
        ({"clean": "median"}, "clean='median'"),
        ({"eta": 1.5}, "eta=1.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        process(**options)
