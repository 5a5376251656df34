"""Particles against exact laws: tilted targets, normalisers, and what a step-exact sampler leaves out."""

import pytest
import torch
from oracles import CPU, Pattern, accepted, counts, random_joint, tv
from problems import PLAIN, NoisyClassifier
from torch import Tensor

import guided_dlm.particles as engine
from constraints import Classifier, Reward
from guided_dlm import Guide, GuidedPipeline, Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.particles import Cloud, Sampled, sample_particles
from guided_dlm.randomness import Randomness, particle_seeds, row_seeds
from guided_dlm.samplers import Plan
from guided_dlm.samplers.commit import Ancestral, CommitRule, Confidence

JOINT = random_joint(4, 3, seed=5, sharpness=1.5, text=[0, 1, 2])
SCORE_N = 1.5 * torch.randn(64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
TAILED = Vocabulary.from_tokens([b"a", b"b", b"", b"", b""], eos_id=2, pad_id=3, mask_id=4)


def index_of(tokens_NL: Tensor, size: int = 4) -> Tensor:
    index = torch.zeros(len(tokens_NL), dtype=torch.int64)
    for column in tokens_NL.T:
        index = index * size + column
    return index


def reward(texts: list[str], tokens_NL: Tensor) -> Tensor:
    return SCORE_N[index_of(tokens_NL)]


def run(
    denoiser: TabularDenoiser,
    guide: Guide,
    count: int,
    steps: int,
    groups: int = 4000,
    automaton: TokenAutomaton | None = None,
    rule: CommitRule | None = None,
    seed: int = 0,
) -> Sampled:
    seeds = particle_seeds(row_seeds(seed, groups, CPU), count)
    plan = Plan(
        denoiser=denoiser, guide=guide, automata=automaton, rule=rule or Ancestral(), randomness=Randomness(seeds),
        steps=steps,
    )  # fmt: skip
    canvas = Canvas.from_prompts([None] * (groups * count), denoiser.vocabulary, denoiser.joint.dim(), CPU)
    vocabulary = denoiser.vocabulary
    return sample_particles(plan, canvas, count, lambda t: [vocabulary.decode(row) for row in t.tolist()])


def tilted(weight_N: Tensor, joint: Tensor = JOINT) -> Tensor:
    law = joint.flatten() * weight_N
    return law / law.sum()


def test_the_distance_to_the_tilted_law_falls_with_the_number_of_particles() -> None:
    law, denoiser = tilted(SCORE_N.exp()), TabularDenoiser(JOINT, PLAIN)
    distance = [
        tv(counts(run(denoiser, Guide(reward=reward), count, steps=12, groups=4000).tokens_NL, 4), law)
        for count in (1, 2, 4, 8, 32)
    ]
    assert distance == sorted(distance, reverse=True)
    assert distance[0] > 0.25
    assert distance[-1] < 0.06


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_normaliser_is_unbiased_whether_or_not_particles_are_resampled(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps enough that the model's own law is its joint: one position at a time."""
    denoiser = TabularDenoiser(JOINT, PLAIN)
    monkeypatch.setattr(engine, "Cloud", lambda *args: Cloud(*args[:3], threshold), raising=True)
    found = run(denoiser, Guide(reward=reward), 4, steps=3, rule=Confidence(), groups=20_000)
    exact = float((JOINT.flatten() * SCORE_N.exp()).sum())
    estimate = found.log_normaliser_N.exp()
    error = float(estimate.std()) / len(estimate) ** 0.5
    assert float(estimate.mean()) == pytest.approx(exact, abs=4 * error)
    assert error < 0.02 * exact


def test_weights_that_are_dropped_where_nothing_is_resampled_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake of published code: it must be seen by the tests above."""

    class Forgetful(Cloud):
        def resample(self, step: int) -> Tensor | None:
            rows = super().resample(step)
            self.log_w_NK = torch.zeros_like(self.log_w_NK)
            return rows

    law, denoiser = tilted(SCORE_N.exp()), TabularDenoiser(JOINT, PLAIN)
    right = tv(counts(run(denoiser, Guide(reward=reward), 32, steps=12, groups=2000).tokens_NL, 4), law)
    monkeypatch.setattr(engine, "Cloud", Forgetful)
    wrong = tv(counts(run(denoiser, Guide(reward=reward), 32, steps=12, groups=2000).tokens_NL, 4), law)
    assert wrong > 1.7 * right


@pytest.mark.parametrize(("pattern", "seed"), [("(ab|c)*b?", 6), ("a.*b|c.*a", 9)])
def test_particles_remove_the_bias_that_a_step_exact_constraint_has(pattern: str, seed: int) -> None:
    automaton = ByteAutomaton.from_regex(pattern).lift(PLAIN)
    joint = random_joint(4, 3, seed=seed, sharpness=1.5, text=[0, 1, 2])
    law, denoiser = tilted(accepted(automaton, 3).double(), joint), TabularDenoiser(joint, PLAIN)
    alone, many = (
        run(denoiser, Guide(), count, steps=3, rule=Confidence(), groups=8000, automaton=automaton) for count in (1, 32)
    )
    assert tv(counts(many.tokens_NL, 4), law) < 0.06 < 0.15 < tv(counts(alone.tokens_NL, 4), law)
    exact = float((joint.flatten() * accepted(automaton, 3)).sum())
    found = many.log_normaliser_N.exp()
    assert float(found.mean()) == pytest.approx(exact, abs=4 * float(found.std()) / len(found) ** 0.5)


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_gradient_proposals_are_corrected_to_the_tempered_posterior(strength: float) -> None:
    """Strength 2 samples p(x) p(y | x)^2, which no step by step guide does."""
    noisy = NoisyClassifier(JOINT, seed=1)
    wish = Classifier(noisy, target=0, method="exact", tokenizer=PLAIN, top_k=None, strength=strength)
    out = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(
        constraint=wish, num_samples=4000, batch_size=64_000, steps=3, particles=16
    )
    law = tilted(noisy.given_text[0] ** strength)
    assert tv(counts(out.tokens, 4), law) < 0.04
    exact = float((JOINT.flatten() * noisy.given_text[0] ** strength).sum())
    found = out.log_weights.exp()
    assert float(found.mean()) == pytest.approx(exact, abs=4 * float(found.std()) / len(found) ** 0.5)


def tailed_joint() -> Tensor:
    joint = random_joint(5, 4, seed=3)
    well_formed = accepted(ByteAutomaton.from_regex("[ab]*").lift(TAILED), 4).reshape(joint.shape)
    return joint * well_formed / (joint * well_formed).sum()


class Tailed(TabularDenoiser):
    closed_tail = True


@pytest.mark.parametrize("pattern", [None, "(ab)*a?|b.*"])
def test_texts_that_end_have_their_exact_law(pattern: str | None) -> None:
    joint = tailed_joint()
    automaton = None if pattern is None else ByteAutomaton.from_regex(pattern).lift(TAILED)
    hard_N = torch.ones(5**4) if automaton is None else accepted(automaton, 4).double()
    score_N = torch.randn(5**4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    guide = Guide(reward=lambda texts, tokens: score_N[index_of(tokens, 5)])
    found = run(Tailed(joint, TAILED), guide, 32, steps=5, groups=3000, automaton=automaton, rule=Confidence())
    law = tilted(hard_N * score_N.exp(), joint)
    assert tv(counts(found.tokens_NL, 5), law) < 0.06
    exact = float((joint.flatten() * hard_N * score_N.exp()).sum())
    estimate = found.log_normaliser_N.exp()
    assert float(estimate.mean()) == pytest.approx(exact, abs=4 * float(estimate.std()) / len(estimate) ** 0.5)


def test_one_particle_without_reward_is_the_plain_sampler() -> None:
    pipe = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))
    plain = pipe(constraint=Pattern("(ab|c)*b?"), num_samples=50, steps=2)
    assert torch.equal(plain.log_weights, torch.zeros(50).double())
    found = run(
        TabularDenoiser(JOINT, PLAIN), Guide(), 1, steps=2, groups=50, rule=Confidence(),
        automaton=ByteAutomaton.from_regex("(ab|c)*b?").lift(PLAIN),
    )  # fmt: skip
    assert torch.equal(found.tokens_NL, plain.tokens)


def test_a_groups_result_does_not_depend_on_the_others() -> None:
    denoiser = TabularDenoiser(JOINT, PLAIN)
    pipe = GuidedPipeline(denoiser)
    wish = Reward(lambda texts: [1.0 * text.count("a") for text in texts])
    together = pipe(constraint=wish, num_samples=6, particles=4, steps=3, seed=list(range(6)))
    for row in range(6):
        alone = pipe(constraint=wish, particles=4, steps=3, seed=[row])
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert float(alone.log_weights[0]) == pytest.approx(float(together.log_weights[row]), abs=1e-9)
    reversed_ = pipe(constraint=wish, num_samples=6, particles=4, steps=3, seed=list(range(6))[::-1])
    assert torch.equal(reversed_.tokens.flip(0), together.tokens)


def test_systematic_resampling_copies_by_weight_within_the_group() -> None:
    cloud = Cloud(500, 4, Randomness(torch.arange(2000)), threshold=0.9)
    weights = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    cloud.add(weights.log().repeat(500))
    rows = cloud.resample(0)
    assert rows is not None
    group, place = rows.reshape(500, 4) // 4, rows.reshape(500, 4) % 4
    assert torch.equal(group, torch.arange(500)[:, None].expand(-1, 4))
    copies = torch.nn.functional.one_hot(place, 4).sum(1).double()
    assert bool(((copies - 4 * weights).abs() < 1).all())
    assert torch.allclose(copies.mean(0), 4 * weights, atol=0.1)
    assert torch.allclose(cloud.log_normaliser_N, weights.mean().log().expand(500))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"particles": 0}, "particles=0"),
        ({"particles": 2, "sampler": "llada"}, "does not look at the sampled tokens"),
        ({"particles": 2, "temperature": 0.0}, "temperature=0 takes the mode"),
        ({"particles": 2, "return_trace": True}, "cannot be combined with return_trace"),
        ({"particles": 2, "block_length": 2}, "cannot be combined with block_length"),
    ],
)
def test_what_particles_cannot_do_is_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(steps=2, **options)  # type: ignore[arg-type]


def test_a_reward_alone_cannot_steer_one_row() -> None:
    with pytest.raises(InvalidRequest, match="Give particles=8"):
        GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(constraint=Reward(lambda texts: [0.0] * len(texts)), steps=2)
