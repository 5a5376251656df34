"""Correctors hide written tokens again: ReMDM and Gibbs against exact laws, and what holds under all of them."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import (
    CPU,
    accepted,
    canvas_of,
    canvases,
    chi_square,
    counts,
    draw_many,
    marginals_of,
    product_law,
    random_joint,
    tv,
)
from torch import Tensor

from guided_dlm import Guide, Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.processes import Transition
from guided_dlm.processes.schedules import Schedule, cosine, linear, log_linear
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.samplers import Chain, CommitRule, Corrector, Plan, sample
from guided_dlm.samplers.commit import Ancestral, Confidence
from guided_dlm.samplers.corrector import Written
from guided_dlm.samplers.correctors import P2, Gibbs, Informed, RemdmCap, RemdmConf, RemdmLoop, RemdmRescale, Rescore
from guided_dlm.samplers.loop import NO_CARRY, Revision, run
from guided_dlm.samplers.remasking import sigma_max
from guided_dlm.samplers.rewriting import repeats

ROWS = 20_000
MASK = 3
PLAIN = Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=MASK)
Sigma = Callable[[float, float], float]  # of alpha_t and alpha_s


def plan_of(
    joint: Tensor,
    corrector: Corrector | None,
    rows: int,
    steps: int = 3,
    automaton: TokenAutomaton | None = None,
    rule: CommitRule | None = None,
    seed: int = 0,
) -> Plan:
    return Plan(
        denoiser=TabularDenoiser(joint, PLAIN),
        guide=Guide(),
        automata=automaton,
        rule=rule or Confidence(),
        randomness=Randomness(row_seeds(seed, rows, CPU)),
        steps=steps,
        corrector=corrector,
    )


def empty(plan: Plan) -> Canvas:
    rows, length = len(plan.randomness.seeds_B), plan.denoiser.capacity
    assert length is not None
    return Canvas.from_prompts([None] * rows, plan.denoiser.vocabulary, length, CPU)


@pytest.mark.parametrize("schedule", [linear, cosine, log_linear])
@pytest.mark.parametrize("corrector", [RemdmCap(strength=0.3), RemdmRescale(strength=0.7), RemdmLoop(strength=0.5)])
def test_remdm_keeps_the_noised_law_of_every_clean_text(corrector: RemdmCap, schedule: Schedule) -> None:
    """q(z_s | x0) = sum over z_t of the kernel times q(z_t | x0): all texts and canvases of V = 3, L = 4."""
    length, total = 4, 16
    every, states = canvases(3, length), canvases(4, length)
    active = 0
    for index in range(total - 1):  # the last step writes everything, by definition
        at = corrector.transition(Transition.of(index, total, schedule), schedule)
        sigma = corrector.sigma(at)
        active += sigma > 0
        assert 0 <= sigma <= 1 and 0 <= at.share <= 1 + 1e-12
        kernel = torch.eye(4, dtype=torch.float64) * (1 - sigma)  # written -> itself or the mask
        kernel[:, MASK] = sigma
        for x0 in every.tolist():
            law_t, law_s = torch.ones(4**length).double(), torch.ones(4**length).double()
            reached = torch.ones([1], dtype=torch.float64)
            for place, token in enumerate(x0):
                noised = torch.zeros(2, 4, dtype=torch.float64)
                noised[:, token] = torch.tensor([at.alpha_t, at.alpha_s], dtype=torch.float64)
                noised[:, MASK] = 1 - noised[:, token]
                law_t, law_s = law_t * noised[0, states[:, place]], law_s * noised[1, states[:, place]]
                step = kernel.clone()
                step[MASK] = 0
                step[MASK, token], step[MASK, MASK] = at.share, 1 - at.share
                reached = torch.kron(reached, noised[0] @ step)
            assert torch.isclose(law_t.sum(), torch.tensor(1.0).double())
            assert float((reached - law_s).abs().max()) < 1e-10
    assert active > 0


def test_sigma_max_is_the_largest_that_keeps_the_writing_probability_positive() -> None:
    at = Transition.of(6, 8, linear)
    sigma = sigma_max(at)
    assert sigma == pytest.approx((1 - at.alpha_s) / at.alpha_t)
    assert (at.alpha_s - (1 - sigma) * at.alpha_t) / (1 - at.alpha_t) == pytest.approx(1.0)
    assert sigma_max(Transition.of(0, 8, linear)) == 1.0


def remdm_law(joint: Tensor, weight_N: Tensor, steps: int, schedule: Schedule, sigma_of: Sigma) -> Tensor:
    """The exact law of the ancestral sampler with remasking, by following every canvas through every step."""
    size, length = joint.shape[0], joint.dim()
    every = canvases(size, length)
    laws = {(MASK,) * length: 1.0}
    for index in range(steps):
        alpha_t, alpha_s = schedule(1 - index / steps), schedule(1 - (index + 1) / steps)
        last = index == steps - 1
        sigma = 0.0 if last else sigma_of(alpha_t, alpha_s)
        share = 1.0 if last else (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
        after: dict[tuple[int, ...], float] = {}
        for canvas, probability in laws.items():
            now = torch.tensor(canvas)
            possible_N = ((now == MASK) | (every == now)).all(1)
            factors_LV = marginals_of(joint.flatten() * possible_N / (joint.flatten() * possible_N).sum(), size)
            law_N = product_law(factors_LV, weight_N)
            ends = [(e, m) for e, m in zip(every.tolist(), law_N.tolist(), strict=True) if m > 0]
            for flips in itertools.product(
                [False, True], repeat=length
            ):  # which positions change between text and mask
                chance = 1.0
                for token, flip in zip(canvas, flips, strict=True):
                    p = share if token == MASK else sigma
                    chance *= p if flip else 1 - p
                if chance == 0:
                    continue
                for end, mass in ends:
                    new = tuple(
                        (e if token == MASK else MASK) if flip else token
                        for token, flip, e in zip(canvas, flips, end, strict=True)
                    )
                    after[new] = after.get(new, 0.0) + probability * chance * mass
        laws = after
    result = torch.zeros([size] * length, dtype=torch.float64)
    for canvas, probability in laws.items():
        result[canvas] += probability
    return result.flatten()


@pytest.mark.parametrize("pattern", [None, "(ab|c)*b?|a+"])
@pytest.mark.parametrize(
    ("corrector", "sigma_of"),
    [
        (RemdmCap(strength=0.3), lambda a_t, a_s: min(0.3, 1.0 if a_t == 0 else (1 - a_s) / a_t)),
        (RemdmRescale(strength=0.6), lambda a_t, a_s: 0.6 * min(1.0, 1.0 if a_t == 0 else (1 - a_s) / a_t)),
    ],
    ids=["cap", "rescale"],
)
def test_remdm_follows_its_exact_law(corrector: Corrector, sigma_of: Sigma, pattern: str | None) -> None:
    joint, steps = random_joint(4, 3, seed=13, sharpness=1.5, text=[0, 1, 2]), 4
    automaton = None if pattern is None else ByteAutomaton.from_regex(pattern).lift(PLAIN)
    weight = torch.ones(4**3).double() if automaton is None else accepted(automaton, 3).double()
    exact = remdm_law(joint, weight, steps, linear, sigma_of)
    assert torch.isclose(exact.sum(), torch.tensor(1.0).double())
    plan = plan_of(joint, corrector, ROWS, steps, automaton, Ancestral())
    assert chi_square(counts(sample(plan, empty(plan)), 4), exact) > 1e-3


@pytest.mark.parametrize("corrector", [RemdmCap(strength=0.3), RemdmRescale(strength=0.6), RemdmLoop(strength=0.4)])
def test_remdm_hides_and_writes_as_often_as_its_kernel_says(corrector: RemdmCap) -> None:
    plan = plan_of(random_joint(4, 3, seed=13, text=[0, 1, 2]), corrector, ROWS, steps=8, rule=Ancestral())
    hiding = 0
    for snapshot in run(plan, empty(plan)):
        at, was, now = snapshot.at, snapshot.before.tokens_BL == MASK, snapshot.after.tokens_BL == MASK
        wanted = {True: (at.share, ~now[was]), False: (0.0 if at.last else corrector.sigma(at), now[~was])}
        for p, seen in wanted.values():
            if len(seen):
                assert float(seen.double().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / len(seen)) ** 0.5 + 1e-9)
        hiding += bool(now[~was].any())
    assert hiding >= 3


def start_from(joint: Tensor, law_N: Tensor, rows: int, seed: int) -> Canvas:
    chosen = np.random.default_rng(seed).choice(len(law_N), size=rows, p=law_N.numpy() / float(law_N.sum()))
    return canvas_of(canvases(joint.shape[0], joint.dim())[torch.from_numpy(chosen)], PLAIN)


def swept(plan: Plan, canvas: Canvas) -> Tensor:
    assert plan.corrector is not None
    for snapshot in Revision(plan, plan.corrector, canvas).turns(canvas, NO_CARRY):
        canvas = snapshot.after
    return canvas.tokens_BL


@pytest.mark.parametrize("pattern", [None, "(ab|c)*b?|a+"])
def test_gibbs_one_at_a_time_leaves_the_law_of_an_exact_denoiser_as_it_is(pattern: str | None) -> None:
    joint = random_joint(4, 4, seed=17, text=[0, 1, 2])
    automaton = None if pattern is None else ByteAutomaton.from_regex(pattern).lift(PLAIN)
    law_N = joint.flatten() * (1.0 if automaton is None else accepted(automaton, 4))
    start = start_from(joint, law_N, ROWS, seed=0)
    after = swept(plan_of(joint, Gibbs(sweeps=2), ROWS, automaton=automaton), start)
    moved = float((after != start.tokens_BL).any(-1).double().mean())
    assert moved > 0.02
    assert chi_square(counts(after, 4), law_N / law_N.sum()) > 1e-3


def test_gibbs_kernel_is_the_model_conditional() -> None:
    """From one canvas, one turn: the average over which position is drawn of p(x_l | rest), by enumeration."""
    joint = random_joint(4, 3, seed=19, sharpness=1.0, text=[0, 1, 2])
    plan = plan_of(joint, Gibbs(), ROWS)
    canvas = canvas_of(torch.tensor([[0, 1, 2]]).expand(ROWS, 3), PLAIN)
    first = next(iter(Revision(plan, Gibbs(), canvas).turns(canvas, NO_CARRY))).after.tokens_BL
    kernel = torch.zeros(4, 4, 4, dtype=torch.float64)
    kernel[:, 1, 2] += joint[:, 1, 2] / joint[:, 1, 2].sum() / 3
    kernel[0, :, 2] += joint[0, :, 2] / joint[0, :, 2].sum() / 3
    kernel[0, 1, :] += joint[0, 1, :] / joint[0, 1, :].sum() / 3
    assert chi_square(counts(first, 4), kernel.flatten()) > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_gibbs_kernel_has_the_temperature_that_is_asked_for(temperature: float) -> None:
    joint = random_joint(4, 3, seed=19, sharpness=1.0, text=[0, 1, 2])
    whole = Gibbs(group=3, temperature=temperature)
    plan = plan_of(joint, whole, ROWS)
    canvas = canvas_of(torch.tensor([[0, 1, 2]]).expand(ROWS, 3), PLAIN)
    first = next(iter(Revision(plan, whole, canvas).turns(canvas, NO_CARRY))).after.tokens_BL
    kernel = torch.ones(1, dtype=torch.float64)
    for axes in ((1, 2), (0, 2), (0, 1)):
        warm = joint.sum(axes) ** (1 / temperature)
        kernel = torch.outer(kernel, warm / warm.sum()).flatten()
    assert chi_square(counts(first, 4), kernel) > 1e-3


def test_gibbs_sweeps_bring_a_text_that_was_written_at_once_to_the_joint() -> None:
    joint = random_joint(4, 3, seed=3, sharpness=1.0, text=[0, 1, 2])
    plain, corrected = (plan_of(joint, one, ROWS, steps=1) for one in (None, Gibbs(sweeps=8)))
    assert tv(counts(sample(plain, empty(plain)), 4), joint.flatten()) > 0.15
    assert tv(counts(sample(corrected, empty(corrected)), 4), joint.flatten()) < 0.03


@pytest.mark.parametrize("pattern", [None, "[ab]*c?[ab]*"])
def test_rows_that_repeat_an_earlier_one_are_drawn_again_until_they_do_not(pattern: str | None) -> None:
    joint = random_joint(4, 4, seed=17, text=[0, 1, 2])
    automaton = None if pattern is None else ByteAutomaton.from_regex(pattern).lift(PLAIN)
    law_N = joint.flatten() * (1.0 if automaton is None else accepted(automaton, 4))
    possible = int((law_N > 0).sum())
    rows = possible // 3
    start = canvas_of(canvases(4, 4)[law_N.argmax()].expand(rows, 4), PLAIN)
    once, more = (
        swept(plan_of(joint, one, rows, automaton=automaton), start) for one in (Gibbs(), Gibbs(distinct=200))
    )
    assert len(once.unique(dim=0)) < rows == len(more.unique(dim=0))
    assert torch.equal(more[0], once[0])
    assert bool((law_N.reshape(joint.shape)[tuple(more.T)] > 0).all())


def test_the_first_warmer_sweep_draws_at_half_as_much_again_of_the_temperature() -> None:
    joint = random_joint(4, 3, seed=19, sharpness=1.0, text=[0, 1, 2])
    warmer = Gibbs(sweeps=0, group=3, temperature=0.8, warmer=1)
    canvas = canvas_of(torch.tensor([[0, 1, 2]]).expand(ROWS, 3), PLAIN)
    (snapshot,) = Revision(plan_of(joint, warmer, ROWS), warmer, canvas).turns(canvas, NO_CARRY)
    tokens = snapshot.after.tokens_BL
    assert tokens[0].tolist() == [0, 1, 2]  # it repeats nothing
    kernel = torch.ones(1, dtype=torch.float64)
    for axes in ((1, 2), (0, 2), (0, 1)):
        warm = joint.sum(axes) ** (1 / 1.2)
        kernel = torch.outer(kernel, warm / warm.sum()).flatten()
    assert chi_square(counts(tokens[1:], 4), kernel) > 1e-3


def test_each_warmer_sweep_is_half_the_temperature_warmer_than_the_one_before() -> None:
    one = Gibbs(sweeps=1, group=2, temperature=0.8, distinct=1, warmer=3)
    for corrector in (one, Chain(then=one)):
        assert corrector.turns(3) == 10
        warmths = [corrector.warmth(turn, 3) for turn in range(10)]
        assert warmths == pytest.approx([0.8] * 4 + [1.2] * 2 + [1.6] * 2 + [2.0] * 2)


def test_warmer_sweeps_part_rows_that_likely_draws_leave_the_same_and_lose_no_text() -> None:
    joint = random_joint(4, 4, seed=17, sharpness=2.0, text=[0, 1, 2])
    start = canvas_of(canvases(4, 4)[joint.argmax()].expand(12, 4), PLAIN)
    cool, warm, enough, both = (
        swept(plan_of(joint, Gibbs(temperature=0.8, distinct=distinct, warmer=warmer), 12), start)
        for distinct, warmer in ((2, 0), (2, 12), (1500, 0), (1500, 12))
    )
    assert len(cool.unique(dim=0)) < len(warm.unique(dim=0)) == 12
    assert set(map(tuple, cool.tolist())) <= set(map(tuple, warm.tolist()))
    assert len(enough.unique(dim=0)) == 12 and torch.equal(enough, both)


def test_no_more_turns_are_taken_than_rows_repeat_each_other() -> None:
    joint = random_joint(4, 3, seed=19, text=[0, 1, 2])
    start = canvas_of(torch.tensor([[0, 1, 2], [2, 1, 0]]), PLAIN)
    for corrector in (Gibbs(sweeps=0, distinct=9, warmer=9), Chain(then=Gibbs(sweeps=0, distinct=9))):
        plan = plan_of(joint, corrector, 2)
        assert list(Revision(plan, corrector, start).turns(start, NO_CARRY)) == []
        assert corrector.ends(0, start)
    assert not Gibbs(sweeps=1, distinct=9).ends(2, start) and Gibbs(sweeps=1, distinct=9).ends(3, start)


def test_a_row_repeats_another_of_the_same_prompt_only() -> None:
    tokens = torch.tensor([[0, 1], [0, 1], [0, 1], [1, 1], [0, 1]])
    prompt = torch.tensor([[9, 2], [8, 2], [3, 2], [8, 2], [8, 7]])
    visible = torch.tensor([[False, True], [False, True], [True, True], [False, True], [True, True]])
    canvas = replace(canvas_of(tokens, PLAIN), prompt_BP=prompt, visible_BP=visible)
    assert repeats(canvas).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("corrector", [Rescore(count=1, groups=3), Informed(count=1, groups=3)])
def test_rescoring_makes_a_text_that_was_written_at_once_more_likely(corrector: Corrector) -> None:
    joint = random_joint(4, 3, seed=3, sharpness=1.0, text=[0, 1, 2])
    plans = [plan_of(joint, one, 2000, steps=1) for one in (None, corrector)]
    before, after = (float(joint[tuple(sample(plan, empty(plan)).T)].log().mean()) for plan in plans)
    assert after > before + 0.5


def test_p2_keeps_the_schedules_share() -> None:
    joint = random_joint(4, 4, seed=5, text=[0, 1, 2])
    plan = plan_of(joint, P2(), rows=8, steps=4)
    open_left = [int((s.after.tokens_BL == MASK).sum(-1).max()) for s in run(plan, empty(plan))]
    assert open_left == [3, 2, 1, 0]


def test_rescoring_finds_the_token_that_contradicts_the_rest() -> None:
    """All tokens agree in this law; of a text with one odd token that is the one to go, under both scores."""
    joint = torch.zeros(4, 4, 4, 4, dtype=torch.float64)
    every = canvases(3, 4).tolist()
    for text in every:
        joint[tuple(text)] = 10.0 ** max(text.count(token) for token in range(3))
    canvas = canvas_of(torch.tensor([[0, 0, 1, 0], [2, 1, 1, 1]]), PLAIN)
    for corrector in (Rescore(count=1, groups=4), Informed(count=1, groups=4)):
        plan = plan_of(joint, corrector, rows=2)
        snapshot = next(iter(Revision(plan, corrector, canvas).turns(canvas, NO_CARRY)))
        assert (snapshot.before.tokens_BL == MASK).nonzero().tolist() == [[0, 2], [1, 0]]
        assert snapshot.calls == 5


def test_remdm_conf_hides_the_unsure_first_and_spends_sigma_max() -> None:
    tokens = torch.zeros(ROWS, 3, dtype=torch.int64)
    canvas = canvas_of(tokens, PLAIN)
    chance = torch.tensor([[0.1, 0.9, 0.9]], dtype=torch.float64).expand(ROWS, 3)
    at = Transition.of(5, 8, linear)
    written = Written(
        at=at,
        before=canvas,
        after=canvas,
        eligible_BL=tokens == 0,
        open_BL=tokens != 0,
        chance_BL=chance,
        randomness=Randomness(row_seeds(0, ROWS, CPU)),
        look=lambda hidden: (_ for _ in ()).throw(AssertionError("no extra call")),
    )
    observed = RemdmConf().select(written).double().mean(0)
    expected = torch.softmax(-chance[0], -1) * sigma_max(at)
    assert torch.allclose(observed, expected, atol=0.015)
    assert observed[0] > observed[1]


def test_the_loop_holds_its_noise_level_and_is_the_papers_under_the_linear_schedule() -> None:
    corrector = RemdmLoop()
    at = [corrector.transition(Transition.of(i, 100, linear), linear) for i in range(100)]
    assert at[0].alpha_t == pytest.approx(0.0) and at[-1].alpha_s == pytest.approx(1.0)
    held = [one for one in at if corrector.sigma(one) > 0]
    assert len(held) == 49 or len(held) == 50
    assert all(one.alpha_t == pytest.approx(0.9) and corrector.sigma(one) == 0.02 for one in held)
    assert all(one.share == pytest.approx(0.02 * 0.9 / 0.1) for one in held)
    assert all(later.alpha_t >= earlier.alpha_t for earlier, later in itertools.pairwise(at))


def test_no_corrector_draws_what_was_always_drawn() -> None:
    joint = random_joint(4, 3, seed=1, text=[0, 1, 2])
    drawn = draw_many(TabularDenoiser(joint, PLAIN), Confidence(), steps=3, rows=2000)
    assert chi_square(counts(drawn, 4), joint.flatten()) > 1e-3
