"""Classifier guidance against Bayes' rule on problems small enough to enumerate."""

import pytest
import torch
from oracles import canvas_of, canvases, chi_square, counts, marginals_of, masked_law, random_joint, tv
from problems import CLASSES, MASK, PLAIN, NoisyClassifier, pick_coins
from torch import Tensor

from constraints import Classifier
from guided_dlm import GuidedPipeline, Step
from guided_dlm.classifiers import exact_bias, token_score
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.processes.schedules import linear

JOINT = random_joint(4, 3, seed=5, sharpness=1.5, text=[0, 1, 2])


def conditional(joint: Tensor, noisy: NoisyClassifier, target: int) -> Tensor:
    """p(x | y) over all canvases, from Bayes' rule."""
    law = joint * noisy.given_text[target].reshape(joint.shape)
    return law / law.sum()


def guided(joint: Tensor, noisy: NoisyClassifier, strength: float, targets: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Every canvas of text and masks that can be met, the guided factors there, and which positions are open."""
    every = canvases(4, joint.dim())
    logits_BLV, _ = TabularDenoiser(joint, PLAIN)(canvas_of(every, PLAIN), 1.0)
    step = Step(
        index=0,
        total=1,
        time=1.0,
        tokens_BL=every,
        logits_BLV=logits_BLV,
        known_BL=every.masked_fill(every == MASK, -1),
    )
    for target in targets:
        logits_BLV = logits_BLV + strength * exact_bias(token_score(noisy, target, PLAIN), step, None)
    return every, logits_BLV.softmax(-1), every == MASK


@pytest.mark.parametrize("target", range(CLASSES))
def test_exact_guidance_is_the_conditional_kernel_on_every_canvas(target: int) -> None:
    noisy = NoisyClassifier(JOINT, seed=0)
    every, factors_BLV, open_BL = guided(JOINT, noisy, 1.0, [target])
    expected_BLV, _ = TabularDenoiser(conditional(JOINT, noisy, target), PLAIN)(canvas_of(every, PLAIN), 1.0)
    assert torch.allclose(factors_BLV[open_BL], expected_BLV.exp()[open_BL], rtol=0, atol=1e-10)


def test_no_strength_is_the_model_itself() -> None:
    every, factors_BLV, _ = guided(JOINT, NoisyClassifier(JOINT, seed=0), 0.0, [1])
    plain_BLV, _ = TabularDenoiser(JOINT, PLAIN)(canvas_of(every, PLAIN), 1.0)
    assert torch.equal(factors_BLV, plain_BLV.softmax(-1))


def test_two_independent_conditions_are_their_product() -> None:
    """Classifiers that look at different positions of independent tokens."""
    generator = torch.Generator().manual_seed(3)
    factors = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    factors[:, MASK] = 0
    joint = torch.einsum("a,b,c->abc", *factors)
    joint = joint / joint.sum()
    every = canvases(4, 3)
    first, second = (torch.rand(4, generator=generator, dtype=torch.float64) for _ in range(2))
    one = NoisyClassifier(joint, table=torch.stack([first[every[:, 0]], 1 - first[every[:, 0]]]))
    two = NoisyClassifier(joint, table=torch.stack([second[every[:, 2]], 1 - second[every[:, 2]]]))
    product_N = one.given_text[0] * two.given_text[0]
    both = NoisyClassifier(joint, table=torch.stack([product_N, 1 - product_N]))
    _, apart, open_BL = guided(joint, one, 1.0, [0])
    base = TabularDenoiser(joint, PLAIN)(canvas_of(every, PLAIN), 1.0)[0].softmax(-1)
    _, other, _ = guided(joint, two, 1.0, [0])
    product = (apart * other / base.clamp_min(1e-300)).nan_to_num()
    product = product / product.sum(-1, keepdim=True)
    _, together, _ = guided(joint, both, 1.0, [0])
    assert torch.allclose(product[open_BL], together[open_BL], rtol=0, atol=1e-10)


def test_a_classifier_of_zeros_and_ones_is_a_mask() -> None:
    starts_with_a = (canvases(4, 3)[:, 0] == 0).double()
    noisy = NoisyClassifier(JOINT, table=torch.stack([starts_with_a, 1 - starts_with_a]))
    every, factors_BLV, open_BL = guided(JOINT, noisy, 1.0, [0])
    expected_BLV, _ = TabularDenoiser(conditional(JOINT, noisy, 0), PLAIN)(canvas_of(every, PLAIN), 1.0)
    possible_B = (every[:, 0] == 0) | (every[:, 0] == MASK)
    here_BL = open_BL & possible_B[:, None]
    assert torch.allclose(factors_BLV[here_BL], expected_BLV.exp()[here_BL], rtol=0, atol=1e-10)


def test_the_error_at_strength_one_falls_as_steps_grow() -> None:
    noisy = NoisyClassifier(JOINT, seed=0)
    law = conditional(JOINT, noisy, 0)
    errors = [
        tv(masked_law(law, MASK, torch.ones(64).double(), steps, linear, pick_coins).numpy(), law.flatten())
        for steps in (4, 16, 64)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize("steps", [1, 3])
def test_the_pipeline_draws_from_the_guided_kernel(steps: int) -> None:
    noisy = NoisyClassifier(JOINT, seed=0)
    law = masked_law(conditional(JOINT, noisy, 2), MASK, torch.ones(64).double(), steps, linear, pick_coins)
    wish = Classifier(noisy, target=2, method="exact", tokenizer=PLAIN, top_k=None)
    out = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(
        constraint=wish, num_samples=20_000, batch_size=20_000, steps=steps, sampler="ancestral"
    )
    assert chi_square(counts(out.tokens, 4), law) > 1e-3


def test_pruned_candidates_leave_the_others_as_likely_as_those_tried_on_average() -> None:
    noisy = NoisyClassifier(JOINT, seed=0)
    every = canvases(4, 3)
    logits_BLV, _ = TabularDenoiser(JOINT, PLAIN)(canvas_of(every, PLAIN), 1.0)
    known_BL = every.masked_fill(every == MASK, -1)
    step = Step(index=0, total=1, time=1.0, tokens_BL=every, logits_BLV=logits_BLV, known_BL=known_BL)
    score = token_score(noisy, 0, PLAIN)
    whole, pruned = exact_bias(score, step, None), exact_bias(score, step, 2)
    best = logits_BLV.topk(2, dim=-1).indices
    open_BL = every == MASK
    assert torch.allclose(pruned.gather(-1, best)[open_BL], whole.gather(-1, best)[open_BL], atol=1e-12)
    tried = logits_BLV.gather(-1, best).log_softmax(-1) + pruned.gather(-1, best)
    left_out = torch.ones_like(logits_BLV, dtype=torch.bool).scatter(-1, best, False)
    assert torch.allclose(
        pruned[left_out].reshape(64, 3, 2)[open_BL], tried.logsumexp(-1)[open_BL][:, None], atol=1e-12
    )
    assert torch.allclose(marginals_of(JOINT.flatten(), 4)[0], logits_BLV[-1, 0].softmax(-1))
