"""Particles against exact laws: tilted targets, normalisers, and what a step-exact sampler leaves out."""

import itertools
import math

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


def len_of(texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


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
    resampling: str = "systematic",
) -> Sampled:
    seeds = particle_seeds(row_seeds(seed, groups, CPU), count)
    plan = Plan(
        denoiser=denoiser, guide=guide, automata=automaton, rule=rule or Ancestral(), randomness=Randomness(seeds),
        steps=steps,
    )  # fmt: skip
    canvas = Canvas.from_prompts([None] * (groups * count), denoiser.vocabulary, denoiser.joint.dim(), CPU)
    vocabulary = denoiser.vocabulary
    return sample_particles(
        plan, canvas, count, lambda t: [vocabulary.decode(row) for row in t.tolist()], resampling=resampling
    )


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
        def resample(self, step: int, open_N: Tensor | None = None) -> Tensor | None:
            rows = super().resample(step, open_N)
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


@pytest.mark.parametrize("resampling", ["systematic", "search"])
def test_a_group_that_is_finished_stays_as_it_is_while_others_are_written(resampling: str) -> None:
    """Independent coins finish groups at different steps; their rewards must not be resampled over meanwhile."""
    pipe = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))
    wish = Reward(lambda texts: [3.0 * t.count("a") + 1.11 * t.count("b") * t.startswith("c") for t in texts])
    how = {"constraint": wish, "particles": 4, "steps": 8, "sampler": "ancestral", "resampling": resampling}
    together = pipe(num_samples=40, batch_size=160, seed=list(range(40)), **how)  # type: ignore[arg-type]
    for row in range(40):
        alone = pipe(seed=[row], **how)  # type: ignore[arg-type]
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert float((alone.effective_size - together.effective_size[row]).abs()) < 1e-9  # type: ignore[operator, index]


def searched_reward(count: int) -> float:
    found = run(
        TabularDenoiser(JOINT, PLAIN), Guide(reward=reward), count, steps=3, rule=Confidence(), groups=3000,
        resampling="search",
    )  # fmt: skip
    return float(SCORE_N[index_of(found.tokens_NL)].mean())


def test_a_search_finds_more_reward_than_no_guide_and_the_more_the_wider_it_is() -> None:
    unguided = float((JOINT.flatten() * SCORE_N).sum())
    found = [searched_reward(count) for count in (1, 2, 4, 8)]
    assert found[0] == pytest.approx(unguided, abs=0.1)
    assert all(more > less + 0.1 for less, more in itertools.pairwise(found))


@pytest.mark.parametrize("sampler", ["confidence", "llada", "ancestral"])
def test_a_search_keeps_hard_constraints_and_is_decided_by_its_seed(sampler: str) -> None:
    pipe = GuidedPipeline(Tailed(tailed_joint(), TAILED))
    wish = Pattern("(ab)*a?|b.*") & Reward(lambda texts: [4.0 * text.count("b") for text in texts])
    how = {"constraint": wish, "num_samples": 200, "particles": 4, "steps": 4, "sampler": sampler}
    out, again = (pipe(resampling="search", **how) for _ in range(2))  # type: ignore[arg-type]
    assert bool(out.satisfied.all())
    assert torch.equal(out.tokens, again.tokens)
    assert not torch.equal(out.tokens, pipe(resampling="search", seed=1, **how).tokens)  # type: ignore[arg-type]


def test_a_search_claims_no_normaliser_and_the_report_names_it() -> None:
    wish = Reward(lambda texts: [0.0] * len(texts))
    pipe, hard = GuidedPipeline(TabularDenoiser(JOINT, PLAIN)), Pattern("a.*|.*c")
    out = pipe(constraint=hard & 2.0 * wish, steps=2, particles=2, resampling="search")
    assert out.log_weights is None
    assert out.report[0][repr(wish)]["notes"] == {"resampling": "reward search, best effort"}
    assert "notes" not in out.report[0][repr(hard)]
    weighted = pipe(constraint=hard & 2.0 * wish, steps=2, particles=2)
    assert weighted.log_weights is not None and "notes" not in weighted.report[0][repr(wish)]


@pytest.mark.parametrize(
    ("wish", "options", "reason"),
    [
        (None, {"resampling": "sytematic"}, "choose 'systematic' or 'search'"),
        (None, {"resampling": "search"}, "particles=1 leaves nothing to pick"),
        (None, {"resampling": "search", "particles": 4}, "a row without a constraint has none"),
        (Pattern("a.*"), {"resampling": "search", "particles": 4}, r"Pattern\('a\.\*'\) has none"),
        ("reward", {"resampling": "search", "particles": 4, "temperature": 0.0}, "temperature=0 takes the mode"),
    ],
)
def test_what_a_search_cannot_do_is_refused(wish: object, options: dict[str, object], reason: str) -> None:
    wish = Reward(lambda texts: [0.0] * len(texts)) if wish == "reward" else wish
    with pytest.raises(InvalidRequest, match=reason):
        GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(constraint=wish, steps=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("resampling", ["systematic", "search"])
def test_rows_whose_particles_are_all_rejected_are_named(resampling: str) -> None:
    """The wish is too rare for two particles; the rows that found it are not named."""
    wish = Reward(lambda texts: [1.0 if text == "cab" else -math.inf for text in texts]) & Reward(len_of)
    pipe = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))
    with pytest.warns(UserWarning, match=r"rejects all 2 particles .* in \d+ rows: ") as caught:
        out = pipe(constraint=wish, num_samples=40, batch_size=16, steps=2, particles=2, resampling=resampling)
    missed = [row for row, text in enumerate(out.texts) if text != "cab"]
    assert 0 < len(missed) < 40
    assert f"in {len(missed)} rows: {', '.join(map(str, missed[:10]))}" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_a_rule_of_ones_own_can_say_that_it_sees_tokens() -> None:
    class Mine(Confidence):
        sees_tokens = True

    with pytest.raises(InvalidRequest, match=r"does not look at the sampled tokens; .*Mine.* does"):
        GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(steps=2, particles=2, sampler=Mine())


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
    ],
)
def test_what_particles_cannot_do_is_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(steps=2, **options)  # type: ignore[arg-type]


def test_a_reward_alone_cannot_steer_one_row() -> None:
    with pytest.raises(InvalidRequest, match="Give particles=8"):
        GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(constraint=Reward(lambda texts: [0.0] * len(texts)), steps=2)
