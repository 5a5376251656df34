"""Block diffusion from training to text: what is hidden, the bound against enumeration, a run, a start, a folder."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SENTENCES, small_recipe
from typer.testing import CliRunner

from constraints import Length, Words
from guided_dlm import GuidedPipeline
from guided_dlm.cli import app
from guided_dlm.denoisers import BlockDenoiser
from guided_dlm.denoisers.block_modeling import BlockTransformer, BlockTransformerConfig
from guided_dlm.errors import GuidedError
from guided_dlm.testing import check_denoiser
from guided_dlm.training.block import block, block_nll, evaluate_block, hide_in_blocks
from guided_dlm.training.recipe import TrainingRecipe, train

MASK = 3


def small_model(width: int, canvas: int) -> BlockTransformer:
    torch.manual_seed(0)
    config = BlockTransformerConfig(
        vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=canvas, mask_token_id=MASK, pad_token_id=2, eos_token_id=2, block_length=width,
    )  # fmt: skip
    model = BlockTransformer(config).eval()
    with torch.no_grad():
        model.logit_scale *= 2.0
    return model


def exact_bound(model: BlockTransformer, tokens: list[int], begin: int) -> float:
    """The expected loss of filling each block in a random order, by all sets of hidden tokens of each block."""
    total, width = 0.0, model.config.block_length
    clean_1L = torch.tensor([tokens])
    for first in range(begin, len(tokens), width):
        places = list(range(first, min(first + width, len(tokens))))
        for k in range(1, len(places) + 1):
            subsets = list(itertools.combinations(places, k))
            for hidden in subsets:
                noisy_1L = clean_1L.clone()
                noisy_1L[0, list(hidden)] = MASK
                with torch.no_grad():
                    logits = model(clean_1L, noisy_1L, torch.tensor([begin])).logits[0].double().log_softmax(-1)
                loss = -sum(float(logits[i, tokens[i]]) for i in hidden)
                total += loss / k / len(subsets)  # k is uniform, and weighted by the block's length / k
    return total


@pytest.mark.parametrize("begin", [0, 2])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_loss_is_the_bound_over_orders_inside_blocks(width: int, begin: int) -> None:
    model, rows = small_model(width, 5), 6000
    tokens = [0, 1, 1, 0, 2]
    with torch.no_grad():
        found_B, _ = block_nll(
            model, torch.tensor([tokens] * rows), torch.full((rows,), begin), torch.Generator().manual_seed(0)
        )
    error = float(found_B.std()) / math.sqrt(rows)
    assert float(found_B.mean()) == pytest.approx(exact_bound(model, tokens, begin), abs=4 * error + 1e-5)


def test_blocks_of_one_have_no_gap_and_count_every_token_once() -> None:
    """Then the bound is -log p itself: each token hidden, with weight one."""
    hidden_BL, weight_BL = hide_in_blocks(torch.tensor([0, 2, 4]), 5, 1, torch.Generator().manual_seed(0))
    assert hidden_BL.tolist() == [[True] * 5, [False] * 2 + [True] * 3, [False] * 4 + [True]]
    assert torch.equal(weight_BL, hidden_BL.float())


def test_each_block_hides_a_uniform_number_of_its_own_tokens() -> None:
    rows, begin_B = 8000, torch.tensor([1, 3]).repeat(4000)
    hidden_BL, weight_BL = hide_in_blocks(begin_B, 9, 3, torch.Generator().manual_seed(0))
    assert not hidden_BL[:, 0].any()
    assert not hidden_BL[1::2, :3].any()
    for rows_of, first, size in ((0, 1, 3), (0, 7, 2), (1, 3, 3), (1, 6, 3)):
        part = hidden_BL[rows_of::2, first : first + size]
        count_B = part.sum(-1)
        share = torch.bincount(count_B, minlength=size + 1) / len(part)
        assert share[0] == 0
        assert (share[1:] - 1 / size).abs().max() < 0.03
        expected_BL = (size / count_B)[:, None] * part
        torch.testing.assert_close(weight_BL[rows_of::2, first : first + size], expected_BL)
        assert (part.float().mean(0) - part.float().mean()).abs().max() < 0.03
    assert rows == len(hidden_BL)


def test_the_second_term_is_autoregressive_over_text_and_end() -> None:
    model, tokens_BL = small_model(2, 6), torch.tensor([[0, 1, 0, 2, 2, 2], [1, 1, 0, 0, 1, 2]])
    length_B, begin_B = torch.tensor([4, 6]), torch.tensor([1, 0])
    with torch.no_grad():
        bound_B, causal_BL = block_nll(model, tokens_BL, begin_B, torch.Generator().manual_seed(0))
        loss_B = block(model, tokens_BL, length_B, torch.Generator().manual_seed(0), begin_B)
    torch.testing.assert_close(loss_B - bound_B, torch.stack([causal_BL[0, 1:4].sum(), causal_BL[1].sum()]))


def test_a_flat_weight_counts_each_hidden_token_twice() -> None:
    model, tokens_BL = small_model(2, 6), torch.tensor([[0, 1, 0, 2, 2, 2], [1, 1, 0, 0, 1, 2]])
    begin_B = torch.tensor([1, 0])
    hidden_BL, _ = hide_in_blocks(begin_B, 6, 2, torch.Generator().manual_seed(0))
    noisy_BL = tokens_BL.masked_fill(hidden_BL, model.config.mask_token_id)
    with torch.no_grad():
        out = model(input_ids=tokens_BL, noisy_ids=noisy_BL, begin_B=begin_B)
        chance_BL = out.logits.softmax(-1).gather(-1, tokens_BL[..., None])[..., 0]
        flat_B, causal_BL = block_nll(model, tokens_BL, begin_B, torch.Generator().manual_seed(0), weighting="flat")
        length_B = torch.tensor([4, 6])
        loss_B = block(model, tokens_BL, length_B, torch.Generator().manual_seed(0), begin_B, weighting="flat")
    torch.testing.assert_close(flat_B, -2.0 * (chance_BL.log() * hidden_BL).sum(-1))
    torch.testing.assert_close(loss_B - flat_B, torch.stack([causal_BL[0, 1:4].sum(), causal_BL[1].sum()]))


def test_the_validation_figure_is_the_bound_per_token_of_text_and_end() -> None:
    model = small_model(2, 4)
    examples: list[dict[str, Any]] = [
        {"input_ids": [0, 1, 2], "length": 3},
        {"input_ids": [1, 2], "length": 2, "begin": 1},
    ]
    found = evaluate_block(model, examples, pad_id=2, passes=3000)["bound"]
    exact = (exact_bound(model, [0, 1, 2, 2], 0) + exact_bound(model, [1, 2, 2, 2], 1)) / 4
    assert found == pytest.approx(exact, rel=0.03)


def recipe(data: Path, out: Path, **changes: Any) -> TrainingRecipe:
    return small_recipe(data, out, **{"objective": "block", "block_length": 4, **changes})


@pytest.fixture(scope="module")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overfitted model."""
    out = tmp_path_factory.mktemp("learned")
    train(recipe(data, out, epochs=80, hidden_size=64), progress=False)
    return out


def test_a_tiny_model_learns_a_few_sentences(learned: Path) -> None:
    record = json.loads((learned / "training.json").read_text())
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert record["figures"]["eval_bound"] < 0.6  # log 5 over some 10 tokens is 0.16; untrained it is above 5
    out = GuidedPipeline.from_pretrained(learned)(num_samples=20, seed=0)
    assert sum(text in SENTENCES for text in out.texts) >= 10
    assert len(set(out.texts)) > 1


@pytest.mark.parametrize(
    "wish", [Length(words=(2, 4)), Words(include=["Japanese"]), Length(words=9) & Words(include=["pub"])]
)
def test_every_output_satisfies_a_hard_constraint(learned: Path, wish: Any) -> None:
    out = GuidedPipeline.from_pretrained(learned)(constraint=wish, num_samples=24)
    assert out.satisfied.all()


def test_the_folder_loads_as_a_block_denoiser_that_keeps_the_contract(learned: Path) -> None:
    denoiser = GuidedPipeline.from_pretrained(learned).denoiser
    assert type(denoiser) is BlockDenoiser
    assert denoiser.block_length == 4
    check_denoiser(denoiser, length=4)


def test_a_start_from_an_autoregressive_model_begins_as_that_model(data: Path, tmp_path: Path) -> None:
    figures = train(
        recipe(data, tmp_path / "ar", objective="autoregressive", block_length=None, epochs=20), progress=False
    )
    start = str(tmp_path / "ar")
    cold = train(recipe(data, tmp_path / "cold", epochs=2), progress=False)
    warm = train(recipe(data, tmp_path / "warm", epochs=2, start=start), progress=False)
    assert warm["eval_bound"] < cold["eval_bound"] - 0.3
    config = BlockTransformerConfig.from_pretrained(tmp_path / "warm")
    begun = BlockTransformer.from_pretrained(start, config=config, dtype=torch.float32).eval()
    assert causal_nll(begun, data, tmp_path / "warm") == pytest.approx(figures["eval_nll"], rel=0.01)


def causal_nll(model: BlockTransformer, data: Path, folder: Path) -> float:
    """The mean of the clean stream's -log p per token of text and end."""
    from transformers import AutoTokenizer

    from guided_dlm.training.data import encode_texts, read_texts

    total, count = 0.0, 0
    for example in encode_texts(read_texts(str(data))[:5], AutoTokenizer.from_pretrained(folder), 16):
        tokens_1L = torch.tensor([example["input_ids"]])
        with torch.no_grad():
            _, causal_1L = block_nll(model, tokens_1L, torch.tensor([0]), None)
        total, count = total + float(causal_1L.sum()), count + example["length"]
    return total / count


def test_labels_are_prompts_of_a_block_model(tmp_path: Path) -> None:
    lines = [{"text": text, "kind": f"k{index % 2}"} for index, text in enumerate(SENTENCES * 4)]
    path = tmp_path / "labelled.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    train(recipe(path, tmp_path / "out", label="kind", epochs=2), progress=False)
    out = GuidedPipeline.from_pretrained(tmp_path / "out")(["k0", "k1"], constraint=Length(words=3), guidance_scale=1.5)
    assert out.satisfied.all()


def test_the_command_line_takes_a_block_length(data: Path, tmp_path: Path) -> None:
    sizes = ["--canvas", "16", "--hidden-size", "16", "--layers", "1", "--heads", "2", "--epochs", "1"]
    found = CliRunner().invoke(
        app, ["train", str(data), str(tmp_path), "--objective", "block", "--block-length", "2", *sizes]
    )
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "config.json").read_text())["block_length"] == 2
    assert "eval_bound" in json.loads(found.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": "masked"}, "the masked objective has no blocks"),
        ({"block_length": 0}, "block_length=0 must be at least 1"),
        ({"block_length": 17}, "at most the canvas, 16"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(GuidedError, match=reason):
        recipe(Path("a"), Path("b"), **changes)
