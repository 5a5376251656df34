"""Canvases of a thousand tokens and automata of a thousand states: no underflow, and one mass at every cut."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from guided_dlm import Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.posterior import Posterior

LENGTH = 1024
VOCABULARY = Vocabulary.from_tokens([b"a", b"b", b"c", b"ab"], eos_id=None)


@cache
def counters() -> TokenAutomaton:
    """The number of a's is a multiple of 37 and that of b's one of 36: 1,332 states, all of them needed."""
    a = ByteAutomaton.from_regex("[bc]*(?:(?:a[bc]*){37})*").lift(VOCABULARY)
    b = ByteAutomaton.from_regex("[ac]*(?:(?:b[ac]*){36})*").lift(VOCABULARY)
    return a & b


def messages(logits_LV: np.ndarray, automaton: TokenAutomaton) -> tuple[np.ndarray, np.ndarray]:
    """Log-masses `[L + 1, S]` of reaching each state, and of acceptance from it: one token after the other."""
    log_p_LV = logits_LV - logsumexp(logits_LV, axis=1, keepdims=True)
    length, states = logits_LV.shape[0], automaton.num_states
    after_SV = automaton.transitions[:, automaton.token_class]
    forward, backward = (np.full((length + 1, states), -np.inf) for _ in range(2))
    forward[0, 0], backward[length] = 0.0, np.where(automaton.accepting, 0.0, -np.inf)
    for place in range(length):
        for token in range(logits_LV.shape[1]):
            alive = after_SV[:, token] >= 0
            arrived = forward[place, alive] + log_p_LV[place, token]
            np.logaddexp.at(forward[place + 1], after_SV[alive, token], arrived)
    for place in reversed(range(length)):
        ways = np.where(after_SV >= 0, backward[place + 1][after_SV] + log_p_LV[place], -np.inf)
        backward[place] = logsumexp(ways, axis=1)
    return forward, backward


@pytest.mark.parametrize("scale", [1.0, 30.0, 3000.0])
def test_a_thousand_tokens_and_states_do_not_underflow(scale: float) -> None:
    automaton = counters()
    assert automaton.num_states >= 1300
    logits = scale * torch.randn(1, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(0)).double()
    forward, backward = messages(logits[0].numpy(), automaton)
    law = Posterior(logits, automaton)
    assert float(law.log_z) == pytest.approx(float(backward[0, 0]), rel=1e-9, abs=1e-6)
    marginals = law.marginals()[0].double()
    torch.testing.assert_close(marginals.sum(-1), torch.ones(LENGTH).double(), rtol=0, atol=1e-6)
    for place in (0, 511, 1023):
        log_p = logits[0, place] - logits[0, place].logsumexp(-1)
        for token in range(len(VOCABULARY)):
            column = automaton.transitions[:, automaton.token_class[token]]
            through = forward[place][column >= 0] + backward[place + 1][column[column >= 0]]
            expected = np.exp(logsumexp(through) + float(log_p[token]) - backward[0, 0])
            assert float(marginals[place, token]) == pytest.approx(expected, abs=1e-6)
    assert automaton.accepts(law.sample(torch.Generator().manual_seed(0))[0].tolist())
    assert automaton.accepts(law.mode()[0].tolist())


def test_the_mass_is_the_same_at_every_cut() -> None:
    """logsumexp(a_i + b_i) = log Z: the chain up to a cut, closed by the masses of what may follow it."""
    automaton = counters()
    logits = 5 * torch.randn(1, LENGTH, len(VOCABULARY), generator=torch.Generator().manual_seed(1)).double()
    forward, backward = messages(logits[0].numpy(), automaton)
    total = float(Posterior(logits, automaton).log_z)
    cuts = logsumexp(forward + backward, axis=1)
    np.testing.assert_allclose(cuts, total, rtol=0, atol=1e-6)
    for cut in (1, 300, 512, 1000):
        shift = backward[cut].max()
        head = Posterior(logits[:, :cut], automaton, terminal=torch.from_numpy(np.exp(backward[cut] - shift)))
        assert float(head.log_z) + shift == pytest.approx(total, abs=1e-6)
