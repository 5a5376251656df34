"""Acceptance of finished texts, against what follows from small laws written down."""

import pytest
import torch
from oracles import canvas_of, product_joint, random_joint
from tiny import tiny_pipeline
from torch import Tensor

from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.coherence import (
    Proposals,
    RestLaw,
    introspective_acceptance,
    measure,
    rest_law,
    self_acceptance,
    text_positions,
)
from guided_dlm.samplers.correctors import Gibbs

PLAIN = Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=3)


def of_text(joint: Tensor) -> Tensor:
    """The joint of three tokens as one of four, the mask impossible."""
    padded = torch.zeros([4] * joint.dim(), dtype=torch.float64)
    padded[tuple([slice(3)] * joint.dim())] = joint
    return padded


def test_the_rest_law_is_the_conditional_of_every_position() -> None:
    joint = random_joint(4, 3, seed=1, text=[0, 1, 2])
    tokens = torch.tensor([[0, 1, 2], [2, 2, 0]])
    law = rest_law(TabularDenoiser(joint, PLAIN), canvas_of(tokens, PLAIN), batch_size=4)
    assert law.calls == 2
    for row, (a, b, c) in enumerate(tokens.tolist()):
        columns = (joint[:, b, c], joint[a, :, c], joint[a, b, :])
        expected = [float(column[token] / column.sum()) for column, token in zip(columns, (a, b, c), strict=True)]
        best = [float(column.max() / column.sum()) for column in columns]
        assert law.chance_NL[row].tolist() == pytest.approx(expected, abs=1e-9)
        assert law.best_NL[row].tolist() == pytest.approx(best, abs=1e-9)


def test_positions_that_are_not_asked_about_cost_nothing() -> None:
    joint, where = random_joint(4, 3, seed=1, text=[0, 1, 2]), torch.tensor([[True, False, False]])
    law = rest_law(TabularDenoiser(joint, PLAIN), canvas_of(torch.tensor([[0, 1, 2]]), PLAIN), where, batch_size=1)
    assert law.calls == 1
    assert law.chance_NL[0, 1:].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_independent_positions_are_accepted_by_introspection_however_many_are_written_at_once(steps: int) -> None:
    pipe = GuidedPipeline(TabularDenoiser(of_text(product_joint(3, 4, seed=3)), PLAIN))
    found = measure(pipe, num_samples=50, steps=steps)
    assert found.introspective_acceptance == pytest.approx(1.0, abs=1e-9)
    assert found.self_acceptance < 0.95  # tokens were drawn, not chosen
    assert found.denoiser_calls == steps


def test_tokens_that_must_agree_are_accepted_only_when_written_one_after_the_other() -> None:
    """Two positions that are always equal: written at once, in half of the texts p(x_l | rest) is 0."""
    joint = torch.zeros(4, 4, dtype=torch.float64)
    joint[0, 0] = joint[1, 1] = 0.5
    pipe = GuidedPipeline(TabularDenoiser(joint, PLAIN))
    at_once, in_turn = (measure(pipe, num_samples=2000, steps=steps) for steps in (1, 2))
    assert at_once.self_acceptance == pytest.approx(0.5, abs=0.05)
    assert at_once.introspective_acceptance == pytest.approx(0.5, abs=0.05)
    assert in_turn.self_acceptance == in_turn.introspective_acceptance == 1.0


def test_gibbs_sweeps_raise_both() -> None:
    pipe = GuidedPipeline(TabularDenoiser(random_joint(4, 4, seed=5, text=[0, 1, 2]), PLAIN))
    plain, swept = (measure(pipe, num_samples=500, steps=1, corrector=one) for one in (None, Gibbs(sweeps=4)))
    assert swept.self_acceptance > plain.self_acceptance + 0.1
    assert swept.introspective_acceptance > plain.introspective_acceptance + 0.1


def test_a_token_that_was_written_again_has_its_last_proposal() -> None:
    """After one sweep of a law of two tokens, each proposal is the conditional that drew it last."""
    joint = random_joint(4, 2, seed=7, text=[0, 1, 2])
    proposals = Proposals()
    pipe = GuidedPipeline(TabularDenoiser(joint, PLAIN))
    out = pipe(num_samples=200, steps=1, corrector=Gibbs(sweeps=3), callback=proposals, batch_size=64)
    a, b = out.tokens.T
    conditional = torch.stack([joint[a, b] / joint[:, b].sum(0), joint[a, b] / joint[a, :].sum(-1)], dim=-1)
    assert proposals.q_NL.shape == out.tokens.shape
    last_is_exact = torch.isclose(proposals.q_NL, conditional).any(-1)  # the position that was drawn last
    assert bool(last_is_exact.all())


def test_acceptance_is_the_mean_of_clipped_ratios() -> None:
    p = torch.tensor([[0.2, 0.6, 0.5]], dtype=torch.float64)
    best = torch.tensor([[0.8, 0.6, 0.5]], dtype=torch.float64)
    law, where = RestLaw(chance_NL=p, best_NL=best, calls=1), torch.tensor([[True, True, False]])
    assert self_acceptance(law, where) == pytest.approx((0.25 + 1.0) / 2)
    q = torch.tensor([[0.4, 0.3, 0.1]], dtype=torch.float64)
    assert introspective_acceptance(law, q, where) == pytest.approx((0.5 + 1.0) / 2)
    with pytest.raises(InvalidRequest, match="no text token"):
        self_acceptance(law, torch.zeros_like(where))
    with pytest.raises(InvalidRequest, match="same positions"):
        introspective_acceptance(law, q[:, :2], where)


def test_only_text_is_measured_and_a_transformer_can_be() -> None:
    pipe = tiny_pipeline()
    vocabulary = pipe.denoiser.vocabulary
    row = [5, 6, vocabulary.eos_id, vocabulary.pad_id]
    assert text_positions(pipe.denoiser, torch.tensor([row])).tolist() == [[True, True, False, False]]
    found = measure(pipe, num_samples=4, steps=4)
    assert 0 < found.self_acceptance <= 1 and 0 < found.introspective_acceptance <= 1


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Nothing was sampled"):
        _ = Proposals().q_NL
    pipe, proposals = tiny_pipeline(), Proposals()
    pipe(num_samples=2, steps=2, block_length=5, callback=proposals)
    with pytest.raises(InvalidRequest, match="whole canvases"):
        _ = proposals.q_NL
