"""Classifier-free guidance: its kernel, its ends, its schedules, and what it needs."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Pattern, accepted, chi_square, counts, marginals_of, product_law, random_joint
from problems import MASK, PLAIN
from tiny import word_tokenizer

from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.denoisers import TabularDenoiser, TransformerDenoiser
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.errors import InvalidRequest, VocabularyMismatch
from guided_dlm.guidance import classifier_free

WITH = random_joint(4, 3, seed=5, sharpness=1.5, text=[0, 1, 2])
WITHOUT = random_joint(4, 3, seed=6, sharpness=1.5, text=[0, 1, 2])


def pipeline() -> GuidedPipeline:
    return GuidedPipeline(TabularDenoiser(WITH, PLAIN))


def draw(**options: Any) -> Any:
    second = TabularDenoiser(WITHOUT, PLAIN)
    return pipeline()(num_samples=20_000, batch_size=20_000, unconditional=second, **options)


@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("pattern", [None, "(ab|c)*b?"])
def test_one_step_has_the_normalised_product_of_powers(scale: float, pattern: str | None) -> None:
    with_LV, without_LV = marginals_of(WITH.flatten(), 4), marginals_of(WITHOUT.flatten(), 4)
    factors = with_LV.clamp_min(1e-300) ** scale * without_LV.clamp_min(1e-300) ** (1 - scale)
    factors[:, MASK] = 0
    wish = None if pattern is None else Pattern(pattern)
    hard_N = torch.ones(64).double()
    if wish is not None:
        hard_N = accepted(wish.to_automaton().lift(PLAIN), 3).double()
    law = product_law(factors / factors.sum(-1, keepdim=True), hard_N)
    out = draw(steps=1, guidance_scale=scale, constraint=wish)
    assert chi_square(counts(out.tokens, 4), law) > 1e-3
    assert out.denoiser_calls == 2


def test_scale_one_is_the_conditional_model_and_asks_no_other() -> None:
    plain = pipeline()(num_samples=100, steps=3)
    assert torch.equal(draw_few(1.0).tokens, plain.tokens)
    assert torch.equal(draw_few(lambda progress: 1.0).tokens, plain.tokens)


def draw_few(scale: Any) -> Any:
    second = TabularDenoiser(WITHOUT, PLAIN)
    return pipeline()(num_samples=100, steps=3, unconditional=second, guidance_scale=scale)


def test_scale_nought_is_the_other_model() -> None:
    plain = GuidedPipeline(TabularDenoiser(WITHOUT, PLAIN))(num_samples=100, steps=3)
    assert torch.equal(draw_few(0.0).tokens, plain.tokens)


def test_a_schedule_reads_progress() -> None:
    seen: list[float] = []

    def rising(progress: float) -> float:
        seen.append(progress)
        return 1.0 + progress

    second = TabularDenoiser(WITHOUT, PLAIN)
    pipeline()(num_samples=10, steps=3, unconditional=second, guidance_scale=rising)
    assert seen == pytest.approx([0.0, 1 / 3, 2 / 3])


@given(st.floats(-5, 5), st.integers(0, 100))
def test_what_either_model_calls_impossible_makes_no_nan(scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, 3, 5, generator=generator, dtype=torch.float64)
    impossible = torch.rand(logits.shape, generator=generator) < 0.3
    impossible[..., 0] = False
    found = classifier_free(*logits.masked_fill(impossible, -torch.inf), scale)
    assert not bool(torch.isnan(found).any())
    assert bool(found[impossible[0]].isneginf().all())
    assert bool(found[~impossible[0]].isfinite().all())


def transformer() -> TransformerDenoiser:
    tokenizer = word_tokenizer()
    torch.manual_seed(0)
    config = DiffusionTransformerConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=24, mask_token_id=tokenizer.mask_token_id,
    )  # fmt: skip
    model = DiffusionTransformer(config)
    return TransformerDenoiser(model, Vocabulary.from_tokenizer(tokenizer))


def test_the_prompt_is_masked_or_replaced_in_the_unconditional_half(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = transformer()
    seen: list[torch.Tensor] = []
    real = TransformerDenoiser.at_open

    def spy(self: Any, canvas: Any, t: float, carry: Any = None) -> Any:
        seen.append(canvas.prompt_BP)
        return real(self, canvas, t, carry)

    monkeypatch.setattr(TransformerDenoiser, "at_open", spy)
    pipe, prompt = GuidedPipeline(denoiser), "the mill"
    ids = denoiser.vocabulary.encode(prompt)
    pipe(prompt, steps=1, guidance_scale=2.0)
    assert seen[0].tolist() == [ids]
    assert seen[1].tolist() == [[denoiser.vocabulary.mask_id] * len(ids)]
    pipe([prompt, "a pub"], steps=1, guidance_scale=2.0, negative_prompt=["a pub", "the mill"])
    assert seen[-1].tolist() == seen[-2].flip(0).tolist()


def test_both_halves_see_the_blocks_that_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = transformer()
    seen: list[list[int]] = []
    real = TransformerDenoiser.at_open

    def spy(self: Any, canvas: Any, t: float, carry: Any = None) -> Any:
        seen.append(canvas.prompt_BP[0].tolist())
        return real(self, canvas, t, carry)

    monkeypatch.setattr(TransformerDenoiser, "at_open", spy)
    out = GuidedPipeline(denoiser)("the mill", steps=1, guidance_scale=2.0, block_length=3, max_new_tokens=9)
    ids, written = denoiser.vocabulary.encode("the mill"), out.tokens[0].tolist()
    mask = [denoiser.vocabulary.mask_id] * len(ids)
    assert seen == [half + written[:begin] for begin in (0, 3, 6) for half in (ids, mask)]


def test_what_it_needs_is_said() -> None:
    with pytest.raises(InvalidRequest, match="there is no prompt"):
        pipeline()(steps=2, guidance_scale=2.0)
    with pytest.raises(InvalidRequest, match="must be finite"):
        pipeline()(steps=2, guidance_scale=float("nan"))
    with pytest.raises(InvalidRequest, match="one for each prompt"):
        pipeline()(steps=2, guidance_scale=2.0, negative_prompt=["a", "b"])
    other = TabularDenoiser(
        random_joint(3, 3, seed=0, text=[0, 1]), Vocabulary.from_tokens([b"x", b"y", b""], None, None, 2)
    )
    with pytest.raises(VocabularyMismatch, match="other tokens"):
        pipeline()(steps=2, guidance_scale=2.0, unconditional=other)
