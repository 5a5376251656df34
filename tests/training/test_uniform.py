"""Uniform diffusion from training to text: the noise, the bound against enumeration, a run, constraints, a start."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES, small_recipe
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import AutoConfig

from constraints import Length, Words
from guided_dlm import GuidedPipeline
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TransformerDenoiser, UniformDenoiser
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.denoisers.transformer import uniform_process
from guided_dlm.errors import GuidedError, InvalidRequest
from guided_dlm.processes.schedules import SCHEDULES
from guided_dlm.testing import check_denoiser
from guided_dlm.training.recipe import TrainingRecipe, train
from guided_dlm.training.uniform import bound_terms, corrupt, evaluate_uniform, prior_term, uniform

SIZE, SILENT = 4, 3  # noise writes 0, 1 and 2


class Leaves:
    """A net that gives leave-one-out logits of a joint over 3 tokens, exact or spoiled by noise of its own."""

    def __init__(self, length: int, schedule: str = "linear", spoil: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(length)
        self.joint = torch.randn([3] * length, generator=generator, dtype=torch.float64).mul(1.5).flatten().softmax(0)
        self.config = DiffusionTransformerConfig(
            vocab_size=SIZE, process="uniform", schedule=schedule, noiseless_ids=[SILENT],
            max_position_embeddings=length,
        )  # fmt: skip
        self.device, self.length, self.spoil = torch.device("cpu"), length, spoil
        self.every = torch.tensor(list(itertools.product(range(3), repeat=length)))

    def eval(self) -> None:
        pass

    def __call__(self, input_ids: Tensor, time_BL: Tensor) -> Any:
        alpha_BL = torch.tensor([[SCHEDULES[self.config.schedule](t) for t in row] for row in time_BL.tolist()])
        same_BNL = (input_ids[:, None] == self.every[None]).double()
        seen_BNL = (alpha_BL[:, None] * same_BNL + (1 - alpha_BL[:, None]) / 3).log()
        logits = []
        for place in range(self.length):
            others_BN = seen_BNL.sum(-1) - seen_BNL[..., place] + self.joint.log()
            logits.append((others_BN.softmax(-1) @ one_hot(self.every[:, place], SIZE).double()).log())
        wave_BLV = torch.sin(input_ids[..., None] + torch.arange(SIZE) * 1.7 + 5 * time_BL[..., None])
        return SimpleNamespace(logits=torch.stack(logits, dim=1) + self.spoil * wave_BLV)


def exact_bound(model: Any, tokens_L: Tensor, levels: int) -> float:
    """The bound's terms, summed over every level and every noisy canvas with its probability."""
    process, total = uniform_process(model.config), 0.0
    for index in range(1, levels + 1):
        alpha = process.schedule(index / levels)
        weight = (alpha * (model.every == tokens_L) + (1 - alpha) / 3).prod(-1)
        rows = len(model.every)
        clean_BL = tokens_L.expand(rows, -1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("guided_dlm.training.uniform.corrupt", lambda *a, i=index: (model.every, _times(model, i, a)))
            terms = bound_terms(model, clean_BL, torch.zeros(rows), torch.full((rows,), index), levels, None)
        total += float((weight * terms).sum()) / levels
    return total + float(prior_term(process, torch.tensor([model.length])))


def _times(model: Any, index: int, given: Any) -> Tensor:
    return given[3][:, None].expand(-1, model.length).float()


def exact_law(model: Any, levels: int) -> Tensor:
    """The law of the sampler's text, by transition matrices over all canvases."""
    process = uniform_process(model.config)
    every, length = model.every, model.length
    law_N = torch.full((len(every),), 3.0**-length, dtype=torch.float64)
    for index in range(levels, 0, -1):
        t, s = index / levels, (index - 1) / levels
        logits = model(input_ids=every, time_BL=torch.full(every.shape, t)).logits
        alpha_t, alpha_s = process.schedule(t), process.schedule(s)
        seen_NLV = torch.where(every[..., None] == torch.arange(SIZE), alpha_t + (1 - alpha_t) / 3, (1 - alpha_t) / 3)
        belief = (logits + seen_NLV.log()).softmax(-1)
        ratio, drawn = alpha_t / alpha_s, (torch.arange(SIZE) < 3).double() / 3
        forward = torch.eye(SIZE) * alpha_s + (1 - alpha_s) * drawn  # [v, z_s]
        back = torch.eye(SIZE) * ratio + (1 - ratio) / 3  # [z_s, z_t]
        law = forward[:, :, None] * back[None]  # [v, z_s, z_t]
        step = law / law.sum(1, keepdim=True).clamp_min(1e-300)
        kernel_NLS = torch.einsum("nlv,vsz,nlz->nls", belief, step, one_hot(every, SIZE).double())
        move_NM = torch.stack([kernel_NLS[:, i][:, every[:, i]] for i in range(length)]).prod(0)
        law_N = law_N @ move_NM
    return law_N


@pytest.mark.parametrize("schedule", ["linear", "cosine", "log_linear", "sqrt"])
@pytest.mark.parametrize("spoil", [0.0, 1.0])
def test_the_bound_lies_above_the_negative_log_probability_of_the_sampler(schedule: str, spoil: float) -> None:
    model = Leaves(2, schedule, spoil)
    law_N = exact_law(model, levels=4)
    assert float(law_N.sum()) == pytest.approx(1.0)
    gap = [exact_bound(model, tokens, 4) + math.log(law_N[row]) for row, tokens in enumerate(model.every)]
    assert min(gap) > -1e-9
    assert max(gap) > 1e-3  # positions step independently, so the bound is not tight


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sqrt"])
def test_on_one_position_the_bound_of_an_exact_net_is_the_log_probability(schedule: str) -> None:
    model = Leaves(1, schedule)
    for row, tokens in enumerate(model.every):
        assert exact_bound(model, tokens, 5) == pytest.approx(-math.log(model.joint[row]), abs=1e-5)


def test_the_validation_figure_is_the_bound_without_bias() -> None:
    model = Leaves(2, spoil=0.5)
    examples = [{"input_ids": [0, 1], "length": 2}, {"input_ids": [2], "length": 1}]  # 2 is end and padding
    found = evaluate_uniform(model, examples, pad_id=2, passes=4000, levels=6)["bound"]
    exact = sum(exact_bound(model, torch.tensor(tokens), 6) for tokens in ([0, 1], [2, 2])) / 3
    assert found == pytest.approx(exact, rel=0.03)


def test_noise_leaves_the_prompt_and_silent_tokens_alone() -> None:
    process = uniform_process(Leaves(2).config)
    tokens_BL, begin_B = torch.full((4000, 3), SILENT), torch.ones(4000, dtype=torch.long)
    t_B = torch.arange(4000) / 4000
    noisy_BL, time_BL = corrupt(process, tokens_BL, begin_B, t_B, torch.Generator().manual_seed(0))
    assert (noisy_BL[:, 0] == SILENT).all()
    assert not time_BL[:, 0].any()
    changed_BL = noisy_BL[:, 1:] != SILENT
    assert abs(float(changed_BL.float().mean()) - 0.5) < 0.03
    share = torch.bincount(noisy_BL[:, 1:][changed_BL], minlength=3) / changed_BL.sum()
    assert (share - 1 / 3).abs().max() < 0.04
    torch.testing.assert_close(time_BL[:, 1], t_B)


def test_no_net_has_a_lower_loss_than_the_exact_one() -> None:
    def mean_loss(spoil: float) -> float:
        model, generator = Leaves(2, spoil=spoil), torch.Generator().manual_seed(1)
        tokens_BL = model.every[torch.multinomial(model.joint, 4000, replacement=True, generator=generator)]
        return float(uniform(model, tokens_BL, torch.full((4000,), 2), generator).mean())

    exact = mean_loss(0.0)
    assert all(mean_loss(spoil) > exact + 1e-3 for spoil in (-0.5, 0.5))


def recipe(data: Path, out: Path, **changes: Any) -> TrainingRecipe:
    return small_recipe(data, out, **{"objective": "uniform", **changes})


@pytest.fixture(scope="module")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned")
    train(recipe(data, out, epochs=250, hidden_size=64, learning_rate=5e-3), progress=False)
    return out


def test_a_tiny_model_learns_a_few_sentences(learned: Path) -> None:
    record = json.loads((learned / "training.json").read_text())
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert record["figures"]["eval_bound"] < 1.0  # log 5 over some 10 tokens is 0.16; untrained it is above 5
    out = GuidedPipeline.from_pretrained(learned)(num_samples=20, steps=32, seed=0)
    assert sum(text in SENTENCES for text in out.texts) >= 10
    assert len(set(out.texts)) > 1


@pytest.mark.parametrize(
    "wish", [Length(words=(2, 4)), Words(include=["Japanese"]), Length(words=9) & Words(include=["pub"])]
)
@pytest.mark.parametrize("steps", [1, 8])
def test_every_output_satisfies_a_hard_constraint(learned: Path, wish: Any, steps: int) -> None:
    out = GuidedPipeline.from_pretrained(learned)(constraint=wish, num_samples=24, steps=steps)
    assert bool(out.satisfied.all())


def test_the_folder_loads_as_a_uniform_denoiser_that_keeps_the_contract(learned: Path) -> None:
    denoiser = GuidedPipeline.from_pretrained(learned).denoiser
    assert type(denoiser) is UniformDenoiser
    check_denoiser(denoiser)
    writable = denoiser.vocabulary.writable.nonzero()[0].tolist()
    assert denoiser.process.noise_ids.tolist() == writable
    assert denoiser.vocabulary.mask_id not in writable


def test_what_is_given_stays_and_is_told_as_clean(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = GuidedPipeline.from_pretrained(learned).denoiser
    canvas = Canvas.from_prompts(["The Mill", "The"], denoiser.vocabulary, 5, denoiser.device)
    given_BL = torch.full((2, 5), -1)
    given_BL[:, 3] = 20
    seen: list[Tensor] = []
    real = denoiser.model.forward
    monkeypatch.setattr(denoiser.model, "forward", lambda **x: seen.append(x["time_BL"]) or real(**x))
    denoiser(canvas.fix(given_BL), 0.5)
    assert seen[0].tolist() == [[0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.5]] * 2


def test_a_start_from_a_masked_model_begins_as_that_model(data: Path, tmp_path: Path) -> None:
    train(recipe(data, tmp_path / "masked", objective="masked", epochs=30), progress=False)
    start = str(tmp_path / "masked")
    cold = train(recipe(data, tmp_path / "cold", epochs=2), progress=False)
    warm = train(recipe(data, tmp_path / "warm", epochs=2, start=start), progress=False)
    assert warm["eval_bound"] < cold["eval_bound"]
    config = AutoConfig.from_pretrained(start)
    config.time_features = 64
    begun = DiffusionTransformer.from_pretrained(start, config=config, dtype=torch.float32).eval()
    masked = DiffusionTransformer.from_pretrained(start, dtype=torch.float32).eval()
    tokens_BL = torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    assert torch.equal(begun(tokens_BL, time_BL=torch.rand(2, 7)).logits, masked(tokens_BL).logits)
    assert "time.last.weight" in load_file(tmp_path / "warm" / "model.safetensors")
    assert AutoConfig.from_pretrained(start).process == "masked"


def test_the_adapter_of_another_noise_is_refused(learned: Path) -> None:
    model = DiffusionTransformer.from_pretrained(learned)
    vocabulary = GuidedPipeline.from_pretrained(learned).denoiser.vocabulary
    with pytest.raises(InvalidRequest, match="undoes uniform noise and TransformerDenoiser is for masked"):
        TransformerDenoiser(model, vocabulary)
    with pytest.raises(ValueError, match="give time_BL"):
        model(torch.zeros(1, 3, dtype=torch.long))


def test_a_noise_from_a_later_version_is_said(learned: Path, tmp_path: Path) -> None:
    config = json.loads((learned / "config.json").read_text()) | {"process": "odd"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidRequest, match="'odd' noise; this version knows"):
        GuidedPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schedule": "steep"}, "no schedule 'steep'"),
        ({"objective": "masked", "schedule": "linear"}, "no noise schedule"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(GuidedError, match=reason):
        recipe(Path("a"), Path("b"), **changes)
