"""Text and record: two pairs a line, prompts that are seen and never hidden or scored, and a model of both ways."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from constraints import JSONSchema
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.errors import InvalidRequest
from guided_dlm.training.data import CanvasCollator
from guided_dlm.training.objectives import any_order, length_first, length_nll
from guided_dlm.training.pairs import as_prompt, encode_pairs, read_pairs, record_text
from guided_dlm.training.recipe import TrainingRecipe, _split, train
from guided_dlm.training.tokenization import build_bpe_tokenizer

RECORD = {"name": "Caf\u00e9 Mill", "area": "riverside"}
TEXT = "Caf\u00e9 Mill is by the river ."


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    line = json.dumps({"text": TEXT, "record": RECORD})
    path.write_text("\n".join([line] * 8))
    return path


def test_a_line_gives_one_pair_each_way(data: Path) -> None:
    written = '{"name":"Caf\u00e9 Mill","area":"riverside"}'
    assert read_pairs(str(data), "record")[:2] == [(TEXT + "\n", written), (written + "\n", TEXT)]
    assert json.loads(record_text(RECORD)) == RECORD
    assert as_prompt(" a\n b ") == "a b\n"


@pytest.mark.parametrize("line", ['{"text": "a"}', '{"text": "a", "record": [1]}', '{"record": {}, "text": " "}'])
def test_a_line_without_text_or_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(line)
    with pytest.raises(InvalidRequest, match=r"pairs\.jsonl, line 1: expected"):
        read_pairs(str(path), "record")


def test_examples_say_where_the_completion_begins_and_fit_the_canvas() -> None:
    tokenizer = build_bpe_tokenizer([TEXT, record_text(RECORD)], 300)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    pairs = [(as_prompt(TEXT), record_text(RECORD))]
    (example,) = encode_pairs(pairs, tokenizer, 512)
    ids, begin = example["input_ids"], example["begin"]
    assert (vocabulary.decode(ids[:begin]), vocabulary.decode(ids[begin:])) == pairs[0]
    assert ids[-1] == tokenizer.eos_token_id and example["length"] == len(ids)
    assert encode_pairs(pairs, tokenizer, len(ids) - 1) == [] == encode_pairs([], tokenizer, 9)


def test_prompts_are_never_hidden_and_weights_count_completions() -> None:
    tokens_BL, begin_B, length_B = torch.zeros(64, 9).long(), torch.tensor([0, 2, 5, 7] * 16), torch.full((64,), 8)
    prompt_BL = torch.arange(9) < begin_B[:, None]
    for orders, size_B in ((any_order, 9 - begin_B), (length_first, 7 - begin_B)):
        hidden_BL, weight_BL = orders(tokens_BL, length_B, torch.Generator().manual_seed(0), begin_B)
        assert not (hidden_BL & prompt_BL).any()
        torch.testing.assert_close(weight_BL.sum(-1), size_B.float())


def test_the_length_is_scored_among_the_places_after_the_prompt() -> None:
    logits_BLV, seen = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0)), []

    def model(input_ids: torch.Tensor) -> SimpleNamespace:
        seen.append(input_ids)
        return SimpleNamespace(logits=logits_BLV)

    model.config = SimpleNamespace(mask_token_id=3)
    nll_B = length_nll(model, torch.tensor([[0, 1, 1, 2]]), torch.tensor([4]), 2, torch.tensor([2]))
    end_L = logits_BLV.softmax(-1)[0, :, 2]
    torch.testing.assert_close(nll_B[0], -(end_L[3] / end_L[2:].sum()).log())
    assert seen[0].tolist() == [[0, 1, 3, 3]]


def test_batches_carry_where_completions_begin() -> None:
    batch = CanvasCollator(9, 8)([{"input_ids": [1, 2, 3], "length": 3, "begin": 2}, {"input_ids": [1], "length": 1}])
    assert batch["begin"].tolist() == [2, 0]


@pytest.mark.parametrize("size", [4, 5, 8])
def test_both_directions_are_held_out(data: Path, tmp_path: Path, size: int) -> None:
    recipe = TrainingRecipe(data=str(data), out="", validation=str(data), record="record", validation_size=size)
    tokenizer = build_bpe_tokenizer([TEXT, record_text(RECORD)], 300)
    _, held_out = _split(recipe, read_pairs(str(data), "record"), tokenizer)
    assert len({tuple(example["input_ids"]) for example in held_out}) == 2


def test_a_model_of_pairs_is_trained_and_held_to_a_schema(data: Path, tmp_path: Path) -> None:
    small = TrainingRecipe(
        data=str(data), out=str(tmp_path / "model"), validation=str(data), record="record", tokenizer="bpe",
        vocab_size=300, canvas=96, hidden_size=32, layers=2, heads=2, batch_size=8, epochs=1, bf16=False,
    )  # fmt: skip
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        figures = train(small, progress=False)
    finally:  # training seeds the global generators, as `transformers` does
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
    assert figures["eval_bound"] > 0
    schema = {"type": "object", "properties": {"area": {"enum": ["riverside", "centre"]}}, "required": ["area"]}
    wish = JSONSchema(schema | {"additionalProperties": False}, whitespace="compact")
    pipe = GuidedPipeline.from_pretrained(tmp_path / "model")
    out = pipe(as_prompt("a pub"), wish, num_samples=4, steps=4)
    # Parts of characters that the texts never had are read in a prompt, and not written.
    tokens = pipe.denoiser.vocabulary.tokens
    for byte in (bytes([value]) for value in range(0x80, 256)):
        assert tokens.index(byte) in pipe.denoiser.vocabulary.never_written
    assert all(
        b"\xef\xbf\xbd" in tokens[i].decode(errors="replace").encode() for i in pipe.denoiser.vocabulary.never_written
    )
    assert pipe(as_prompt("ein Caf\u00e9"), wish, steps=4).texts
    assert all(json.loads(text)["area"] in ("riverside", "centre") for text in out.texts)


@pytest.mark.parametrize(
    "change", [{"tokenizer": "letters"}, {"tokenizer": "bpe", "vocab_size": 9}, {"full_share": 2.0}]
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        TrainingRecipe(data="", out="", **change)
