"""Tokens with several readings: an automaton over symbols with weights, against sums over all readings."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from oracles import canvases, chi_square, counts, marginals_of

from guided_dlm import Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton, WeightedAutomaton
from guided_dlm.automata.dfa import Dfa
from guided_dlm.posterior import Posterior

VOCABULARY = Vocabulary.from_tokens([b"", b" the", b" kid", b" fast", b" runs", b" xyz"], eos_id=0)
D, N, V, A = range(4)
READINGS = {
    1: {(D,): 1.0},
    2: {(N,): 0.7, (A,): 0.2},
    3: {(A,): 0.6, (N,): 0.1, (V,): 0.3},
    4: {(V,): 0.5, (N, A): 0.5},
}
LENGTH = 4


def tag_dfa(pattern: str) -> Dfa:
    """Tags as letters: d, n, v, a."""
    automaton = ByteAutomaton.from_regex(pattern)
    return Dfa(automaton.table, automaton.accepting, automaton.byte_class.astype(np.int64)[[ord(c) for c in "dnva"]])


def weight_of(canvas: tuple[int, ...], pattern: str) -> float:
    """The sum over readings, by listing them all."""
    text = list(itertools.takewhile(lambda token: token != 0, canvas))
    if any(canvas[len(text) :]) or any(token not in READINGS for token in text):
        return 0.0
    total = 0.0
    for choice in itertools.product(*(READINGS[token].items() for token in text)):
        spelled = "".join("dnva"[tag] for reading, _ in choice for tag in reading)
        total += bool(re.fullmatch(pattern, spelled)) * math.prod(weight for _, weight in choice)
    return total


PATTERNS = ["da*n.*", "[dnva]*", "(dn|a)*v?", "n{2}|d.{2}", "d(n|a)(v|n|a)*"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dense", [64, 0], ids=["matrix", "readings one by one"])
@pytest.mark.parametrize("spread", [1.0, 400.0])
def test_posterior_equals_enumeration_over_readings(
    pattern: str, spread: float, dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guided_dlm.posterior.tables.MOST_DENSE", dense)
    automaton = TokenAutomaton.tagged(VOCABULARY, tag_dfa(pattern), READINGS)
    every = canvases(len(VOCABULARY), LENGTH)
    logits = spread * torch.randn(2, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(3)).double()
    known = torch.full((2, LENGTH), -1)
    known[1, 1] = 3
    weight_N = torch.tensor([weight_of(tuple(row), pattern) for row in every.tolist()]).double()
    law = Posterior(logits, automaton, known_BL=known)
    for row in range(2):
        log_p_LV = logits[row].log_softmax(-1)
        open_L = known[row] < 0
        log_p_N = log_p_LV[torch.arange(LENGTH), every][:, open_L].sum(-1)
        allowed_N = (every[:, ~open_L] == known[row][~open_L]).all(-1)
        log_law_N = (log_p_N + weight_N.log()).masked_fill(~allowed_N, -torch.inf)
        assert float(law.log_z[row]) == pytest.approx(float(log_law_N.logsumexp(0)), abs=1e-6)
        expected_LV = marginals_of(log_law_N.softmax(0), len(VOCABULARY))
        torch.testing.assert_close(law.marginals()[row], expected_LV, rtol=0, atol=1e-8)
        torch.testing.assert_close(law.confidence()[row], expected_LV.amax(-1), rtol=0, atol=1e-8)
        without_LV = expected_LV.index_fill(1, torch.tensor([2]), 0.0)
        torch.testing.assert_close(law.confidence(2)[row][open_L], without_LV.amax(-1)[open_L], rtol=0, atol=1e-8)
        entropy_L = -torch.special.xlogy(expected_LV, expected_LV).sum(-1)
        torch.testing.assert_close(law.entropy()[row], entropy_L, rtol=0, atol=1e-7)
        for token in range(len(VOCABULARY)):
            torch.testing.assert_close(law.probability(token)[row], expected_LV[:, token], rtol=0, atol=1e-8)


@pytest.mark.parametrize("rare", [False, True], ids=["linear", "logarithms"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_draws_follow_the_law_and_accepts_says_which_have_a_reading(pattern: str, rare: bool) -> None:
    automaton = TokenAutomaton.tagged(VOCABULARY, tag_dfa(pattern), READINGS)
    every = canvases(len(VOCABULARY), LENGTH)
    weights = [weight_of(tuple(row), pattern) for row in every.tolist()]
    assert [automaton.accepts(row) for row in every.tolist()] == [weight > 0 for weight in weights]
    logits = torch.randn(1, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(0))
    logits[..., 4] -= 100.0 * rare
    log_p_N = logits[0].double().log_softmax(-1)[torch.arange(LENGTH), every].sum(-1)
    law_N = (log_p_N + torch.tensor(weights).double().log()).softmax(0)
    draws = Posterior(logits.expand(20_000, -1, -1), automaton).sample(torch.Generator().manual_seed(1))
    assert chi_square(counts(draws, len(VOCABULARY)), law_N) > 1e-4


@pytest.mark.parametrize("dense", [64, 0], ids=["matrix", "readings one by one"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_reading_that_is_next_to_impossible_is_drawn_where_it_is_the_only_one(
    dtype: torch.dtype, dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guided_dlm.posterior.tables.MOST_DENSE", dense)
    readings = {1: {(D,): 1.0}, 2: {(N,): 0.7, (V,): 1e-50}, 3: {(A,): 0.6}}
    automaton = TokenAutomaton.tagged(VOCABULARY, tag_dfa("dv"), readings)
    law = Posterior(torch.zeros(3, LENGTH, len(VOCABULARY), dtype=dtype), automaton)
    assert law.sample(torch.Generator().manual_seed(0)).tolist() == [[1, 2, 0, 0]] * 3
    assert float(law.marginals()[0, 1, 2]) == pytest.approx(1.0)


def test_the_mode_is_the_best_text_with_its_best_reading() -> None:
    """Of readings that lead along other states; those that do not count together."""
    pattern = "d?(n|av?)*(dn)?"  # tells all tags apart
    automaton = TokenAutomaton.tagged(VOCABULARY, tag_dfa(pattern), READINGS)
    assert automaton.symbols is not None and len(automaton.symbols.token) == 1 + sum(map(len, READINGS.values()))
    for seed in range(5):
        logits = torch.randn(1, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(seed))
        mode = Posterior(logits, automaton).mode()[0]
        log_p_LV = logits[0].double().log_softmax(-1)
        best, found = -math.inf, None
        for row in canvases(len(VOCABULARY), LENGTH):
            text = list(itertools.takewhile(lambda token: token != 0, row.tolist()))
            if any(row.tolist()[len(text) :]) or any(token not in READINGS for token in text):
                continue
            for choice in itertools.product(*(READINGS[token].items() for token in text)):
                spelled = "".join("dnva"[tag] for reading, _ in choice for tag in reading)
                if re.fullmatch(pattern, spelled):
                    score = float(log_p_LV[torch.arange(LENGTH), row].sum()) + sum(math.log(w) for _, w in choice)
                    if score > best:
                        best, found = score, row
        assert found is not None and mode.tolist() == found.tolist()


def test_products_multiply_weights_and_keep_to_both() -> None:
    first = TokenAutomaton.tagged(VOCABULARY, tag_dfa("d.*"), READINGS)
    second = TokenAutomaton.tagged(VOCABULARY, tag_dfa(".*[nv]"), READINGS)
    plain = ByteAutomaton.from_regex(".*(kid|fast).*").lift(VOCABULARY)
    preferred = WeightedAutomaton([(ByteAutomaton.from_regex(".*runs.*"), 1.5)]).lift(VOCABULARY)
    logits = torch.randn(1, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(5)).double()
    whole = first & second & plain & preferred
    every = canvases(len(VOCABULARY), LENGTH)
    log_p_N = logits[0].log_softmax(-1)[torch.arange(LENGTH), every].sum(-1)
    weights = [
        weight_of(tuple(row), "d.*")
        * weight_of(tuple(row), ".*[nv]")
        * plain.accepts(row)
        * math.exp(1.5 * (4 in itertools.takewhile(bool, row)))
        for row in every.tolist()
    ]
    expected_N = log_p_N.exp() * torch.tensor(weights).double()
    law, turned = (Posterior(logits, automaton) for automaton in (whole, preferred & plain & second & first))
    assert float(law.log_z) == pytest.approx(math.log(float(expected_N.sum())), abs=1e-8)
    torch.testing.assert_close(turned.marginals(), law.marginals())
    torch.testing.assert_close(
        law.marginals()[0], marginals_of(expected_N / expected_N.sum(), len(VOCABULARY)), rtol=0, atol=1e-8
    )


def test_the_gradient_of_log_z_is_that_of_the_sum_over_readings() -> None:
    automaton = TokenAutomaton.tagged(VOCABULARY, tag_dfa("da*n.*"), READINGS)
    logits = torch.randn(1, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(2)).double()
    assert torch.autograd.gradcheck(lambda x: Posterior(x, automaton).log_z, logits.requires_grad_())


def test_a_row_with_readings_beside_one_without() -> None:
    tagged = TokenAutomaton.tagged(VOCABULARY, tag_dfa("d.*"), READINGS)
    plain = ByteAutomaton.from_regex(".*kid.*").lift(VOCABULARY)
    logits = torch.randn(2, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(4)).double()
    together = Posterior(logits, [tagged, plain])
    for row, automaton in enumerate([tagged, plain]):
        alone = Posterior(logits[row : row + 1], automaton)
        assert float(together.log_z[row]) == pytest.approx(float(alone.log_z))
        torch.testing.assert_close(together.marginals()[row], alone.marginals()[0])
    assert tagged.accepts(together.sample(torch.Generator().manual_seed(0))[0].tolist())


def test_the_last_state_of_known_tokens_is_drawn_by_the_weights_of_readings() -> None:
    # "kid" is a noun (.7) or an adjective (.2); one of them leads to state "n", the other to "a".
    dfa = Dfa(
        np.array([[-1, 1, -1, 2], [-1, -1, -1, -1], [-1, 2, -1, -1]]), np.array([False, True, True]), np.arange(4)
    )
    automaton = TokenAutomaton.tagged(VOCABULARY, dfa, READINGS)
    rows = 20_000
    law = Posterior(torch.zeros(rows, 1, len(VOCABULARY)), automaton, known_BL=torch.full((rows, 1), 2))
    uniform = torch.rand(rows, 1, generator=torch.Generator().manual_seed(0)).double()
    shares = torch.bincount(law.last_states(uniform)).double() / rows
    assert sorted(shares[shares > 0].tolist()) == pytest.approx([2 / 9, 7 / 9], abs=0.02)


def test_unions_and_complements_are_refused() -> None:
    tagged = TokenAutomaton.tagged(VOCABULARY, tag_dfa("d.*"), READINGS)
    plain = ByteAutomaton.from_regex(".*kid.*").lift(VOCABULARY)
    with pytest.raises(TypeError, match="have an & only"):
        _ = tagged | plain
    with pytest.raises(TypeError, match="have an & only"):
        _ = ~tagged
    with pytest.raises(TypeError, match="have an & only"):
        plain.weigh(tagged, 1.0)
    with pytest.raises(TypeError, match="give strength="):
        tagged.scaled(2.0)
    assert "readings" in repr(tagged)
