"""Commit rules side by side: length, fluency, diversity and cost of unguided text.

    python benchmarks/samplers.py --judge FOLDER --human FILE [--model NAME] [--samples 512] [--steps 32]

The judge is an autoregressive model of the same text (`guided-dlm train DATA FOLDER --objective autoregressive`);
`--human` is held-out text for the human row. Shuffled human words show what bad text scores.
"""

import argparse
import random
import statistics
import time

from _report import conditions, publish

from guided_dlm import GuidedPipeline
from guided_dlm.evaluation.fluency import Judge, diversity
from guided_dlm.samplers.commit import RULES, Confidence
from guided_dlm.training.data import read_texts


def words(texts: list[str]) -> list[int]:
    return [sum(any(c.isalnum() for c in run) for run in text.split()) for text in texts]


def row(name: str, texts: list[str], judge: Judge, base: float | None, calls: object, seconds: object) -> tuple:
    counts = words(texts)
    mean = statistics.mean(counts)
    half = 1.96 * statistics.stdev(counts) / len(counts) ** 0.5
    kept = [text for text in texts if text.strip()]
    variety = diversity(texts)
    return (
        name,
        f"{mean:.1f} +- {half:.1f}",
        f"{mean / base:.3f}" if base else "",
        f"{judge.nll(kept):.2f}",
        f"{variety.texts:.3f}",
        f"{variety.unigrams:.3f} / {variety.bigrams:.3f} / {variety.trigrams:.3f}",
        len(texts) - len(kept),
        calls,
        seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--judge", required=True)
    parser.add_argument("--human", required=True)
    parser.add_argument("--model", default="restaurant-words")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    judge, pipeline = Judge(arguments.judge), GuidedPipeline.from_pretrained(arguments.model)
    rules = {
        "ancestral": RULES["ancestral"],
        "random": RULES["random"],
        "confidence (default)": RULES["confidence"],
        "confidence, tail ranked in": Confidence(tail_apart=False, end_first=False),
        "llada": RULES["llada"],
        "entropy_bound": RULES["entropy_bound"],
    }
    rows, base = [], None
    for name, rule in rules.items():
        began = time.perf_counter()
        out = pipeline(
            num_samples=arguments.samples,
            steps=arguments.steps,
            temperature=arguments.temperature,
            sampler=rule,
            seed=arguments.seed,
        )
        seconds = time.perf_counter() - began
        base = base or statistics.mean(words(out.texts))
        rows.append(row(name, out.texts, judge, base, out.denoiser_calls, f"{seconds:.1f}"))
    human = random.Random(0).sample(read_texts(arguments.human), arguments.samples)
    human = [text for text in human if len(text.split()) < (pipeline.denoiser.capacity or 64)]
    rows.append(row("human, held out", human, judge, base, "", ""))
    shuffled = [" ".join(random.Random(i).sample(t.split(), len(t.split()))) for i, t in enumerate(human)]
    rows.append(row("human, words shuffled", shuffled, judge, base, "", ""))
    header = (
        "rule",
        "words (95 % interval)",
        "/ ancestral",
        "judge NLL",
        "distinct texts",
        "distinct-1 / 2 / 3",
        "empty",
        "denoiser calls",
        "seconds",
    )
    settings = conditions(
        model=arguments.model,
        samples=arguments.samples,
        steps=arguments.steps,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )
    publish("samplers", "Commit rules on unguided text", header, rows, settings)


if __name__ == "__main__":
    main()
