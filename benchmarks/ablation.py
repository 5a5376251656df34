"""Training choices of restaurant-words one by one, at equal processor time: bounds on held-out text.

    python benchmarks/ablation.py --data e2e/train.jsonl.gz --validation e2e/valid.jsonl.gz [--seconds 240]

Every run has the same budget of the process's own seconds, so what costs more per step takes fewer steps; a start from
an autoregressive model spends four tenths of it there. Finished variants are kept in --work and not run again. Short
runs say what learns fast; what wins late they do not say.
"""

import argparse
import copy
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from _report import RESULTS, conditions, publish
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers.modeling_outputs import MaskedLMOutput

from guided_dlm.denoisers.layers import ZeroLinear
from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.training import objectives
from guided_dlm.training.data import CanvasCollator, encode_texts, read_texts
from guided_dlm.training.recipe import TrainingRecipe, make_model
from guided_dlm.training.tokenization import build_word_tokenizer, unseen_fragments
from guided_dlm.training.trainer import evaluate_masked

Objective = Callable[..., Tensor]
AUTOREGRESSIVE_SHARE = 0.4
SMALL: dict[str, Any] = {"full_share": 0.1, "layers": 4, "hidden_size": 128, "heads": 2, "batch_size": 32}
BOUND, LENGTH_FIRST = "bound per word", "length-first bound per word"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What differs from the base: recipe fields, the weight of a canvas, its times, EMA, smoothing, an AR start.

    `conditioned` models also read their own first guess, `packed` canvases hold several texts end to end.
    """

    recipe: dict[str, Any] = field(default_factory=dict)
    weight: Callable[[Tensor], Tensor] = lambda weight: weight
    antithetic: bool = True
    decay: float = 0.0
    smoothing: float = 0.0
    started: bool = False
    conditioned: bool = False
    packed: bool = False
    reseeded: int = 0


VARIANTS = {
    "base: from scratch": Variant(),
    "base, another seed": Variant(reseeded=1),
    "base, a third seed": Variant(reseeded=2),
    "autoregressive start": Variant(started=True),
    "flat weight": Variant(weight=lambda weight: torch.where(weight > 0, 4.0, 0.0)),
    "weight clipped at 5": Variant(weight=lambda weight: weight.clamp_max(5.0)),
    "independent times": Variant(antithetic=False),
    "EMA 0.98": Variant(decay=0.98),
    "label smoothing 0.1": Variant(smoothing=0.1),
    "wide: 2 layers of 192": Variant(recipe={"layers": 2, "hidden_size": 192}),
    "deep: 8 layers of 96": Variant(recipe={"layers": 8, "hidden_size": 96}),
    "all words (min_count 1)": Variant(recipe={"min_count": 1}),
    "frequent words (min_count 10)": Variant(recipe={"min_count": 10}),
    "every batch a full canvas": Variant(recipe={"full_share": 1.0}),
    "batches of mixed lengths": Variant(),
    "packed canvases": Variant(packed=True),
    "self-conditioning": Variant(conditioned=True),
}
MIXED = "batches of mixed lengths"


def batches(examples: list[dict[str, Any]], size: int, grouped: bool, seed: int) -> Iterator[list[dict[str, Any]]]:
    """Shuffled batches without end, of like lengths where `grouped`."""
    draw = random.Random(seed)
    while True:
        order = draw.sample(examples, len(examples))
        blocks = [order[i : i + 50 * size] for i in range(0, len(order), 50 * size)]
        for block in blocks:
            block = sorted(block, key=lambda example: example["length"]) if grouped else block
            cut = [block[i : i + size] for i in range(0, len(block), size)]
            yield from draw.sample(cut, len(cut))


def packed(examples: list[dict[str, Any]], size: int, canvas: int, seed: int) -> Iterator[list[dict[str, Any]]]:
    """Batches without end: nine of canvases that are full of texts end to end, then one of a text a canvas."""
    draw, alone = random.Random(seed), batches(examples, size, True, seed)
    if sum(example["length"] for example in examples) <= (size + 1) * canvas:
        raise SystemExit(f"The texts fill no batch of {size} packed canvases of {canvas}; give more of them.")
    while True:
        ids = [token for example in draw.sample(examples, len(examples)) for token in example["input_ids"]]
        full = [{"input_ids": ids[i : i + canvas], "length": canvas} for i in range(0, len(ids) - canvas, canvas)]
        for number, i in enumerate(range(0, len(full) - size, size)):
            yield full[i : i + size]
            if number % 9 == 8:
                yield next(alone)


class SelfConditioned(DiffusionTransformer):
    """Reads at each mask what it makes of the canvas at a first look (2208.04202); in training every other time."""

    def __init__(self, config: Any) -> None:
        """Add the map of the first guess, which starts as zero."""
        super().__init__(config)
        self.guess = ZeroLinear(config.hidden_size, config.hidden_size, bias=False)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> MaskedLMOutput:
        """Return logits `[B, L, V]`, the second look's."""
        tokens_BLD = self.embedding(input_ids)
        if not self.training or torch.rand(()) < 0.5:
            with torch.no_grad():
                guess_BLV = self.read(self.trunk(tokens_BLD, attention_mask)).softmax(-1)
                guess_BLD = guess_BLV @ self.embedding.weight
            hidden_BL1 = (input_ids == self.config.mask_token_id)[..., None]
            tokens_BLD = tokens_BLD + self.guess(guess_BLD) * hidden_BL1
        return MaskedLMOutput(logits=self.read(self.trunk(tokens_BLD, attention_mask)))


def independent(rows: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Times drawn one by one, in place of `objectives.comb`."""
    return torch.rand(rows, generator=generator, device=device)


def masked(variant: Variant, model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The loss of `objectives.masked` with the variant's weights, times and smoothing."""
    plain = objectives.cross_entropy

    def smoothed(logits_BLV: Tensor, tokens_BL: Tensor) -> Tensor:
        logits = logits_BLV.float().clamp_min(-30.0).transpose(1, 2)
        return F.cross_entropy(logits, tokens_BL, reduction="none", label_smoothing=variant.smoothing)

    def weighted(model: Any, tokens_BL: Tensor, hidden_BL: Tensor, weight_BL: Tensor) -> Tensor:
        noisy_BL = tokens_BL.masked_fill(hidden_BL, model.config.mask_token_id)
        loss = smoothed if variant.smoothing else plain
        return loss(model(input_ids=noisy_BL).logits, tokens_BL) * variant.weight(weight_BL)

    times = objectives.comb if variant.antithetic else independent
    with mock.patch.multiple(objectives, weighted_nll=weighted, comb=times):
        loss_B = objectives.masked(model, batch["input_ids"], batch["length"], None, batch["begin"])
    return loss_B.sum() / batch["length"].sum()


def autoregressive(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Nats per token."""
    loss_B = objectives.autoregressive(model, batch["input_ids"], batch["length"], None, batch["begin"])
    return loss_B.sum() / batch["length"].sum()


def train(
    model: Any, loss: Callable[[Any, Any], Tensor], stream: Any, seconds: float, rate: float, decay: float
) -> Any:
    """Train for so many seconds of the process, the rate a cosine of the time spent; return the model and the steps."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, betas=(0.9, 0.98))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
    model.train()
    began, steps = time.process_time(), 0
    while (spent := (time.process_time() - began) / seconds) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, spent / 0.03 + 0.01) * 0.5 * (1.0 + math.cos(math.pi * spent))
        value = loss(model, next(stream))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        steps += 1
        if average is not None:
            average.update_parameters(model)
    return (model if average is None else average.module), steps


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one variant and measure it."""
    variant = VARIANTS[name]
    recipe = TrainingRecipe(data=arguments.data, out="", seed=arguments.seed + variant.reseeded, **SMALL)
    recipe = replace(recipe, **variant.recipe)
    torch.manual_seed(recipe.seed)
    texts = read_texts(arguments.data)
    held_out = read_texts(arguments.validation)[:: arguments.every]
    tokenizer = build_word_tokenizer(texts, recipe.min_count)
    examples, scored = (encode_texts(part, tokenizer, recipe.canvas) for part in (texts, held_out))
    fragments = unseen_fragments(tokenizer, examples)
    collate = CanvasCollator(tokenizer.pad_token_id, recipe.canvas, full_share=recipe.full_share, seed=recipe.seed)
    if variant.packed:
        batched = packed(examples, recipe.batch_size, recipe.canvas, recipe.seed)
    else:
        batched = batches(examples, recipe.batch_size, name != MIXED, recipe.seed)
    stream = map(collate, batched)
    model, budget, before = make_model(recipe, tokenizer, fragments), arguments.seconds, 0
    if variant.conditioned:
        model = SelfConditioned(model.config)
    if variant.started:
        causal = make_model(replace(recipe, objective="autoregressive"), tokenizer, fragments)
        causal, before = train(causal, autoregressive, stream, AUTOREGRESSIVE_SHARE * budget, 2e-3, 0.0)
        model.load_state_dict(causal.state_dict())
        budget *= 1.0 - AUTOREGRESSIVE_SHARE
    model, steps = train(model, lambda m, b: masked(variant, m, b), stream, budget, 1e-3, variant.decay)
    found = evaluate_masked(copy.deepcopy(model), scored, tokenizer.pad_token_id, passes=arguments.passes)
    # Words and ends for what was tokens and ends, so that vocabularies compare.
    per_word = sum(example["length"] for example in scored) / sum(len(text.split()) + 1 for text in held_out)
    return {
        "variant": name,
        "steps": f"{before} + {steps}" if before else str(steps),
        "parameters, million": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}",
        "bound per token": f"{found['bound']:.3f}",
        BOUND: f"{found['bound'] * per_word:.3f}",
        LENGTH_FIRST: f"{found['length_first_bound'] * per_word:.3f}",
    }


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Both bounds per variant, the base as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.8 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [row["variant"] for row in rows]
    for shift, key, colour in ((-0.2, BOUND, "tab:blue"), (0.2, LENGTH_FIRST, "tab:cyan")):
        axes.barh(
            [i + shift for i in range(len(rows))], [float(row[key]) for row in rows], 0.38, color=colour, label=key
        )
    axes.axvline(float(rows[0][BOUND]), ls="--", color="black", lw=1)
    lows = [float(row[key]) for row in rows for key in (BOUND, LENGTH_FIRST)]
    axes.set(xlim=(min(lows) - 0.1, max(lows) + 0.05), xlabel="nats (less is better)")
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--work", default="runs/ablation", help="where finished variants are kept")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--every", type=int, default=4, help="score every so many held-out texts")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="ablation", help="of the files of results")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    folder = Path(arguments.work)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in tqdm(VARIANTS, unit="variant"):
        size = f"{arguments.seconds:.0f}s-every{arguments.every}-passes{arguments.passes}-seed{arguments.seed}"
        kept = folder / f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}-{size}.json"
        if not kept.is_file() and name in arguments.variants:
            kept.write_text(json.dumps(run(name, arguments)))
        if kept.is_file():
            rows.append(json.loads(kept.read_text()))
    settings = conditions(seconds=arguments.seconds, seed=arguments.seed, passes=arguments.passes)
    publish(
        arguments.name, "Training choices at equal time", list(rows[0]), [list(row.values()) for row in rows], settings
    )
    draw(RESULTS / f"{arguments.name}.png", rows)


if __name__ == "__main__":
    main()
