"""A model's own sampling settings: used where a call says nothing, and never where it does."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny_model, small_recipe, tabular_pipeline, tiny_pipeline

from guided_dlm import GuidedPipeline
from guided_dlm.denoisers import GaussianDenoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.model import CardRequest, evaluate_model
from guided_dlm.sampling_defaults import _VALUES, SamplingDefaults
from guided_dlm.training.recipe import train

OWN = {"steps": 3, "temperature": 0.25}


def write_section(folder: Path, sampling: Any) -> Path:
    config = json.loads((folder / "config.json").read_text()) | {"sampling": sampling}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, sampling: Any) -> GuidedPipeline:
    return GuidedPipeline.from_pretrained(write_section(save_tiny_model(folder), sampling))


@pytest.mark.parametrize(
    "own",
    [
        OWN,
        {"steps": 4, "sampler": "random"},
        {"steps": 4, "top_p": 0.3},
        {"steps": 4, "temperature": 2.0, "corrector": "gibbs"},
    ],
    ids=lambda own: "+".join(own),
)
def test_a_call_that_says_nothing_takes_the_models_own(tmp_path: Path, own: dict[str, Any]) -> None:
    plain, pipe = load(tmp_path / "plain", None), load(tmp_path / "own", own)
    said, silent = plain(num_samples=4, **own), pipe(num_samples=4)
    assert silent.texts == said.texts and silent.denoiser_calls == said.denoiser_calls
    assert silent.texts != plain(num_samples=4, steps=own["steps"]).texts
    assert silent.settings == said.settings == SamplingDefaults(**own)


def test_a_call_that_says_something_has_it(tmp_path: Path) -> None:
    plain = load(tmp_path / "plain", None)
    pipe = load(tmp_path / "own", OWN | {"corrector": "gibbs", "top_p": 0.3, "sampler": "random"})
    said = {"steps": 5, "temperature": 1.0, "corrector": "none", "top_p": 1.0, "sampler": "confidence"}
    assert pipe(num_samples=4, **said).texts == plain(num_samples=4, steps=5).texts
    one = {"corrector": "gibbs", "top_p": 0.3, "sampler": "random"}
    assert pipe(num_samples=2, temperature=0.0).texts == plain(num_samples=2, temperature=0.0, steps=3, **one).texts


def test_a_model_without_a_section_has_the_librarys() -> None:
    for pipe, room in ((tabular_pipeline(), None), (tiny_pipeline(), 8)):
        said = pipe(num_samples=4, max_new_tokens=room, steps=32, temperature=1.0, sampler="confidence")
        silent = pipe(num_samples=4, max_new_tokens=room)
        assert silent.texts == said.texts and silent.settings == SamplingDefaults()


def test_what_a_default_corrector_cannot_go_with_leaves_it_out(tmp_path: Path) -> None:
    pipe = load(tmp_path / "own", OWN | {"corrector": "gibbs"})
    out = pipe(particles=2)
    assert out.settings == SamplingDefaults(**OWN) and out.log_weights is not None
    verified = pipe.denoiser.sampling.fill(verified=True, steps=None, temperature=None, corrector=None)
    assert verified == SamplingDefaults(steps=3)
    with pytest.raises(InvalidRequest, match="with a corrector"):
        pipe(particles=2, corrector="gibbs")


def test_a_gaussian_model_steps_as_its_section_says(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a cheap pub\nthe mill is a pub\n" * 4)
    train(small_recipe(texts, tmp_path / "model", objective="gaussian"), progress=False)
    plain = GuidedPipeline.from_pretrained(tmp_path / "model").denoiser
    assert isinstance(plain, GaussianDenoiser) and plain.process.clean == "draw"
    own = GuidedPipeline.from_pretrained(write_section(tmp_path / "model", {"clean": "mean", "steps": 2}))
    said = GuidedPipeline(plain.stepping(clean="mean"))(num_samples=4, steps=2)
    assert own(num_samples=4).texts == said.texts
    assert own(num_samples=1).settings == said.settings == SamplingDefaults(clean="mean", steps=2)


def test_a_run_from_a_start_does_not_inherit_its_section(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("The Mill is a cheap pub .\n" * 8)
    start = write_section(save_tiny_model(tmp_path / "start", canvas=16), OWN)
    train(small_recipe(texts, tmp_path / "model", start=str(start), objective="uniform"), progress=False)
    assert "sampling" not in json.loads((tmp_path / "model" / "config.json").read_text())


def test_a_card_says_what_was_used(tmp_path: Path) -> None:
    model = write_section(save_tiny_model(tmp_path / "own"), OWN | {"top_p": 0.5})
    card = evaluate_model(CardRequest(model=str(model), samples=2))
    assert {name: card.settings[name] for name in ("steps", "temperature", "sampler", "top_p")} == {
        **OWN,
        "sampler": "confidence",
        "top_p": 0.5,
    }


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"stepz": 3}, "no key 'stepz'; it may say steps, temperature, sampler, corrector, top_p, clean"),
        ([1], "sampling=[1] must be an object of steps, temperature"),
        ({"steps": 0}, "sampling.steps=0 must be a whole number"),
        ({"steps": True}, "sampling.steps=True"),
        ({"temperature": 0}, "sampling.temperature=0"),
        ({"temperature": "hot"}, "sampling.temperature='hot'"),
        ({"temperature": float("nan")}, "sampling.temperature=nan"),
        ({"top_p": 1.5}, "sampling.top_p=1.5"),
        ({"sampler": 3}, "sampling.sampler=3"),
        ({"sampler": "confidance"}, "sampling.sampler: There is no sampler 'confidance'"),
        ({"corrector": "gibs"}, "sampling.corrector: There is no corrector 'gibs'"),
        ({"clean": "mode"}, "sampling.clean='mode'"),
        ({"clean": "mean"}, "sampling.clean is for Gaussian noise"),
    ],
)
def test_what_cannot_be_is_refused_on_loading(tmp_path: Path, section: Any, what: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load(tmp_path, section)
    assert what in str(caught.value) and str(tmp_path / "config.json") in str(caught.value)


def test_every_setting_of_a_section_is_checked() -> None:
    assert list(_VALUES) == [field.name for field in fields(SamplingDefaults)]
