"""Soft guidance: control under a judge that is no relative of the guide, fluency, diversity and cost.

    python benchmarks/guidance.py --data TRAIN --judge FOLDER [--value yes] [--samples 96] [--steps 32]

TRAIN is a file of {"text", "record"} lines. The guide learns the slot `--slot` from one half of them, as a small
transformer on noised tokens; the judge of control from the other half, as a logistic regression on character n-grams.
The judge of fluency is an autoregressive model of the same text (`guided-dlm train --objective autoregressive`).
Seconds are medians of interleaved rounds, beside an unguided run of the same samples.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import conditions, publish
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from constraints import Classifier
from guided_dlm import Constraint, GuidedPipeline
from guided_dlm.evaluation.fluency import Judge, diversity
from guided_dlm.training.data import read_lines
from guided_dlm.training.noisy_classifier import ClassifierRecipe, train_classifier

METHODS = ("first_order", "relaxed", "straight_through", "entropy_weighted", "exact")


def labelled(path: str, slot: str) -> list[dict[str, str]]:
    return [{"text": line["text"], "label": str(line["record"].get(slot, "absent"))} for line, _ in read_lines(path)]


def train_guide(lines: list[dict[str, str]], folder: Path, model: str) -> dict[str, Any]:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = ClassifierRecipe(data=str(data), out=str(folder / "guide"), model=model, epochs=4, learning_rate=2e-3)
    return train_classifier(recipe, progress=False)


def wishes(folder: Path, value: str, strengths: list[float]) -> dict[str, tuple[Constraint | None, int]]:
    guide = str(folder / "guide")
    found: dict[str, tuple[Constraint | None, int]] = {"unguided": (None, 1)}
    for strength in strengths:
        for method in METHODS:
            wish = Classifier(guide, value, strength=strength, method=method, top_k=4)
            found[f"{method}, {strength:g}"] = (wish, 1)
        found[f"relaxed, {strength:g}, 4 particles"] = (Classifier(guide, value, strength=strength), 4)
        reward = Classifier(guide, value, strength=strength, method="reward")
        found[f"reward, {strength:g}, 4 particles"] = (reward, 4)
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--model", default="restaurant-words")
    parser.add_argument("--slot", default="familyFriendly")
    parser.add_argument("--value", default="yes")
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--train", type=int, default=8000, help="lines for the guide, and as many for the judge")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    lines = labelled(arguments.data, arguments.slot)
    # Texts of one record stand together, so that the halves have different records.
    half = len(lines) // 2
    own, other = lines[:half][-arguments.train :], lines[half:][-arguments.train :]
    control = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)), LogisticRegression(C=20, max_iter=500)
    )
    control.fit([line["text"] for line in other[100:]], [line["label"] for line in other[100:]])
    fluency, pipeline, rows = Judge(arguments.judge), GuidedPipeline.from_pretrained(arguments.model), []
    with tempfile.TemporaryDirectory() as place:
        guide = train_guide(own, Path(place), arguments.model)
        seconds: dict[str, list[float]] = {}
        out: dict[str, Any] = {}
        table = wishes(Path(place), arguments.value, arguments.strengths)
        for turn in range(arguments.rounds):
            for name, (wish, particles) in table.items():
                began = time.perf_counter()
                found = pipeline(
                    constraint=wish,
                    particles=particles,
                    num_samples=arguments.samples,
                    steps=arguments.steps,
                    seed=turn,
                )
                seconds.setdefault(name, []).append(time.perf_counter() - began)
                out.setdefault(name, found)
                print(name, f"{seconds[name][-1]:.1f} s", flush=True)
        scorer = Classifier(str(Path(place) / "guide"), arguments.value)
        for name, found in out.items():
            texts = [text for text in found.texts if text.strip()]
            ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["unguided"], strict=True))
            judged = sum(control.predict(texts) == arguments.value) / len(texts)
            guided = sum(scorer.check(text) > -0.6931 for text in texts) / len(texts)
            rows.append(
                (
                    name,
                    f"{100 * judged:.1f}",
                    f"{100 * guided:.1f}",
                    f"{fluency.nll(texts):.2f}",
                    f"{diversity(texts).texts:.3f}",
                    f"{diversity(texts).bigrams:.3f}",
                    found.denoiser_calls,
                    f"{ratio:.2f}",
                )
            )
    header = ("guide, strength", "judge %", "guide %", "judge NLL", "distinct texts", "distinct-2", "denoiser calls")
    held_out = float(control.score([x["text"] for x in other[:100]], [x["label"] for x in other[:100]]))
    settings = conditions(
        slot=arguments.slot, value=arguments.value, samples=arguments.samples, steps=arguments.steps,
        rounds=arguments.rounds, judge_accuracy=held_out, guide=guide,
    )  # fmt: skip
    publish("guidance", "Soft guidance", (*header, "time / unguided"), rows, settings)


if __name__ == "__main__":
    main()
