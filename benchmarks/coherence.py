"""Positions that contradict each other, and the cures: correctors, reranking and verified drafts, call for call.

    python benchmarks/coherence.py --judge FOLDER --data HELD_OUT [--other FOLDER]

`--judge` is an autoregressive model of the same texts; it also reranks and verifies, so the judgement of those two rows
is its own (`--other` is a second judge, a stranger to all rows). Each method runs once per number of steps and seed;
below it stands plain sampling with at least as many calls of the denoiser, which is what the method has to beat.
Acceptance is read by the model that wrote. The last row is what people wrote.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib.pyplot as plt
import torch
from _report import RESULTS, conditions, publish

from guided_dlm import GuidedPipeline
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import Denoiser
from guided_dlm.denoisers.causal import CausalModel
from guided_dlm.evaluation.coherence import (
    Proposals,
    introspective_acceptance,
    rest_law,
    self_acceptance,
    text_positions,
)
from guided_dlm.evaluation.fluency import Judge, diversity
from guided_dlm.samplers import CORRECTORS, Gibbs, Rerank, Rescore
from guided_dlm.training.data import read_lines

HEADER = (
    "method", "steps", "denoiser calls", "self-acceptance", "introspective", "judge NLL", "other judge",
    "distinct-1/2/3", "self-BLEU", "seconds",
)  # fmt: skip


@dataclass(kw_only=True)
class Found:
    """What one method wrote at one number of steps, seed by seed."""

    calls: list[int] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    introspective: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def methods(judge: Judge, causal: CausalModel) -> dict[str, dict[str, Any]]:
    """The options of each method."""
    correctors = {name: {"corrector": name} for name in CORRECTORS if name != "gibbs"}
    return {
        "plain": {},
        **correctors,
        "rescore, 2 x 4": {"corrector": Rescore(count=4, repeats=2, groups=2)},
        "gibbs, 8 at a time": {"corrector": Gibbs(group=8)},
        "rerank, 8 candidates": {"rerank": Rerank(score=judge.log_p, candidates=8)},
        "rerank, 32 candidates": {"rerank": Rerank(score=judge.log_p, candidates=32)},
        "verified drafts": {"verifier": causal},
    }


def read(denoiser: Denoiser, tokens: Any, proposals: Proposals | None) -> tuple[float, float | None]:
    """Self-acceptance and introspective acceptance of finished canvases."""
    canvas = Canvas.from_prompts([None] * len(tokens), denoiser.vocabulary, tokens.shape[1], denoiser.device)
    where_NL = text_positions(denoiser, tokens)
    law = rest_law(denoiser, replace(canvas, tokens_BL=tokens), where_NL)
    q = None if proposals is None else introspective_acceptance(law, proposals.q_NL, where_NL)
    return self_acceptance(law, where_NL), q


def run(pipeline: GuidedPipeline, options: dict[str, Any], steps: int, seeds: int, samples: int) -> Found:
    """Sample with every seed."""
    found = Found()
    for seed in range(seeds):
        proposals = Proposals()
        began = time.perf_counter()
        out = pipeline(num_samples=samples, steps=steps, seed=seed, callback=proposals, **options)
        found.seconds.append(time.perf_counter() - began)
        accepted, introspective = read(pipeline.denoiser, out.tokens, proposals)
        found.calls.append(out.denoiser_calls)
        found.accepted.append(accepted)
        found.introspective.append(introspective or 0.0)
        found.texts.extend(out.texts)
    return found


def row(name: str, steps: int, found: Found, judges: list[Judge | None]) -> tuple[Any, ...]:
    """One line of the table, with the range over seeds where there are several."""
    texts = [text for text in found.texts if text.strip()]
    spread = f" ({min(found.accepted):.3f} to {max(found.accepted):.3f})" if len(found.accepted) > 1 else ""
    has = diversity(texts)
    return (
        name,
        steps,
        f"{statistics.mean(found.calls):.0f}",
        f"{statistics.mean(found.accepted):.3f}{spread}",
        f"{statistics.mean(found.introspective):.3f}",
        *("n/a" if judge is None else f"{judge.nll(texts):.2f}" for judge in judges),
        f"{has.unigrams:.2f}/{has.bigrams:.2f}/{has.trigrams:.2f}",
        f"{has.self_bleu:.2f}",
        f"{statistics.mean(found.seconds):.1f}",
    )


def human(pipeline: GuidedPipeline, texts: list[str], judges: list[Judge | None]) -> tuple[Any, ...]:
    """The line of held-out text."""
    vocabulary, capacity = pipeline.denoiser.vocabulary, pipeline.denoiser.capacity or 64
    ids = [[*vocabulary.encode(text), vocabulary.eos_id] for text in texts]
    rows = [row + [vocabulary.pad_id] * (capacity - len(row)) for row in ids if len(row) <= capacity]
    accepted, _ = read(pipeline.denoiser, torch.tensor(rows), None)
    found = Found(calls=[0], accepted=[accepted], introspective=[0.0], texts=texts, seconds=[0.0])
    line = list(row("people", 0, found, judges))
    return (line[0], "n/a", "n/a", line[3], "n/a", *line[5:-1], "n/a")


def draw(rows: list[tuple[Any, ...]]) -> None:
    """Save self-acceptance against denoiser calls; plain sampling is the line to be above."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    plain = sorted((float(r[2]), float(r[3].split()[0])) for r in rows if r[0].startswith("plain"))
    axes.plot(*zip(*plain, strict=True), color="black", marker=".", label="plain sampling")
    names = sorted({r[0] for r in rows if not r[0].startswith(("plain", "people"))})
    for index, name in enumerate(names):
        points = [(float(r[2]), float(r[3].split()[0])) for r in rows if r[0] == name]
        axes.plot(*zip(*points, strict=True), linestyle=":", marker="os^Dv*PX<>hp"[index % 12], label=name)
    people = next(float(r[3].split()[0]) for r in rows if r[0] == "people")
    axes.axhline(people, color="gray", linewidth=0.8, label="people")
    axes.set(xlabel="denoiser calls", ylabel="self-acceptance", title="Coherence, call for call")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(RESULTS / "coherence.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="restaurant-words")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--other")
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--only", nargs="+", help="methods whose names begin so, beside plain sampling")
    arguments = parser.parse_args()
    pipeline, judge = GuidedPipeline.from_pretrained(arguments.model), Judge(arguments.judge)
    judges = [judge, Judge(arguments.other) if arguments.other else None]
    chosen = methods(judge, CausalModel.from_pretrained(arguments.judge))
    if arguments.only:
        chosen = {name: each for name, each in chosen.items() if name.startswith(("plain", *arguments.only))}
    fixed = {"temperature": arguments.temperature}
    rows, plain = [], set(arguments.steps)
    for steps in arguments.steps:
        for name, options in chosen.items():
            found = run(pipeline, options | fixed, steps, arguments.seeds, arguments.samples)
            rows.append(row(name, steps, found, judges))
            plain.add(min(64, round(statistics.mean(found.calls))))
            print(rows[-1], flush=True)
    for steps in sorted(plain - set(arguments.steps)):
        rows.append(row("plain", steps, run(pipeline, fixed, steps, arguments.seeds, arguments.samples), judges))
        print(rows[-1], flush=True)
    held_out = [line["text"] for line, _ in read_lines(arguments.data)]
    held_out = held_out[:: max(1, len(held_out) // arguments.samples)][: arguments.samples]  # neighbours share a record
    rows.append(human(pipeline, held_out, judges))
    draw(rows)
    settings = conditions(
        model=arguments.model, samples=arguments.samples, seeds=arguments.seeds, temperature=arguments.temperature
    )
    publish("coherence", "Coherence, and what raises it at equal calls", HEADER, rows, settings)


if __name__ == "__main__":
    main()
