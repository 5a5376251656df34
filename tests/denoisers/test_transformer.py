"""The project's own transformer: padding, positions, alignment, dtype, saving, and the conformance kit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tabular_pipeline, tiny_model, tiny_pipeline, tiny_vocabulary, well_formed, word_tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModel, BertConfig

from guided_dlm import Vocabulary
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.denoisers.layers import Rotation, attend
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.denoisers.transformer import SEEN_TAIL, TransformerDenoiser
from guided_dlm.errors import GuidedError, InvalidRequest
from guided_dlm.testing import ConformanceError, check_denoiser

CPU = torch.device("cpu")


def denoiser(canvas: int = 16) -> TransformerDenoiser:
    return TransformerDenoiser(tiny_model(canvas), Vocabulary.from_tokenizer(word_tokenizer()))


def masked_canvas(prompts: list[str | None], length: int = 6) -> Canvas:
    model = denoiser()
    canvas = Canvas.from_prompts(prompts, model.vocabulary, length, CPU)
    tokens_BL = torch.full_like(canvas.tokens_BL, int(model.vocabulary.mask_id or 0))
    tokens_BL[:, 2] = 20
    return canvas.write(tokens_BL, torch.ones_like(canvas.fixed_BL))


@pytest.mark.parametrize("causal", [False, True])
def test_left_padding_acts_as_if_it_were_not_there(causal: bool) -> None:
    model = tiny_model(16, causal=causal)
    tokens_BL = torch.randint(0, 100, (3, 10), generator=torch.Generator().manual_seed(0))
    mask_BL = torch.ones(3, 10, dtype=torch.bool)
    mask_BL[1, :4], mask_BL[2, :9] = False, False
    with torch.no_grad():
        padded = model(input_ids=tokens_BL, attention_mask=mask_BL).logits
        for row, skip in enumerate([0, 4, 9]):
            alone = model(input_ids=tokens_BL[row : row + 1, skip:]).logits
            torch.testing.assert_close(padded[row, skip:], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_on_the_right_acts_as_if_it_were_not_there(causal: bool) -> None:
    model = tiny_model(16, causal=causal)
    tokens_BL = torch.randint(0, 100, (3, 10), generator=torch.Generator().manual_seed(0))
    mask_BL = torch.ones(3, 10, dtype=torch.bool)
    mask_BL[0, 7:], mask_BL[1, 3:], mask_BL[1, :1] = False, False, False
    with torch.no_grad():
        padded = model(input_ids=tokens_BL, attention_mask=mask_BL).logits
        for row, (begin, end) in enumerate([(0, 7), (1, 3), (0, 10)]):
            alone = model(input_ids=tokens_BL[row : row + 1, begin:end]).logits
            torch.testing.assert_close(padded[row, begin:end], alone[0], atol=1e-5, rtol=0)
        # Training does no packing, and has to see the same.
        trained = model.train()(input_ids=tokens_BL, attention_mask=mask_BL).logits
    torch.testing.assert_close(padded[mask_BL], trained[mask_BL], atol=1e-5, rtol=0)


def ended_canvas(model: TransformerDenoiser, ends: list[int], length: int = 14) -> Canvas:
    """Rows with masks in the text, an end of text at these places, and padding after it."""
    vocabulary = model.vocabulary
    canvas = Canvas.from_prompts(["The", "Near the pub", None], vocabulary, length, CPU)
    tokens_BL = torch.full_like(canvas.tokens_BL, int(vocabulary.pad_id or 0))
    for row, end in enumerate(ends):
        tokens_BL[row, :end], tokens_BL[row, end] = int(vocabulary.mask_id or 0), int(vocabulary.eos_id or 0)
        tokens_BL[row, 1] = 20 + row
    return canvas.write(tokens_BL, torch.ones_like(canvas.fixed_BL))


def first_block(canvas: Canvas, length: int) -> Canvas:
    """So many positions, with the others ahead of them."""
    tokens_BL, fixed_BL = canvas.tokens_BL, canvas.fixed_BL[:, :length]
    return replace(canvas, tokens_BL=tokens_BL[:, :length], fixed_BL=fixed_BL, ahead_BR=tokens_BL[:, length:])


def test_long_padding_is_not_read_where_the_model_can_do_without() -> None:
    model = denoiser(24)
    ends = [3, 12, 6]
    canvas = ended_canvas(model, ends)
    whole, _ = model(canvas, 1.0)
    model.model.config.reads_tail = False
    logits, _ = model(canvas, 1.0)
    writable = torch.isfinite(whole[0, 0])
    pad = int(model.vocabulary.pad_id or 0)
    for row, end in enumerate(ends):
        width = min(end + 1 + SEEN_TAIL, 14)
        short = replace(
            canvas.select(torch.tensor([row])),
            tokens_BL=canvas.tokens_BL[row : row + 1, :width],
            fixed_BL=canvas.fixed_BL[row : row + 1, :width],
        )
        model.model.config.reads_tail = True
        alone, _ = model(short, 1.0)
        torch.testing.assert_close(logits[row, :width, writable], alone[0][:, writable], atol=1e-5, rtol=0)
        assert bool((logits[row, width:].double().softmax(-1)[:, pad] > 1 - 1e-9).all())
    assert torch.equal(torch.isfinite(logits), writable.expand_as(logits))
    assert not torch.allclose(logits[0, :4, writable], whole[0, :4, writable], atol=1e-3)


def test_logits_at_open_positions_are_those_of_a_call() -> None:
    model = denoiser(24)
    model.model.config.reads_tail = False
    canvas = ended_canvas(model, [3, 12, 6])
    for some in (canvas, first_block(canvas, 8)):
        open_BL = model.process.known(some) < 0
        whole, partly = model(some, 1.0)[0], model.at_open(some, 1.0)[0]
        torch.testing.assert_close(partly[open_BL], whole[open_BL], atol=1e-5, rtol=0)
        assert torch.equal(partly.isfinite(), whole.isfinite())
        assert not torch.allclose(partly[~open_BL], whole[~open_BL])  # no work was spent there


def test_a_subclass_that_changes_the_call_changes_the_open_positions() -> None:
    class Shifted(TransformerDenoiser):
        def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
            logits_BLV, carry = super().__call__(canvas, t, carry)
            return logits_BLV + 1.0, carry

    plain = denoiser(24)
    plain.model.config.reads_tail = False
    canvas = ended_canvas(plain, [3, 12, 6])
    shifted = Shifted(plain.model, plain.vocabulary)
    torch.testing.assert_close(shifted.at_open(canvas, 1.0)[0], plain(canvas, 1.0)[0] + 1.0)


def test_what_is_ahead_of_a_block_is_read_as_far_as_it_is_no_padding() -> None:
    model = denoiser(24)
    canvas = ended_canvas(model, [3, 12, 6])
    block = first_block(canvas, 4)
    model.model.config.reads_tail = False
    torch.testing.assert_close(model(block, 1.0)[0], model(canvas, 1.0)[0][:, :4], atol=1e-5, rtol=0)


def test_attention_written_out_is_the_fused_one_in_bfloat16() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, 9, 8, generator=draw) for _ in range(3))
    visible = torch.rand(3, 1, 1, 9, generator=draw) < 0.6
    visible[..., 0] = True
    for seen, causal in ((visible, False), (None, True), (None, False)):
        fused = attend(query, key, value, seen, causal, False)
        written = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), seen, causal, False)
        torch.testing.assert_close(written.float(), fused, atol=0.03, rtol=0)


def test_prompts_of_different_lengths_see_what_they_would_see_alone() -> None:
    prompts = ["The", None, "Near the riverside pub", "is a"]
    model = denoiser()
    together, _ = model(masked_canvas(prompts), 1.0)
    for row, prompt in enumerate(prompts):
        alone, _ = model(masked_canvas([prompt]), 1.0)
        text = torch.isfinite(alone[0])
        torch.testing.assert_close(together[row][text], alone[0][text], atol=1e-5, rtol=0)
        assert torch.equal(torch.isfinite(together[row]), text)


def test_the_prompt_matters_and_its_filler_does_not() -> None:
    model, canvas = denoiser(), masked_canvas(["The", "Near the pub"])
    logits, _ = model(canvas, 1.0)
    filler = canvas.prompt_BP.clone()
    filler[~canvas.visible_BP] = 17
    other = Canvas(prompt_BP=filler, visible_BP=canvas.visible_BP, tokens_BL=canvas.tokens_BL, fixed_BL=canvas.fixed_BL)
    assert torch.equal(model(other, 1.0)[0], logits)
    changed, _ = model(masked_canvas(["The", "Near the Mill"]), 1.0)
    assert torch.equal(changed[0], logits[0])
    assert not torch.allclose(changed[1].clamp_min(-99), logits[1].clamp_min(-99), atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_queries_keys_and_values_stay_in_half_precision_under_autocast(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found = tiny_model().train(training), []

    def noted(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        found.append((query.dtype, key.dtype, value.dtype))
        return attend(query, key, value, *rest)

    monkeypatch.setattr("guided_dlm.denoisers.layers.attend", noted)
    tokens_BL = torch.randint(5, 20, (2, 8), generator=torch.Generator().manual_seed(0))
    seen_BL = torch.arange(8).expand(2, 8) < torch.tensor([[6], [8]])
    for mask_BL in (None, seen_BL):
        with torch.autocast("cpu", torch.bfloat16):
            model(input_ids=tokens_BL, attention_mask=mask_BL)
    assert found == [(torch.bfloat16,) * 3] * 4


def test_position_l_predicts_token_l_from_what_stands_before_it_when_causal() -> None:
    model = tiny_model(causal=True)
    tokens_BL = torch.randint(0, 100, (1, 8), generator=torch.Generator().manual_seed(0))
    changed = tokens_BL.clone()
    changed[0, 4] += 1
    with torch.no_grad():
        before, after = model(input_ids=tokens_BL).logits[0], model(input_ids=changed).logits[0]
    torch.testing.assert_close(before[:5], after[:5])
    assert not torch.allclose(before[5:], after[5:], atol=1e-3)


def test_without_causality_every_position_is_read_from_everywhere() -> None:
    model = tiny_model()
    tokens_BL = torch.randint(0, 100, (1, 8), generator=torch.Generator().manual_seed(0))
    changed = tokens_BL.clone()
    changed[0, 7] += 1
    with torch.no_grad():
        before, after = model(input_ids=tokens_BL).logits[0], model(input_ids=changed).logits[0]
    assert ((before - after).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_training_and_inference_attend_alike(causal: bool, padded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, 5, 8, generator=generator) for _ in range(3))
    visible = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril() if padded else None
    if visible is not None:
        visible[1, ..., 1:3] = False
    slow, fast = (attend(query, key, value, visible, causal, training) for training in (True, False))
    torch.testing.assert_close(slow, fast, atol=1e-5, rtol=1e-5)
    if causal and not padded:
        torch.testing.assert_close(slow[:, :, 0], value[:, :, 0])


def test_rotation_depends_on_distance_only() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 1, 1, 8, generator=generator), torch.randn(1, 1, 1, 8, generator=generator)

    def score(at: int, other: int) -> float:
        places = ((query, at), (key, other))
        turned = (Rotation(torch.tensor([[place]]), 8)(x) for x, place in places)
        return float((next(turned) * next(turned)).sum())

    assert score(3, 1) == pytest.approx(score(10, 8), abs=1e-5)
    assert score(3, 1) != pytest.approx(score(1, 3), abs=1e-3)
    assert score(0, 0) == pytest.approx(float((query * key).sum()))


def test_saved_in_half_precision_loads_as_it_was(tmp_path: Path) -> None:
    model = tiny_model()
    tokens_BL = torch.randint(0, 100, (2, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(input_ids=tokens_BL).logits
    model.half().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    loaded = TransformerDenoiser.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    with torch.no_grad():
        after = loaded.model(input_ids=tokens_BL).logits
    torch.testing.assert_close(before, after, atol=0.05, rtol=0.05)
    assert loaded.vocabulary.fingerprint == Vocabulary.from_tokenizer(word_tokenizer()).fingerprint
    assert isinstance(AutoModel.from_pretrained(tmp_path), DiffusionTransformer)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), DiffusionTransformerConfig)


def test_the_embedding_is_stored_once(tmp_path: Path) -> None:
    model = tiny_model()
    size = sum(parameter.numel() for parameter in model.parameters())
    model.half().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 2 * size + 4096


def test_bfloat16_gives_float32_logits() -> None:
    model = TransformerDenoiser(tiny_model().to(torch.bfloat16), Vocabulary.from_tokenizer(word_tokenizer()))
    logits_BLV, _ = model(masked_canvas(["The", None]), 1.0)
    assert logits_BLV.dtype == torch.float32
    assert not logits_BLV.isnan().any()


def test_an_autoregressive_checkpoint_is_no_denoiser() -> None:
    with pytest.raises(InvalidRequest, match="autoregressive"):
        TransformerDenoiser(tiny_model(causal=True), Vocabulary.from_tokenizer(word_tokenizer()))


def test_a_vocabulary_without_mask_is_no_denoiser() -> None:
    with pytest.raises(InvalidRequest, match="mask token"):
        TransformerDenoiser(tiny_model(), Vocabulary.from_tokens([b"a", b""], eos_id=1))


def test_another_kind_of_model_is_refused_not_filled_with_noise(tmp_path: Path) -> None:
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(GuidedError, match="bert"):
        TransformerDenoiser.from_pretrained(tmp_path)


def test_a_tokenizer_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"predicts \d{3} tokens.*vocabulary has 8"):
        TransformerDenoiser(tiny_model(), tiny_vocabulary())


@pytest.mark.parametrize("make", [lambda: tiny_pipeline().denoiser, lambda: tabular_pipeline().denoiser, denoiser])
def test_our_denoisers_conform(make: Any) -> None:
    check_denoiser(make())


class Spoiled(TransformerDenoiser):
    """Each subclass breaks one clause."""

    def __init__(self) -> None:
        super().__init__(tiny_model(), Vocabulary.from_tokenizer(word_tokenizer()))

    def spoil(self, logits_BLV: Tensor) -> Tensor:
        return logits_BLV

    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        logits_BLV, carry = super().__call__(canvas, t, carry)
        return self.spoil(logits_BLV.clone()), carry


class MixesRows(Spoiled):
    def spoil(self, logits_BLV: Tensor) -> Tensor:
        return logits_BLV + logits_BLV[..., 40:41].mean(0)


class MovesWithTheCall(Spoiled):
    calls = 0

    def spoil(self, logits_BLV: Tensor) -> Tensor:
        self.calls += 1
        return logits_BLV + self.calls * torch.arange(logits_BLV.shape[-1])


class LeavesTheMaskAlive(Spoiled):
    def spoil(self, logits_BLV: Tensor) -> Tensor:
        logits_BLV[..., int(self.vocabulary.mask_id or 0)] = 0.0
        return logits_BLV


class ForbidsAToken(Spoiled):
    def spoil(self, logits_BLV: Tensor) -> Tensor:
        logits_BLV[..., 50] = -torch.inf
        return logits_BLV


class GivesNaN(Spoiled):
    def spoil(self, logits_BLV: Tensor) -> Tensor:
        logits_BLV[0, 0, 50] = torch.nan
        return logits_BLV


class TooShort(Spoiled):
    def spoil(self, logits_BLV: Tensor) -> Tensor:
        return logits_BLV[:, :-1]


class HalfPrecision(Spoiled):
    def spoil(self, logits_BLV: Tensor) -> Tensor:
        return logits_BLV.half()


class OpenOtherwise(Spoiled):
    def at_open(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        logits_BLV, carry = self(canvas, t, carry)
        return torch.where(logits_BLV.isfinite(), 0.0, logits_BLV), carry


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (MixesRows, "Row . alone gives other logits"),
        (MovesWithTheCall, "same canvas gave different logits"),
        (LeavesTheMaskAlive, "must be -inf"),
        (ForbidsAToken, "no support"),
        (GivesNaN, "NaN"),
        (TooShort, "have shape"),
        (HalfPrecision, "give float32"),
        (OpenOtherwise, "at_open gives other logits"),
    ],
)
def test_each_broken_clause_is_found(broken: type[Spoiled], reason: str) -> None:
    check_denoiser(Spoiled())
    with pytest.raises(ConformanceError, match=reason):
        check_denoiser(broken())


@pytest.mark.parametrize(
    ("joint", "reason"),
    [
        (torch.ones(8, 7), "all sides 8"),
        (-torch.ones(8, 8), "not negative"),
        (torch.zeros(8, 8), "not all zero"),
    ],
)
def test_a_joint_that_is_no_law_is_refused(joint: Tensor, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        TabularDenoiser(joint, tiny_vocabulary())


def test_a_tabular_denoiser_takes_its_own_length_and_no_prompt() -> None:
    model = TabularDenoiser(well_formed(2), tiny_vocabulary())
    for prompts, length in (([None], 1), (["a"], 2)):
        canvas = Canvas.from_prompts(prompts, tiny_vocabulary(), length, CPU)
        with pytest.raises(InvalidRequest, match="2 positions and takes no prompt"):
            model(canvas, 1.0)
