"""Diffusion on the simplex from training to text: what the net reads, whole canvases and blocks, a run, a start."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES, small_recipe
from torch import Tensor
from transformers import AutoModel
from typer.testing import CliRunner

from constraints import Length, Words
from guided_dlm import GuidedPipeline
from guided_dlm.canvas import Canvas
from guided_dlm.cli import app
from guided_dlm.denoisers import SimplexDenoiser
from guided_dlm.denoisers.simplex_modeling import SimplexTransformer
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes.schedules import SCHEDULES
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.testing import check_denoiser
from guided_dlm.training.recipe import TrainingRecipe, train
from guided_dlm.training.simplex import draw_blocks, evaluate_simplex, simplex


def recipe(data: Path, out: Path, **changes: Any) -> TrainingRecipe:
    return small_recipe(data, out, **{"objective": "simplex", **changes})


@pytest.fixture(scope="module")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned")
    train(recipe(data, out, epochs=80, hidden_size=64, learning_rate=5e-3), progress=False)
    return out


@pytest.fixture(scope="module")
def learned_in_blocks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("blocks")
    train(recipe(data, out, epochs=80, hidden_size=64, learning_rate=5e-3, block_length=5), progress=False)
    return out


def load(folder: Path) -> SimplexDenoiser:
    denoiser = GuidedPipeline.from_pretrained(folder).denoiser
    assert isinstance(denoiser, SimplexDenoiser)
    return denoiser


def model_of(folder: Path) -> SimplexTransformer:
    return SimplexTransformer.from_pretrained(folder, dtype=torch.float32).eval()


def learns(folder: Path, below: float) -> None:
    record = json.loads((folder / "training.json").read_text())
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    assert losses[-1] < 0.4 * losses[0]
    assert record["figures"]["eval_cross_entropy"] < below


@pytest.mark.parametrize("stepping", [{}, {"solver": "renoise"}])
def test_a_tiny_model_learns_a_few_sentences(learned: Path, stepping: dict[str, Any]) -> None:
    learns(learned, below=1.4)  # untrained it is above 5
    out = GuidedPipeline(load(learned).stepping(**stepping))(num_samples=40, steps=64, seed=0)
    assert sum(text in SENTENCES for text in out.texts) >= 20
    assert len(set(out.texts)) > 1


def test_a_tiny_model_learns_to_write_block_by_block(learned_in_blocks: Path) -> None:
    learns(learned_in_blocks, below=1.2)
    out = GuidedPipeline(load(learned_in_blocks))(num_samples=40, steps=32, seed=0)
    assert sum(text in SENTENCES for text in out.texts) >= 10
    assert len(set(out.texts)) > 1


@pytest.mark.parametrize("wish", [Length(words=(2, 4)), Length(words=9) & Words(include=["pub"])])
@pytest.mark.parametrize("stepping", [{}, {"solver": "renoise"}, {"clean": "mean", "eta": 0.0, "solver": "dpm++2m"}])
def test_every_output_satisfies_a_hard_constraint(learned: Path, wish: Any, stepping: dict[str, Any]) -> None:
    pipe = GuidedPipeline(load(learned).stepping(**stepping))
    for steps in (1, 8):
        assert bool(pipe(constraint=wish, num_samples=16, steps=steps).satisfied.all())


@pytest.mark.parametrize("asked", [{}, {"temperature": 0}, {"top_p": 0.3}, {"prompt": "The Mill"}])
@pytest.mark.parametrize("width", [1, 5, 25])
def test_a_hard_constraint_holds_across_blocks(learned: Path, asked: dict[str, Any], width: int) -> None:
    """A model of whole canvases writes blocks too: what is written is the prompt of the next."""
    wish = Length(words=(6, 8)) & Words(include=["pub", "riverside"])
    out = GuidedPipeline(load(learned))(
        constraint=wish, num_samples=8, steps=4, block_length=width, max_new_tokens=13, **asked
    )
    assert bool(out.satisfied.all())


def test_a_model_of_blocks_writes_blocks_and_nothing_wider(learned_in_blocks: Path) -> None:
    denoiser = load(learned_in_blocks)
    assert denoiser.block_length == 5
    check_denoiser(denoiser, length=5)
    out = GuidedPipeline(denoiser)(constraint=Length(words=9) & Words(include=["pub"]), num_samples=16, steps=4)
    assert bool(out.satisfied.all())
    with pytest.raises(InvalidRequest, match="blocks of 5 tokens, and was asked for 6"):
        GuidedPipeline(denoiser)(steps=2, block_length=6)


def test_a_row_alone_equals_the_row_in_a_batch(learned: Path, learned_in_blocks: Path) -> None:
    for folder in (learned, learned_in_blocks):
        pipe = GuidedPipeline(load(folder))
        prompts, seeds = ["The Mill", None, "Near"], [5, 6, 7]
        options: dict[str, Any] = {"constraint": Length(words=(3, 5)), "steps": 6, "max_new_tokens": 10}
        together = pipe(prompts, seed=seeds, **options)
        assert len(set(together.texts)) > 1
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            assert torch.equal(pipe([prompt], seed=[seed], **options).tokens[0], together.tokens[row])


def test_the_folder_loads_as_a_simplex_denoiser_that_keeps_the_contract(learned: Path) -> None:
    denoiser = load(learned)
    check_denoiser(denoiser)
    assert isinstance(AutoModel.from_pretrained(learned), SimplexTransformer)
    assert denoiser.block_length is None
    assert denoiser.process.size == len(denoiser.vocabulary)
    assert denoiser.process.scale == 5.0
    assert denoiser.process.schedule is SCHEDULES["cosine_squared"]
    with pytest.raises(InvalidRequest, match="clean='mean' and eta=0"):
        denoiser.stepping(solver="dpm++2m")


def test_the_net_reads_the_mean_token_of_the_simplex_and_the_time(learned: Path) -> None:
    model, generator = model_of(learned), torch.Generator().manual_seed(0)
    w = 5 * torch.randn(2, 5, model.config.vocab_size, generator=generator)
    time_BL, tokens_BL = torch.full((2, 5), 0.5), torch.full((2, 5), 9)
    time_BL[1, 2] = 0.0  # given
    read = w.exp() / w.exp().sum(-1, keepdim=True) @ model.embedding.weight
    read[1, 2] = model.embedding.weight[9]
    by_hand = model.read(model.trunk(read, None, time_BL))
    found = model(latents_BLV=w, tokens_BL=tokens_BL, time_BL=time_BL).logits
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, model(latents_BLV=w, tokens_BL=tokens_BL, time_BL=time_BL * 0.9).logits, atol=1e-3)


def begun(denoiser: SimplexDenoiser, prompts: list[str | None], length: int = 5) -> Canvas:
    canvas = Canvas.from_prompts(prompts, denoiser.vocabulary, length, denoiser.device)
    return denoiser.process.start(canvas, Randomness(row_seeds(0, len(prompts), denoiser.device)))


def test_what_is_given_stands_in_the_canvas_without_noise(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given position is read as its token, whatever the latents hold there; a noisy one from its latents alone."""
    denoiser = load(learned)
    given_BL = torch.full((2, 5), -1)
    given_BL[:, 3] = 20
    canvas = begun(denoiser, ["The Mill", "The"]).fix(given_BL)
    assert canvas.latents_BLD is not None
    logits, _ = denoiser(canvas, 0.5)
    seen: list[dict[str, Tensor]] = []
    real = denoiser.model.forward
    monkeypatch.setattr(denoiser.model, "forward", lambda **x: seen.append(x) or real(**x))
    moved = canvas.latents_BLD.clone()
    moved[:, 3] = 77.0
    again, _ = denoiser(replace(canvas, latents_BLD=moved, tokens_BL=torch.where(canvas.fixed_BL, 20, 9)), 0.5)
    assert torch.equal(again, logits)
    assert seen[0]["time_BL"].tolist() == [[0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.5]] * 2
    assert torch.equal(seen[0]["latents_BLV"][:, 2:5], canvas.latents_BLD[:, :3])
    moved[:, 2] += torch.randn(moved[:, 2].shape, generator=torch.Generator().manual_seed(0))
    other, _ = denoiser(replace(canvas, latents_BLD=moved), 0.5)
    assert not torch.allclose(other.clamp_min(-99), logits.clamp_min(-99), atol=1e-3)


def test_blocks_follow_one_another_and_each_is_drawn_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    begin_B = torch.tensor([0, 3, 8, 9] * 3000)
    noisy_BL, there_BL, blocks_B = draw_blocks(begin_B, 9, 4, generator)
    assert blocks_B[:4].tolist() == [3, 2, 1, 1]
    possible = {
        0: ["xxxx.....", "ooooxxxx.", "oooooooox"],
        3: ["oooxxxx..", "oooooooxx"],
        8: ["oooooooox"],
        9: ["ooooooooo"],
    }
    shown = [
        "".join("x" if noisy else "o" if there else "." for noisy, there in zip(*row, strict=True))
        for row in zip(noisy_BL.tolist(), there_BL.tolist(), strict=True)
    ]
    for begin, layouts in possible.items():
        found = [layout for layout, at in zip(shown, begin_B.tolist(), strict=True) if at == begin]
        for layout in layouts:
            assert found.count(layout) == pytest.approx(len(found) / len(layouts), rel=0.08)


def test_without_blocks_the_whole_completion_is_noisy() -> None:
    noisy_BL, there_BL, blocks_B = draw_blocks(torch.tensor([0, 2]), 4, None, None)
    assert noisy_BL.tolist() == [[True] * 4, [False, False, True, True]]
    assert bool(there_BL.all())
    assert blocks_B.tolist() == [1, 1]


class Exact(torch.nn.Module):
    """Says what it was shown, and predicts all tokens alike."""

    def __init__(self, model: SimplexTransformer) -> None:
        super().__init__()
        self.config, self.seen = model.config, list[dict[str, Any]]()

    def forward(self, **inputs: Any) -> Any:
        self.seen.append(inputs)
        return type("Out", (), {"logits": torch.zeros_like(inputs["latents_BLV"])})


def test_training_shows_the_noise_of_the_process(learned: Path) -> None:
    """w_t has mean sqrt(abar) w_0 and standard deviation sqrt(1 - abar) K, each row at its own level."""
    model, size = Exact(model_of(learned)), model_of(learned).config.vocab_size
    tokens_BL = torch.full((400, 16), 9)
    loss_B = simplex(model, tokens_BL, torch.full((400,), 16), torch.Generator().manual_seed(0), None)
    torch.testing.assert_close(loss_B, torch.full((400,), 16 * math.log(size)))
    (seen,) = model.seen
    level_B = seen["time_BL"][:, 0]
    assert level_B.sort().values[[0, 200, 399]].tolist() == pytest.approx([0.0, 0.5, 1.0], abs=0.01)
    abar_B = torch.tensor([SCHEDULES["cosine_squared"](t) for t in level_B.tolist()])
    clean_V = torch.where(torch.arange(size) == 9, 5.0, -5.0)
    noise = (seen["latents_BLV"] - abar_B.sqrt()[:, None, None] * clean_V)[level_B > 0.05]
    noise = noise / (5 * (1 - abar_B).sqrt()[level_B > 0.05, None, None])
    assert abs(float(noise.mean())) < 0.01
    assert float(noise.std()) == pytest.approx(1.0, abs=0.01)
    assert float(noise[..., 9].std()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("width", [None, 4])
def test_the_loss_leaves_the_prompt_out(learned: Path, width: int | None) -> None:
    model = model_of(learned)
    model.config.block_length = width
    tokens_BL, length_B = torch.full((3, 6), 9), torch.tensor([6, 6, 6])
    begin_B = torch.tensor([0, 5, 6])
    loss_B = simplex(model, tokens_BL, length_B, torch.Generator().manual_seed(0), begin_B).detach()
    assert float(loss_B[2]) == 0.0
    assert float(loss_B[0]) > float(loss_B[1]) > 0


def test_in_blocks_the_context_is_clean_and_the_rest_unseen(learned: Path) -> None:
    model = model_of(learned)
    model.config.block_length = 2
    generator, seed = torch.Generator(), 1
    noisy_BL, _, _ = draw_blocks(torch.zeros(1, dtype=torch.int64), 6, 2, generator.manual_seed(seed))
    while noisy_BL.tolist() != [[False, False, True, True, False, False]]:
        seed += 1
        noisy_BL, _, _ = draw_blocks(torch.zeros(1, dtype=torch.int64), 6, 2, generator.manual_seed(seed))
    first = simplex(model, torch.full((1, 6), 9), torch.tensor([6]), generator.manual_seed(seed), None)
    for place, same in ((5, True), (4, True), (1, False)):
        changed = torch.full((1, 6), 9)
        changed[0, place] = 12
        again = simplex(model, changed, torch.tensor([6]), generator.manual_seed(seed), None)
        assert torch.allclose(again, first) is same


def test_the_validation_figure_counts_each_block_as_often_as_there_are_blocks(learned: Path) -> None:
    """Under a net that knows nothing, all 16 positions of a canvas cost log V, however they are cut."""
    model = Exact(model_of(learned))
    model.eval()
    model.device = torch.device("cpu")  # type: ignore[assignment]
    for width in (None, 4, 8):
        model.config.block_length = width
        figure = evaluate_simplex(model, [{"input_ids": [9, 9, 1], "length": 3}] * 8, pad_id=2, passes=2)
        expected = 16 * math.log(model.config.vocab_size) / 3
        assert figure["cross_entropy"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("schedule", ["cosine_squared", "sqrt", "linear"])
def test_every_schedule_trains_from_a_masked_model_and_samples(data: Path, tmp_path: Path, schedule: str) -> None:
    if schedule == "sqrt":
        train(recipe(data, tmp_path / "masked", objective="masked"), progress=False)
    start = str(tmp_path / "masked") if schedule == "sqrt" else None
    figures = train(recipe(data, tmp_path / "out", start=start, schedule=schedule), progress=False)
    assert math.isfinite(figures["eval_cross_entropy"])
    denoiser = load(tmp_path / "out")
    assert denoiser.process.schedule is SCHEDULES[schedule]
    assert bool(GuidedPipeline(denoiser)(constraint=Length(words=3), num_samples=4, steps=4).satisfied.all())


def test_a_start_from_a_masked_model_keeps_its_weights(data: Path, tmp_path: Path) -> None:
    train(recipe(data, tmp_path / "masked", objective="masked", epochs=5), progress=False)
    start = str(tmp_path / "masked")
    train(recipe(data, tmp_path / "out", start=start, learning_rate=1e-9), progress=False)
    masked, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("masked", "out"))
    for name in masked:
        torch.testing.assert_close(ours[name], masked[name], atol=1e-3, rtol=1e-3)
    assert set(ours) - set(masked) == {"time.first.weight", "time.last.weight"}


def test_the_command_line_takes_the_objective_and_its_blocks(data: Path, tmp_path: Path) -> None:
    sizes = ["--canvas", "16", "--hidden-size", "16", "--layers", "1", "--heads", "2", "--epochs", "1"]
    found = CliRunner().invoke(
        app, ["train", str(data), str(tmp_path), "--objective", "simplex", "--block-length", "4", *sizes]
    )
    assert found.exit_code == 0, found.output
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["process"], config["schedule"], config["block_length"]) == ("simplex", "cosine_squared", 4)
    assert "eval_cross_entropy" in json.loads(found.stdout.strip().splitlines()[-1])
