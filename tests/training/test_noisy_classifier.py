"""A classifier trained on noise: what it reads, that it learns, and that it guides by its folder's name."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from constraints import Classifier, Length
from guided_dlm import Constraint, GuidedPipeline
from guided_dlm.errors import InvalidRequest, VocabularyMismatch
from guided_dlm.training.data import CanvasCollator
from guided_dlm.training.noisy_classifier import ClassifierRecipe, NoisyCollator, train_classifier


def about(text: str) -> str:
    return "family" if "family" in text or "child" in text else "other"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of texts that the shipped model wrote, by a word that they have or lack."""
    place = tmp_path_factory.mktemp("classifier")
    texts = GuidedPipeline.from_pretrained("restaurant-words")(num_samples=400, steps=6, seed=5).texts
    lines = [{"text": text, "about": about(text)} for text in texts]
    (place / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = ClassifierRecipe(
        data=str(place / "data.jsonl"), out=str(place / "model"), label="about", epochs=40, batch_size=32,
        hidden_size=32, layers=1, learning_rate=3e-3,
    )  # fmt: skip
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        figures = train_classifier(recipe, progress=False)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
    assert figures["labels"] == ["family", "other"]
    assert figures["accuracy_0.0"] >= 0.75
    return place / "model"


def test_it_guides_by_name_and_hard_constraints_hold(folder: Path) -> None:
    pipe = GuidedPipeline.from_pretrained("restaurant-words")
    shares = []
    for strength in (0.0, 6.0):
        wish = Classifier(str(folder), "family", strength=strength)
        out = pipe(constraint=wish & Length(words=(8, 14)), num_samples=64, steps=8, seed=3)
        assert bool(out.satisfied.all())
        shares.append(sum(about(text) == "family" for text in out.texts) / 64)
    assert shares[1] > shares[0] + 0.15


def test_its_config_is_plain(folder: Path) -> None:
    wish = Classifier(str(folder), "family", strength=2.0, method="first_order")
    assert Constraint.from_config(wish.to_config()) == wish
    assert repr(wish) == f"Classifier('{folder}', target='family', strength=2.0, method='first_order')"


def test_another_models_tokens_are_refused(folder: Path) -> None:
    with pytest.raises(VocabularyMismatch, match=r"reads \d+ tokens"):
        GuidedPipeline.from_pretrained("restaurant-json")(constraint=Classifier(str(folder), "family"), steps=2)
    with pytest.raises(InvalidRequest, match="could not be loaded"):
        GuidedPipeline.from_pretrained("restaurant-words")(constraint=Classifier("/nowhere", "family"), steps=2)
    with pytest.raises(InvalidRequest, match="with target="):
        Classifier(str(folder))


def test_noise_has_every_level_and_repeats_from_its_seed() -> None:
    examples = [{"input_ids": list(range(5, 45)), "length": 40, "label": i % 2} for i in range(400)]
    collate = NoisyCollator(CanvasCollator(0, 40, full_share=1.0), mask_id=3, seed=1)
    batch = collate(examples)
    share_B = (batch["input_ids"] == 3).double().mean(-1)
    assert float(share_B.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(share_B.min()) < 0.1 < 0.9 < float(share_B.max())
    kept = batch["input_ids"] != 3
    assert torch.equal(batch["input_ids"][kept], torch.arange(5, 45).expand(400, -1)[kept])
    assert batch["labels"].tolist() == [i % 2 for i in range(400)]
    assert torch.equal(collate(examples)["input_ids"], batch["input_ids"])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([{"text": "a"}] * 30, r"expected a .text. and a label .label."),
        ([{"text": "a", "label": "x"}] * 30, "30 lines and 1 labels"),
        ([{"text": "a", "label": i % 2} for i in range(10)], "10 lines and 2 labels"),
    ],
)
def test_data_that_teach_nothing_are_refused(tmp_path: Path, lines: list[dict[str, object]], reason: str) -> None:
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InvalidRequest, match=reason):
        train_classifier(ClassifierRecipe(data=str(tmp_path / "data.jsonl"), out=str(tmp_path / "out")), progress=False)
