"""Weighted automata against enumeration: soft and hard multiply in one exact pass."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import accepted, canvases, chi_square, counts, marginals_of

from guided_dlm import Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton, WeightedAutomaton
from guided_dlm.errors import InvalidRequest, VocabularyMismatch
from guided_dlm.posterior import Posterior

TOKENS = [b"", b"a", b"b", b"ab", b" a", b"\xc3", b"\xa9"]
VOCABULARY = Vocabulary.from_tokens(TOKENS, eos_id=0)
PATTERNS = ["a*", ".*b", "(ab)*", ".*\u00e9.*", "a.*", "", " ?a?", "[^b]*"]
LENGTH = 4
FEATURES = st.lists(st.tuples(st.sampled_from(PATTERNS), st.sampled_from([-3.0, -0.5, 0.0, 1.0, 2.5])), max_size=3)


def law_of(logits_LV: torch.Tensor, hard: TokenAutomaton, weighted: WeightedAutomaton) -> torch.Tensor:
    """The exact law over all canvases, not normalised, from the text of each canvas alone."""
    every = canvases(len(TOKENS), LENGTH)
    log_p_LV = logits_LV.double().log_softmax(-1)
    law_N = log_p_LV[torch.arange(LENGTH), every].sum(-1).exp()
    weight = [weighted.weight(VOCABULARY.decode(row).encode()) for row in every.tolist()]
    return law_N * torch.tensor(weight, dtype=torch.float64).exp() * accepted(hard, LENGTH)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(FEATURES, st.sampled_from([".*", *PATTERNS]), st.integers(0, 1000), st.sampled_from([1.0, 15.0]))
def test_soft_and_hard_in_one_pass_equal_enumeration(
    features: list[tuple[str, float]], pattern: str, seed: int, spread: float
) -> None:
    logits = spread * torch.randn(1, LENGTH, len(TOKENS), generator=torch.Generator().manual_seed(seed))
    hard = ByteAutomaton.from_regex(pattern).lift(VOCABULARY)
    weighted = WeightedAutomaton([(ByteAutomaton.from_regex(p), weight) for p, weight in features])
    both = hard & weighted.lift(VOCABULARY)
    assert both == weighted.lift(VOCABULARY) & hard
    law_N = law_of(logits[0], hard, weighted)
    law = Posterior(logits, both)
    if not law_N.any():
        assert float(law.log_z) == -math.inf
        return
    assert float(law.log_z) == pytest.approx(math.log(float(law_N.sum())), rel=1e-6, abs=1e-6)
    expected_LV = marginals_of(law_N / law_N.sum(), len(TOKENS))
    torch.testing.assert_close(law.marginals()[0].double(), expected_LV, rtol=0, atol=1e-6)
    entropy_L = -torch.special.xlogy(expected_LV, expected_LV).sum(-1)
    torch.testing.assert_close(law.entropy()[0].double(), entropy_L, rtol=0, atol=1e-5)
    index = int((canvases(len(TOKENS), LENGTH) == law.mode()[0]).all(-1).nonzero()[0, 0])
    assert float(law_N[index]) == pytest.approx(float(law_N.max()), rel=1e-9)


def test_draws_have_the_weighted_law() -> None:
    logits = torch.randn(1, LENGTH, len(TOKENS), generator=torch.Generator().manual_seed(0))
    hard = ByteAutomaton.from_regex(".*a.*").lift(VOCABULARY)
    weighted = WeightedAutomaton([(ByteAutomaton.from_regex(".*b"), 2.0), (ByteAutomaton.from_regex("a.*"), -1.0)])
    law = Posterior(logits.expand(20_000, -1, -1), hard & weighted.lift(VOCABULARY))
    draws = law.sample(torch.Generator().manual_seed(1))
    law_N = law_of(logits[0], hard, weighted)
    assert chi_square(counts(draws, len(TOKENS)), law_N / law_N.sum()) > 1e-3
    unweighted_N = law_of(logits[0], hard, WeightedAutomaton([]))
    assert chi_square(counts(draws, len(TOKENS)), unweighted_N / unweighted_N.sum()) < 1e-6


def test_weights_add_up_and_scale() -> None:
    a, b = (ByteAutomaton.from_regex(p).lift(VOCABULARY) for p in ("a.*", ".*b"))
    everything = TokenAutomaton.well_formed(VOCABULARY)
    whole = everything.weigh(a, 1.0).weigh(b, 0.5)
    assert whole == everything.weigh(a, 1.0) & everything.weigh(b, 0.5)
    assert whole.scaled(2.0) == everything.weigh(a, 2.0).weigh(b, 1.0)
    assert whole.scaled(0.0) == everything.scaled(1.0) != everything
    assert whole.accepts([1, 2, 0, 0])
    assert not whole.accepts([5, 1, 0, 0])  # half a character is no text, weighted or not


def test_an_extreme_weight_is_held_to_fifty_nats() -> None:
    logits = torch.randn(1, LENGTH, len(TOKENS), generator=torch.Generator().manual_seed(3))
    feature = ByteAutomaton.from_regex(".*b").lift(VOCABULARY)
    everything = TokenAutomaton.well_formed(VOCABULARY)
    heavy, fifty = (Posterior(logits, everything.weigh(feature, w)).log_z for w in (1e6, 50.0))
    assert torch.equal(heavy, fifty)


@pytest.mark.parametrize("operation", [lambda a, b: a | b, lambda a, b: b - a, lambda a, _: ~a])
def test_a_union_or_complement_of_weights_means_nothing(operation: object) -> None:
    plain = ByteAutomaton.from_regex("a.*").lift(VOCABULARY)
    with pytest.raises(TypeError, match="weights multiply"):
        operation(plain.scaled(1.0), plain)  # type: ignore[operator]


def test_weights_that_are_no_numbers_and_other_vocabularies_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="finite number of nats"):
        WeightedAutomaton([(ByteAutomaton.any_text(), math.nan)])
    other = ByteAutomaton.any_text().lift(Vocabulary.from_tokens([b"", b"a"], eos_id=0))
    with pytest.raises(VocabularyMismatch):
        TokenAutomaton.well_formed(VOCABULARY).weigh(other, 1.0)
