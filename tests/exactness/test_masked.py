"""The masked process, through the real loop, against exact laws."""

import itertools
import math

import pytest
import torch
from oracles import (
    Pattern,
    Pick,
    accepted,
    canvas_of,
    canvases,
    chi_square,
    counts,
    draw_many,
    marginals_of,
    masked_law,
    product_joint,
    product_law,
    random_joint,
    tv,
)
from torch import Tensor

from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import ByteAutomaton
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.processes import MaskedProcess
from guided_dlm.processes.schedules import Schedule, cosine, linear, log_linear
from guided_dlm.randomness import Randomness
from guided_dlm.samplers.commit import (
    Ancestral,
    CommitRule,
    Confidence,
    EntropyBound,
    FirstHitting,
    LeftToRight,
    LLaDA,
    Random,
)

ROWS = 20_000
PLAIN = Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=3)
TAILED = Vocabulary.from_tokens([b"a", b"b", b"", b"", b""], eos_id=2, pad_id=3, mask_id=4)
JOINED = Vocabulary.from_tokens([b"a", b"b", b"", b""], eos_id=2, mask_id=3)  # padding is the end of text
EXACT_RULES = [
    Confidence(),
    Confidence(tail_apart=False),
    Random(),
    FirstHitting(),
    LeftToRight(),
    EntropyBound(bound=0.0),
]


def tailed_joint(vocabulary: Vocabulary, length: int, seed: int) -> Tensor:
    """A correlated joint over texts of every length, each ended and padded."""
    joint = random_joint(len(vocabulary), length, seed)
    well_formed = accepted(ByteAutomaton.from_regex("[ab]*").lift(vocabulary), length).reshape(joint.shape)
    return joint * well_formed / (joint * well_formed).sum()


def name(value: object) -> str | None:
    return type(value).__name__ + (str(value.tail_apart) if isinstance(value, Confidence) else "")


@pytest.mark.parametrize("rule", EXACT_RULES, ids=name)
def test_one_token_per_step_draws_from_the_joint(rule: CommitRule) -> None:
    joint = random_joint(4, 3, seed=1, text=[0, 1, 2])
    drawn = draw_many(TabularDenoiser(joint, PLAIN), rule, steps=3, rows=ROWS)
    assert chi_square(counts(drawn, 4), joint.flatten()) > 1e-3


@pytest.mark.parametrize("vocabulary", [TAILED, JOINED], ids=["eos and pad", "eos is pad"])
@pytest.mark.parametrize("rule", EXACT_RULES, ids=name)
def test_one_token_per_step_draws_from_a_joint_with_padded_tails(rule: CommitRule, vocabulary: Vocabulary) -> None:
    joint = tailed_joint(vocabulary, 4, seed=2)
    drawn = draw_many(TabularDenoiser(joint, vocabulary), rule, steps=4, rows=ROWS)
    assert chi_square(counts(drawn, len(vocabulary)), joint.flatten()) > 1e-3


def test_ranking_by_the_sampled_token_is_far_from_the_joint() -> None:
    """LLaDA's rule looks at the sample, so it prefers likely tokens (FORMULAS B); the default rule is exact."""
    joint = random_joint(4, 3, seed=3, text=[0, 1, 2])
    denoiser = TabularDenoiser(joint, PLAIN)
    distance = {
        rule: tv(counts(draw_many(denoiser, rule, steps=3, rows=ROWS), 4), joint.flatten())
        for rule in (LLaDA(), Confidence())
    }
    assert distance[LLaDA()] > 0.15
    assert distance[Confidence()] < 0.03


def test_ancestral_sampling_nears_the_joint_as_steps_grow() -> None:
    joint = random_joint(4, 3, seed=3, text=[0, 1, 2])
    denoiser = TabularDenoiser(joint, PLAIN)
    few, many = (
        tv(counts(draw_many(denoiser, Ancestral(), steps=steps, rows=ROWS), 4), joint.flatten()) for steps in (1, 64)
    )
    assert few > 0.2
    assert many < 0.04


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("rule", [*EXACT_RULES, Ancestral()], ids=name)
def test_a_hard_constraint_on_independent_positions_is_exact_in_any_number_of_steps(
    rule: CommitRule, steps: int
) -> None:
    joint = product_joint(3, 4, seed=5)
    padded = torch.zeros(4, 4, 4, 4, dtype=torch.float64)
    padded[:3, :3, :3, :3] = joint
    automaton = ByteAutomaton.from_regex("(ab|c)*b?|a+").lift(PLAIN)
    drawn = draw_many(TabularDenoiser(padded, PLAIN), rule, steps=steps, rows=ROWS, automaton=automaton)
    assert chi_square(counts(drawn, 4), padded.flatten() * accepted(automaton, 4)) > 1e-3


def test_one_constrained_step_draws_from_factors_times_automaton() -> None:
    joint = tailed_joint(TAILED, 4, seed=7)
    automaton = ByteAutomaton.from_regex("(ab)*|b.*").lift(TAILED)
    law = product_law(marginals_of(joint.flatten(), 5), accepted(automaton, 4).double())
    for rule in (Confidence(), LLaDA()):
        drawn = draw_many(TabularDenoiser(joint, TAILED), rule, steps=1, rows=ROWS, automaton=automaton)
        assert chi_square(counts(drawn, 5), law) > 1e-3


def rank(scores: dict[int, float], count: int) -> tuple[int, ...]:
    return tuple(sorted(scores, key=lambda i: -scores[i])[:count])


def rounded(x: float) -> int:
    return max(1, math.floor(x + 0.5))


def pick_confidence(q_LV: Tensor, hidden: list[int], share: float, last: bool) -> list[tuple[tuple[int, ...], float]]:
    if last:
        return [(tuple(hidden), 1.0)]
    return [(rank({i: float(q_LV[i].max()) for i in hidden}, rounded(share * len(hidden))), 1.0)]


def pick_tail_apart(q_LV: Tensor, hidden: list[int], share: float, last: bool) -> list[tuple[tuple[int, ...], float]]:
    pad = 3
    if last:
        return [(tuple(hidden), 1.0)]
    text = {i: float(torch.cat([q_LV[i, :pad], q_LV[i, pad + 1 :]]).max()) for i in hidden}
    return [(rank(text, rounded(share * sum(1 - float(q_LV[i, pad]) for i in hidden))), 1.0)]


def pick_random(q_LV: Tensor, hidden: list[int], share: float, last: bool) -> list[tuple[tuple[int, ...], float]]:
    sets = list(itertools.combinations(hidden, rounded(share * len(hidden))))
    return [(chosen, 1 / len(sets)) for chosen in sets]


def pick_one(q_LV: Tensor, hidden: list[int], share: float, last: bool) -> list[tuple[tuple[int, ...], float]]:
    return [(tuple(hidden), 1.0)] if last else [((i,), 1 / len(hidden)) for i in hidden]


def pick_coins(q_LV: Tensor, hidden: list[int], share: float, last: bool) -> list[tuple[tuple[int, ...], float]]:
    sets = [s for n in range(len(hidden) + 1) for s in itertools.combinations(hidden, n)]
    return [(s, share ** len(s) * (1 - share) ** (len(hidden) - len(s))) for s in sets]


def pick_low_entropy(q_LV: Tensor, hidden: list[int], share: float, last: bool) -> list[tuple[tuple[int, ...], float]]:
    if last:
        return [(tuple(hidden), 1.0)]
    entropy = {i: float(-(q_LV[i] * q_LV[i].clamp_min(1e-300).log()).sum()) for i in hidden}
    order = sorted(hidden, key=lambda i: entropy[i])
    count = max(n for n in range(1, len(order) + 1) if sum(entropy[i] for i in order[: n - 1]) <= 0.9)
    return [(tuple(order[:count]), 1.0)]


PICKS: list[tuple[CommitRule, Pick]] = [
    (Confidence(tail_apart=False), pick_confidence),
    (Random(), pick_random),
    (FirstHitting(), pick_one),
    (Ancestral(), pick_coins),
    (EntropyBound(bound=0.9), pick_low_entropy),
]


@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize(("rule", "pick"), PICKS, ids=name)
@pytest.mark.parametrize("pattern", [None, "(ab|c)*b?|a+"])
def test_the_loop_follows_the_transition_kernel_of_its_sampler(
    pattern: str | None, rule: CommitRule, pick: Pick, steps: int, schedule: Schedule
) -> None:
    joint = random_joint(4, 4, seed=11, sharpness=1.5, text=[0, 1, 2])
    automaton = None if pattern is None else ByteAutomaton.from_regex(pattern).lift(PLAIN)
    weight = torch.ones(4**4).double() if automaton is None else accepted(automaton, 4).double()
    exact = masked_law(joint, 3, weight, steps, schedule, pick)
    assert torch.isclose(exact.sum(), torch.tensor(1.0).double())
    denoiser = TabularDenoiser(joint, PLAIN, MaskedProcess(mask_id=3, schedule=schedule))
    drawn = draw_many(denoiser, rule, steps=steps, rows=ROWS, automaton=automaton)
    assert chi_square(counts(drawn, 4), exact) > 1e-3


@pytest.mark.parametrize(("steps", "seed"), [(2, 21), (3, 23)])  # ranking padding too is 0.33 and 0.12 away (TV)
def test_the_default_rule_follows_its_kernel_where_texts_end(steps: int, seed: int) -> None:
    joint = tailed_joint(TAILED, 4, seed)
    automaton = ByteAutomaton.from_regex("(ab)*a?|b.*").lift(TAILED)
    # The joint is zero on canvases that are not well-formed, so the automaton cannot lead where factors are undefined.
    exact = masked_law(joint, 4, accepted(automaton, 4).double(), steps, linear, pick_tail_apart)
    out = GuidedPipeline(TabularDenoiser(joint, TAILED))(
        constraint=Pattern("(ab)*a?|b.*"), num_samples=ROWS, steps=steps, batch_size=ROWS, seed=1
    )
    assert bool(out.satisfied.all())
    assert chi_square(counts(out.tokens, 5), exact) > 1e-3


def test_a_constraint_outside_the_support_of_the_joint_still_holds() -> None:
    joint = torch.zeros(4, 4, 4, dtype=torch.float64)
    joint[0, 0, 0] = joint[1, 1, 1] = 0.5
    for steps in (1, 2, 3):
        out = GuidedPipeline(TabularDenoiser(joint, PLAIN))(
            constraint=Pattern("c.*b.*"), num_samples=50, steps=steps, seed=steps
        )
        assert bool(out.satisfied.all())


def test_writing_several_tokens_at_once_never_writes_the_mask() -> None:
    """Two positions drawn apart may be impossible together; what follows them still has to be text."""
    joint = torch.zeros(4, 4, 4, dtype=torch.float64)
    joint[0, 0, 0] = joint[1, 1, 1] = 0.5
    drawn = draw_many(TabularDenoiser(joint, PLAIN), Random(), steps=2, rows=200)
    assert int(drawn.max()) < 3


@pytest.mark.parametrize("schedule", [linear, cosine, log_linear])
def test_schedules_fall_from_clean_to_noise(schedule: Schedule) -> None:
    values = [schedule(i / 100) for i in range(101)]
    assert values[0] == pytest.approx(1.0, abs=1e-9)
    assert values[-1] == pytest.approx(1e-3 if schedule is log_linear else 0.0, abs=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


def test_the_schedules_have_their_published_midpoints() -> None:
    assert linear(0.5) == 0.5
    assert cosine(0.5) == pytest.approx(1 - math.sqrt(0.5))
    assert log_linear(0.5) == pytest.approx(0.5005)


@pytest.mark.parametrize("schedule", [linear, cosine, log_linear])
@pytest.mark.parametrize("steps", [1, 3, 5, 8, 20])
@pytest.mark.parametrize("rule", [Confidence(tail_apart=False), Random(), LLaDA()], ids=name)
def test_every_step_writes_the_schedules_share_and_at_least_one(
    rule: CommitRule, steps: int, schedule: Schedule
) -> None:
    length, size = 8, 3
    joint = torch.ones([size] * length, dtype=torch.float64)
    joint = joint * (canvases(size, length) < 2).all(1).reshape(joint.shape)
    vocabulary = Vocabulary.from_tokens([b"a", b"b", b""], eos_id=None, mask_id=2)
    denoiser = TabularDenoiser(joint, vocabulary, MaskedProcess(mask_id=2, schedule=schedule))
    open_now, written = length, []
    for index in range(steps):
        if open_now == 0:
            break
        alpha_t, alpha_s = schedule(1 - index / steps), schedule(1 - (index + 1) / steps)
        share = 1.0 if index == steps - 1 else (alpha_s - alpha_t) / (1 - alpha_t)
        written.append(min(open_now, max(1, math.floor(share * open_now + 0.5))))
        open_now -= written[-1]
    assert open_now == 0
    observed: list[list[int]] = []
    out = GuidedPipeline(denoiser)(
        num_samples=2,
        steps=steps,
        sampler=rule,
        callback=lambda s: observed.append((s.after.tokens_BL != s.before.tokens_BL).sum(1).tolist()),
    )
    assert observed == [[n, n] for n in written]
    assert out.denoiser_calls == len(written)


def test_a_canvas_that_is_full_stops_the_run() -> None:
    joint = random_joint(4, 3, seed=0, text=[0, 1, 2])
    for rule in (Confidence(), Random(), EntropyBound(bound=100.0)):
        out = GuidedPipeline(TabularDenoiser(joint, PLAIN))(num_samples=4, steps=50, sampler=rule)
        assert out.denoiser_calls == (1 if isinstance(rule, EntropyBound) else 3)
        assert int(out.tokens.max()) < 3


def test_given_tokens_are_never_rewritten() -> None:
    joint = random_joint(4, 3, seed=0, text=[0, 1, 2])
    process = MaskedProcess(mask_id=3)
    canvas = canvas_of(torch.zeros(1, 3, dtype=torch.int64), PLAIN).fix(torch.tensor([[-1, 2, -1]]))
    started = process.start(canvas, Randomness(torch.zeros(1, dtype=torch.int64)))
    assert started.tokens_BL.tolist() == [[3, 2, 3]]
    everywhere = torch.ones(1, 3, dtype=torch.bool)
    assert started.write(torch.zeros(1, 3, dtype=torch.int64), everywhere).tokens_BL.tolist() == [[0, 2, 0]]
    logits, _ = TabularDenoiser(joint, PLAIN)(started, 1.0)
    conditional = joint[:, 2, :].sum(1) / joint[:, 2, :].sum()
    assert torch.allclose(logits[0, 0].exp(), conditional)
