"""A reader of tags and constituents: what it is shown, that it learns, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny_model, word_tokenizer

from guided_dlm.errors import InvalidRequest
from guided_dlm.parsing.reader import SyntaxReaderConfig
from guided_dlm.training.data import CanvasCollator
from guided_dlm.training.syntax_reader import AnnotatedCollator, SyntaxRecipe, train_syntax_reader
from guided_dlm.vocabulary import Vocabulary

NOUNS, ADJECTIVES = ("pub", "food", "riverside"), ("cheap", "friendly", "Japanese")


def lines() -> list[dict[str, Any]]:
    """Texts of one noun phrase: 'a cheap pub .' or 'a pub .'."""
    found = []
    for noun in NOUNS:
        for adjective in (None, *ADJECTIVES):
            words = ["a", *([adjective] if adjective else []), noun, "."]
            tags = ["DET", *(["ADJ"] if adjective else []), "NOUN", "PUNCT"]
            spans = [[0, len(words) - 2, "NP"]]
            found.append({"text": " ".join(words), "words": words, "tags": {"universal": tags}, "spans": spans})
    return found * 8


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_it_learns_tags_and_constituents_and_less_of_them_under_noise(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    recipe = SyntaxRecipe(
        data=write(tmp_path / "data.jsonl", lines()), out=str(tmp_path / "out"), model=str(model), hidden_size=32,
        layers=1, heads=2, epochs=60, batch_size=16, learning_rate=1e-2,
    )  # fmt: skip
    figures = train_syntax_reader(recipe, progress=False)
    assert figures["read"] == figures["texts"] == 96
    assert figures["noise_0.0"]["universal"] >= 0.95 and figures["noise_0.0"]["spans_f1"] >= 0.9
    assert figures["noise_0.75"]["universal"] < figures["noise_0.0"]["universal"]
    assert json.loads((tmp_path / "out" / "training.json").read_text())["figures"]["noise_0.0"]


def test_tag_sets_that_some_lines_lack_no_lines_and_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model, out = str(save_tiny_model(tmp_path / "model")), str(tmp_path / "out")
    mixed = lines()
    mixed[7] = mixed[7] | {"tags": {"penn": mixed[7]["tags"]["universal"]}}
    with pytest.raises(InvalidRequest, match=r"text 8 has tags of \['penn'\], the first of \['universal'\]"):
        train_syntax_reader(SyntaxRecipe(data=write(tmp_path / "a.jsonl", mixed), out=out, model=model), progress=False)
    with pytest.raises(InvalidRequest, match="has 0 texts"):
        train_syntax_reader(SyntaxRecipe(data=write(tmp_path / "b.jsonl", []), out=out, model=model), progress=False)
    with pytest.raises(InvalidRequest, match="epochs=0"):
        SyntaxRecipe(data="x", out=out, epochs=0)
    with pytest.raises(InvalidRequest, match="does not split into 3 heads"):
        SyntaxRecipe(data="x", out=out, heads=3)


def test_texts_without_constituents_are_batches_too() -> None:
    collate, _ = collator()
    batch = collate([{"input_ids": [9, 10], "length": 2, "universal": [0], "spans": []}] * 2)
    assert batch["spans"].shape == (2, 12, 12, 2) and not bool(batch["spans"].any())


def collator(seed: int = 1) -> tuple[AnnotatedCollator, Vocabulary]:
    vocabulary = Vocabulary.from_tokenizer(word_tokenizer())
    config = SyntaxReaderConfig(tag_sets={"universal": ["NOUN", "VERB"]}, labels=["NP", "S"])
    return AnnotatedCollator(
        CanvasCollator(vocabulary.pad_id, 12, full_share=1.0), config, vocabulary, seed
    ), vocabulary


def test_noise_is_masks_in_one_row_and_random_words_in_the_next_and_answers_are_clean() -> None:
    collate, vocabulary = collator()
    example = {"input_ids": [9, 10, 11, vocabulary.eos_id], "length": 4, "universal": [0, 1, 0], "spans": [(0, 1, 1)]}
    batch = collate([example] * 400)
    clean_BL = collate.canvas([example] * 400)["input_ids"]
    masked_BL, random_BL = batch["input_ids"][0::2], batch["input_ids"][1::2]
    assert set(masked_BL[masked_BL != clean_BL[0::2]].tolist()) == {vocabulary.mask_id}
    assert len(set(random_BL[random_BL != clean_BL[1::2]].tolist())) > 20
    share_B = (batch["input_ids"] != clean_BL).double().mean(-1)
    assert float(share_B.mean()) == pytest.approx(0.5, abs=0.06)
    assert batch["universal"][0].tolist() == [0, 1, 0, *[2] * 9]
    assert batch["spans"][0].nonzero().tolist() == [[0, 1, 1]]
    assert torch.equal(collate([example] * 400)["input_ids"], batch["input_ids"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"words": []}, 'line 1: expected "text", "words"'),
        ({"text": 3}, 'line 1: expected "text", "words"'),
        ({"spans": [[0, 2]]}, "inside the text"),
        ({"spans": [[0.0, 2, "NP"]]}, "inside the text"),
        ({"spans": [[0, 2, 5]]}, "inside the text"),
        ({"tags": {"universal": ["DET", "ADJ", None]}}, 'as many "tags"'),
        ({"tags": {}}, "at least one tag set"),
        ({"tags": {"en.penn": ["DT", "JJ", "NN"]}}, "at least one tag set"),
        ({"tags": {"spans": ["DT", "JJ", "NN"]}}, "at least one tag set"),
        ({"tags": {"universal": ["DET"]}}, 'as many "tags"'),
        ({"spans": [[0, 9, "NP"]]}, "inside the text"),
        ({"words": ["a", "cheap", "bar"], "text": "other words"}, "in 0 of 24 texts each word is one token"),
    ],
)
def test_annotations_that_teach_nothing_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    model = save_tiny_model(tmp_path / "model")
    record = {"text": "a cheap pub", "words": ["a", "cheap", "pub"], "tags": {"universal": ["DET", "ADJ", "NOUN"]}}
    data = write(tmp_path / "data.jsonl", [record | {"spans": [[0, 2, "NP"]]} | change] * 24)
    with pytest.raises(InvalidRequest, match=reason):
        train_syntax_reader(SyntaxRecipe(data=data, out=str(tmp_path / "out"), model=str(model)), progress=False)
    assert not (tmp_path / "out").exists()
