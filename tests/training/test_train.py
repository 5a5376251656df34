"""A whole training run on a few sentences: it learns, writes a folder that loads, and goes on from a checkpoint."""

import json
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES, small_recipe

from constraints import Words
from guided_dlm import GuidedPipeline
from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.errors import GuidedError, InvalidRequest
from guided_dlm.training.recipe import TrainingRecipe, objective_options, train


def recipe(data: Path, out: Path, **changes: object) -> TrainingRecipe:
    small = TrainingRecipe(
        data=str(data), out=str(out), canvas=16, hidden_size=32, layers=2, heads=2, min_count=1, batch_size=8,
        epochs=1, save_every=3, bf16=False, learning_rate=1e-2,
    )  # fmt: skip
    return replace(small, **changes)


@pytest.fixture(scope="module")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overfitted model."""
    out = tmp_path_factory.mktemp("learned")
    train(recipe(data, out, epochs=300, hidden_size=64, validation=str(data), save_every=1000), progress=False)
    return out


@lru_cache(maxsize=1)
def load(folder: Path) -> GuidedPipeline:
    return GuidedPipeline.from_pretrained(str(folder))


def test_a_tiny_model_learns_a_few_sentences(learned: Path) -> None:
    figures = json.loads((learned / "training.json").read_text())["figures"]
    assert figures["eval_bound"] < 0.6  # log 5 over some 10 tokens is 0.16; untrained it is above 5
    out = load(learned)(num_samples=20, steps=16, seed=0)
    assert sum(text in SENTENCES for text in out.texts) >= 10
    assert len(set(out.texts)) > 1


def test_a_learned_model_obeys_constraints(learned: Path) -> None:
    free, out = (load(learned)(constraint=c, num_samples=64, steps=16) for c in (None, Words(include=["Japanese"])))
    assert all("Japanese" in text.split() for text in out.texts)
    assert out.texts.count(SENTENCES[3]) > 2 * free.texts.count(SENTENCES[3])


def test_the_folder_holds_half_precision_weights_the_recipe_and_the_curves(learned: Path) -> None:
    weights = load_file(learned / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert json.loads((learned / "recipe.json").read_text())["epochs"] == 300
    log = json.loads((learned / "training.json").read_text())["log"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    assert DiffusionTransformer.from_pretrained(learned).config.mask_token_id == 3


def test_a_run_goes_on_from_its_last_checkpoint(data: Path, tmp_path: Path) -> None:
    train(recipe(data, tmp_path, epochs=1), progress=False)
    checkpoints = tmp_path / "checkpoints"
    first = max(int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*"))
    train(recipe(data, tmp_path, epochs=2), resume=True, progress=False)
    last = max(int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*"))
    assert last > first
    state = json.loads((checkpoints / f"checkpoint-{last}" / "trainer_state.json").read_text())
    steps = [entry["step"] for entry in state["log_history"] if "eval_bound" in entry]
    assert steps == sorted(set(steps))
    assert steps[0] <= first < steps[-1]


def test_resuming_reproduces_an_uninterrupted_run(data: Path, tmp_path: Path) -> None:
    whole = recipe(data, tmp_path / "whole", epochs=2, save_every=5)
    train(whole, progress=False)
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "checkpoint-10")
    assert [p.name for p in (tmp_path / "whole" / "checkpoints").iterdir()] == ["checkpoint-5"]
    train(whole, resume=True, progress=False)
    again = load_file(tmp_path / "whole" / "model.safetensors")
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.float(), again[name].float(), atol=0.05, rtol=0.1)


def test_resume_without_checkpoint_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no checkpoint under .*without --resume"):
        train(recipe(data, tmp_path), resume=True, progress=False)


def test_a_masked_model_starts_from_an_autoregressive_one(data: Path, tmp_path: Path) -> None:
    figures = train(recipe(data, tmp_path / "ar", objective="autoregressive", epochs=8), progress=False)
    assert figures["eval_nll"] < 3
    with pytest.raises(InvalidRequest, match="autoregressive"):
        GuidedPipeline.from_pretrained(str(tmp_path / "ar"))
    cold = train(recipe(data, tmp_path / "cold", epochs=2), progress=False)
    warm = train(recipe(data, tmp_path / "warm", epochs=2, start=str(tmp_path / "ar")), progress=False)
    assert warm["eval_bound"] < cold["eval_bound"]
    ar, masked = (DiffusionTransformer.from_pretrained(tmp_path / name).config for name in ("ar", "warm"))
    assert (ar.causal, masked.causal) == (True, False)
    assert (tmp_path / "warm" / "tokenizer.json").read_text() == (tmp_path / "ar" / "tokenizer.json").read_text()


@pytest.mark.parametrize("lines", [2, 5, 19])
def test_a_file_of_a_few_lines_is_enough(tmp_path: Path, lines: int) -> None:
    (tmp_path / "few.txt").write_text("\n".join((SENTENCES * 4)[:lines]))
    figures = train(recipe(tmp_path / "few.txt", tmp_path / "out"), progress=False)
    assert np.isfinite(figures["eval_bound"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"canvas": 3}, "fits a canvas of 3"),
        ({"canvas": 1}, "canvas=1 leaves no room"),
        ({"objective": "maskd"}, r"no objective 'maskd'"),
        ({"start": "/no/such/model"}, "no model to start from"),
        ({"heads": 3}, "heads"),
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": 0.0}, "epochs"),
        ({"save_every": 0}, "save_every"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"layers": 0}, "layers"),
        ({"heads": 32}, "even width"),
        ({"dropout": 1.0}, "dropout"),
        ({"min_count": 0}, "min_count"),
        ({"onward": 1.5}, r"onward=1.5 is a share"),
        ({"onward": 0.5, "objective": "uniform"}, "masked model's canvases"),
        ({"weighting": "1/t"}, "one of bound, flat"),
        ({"weighting": "flat", "objective": "uniform"}, "leave it out for other objectives"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(
    data: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(GuidedError, match=reason):
        train(recipe(data, tmp_path, **changes), progress=False)


def test_one_line_cannot_be_split(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(SENTENCES[0])
    with pytest.raises(InvalidRequest, match="no text to train on"):
        train(recipe(tmp_path / "one.txt", tmp_path / "out"), progress=False)


@pytest.mark.parametrize(
    ("objective", "told"),
    [("masked", {"onward", "weighting"}), ("block", {"weighting"}), ("uniform", set()), ("autoregressive", set())],
)
def test_an_objective_is_told_what_it_knows(tmp_path: Path, objective: str, told: set[str]) -> None:
    changes = {"weighting": "flat"} if told else {}
    options = objective_options(small_recipe(tmp_path, tmp_path, objective=objective, **changes)) or {}
    assert options.keys() == told
    assert not told or options["weighting"] == "flat"
