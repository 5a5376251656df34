"""Labelled texts: the label is the prompt, masked now and then, reproducibly, and a model that is asked by label."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from guided_dlm import GuidedPipeline
from guided_dlm.errors import InvalidRequest
from guided_dlm.training.labels import LabelDropout, read_labelled
from guided_dlm.training.pairs import as_prompt
from guided_dlm.training.recipe import TrainingRecipe, train

TEXTS = {"food": "a bowl of soup", "traffic": "a red bus on a road"}
MASK, END = 3, 1
EXAMPLES = [{"input_ids": [10, 11, 20 + i, 5, END], "begin": 2, "length": 5} for i in range(1000)]


@pytest.fixture(autouse=True)
def same_random_state() -> object:
    """Training seeds the global generators, as `transformers` does; leave them as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "labelled.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "topic": label}) for label, text in TEXTS.items()) + "\n" * 2)
    return path


def recipe(data: Path, out: Path, **changes: object) -> TrainingRecipe:
    values = {
        "data": str(data), "out": str(out), "validation": str(data), "label": "topic", "tokenizer": "bpe",
        "vocab_size": 300, "canvas": 32, "hidden_size": 32, "layers": 2, "heads": 2, "batch_size": 1, "epochs": 1,
        "save_every": 1, "bf16": False,
    }  # fmt: skip
    return TrainingRecipe(**(values | changes))


def dropped(data: LabelDropout) -> list[bool]:
    return [data[i]["input_ids"][0] == MASK for i in range(len(data))]


def test_a_line_gives_the_label_as_prompt_and_the_text_as_completion(data: Path, tmp_path: Path) -> None:
    assert read_labelled(str(data), "topic") == [(f"{label}\n", text) for label, text in TEXTS.items()]
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"text": " two\\n lines ", "topic": " fast  food "}')
    assert read_labelled(str(odd), "topic") == [("fast food\n", "two lines")]


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a"}',
        '{"text": "a", "topic": " "}',
        '{"text": "a", "topic": 3}',
        '{"topic": "b"}',
        '{"text": "", "topic": "b"}',
    ],
)
def test_a_line_without_text_or_label_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text('{"text": "a", "topic": "b"}\n' + line)
    with pytest.raises(InvalidRequest, match=r"labelled\.jsonl, line 2: expected .*'topic'"):
        read_labelled(str(path), "topic")


def test_a_file_that_is_empty_or_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InvalidRequest, match="holds no labelled texts"):
        read_labelled(str(tmp_path / "empty.jsonl"), "topic")
    with pytest.raises(InvalidRequest, match="There is no file"):
        read_labelled(str(tmp_path / "none.jsonl"), "topic")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_share_of_masked_prompts_is_the_one_asked_for(share: float) -> None:
    found = sum(dropped(LabelDropout(EXAMPLES, MASK, share))) / len(EXAMPLES)
    assert abs(found - share) <= 5 * (share * (1 - share) / len(EXAMPLES)) ** 0.5


def test_only_prompts_are_masked_and_the_examples_stay_whole() -> None:
    data = LabelDropout(EXAMPLES, MASK, 0.5)
    assert len(data) == len(list(data)) == len(EXAMPLES)
    for i, found in enumerate(data):
        assert found["input_ids"] in ([10, 11, 20 + i, 5, END], [MASK, MASK, 20 + i, 5, END])
        assert (found["begin"], found["length"]) == (2, 5)
    assert all(MASK not in example["input_ids"] for example in EXAMPLES)


def test_draws_come_from_seed_and_epoch_and_from_nothing_else() -> None:
    one, same, other = (LabelDropout(EXAMPLES, MASK, 0.5, seed) for seed in (1, 1, 2))
    first = dropped(one)
    assert first == dropped(one) == dropped(same) != dropped(other)
    one.set_epoch(1)
    later = dropped(one)
    assert 350 <= sum(a != b for a, b in zip(first, later, strict=True)) <= 650  # independent: half of them differ
    one.set_epoch(0)
    assert dropped(one) == first


def masked_by_batch(monkeypatch: pytest.MonkeyPatch, small: TrainingRecipe, resume: bool = False) -> list[bool]:
    """Train, and return for each example that was read for training whether its prompt was masked."""
    seen: list[bool] = []
    original = LabelDropout.__getitem__

    def watched(self: LabelDropout, index: int) -> dict[str, object]:
        example = original(self, index)
        seen.append(set(example["input_ids"][: example["begin"]]) == {self.mask_id})
        return example

    monkeypatch.setattr(LabelDropout, "__getitem__", watched)
    train(small, resume=resume, progress=False)
    monkeypatch.setattr(LabelDropout, "__getitem__", original)
    return seen


def test_training_draws_anew_in_each_epoch_and_again_the_same_when_repeated(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = recipe(data, tmp_path / "one", epochs=20, label_dropout=0.5, save_every=100)
    seen = masked_by_batch(monkeypatch, small)
    assert seen == masked_by_batch(monkeypatch, recipe(data, tmp_path / "two", epochs=20, label_dropout=0.5))
    assert 8 <= sum(seen[-40:]) <= 32  # two examples in twenty epochs: without new draws it is 0, 20 or 40
    assert sum(seen[-40:]) != 20


def test_an_autoregressive_run_keeps_its_labels(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = recipe(data, tmp_path / "one", objective="autoregressive", label_dropout=0.9, epochs=5, save_every=100)
    assert masked_by_batch(monkeypatch, small) == []
    assert len(masked_by_batch(monkeypatch, recipe(data, tmp_path / "two", label_dropout=0.9))) > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"record": "record"}, "record='record' and label='topic' both"),
        ({"label_dropout": 1.0}, r"label_dropout=1\.0"),
        ({"label_dropout": -0.1}, r"label_dropout=-0\.1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        recipe(Path("a"), Path("b"), **change)


def test_a_model_of_labels_writes_what_the_label_asks_for(data: Path, tmp_path: Path) -> None:
    data.write_text(data.read_text() * 8)
    out, size = tmp_path / "model", {"epochs": 100, "batch_size": 8, "hidden_size": 64, "learning_rate": 1e-2}
    figures = train(recipe(data, out, canvas=24, save_every=1000, **size), progress=False)
    assert figures["eval_bound"] < 1
    assert json.loads((out / "recipe.json").read_text())["label_dropout"] == 0.1
    pipe = GuidedPipeline.from_pretrained(out)
    for label, text in TEXTS.items():
        texts = pipe(as_prompt(label), num_samples=10, steps=8, seed=0).texts
        assert texts.count(text) >= 8
