"""The block model: its two streams, its cache of what is written, and the adapter around it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import tiny_model, word_tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModel

from constraints import Length, Words
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import BlockDenoiser, TransformerDenoiser
from guided_dlm.denoisers.block_modeling import BlockTransformer, BlockTransformerConfig, PrefixCache
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.errors import InvalidRequest
from guided_dlm.testing import check_denoiser

CPU = torch.device("cpu")
WIDTH = 4
PROMPTS = ["The Mill is a", None, "pub", "The"]


def tiny_block_model(canvas: int, width: int) -> BlockTransformer:
    """The weights of `tiny_model` as a block model."""
    start = tiny_model(canvas)
    sizes = {name: value for name, value in start.config.to_dict().items() if name not in ("model_type", "process")}
    model = BlockTransformer(BlockTransformerConfig(**sizes | {"block_length": width})).eval()
    model.load_state_dict(start.state_dict())
    return model


def block_denoiser(canvas: int = 16) -> BlockDenoiser:
    return BlockDenoiser(tiny_block_model(canvas, WIDTH), Vocabulary.from_tokenizer(word_tokenizer()))


def blocks_of(denoiser: BlockDenoiser, prompts: list[str | None], length: int) -> Iterator[Canvas]:
    """Random canvases, some of their tokens hidden, each with the clean ones before it as its prompt."""
    draw = torch.Generator().manual_seed(0)
    canvas = Canvas.from_prompts(prompts, denoiser.vocabulary, length, CPU)
    clean_BL = torch.randint(4, 30, canvas.tokens_BL.shape, generator=draw)
    hidden_BL = torch.rand(clean_BL.shape, generator=draw) < 0.6
    for begin in range(0, length, WIDTH):
        written, here = clean_BL[:, :begin], slice(begin, begin + WIDTH)
        yield Canvas(
            prompt_BP=torch.cat([canvas.prompt_BP, written], dim=1),
            visible_BP=torch.cat([canvas.visible_BP, torch.ones_like(written, dtype=torch.bool)], dim=1),
            tokens_BL=clean_BL[:, here].masked_fill(hidden_BL[:, here], int(denoiser.vocabulary.mask_id or 0)),
            fixed_BL=torch.zeros_like(clean_BL[:, here], dtype=torch.bool),
        )


@pytest.mark.parametrize("prompts", [[None, None], PROMPTS])
def test_the_cache_gives_the_logits_of_no_cache(prompts: list[str | None]) -> None:
    denoiser, carry = block_denoiser(), None
    for canvas in blocks_of(denoiser, prompts, 10):
        fresh_BLV, _ = denoiser(canvas, 1.0, None)
        cached_BLV, carry = denoiser(canvas, 1.0, carry)
        torch.testing.assert_close(cached_BLV, fresh_BLV, atol=1e-4, rtol=0)


def test_inference_gives_the_logits_of_the_training_pass() -> None:
    """Both streams at once, a row at a time and without padding, against block by block with a cache and padding."""
    denoiser, carry = block_denoiser(), None
    dead = (~torch.from_numpy(denoiser.vocabulary.writable)).nonzero()[:, 0]
    every = list(blocks_of(denoiser, PROMPTS, 10))
    whole = every[-1]
    noisy_BL = torch.cat([canvas.tokens_BL for canvas in every], dim=1)
    clean_BL = torch.cat([whole.prompt_BP, noisy_BL[:, -2:]], dim=1)  # the last block's own clean tokens are not seen
    expected = []
    for row, visible_P in enumerate(whole.visible_BP):
        skip = int((~visible_P).sum())
        given = clean_BL.shape[1] - skip - 10
        clean_1L = clean_BL[row : row + 1, skip:]
        noisy_1L = torch.cat([clean_1L[:, :given], noisy_BL[row : row + 1]], dim=1)
        with torch.no_grad():
            out = denoiser.model(input_ids=clean_1L, noisy_ids=noisy_1L, begin_B=torch.tensor([given]))
        expected.append(out.logits[:, given:])
    expected_BLV = torch.cat(expected).index_fill(-1, dead, -torch.inf)
    for index, canvas in enumerate(every):
        logits_BLV, carry = denoiser(canvas, 1.0, carry)
        here = slice(index * WIDTH, index * WIDTH + WIDTH)
        torch.testing.assert_close(logits_BLV, expected_BLV[:, here], atol=1e-4, rtol=0)


def test_rows_whose_completions_begin_elsewhere_share_a_training_pass() -> None:
    model, draw = tiny_block_model(16, WIDTH), torch.Generator().manual_seed(1)
    clean_BL, noisy_BL = torch.randint(4, 30, (2, 3, 11), generator=draw)
    begin_B = torch.tensor([0, 5, 9])
    with torch.no_grad():
        together = model(input_ids=clean_BL, noisy_ids=noisy_BL, begin_B=begin_B)
        for row, begin in enumerate(begin_B.tolist()):
            one = slice(row, row + 1)
            alone = model(input_ids=clean_BL[one], noisy_ids=noisy_BL[one], begin_B=begin_B[one])
            torch.testing.assert_close(together.logits[one, begin:], alone.logits[:, begin:], atol=1e-5, rtol=0)
            torch.testing.assert_close(together.causal_logits[one], alone.causal_logits, atol=1e-5, rtol=0)


def test_a_token_is_predicted_from_the_blocks_before_it_and_its_own_noisy_block() -> None:
    """By gradients: what the prediction of position 5, in the block of 4 to 7, depends on."""
    model = tiny_block_model(16, WIDTH)
    clean_BL, noisy_BL = torch.arange(4, 14)[None], torch.arange(14, 24)[None]
    out = model(input_ids=clean_BL, noisy_ids=noisy_BL, begin_B=torch.zeros(1, dtype=torch.long))
    for logits_BLV, seen in ((out.logits, {*range(4, 8), *range(18, 22)}), (out.causal_logits, set(range(4, 9)))):
        table = model.get_input_embeddings().weight
        hidden = torch.autograd.grad(logits_BLV[0, 5, 0], table, retain_graph=True)[0].abs().sum(-1) > 0
        assert set(hidden.nonzero()[:, 0].tolist()) - {0} == seen  # 0 is the row of the head that was asked


def test_the_causal_stream_is_the_autoregressive_model_of_the_same_weights() -> None:
    model = tiny_block_model(16, WIDTH)
    sizes = {name: value for name, value in model.config.to_dict().items() if name not in ("model_type", "process")}
    twin = DiffusionTransformer(DiffusionTransformerConfig(**sizes | {"causal": True})).eval()
    twin.load_state_dict(model.state_dict())
    clean_BL, begin_B = torch.arange(4, 14)[None], torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        out = model(input_ids=clean_BL, noisy_ids=clean_BL, begin_B=begin_B)
        torch.testing.assert_close(out.causal_logits, twin(input_ids=clean_BL).logits, atol=1e-5, rtol=0)


class Lengths(BlockTransformer):
    """Notes how many positions of the clean stream each call computes."""

    computed: list[int]

    def extend(self, cache: PrefixCache | None, prefix_BP: Tensor, visible_BP: Tensor) -> PrefixCache:
        found = super().extend(cache, prefix_BP, visible_BP)
        old = 0 if cache is None else cache.layers[0][0].shape[2]
        kept = cache is not None and torch.equal(found.layers[0][0][:, :, :old], cache.layers[0][0])
        self.computed.append(found.layers[0][0].shape[2] - (old if kept else 0))
        return found


def test_sampling_computes_each_written_token_once() -> None:
    denoiser = block_denoiser(16)
    assert denoiser.prior_V is not None  # one call, before any text
    denoiser.model.__class__ = Lengths
    denoiser.model.computed = []
    wish = Length(tokens=11)
    out = GuidedPipeline(denoiser)("The Mill", constraint=wish, num_samples=3, steps=2, max_new_tokens=12)
    assert out.satisfied.all()
    assert denoiser.model.computed == [2, 0, 4, 0, 4, 0]  # the prompt, then the 4 tokens of each finished block


def test_a_cache_of_another_prefix_is_not_used() -> None:
    denoiser = block_denoiser()
    one, other = (next(iter(blocks_of(denoiser, [text], 4))) for text in ("The Mill is", "The pub is"))
    _, carry = denoiser(one, 1.0, None)
    torch.testing.assert_close(denoiser(other, 1.0, carry)[0], denoiser(other, 1.0, None)[0])


def test_a_cache_gives_its_rows() -> None:
    denoiser, row_N = block_denoiser(), torch.tensor([2, 0, 0, 3])
    canvas = list(blocks_of(denoiser, PROMPTS, 10))[1]
    logits_BLV, carry = denoiser(canvas, 1.0, None)
    chosen_BLV, after = denoiser(canvas.select(row_N), 1.0, carry.select(row_N))
    torch.testing.assert_close(chosen_BLV, logits_BLV[row_N], atol=1e-5, rtol=0)
    assert after.layers[0][0].data_ptr() != carry.layers[0][0].data_ptr()


def test_the_adapter_keeps_the_contract() -> None:
    check_denoiser(block_denoiser(), length=WIDTH)
    check_denoiser(block_denoiser(), length=1)


def test_a_wider_block_than_the_model_was_trained_on_is_refused() -> None:
    pipe = GuidedPipeline(block_denoiser())
    with pytest.raises(InvalidRequest, match="blocks of 4 tokens, and was asked for 5"):
        pipe(block_length=5)
    with pytest.raises(InvalidRequest, match="undoes block noise and TransformerDenoiser"):
        TransformerDenoiser(tiny_block_model(16, WIDTH), Vocabulary.from_tokenizer(word_tokenizer()))


@pytest.mark.parametrize("wish", [Length(words=(2, 6)), Words(include=["Japanese", "pub"]), Length(tokens=12)])
@pytest.mark.parametrize("options", [{}, {"block_length": 1}, {"steps": 1}, {"sampler": "ancestral"}])
def test_every_output_satisfies_a_hard_constraint(wish: Any, options: dict[str, Any]) -> None:
    out = GuidedPipeline(block_denoiser(12))(constraint=wish, num_samples=16, seed=0, **options)
    assert out.satisfied.all()


def test_guidance_keeps_a_cache_for_each_half() -> None:
    pipe, prompts = GuidedPipeline(block_denoiser()), ["The Mill", "pub"]
    options = {"constraint": Length(words=(2, 6)), "guidance_scale": 2.0, "steps": 2, "max_new_tokens": 9}
    together = pipe(prompts, seed=[0, 1], **options)
    assert together.satisfied.all()
    for row, prompt in enumerate(prompts):
        assert torch.equal(pipe(prompt, seed=[row], **options).tokens[0], together.tokens[row])


def test_the_folder_loads_as_it_was(tmp_path: Any) -> None:
    model = tiny_block_model(16, WIDTH)
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    denoiser = GuidedPipeline.from_pretrained(tmp_path).denoiser
    assert type(denoiser) is BlockDenoiser
    assert denoiser.block_length == AutoConfig.from_pretrained(tmp_path).block_length == WIDTH
    assert isinstance(AutoModel.from_pretrained(tmp_path), BlockTransformer)
    canvas = list(blocks_of(denoiser, PROMPTS, 10))[1]
    assert torch.equal(denoiser(canvas, 1.0, None)[0], block_denoiser()(canvas, 1.0, None)[0])
