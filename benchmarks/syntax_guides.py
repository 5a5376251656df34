"""Soft syntax beside hard: a reader of noisy canvases that pulls, automata that hold, and both at once.

    python benchmarks/syntax_guides.py --data control --judge runs/judge [--targets 5] [--samples 20] [--steps 32]

Targets, tasks and judges are those of `guided-dlm evaluate control`. The reader learned its universal tags and its
constituents from spaCy, of texts that are no target; spaCy's tagger also judges pos, so there NLTK's, the second judge,
is the fair one.
The reader's own verdict: the share of texts whose probability is above a half.
"""

import argparse
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
from _report import RESULTS, conditions, publish
from tqdm import tqdm

from constraints import SyntaxGuide
from guided_dlm import Constraint, GuidedPipeline
from guided_dlm.evaluation.control_scores import read_text
from guided_dlm.evaluation.control_tasks import Target, Task, find_tasks
from guided_dlm.evaluation.fluency import Judge

TASKS = ("pos", "spans", "tree")
HEADER = ("task", "guide", "control %", "second judge %", "reader's own %", "NLL", "distinct %", "time / unguided")
DIGITS = (1, 1, 1, 2, 1, 2)


def wishes(task: Task, target: Target, strengths: list[float], methods: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield what is compared for one target, by name."""
    (aspect,) = task.aspects
    hard = Constraint.from_config(aspect.config(target.values[aspect.name]))
    yield "none", None
    for method in methods:
        for strength in strengths:
            yield f"reader, {method} @ {strength:g}", SyntaxGuide(hard, strength=strength, method=method)
    yield "automaton", hard
    for strength in strengths:
        yield (
            f"automaton and reader, {methods[0]} @ {strength:g}",
            hard & SyntaxGuide(hard, strength=strength, method=methods[0]),
        )


def measure(pipeline: GuidedPipeline, judge: Judge, arguments: argparse.Namespace) -> list[tuple[Any, ...]]:
    """Return one row for each task and guide: means over targets."""
    found: defaultdict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    for task in find_tasks("e2e", TASKS):
        (aspect,) = task.aspects
        for target in tqdm(task.targets(arguments.data, arguments.targets), desc=task.name):
            free = math.nan
            reader = SyntaxGuide(Constraint.from_config(aspect.config(target.values[aspect.name])))
            for name, wish in wishes(task, target, arguments.strengths, arguments.methods):
                began = time.perf_counter()
                texts = pipeline(constraint=wish, num_samples=arguments.samples, steps=arguments.steps, seed=0).texts
                seconds = time.perf_counter() - began
                free = seconds if wish is None else free
                scores = aspect.scores([read_text(text) for text in texts], target.values[aspect.name])
                own = [reader.check(text) > math.log(0.5) for text in texts]
                found[task.name, name].append(
                    (
                        100 * statistics.mean(scores.published),
                        100 * statistics.mean(scores.second) if scores.second is not None else math.nan,
                        100 * statistics.mean(own),
                        judge.nll([text for text in texts if text.strip()]),
                        100 * len(set(texts)) / len(texts),
                        seconds / free,
                    )
                )
    return [(*key, *map(shown, map(statistics.mean, zip(*rows, strict=True)), DIGITS)) for key, rows in found.items()]


def shown(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def draw(rows: list[tuple[Any, ...]]) -> None:
    """Save control against fluency, one picture for each task."""
    figure, panels = plt.subplots(1, len(TASKS), figsize=(5 * len(TASKS), 4), layout="constrained")
    for axes, task in zip(panels, TASKS, strict=True):
        lines: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            if row[0] == task:
                lines[row[1].partition(" @ ")[0]].append((float(row[5]), float(row[2])))
        for index, (name, points) in enumerate(lines.items()):
            axes.plot(*zip(*points, strict=True), marker="os^Dv*"[index % 6], label=name)
        axes.set(title=task, xlabel="judge NLL, nats per token", ylabel="control under the judge, %")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    figure.savefig(RESULTS / "syntax_guides.png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="the folder of the control benchmark's targets")
    parser.add_argument("--judge", required=True, help="an autoregressive model of E2E")
    parser.add_argument("--targets", type=int, default=5)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--methods", nargs="+", default=["first_order", "relaxed"])
    arguments = parser.parse_args()
    pipeline = GuidedPipeline.from_pretrained("restaurant-words")
    rows = measure(pipeline, Judge(arguments.judge), arguments)
    facts = {name: getattr(arguments, name) for name in ("targets", "samples", "steps", "strengths", "methods")}
    publish("syntax_guides", "Soft and hard syntax", HEADER, rows, conditions(model="restaurant-words", **facts))
    draw(rows)


if __name__ == "__main__":
    main()
