"""The posterior equals enumeration: every quantity it offers, on random automata and factors."""

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import accepted, canvases, chi_square, counts, end_states
from torch import Tensor

import guided_dlm.posterior.posterior as engine
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.posterior.chain import inverse_cdf
from guided_dlm.vocabulary import Vocabulary

VOCABULARIES = [
    Vocabulary.from_tokens([b"a", b"b", b"ab"], eos_id=None),
    Vocabulary.from_tokens([b"a", b"b", b"ab", b"", b""], eos_id=3, pad_id=4),
    Vocabulary.from_tokens([b"a", b"b", b"ba", b""], eos_id=3),
    Vocabulary.from_tokens([b"a", b" b", b"ab", b"b", b"", b""], eos_id=4, mask_id=5),
    Vocabulary.from_tokens([b"b", b"a", b"aa", b""], eos_id=None, pad_id=3),
]
PATTERNS = ["a*", "(ab)*", "a|b|ab", ".*b.*", "[ab]{2,4}", "(a|b)*ab?", "", "a?b{0,2}a?", "a b|ab", "(a|ba)*"]
SCALES = [0.1, 1.0, 10.0, 100.0, 1000.0]


@cache
def build(vocabulary: int, first: str, second: str, operator: str) -> TokenAutomaton:
    a, b = (ByteAutomaton.from_regex(pattern).lift(VOCABULARIES[vocabulary]) for pattern in (first, second))
    return {"|": a | b, "&": a & b, "~": ~a, "-": a - b}[operator]


@cache
def support(automaton: TokenAutomaton, length: int) -> Tensor:
    return accepted(automaton, length)


@dataclass
class Problem:
    """One batch of factors and automata, with the answers by enumeration."""

    logits_BLV: Tensor
    automata: TokenAutomaton | list[TokenAutomaton]
    known_BL: Tensor
    log_mass_BN: Tensor
    log_law_BN: Tensor

    @property
    def every(self) -> Tensor:
        return canvases(self.logits_BLV.shape[2], self.logits_BLV.shape[1])

    def marginals(self) -> Tensor:
        onehot_NLV = torch.nn.functional.one_hot(self.every, self.logits_BLV.shape[2]).double()
        return torch.einsum("bn,nlv->blv", self.log_law_BN.exp(), onehot_NLV)


def log_masses(logits_BLV: Tensor, known_BL: Tensor, allowed_BN: Tensor) -> Tensor:
    """log(prod_l p_l(x_l) [x fits what is known] weight(x)) for every canvas x, fp64 `[B, N]`."""
    size, length = logits_BLV.shape[2], logits_BLV.shape[1]
    log_p_BLV = logits_BLV.double().log_softmax(-1)
    every_NL = canvases(size, length)
    same_BLV = known_BL[..., None] == torch.arange(size)
    log_p_BLV = torch.where(known_BL[..., None] < 0, log_p_BLV, torch.where(same_BLV, 0.0, -torch.inf))
    return sum(log_p_BLV[:, i, every_NL[:, i]] for i in range(length)) + allowed_BN.log()


@st.composite
def problems(draw: st.DrawFn, scales: list[float] = SCALES, feasible: bool = True) -> Problem:
    which = draw(st.integers(0, len(VOCABULARIES) - 1))
    size, length, rows = len(VOCABULARIES[which]), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    pattern, operator = st.sampled_from(PATTERNS), st.sampled_from("|&~-")
    automaton = st.builds(build, st.just(which), pattern, pattern, operator)
    shared = draw(st.booleans())
    each = [draw(automaton)] * rows if shared else [draw(automaton) for _ in range(rows)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    logits = draw(st.sampled_from(scales)) * torch.randn(rows, length, size, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        impossible = torch.rand(logits.shape, generator=generator) < 0.2
        impossible[..., 0] = False
        logits = logits.masked_fill(impossible, -torch.inf)
    known = torch.full((rows, length), -1)
    if draw(st.booleans()):
        given_BL = torch.rand(known.shape, generator=generator) < 0.4
        known = torch.where(given_BL, torch.randint(0, size, known.shape, generator=generator), -1)
    logits = logits.to(dtype)
    allowed = torch.stack([support(a, length) for a in each]).double()
    log_mass = log_masses(logits, known, allowed)
    log_z = log_mass.logsumexp(-1)
    if feasible:
        assume(bool(log_z.isfinite().all()))
    return Problem(logits, each[0] if shared else each, known, log_mass, log_mass - log_z[:, None])


def tolerance(problem: Problem) -> float:
    if problem.logits_BLV.dtype == torch.float64:
        return 1e-9
    # Single precision rounds a logit of size s by 6e-8 s, and normalising adds up to as much again.
    finite = problem.logits_BLV[problem.logits_BLV.isfinite()]
    return 2e-6 + 1e-6 * float(finite.abs().max())


@given(problems())
@settings(max_examples=150)
def test_log_z_marginals_and_what_is_read_off_them_equal_enumeration(problem: Problem) -> None:
    posterior = Posterior(problem.logits_BLV, problem.automata, known_BL=problem.known_BL)
    near, open_BL, size = tolerance(problem), problem.known_BL < 0, problem.logits_BLV.shape[2]
    assert torch.allclose(posterior.log_z, problem.log_mass_BN.logsumexp(-1), rtol=0, atol=near)
    marginals = problem.marginals()
    assert torch.allclose(posterior.marginals().double(), marginals, rtol=0, atol=near)
    entropy = -(marginals * marginals.clamp_min(1e-300).log()).sum(-1)
    assert torch.allclose(posterior.entropy().double(), entropy, rtol=0, atol=10 * near)
    confidence = marginals.amax(-1).masked_fill(~open_BL, 1.0)
    assert torch.allclose(posterior.confidence().double(), confidence, rtol=0, atol=near)
    for token in range(size):
        assert torch.allclose(posterior.probability(token).double(), marginals[..., token], rtol=0, atol=near)
        others = torch.cat([marginals[..., :token], marginals[..., token + 1 :]], -1)
        best = others.amax(-1).masked_fill(~open_BL, 1.0)
        assert torch.allclose(posterior.confidence(without=token).double(), best, rtol=0, atol=near)


@given(problems())
def test_the_mode_is_the_best_accepted_canvas(problem: Problem) -> None:
    mode_BL = Posterior(problem.logits_BLV, problem.automata, known_BL=problem.known_BL).mode()
    best_B = problem.log_mass_BN.amax(-1)
    row_of = {tuple(canvas): n for n, canvas in enumerate(problem.every.tolist())}
    found_B = torch.stack([problem.log_mass_BN[b, row_of[tuple(m)]] for b, m in enumerate(mode_BL.tolist())])
    assert torch.allclose(found_B, best_B, rtol=0, atol=4 * tolerance(problem))


@given(problems())
def test_every_draw_is_possible_and_keeps_what_is_known(problem: Problem) -> None:
    posterior = Posterior(problem.logits_BLV, problem.automata, known_BL=problem.known_BL)
    row_of = {tuple(canvas): n for n, canvas in enumerate(problem.every.tolist())}
    for seed in range(5):
        drawn_BL = posterior.sample(torch.Generator().manual_seed(seed))
        for b, canvas in enumerate(drawn_BL.tolist()):
            assert problem.log_mass_BN[b, row_of[tuple(canvas)]] > -torch.inf


@given(problems(), st.integers(0, 100))
def test_part_of_a_draw_agrees_with_the_whole_draw(problem: Problem, seed: int) -> None:
    posterior = Posterior(problem.logits_BLV, problem.automata, known_BL=problem.known_BL)
    generator = torch.Generator().manual_seed(seed)
    path, token = torch.rand(2, *problem.known_BL.shape, generator=generator, dtype=torch.float64)
    where_BL = torch.rand(problem.known_BL.shape, generator=generator) < 0.5
    whole, part = posterior.draw(path, token), posterior.draw(path, token, where_BL)
    expected = torch.where(where_BL | (problem.known_BL >= 0), whole, -1)
    assert torch.equal(part, expected)


@given(problems(scales=[0.1, 1.0, 10.0, 100.0]))
def test_the_gradient_of_log_z_is_that_of_the_enumerated_sum(problem: Problem) -> None:
    values = problem.logits_BLV.double()
    fixed = problem.log_mass_BN.isfinite().double()
    brute, ours = values.clone().requires_grad_(), values.clone().requires_grad_()
    weight_B = torch.linspace(1.0, 2.0, len(values), dtype=torch.float64)
    # The mass of impossible canvases is a constant; leaving them out keeps -inf - -inf out of the reference.
    masses = log_masses(brute, problem.known_BL, torch.ones_like(fixed)).masked_fill(fixed == 0, -torch.inf)
    (masses.logsumexp(-1) * weight_B).sum().backward()
    posterior = Posterior(ours, problem.automata, known_BL=problem.known_BL)
    (posterior.log_z * weight_B).sum().backward()
    assert brute.grad is not None
    assert ours.grad is not None
    assert torch.allclose(ours.grad, brute.grad.nan_to_num(0.0), rtol=0, atol=1e-6)


def test_the_gradient_of_log_z_passes_finite_differences() -> None:
    automaton = build(1, ".*b.*", "a*", "-")
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    known = torch.tensor([[-1, -1, -1], [-1, 1, -1]])
    assert torch.autograd.gradcheck(lambda x: Posterior(x, automaton, known_BL=known).log_z, (logits,), atol=1e-6)


@given(problems(feasible=False))
def test_a_row_that_nothing_satisfies_is_named(problem: Problem) -> None:
    dead_B = problem.log_mass_BN.logsumexp(-1).isneginf()
    assume(bool(dead_B.any()))
    posterior = Posterior(problem.logits_BLV, problem.automata, known_BL=problem.known_BL)
    assert torch.equal(posterior.log_z.isneginf(), dead_B)
    first = int(dead_B.nonzero()[0, 0])
    for quantity in (posterior.marginals, posterior.mode, posterior.sample, posterior.entropy, posterior.confidence):
        with pytest.raises(Infeasible, match=f"Row {first} "):
            quantity()
    with pytest.raises(Infeasible, match=f"Row {first} "):
        posterior.probability(0)


@given(problems())
def test_linear_and_logarithmic_arithmetic_agree(problem: Problem) -> None:
    linear = Posterior(problem.logits_BLV, problem.automata, known_BL=problem.known_BL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "LINEAR_RANGE", math.inf)
        logarithmic = Posterior(problem.logits_BLV, problem.automata, known_BL=problem.known_BL)
    assert isinstance(logarithmic._arithmetic, engine.Log)
    near = tolerance(problem)
    assert torch.allclose(linear.log_z, logarithmic.log_z, rtol=0, atol=near)
    assert torch.allclose(linear.marginals(), logarithmic.marginals(), rtol=0, atol=near)
    uniform = torch.rand(2, *problem.known_BL.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(linear.draw(*uniform), logarithmic.draw(*uniform))


@given(problems(scales=[0.1, 1.0, 10.0]))
def test_deciding_a_position_splits_the_mass(problem: Problem) -> None:
    """Z = sum over v of p_l(v) Z given x_l = v: the chain agrees with itself at every position."""
    logits = problem.logits_BLV.double()
    whole = Posterior(logits, problem.automata, known_BL=problem.known_BL).log_z
    for position in range(logits.shape[1]):
        if bool((problem.known_BL[:, position] >= 0).any()):
            continue
        parts = []
        for token in range(logits.shape[2]):
            known = problem.known_BL.clone()
            known[:, position] = token
            log_p = logits.log_softmax(-1)[:, position, token]
            parts.append(Posterior(logits, problem.automata, known_BL=known).log_z + log_p)
        assert torch.allclose(torch.stack(parts).logsumexp(0), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", ["(ab)*", ".*b.*", "[ab]{2,4}"])
@pytest.mark.parametrize("which", [1, 2])
def test_start_and_terminal_weights_equal_enumeration(pattern: str, which: int) -> None:
    automaton = build(which, pattern, "a*", "|")
    size, length, states = len(VOCABULARIES[which]), 3, automaton.num_states
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(states, length, size, generator=generator, dtype=torch.float64)
    terminal = torch.rand(states, states, generator=generator, dtype=torch.float64)
    for weights in (terminal, terminal[0]):
        posterior = Posterior(logits, automaton, start=torch.arange(states), terminal=weights)
        ends_BN = torch.stack([end_states(automaton, start, length) for start in range(states)])
        weights_BS = weights.expand(states, states)
        allowed = torch.where(ends_BN >= 0, weights_BS.gather(1, ends_BN.clamp_min(0)), 0.0)
        mass = log_masses(logits, torch.full((states, length), -1), allowed)
        assert torch.allclose(posterior.log_z, mass.logsumexp(-1), rtol=0, atol=1e-10)
        onehot = torch.nn.functional.one_hot(canvases(size, length), size).double()
        assert torch.allclose(posterior.marginals(), torch.einsum("bn,nlv->blv", mass.softmax(-1), onehot), atol=1e-10)


def test_a_chain_cut_in_two_has_the_mass_of_the_whole() -> None:
    """Z = sum over states s of Z(start -> s) Z(s -> accept)."""
    automaton = build(1, "(a|b)*ab?", "(ab)*", "|")
    states = automaton.num_states
    logits = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    head = Posterior(logits[:, :2].expand(states, -1, -1), automaton, terminal=torch.eye(states)).log_z
    tail = Posterior(logits[:, 2:].expand(states, -1, -1), automaton, start=torch.arange(states)).log_z
    assert torch.allclose((head + tail).logsumexp(0), Posterior(logits, automaton).log_z[0], atol=1e-12)


def test_start_and_terminal_want_one_automaton() -> None:
    automata = [build(0, "a*", "a*", "|"), build(0, "(ab)*", "a*", "|")]
    logits = torch.zeros(2, 2, 3)
    with pytest.raises(InvalidRequest, match="one automaton"):
        Posterior(logits, automata, start=torch.zeros(2))
    with pytest.raises(InvalidRequest, match="one automaton"):
        Posterior(logits, automata, terminal=torch.zeros(2))
    with pytest.raises(InvalidRequest, match="2 automata"):
        Posterior(torch.zeros(3, 2, 3), automata)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_sample_frequencies_are_the_posterior(shared: bool, scale: float) -> None:
    rows = 20_000 if shared else 6_000
    each = [build(1, ".*b.*", "", "|"), build(1, "(ab)*", "(a|ba)*", "|")]
    logits_LV = scale * torch.randn(3, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    automata = each[0] if shared else [each[row % 2] for row in range(rows)]
    drawn = Posterior(logits_LV.expand(rows, -1, -1), automata).sample(torch.Generator().manual_seed(5))
    groups = [(each[0], drawn)] if shared else [(each[i], drawn[i::2]) for i in range(2)]
    for automaton, mine in groups:
        allowed = accepted(automaton, 3).double()[None]
        law = log_masses(logits_LV[None], torch.full((1, 3), -1), allowed)[0].softmax(-1)
        assert chi_square(counts(mine, 5), law) > 1e-3


@pytest.mark.parametrize("nats", [-1250.0, -300.0, -183.75, -100.0])
def test_a_log_z_of_thousands_of_nats_is_exact_beside_an_ordinary_row(nats: float) -> None:
    """Four positions: -5000 nats; -735, where doubles lose digits before they underflow; and either side of them."""
    vocabulary = Vocabulary.from_tokens([b"a", b"b", b"c"], eos_id=None)
    automaton = ByteAutomaton.from_regex("[bc]{4}").lift(vocabulary)
    logits = torch.tensor([[[0.0, nats, nats - 1.0]] * 4, [[0.0, 1.0, 2.0]] * 4], dtype=torch.float64)
    allowed = accepted(automaton, 4).double().expand(2, -1)
    mass = log_masses(logits, torch.full((2, 4), -1), allowed)
    for automata in (automaton, [automaton, automaton]):
        posterior = Posterior(logits, automata)
        assert float(posterior.log_z[0]) < 4 * nats + 2
        assert torch.allclose(posterior.log_z, mass.logsumexp(-1), rtol=0, atol=1e-9)
        share = 1 / (1 + math.exp(-1.0))
        assert torch.allclose(posterior.marginals()[0, :, 1], torch.tensor(share).double(), atol=1e-9)
        assert (posterior.mode()[0] == 1).all()
        assert (posterior.sample(torch.Generator().manual_seed(0)) > 0).all()


def test_inverse_cdf_cuts_the_unit_interval_by_the_masses() -> None:
    mass = torch.tensor([[0.0, 1.0, 0.0, 3.0, 0.0]], dtype=torch.float64)
    for uniform, index in [(0.0, 1), (0.2499, 1), (0.25, 3), (0.5, 3), (1 - 2.0**-53, 3)]:
        assert int(inverse_cdf(mass, torch.tensor([uniform], dtype=torch.float64))) == index
        assert int(inverse_cdf(mass.float() * 1e-30, torch.tensor([uniform], dtype=torch.float64))) == index


def test_without_a_constraint_the_posterior_is_the_factors() -> None:
    vocabulary = VOCABULARIES[0]
    everything = ByteAutomaton.from_regex("[ab]*").lift(vocabulary)
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = torch.where(torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) < 0.3, 1, -1)
    factors, posterior = Factors(logits, known), Posterior(logits, everything, known_BL=known)
    for name in ("marginals", "confidence", "entropy"):
        assert torch.allclose(getattr(factors, name)(), getattr(posterior, name)(), atol=1e-12)
    for token in range(3):
        assert torch.allclose(factors.probability(token), posterior.probability(token), atol=1e-12)
        assert torch.allclose(factors.confidence(token), posterior.confidence(token), atol=1e-12)
    assert torch.equal(factors.mode(), posterior.mode())
    assert torch.allclose(posterior.log_z, torch.zeros(4, dtype=torch.float64), atol=1e-12)
