"""Block by block against enumeration: the state and the room that is left are carried, and no block dead-ends."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from block_problem import JOINT, LENGTH, VOCABULARY, BlockDenoiser
from oracles import accepted, canvases, chi_square, counts
from tiny import tiny_pipeline
from torch import Tensor

from constraints import Blank, Length, Regex, Template, Words
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import BlockDenoiser as CachingDenoiser
from guided_dlm.denoisers.block_modeling import BlockTransformer, BlockTransformerConfig
from guided_dlm.errors import InvalidRequest
from guided_dlm.samplers import Snapshot
from guided_dlm.samplers.blocks import feasible, lookahead


def law_of(pattern: str, width: int) -> Tensor:
    """The law of one step per block: the block's own factors, times whether the rest of the canvas is possible."""
    automaton = Regex(pattern).to_automaton().lift(VOCABULARY)
    every, allowed_N = canvases(4, LENGTH), accepted(automaton, LENGTH)
    law_N = torch.ones(len(every), dtype=torch.float64)
    for begin in range(0, LENGTH, width):
        blocks: dict[tuple[int, ...], float] = {}
        for row in every[:, : begin + width].unique(dim=0):
            same_N = (every[:, : begin + width] == row).all(-1)
            if not allowed_N[same_N].any():
                continue
            before_N = (every[:, :begin] == row[:begin]).all(-1) * JOINT.flatten()
            factors = [
                float((before_N * (every[:, i] == row[i])).sum() / before_N.sum()) for i in range(begin, begin + width)
            ]
            blocks[tuple(row.tolist())] = float(torch.tensor(factors, dtype=torch.float64).nan_to_num().prod())
        for index, row in enumerate(every[:, : begin + width].tolist()):
            prefix = tuple(row[:begin])
            total = sum(mass for block, mass in blocks.items() if block[:begin] == prefix)
            law_N[index] *= blocks.get(tuple(row), 0.0) / total if total else 0.0
    return law_N


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("pattern", [".*", "(ab)*a?", ".*b", "a.{1,2}"])
def test_one_step_a_block_has_the_law_of_enumeration(pattern: str, width: int) -> None:
    out = GuidedPipeline(BlockDenoiser())(
        constraint=Regex(pattern), num_samples=4_000, batch_size=4_000, steps=1, block_length=width, seed=0
    )
    law_N = law_of(pattern, width)
    assert float(law_N.sum()) == pytest.approx(1.0)
    assert chi_square(counts(out.tokens, 4), law_N) > 1e-3
    assert out.satisfied.all()


def test_blocks_of_one_are_autoregressive_decoding() -> None:
    """The exact conditionals multiply up to the joint, held to well-formed text at each token."""
    out = GuidedPipeline(BlockDenoiser())(num_samples=4_000, batch_size=4_000, steps=1, block_length=1, seed=1)
    assert chi_square(counts(out.tokens, 4), law_of("[ab]*", 1)) > 1e-3


def test_first_hitting_takes_an_order_of_its_own_in_every_row() -> None:
    """The next mask is uniform among those left, and each row of a batch of any size draws its own (2409.02908)."""
    orders: list[list[Tensor]] = []

    def callback(snapshot: Snapshot) -> None:
        if snapshot.at.index == 0:
            orders.append([])
        orders[-1].append((snapshot.after.tokens_BL != snapshot.before.tokens_BL).long().argmax(-1))

    texts = []
    for size in (150, 7):
        orders.clear()
        out = GuidedPipeline(BlockDenoiser())(
            num_samples=300, batch_size=size, steps=LENGTH, sampler="first_hitting", callback=callback, seed=4
        )
        order_NL = torch.cat([torch.stack(batch, dim=1) for batch in orders])
        kinds, number = order_NL.unique(dim=0, return_counts=True)
        assert len(kinds) == 24  # every order of four positions, one position at a time
        assert chi_square(number.numpy(), torch.full((24,), 1 / 24, dtype=torch.float64)) > 1e-3
        texts.append(out.texts)
    assert texts[0] == texts[1]


TEXT = Vocabulary.from_tokens([b"a", b"b", b"c", b"", b"", b""], eos_id=3, pad_id=4, mask_id=5)


def block_transformer(width: int, canvas: int = 3) -> BlockTransformer:
    """A tiny random block model over three text tokens, with an opinion."""
    state = torch.get_rng_state()
    torch.manual_seed(3)
    config = BlockTransformerConfig(
        vocab_size=6, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=canvas, mask_token_id=5, pad_token_id=4, eos_token_id=3, block_length=width,
    )  # fmt: skip
    model = BlockTransformer(config).eval()
    with torch.no_grad():
        model.logit_scale *= 2.0
        model.start += torch.randn(16)
    torch.set_rng_state(state)
    return model


def own_law(model: BlockTransformer, length: int, width: int) -> Tensor:
    """The law of one step per block by enumeration, from the training pass: no cache, no prompt, no sampler.

    Inside a block the tokens are independent given the blocks before it, held to text, end and padding.
    """
    every, form = canvases(6, length), TokenAutomaton.well_formed(TEXT)
    formed_N = torch.tensor([form.accepts(row) for row in every.tolist()])
    with torch.no_grad():
        logits_NLV = model(
            input_ids=every, noisy_ids=torch.full_like(every, 5), begin_B=torch.zeros(len(every), dtype=torch.long)
        ).logits
    chance_NLV = logits_NLV.double()[..., :5].softmax(-1)
    law_N = torch.ones(len(every), dtype=torch.float64)
    for begin in range(0, length, width):
        block = slice(begin, min(begin + width, length))
        score_N = chance_NLV[:, block].gather(-1, every[:, block, None].clamp_max(4))[..., 0].prod(-1)
        possible = {tuple(row) for row in every[formed_N][:, : block.stop].tolist()}
        total: dict[tuple[int, ...], float] = {}
        single = {tuple(row[: block.stop]): float(score) for row, score in zip(every.tolist(), score_N, strict=True)}
        for row in possible:
            total[row[:begin]] = total.get(row[:begin], 0.0) + single[row]
        for index, row in enumerate(every.tolist()):
            head = tuple(row[: block.stop])
            law_N[index] *= single[head] / total[head[:begin]] if head in possible else 0.0
    return law_N


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_block_model_writes_its_own_law(width: int) -> None:
    """With blocks of 1 that is autoregressive decoding: the product of the model's conditionals."""
    model = block_transformer(width)
    pipe = GuidedPipeline(CachingDenoiser(model, TEXT))
    out = pipe(num_samples=6_000, batch_size=6_000, steps=1, max_new_tokens=3, seed=0)
    law_N = own_law(model, 3, width)
    assert float(law_N.sum()) == pytest.approx(1.0)
    assert float(law_N.max()) < 0.5
    assert chi_square(counts(out.tokens, 6), law_N) > 1e-3


@pytest.mark.parametrize("width", [1, 3, 5, 12, 40])
@pytest.mark.parametrize(
    "wish",
    [
        Length(tokens=12),  # the room is exactly used up
        Template(["The ", Blank(words=(1, 9)), " pub"]),
        Words(include=["Japanese", "riverside", "Mill"]) & Length(words=(3, 8)),
        Length(words=2) & 2.0 * Words(prefer={"pub": 3.0}),
    ],
)
def test_no_block_dead_ends(wish: Any, width: int) -> None:
    out = tiny_pipeline()(constraint=wish, num_samples=8, steps=2, block_length=width, seed=0)
    assert out.satisfied.all()


def test_a_row_alone_equals_the_row_in_a_batch() -> None:
    pipe, wish = tiny_pipeline(), Length(words=(2, 6))
    together = pipe(constraint=wish, num_samples=3, steps=2, block_length=4, seed=[5, 6, 7])
    for row, seed in enumerate((5, 6, 7)):
        alone = pipe(constraint=wish, steps=2, block_length=4, seed=[seed])
        assert torch.equal(alone.tokens[0], together.tokens[row])


def test_different_constraints_go_in_batches_of_their_own() -> None:
    wishes = [Length(words=2), Length(words=3), Length(words=2)]
    out = tiny_pipeline()([None, None, None], wishes, steps=2, block_length=4)
    assert out.satisfied.all()


def test_feasible_says_what_can_still_be_accepted() -> None:
    automaton = Regex("a{3}").to_automaton().lift(Vocabulary.from_tokens([b"a", b""], eos_id=None, mask_id=1))
    left = feasible(automaton, 4)
    assert [int(row[0]) for row in left] == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("pattern", ["[ab]*", ".*b", "a{3}b*", "(ab)*a?", "a.{1,2}"])
def test_the_lookahead_is_the_chance_of_being_accepted(pattern: str) -> None:
    """Against enumeration of independent text tokens that end with a fixed chance, from every state."""
    automaton = Regex(pattern).to_automaton().lift(TEXT)
    prior_V, length = np.array([0.5, 0.3, 0.2, 0.0, 0.0, 0.0]), 4
    found_RS, possible_RS = lookahead(automaton, length, prior_V), feasible(automaton, length)
    assert ((found_RS > 0) == (possible_RS > 0)).all()
    hazard, tokens = 2.0 / length, [0, 1, 2, 3, 4]
    for left in range(1, length + 1):
        chance_S = np.zeros(automaton.num_states)
        for state in range(automaton.num_states):
            for row in itertools.product(tokens, repeat=left):
                here, chance = state, 1.0
                for token in row:
                    column = int(automaton.token_class[token])
                    columns = [int(automaton.token_class[v]) for v in (0, 1, 2)]
                    text = any(c >= 0 and automaton.transitions[here, c] >= 0 for c in columns)
                    chance *= prior_V[token] * (1 - hazard) if token < 3 else (hazard if text else 1.0)
                    here = int(automaton.transitions[here, column]) if column >= 0 else -1
                    if here < 0:
                        chance = 0.0
                        break
                chance_S[state] += chance * (here >= 0 and bool(automaton.accepting[here]))
        assert found_RS[left] == pytest.approx(
            np.where(possible_RS[left] > 0, chance_S / chance_S.max(), 0.0), abs=1e-12
        )


def test_a_block_model_knows_how_likely_its_tokens_are() -> None:
    prior_V = CachingDenoiser(block_transformer(3), TEXT).prior_V
    assert float(prior_V.sum()) == pytest.approx(1.0) and (prior_V[:3] > 0.01).all() and (prior_V[3:] == 0).all()
    assert tiny_pipeline().denoiser.prior_V is None


def test_an_extreme_weight_is_held_to_fifty_nats_in_blocks_too() -> None:
    wish = 1e4 * Words(prefer={"pub": 1.0})
    assert np.isfinite(feasible(wish.compile(tiny_pipeline().context(12)).automaton, 12)).all()
    out = tiny_pipeline()(constraint=wish & Length(words=3), num_samples=4, steps=2, block_length=5)
    assert out.satisfied.all()


def test_a_block_without_positions_and_a_trace_of_blocks_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="block_length=0"):
        tiny_pipeline()(block_length=0)
    with pytest.raises(InvalidRequest, match="trace"):
        tiny_pipeline()(block_length=4, return_trace=True)


def test_a_masked_model_sees_the_whole_canvas_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks beyond the block: without them each block would look like the end of the text."""
    pipe, seen = tiny_pipeline(), []
    model = pipe.denoiser.model  # type: ignore[attr-defined]
    forward = model.forward

    def reading(input_ids: Tensor, **options: Any) -> Any:
        seen.append(input_ids[0].tolist())
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(model, "forward", reading)
    out = pipe(constraint=Length(words=6), block_length=2, steps=1, seed=0)
    assert {len(tokens) for tokens in seen} == {12} and len(seen) >= 4
    for number, tokens in enumerate(seen):
        assert tokens[: 2 * number] == out.tokens[0, : 2 * number].tolist()
        assert tokens[2 * number :] == [pipe.denoiser.vocabulary.mask_id] * (12 - 2 * number)


def test_what_is_ahead_is_read_as_the_canvas_that_it_is_cut_from() -> None:
    denoiser = tiny_pipeline().denoiser
    mask_id = denoiser.vocabulary.mask_id
    assert mask_id is not None
    whole = Canvas.from_prompts(["The", None], denoiser.vocabulary, 8, denoiser.device)
    whole = replace(whole, tokens_BL=torch.full_like(whole.tokens_BL, mask_id))
    here, ahead_BR = slice(0, 3), whole.tokens_BL[:, 3:]
    cut = replace(whole, tokens_BL=whole.tokens_BL[:, here], fixed_BL=whole.fixed_BL[:, here], ahead_BR=ahead_BR)
    torch.testing.assert_close(denoiser(cut, 1.0)[0], denoiser(whole, 1.0)[0][:, here])
