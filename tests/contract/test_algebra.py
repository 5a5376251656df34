"""The algebra: what may be joined, what may not and why, and the laws of Boolean logic on texts and on automata."""

from functools import reduce
from operator import invert, or_
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from wishes import LEAVES, Prefer

from constraints import Choice, Energy, Length, Regex, Words
from guided_dlm import CompileContext, Constraint, Guide, Step
from guided_dlm.algebra import All, AnyOf, During, Not, Scaled, Scheduled
from guided_dlm.errors import GuidedError, GuideFailed, InvalidRequest, NotSerializable
from guided_dlm.feasibility import fits
from guided_dlm.testing import byte_vocabulary

CONTEXT = CompileContext(vocabulary=byte_vocabulary(), length=4)
A, B, C = Regex("a.*"), Regex(".*b"), Length(words=1)
BIAS, ENERGY, REWARD = (Prefer(word="a", channel=channel) for channel in ("bias", "energy", "reward"))
REGULAR = LEAVES.filter(lambda wish: getattr(wish, "tokens", None) is None)
TEXTS = st.lists(st.text("ab .'\u00e9\N{GRINNING FACE}", max_size=5), min_size=3, max_size=10)


@pytest.mark.parametrize(
    "operands",
    [(A, ENERGY), (BIAS, A), (A, B, ENERGY), (A, B & ENERGY), (A & ENERGY, ENERGY), (ENERGY, A & BIAS)],
    ids=repr,
)
def test_a_guarantee_or_a_preference_is_neither(operands: tuple[Constraint, ...]) -> None:
    with pytest.raises(TypeError, match=r"mixes a guarantee with a preference"):
        reduce(or_, operands)


@pytest.mark.parametrize("soft", [ENERGY, A & ENERGY, 2.0 * BIAS, ENERGY | ENERGY, BIAS.during(0, 1)], ids=repr)
def test_a_preference_has_no_complement(soft: Constraint) -> None:
    with pytest.raises(TypeError, match="no opposite"):
        invert(soft)


@pytest.mark.parametrize("hard", [A, A & B, A | B, ~A, A & ENERGY, (A | B) & ENERGY], ids=repr)
def test_what_is_hard_has_no_strength_and_no_window(hard: Constraint) -> None:
    with pytest.raises(TypeError, match="has no strength"):
        2.0 * hard
    with pytest.raises(TypeError, match="at every step"):
        hard.during(0.0, 0.5)
    with pytest.raises(TypeError, match=r"scheduled\(\.\.\.\): .* at every step"):
        hard.scheduled((0.0, 1.0))


@pytest.mark.parametrize("factor", ["2", None, float("nan"), float("inf"), [2.0]])
def test_a_factor_is_a_finite_number(factor: object) -> None:
    with pytest.raises(TypeError, match="finite number"):
        Scaled(factor, ENERGY)  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "stop"), [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0, 1.1), (float("nan"), 1)])
def test_a_window_lies_within_the_run(start: float, stop: float) -> None:
    with pytest.raises(InvalidRequest, match="0 <= start < stop <= 1"):
        ENERGY.during(start, stop)


@pytest.mark.parametrize("schedule", [1.0, "ab", (1.0,), (0, 1, 2), (0, float("nan")), (True, 1.0), ("0", 1.0), None])
def test_a_schedule_is_a_pair_of_numbers_or_a_function(schedule: Any) -> None:
    with pytest.raises(InvalidRequest, match="pair of finite numbers"):
        ENERGY.scheduled(schedule)


@pytest.mark.parametrize("stranger", [None, "Length(words=3)", 3, {"constraint": "length"}])
def test_only_constraints_are_joined(stranger: object) -> None:
    for join in (lambda: A & stranger, lambda: A | stranger, lambda: All(A, stranger), lambda: Not(stranger)):  # type: ignore[operator, arg-type]
        with pytest.raises(TypeError, match="joins constraints"):
            join()
    with pytest.raises(TypeError):
        stranger & A  # type: ignore[operator]


def test_nothing_cannot_be_chosen_from() -> None:
    with pytest.raises(InvalidRequest, match="can never hold"):
        AnyOf()


def test_nested_operators_flatten() -> None:
    assert A & B & C == All(A, B, C) == A & (B & C)
    assert A | B | C == AnyOf(A, B, C) == A | (B | C)
    assert (A & B) | C != A & (B | C)
    assert list((A & (B | ~C)).leaves()) == [A, B, C]


def test_hardness_of_a_tree() -> None:
    for wish in (A & B, A | B, ~A, ~(A & (B | C))):
        assert wish.hard
    for wish in (A & ENERGY, ENERGY | ENERGY, 2.0 * BIAS, REWARD.during(0, 1), REWARD.scheduled((0, 1)), BIAS & ENERGY):
        assert not wish.hard


@settings(max_examples=6)
@given(REGULAR, REGULAR, TEXTS)
def test_boolean_laws_hold_for_check_and_automata(a: Constraint, b: Constraint, texts: list[str]) -> None:
    for text in texts:
        assert (a & b).check(text) is (a.check(text) and b.check(text))
        assert (a | b).check(text) is (a.check(text) or b.check(text))
        assert (~a).check(text) is (not a.check(text))
        assert (~(a & b)).check(text) is (~a | ~b).check(text)
        assert (~~a).check(text) is a.check(text)
    assert (~(a & b)).to_automaton() == (~a | ~b).to_automaton()
    assert (~(a | b)).to_automaton() == (~a & ~b).to_automaton()
    assert (~~a).to_automaton() == a.to_automaton()
    assert (a & ~a).to_automaton().is_empty()
    assert (~(a | ~a)).to_automaton().is_empty()
    for text in texts:
        assert (a & b).to_automaton().accepts(text.encode()) is (a & b).check(text)
        assert (a | ~b).to_automaton().accepts(text.encode()) is (a | ~b).check(text)


@settings(max_examples=6)
@given(LEAVES, LEAVES)
def test_boolean_laws_hold_for_token_automata(a: Constraint, b: Constraint) -> None:
    def automaton(wish: Constraint) -> Any:
        try:
            return wish.compile(CONTEXT).automaton
        except GuidedError:
            return None

    def same(left: Any, right: Any) -> bool:
        """Automata of a conjunction tell canvases of the context's length only."""
        return not fits(left - right, CONTEXT.length) and not fits(right - left, CONTEXT.length)

    assert automaton(~~a) in (automaton(a), None)
    if all(automaton(wish) is not None for wish in (~(a & b), ~a, ~b)):
        assert same(automaton(~(a & b)), automaton(~a | ~b))
    if all(automaton(wish) is not None for wish in (~(a | b), ~a, ~b)):
        assert same(automaton(~(a | b)), automaton(~a & ~b))


def test_a_conjunct_that_cannot_hold_alone_has_a_true_complement() -> None:
    impossible = Length(words=2, characters=1)
    assert (~impossible).compile(CONTEXT).automaton == (A | ~A).compile(CONTEXT).automaton
    assert (A | impossible).compile(CONTEXT).automaton == A.compile(CONTEXT).automaton


def test_composites_with_tokens_have_no_automaton_over_texts_and_say_so() -> None:
    for wish in (A & Length(tokens=2), A | Length(tokens=2), ~Length(tokens=2)):
        with pytest.raises(TypeError, match="no automaton over whole texts"):
            wish.to_automaton()
    for soft in (2.0 * ENERGY, ENERGY.during(0, 1), A & ENERGY):
        with pytest.raises(TypeError, match="no automaton over whole texts"):
            soft.to_automaton()


def test_tokens_reach_every_operand_of_check() -> None:
    wish = ~(Length(tokens=2) | Length(tokens=3)) & Words(include=["a"])
    assert wish.check("a", [1])
    assert not wish.check("a", [1, 2])


def step(index: int = 0, total: int = 4) -> Step:
    return Step(index=index, total=total, time=1 - index / total, tokens_BL=torch.zeros(2, 4, dtype=torch.long))


def relaxed() -> torch.Tensor:
    return torch.randn(2, 4, len(CONTEXT.vocabulary), generator=torch.Generator().manual_seed(0)).softmax(-1)


def energies(wish: Constraint, at: Step | None = None) -> torch.Tensor:
    energy = wish.compile(CONTEXT).energy
    assert energy is not None
    return energy(relaxed(), at or step())


ONE, TWO = (Prefer(word=word, channel="energy", strength=s) for word, s in (("a", 30.0), ("b", 20.0)))


def test_scaled_multiplies_every_channel() -> None:
    assert torch.allclose(energies(2.5 * ONE), 2.5 * energies(ONE))
    assert torch.allclose(energies(-1 * ONE), -energies(ONE))
    bias, plain = (2.5 * BIAS).compile(CONTEXT).bias, BIAS.compile(CONTEXT).bias
    assert bias is not None and plain is not None
    assert torch.equal(bias(step()), 2.5 * plain(step()).expand(2, 1, -1))
    reward = (2.5 * REWARD).compile(CONTEXT).reward
    assert reward is not None
    assert reward(["a a", "b"], torch.zeros(2, 4)).tolist() == [5.0, 0.0]


def test_scaling_by_zero_leaves_no_guide() -> None:
    guide = (0.0 * (BIAS & ENERGY & REWARD)).compile(CONTEXT)
    assert guide.bias is guide.energy is guide.reward is guide.automaton is None


def test_scaled_twice_is_scaled_by_the_product() -> None:
    assert torch.allclose(energies(2.0 * (3.0 * ONE)), energies(6.0 * ONE))


class CountingCompile(Prefer):
    calls = 0

    def compile(self, context: CompileContext) -> Guide:
        type(self).calls += 1
        return super().compile(context)


def test_a_scaled_operand_is_compiled_once() -> None:
    (2.0 * CountingCompile(word="a")).compile(CONTEXT)
    assert CountingCompile.calls == 1


def test_during_pulls_in_its_window_only() -> None:
    wish = ONE.during(0.25, 0.75)
    pulls = [energies(wish, step(index)) for index in range(4)]
    assert [bool((pull != 0).any()) for pull in pulls] == [False, True, True, False]
    assert torch.equal(pulls[1], energies(ONE))
    nested = During(0.0, 0.5, 2.0 * ONE)
    assert torch.allclose(energies(nested, step(1)), 2.0 * energies(ONE))


def test_a_ramp_goes_linearly_with_progress() -> None:
    wish = ONE.scheduled((2.0, -2.0))
    assert [energies(wish, step(index)) / energies(ONE) for index in range(4)] == [
        pytest.approx(torch.full((2,), factor)) for factor in (2.0, 1.0, 0.0, -1.0)
    ]
    assert torch.allclose(energies(Scheduled((0.0, 1.0), 2.0 * ONE), step(1)), 0.5 * energies(ONE))
    bias, plain = BIAS.scheduled((0, 1)).compile(CONTEXT).bias, BIAS.compile(CONTEXT).bias
    assert bias is not None and plain is not None
    assert torch.equal(bias(step(1)), 0.25 * plain(step(1)).expand(2, 1, -1))


def test_a_ramp_from_one_to_one_is_the_plain_wish() -> None:
    assert torch.equal(energies(ONE.scheduled((1, 1)), step(3)), energies(ONE, step(3)))


def test_a_schedule_of_nought_does_not_evaluate_its_operand() -> None:
    def unasked(relaxed_BLV: torch.Tensor, step: Step) -> torch.Tensor:
        raise AssertionError

    assert not energies(Energy(unasked).scheduled((0.0, 0.0))).any()
    assert not energies(Energy(unasked).scheduled(lambda progress: 0)).any()


def test_a_schedule_function_is_asked_once_per_distinct_progress() -> None:
    asked: list[float] = []

    def schedule(progress: float) -> float:
        asked.append(progress)
        return 1.0 + progress

    here = Step(index=2, total=32, time=0.9, tokens_BL=torch.zeros(4, 8), open_B=torch.tensor([2, 100, 2, 6]))
    assert ONE.scheduled(schedule).weight(here).tolist() == [1.5, 1.0625, 1.5, 1.25]
    assert asked == [0.0625, 0.25, 0.5]


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (lambda progress: float("inf"), "returned inf; return a finite number"),
        (lambda progress: "1", "returned '1'"),
        (lambda progress: 1 / 0, "it raised ZeroDivisionError"),
    ],
)
def test_a_schedule_function_that_fails_is_named_with_its_wish(schedule: Any, reason: str) -> None:
    with pytest.raises(GuideFailed, match=rf"Prefer\(word='a'.*\.scheduled\(.* at progress 0\.500: .*{reason}"):
        energies(ONE.scheduled(schedule), step(2))


def test_a_schedule_function_has_no_config() -> None:
    with pytest.raises(NotSerializable, match=r"which plain JSON cannot name. Give a pair"):
        ONE.scheduled(lambda progress: 1.0).to_config()


def test_progress_is_per_row_and_knows_that_a_small_canvas_ends_early() -> None:
    tokens_BL = torch.zeros(2, 8, dtype=torch.long)
    here = Step(index=2, total=32, time=0.9, tokens_BL=tokens_BL, open_B=torch.tensor([2, 100]))
    assert here.progress_B.tolist() == pytest.approx([2 / 4, 2 / 32])
    assert Step(index=8, total=32, time=0.9, tokens_BL=tokens_BL).progress_B.tolist() == [0.25] * 2
    assert (energies(ONE.during(0.5, 1.0), here) != 0).tolist() == [True, False]


def test_a_time_window_goes_around_a_disjunction_not_into_it() -> None:
    with pytest.raises(TypeError, match=r"\(a \| b\)\.during"):
        ONE | (2.0 * TWO).during(0, 0.5)
    with pytest.raises(TypeError, match=r"\(a \| b\)\.scheduled"):
        ONE | TWO.scheduled((0.0, 1.0))


def test_the_energy_of_a_disjunction_is_a_soft_minimum() -> None:
    one, two = energies(ONE), energies(TWO)
    assert torch.allclose(energies(ONE | TWO), -torch.log(torch.exp(-one) + torch.exp(-two)))
    assert bool((energies(ONE | TWO) <= torch.minimum(one, two)).all())


def test_a_conjunction_adds_each_channel() -> None:
    assert torch.allclose(energies(ONE & TWO), energies(ONE) + energies(TWO))
    guide = (BIAS & 2.0 * BIAS & ONE & REWARD & A).compile(CONTEXT)
    assert guide.bias is not None and guide.energy is not None and guide.reward is not None
    plain = BIAS.compile(CONTEXT).bias
    assert plain is not None
    assert torch.allclose(guide.bias(step()), 3.0 * plain(step()))
    assert guide.reward(["a"], torch.zeros(1, 4)).tolist() == [1.0]
    assert guide.automaton == A.compile(CONTEXT).automaton


@pytest.mark.parametrize("wish", [BIAS | BIAS, ONE | REWARD, ONE | BIAS], ids=repr)
def test_only_energies_can_be_disjoined(wish: Constraint) -> None:
    with pytest.raises(TypeError, match="every operand is an energy"):
        wish.compile(CONTEXT)


def test_scores_of_soft_composites() -> None:
    assert (ONE | TWO).check("b b a") == 2.0  # the best of both
    assert (2.0 * ONE).check("a a") == 2.0  # the operand's own score
    assert ONE.during(0, 1).check("a") == 1.0


def test_a_choice_keeps_its_options_through_a_conjunction() -> None:
    choice = Choice(["a", "b"])
    assert set((choice & C).compile(CONTEXT).options or {}) == {"a", "b"}
    assert (choice & Choice(["a", "c"])).compile(CONTEXT).options is None
    assert (~choice).compile(CONTEXT).options is None
