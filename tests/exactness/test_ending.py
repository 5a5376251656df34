"""Where the text ends is drawn first: from the right law, into canvases that stay well-formed."""

import math
from dataclasses import replace

import pytest
import torch
from oracles import CPU, accepted, canvas_of, canvases, chi_square, counts, draw_many, marginals_of, product_law
from torch import Tensor

from guided_dlm import Guide, Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.guidance import Truncation
from guided_dlm.posterior import Posterior
from guided_dlm.processes import Prediction
from guided_dlm.randomness import Purpose, Randomness, row_seeds
from guided_dlm.samplers import CommitRule, Plan, Snapshot, sample
from guided_dlm.samplers.commit import Ancestral, Confidence, EntropyBound, LLaDA
from guided_dlm.samplers.ending import Ending
from guided_dlm.samplers.loop import run

SIZE, LENGTH, END, PADDING, MASK = 5, 4, 2, 3, 4
VOCABULARY = Vocabulary.from_tokens([b"a", b"b", b"", b"", b""], eos_id=END, pad_id=PADDING, mask_id=MASK)
ANY_TEXT = ByteAutomaton.from_regex("[ab]*").lift(VOCABULARY)
HARD = ByteAutomaton.from_regex("(ab)*|b.*").lift(VOCABULARY)


class ClosedTail(TabularDenoiser):
    """An exact model that says of itself that its canvases are text, end, padding."""

    closed_tail = True


def tailed_joint(seed: int) -> Tensor:
    """A correlated law over texts of 0 to 4 tokens, each ended and padded."""
    generator = torch.Generator().manual_seed(seed)
    mass = (1.5 * torch.randn([SIZE] * LENGTH, generator=generator, dtype=torch.float64)).exp()
    mass = mass * accepted(ANY_TEXT, LENGTH).reshape(mass.shape)
    return mass / mass.sum()


def end_places() -> Tensor:
    """Where each canvas of the enumeration first ends, `[V ** L]`; 4 where it does not."""
    ends = canvases(SIZE, LENGTH) == END
    return torch.where(ends.any(-1), ends.long().argmax(-1), LENGTH)


def place_law(law_N: Tensor) -> Tensor:
    return torch.zeros(LENGTH + 1, dtype=torch.float64).index_add(0, end_places(), law_N)


def one_step(
    automaton: TokenAutomaton | None, canvas: Canvas, rule: CommitRule | None = None, temperature: float = 1.0
) -> Snapshot:
    plan = Plan(
        denoiser=ClosedTail(tailed_joint(3), VOCABULARY),
        guide=Guide(),
        automata=automaton,
        rule=rule or Confidence(),
        randomness=Randomness(row_seeds(0, len(canvas.tokens_BL), CPU)),
        steps=4,
        truncation=Truncation(temperature=temperature),
    )
    return next(run(plan, canvas))


def empty(rows: int) -> Canvas:
    return Canvas.from_prompts([None] * rows, VOCABULARY, LENGTH, CPU)


def places(tokens_BL: Tensor) -> Tensor:
    ends = tokens_BL == END
    return torch.where(ends.any(-1), ends.long().argmax(-1), LENGTH)


@pytest.mark.parametrize("rule", [Confidence(), EntropyBound(bound=0.0)], ids=["confidence", "entropy_bound"])
def test_to_draw_the_end_first_and_then_one_token_per_step_draws_from_the_joint(rule: CommitRule) -> None:
    joint = tailed_joint(1)
    drawn = draw_many(ClosedTail(joint, VOCABULARY), rule, steps=2 * LENGTH, rows=20_000)
    assert chi_square(counts(drawn, SIZE), joint.flatten()) > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_any_text_at_all_has_probability_one_and_the_end_its_own_marginals(seed: int) -> None:
    marginals_LV = marginals_of(tailed_joint(seed).flatten(), SIZE)
    logits_BLV, ending = marginals_LV.log()[None], Ending(END, PADDING)
    nothing_BL = torch.full((1, LENGTH), -1)
    law = Posterior(ending.sequential(logits_BLV, torch.tensor([True])), ANY_TEXT, known_BL=nothing_BL)
    torch.testing.assert_close(law.probability(END)[0].double(), marginals_LV[:, END], atol=1e-6, rtol=0)
    assert float(law.log_z) + LENGTH * math.log(2) == pytest.approx(0, abs=1e-9)
    crowded = Posterior(logits_BLV, ANY_TEXT, known_BL=nothing_BL).probability(END)[0]
    assert (crowded - marginals_LV[:, END]).abs().max() > 0.02  # what the factors as they are would do to lengths


def test_a_constrained_law_is_text_by_position_given_that_the_text_has_come_so_far() -> None:
    """Enumeration, written from the definition: hazards of the end, and text tokens in proportion."""
    marginals_LV = marginals_of(tailed_joint(3).flatten(), SIZE)
    going_L1 = 1 - marginals_LV[:, PADDING, None]
    hazards_LV = torch.where(torch.arange(SIZE) == PADDING, torch.ones(LENGTH, 1).double(), marginals_LV / going_L1)
    law_N = product_law(hazards_LV, accepted(HARD, LENGTH).double())
    prediction = one_step(HARD, empty(1)).prediction
    torch.testing.assert_close(prediction.law.marginals()[0].double(), marginals_of(law_N, SIZE), atol=1e-6, rtol=0)
    index = canvases(SIZE, LENGTH)
    mass = hazards_LV[torch.arange(LENGTH), index].prod(1) * accepted(HARD, LENGTH)
    assert float(prediction.log_z) == pytest.approx(math.log(float(mass.sum())), abs=1e-6)


@pytest.mark.parametrize("automaton", [None, HARD], ids=["unguided", "constrained"])
def test_the_first_step_draws_the_end_from_its_marginals_and_writes_the_tail(automaton: TokenAutomaton | None) -> None:
    snapshot = one_step(automaton, empty(20_000))
    after_BL = snapshot.after.tokens_BL
    place_B = places(after_BL)
    end_L = snapshot.prediction.law.probability(END)[0].double()
    law = torch.cat([end_L, (1 - end_L.sum())[None]])
    if automaton is None:
        torch.testing.assert_close(law, place_law(tailed_joint(3).flatten()), atol=1e-6, rtol=0)
    assert chi_square(torch.bincount(place_B, minlength=LENGTH + 1).numpy(), law) > 1e-3
    position, ended_B = torch.arange(LENGTH), place_B < LENGTH
    expected = torch.where(position < place_B[:, None], MASK, torch.where(position == place_B[:, None], END, PADDING))
    assert torch.equal(after_BL[ended_B], expected[ended_B])
    full_BL = after_BL[~ended_B]
    assert (full_BL[:, :-1] == MASK).all()
    last = snapshot.prediction.law.marginals()[0, -1].double()[:2]
    assert chi_square(torch.bincount(full_BL[:, -1], minlength=2).numpy(), last) > 1e-3


def test_at_temperature_zero_the_end_goes_to_its_best_place() -> None:
    snapshot = one_step(HARD, empty(2), temperature=0.0)
    end_L = snapshot.prediction.law.probability(END)[0]
    best = int(torch.cat([end_L, 1 - end_L.sum(0, keepdim=True)]).argmax())
    assert places(snapshot.after.tokens_BL).tolist() == [best, best]


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("rule", [Confidence(), EntropyBound(), Ancestral()], ids=lambda rule: type(rule).__name__)
def test_every_canvas_is_well_formed_and_accepted(rule: CommitRule, steps: int) -> None:
    drawn = draw_many(ClosedTail(tailed_joint(5), VOCABULARY), rule, steps, rows=300, automaton=HARD)
    assert all(HARD.accepts(canvas) for canvas in drawn.tolist())


def test_one_step_is_one_joint_draw() -> None:
    law = one_step(HARD, empty(1)).prediction.law
    marginals = law.marginals()[0].double()
    drawn = draw_many(ClosedTail(tailed_joint(3), VOCABULARY), Confidence(), steps=1, rows=20_000, automaton=HARD)
    found = torch.nn.functional.one_hot(drawn, SIZE).double().mean(0)
    assert (found - marginals).abs().max() < 0.015


def test_rules_that_draw_in_random_order_leave_the_end_to_its_turn() -> None:
    snapshot = one_step(None, empty(200), rule=Ancestral())
    assert (places(snapshot.after.tokens_BL) == LENGTH).any()
    assert not (snapshot.after.tokens_BL == MASK).all(-1).all()


@pytest.mark.parametrize("automaton", [None, ANY_TEXT], ids=["unguided", "constrained"])
def test_given_tokens_are_respected(automaton: TokenAutomaton | None) -> None:
    given = torch.tensor([[-1, -1, 1, -1], [-1, END, -1, -1], [0, -1, -1, -1]]).repeat(100, 1)
    after_BL = one_step(automaton, empty(300).fix(given)).after.tokens_BL.view(100, 3, LENGTH)
    assert not (after_BL[:, 0, :3] == END).any()
    assert (after_BL[:, 0, 2] == 1).all()
    assert (after_BL[:, 1] == torch.tensor([MASK, END, PADDING, PADDING])).all()
    assert not (after_BL[:, 2, 0] == END).any()
    assert (after_BL[:, 2] == END).any()


def test_only_models_that_tell_end_from_padding_have_an_ending() -> None:
    joint = tailed_joint(0)
    assert Ending.of(ClosedTail(joint, VOCABULARY)) == Ending(END, PADDING)
    assert Ending.of(TabularDenoiser(joint, VOCABULARY)) is None
    assert Ending.of(ClosedTail(joint, replace(VOCABULARY, pad_id=END))) is None
    assert Ending.of(ClosedTail(joint, replace(VOCABULARY, eos_id=None))) is None


def test_the_tail_is_closed_only_after_a_written_end() -> None:
    tokens = torch.tensor([[0, END, MASK, MASK], [MASK, 1, MASK, MASK], [MASK, MASK, MASK, END]])
    closed = canvas_of(tokens, VOCABULARY).close_tail(END, PADDING, tokens == MASK)
    expected = torch.tensor([[0, END, PADDING, PADDING], [MASK, 1, MASK, MASK], [MASK, MASK, MASK, END]])
    assert torch.equal(closed.tokens_BL, expected)


def test_log_z_of_a_row_does_not_depend_on_whether_others_have_an_end() -> None:
    given = torch.tensor([[-1, -1, END, PADDING], [-1, -1, -1, -1]])
    together = one_step(HARD, empty(2).fix(given)).prediction.log_z
    alone = [float(one_step(HARD, empty(1).fix(row[None])).prediction.log_z) for row in given]
    assert together.tolist() == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("rule", [Confidence(), Ancestral(), LLaDA()], ids=lambda rule: type(rule).__name__)
def test_at_temperature_zero_a_constraint_that_forbids_nothing_does_not_shorten(rule: CommitRule, steps: int) -> None:
    """The best canvas of the sequential law would be the shortest text."""
    joint = tailed_joint(3)
    found = greedy(joint, ANY_TEXT, rule, steps)
    marginals_LV = marginals_of(joint.flatten(), SIZE)
    full = float(1 - marginals_LV[:, END].sum())
    best = int(torch.tensor([*marginals_LV[:, END].tolist(), full]).argmax())
    assert places(found).tolist() == [best]


@pytest.mark.parametrize("steps", [1, 3, 6])
@pytest.mark.parametrize("rule", [Confidence(), Ancestral(), LLaDA()], ids=lambda rule: type(rule).__name__)
def test_at_temperature_zero_every_canvas_is_accepted(rule: CommitRule, steps: int) -> None:
    for seed in range(8):
        (canvas,) = greedy(tailed_joint(seed), HARD, rule, steps).tolist()
        assert HARD.accepts(canvas)


def greedy(joint: Tensor, automaton: TokenAutomaton, rule: CommitRule, steps: int) -> Tensor:
    plan = Plan(
        denoiser=ClosedTail(joint, VOCABULARY),
        guide=Guide(),
        automata=automaton,
        rule=rule,
        randomness=Randomness(row_seeds(0, 1, CPU)),
        steps=steps,
        truncation=Truncation(temperature=0.0),
    )
    return sample(plan, empty(1))


class Extreme(Randomness):
    """Draws the largest uniform there is."""

    def uniform(self, step: int, purpose: Purpose, width: int) -> Tensor:
        return torch.full((len(self.seeds_B), width), 1.0 - 2.0**-53, dtype=torch.float64)


def test_the_extreme_draw_never_leaves_the_language() -> None:
    """No probability is taken as a difference, whose rounding would look like a text that fills the canvas."""
    automaton = ByteAutomaton.from_regex("[ab]{2}").lift(VOCABULARY)
    for scale in (1.0, 3.0, 10.0):
        logits_BLV = scale * torch.randn(64, LENGTH, SIZE, generator=torch.Generator().manual_seed(1))
        logits_BLV[..., MASK] = -torch.inf
        law = Posterior(Ending(END, PADDING).sequential(logits_BLV, torch.ones(64, dtype=torch.bool)), automaton)
        prediction = Prediction(law=law, randomness=Extreme(torch.zeros(64, dtype=torch.int64)), step=0)
        start = empty(64).write(torch.full((64, LENGTH), MASK), torch.ones(64, LENGTH, dtype=torch.bool))
        after = Ending(END, PADDING).write(start, prediction)
        assert places(after.tokens_BL).tolist() == [2] * 64
