"""What one soft guide costs beside an unguided step: time at a tenth of the size, memory at a large vocabulary.

    python benchmarks/guide_cost.py [--rounds 5] [--steps 8]

Denoiser and guide have random weights and share their vocabulary; nothing is read from disk. Time: whole runs of the
pipeline, in turn in one process, and the ratio is that of the same round. Memory: what torch allocates at most during
a run of two steps, beyond the weights.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from _measure import peak, timed
from _report import conditions, publish
from transformers import BertConfig, BertForSequenceClassification

from constraints import Classifier
from guided_dlm import Constraint, GuidedPipeline, Vocabulary
from guided_dlm.denoisers import TransformerDenoiser
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig

SHAPES = {  # vocabulary, canvas, batch; width and layers of denoiser and guide
    "time": (32768, 128, 8, (512, 12), (128, 4)),
    "memory": (126464, 256, 1, (256, 2), (32, 1)),
}


def build(vocabulary: Vocabulary, canvas: int, width: int, layers: int) -> GuidedPipeline:
    config = DiffusionTransformerConfig(
        vocab_size=len(vocabulary), hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=64 * round(width * 8 / 3 / 64), max_position_embeddings=canvas,
        mask_token_id=vocabulary.mask_id,
    )  # fmt: skip
    return GuidedPipeline(TransformerDenoiser(DiffusionTransformer(config), vocabulary))


def classifier(size: int, canvas: int, width: int, layers: int) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=4 * width, max_position_embeddings=canvas + 2,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval().requires_grad_(False)


def cases(guide: BertForSequenceClassification, vocabulary: Vocabulary) -> dict[str, Constraint | None]:
    found: dict[str, Constraint | None] = {"unguided": None}
    for method in ("first_order", "relaxed", "straight_through"):
        found[method] = Classifier(guide, 1, strength=2.0, method=method, tokenizer=vocabulary)
    for support in (16, 256):
        found[f"relaxed, support {support}"] = Classifier(
            guide, 1, strength=2.0, method="relaxed", tokenizer=vocabulary, support=support
        )
    return found


def times(runs: dict[str, Callable[[int], object]], rounds: int, steps: int) -> dict[str, list[str]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first warms up
        for name, run in runs.items():
            spent = timed(partial(run, steps))
            seconds[name] += [spent] if turn else []
    rows = {}
    for name, own in seconds.items():
        ratios = sorted(a / b for a, b in zip(own, seconds["unguided"], strict=True))
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows[name] = [f"{statistics.median(own) / steps * 1e3:.0f}", ratio]
    return rows


def memories(runs: dict[str, Callable[[int], object]]) -> dict[str, list[str]]:
    held = {name: peak(partial(run, 2)) for name, run in runs.items()}
    return {name: [f"{own:.0f}", f"{own / held['unguided']:.2f}"] for name, own in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    found, sizes = {}, {}
    for kind, (size, canvas, batch, own, other) in SHAPES.items():
        torch.manual_seed(0)
        vocabulary = Vocabulary.from_tokens([b" %d" % i for i in range(size)], eos_id=0, pad_id=1, mask_id=2)
        pipeline, guide = build(vocabulary, canvas, *own), classifier(size, canvas, *other)
        weights = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (guide, pipeline.denoiser.model)]
        sizes[kind] = f"{weights[0]:.1f} of {weights[1]:.1f} M, V {size}, L {canvas}, B {batch}"
        runs: dict[str, Callable[[int], object]] = {
            name: lambda steps, wish=wish, pipeline=pipeline, batch=batch: pipeline(
                constraint=wish, num_samples=batch, steps=steps, sampler="ancestral"
            )
            for name, wish in cases(guide, vocabulary).items()
        }
        found[kind] = times(runs, arguments.rounds, arguments.steps) if kind == "time" else memories(runs)
    rows = [(name, *own, *found["memory"][name]) for name, own in found["time"].items()]
    header = ("guide", "step, ms", "time / unguided (range)", "peak, MiB", "peak / unguided")
    settings = conditions(rounds=arguments.rounds, steps=arguments.steps, seed=0, **sizes)
    publish("guide_cost", "Cost of one soft guide", header, rows, settings)


if __name__ == "__main__":
    main()
