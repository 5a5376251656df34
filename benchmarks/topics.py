"""Does `topics-en` write what its label says? Every label, by a judge that shares neither data nor features with it.

    python benchmarks/topics.py --held-out mixed/valid.jsonl.gz [--samples 20] [--steps 48] [--scale 2]

The judge is a logistic regression on vectors of a sentence encoder, fitted to the held-out texts. How often one calls
people's own texts by their label is said by two more, each fitted to one half of these and asked about the other; of
six settings (labels weighed alike or as they come, three penalties) that is taken which is right most often there, as a
mean of labels, so people's figure is the best of six. The first sample of each label is shown, unpicked.
"""

import argparse
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _judges import SentenceEncoder
from _report import RESULTS, conditions, publish
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from constraints import Length
from guided_dlm import GuidedPipeline
from guided_dlm.evaluation.copying import duplicates
from guided_dlm.training.data import read_lines
from guided_dlm.training.pairs import as_prompt

Settings = dict[str, Any]
MODEL = "topics-en"


def called(settings: Settings, vectors: np.ndarray, labels: list[str]) -> dict[str, list[bool]]:
    """Whether each text is called by its label, by judges of the other half of the texts."""
    found: dict[str, list[bool]] = {}
    for fitted, asked in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        judge = LogisticRegression(max_iter=2000, **settings).fit(vectors[fitted], labels[fitted])
        for label, one in zip(labels[asked], judge.predict(vectors[asked]), strict=True):
            found.setdefault(label, []).append(label == one)
    return found


def mean_of_labels(found: dict[str, list[bool]]) -> float:
    """Every label counts alike."""
    return statistics.fmean(map(statistics.fmean, found.values()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--corrector", default="p2")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--block-length", type=int)
    parser.add_argument("--words", type=int, default=1, help="the fewest words of a text")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = [line for line, _ in read_lines(arguments.held_out)]
    labels = [line["label"] for line in lines]
    encoder = SentenceEncoder()
    vectors = encoder.encode([line["text"] for line in lines])
    grid = [{"class_weight": weight, "C": C} for weight in (None, "balanced") for C in (1.0, 10.0, 100.0)]
    tried = [called(settings, vectors, labels) for settings in tqdm(grid, unit="judge")]
    people = max(tried, key=mean_of_labels)
    settings = grid[tried.index(people)]
    judge = LogisticRegression(max_iter=2000, **settings).fit(vectors, labels)
    pipeline = GuidedPipeline.from_pretrained(arguments.model)
    options: dict[str, Any] = {"steps": arguments.steps, "guidance_scale": arguments.scale}
    options |= {name: getattr(arguments, name) for name in ("corrector", "temperature", "block_length")}
    options |= {"num_samples": arguments.samples, "seed": arguments.seed}
    rows, shares = [], []
    for label in tqdm(sorted(people), unit="label"):
        texts = pipeline(as_prompt(label), Length(words=(arguments.words, None)), **options).texts
        found = judge.predict(encoder.encode(texts))
        shares.append(statistics.fmean(one == label for one in found))
        other, often = Counter(one for one in found if one != label).most_common(1)[0] if shares[-1] < 1 else ("", 0)
        human_share = f"{100 * statistics.fmean(people[label]):.0f} of {len(people[label])}"
        confused = f"{other} ({often})" if often else ""
        first = " ".join(texts[0].split()).replace("|", "\\|")
        rows.append((label, f"{100 * shares[-1]:.0f}", human_share, confused, f"{100 * duplicates(texts):.0f}", first))
    rows.append(
        ("mean of labels", f"{100 * statistics.fmean(shares):.1f}", f"{100 * mean_of_labels(people):.1f}", "", "", "")
    )
    said = conditions(model=Path(arguments.model).name, **options, fewest_words=arguments.words, judge=settings)
    header = ("label", "called so %", "people's %", "else mostly", "duplicates %", "first sample")
    name = "topics" if arguments.model == MODEL else f"topics_{Path(arguments.model).name}"
    publish(name, f"Labels of {Path(arguments.model).name}", header, rows, said)
    draw(name, sorted(people), shares, [statistics.fmean(people[label]) for label in sorted(people)])


def draw(name: str, labels: list[str], shares: list[float], people: list[float]) -> None:
    """Samples beside people's texts, label by label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.8 + 0.3 * len(labels)), layout="constrained")
    axes = figure.subplots()
    for shift, values, colour, whose in ((-0.2, shares, "tab:blue", "samples"), (0.2, people, "tab:grey", "people")):
        axes.barh([i + shift for i in range(len(labels))], [100 * v for v in values], 0.38, color=colour, label=whose)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="called by their label, %", xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
