"""Gaussian diffusion from training to text: embeddings, self-conditioning, what is given, a run, a start."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES, small_recipe
from torch import Tensor
from transformers import AutoModel

from constraints import Length, Words
from guided_dlm import GuidedPipeline
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import GaussianDenoiser
from guided_dlm.denoisers.latent_modeling import LatentTransformer
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes.schedules import SCHEDULES
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.testing import check_denoiser
from guided_dlm.training.gaussian import gaussian
from guided_dlm.training.recipe import TrainingRecipe, train


def recipe(data: Path, out: Path, **changes: Any) -> TrainingRecipe:
    return small_recipe(data, out, **{"objective": "gaussian", **changes})


@pytest.fixture(scope="module")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned")
    train(recipe(data, out, epochs=80, hidden_size=64, learning_rate=5e-3), progress=False)
    return out


def load(folder: Path) -> GaussianDenoiser:
    denoiser = GuidedPipeline.from_pretrained(folder).denoiser
    assert isinstance(denoiser, GaussianDenoiser)
    return denoiser


def test_a_tiny_model_learns_a_few_sentences(learned: Path) -> None:
    record = json.loads((learned / "training.json").read_text())
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    assert losses[-1] < 0.4 * losses[0]
    assert record["figures"]["eval_cross_entropy"] < 0.6  # untrained it is above 5
    out = GuidedPipeline(load(learned))(num_samples=40, steps=64, seed=0)
    assert sum(text in SENTENCES for text in out.texts) >= 3
    assert len(set(out.texts)) > 1


STEPPING = [{}, {"clean": "mean", "eta": 0.0}, {"clean": "mean", "eta": 0.0, "solver": "dpm++2m"}]


@pytest.mark.parametrize("wish", [Length(words=(2, 4)), Length(words=9) & Words(include=["pub"])])
@pytest.mark.parametrize("stepping", STEPPING)
def test_every_output_satisfies_a_hard_constraint(learned: Path, wish: Any, stepping: dict[str, Any]) -> None:
    pipe = GuidedPipeline(load(learned).stepping(**stepping))
    for steps in (1, 8):
        assert bool(pipe(constraint=wish, num_samples=16, steps=steps).satisfied.all())


def test_the_folder_loads_as_a_gaussian_denoiser_that_keeps_the_contract(learned: Path) -> None:
    denoiser = load(learned)
    check_denoiser(denoiser)
    assert isinstance(AutoModel.from_pretrained(learned), LatentTransformer)
    assert load_file(learned / "model.safetensors")["to_latent.weight"].shape == (16, 64)
    with pytest.raises(InvalidRequest, match="clean='mean' and eta=0"):
        denoiser.stepping(solver="dpm++2m")


def test_embeddings_have_unit_variance_whatever_the_weights(learned: Path) -> None:
    model = LatentTransformer.from_pretrained(learned, dtype=torch.float32)
    before = model.latent_embeddings()
    torch.testing.assert_close(before.square().mean(-1), torch.ones(len(before)))
    with torch.no_grad():
        model.to_latent.weight *= 7.0
    torch.testing.assert_close(model.latent_embeddings(), before)


def test_the_logits_are_the_nets_word_times_the_likelihood_of_the_vectors(learned: Path) -> None:
    model, generator = (
        LatentTransformer.from_pretrained(learned, dtype=torch.float32).eval(),
        torch.Generator().manual_seed(0),
    )
    x, estimate = torch.randn(2, 2, 5, 16, generator=generator)
    abar_B, time_BL = torch.tensor([0.3, 0.8]), torch.full((2, 5), 0.5)
    time_BL[1, 2] = 0.0  # given
    mean = abar_B.sqrt()[:, None, None, None] * model.latent_embeddings()
    law = torch.distributions.Normal(mean, (1 - abar_B).sqrt()[:, None, None, None])
    seen = law.log_prob(x[:, :, None]).sum(-1)
    seen[1, 2] = 10 * model.latent_embeddings() @ x[1, 2]
    read = seen.softmax(-1) @ model.embedding.weight + model.from_latent(torch.cat([x, estimate], -1))
    by_hand = model.read(model.trunk(read, None, time_BL)) + seen
    found = model(latents_BLD=x, estimate_BLD=estimate, time_BL=time_BL, abar_B=abar_B).logits
    torch.testing.assert_close(found.log_softmax(-1), by_hand.log_softmax(-1), atol=1e-3, rtol=1e-3)


def begun(denoiser: GaussianDenoiser, prompts: list[str | None], length: int = 5) -> Canvas:
    canvas = Canvas.from_prompts(prompts, denoiser.vocabulary, length, denoiser.device)
    return denoiser.process.start(canvas, Randomness(row_seeds(0, len(prompts), denoiser.device)))


def test_what_is_given_stands_in_the_canvas_without_noise(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = load(learned)
    given_BL = torch.full((2, 5), -1)
    given_BL[:, 3] = 20
    canvas = begun(denoiser, ["The Mill", "The"]).fix(given_BL)
    seen: list[dict[str, Tensor]] = []
    real = denoiser.model.forward
    monkeypatch.setattr(denoiser.model, "forward", lambda **x: seen.append(x) or real(**x))
    denoiser(canvas, 0.5)
    (inputs,) = seen
    assert inputs["time_BL"].tolist() == [[0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.5]] * 2
    for name in ("latents_BLD", "estimate_BLD"):
        assert torch.equal(inputs[name][:, 5], denoiser.process.embeddings_VD[[20, 20]])
        assert torch.equal(inputs[name][:, :2], denoiser.process.embeddings_VD[canvas.prompt_BP])
    assert canvas.latents_BLD is not None
    assert torch.equal(inputs["latents_BLD"][:, 2:5], canvas.latents_BLD[:, :3])
    out = GuidedPipeline(denoiser)("The Mill", constraint=Length(words=(1, 4)), num_samples=4, steps=4)
    assert bool(out.satisfied.all())


def test_the_estimate_is_carried_and_rows_can_be_selected(learned: Path) -> None:
    denoiser = load(learned)
    canvas = begun(denoiser, [None] * 3)
    first, carry = denoiser(canvas, 1.0)
    torch.testing.assert_close(carry.estimate_BLD, first.softmax(-1) @ denoiser.process.embeddings_VD)
    again, _ = denoiser(canvas, 0.9, carry)
    blank, _ = denoiser(canvas, 0.9)
    assert not torch.allclose(again.clamp_min(-99), blank.clamp_min(-99), atol=1e-3)
    row_N = torch.tensor([2, 0])
    selected, _ = denoiser(canvas.select(row_N), 0.9, carry.select(row_N))
    torch.testing.assert_close(selected, again[row_N], atol=1e-4, rtol=1e-4)


class Watched(torch.nn.Module):
    """Counts the passes of a model, and whether each had a gradient and an estimate."""

    def __init__(self, model: LatentTransformer) -> None:
        super().__init__()
        self.model, self.config, self.passes = model, model.config, list[tuple[bool, bool]]()
        self.latent_embeddings = model.latent_embeddings

    def forward(self, **inputs: Tensor) -> Any:
        self.passes.append((torch.is_grad_enabled(), bool(inputs["estimate_BLD"][:, 1:].any())))
        return self.model(**inputs)


def test_half_of_the_batches_get_a_first_pass_without_gradient(learned: Path) -> None:
    model, generator = (
        Watched(LatentTransformer.from_pretrained(learned, dtype=torch.float32)),
        torch.Generator().manual_seed(0),
    )
    tokens_BL, length_B = torch.full((2, 4), 9), torch.tensor([4, 4])
    conditioned = 0
    for _ in range(60):
        model.passes.clear()
        gaussian(model, tokens_BL, length_B, generator, begin_B=torch.tensor([1, 1]))
        assert model.passes in ([(True, False)], [(False, False), (True, True)])
        conditioned += len(model.passes) == 2
    assert 18 <= conditioned <= 42


def test_the_loss_leaves_the_prompt_out(learned: Path) -> None:
    model = LatentTransformer.from_pretrained(learned, dtype=torch.float32).eval()
    tokens_BL, length_B = torch.full((3, 6), 9), torch.tensor([6, 6, 6])
    begin_B = torch.tensor([0, 5, 6])
    loss_B = gaussian(model, tokens_BL, length_B, torch.Generator().manual_seed(0), begin_B).detach()
    assert float(loss_B[2]) == 0.0
    assert (loss_B[:2] > 0).all()


@pytest.mark.parametrize("schedule", ["sqrt", "cosine", "linear"])
def test_every_schedule_trains_from_a_masked_model_and_samples(data: Path, tmp_path: Path, schedule: str) -> None:
    if schedule == "sqrt":
        train(recipe(data, tmp_path / "masked", objective="masked"), progress=False)
    start = str(tmp_path / "masked") if schedule == "sqrt" else None
    figures = train(recipe(data, tmp_path / "out", start=start, schedule=schedule, embedding_size=8), progress=False)
    assert math.isfinite(figures["eval_cross_entropy"])
    denoiser = load(tmp_path / "out")
    assert denoiser.process.schedule is SCHEDULES[schedule]
    assert denoiser.process.embeddings_VD.shape[1] == 8
    assert bool(GuidedPipeline(denoiser)(constraint=Length(words=3), num_samples=4, steps=4).satisfied.all())


def test_a_start_from_a_masked_model_keeps_its_trunk(data: Path, tmp_path: Path) -> None:
    train(recipe(data, tmp_path / "masked", objective="masked", epochs=5), progress=False)
    start = str(tmp_path / "masked")
    train(recipe(data, tmp_path / "out", start=start, learning_rate=1e-9), progress=False)
    masked, latent = (load_file(tmp_path / name / "model.safetensors") for name in ("masked", "out"))
    for name in masked:
        torch.testing.assert_close(latent[name], masked[name], atol=1e-3, rtol=1e-3)
    assert set(latent) - set(masked) == {
        "from_latent.weight", "to_latent.weight", "time.first.weight", "time.last.weight"
    }  # fmt: skip
