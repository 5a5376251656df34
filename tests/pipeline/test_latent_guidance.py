"""Latent guidance through the front door: hard constraints hold on every output, and nonsense is refused."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from latent_problems import (
    EMBEDDINGS,
    EVERY,
    PRIORS,
    SIZE,
    SUM_3,
    VOCABULARY,
    FactorsOnly,
    blank,
    drawn,
    joint_of,
    plan_of,
    slope,
    step_at,
    tabular,
)
from oracles import CPU, Pattern
from tiny import word_tokenizer

from constraints import Length, Words
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import GaussianDenoiser, TabularDenoiser
from guided_dlm.denoisers.latent_modeling import LatentTransformer, LatentTransformerConfig
from guided_dlm.errors import Infeasible, InvalidRequest, UnknownName
from guided_dlm.processes import GaussianProcess, SimplexProcess
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.samplers import DiffusionLM, LatentGuidance, ScoreGuidance
from guided_dlm.samplers.latent import latents_of, log_evidence

SOLVERS: list[dict[str, Any]] = [
    {},
    {"clean": "mean"},
    {"clean": "mean", "eta": 0.0},
    {"clean": "mean", "eta": 0.0, "solver": "dpm++2m"},
]


@pytest.mark.parametrize("stepping", SOLVERS)
@pytest.mark.parametrize("guidance", [ScoreGuidance(), ScoreGuidance(scale=4.0), DiffusionLM(fluency=0.0)])
@pytest.mark.parametrize("adapter", [TabularDenoiser, FactorsOnly])
def test_every_output_satisfies_a_hard_constraint(
    adapter: type[TabularDenoiser], guidance: LatentGuidance, stepping: dict[str, Any]
) -> None:
    pipe = GuidedPipeline(tabular("copy", adapter, **stepping))
    for steps in (1, 6):
        out = pipe(constraint=Pattern(SUM_3), num_samples=200, steps=steps, latent_guidance=guidance, seed=steps)
        assert bool(out.satisfied.all())


def tiny_latent_denoiser() -> GaussianDenoiser:
    """A random transformer of width 32."""
    tokenizer = word_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LatentTransformerConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=12, embedding_size=8, mask_token_id=tokenizer.mask_token_id,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        model = LatentTransformer(config)
        torch.nn.init.normal_(model.from_latent.weight, std=0.2)
    return GaussianDenoiser(model, Vocabulary.from_tokenizer(tokenizer))


@pytest.mark.parametrize("guidance", ["score", "diffusion-lm"])
def test_a_transformer_keeps_a_hard_constraint_on_every_output(guidance: str) -> None:
    wish = Length(words=(3, 6)) & Words(include=["pub"])
    pipe = GuidedPipeline(tiny_latent_denoiser())
    for prompt, steps in itertools.product((None, "The Mill"), (1, 8)):
        out = pipe(prompt, wish, num_samples=16, steps=steps, latent_guidance=guidance, max_new_tokens=9)
        assert bool(out.satisfied.all())


def test_blocks_traces_and_stops_go_with_latent_guidance() -> None:
    pipe, wish = GuidedPipeline(tiny_latent_denoiser()), Length(words=(3, 6)) & Words(include=["pub"])
    blocks = pipe(constraint=wish, num_samples=8, steps=4, latent_guidance="score", block_length=4)
    assert bool(blocks.satisfied.all())
    traced = pipe(constraint=wish, num_samples=8, steps=4, latent_guidance="score", return_trace=True)
    assert traced.trace is not None
    stopped = pipe(constraint=wish, num_samples=8, steps=6, latent_guidance="score", callback=lambda step: "stop")
    assert bool(stopped.satisfied.all())
    assert stopped.denoiser_calls == 2


def test_a_transformers_gradient_is_that_of_finite_differences() -> None:
    denoiser = tiny_latent_denoiser()
    automaton = GuidedPipeline(denoiser).context(6)
    guide = (Length(words=(2, 4)) & Words(include=["pub"])).compile(automaton)
    canvas = Canvas.from_prompts([None], denoiser.vocabulary, 6, CPU)
    canvas = denoiser.process.start(canvas, Randomness(row_seeds(0, 1, CPU)))
    at = step_at(0.6)
    plan = plan_of(denoiser, guide.automaton, ScoreGuidance(), 1)  # type: ignore[arg-type]
    gradient = slope(plan, canvas, at)
    direction = gradient / gradient.norm()
    sides = []
    for sign in (1.0, -1.0):
        moved = replace(canvas, latents_BLD=latents_of(canvas) + sign * 0.02 * direction)
        sides.append(float(log_evidence(plan, moved, at, denoiser(moved, at.t)[0])))
    assert (sides[0] - sides[1]) / 0.04 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_a_name_stands_for_the_defaults_and_calls_are_counted() -> None:
    pipe, wish = GuidedPipeline(tabular("skewed")), Pattern(SUM_3)
    named, given = (
        pipe(constraint=wish, num_samples=20, steps=5, latent_guidance=one) for one in ("score", ScoreGuidance())
    )
    assert torch.equal(named.tokens, given.tokens)
    assert named.denoiser_calls == 5 + 1
    assert pipe(constraint=wish, steps=5, latent_guidance="diffusion-lm").denoiser_calls == 5 + 3 * 4
    assert pipe(constraint=wish, steps=5).denoiser_calls == 5


def test_a_typo_is_answered_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'score'"):
        GuidedPipeline(tabular("copy"))(constraint=Pattern("a.*"), latent_guidance="scor")


def test_what_has_no_latents_is_refused() -> None:
    masked = TabularDenoiser(torch.ones(4, 4), Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=3))
    simplex = TabularDenoiser(PRIORS["copy"], VOCABULARY, SimplexProcess(size=SIZE))
    for denoiser, name in ((masked, "MaskedProcess"), (simplex, "SimplexProcess")):
        with pytest.raises(InvalidRequest, match=f"{name} has none"):
            GuidedPipeline(denoiser)(constraint=Pattern("a.*"), latent_guidance="score")
        with pytest.raises(InvalidRequest, match="TabularDenoiser offers no gradient"):
            denoiser.differentiable(blank(1), 0.5)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"latent_guidance": 1.0}, "latent_guidance=1.0"),
        ({"latent_guidance": "score", "constraint": None}, "nothing to guide towards"),
        ({"latent_guidance": "score", "particles": 4}, "Particles"),
        ({"latent_guidance": "score", "corrector": "remdm-cap"}, "corrector"),
    ],
)
def test_requests_that_make_no_sense_are_refused(request_: dict[str, Any], message: str) -> None:
    pipe = GuidedPipeline(tabular("copy"))
    with pytest.raises((InvalidRequest, UnknownName), match=message):
        pipe(**{"constraint": Pattern("a.*"), **request_})


def test_diffusion_lm_without_noise_in_its_steps_is_refused() -> None:
    pipe = GuidedPipeline(tabular("copy", clean="mean", eta=0.0))
    with pytest.raises(InvalidRequest, match="no such density"):
        pipe(constraint=Pattern("a.*"), latent_guidance="diffusion-lm")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ScoreGuidance, {"scale": -1.0}),
        (ScoreGuidance, {"scale": math.inf}),
        (ScoreGuidance, {"scale": True}),
        (DiffusionLM, {"steps": 0}),
        (DiffusionLM, {"steps": 2.5}),
        (DiffusionLM, {"learning_rate": "fast"}),
        (DiffusionLM, {"fluency": -0.1}),
    ],
)
def test_options_that_mean_nothing_are_refused(kind: type[Any], options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        kind(**options)


def test_a_wish_that_the_joint_rules_out_has_no_score() -> None:
    joint = joint_of(torch.where((EVERY == 1).any(1), 0.0, 1.0))
    denoiser = TabularDenoiser(joint, VOCABULARY, GaussianProcess(embeddings_VD=EMBEDDINGS))
    only_b = ByteAutomaton.from_regex("bbb").lift(VOCABULARY)
    assert isinstance(only_b, TokenAutomaton)
    with pytest.raises(Infeasible, match="probability 0 under this joint"):
        drawn(plan_of(denoiser, only_b, ScoreGuidance(), 2, steps=3))
