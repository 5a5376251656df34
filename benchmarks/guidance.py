"""Soft guidance: control under a judge that is no relative of the guide, fluency, diversity and cost.

    python benchmarks/guidance.py slot --data E2E_TRAIN --judge FOLDER
    python benchmarks/guidance.py sentiment --data YELP_FOLDER --judge FOLDER
    python benchmarks/guidance.py topic --data TRAIN --held-out VALID --judge FOLDER --model MODEL

slot: a guide is trained on one half of the file as a small transformer on noised tokens, the judge of control on the
other half as a logistic regression on character n-grams. sentiment: the shipped `Sentiment`, learned from film and
product reviews, beside a judge of restaurant reviews. topic: labelled texts of a class-conditional model; the judge is
a logistic regression on sentence vectors, of the held-out texts. `--judge` is an autoregressive model for fluency:
`guided-dlm train --objective autoregressive`, or any causal language model of transformers. Each seed runs every case
in turn; seconds are ratios to the unguided run of the same seed.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from _control import HEADER, Case, draw, sample, table
from _judges import SentenceJudge, characters, yelp
from _report import conditions, publish

from constraints import Classifier, Sentiment, Topic
from guided_dlm import GuidedPipeline
from guided_dlm.classifiers import load_classifier
from guided_dlm.evaluation.fluency import Judge
from guided_dlm.training.data import read_lines
from guided_dlm.training.noisy_classifier import ClassifierRecipe, train_classifier
from guided_dlm.training.pairs import as_prompt

METHODS = ("first_order", "relaxed", "straight_through", "entropy_weighted", "exact")
LIKELY = -0.6931  # log 1/2


def train_guide(lines: list[dict[str, str]], folder: Path, model: str, **more: Any) -> dict[str, Any]:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = ClassifierRecipe(data=str(data), out=str(folder / "guide"), model=model, learning_rate=2e-3, **more)
    return train_classifier(recipe, progress=False)


def with_classifier(folder: str, value: str, strengths: list[float]) -> dict[str, Case]:
    module, _ = load_classifier(folder)
    found: dict[str, Case] = {"unguided": Case()}
    for strength in strengths:
        for method in METHODS:
            wish = Classifier(folder, value, strength=strength, method=method, top_k=4)
            found[f"{method} @ {strength:g}"] = Case(constraint=wish, guide=module)
        relaxed = Classifier(folder, value, strength=strength)
        found[f"relaxed, 4 particles @ {strength:g}"] = Case(constraint=relaxed, options={"particles": 4}, guide=module)
        reward = Classifier(folder, value, strength=strength, method="reward")
        found[f"reward, 4 particles @ {strength:g}"] = Case(constraint=reward, options={"particles": 4}, guide=module)
    return found


def slot(arguments: argparse.Namespace, place: Path) -> tuple[dict[str, Case], Any, Any, dict[str, Any]]:
    lines = [
        {"text": line["text"], "label": str(line["record"].get(arguments.slot, "absent"))}
        for line, _ in read_lines(arguments.data)
    ]
    # Texts of one record stand together, so that the halves have different records.
    half = len(lines) // 2
    own, other = lines[:half][-arguments.train :], lines[half:][-arguments.train :]
    control, accuracy = characters([line["text"] for line in other], [line["label"] for line in other])
    guide = train_guide(own, place, arguments.model, epochs=4)
    cases = with_classifier(str(place / "guide"), arguments.value, arguments.strengths)
    scorer = Classifier(str(place / "guide"), arguments.value)
    settings = {"slot": arguments.slot, "value": arguments.value, "judge_accuracy": accuracy, "guide": guide}
    return (
        cases,
        lambda texts: control.predict(texts) == arguments.value,
        lambda texts: [scorer.check(text) > LIKELY for text in texts],
        settings,
    )


def sentiment(arguments: argparse.Namespace, place: Path) -> tuple[dict[str, Case], Any, Any, dict[str, Any]]:
    judge, accuracy = characters(*yelp(arguments.data))
    planned = {"corrector": "p2"}
    cases: dict[str, Case] = {"unguided": Case(), "unguided, p2": Case(options=planned, base="unguided, p2")}
    for strength in arguments.strengths:
        wish = Sentiment(arguments.value, strength=strength)
        gradient = Sentiment(arguments.value, strength=strength / 4, method="relaxed")  # beyond it only noise grows
        cases[f"exact @ {strength:g}"] = Case(constraint=wish)
        cases[f"exact, p2 @ {strength:g}"] = Case(constraint=wish, options=planned, base="unguided, p2")
        cases[f"relaxed @ {strength / 4:g}"] = Case(constraint=gradient)
    particles = Sentiment(arguments.value, strength=arguments.strengths[0])
    name = f"exact, 4 particles @ {arguments.strengths[0]:g}"
    cases[name] = Case(constraint=particles, options={"particles": 4})
    return (
        cases,
        lambda texts: judge.predict([text.lower() for text in texts]) == arguments.value,
        lambda texts: [Sentiment(arguments.value).check(text) > LIKELY for text in texts],
        {"value": arguments.value, "judge_accuracy": accuracy},
    )


def topic(arguments: argparse.Namespace, place: Path) -> tuple[dict[str, Case], Any, Any, dict[str, Any]]:
    def read(path: str) -> tuple[list[str], list[str]]:
        lines = [line for line, _ in read_lines(path)]
        return [line["text"] for line in lines], [line["label"] for line in lines]

    value = arguments.value
    texts, labels = read(arguments.data)
    judge = SentenceJudge(*read(arguments.held_out))
    seen: Counter[str] = Counter()
    lines = []
    for text, label in zip(texts, labels, strict=True):
        seen[label] += 1
        if seen[label] <= arguments.train // 9:  # as many of each label
            lines.append({"text": text, "label": label})
    guide = train_guide(lines, place, arguments.model, epochs=4, layers=2, hidden_size=96)
    folder = str(place / "guide")
    module, _ = load_classifier(folder)
    examples = [text for text, label in zip(texts, labels, strict=True) if label == value][:400]
    others = [text for text, label in zip(texts, labels, strict=True) if label != value][::40]
    # Without its label a text has masks for a prompt, as in training: that is classifier-free guidance at scale 0.
    free = {"prompt": as_prompt(value), "guidance_scale": 0.0}
    planned = {"corrector": "p2"}
    cases = {
        "unguided": Case(options=free),
        "unguided, p2": Case(options=free | planned, base="unguided, p2"),
        "label as prompt": Case(options={"prompt": as_prompt(value)}),
    }
    guided: dict[str, Any] = {"options": free | planned, "base": "unguided, p2"}
    for strength in arguments.strengths:
        wish = Classifier(folder, value, strength=strength)
        words = Topic(examples=examples, background=others, strength=strength)
        cases[f"noise-aware classifier, p2 @ {strength:g}"] = Case(constraint=wish, guide=module, **guided)
        cases[f"Topic, exact, p2 @ {strength:g}"] = Case(constraint=words, **guided)
    for scale in (1.0, 1.5, 2.0, 3.0):
        options = {"prompt": as_prompt(value), "guidance_scale": scale, **planned}
        cases[f"classifier-free, p2 @ {scale:g}"] = Case(options=options, base="unguided, p2")
    scorer = Classifier(folder, value)
    return (
        cases,
        lambda found: [label == value for label in judge.predict(found)],
        lambda found: [scorer.check(text) > LIKELY for text in found],
        {"value": value, "judge_accuracy": judge.accuracy, "guide": guide},
    )


SUITES = {"slot": slot, "sentiment": sentiment, "topic": topic}
VALUES = {"slot": "yes", "sentiment": "positive", "topic": "film"}
STRENGTHS = {"slot": [1.0, 4.0, 16.0], "sentiment": [16.0, 32.0, 48.0], "topic": [4.0, 16.0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--data", required=True)
    parser.add_argument("--held-out")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--model", default="restaurant-words")
    parser.add_argument("--slot", default="familyFriendly")
    parser.add_argument("--value")
    parser.add_argument("--strengths", type=float, nargs="+")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=8000, help="lines for the guide (topic: a ninth for each label)")
    parser.add_argument("--only", nargs="+", help="cases whose names begin so, beside those that are unguided")
    arguments = parser.parse_args()
    arguments.value = arguments.value or VALUES[arguments.suite]
    arguments.strengths = arguments.strengths or STRENGTHS[arguments.suite]
    pipeline, fluency = GuidedPipeline.from_pretrained(arguments.model), Judge(arguments.judge)
    with tempfile.TemporaryDirectory() as place:
        cases, judge, guide, settings = SUITES[arguments.suite](arguments, Path(place))
        if arguments.only:
            kept = (*arguments.only, "unguided")
            cases = {name: case for name, case in cases.items() if name.startswith(kept)}
        found = sample(pipeline, cases, arguments.seeds, arguments.samples, arguments.steps)
        rows = table(cases, found, judge, guide, fluency)
    name = f"guidance_{arguments.suite}_{arguments.value}"
    title = f"Soft guidance: {arguments.suite}, {arguments.value}"
    draw(name, title, rows)
    settings = conditions(
        model=Path(arguments.model).name, samples=arguments.samples, steps=arguments.steps, seeds=arguments.seeds,
        fluency=Path(arguments.judge).name, **settings,
    )  # fmt: skip
    publish(name, title, HEADER, rows, settings)


if __name__ == "__main__":
    main()
